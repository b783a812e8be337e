"""What a model is like: zeros of its layers, parameters, size, operations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from sparseml.pytorch.sparsification.planning import Prunes, final_sparsities
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.pytorch.utils.params import distinct_params, prunable_params
from sparseml.pytorch.utils.tensors.stats import count_zeros
from sparseml.report.flops import count_flops
from sparseml.report.schema import Layer, Variant
from sparseml.report.storage import measure_storage

__all__ = ["describe_model", "layer_sparsities"]

_Asked = tuple[float | None, str]


def describe_model(
    model: nn.Module,
    metrics: Mapping[str, float] | None = None,
    inputs: Any = None,
    description: str | None = None,
    samples: int | None = None,
    trained: bool | None = None,
) -> Variant:
    """Count and measure what does not depend on the machine.

    :param metrics: what evaluation found, the most telling first; fractions rather than per cent
    :param inputs: a batch to count floating-point operations on; None to leave that out
    :param description: what this form of the model is, in a few words
    :param samples: how many the metrics were measured on; without, reports cannot tell differences
        from chance
    :param trained: whether the weights were trained or loaded, rather than just initialised;
        reports measure other models only against one that was
    """
    params = [found.param for found in distinct_params(model)]
    total = sum(param.numel() for param in params)
    return Variant(
        description=description,
        metrics=dict(metrics or {}),
        samples=samples,
        trained=trained,
        parameters=total,
        nonzero=total - sum(map(count_zeros, params)),
        storage=measure_storage(unwrap_module(model, root=True).state_dict()),
        flops=None if inputs is None else count_flops(model, inputs),
    )


def layer_sparsities(model: nn.Module, manager: Any = None) -> list[Layer]:
    """Return the zeros of each parameter that may be pruned, with the sparsity asked for.

    Listed are the weights of prunable layers and what else the manager's modifiers select, in the
    model's order; tied weights once.

    :param manager: of the recipe that the model was pruned with, to tell what was asked
    :raises RuntimeError: if a pattern of the recipe matches nothing in the model
    """
    asked = _asked(model, manager)
    prunable = {id(found.param) for found in prunable_params(model)}
    found = []
    for owned in distinct_params(model):
        if id(owned.param) not in prunable | asked.keys():
            continue
        sparsity, scope = asked.get(id(owned.param), (None, None))
        found.append(
            Layer(
                name=owned.name,
                kind=type(owned.layer).__name__,
                shape=list(owned.param.shape),
                parameters=owned.param.numel(),
                zeros=count_zeros(owned.param.detach()),
                asked=sparsity,
                scope=scope,
            )
        )
    return found


def _asked(model: nn.Module, manager: Any) -> dict[int, _Asked]:
    asked: dict[int, _Asked] = {}
    for modifier in [] if manager is None else manager.pruning_modifiers:
        if not isinstance(modifier, Prunes):
            continue
        scope = "global" if modifier.global_sparsity else "layer"
        try:
            found = final_sparsities(modifier, model)
        except ValueError:  # masks need not fit what has been made smaller since
            continue
        asked |= {id(selected.param): (sparsity, scope) for selected, sparsity in found}
    return asked
