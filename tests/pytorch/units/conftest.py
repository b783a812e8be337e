"""Small models whose units are cut in every way that an index map can say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from sparseml.pytorch.units import Member, UnitGroup, identity, offset, repeats, tiles


class Case(NamedTuple):
    """A model in double precision, what to show it, and its groups."""

    model: nn.Module
    inputs: Tensor
    groups: list[UnitGroup]


def _zero(model: nn.Module, keeps: Mapping[UnitGroup, Tensor]) -> None:
    with torch.no_grad():
        for group, keep in keeps.items():
            for member in group.members:
                gone = (member.index >= 0) & ~keep[member.index] & (not member.follows)
                model.get_parameter(member.param).movedim(member.dim, 0)[gone] = 0


@pytest.fixture(scope="session")
def zero() -> Callable[[nn.Module, Mapping[UnitGroup, Tensor]], None]:
    """Sets the slices of all units to zero that are not kept."""
    return _zero


class Attention(nn.Module):
    """Heads of size 3 with q, k, v and o of their own; k and v may have fewer heads."""

    def __init__(self, width: int = 6, heads: int = 4, key_heads: int = 4) -> None:
        super().__init__()
        self.q = nn.Linear(width, heads * 3)
        self.k, self.v = (nn.Linear(width, key_heads * 3) for _ in range(2))
        self.o = nn.Linear(heads * 3, width)
        self.v_size = 3

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self._by_head(layer, x) for layer in (self.q, self.k, self.v))
        shared = q.shape[-3] // k.shape[-3]
        k, v = (part.repeat_interleave(shared, dim=-3) for part in (k, v))
        return self.o((F.softmax(q @ k.mT, dim=-1) @ v).transpose(1, 2).flatten(2))

    def _by_head(self, layer: nn.Linear, x: Tensor) -> Tensor:
        size = self.v_size if layer is self.v else 3
        return layer(x).unflatten(-1, (-1, size)).transpose(1, 2)


class FusedAttention(nn.Module):
    """Heads of size 2 from one layer: all of q, then all of k, then all of v."""

    def __init__(self, make: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.qkv, self.o = make(6, 3 * 4 * 2), make(4 * 2, 6)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, -1, 2)).permute(2, 0, 3, 1, 4)
        return self.o((F.softmax(q @ k.mT, dim=-1) @ v).transpose(1, 2).flatten(2))


class Joined(nn.Module):
    """Two convolutions side by side, read by a third and, flattened, by a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(7)
        self.after = nn.Conv2d(7, 5, 1)
        self.head = nn.Linear(7 * 9, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        both = self.norm(torch.cat([self.left(x), self.right(x)], dim=1)).relu()
        return self.after(both), self.head(both.flatten(1))


class GatedMLP(nn.Module):
    """Gate and value of a GLU in one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 10), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.up(x).chunk(2, dim=-1)
        return self.down(F.silu(gate) * value)


class Stream(nn.Module):
    """Tied embeddings of words, learned positions, and a layer that adds to the stream."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 6)
        self.positions = nn.Parameter(torch.randn(1, 3, 6))
        self.mlp = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 6))
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens) + self.positions
        return self.head(x + self.mlp(x))


def _linear_chain() -> tuple[nn.Module, Tensor, list[UnitGroup]]:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.PReLU(5), nn.Linear(5, 2))
    first, second = identity(6), identity(5)
    groups = [
        UnitGroup("first", 6, [
            Member("0.weight", 0, first), Member("0.bias", 0, first), Member("2.weight", 1, first),
        ]),
        UnitGroup("second", 5, [
            Member("2.weight", 0, second), Member("2.bias", 0, second),
            Member("3.weight", 0, second, follows=True), Member("4.weight", 1, second),
        ]),
    ]  # fmt: skip
    return model, torch.randn(3, 4), groups


def _convolutions() -> tuple[nn.Module, Tensor, list[UnitGroup]]:
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 4, 3),
    )  # fmt: skip
    each = identity(6)
    made = ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"]
    group = UnitGroup(
        "channels",
        6,
        [*(Member(name, 0, each) for name in made), Member("6.weight", 1, repeats(6, 4))],
    )
    return model, torch.randn(2, 2, 4, 4), [group]


def _grouped(in_each: bool) -> tuple[nn.Module, Tensor, list[UnitGroup]]:
    """Whole groups of a convolution, or the same channels in each of its groups."""
    model = nn.Sequential(
        nn.Conv1d(2, 6, 1), nn.ReLU(), nn.Conv1d(6, 12, 3, groups=3), nn.ReLU(), nn.Conv1d(12, 2, 1)
    )
    if in_each:
        inside = tiles(2, 3)
        inputs = [Member("0.weight", 0, inside), Member("0.bias", 0, inside)]
        outside = tiles(4, 3)
        outputs = [Member("2.weight", 0, outside), Member("2.bias", 0, outside)]
        groups = [
            UnitGroup("inputs", 2, [*inputs, Member("2.weight", 1, identity(2))]),
            UnitGroup("outputs", 4, [*outputs, Member("4.weight", 1, outside)]),
        ]
    else:
        inputs, outputs = repeats(3, 2), repeats(3, 4)
        groups = [
            UnitGroup("groups", 3, [
                Member("0.weight", 0, inputs), Member("0.bias", 0, inputs),
                Member("2.weight", 0, outputs), Member("2.bias", 0, outputs),
                Member("4.weight", 1, outputs),
            ])
        ]  # fmt: skip
    return model, torch.randn(2, 2, 5), groups


def _transposed() -> tuple[nn.Module, Tensor, list[UnitGroup]]:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.ReLU(), nn.ConvTranspose2d(4, 6, 2, groups=2), nn.ReLU(),
        nn.ConvTranspose2d(6, 2, 2),
    )  # fmt: skip
    outputs = tiles(3, 2)
    groups = [
        UnitGroup("outputs", 3, [
            Member("2.weight", 1, identity(3)), Member("2.bias", 0, outputs),
            Member("4.weight", 0, outputs),
        ])
    ]  # fmt: skip
    return model, torch.randn(2, 2, 3, 3), groups


def _joined() -> tuple[nn.Module, Tensor, list[UnitGroup]]:
    groups = []
    for name, start, size in (("left", 0, 4), ("right", 4, 3)):
        own, place = identity(size), offset(size, start, 7)
        groups.append(
            UnitGroup(name, size, [
                Member(f"{name}.weight", 0, own), Member(f"{name}.bias", 0, own),
                Member("norm.weight", 0, place), Member("norm.bias", 0, place),
                Member("after.weight", 1, place),
                Member("head.weight", 1, offset(repeats(size, 9), start * 9, 63)),
            ])
        )  # fmt: skip
    return Joined(), torch.randn(2, 2, 3, 3), groups


def _heads(key_heads: int) -> tuple[nn.Module, Tensor, list[UnitGroup]]:
    """Key heads with all of the query heads that read them."""
    own, queries = repeats(key_heads, 3), repeats(key_heads, 4 // key_heads * 3)
    made = [("q", queries), ("k", own), ("v", own)]
    members = [
        Member(f"{layer}.{name}", 0, index) for layer, index in made for name in ("weight", "bias")
    ]
    group = UnitGroup("heads", key_heads, [*members, Member("o.weight", 1, queries)])
    return Attention(key_heads=key_heads), torch.randn(2, 5, 6), [group]


def _fused(swapped: bool) -> tuple[nn.Module, Tensor, list[UnitGroup]]:
    heads, outputs = repeats(4, 2), int(swapped)
    group = UnitGroup("heads", 4, [
        Member("qkv.weight", outputs, tiles(heads, 3)), Member("qkv.bias", 0, tiles(heads, 3)),
        Member("o.weight", 1 - outputs, heads),
    ])  # fmt: skip
    model = FusedAttention((lambda nx, nf: Conv1D(nf, nx)) if swapped else nn.Linear)
    return model, torch.randn(2, 5, 6), [group]


def _gated() -> tuple[nn.Module, Tensor, list[UnitGroup]]:
    pairs = tiles(5, 2)
    group = UnitGroup("neurons", 5, [
        Member("up.weight", 0, pairs), Member("up.bias", 0, pairs),
        Member("down.weight", 1, identity(5)),
    ])  # fmt: skip
    return GatedMLP(), torch.randn(3, 4), [group]


def _stream() -> tuple[nn.Module, Tensor, list[UnitGroup]]:
    where = {
        "words.weight": 1, "positions": 2, "head.weight": 1,
        "mlp.0.weight": 1, "mlp.2.weight": 0, "mlp.2.bias": 0,
    }  # fmt: skip
    members = [Member(name, dim, identity(6)) for name, dim in where.items()]
    return Stream(), torch.tensor([[1, 5, 10], [0, 2, 2]]), [UnitGroup("stream", 6, members)]


CASES: dict[str, Callable[[], tuple[nn.Module, Tensor, list[UnitGroup]]]] = {
    "linear chain": _linear_chain,
    "convolution, norm, depthwise, flatten": _convolutions,
    "whole groups of a convolution": lambda: _grouped(in_each=False),
    "the same channels in each group": lambda: _grouped(in_each=True),
    "grouped transposed convolution": _transposed,
    "concatenation": _joined,
    "heads": lambda: _heads(key_heads=4),
    "heads of grouped-query attention": lambda: _heads(key_heads=2),
    "heads of a fused qkv": lambda: _fused(swapped=False),
    "heads of a fused qkv, stored as [in, out]": lambda: _fused(swapped=True),
    "neurons of a fused GLU": _gated,
    "stream with tied embeddings": _stream,
}


@pytest.fixture(scope="session", params=list(CASES))
def case(request: pytest.FixtureRequest) -> Callable[[], Case]:
    """Every one of the cases in turn: makes it anew, always with the same values."""
    return lambda: _made(request.param)


@pytest.fixture(scope="session")
def make_case() -> Callable[[str], Case]:
    """Makes a case by its name."""
    return _made


def _made(name: str) -> Case:
    torch.manual_seed(0)
    model, inputs, groups = CASES[name]()
    for key, tensor in model.state_dict().items():
        if "running" in key or "norm" in key:
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    return Case(model.double().eval(), inputs, groups)
