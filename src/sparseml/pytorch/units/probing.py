"""Running a model on sample inputs: to find what belongs together, and to see that it may go."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.pytorch.units.group import UnitGroup
from sparseml.pytorch.utils.layers import evaluating
from sparseml.pytorch.utils.names import unwrap_module

_TOLERANCE = 1e-4
_BATCH = 2

Removal = Callable[[nn.Module, Mapping[UnitGroup, Tensor]], Any]


def call_model(model: nn.Module, example_inputs: Any) -> list[Tensor]:
    """The tensors that ``model`` returns, however they are nested."""
    if isinstance(example_inputs, Mapping):
        return list(tensors_in(model(**example_inputs)))
    given = example_inputs if isinstance(example_inputs, (tuple, list)) else [example_inputs]
    return list(tensors_in(model(*given)))


def tensors_in(nested: Any) -> Iterator[Tensor]:
    """Yield the tensors of nested mappings, tuples and lists; all else is passed over."""
    if isinstance(nested, Tensor):
        yield nested
    values = nested.values() if isinstance(nested, Mapping) else nested
    if isinstance(nested, (Mapping, tuple, list)):
        for value in values:
            yield from tensors_in(value)


def sample_inputs(model: nn.Module) -> Any:
    """Return small inputs for a model that says what it takes, as those of transformers and timm.

    :raises ValueError: for a model that does not
    """
    param = next(model.parameters(), torch.empty(0))
    accepted = inspect.signature(model.forward).parameters
    config = getattr(model, "config", None)
    size = getattr(config, "image_size", None)
    if "input_ids" in accepted and isinstance(getattr(model, "dummy_inputs", None), dict):
        inputs = {name: ids.to(param.device) for name, ids in model.dummy_inputs.items()}  # type: ignore[union-attr, operator]
        return {name: ids for name, ids in inputs.items() if name in accepted}
    if "pixel_values" in accepted and size:
        sides: Any = size if isinstance(size, (tuple, list)) else (size, size)
        shape = (_BATCH, getattr(config, "num_channels", 3), *sides)
        return {"pixel_values": _noise(shape, param)}
    described = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    if isinstance(described, Mapping) and described.get("input_size"):
        built: Any = getattr(getattr(model, "patch_embed", None), "img_size", None)
        channels, *usual = described["input_size"]
        return _noise((_BATCH, channels, *(built or usual)), param)
    raise ValueError(
        f"give example_inputs: a {type(model).__name__} does not say what it takes; allowed is a "
        "tensor, a tuple of positional or a dict of keyword arguments"
    )


def with_values(model: nn.Module) -> nn.Module:
    """Return ``model``, or where it is on the meta device a copy on the CPU, filled at random."""
    if not any(param.is_meta for param in model.parameters()):
        return model
    filled = copy.deepcopy(unwrap_module(model, root=True)).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for param in filled.parameters():
            # what flows through many layers neither vanishes nor explodes
            inputs = param.numel() // max(len(param), 1) if param.ndim > 1 else 0
            param.normal_(0.0, inputs**-0.5, generator=generator) if inputs else param.fill_(0.5)
        for name, buffer in filled.named_buffers():
            buffer.fill_(1 if name.endswith("running_var") else 0)
    return filled


def _noise(shape: tuple[int, ...], like: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator).to(like.device, like.dtype)


def few_samples(model: nn.Module, example_inputs: Any) -> Any:
    """Return the first two samples of inputs, which tell as much of a model as all of them.

    :param example_inputs: a tensor, a tuple of positional or a dict of keyword arguments; returned
        as it is if the model does not take it without the others
    """
    named = isinstance(example_inputs, Mapping)
    given = (
        example_inputs if named or isinstance(example_inputs, (tuple, list)) else [example_inputs]
    )
    pairs = dict(given) if named else dict(enumerate(given))
    sizes = [len(one) for one in pairs.values() if isinstance(one, Tensor) and one.ndim]
    if not sizes or sizes[0] <= _BATCH:
        return example_inputs
    for key, one in pairs.items():
        if isinstance(one, Tensor) and one.ndim and len(one) == sizes[0]:
            pairs[key] = one[:_BATCH]
    fewer = pairs if named else tuple(pairs.values())
    try:
        with evaluating(model), torch.no_grad():
            call_model(model, fewer)
    except Exception:  # whatever a model says to inputs that do not fit each other
        return example_inputs
    return fewer


def removal_fault(
    model: nn.Module,
    find: Callable[[nn.Module], Iterable[UnitGroup]],
    removal: Removal,
    example_inputs: Any,
) -> str:
    """Return what goes wrong when every second unit is zeroed and removed, or ``""``.

    This is tried on a copy.

    :param find: returns the groups of the copy
    """
    probe = copy.deepcopy(model).eval()
    params = dict(probe.named_parameters())
    with torch.no_grad():
        try:
            units = list(find(probe))
            for group in units:
                for member in group.members:
                    if not member.follows:
                        odd = (member.index % 2 == 1) & (member.index >= 0)
                        params[member.param].movedim(member.dim, 0)[odd] = 0
            before = call_model(probe, example_inputs)
            removal(probe, {group: torch.arange(group.size) % 2 == 0 for group in units})
            after = call_model(probe, example_inputs)
        except Exception as error:  # a model may refuse other sizes in any way, also by assert
            return f"removal breaks the model: {error}"
    return _difference(before, after)


def _difference(before: list[Tensor], after: list[Tensor]) -> str:
    for old, new in zip(before, after, strict=True):
        if old.shape != new.shape:
            return "its channels are outputs of the model"
        off = (old - new).abs().max().item() if old.is_floating_point() and old.numel() else 0.0
        if not off <= _TOLERANCE * max(1.0, old.abs().max().item()):
            return f"removal changes the outputs, by up to {off:.1e}"
    return ""
