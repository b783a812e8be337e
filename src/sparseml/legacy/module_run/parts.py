"""The parts of a run of a module over data: batches, hooks, replaceable steps, results, devices."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import cycle, islice
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparseml.legacy.helpers.tensors import tensors_to_device
from sparseml.legacy.module_run.losses import DEFAULT_LOSS_KEY
from sparseml.pytorch.utils.tensors.nested import tensors_batch_size, tensors_module_forward

_Batch = TypeVar("_Batch")
_Hook = Callable[..., Any]
_DATA = "counter, step_count, batch_size, data"


def def_model_backward(losses: Mapping[str, Tensor], model: nn.Module, scaler: Any = None) -> None:
    """Run backward from the loss ``__loss__``, scaled by ``scaler`` in mixed precision."""
    loss = losses[DEFAULT_LOSS_KEY]
    (loss if scaler is None else scaler.scale(loss)).backward()


@dataclass
class ModuleDeviceContext:
    """How a run uses its devices: ``torch.autocast`` or not, and the number of processes.

    :raises AssertionError: for a precision that is no bool, a size that is no positive int
    """

    use_mixed_precision: bool = False
    world_size: int = 1

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "use_mixed_precision" and not isinstance(value, bool):
            raise AssertionError(f"use_mixed_precision must be a bool, found {value!r}")
        if name == "world_size" and not (type(value) is int and value > 0):
            raise AssertionError(f"world_size must be a positive int, found {value!r}")
        super().__setattr__(name, value)

    @classmethod
    def default_context(cls) -> ModuleDeviceContext:
        """Return that of one process in full precision."""
        return cls()


def _registering(point: str, doc: str) -> Any:
    def register(self: ModuleRunHooks, hook: _Hook) -> RemovableHandle:
        hooks = self._hooks[point]
        handle = RemovableHandle(hooks)
        hooks[handle.id] = hook
        return handle

    register.__doc__ = f"Call ``hook({doc})``; return its handle."
    return register


def _invoking(point: str) -> Any:
    def invoke(
        self: ModuleRunHooks,
        counter: int,
        step_count: int,
        batch_size: int,
        data: Any,
        pred: Any,
        losses: Mapping[str, Tensor],
    ) -> None:
        self._invoke(point, counter, step_count, batch_size, data, pred, losses)

    return invoke


class ModuleRunHooks:
    """Functions called at five points of every batch, in the order of registration.

    ``invoke_batch_*`` calls them with ``(counter, step_count, batch_size, data)``, the batch being
    on its device, from the forward pass on also with the output, from the loss on with the losses.
    """

    def __init__(self) -> None:
        self._hooks: dict[str, OrderedDict[int, _Hook]] = {
            point: OrderedDict() for point in ("start", "forward", "loss", "backward", "end")
        }

    register_batch_start_hook = _registering("start", _DATA)
    register_batch_forward_hook = _registering("forward", f"{_DATA}, pred")
    register_batch_loss_hook = _registering("loss", f"{_DATA}, pred, losses")
    register_batch_backward_hook = _registering("backward", f"{_DATA}, pred, losses")
    register_batch_end_hook = _registering("end", f"{_DATA}, pred, losses")

    def invoke_batch_start(self, counter: int, step_count: int, batch_size: int, data: Any) -> None:
        self._invoke("start", counter, step_count, batch_size, data)

    def invoke_batch_forward(
        self, counter: int, step_count: int, batch_size: int, data: Any, pred: Any
    ) -> None:
        self._invoke("forward", counter, step_count, batch_size, data, pred)

    invoke_batch_loss = _invoking("loss")
    invoke_batch_backward = _invoking("backward")
    invoke_batch_end = _invoking("end")

    def _invoke(self, point: str, *args: Any) -> None:
        for hook in list(self._hooks[point].values()):  # a copy, since a hook may remove itself
            hook(*args)


@dataclass
class ModuleRunFuncs:
    """The steps of a run, each of which may be replaced.

    :param batch_size: ``(data) -> int``
    :param to_device: ``(data, device) -> data``
    :param model_forward: ``(data, module) -> output``
    :param model_backward: ``(losses, module, scaler=None)``
    """

    batch_size: Callable[[Any], int] = tensors_batch_size
    to_device: Callable[[Any, Any], Any] = tensors_to_device
    model_forward: Callable[[Any, nn.Module], Any] = tensors_module_forward
    model_backward: Callable[..., None] = def_model_backward

    def copy(self, run_funcs: ModuleRunFuncs) -> None:
        """Take over the functions of ``run_funcs``."""
        for field in fields(ModuleRunFuncs):
            setattr(self, field.name, getattr(run_funcs, field.name))


class ModuleRunResults:
    """The losses and metrics of a run, one value per sample."""

    def __init__(self) -> None:
        self.results: dict[str, list[Tensor]] = {}
        """By name one tensor a batch, of its size, on the CPU."""

    def __repr__(self) -> str:
        means = {key: round(float(self.result_mean(key)), 6) for key in self.results}
        return f"{type(self).__name__}({means})"

    def append(self, losses: Mapping[str, Tensor], batch_size: int) -> None:
        """Add the values of a batch; each is repeated ``batch_size`` times."""
        for key, value in losses.items():
            values = value.detach().cpu().reshape(1).repeat(batch_size)
            self.results.setdefault(key, []).append(values)

    def result(self, key: str) -> list[Tensor]:
        """Return the tensors of ``key``, one a batch; a KeyError names the keys that there are."""
        if key not in self.results:
            raise KeyError(f"no result {key!r}; there are {', '.join(self.results) or 'none'}")
        return self.results[key]

    def result_list_tensor(self, key: str) -> Tensor:
        """Return the values of ``key`` for all samples, ``[samples]``."""
        return torch.cat(self.result(key))

    def result_mean(self, key: str) -> Tensor:
        """Return the mean of ``key`` over the samples (0-d)."""
        return self.result_list_tensor(key).float().mean()

    def result_std(self, key: str) -> Tensor:
        """Return the standard deviation of ``key`` over the samples (0-d)."""
        return self.result_list_tensor(key).float().std()


def early_stop_data_loader(
    data_loader: Iterable[_Batch], early_stop_steps: int
) -> Iterator[_Batch]:
    """Yield at most ``early_stop_steps`` batches of ``data_loader``; all of them when below 1."""
    yield from islice(data_loader, early_stop_steps if early_stop_steps > 0 else None)


def infinite_data_loader(
    data_loader: Iterable[_Batch], early_stop_steps: int = -1, cache: bool = False
) -> Iterator[_Batch]:
    """Yield the batches of ``data_loader`` again and again.

    :param early_stop_steps: begin anew after this many batches; after all when < 1
    :param cache: repeat the batches of the first pass
    :raises RuntimeError: if a pass over the loader yields nothing (an exhausted generator, say)
    """
    first = early_stop_data_loader(data_loader, early_stop_steps)
    source = list(first) if cache else data_loader
    while True:
        empty = True
        for batch in early_stop_data_loader(source, early_stop_steps):
            empty = False
            yield batch
        if empty:
            hint = "an iterator can be repeated only with cache"
            raise RuntimeError(f"the data loader yielded no batches; {hint}")


def repeated_batches(data_loader: Iterable[_Batch], steps: int) -> list[_Batch]:
    """Return the first ``steps`` batches, beginning anew where there are fewer; all when < 1."""
    batches = list(early_stop_data_loader(data_loader, steps))
    if not batches:
        raise ValueError("data yielded no batches")
    return list(islice(cycle(batches), steps if steps > 0 else len(batches)))
