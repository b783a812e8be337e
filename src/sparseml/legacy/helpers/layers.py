"""Finding layers of a kind, and putting models on devices."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parallel import DataParallel, DistributedDataParallel

from sparseml.pytorch.utils.layers import evaluating, get_layer
from sparseml.pytorch.utils.names import canonical_named_modules, unwrap_module


def get_layer_param(param: str, layer: str, module: nn.Module) -> nn.Parameter:
    """Return the attribute ``param`` of a named layer; an AttributeError names what it has."""
    owner = unwrap_module(get_layer(layer, module), root=not layer)
    try:
        return getattr(owner, param)
    except AttributeError:
        own = ", ".join(name for name, _ in owner.named_parameters(recurse=False)) or "none"
        where = f"layer {layer!r} ({type(owner).__name__})"
        raise AttributeError(f"{where} has no parameter {param!r}; it has {own}") from None


def _layers_of_type(module: nn.Module, kind: type) -> dict[str, nn.Module]:
    layers = canonical_named_modules(module)
    return {name: layer for name, layer in layers if isinstance(layer, kind)}


def get_conv_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the convolutions of ``module`` (any dimension, transposed ones too), by name."""
    return _layers_of_type(module, _ConvNd)


def get_linear_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the ``Linear`` layers of ``module`` by name."""
    return _layers_of_type(module, nn.Linear)


def get_dependency_order(
    layer: nn.Module, subset: Iterable[str], an_input: Any, **kwargs: Any
) -> list[str]:
    """Return the names in ``subset`` in the order that ``layer(an_input, **kwargs)`` reaches them.

    The layer runs in eval mode.
    """
    order: dict[str, None] = {}
    with ExitStack() as hooks, evaluating(layer), torch.no_grad():
        for name in subset:
            record: Any = lambda *_, name=name: order.setdefault(name)  # noqa: E731
            hooks.enter_context(get_layer(name, layer).register_forward_pre_hook(record))
        layer(an_input, **kwargs)
    return list(order)


def default_device() -> str:
    """Return ``"cpu"``, ``"cuda"``, or ``"cuda:0,1,..."`` when there are several GPUs."""
    if not torch.cuda.is_available():
        return "cpu"
    count = torch.cuda.device_count()
    return "cuda" if count < 2 else f"cuda:{','.join(map(str, range(count)))}"


def device_to_name_ids(device: str) -> tuple[str, list[int] | None]:
    """Split a device text into torch's name and the GPUs to spread over.

    ``"cpu"`` → ``("cpu", None)``; ``"cuda"`` → ``("cuda", None)``; ``"cuda:1"`` →
    ``("cuda:1", None)``; ``"cuda:0,1"`` → ``("cuda", [0, 1])``.

    :raises ValueError: for a device that torch does not know or that is not available
    """
    device = str(device)
    name, _, ids_text = device.partition(":")
    if name != "cuda":
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"device {device!r} is not available: {reason}") from error
        return device, None
    if not torch.cuda.is_available():
        raise ValueError(f"device {device!r} is not available: torch finds no CUDA")
    if not ids_text:
        return name, None
    try:
        ids = [int(text) for text in ids_text.split(",")]
    except ValueError:
        raise ValueError(f"device must be like 'cuda:0' or 'cuda:0,1', found {device!r}") from None
    count = torch.cuda.device_count()
    if any(not 0 <= index < count for index in ids):
        raise ValueError(f"device {device!r} is not available: torch finds {count} GPUs")
    return (f"cuda:{ids[0]}", None) if len(ids) == 1 else (name, ids)


class _DataParallel(DataParallel):
    """DataParallel whose missing attributes are looked up in the model inside."""

    def __getattr__(self, item: str) -> Any:
        try:
            return super().__getattr__(item)
        except AttributeError:
            return getattr(super().__getattr__("module"), item)


def parallelize_model(model: nn.Module, ids: list[int] | None) -> nn.Module:
    """Wrap ``model`` in DataParallel over the GPUs ``ids``; its attributes stay reachable."""
    return _DataParallel(model, ids)


def is_parallel_model(model: nn.Module) -> bool:
    """Whether ``model`` is wrapped in DataParallel or DistributedDataParallel."""
    return isinstance(model, (DataParallel, DistributedDataParallel))


def model_to_device(
    model: nn.Module, device: str | int, ddp: bool = False
) -> tuple[nn.Module, str | int, list[int] | None]:
    """Move ``model`` to ``device``, over several GPUs if it names several.

    :param device: what :func:`device_to_name_ids` takes; with ``ddp`` the rank, on whose GPU the
        model is wrapped in DistributedDataParallel
    :return: the model, torch's name of the device, and the GPUs it is spread over (or None)
    :raises ValueError: for a device that is not available, or ``ddp`` without an int rank
    """
    if ddp:
        if not isinstance(device, int):
            raise ValueError(f"with ddp, device must be the rank as an int, found {device!r}")
        moved = model.to(device)
        return DistributedDataParallel(moved, device_ids=[device]), device, None
    name, ids = device_to_name_ids(f"cuda:{device}" if isinstance(device, int) else device)
    if ids is not None:
        # DataParallel wants the model on the first of its GPUs
        return parallelize_model(model.to(f"cuda:{ids[0]}"), ids), name, ids
    return model.to(name), name, None
