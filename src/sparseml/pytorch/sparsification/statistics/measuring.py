"""Running statistics, as batch norms keep them: which a model has, and measuring them anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy

from sparseml.pytorch.utils.batch_streams import Batch
from sparseml.pytorch.utils.distributed import add_up
from sparseml.pytorch.utils.layers import evaluating
from sparseml.pytorch.utils.names import unwrap_module

Statistics = list[dict[str, Tensor]]
"""The running statistics of some norms, of each by the name of its buffer."""
_NAMES = ("running_mean", "running_var")


def statistics_holders(model: nn.Module) -> list[nn.Module]:
    """Return the layers that keep running statistics of their channels, of whatever library."""
    return [
        module
        for module in model.modules()
        if (held := module._buffers.get("running_var")) is not None
        and not is_lazy(held)
        and held.ndim == 1
    ]


def tunable_norms(model: nn.Module) -> list[nn.Module]:
    """Return the norms whose running statistics follow what goes through them in training.

    Left out are frozen ones: of a kind that never learns statistics, with
    ``track_running_stats=False``, in eval mode within a model that is in training mode, and with
    parameters of which none requires gradients while others of the model do. So are instance
    norms: what they normalise by in training is not what they keep.
    """
    learns = any(param.requires_grad for param in model.parameters())
    return [one for one in statistics_holders(model) if not _is_frozen(one, model, learns)]


def _is_frozen(norm: nn.Module, model: nn.Module, learns: bool) -> bool:
    own = list(norm.parameters(recurse=False))
    return (
        isinstance(norm, _InstanceNorm)
        or not hasattr(norm, "momentum")
        or not getattr(norm, "track_running_stats", True)
        or (model.training and not norm.training)
        or (learns and bool(own) and not any(param.requires_grad for param in own))
    )


def statistics_of(norms: Iterable[nn.Module]) -> Statistics:
    """Return copies of the running statistics of some norms."""
    return [
        {name: held.clone() for name in _NAMES if (held := norm._buffers.get(name)) is not None}
        for norm in norms
    ]


@torch.no_grad()
def write_statistics(norms: Iterable[nn.Module], statistics: Statistics) -> None:
    """Give norms running statistics; how many batches they have seen stays as it is."""
    for norm, given in zip(norms, statistics, strict=True):
        for name, value in given.items():
            norm.get_buffer(name).copy_(value)


@torch.no_grad()
def measure_statistics(
    model: nn.Module, norms: Sequence[nn.Module], batches: Iterable[Batch]
) -> list[Statistics]:
    """Return the statistics of every batch, one after the other, as training would see them.

    Each norm normalises by the batch itself, with the biased variance, and what is returned is the
    unbiased one, as torch's batch norms do in training mode. Nothing is sent between processes,
    also not by synchronised norms. All else is in eval mode, so no dropout is active; modes,
    statistics and whatever norms keep beside are as before when it ends.

    :raises ValueError: for a norm that sees one value per channel, which has no variance
    """
    before, measured = statistics_of(norms), []
    inner = unwrap_module(model, root=True)  # wrappers compile hooks away, or send buffers around
    try:
        with evaluating(model):
            for args, kwargs, _ in batches:
                with _by_batch(norms) as seen:
                    inner(*args, **kwargs)
                measured.append(seen())
    finally:
        write_statistics(norms, before)
    return measured


@contextmanager
def _by_batch(norms: Sequence[nn.Module]) -> Iterator[Callable[[], Statistics]]:
    """Have norms normalise by what they see; one that is called several times takes the mean."""
    found: dict[nn.Module, list[dict[str, Tensor]]] = {norm: [] for norm in norms}

    def look(norm: nn.Module, args: Any, kwargs: Any) -> None:
        inputs: Tensor = args[0] if args else next(iter(kwargs.values()))
        if inputs.dtype in (torch.float16, torch.bfloat16):
            inputs = inputs.float()
        count = inputs.numel() // inputs.shape[1]
        if count < 2:
            raise ValueError(
                "a batch norm that sees one value per channel has no variance to measure: give "
                "more inputs in a batch"
            )
        across = [axis for axis in range(inputs.ndim) if axis != 1]
        var, mean = torch.var_mean(inputs, across, correction=0)
        write_statistics([norm], [_both(norm, mean, var)])
        unbiased = var.cpu().double() * (count / (count - 1))
        found[norm].append(_both(norm, mean.cpu().double(), unbiased))

    handles = [norm.register_forward_pre_hook(look, with_kwargs=True) for norm in norms]
    try:
        yield lambda: [_mean_of(found[norm]) for norm in norms]
    finally:
        for handle in handles:
            handle.remove()


def _both(norm: nn.Module, mean: Tensor, var: Tensor) -> dict[str, Tensor]:
    pairs = zip(_NAMES, (mean, var), strict=True)
    return {name: value for name, value in pairs if norm._buffers.get(name) is not None}


def _mean_of(several: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    names = several[0] if several else ()
    return {name: torch.stack([one[name] for one in several]).mean(0) for name in names}


def averaged(measured: Sequence[Statistics], norms: Sequence[nn.Module]) -> Statistics:
    """Return plain means over the batches of all processes, the same in each of them.

    A norm that no batch went through, such as that of an auxiliary head, keeps what it has.

    :param measured: by this process; perhaps nothing
    """
    parts: list[Tensor] = []
    for index, held in enumerate(statistics_of(norms)):
        for name, value in held.items():
            rows = [one[index][name] for one in measured if name in one[index]]
            total = torch.stack(rows).sum(0) if rows else torch.zeros(len(value)).double()
            parts.append(torch.cat([total, total.new_tensor([len(rows)])]))
    sums = iter(add_up(torch.cat(parts)).split([len(part) for part in parts]))
    return [
        {
            name: total[:-1] / total[-1] if (total := next(sums))[-1] > 0 else value
            for name, value in held.items()
        }
        for held in statistics_of(norms)
    ]
