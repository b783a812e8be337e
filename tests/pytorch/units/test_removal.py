from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from sparseml.pytorch.units import Member, UnitGroup, identity, offset, remove, repeats, tiles
from sparseml.pytorch.utils.model import load_model_state


def _tensors(outputs: Any) -> list[Tensor]:
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


def _entries(model: nn.Module) -> int:
    return sum(param.numel() for param in [*model.parameters(), *model.buffers()])


def _halves(groups: list[UnitGroup]) -> dict[UnitGroup, Tensor]:
    return {group: torch.arange(group.size) % 2 == 0 for group in groups}


def _some_of(size: int) -> st.SearchStrategy[list[bool]]:
    return st.lists(st.booleans(), min_size=size, max_size=size).filter(any)


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_the_outputs_are_those_with_the_units_at_zero(case: Any, zero: Any, data: Any) -> None:
    model, inputs, groups = case()
    keeps = {group: torch.tensor(data.draw(_some_of(group.size))) for group in groups}
    zero(model, keeps)
    before, entries = _tensors(model(inputs)), _entries(model)
    params = list(model.parameters())
    removed = remove(model, keeps)
    for old, new in zip(before, _tensors(model(inputs)), strict=True):
        assert torch.allclose(old, new, atol=1e-10)
    assert removed == entries - _entries(model)
    assert all(old is new for old, new in zip(params, model.parameters(), strict=True))
    assert (removed > 0) == any(not keep.all() for keep in keeps.values())


def test_indices_say_the_same_as_bools(case: Any) -> None:
    one, other = case(), case()
    remove(one.model, _halves(one.groups))
    remove(other.model, {group: list(range(0, group.size, 2)) for group in other.groups})
    assert str(one.model) == str(other.model)
    found = other.model.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in one.model.state_dict().items())


def test_groups_may_go_one_after_the_other(make_case: Any) -> None:
    together, apart = make_case("concatenation"), make_case("concatenation")
    remove(together.model, _halves(together.groups))
    left, right = apart.groups
    remove(apart.model, {left: torch.arange(4) % 2 == 0})
    with pytest.raises(ValueError, match=r"'right', norm.weight along dimension 0: found an index"):
        remove(apart.model, {right: torch.arange(3) % 2 == 0})
    moved = {"norm": offset(3, 2, 5), "after": offset(3, 2, 5)}
    moved["head"] = offset(repeats(3, 9), 18, 45)
    members = [
        Member(member.param, member.dim, moved.get(member.param.partition(".")[0], member.index))
        for member in right.members
    ]
    remove(apart.model, {UnitGroup("right", 3, members): torch.arange(3) % 2 == 0})
    assert str(together.model) == str(apart.model)
    for one, other in zip(together.model(together.inputs), apart.model(apart.inputs), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("optimizer_type", [torch.optim.SGD, torch.optim.AdamW])
def test_training_goes_on_as_with_the_zeros_left_in(
    case: Any, zero: Any, optimizer_type: Any
) -> None:
    kwargs = {"momentum": 0.9} if optimizer_type is torch.optim.SGD else {}
    losses: dict[bool, list[Tensor]] = {}
    for smaller in (True, False):
        model, inputs, groups = case()
        keeps = _halves(groups)
        optimizer = optimizer_type(model.parameters(), lr=0.01, **kwargs)
        losses[smaller] = []
        for step in range(4):
            optimizer.zero_grad()
            loss = sum(output.square().mean() for output in _tensors(model(inputs)))
            loss.backward()
            optimizer.step()
            losses[smaller].append(loss.detach())
            if step == 0 or not smaller:
                zero(model, keeps)
            if step == 0 and smaller:
                remove(model, keeps, optimizer)
                assert all(param.grad.shape == param.shape for param in model.parameters())
    assert torch.allclose(torch.stack(losses[True]), torch.stack(losses[False]), atol=1e-10)
    assert losses[True][0] != losses[True][3]


def test_a_file_of_the_smaller_model_loads(case: Any) -> None:
    small, whole = case(), case()
    remove(small.model, _halves(small.groups))
    state = small.model.state_dict()
    if "positions" in state:  # a parameter of the model's own says nothing about itself
        whole.model.positions.data = whole.model.positions.data[..., :3]
    load_model_state(whole.model, copy.deepcopy(state), strict=True)
    outputs = [_tensors(each.model(each.inputs)) for each in (small, whole)]
    assert all(torch.equal(one, other) for one, other in zip(*outputs, strict=True))
    assert str(small.model) == str(whole.model)


def test_the_same_rows_of_every_head(make_case: Any, zero: Any) -> None:
    model, inputs, _ = make_case("heads")
    index = tiles(3, 4)
    members = [
        Member("v.weight", 0, index),
        Member("v.bias", 0, index),
        Member("o.weight", 1, index),
    ]
    group = UnitGroup("values", 3, members)
    keeps = {group: torch.tensor([True, False, True])}
    zero(model, keeps)
    before = model(inputs)
    remove(model, keeps)
    model.v_size = 2
    assert torch.allclose(model(inputs), before)
    assert (model.v.out_features, model.o.in_features, model.q.out_features) == (8, 8, 12)


def test_rows_of_an_embedding_that_begin_at_two() -> None:
    positions = nn.Embedding(6, 3, padding_idx=1)
    expected = positions.weight[[0, 1, 2, 4]].detach()
    group = UnitGroup("positions", 4, [Member("weight", 0, offset(4, 2, 6))])
    remove(positions, {group: [0, 2]})
    assert torch.equal(positions.weight, expected)
    assert (positions.num_embeddings, positions.embedding_dim) == (4, 3)
    with pytest.raises(ValueError, match="0 must keep its rows up to number 1"):
        remove(nn.Sequential(nn.Embedding(6, 3, padding_idx=1)), {
            UnitGroup("rows", 6, [Member("0.weight", 0, identity(6))]): [2, 3]
        })  # fmt: skip


def test_buffers_can_be_members() -> None:
    model = nn.Linear(4, 2)
    model.register_buffer("frequencies", torch.arange(4.0))
    members = [Member(name, dim, identity(4)) for name, dim in (("weight", 1), ("frequencies", 0))]
    assert remove(model, {UnitGroup("inputs", 4, members): [1, 3]}) == 4 + 2
    assert model.frequencies.tolist() == [1, 3]


def test_a_gate_loses_its_entries(make_case: Any) -> None:
    model, _, (group,) = make_case("neurons of a fused GLU")
    gate = nn.Parameter(torch.arange(5.0))
    optimizer = torch.optim.SGD([gate], lr=0.1, momentum=0.9)
    gate.sum().backward()
    optimizer.step()
    gated = UnitGroup(group.name, 5, group.members, gate)
    assert remove(model, {gated: [0, 3]}, optimizer) == 3 * (2 * 5 + 4)
    assert torch.allclose(gate, torch.tensor([-0.1, 2.9]))
    assert gate.grad.shape == optimizer.state[gate]["momentum_buffer"].shape == (2,)
    with pytest.raises(ValueError, match=r"found a gate of shape \(2,\), allowed is \(5,\)"):
        remove(make_case("neurons of a fused GLU").model, {gated: [0]})


@pytest.mark.parametrize(
    ("members", "keep", "message"),
    [
        ([("0.wieght", 0, identity(6))], [0], r"'units', 0.wieght along dimension 0: found no such "
         r"parameter, allowed is a name of the model's.*did you mean '0.weight'"),
        ([("0.bias", 1, identity(6))], [0], r"0.bias along dimension 1: found a tensor of shape "
         r"\(6,\), allowed is one of at least 2 dimensions"),
        ([("0.weight", 1, identity(6))], [0], r"0.weight along dimension 1: found an index map of "
         r"6 slices, allowed is one of the 4 slices of shape \(6, 4\)"),
        ([("0.weight", 0, identity(6))], [6], r"must be 6 bools or a list of indices below 6, "
         r"found \[6\]"),
        ([("0.weight", 0, identity(6))], [True] * 5, r"found shape \(5,\) of bool"),
        ([("0.weight", 0, identity(6))], [0.5], r"found \[0.5\]"),
        ([("0.weight", 0, identity(6))], [], "at least one of its units must stay"),
    ],
)  # fmt: skip
def test_groups_that_do_not_fit(make_case: Any, members: Any, keep: Any, message: str) -> None:
    model = make_case("linear chain").model
    before = copy.deepcopy(model.state_dict())
    group = UnitGroup("units", 6, [Member(*member) for member in members])
    whole = UnitGroup("good", 5, [Member("2.weight", 0, identity(5))])
    with pytest.raises(ValueError, match=message):
        remove(model, {whole: [1], group: keep})
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_groups_that_contradict_each_other(make_case: Any) -> None:
    model, _, (left, _) = make_case("concatenation")
    other = UnitGroup("other", 7, [Member("after.weight", 1, identity(7))])
    with pytest.raises(ValueError, match="two groups want to take different inputs from after"):
        remove(model, {left: [0, 1], other: [0, 2, 3, 4, 5, 6]})
    assert model.left.out_channels == 4
    # they may share slices that both let go, and others that only one speaks of
    remove(model, {left: [0, 1], other: [0, 1, 4, 5]})
    assert (model.left.out_channels, model.after.in_channels) == (2, 4)


@pytest.mark.parametrize(
    ("make", "name", "kind"),
    [
        (lambda: nn.MultiheadAttention(4, 2), "in_proj_weight", "MultiheadAttention"),
        (lambda: nn.MultiheadAttention(4, 2), "out_proj.bias", "MultiheadAttention"),
        (lambda: nn.GRU(4, 2), "weight_hh_l0", "GRU"),
    ],
)
def test_layers_that_cannot_do_with_fewer_units(
    make: Callable[[], nn.Module], name: str, kind: str
) -> None:
    model = nn.Sequential(make())
    size = model[0].get_parameter(name).shape[0]
    group = UnitGroup("units", size, [Member(f"0.{name}", 0, identity(size))])
    with pytest.raises(ValueError, match=f"found a {kind}, which cannot do with fewer units"):
        remove(model, {group: [0]})


def test_computed_weights_are_refused() -> None:
    model = nn.Sequential(weight_norm(nn.Linear(3, 4)))
    group = UnitGroup("units", 4, [Member("0.bias", 0, identity(4))])
    with pytest.raises(ValueError, match=r"0.weight is computed from other tensors"):
        remove(model, {group: [0]})
    assert model[0].bias.shape == (4,)


def test_ties_to_what_is_in_no_group(make_case: Any) -> None:
    model, _, (group,) = make_case("stream with tied embeddings")
    without = [member for member in group.members if member.param != "head.weight"]
    with pytest.raises(
        ValueError, match=r"words.weight cannot be thinned: it is tied to head.weig"
    ):
        remove(model, {UnitGroup("stream", 6, without): [0, 1]})
    heads = [*without, Member("head.weight", 0, repeats(1, 11))]
    with pytest.raises(ValueError, match="tied to a weight that shrinks differently"):
        remove(model, {UnitGroup("stream", 6, heads): [1]})
    assert model.words.embedding_dim == 6


def test_names_with_levels_of_wrappers(make_case: Any) -> None:
    model, _, groups = make_case("linear chain")
    group = UnitGroup("first", 6, [
        Member(f"module.{member.param}", member.dim, member.index) for member in groups[0].members
    ])  # fmt: skip
    remove(nn.DataParallel(model), {group: [0, 1]})
    assert model[0].out_features == model[2].in_features == 2
