"""Seeing what comes between layers: the model runs with each layer's outputs made up.

What a layer reads then depends on nothing but the outputs of those right before it, by the
operations in between, whatever weights there are. So the way of single channels can be followed by
gradients, through reshapes, attention and activations alike, without knowing names or types.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sparseml.pytorch.units.probing import call_model
from sparseml.pytorch.units.slim_attention import SlimAttention
from sparseml.pytorch.utils.layer_kinds import INPUTS, OUTPUTS, tensor_axes
from sparseml.pytorch.utils.layers import evaluating
from sparseml.pytorch.utils.names import canonical_named_modules

_OPAQUE = (nn.MultiheadAttention, nn.RNNBase)
# positive and below 1: activations are then neither dead nor saturated
_LOW, _HIGH = 0.1, 0.9
# query, key and value
_READS: dict[type[nn.Module], int] = {nn.MultiheadAttention: 3, SlimAttention: 3}
_WIDE = 3.0

NONE, SEVERAL = -1, -2
"""In place of a block: no influence on any, or on more than one."""

MadeUp = Callable[[str, nn.Module, Tensor], Tensor]


class Call(NamedTuple):
    """One run of a layer: what it read, and what was made up to be its output, channels last."""

    layer: str
    read: Tensor
    output: Tensor


def mixes_channels(layer: nn.Module) -> bool:
    """Whether a layer has a weight from inputs to outputs."""
    axes = {axis for found in tensor_axes(layer).values() for axis in found}
    return {INPUTS, OUTPUTS} <= axes or isinstance(layer, _OPAQUE)


def is_linear(layer: nn.Module) -> bool:
    """Whether a layer is but a matrix from inputs to outputs, and perhaps a bias."""
    weight = tensor_axes(layer).get("weight", ())
    return {INPUTS, OUTPUTS} == set(weight) and cast(Tensor, layer.weight).ndim == 2


def random_outputs(seed: int = 0, wide: bool = False) -> MadeUp:
    """Return what makes up outputs by chance, the same with the same seed.

    :param wide: far into both signs
    """
    generator = torch.Generator().manual_seed(seed)

    def make_up(name: str, layer: nn.Module, output: Tensor) -> Tensor:
        drawn = torch.empty(output.shape)
        if wide:
            drawn.normal_(0.0, _WIDE, generator=generator)
        else:
            drawn.uniform_(_LOW, _HIGH, generator=generator)
        return drawn.to(output.device, output.dtype)

    return make_up


def cut_run(
    model: nn.Module,
    example_inputs: Any,
    make_up: MadeUp,
    gradients: bool = False,
    cuts: Callable[[nn.Module], bool] = mixes_channels,
) -> tuple[list[Call], list[Tensor]]:
    """Run ``model`` with the output of every layer that mixes channels made up.

    :param make_up: gets a layer's name, the layer and its real output
    :param gradients: whether the made-up outputs take part in autograd
    :param cuts: whether the output of a layer is made up
    :return: every run of such a layer in order (attention of torch has one for each tensor that it
        reads), and the tensors that the model returns
    """
    calls: list[Call] = []
    hooks = _hooks(model, calls, make_up, gradients, cuts)
    with hooks, evaluating(model), torch.set_grad_enabled(gradients):
        outputs = call_model(model, example_inputs)
    return calls, outputs


@contextmanager
def _hooks(
    model: nn.Module,
    calls: list[Call],
    make_up: MadeUp,
    gradients: bool,
    cuts: Callable[[nn.Module], bool],
) -> Iterator[None]:
    def replace(name: str) -> Any:
        def hook(layer: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            whole = isinstance(output, Tensor)
            made = make_up(name, layer, (output if whole else output[0]).detach())
            channels_first = isinstance(layer, _ConvNd)
            made = made.movedim(1, -1).contiguous() if channels_first else made
            made.requires_grad_(gradients)
            given = [*args, *kwargs.values()]
            count = _READS.get(type(layer), 1)
            reads = {id(one): one for one in given[:count]}.values()
            calls.extend(Call(name, read, made) for read in reads)
            # a copy, as what follows may work in place
            copied = (made.movedim(-1, 1) if channels_first else made).clone()
            return copied if whole else (copied, *output[1:])

        return hook

    handles = [
        layer.register_forward_hook(replace(name), with_kwargs=True)
        for name, layer in canonical_named_modules(model)
        if cuts(layer)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def sources(tensors: Iterable[Tensor], calls: list[Call]) -> list[Call]:
    """The calls whose made-up outputs the tensors are computed from, in order."""
    made = {id(call.output): place for place, call in enumerate(calls)}
    found = {made[id(leaf)] for leaf in leaves(tensors) if id(leaf) in made}
    return [calls[place] for place in sorted(found)]


def leaves(tensors: Iterable[Tensor]) -> list[Tensor]:
    """The tensors that others are computed from by autograd: made-up outputs and parameters."""
    nodes: list[Any] = [tensor.grad_fn for tensor in tensors]
    seen, found = set(nodes), {}
    while nodes:
        node = nodes.pop()
        if node is None:
            continue
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            found[id(leaf)] = leaf
        following = {after for after, _ in node.next_functions} - seen
        seen |= following
        nodes.extend(following)
    return list(found.values())


def reached(read: Tensor, outputs: list[Tensor], block: Tensor) -> list[Tensor]:
    """Find which blocks of what a layer reads each output channel has an influence on.

    :param read: ``[..., channels]``, computed from all of ``outputs``
    :param block: int64 ``[channels]``, the block of each channel
    :return: for each of ``outputs`` int64 ``[channels]``: the block; :data:`NONE`, :data:`SEVERAL`
    """
    found = [torch.zeros(output.shape[-1], dtype=torch.int64) for output in outputs]
    none = [torch.ones_like(unit, dtype=torch.bool) for unit in found]
    several = [torch.zeros_like(unit, dtype=torch.bool) for unit in found]
    for bit in range(max(int(block.max()).bit_length(), 1)):
        is_set = (block >> bit) & 1 == 1
        on, off = (_reach(read, outputs, chosen) for chosen in (is_set, ~is_set))
        for place, (in_set, in_other) in enumerate(zip(on, off, strict=True)):
            found[place][in_set] += 1 << bit
            several[place] |= in_set & in_other
            none[place] &= ~(in_set | in_other)
    marked = zip(found, none, several, strict=True)
    return [unit.masked_fill(n, NONE).masked_fill(s, SEVERAL) for unit, n, s in marked]


def blocks(read: Tensor, outputs: list[Tensor]) -> tuple[int, list[Tensor]]:
    """Divide what a layer reads into as many blocks of neighbours as do not mix.

    Each output channel then has an influence on one block, or none.

    :param read: ``[..., channels]``, computed from all of ``outputs``
    :return: how many blocks, and for each of ``outputs`` the block of every channel, int64
        ``[channels]``, -1 for none. One block where all is mixed
    """
    width = read.shape[-1]
    for size in range(1, width):
        if width % size == 0:
            maps = _maps(read, outputs, torch.arange(width) // size)
            if maps is not None:
                return width // size, maps
    return 1, [torch.zeros(output.shape[-1], dtype=torch.int64) for output in outputs]


def _maps(read: Tensor, outputs: list[Tensor], block: Tensor) -> list[Tensor] | None:
    """The block that each output channel goes into; None if one goes into two.

    The numbers of the blocks are found bit by bit: who has an influence on those with the bit set?
    """
    found = [torch.zeros(output.shape[-1], dtype=torch.int64) for output in outputs]
    for bit in range(max(int(block.max()).bit_length(), 1)):
        is_set = (block >> bit) & 1 == 1
        on, off = (_reach(read, outputs, chosen) for chosen in (is_set, ~is_set))
        for unit, in_set, in_other in zip(found, on, off, strict=True):
            if bool((in_set & in_other).any()):
                return None
            unit[in_set] += 1 << bit
            unit[~(in_set | in_other)] = -1
    return found


def _reach(read: Tensor, outputs: list[Tensor], chosen: Tensor) -> list[Tensor]:
    """Which channels of each output have an influence on the chosen ones, bool ``[channels]``."""
    generator = torch.Generator().manual_seed(1)
    weights = torch.empty(read.shape).uniform_(_LOW, _HIGH, generator=generator) * chosen
    weights = weights.to(read.device, read.dtype)
    gradients = torch.autograd.grad(read, outputs, weights, retain_graph=True)
    return [(gradient != 0).reshape(-1, gradient.shape[-1]).any(0).cpu() for gradient in gradients]
