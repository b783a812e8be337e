"""Seeing what comes between layers: the model runs with each layer's outputs made up.

What a layer reads then depends on nothing but the outputs of those right before it, by the
operations in between, whatever weights there are. So the way of single channels can be followed by
gradients, through reshapes, attention and activations alike, without knowing names or types.
"""

from __future__ import annotations

import math
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
# above how many blocks they are told apart by codes, of how many different factors at most
_FEW, _DIGITS, _DOUBT = 16, 64, 0.01

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
    probe = _Probe(read, outputs)
    found = _by_codes(probe, block)
    if found is not None:
        return found
    found = [torch.zeros(output.shape[-1], dtype=torch.int64) for output in outputs]
    none = [torch.ones_like(unit, dtype=torch.bool) for unit in found]
    several = [torch.zeros_like(unit, dtype=torch.bool) for unit in found]
    for bit, on, off in _bits(probe, block):
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
    probe = _Probe(read, outputs)
    for size in range(1, width):
        if width % size == 0:
            maps = _maps(probe, torch.arange(width) // size)
            if maps is not None:
                return width // size, maps
    return 1, [torch.zeros(output.shape[-1], dtype=torch.int64) for output in outputs]


def _maps(probe: _Probe, block: Tensor) -> list[Tensor] | None:
    """The block that each output channel goes into; None if one goes into two."""
    found = [torch.zeros(output.shape[-1], dtype=torch.int64) for output in probe.outputs]
    for bit, on, off in _bits(probe, block):
        for unit, in_set, in_other in zip(found, on, off, strict=True):
            if bool((in_set & in_other).any()):
                return None
            unit[in_set] += 1 << bit
            unit[~(in_set | in_other)] = NONE
        if bit == 0 and (coded := _by_codes(probe, block)) is not None:
            return None if any(bool((unit == SEVERAL).any()) for unit in coded) else coded
    return found


class _Probe:
    """What the channels that a layer reads owe to made-up outputs, by gradients.

    :param read: ``[..., channels]``, computed from all of ``outputs``
    """

    def __init__(self, read: Tensor, outputs: list[Tensor]) -> None:
        self.outputs, self._read = outputs, read
        generator = torch.Generator().manual_seed(1)
        weights = torch.empty(read.shape).uniform_(_LOW, _HIGH, generator=generator)
        self._weights = weights.to(read.device, read.dtype)

    def gradients(self, factor: Tensor) -> list[Tensor]:
        """Return the gradients of a sum by chance, each of its channels multiplied by a factor.

        :return: of each output ``[positions, channels]``
        """
        weights = self._weights * factor.to(self._weights)
        frozen = [one for one in self.outputs if not one.requires_grad]  # parameters, in training
        try:
            for one in frozen:
                one.requires_grad_(True)
            found = torch.autograd.grad(self._read, self.outputs, weights, retain_graph=True)
        finally:
            for one in frozen:
                one.requires_grad_(False)
        return [gradient.reshape(-1, gradient.shape[-1]) for gradient in found]

    def reach(self, chosen: Tensor) -> list[Tensor]:
        """Return which channels of each output have an influence on the chosen ones, as bools."""
        return [(gradient != 0).any(0).cpu() for gradient in self.gradients(chosen)]


def _bits(probe: _Probe, block: Tensor) -> Iterator[tuple[int, list[Tensor], list[Tensor]]]:
    """Every bit of the blocks' numbers: who has an influence on those with it, and without it."""
    for bit in range(max(int(block.max()).bit_length(), 1)):
        is_set = (block >> bit) & 1 == 1
        yield bit, probe.reach(is_set), probe.reach(~is_set)


def _by_codes(probe: _Probe, block: Tensor) -> list[Tensor] | None:
    """Find the only block of each output channel in a few probes, one for each digit of its number.

    Where there is only one, the gradient is in proportion to any factor that the block is given.

    :return: as of :func:`reached`; None in doubt, and where it would be no faster
    """
    count = int(block.max()) + 1
    if count <= _FEW:
        return None
    side = torch.rand(count, generator=torch.Generator().manual_seed(2))[block] < 0.5
    parts = [probe.gradients(chosen) for chosen in (side, ~side)]
    wholes = [first + second for first, second in zip(*parts, strict=True)]
    base = count if count <= _DIGITS else math.isqrt(count - 1) + 1
    reach = [[(one != 0).any(0).cpu() for one in part] for part in parts]
    several = [first & second for first, second in zip(*reach, strict=True)]
    none = [~(first | second) for first, second in zip(*reach, strict=True)]
    base = count if count <= _DIGITS else math.isqrt(count - 1) + 1
    found = [torch.zeros(whole.shape[-1], dtype=torch.int64) for whole in wholes]
    for place in (1,) if base == count else (base, 1):
        digit = (block // place) % base
        coded = probe.gradients(1.0 + digit / base)
        for unit, whole, gradient, ruled_out in zip(found, wholes, coded, several, strict=True):
            read = _digits(whole, gradient, base, ~ruled_out)
            if read is None:
                return None
            unit += read * place
    marked = zip(found, none, several, strict=True)
    return [unit.masked_fill(n, NONE).masked_fill(s, SEVERAL) for unit, n, s in marked]


def _digits(whole: Tensor, coded: Tensor, base: int, asked: Tensor) -> Tensor | None:
    """The digits of channels, from gradients without and with a code; None in doubt."""
    strength = whole.abs() * asked.to(whole)
    highest = strength.amax(0)
    clear = (strength >= 0.5 * highest) & (highest > 0)
    ratio = torch.where(clear, (coded / whole.where(clear, 1.0) - 1.0) * base, 0.0)
    digit = ratio.gather(0, strength.argmax(0, keepdim=True)).round()
    off = torch.where(clear, (ratio - digit).abs(), 0.0)
    return digit[0].long().cpu() if bool((off <= _DOUBT).all()) else None
