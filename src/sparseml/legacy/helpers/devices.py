"""Choosing devices and putting models on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

__all__ = [
    "default_device",
    "device_to_name_ids",
    "is_parallel_model",
    "model_to_device",
    "parallelize_model",
]


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
        module = super().__getattr__("module")
        if item == "module":
            return module
        try:
            return super().__getattr__(item)
        except AttributeError:
            return getattr(module, item)


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

    :param device: a device text as :func:`device_to_name_ids` takes, or with ``ddp`` the rank
    :param ddp: wrap in DistributedDataParallel on the GPU of that rank
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
