"""How sparse a model is, and gradients of it sampled from data."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from torch import Tensor, nn
from tqdm.auto import tqdm

from sparseml.pytorch.utils.layers import (
    get_quantizable_layers,
    get_quantized_layers,
    is_quantized_layer,
)
from sparseml.pytorch.utils.names import canonical_name
from sparseml.pytorch.utils.params import distinct_params, names_of, prunable_params
from sparseml.pytorch.utils.tensors.stats import count_zeros, tensor_sparsity

_LOGGER = logging.getLogger(__name__)


def _percentage(part: str, whole: str) -> Any:
    def get(info: Any) -> float:
        total = getattr(info, whole)
        return 100.0 * getattr(info, part) / total if total else 0.0

    return property(get, doc=f"``{part}`` as a percentage of ``{whole}``.")


class ModuleSparsificationInfo:
    """Counts of zero, prunable and quantized parameters of a model.

    Only parameters that require gradients count; tied weights count once, and a parameter without
    elements has sparsity 0. Percentages run from 0 to 100. ``str()`` gives everything as JSON.

    :param module: the model
    :param state_dict: values to look at instead of the model's own, by name (levels added by
        wrappers do not matter); parameters that it lacks are taken from the model
    :raises ValueError: when counting zeros of parameters on the meta device
    """

    def __init__(self, module: nn.Module, state_dict: Mapping[str, Tensor] | None = None):
        self.module = module
        given = {canonical_name(key): value for key, value in (state_dict or {}).items()}
        self._values = {
            id(found.param): given.get(canonical_name(found.name), found.param).detach()
            for found in distinct_params(module)
            if found.param.requires_grad
        }

    def __str__(self) -> str:
        summary = {
            "total": self.params_total,
            "sparse": self.params_sparse,
            "sparsity_percent": self.params_sparse_percent,
            "prunable": self.params_prunable_total,
            "prunable_sparse": self.params_prunable_sparse,
            "prunable_sparsity_percent": self.params_prunable_sparse_percent,
            "quantizable": self.params_quantizable,
            "quantized": self.params_quantized,
            "quantized_percent": self.params_quantized_percent,
        }
        return json.dumps({"params_summary": summary, "params_info": self.params_info}, indent=2)

    @property
    def trainable_params(self) -> list[Tensor]:
        """Values of the parameters that require gradients."""
        return list(self._values.values())

    @property
    def params_total(self) -> int:
        """Number of parameters."""
        return _numel(self.trainable_params)

    @property
    def params_sparse(self) -> int:
        """Number of parameters that are zero."""
        return sum(map(count_zeros, self.trainable_params))

    @property
    def params_prunable_total(self) -> int:
        """Number of weights of prunable layers."""
        return _numel(self._prunable_weights())

    @property
    def params_prunable_sparse(self) -> int:
        """Number of weights of prunable layers that are zero."""
        return sum(map(count_zeros, self._prunable_weights()))

    @property
    def params_quantizable(self) -> int:
        """Number of parameters (weights and biases) of quantizable layers."""
        return _numel(self._params_of(get_quantizable_layers(self.module)))

    @property
    def params_quantized(self) -> int:
        """Number of parameters of quantizable layers that are quantized."""
        return _numel(self._params_of(get_quantized_layers(self.module)))

    params_sparse_percent = _percentage("params_sparse", "params_total")
    params_prunable_sparse_percent = _percentage("params_prunable_sparse", "params_prunable_total")
    params_quantized_percent = _percentage("params_quantized", "params_quantizable")

    @property
    def params_info(self) -> dict[str, dict[str, Any]]:
        """Per prunable layer: ``"<layer>.weight"`` → ``numel``, ``sparsity`` and ``quantized``."""
        return {
            names_of(found)[-1]: {
                "numel": value.numel(),
                "sparsity": float(tensor_sparsity(value)),
                "quantized": is_quantized_layer(found.layer),
            }
            for found in prunable_params(self.module)
            for value in self._values_of([found.param])
        }

    def _values_of(self, params: Iterable[Any]) -> list[Tensor]:
        known = {id(param): self._values.get(id(param)) for param in params if param is not None}
        return [value for value in known.values() if value is not None]

    def _prunable_weights(self) -> list[Tensor]:
        return self._values_of(found.param for found in prunable_params(self.module))

    def _params_of(self, layers: Sequence[tuple[str, nn.Module]]) -> list[Tensor]:
        return self._values_of(
            param for _, layer in layers for param in (layer.weight, getattr(layer, "bias", None))
        )


def _numel(values: Sequence[Tensor]) -> int:
    return sum(value.numel() for value in values)


class GradSampler:
    """Computes gradients of a model on samples of data, one at a time.

    :param data_loader: an iterable of ``(forward_args, forward_kwargs, loss_target)``, or a
        callable that returns one
    :param loss_fn: called with the model's output (its first element, if that is a tuple) and the
        target; returns a scalar tensor
    :raises ValueError: if ``data_loader`` or ``loss_fn`` is of another kind
    """

    def __init__(
        self,
        data_loader: Iterable[Any] | Callable[[], Iterable[Any]],
        loss_fn: Callable[[Any, Any], Tensor],
    ):
        if not isinstance(data_loader, Iterable) and not callable(data_loader):
            needed, found = "an iterable or a callable that returns one", type(data_loader).__name__
            raise ValueError(f"data_loader must be {needed}, found {found}")
        if not callable(loss_fn):
            raise ValueError(f"loss_fn must be callable, found {type(loss_fn).__name__}")
        self._data_loader = data_loader
        self._loss_fn = loss_fn

    def iter_module_backwards(
        self, module: nn.Module, num_grads: int, progress_bar: bool = True
    ) -> Generator[int, None, None]:
        """Yield 1, 2, ... ``num_grads``, each time with a new gradient in ``module``'s parameters.

        Gradients are cleared before each sample and at the end. The mode of the module (training
        or eval) is the caller's business. When the data end early a warning is logged and the
        generator ends.
        """
        loader = self._data_loader() if callable(self._data_loader) else self._data_loader
        count, samples = 0, islice(loader, max(num_grads, 0))
        with tqdm(total=num_grads, disable=not progress_bar, desc="Sampling gradients") as bar:
            for count, (args, kwargs, target) in enumerate(samples, start=1):
                module.zero_grad()
                self.backward(module, args, kwargs, target)
                bar.update(1)
                yield count
        if count < num_grads:
            hint = "the data ended after %d of %d gradients; give more data or ask for fewer"
            _LOGGER.warning(hint, count, num_grads)
        module.zero_grad()

    def backward(
        self, module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], target: Any
    ) -> None:
        """Run one sample forward and backward; subclasses may do so in mixed precision."""
        output = module(*args, **kwargs)
        if type(output) is tuple:  # a named tuple is a model's own kind of output
            output = output[0]
        self._loss_fn(output, target).backward()
