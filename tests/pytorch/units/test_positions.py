from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import sparseml.pytorch.shrink as old_path
import sparseml.pytorch.units as units
from sparseml.pytorch.units import (
    Member,
    UnitGroup,
    groups_from_indices,
    groups_from_map,
    identity,
    positions,
    repeats,
    tiles,
)
from sparseml.pytorch.utils.layer_kinds import from_out_in, to_out_in
from sparseml.pytorch.utils.params import NamedLayerParam, iter_layer_params


def _zeroed(
    params: list[NamedLayerParam], places: Any, keeps: list[torch.Tensor], stored: bool
) -> list[torch.Tensor]:
    """Ones of the parameters' shapes, with zeros where positions say that pruned units are."""
    masks = [torch.ones_like(each.param, dtype=torch.bool) for each in params]
    if not stored:
        masks = [to_out_in(p.layer, p.param_name, m) for p, m in zip(params, masks, strict=True)]
    for group, keep in zip(places, keeps, strict=True):
        for place, dim, index in group:
            masks[place].movedim(dim, 0)[(index >= 0) & ~keep[index]] = False
    if not stored:
        masks = [from_out_in(p.layer, p.param_name, m) for p, m in zip(params, masks, strict=True)]
    return masks


@settings(max_examples=5, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("stored", [True, False])
def test_both_layouts_say_what_the_members_say(
    case: Any, zero: Any, stored: bool, data: Any
) -> None:
    model, _, groups = case()
    seen: dict[int, NamedLayerParam] = {}
    for param in iter_layer_params(model):
        param.param.data.fill_(1.0)
        seen.setdefault(id(param.param), param)  # tied weights are one parameter
    params = list(seen.values())
    keeps = [
        torch.tensor(data.draw(st.lists(st.booleans(), min_size=group.size, max_size=group.size)))
        for group in groups
    ]
    found = positions(groups, params, stored=stored)
    zero(model, dict(zip(groups, keeps, strict=True)))
    for mask, param in zip(_zeroed(params, found, keeps, stored), params, strict=True):
        assert torch.equal(mask, param.param != 0), param.name


def _params(model: nn.Module, *names: str) -> list[NamedLayerParam]:
    found = {param.name: param for param in iter_layer_params(model)}
    return [found[name] for name in names] if names else list(found.values())


def test_only_what_is_pruned_has_a_position() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 8))
    group = UnitGroup("neurons", 4, [
        Member("0.weight", 0, identity(4)), Member("0.bias", 0, identity(4)),
        Member("1.weight", 1, identity(4), follows=True), Member("1.bias", 0, repeats(4, 2)),
    ])  # fmt: skip
    ((first, second),) = positions([group], _params(model, "1.bias", "1.weight", "0.weight"))
    assert (first[:2], second[:2]) == ((2, 0), (0, 0))
    assert second[2].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    message = r"'neurons': none of \['0.weight', '0.bias', '1.bias'\] is among the 1 parameters"
    with pytest.raises(ValueError, match=message):
        positions([group], _params(model, "1.weight"))
    with pytest.raises(ValueError, match=r"'wide', 0.weight along dimension 0: found an index map"):
        wide = UnitGroup("wide", 5, [Member("0.weight", 0, identity(5))])
        positions([wide], _params(model, "0.weight"))


@pytest.mark.parametrize(
    ("make", "dim", "stored", "fits"),
    [
        (lambda: nn.Conv2d(6, 4, 1, groups=2), 1, False, False),
        (lambda: nn.Conv2d(6, 4, 1, groups=2), 1, True, False),
        (lambda: nn.ConvTranspose2d(6, 4, 1, groups=2), 0, False, False),
        (lambda: nn.ConvTranspose2d(6, 4, 1, groups=2), 0, True, True),
    ],
)
def test_inputs_of_a_grouped_convolution_are_no_slices(
    make: Callable[[], nn.Module], dim: int, stored: bool, fits: bool
) -> None:
    model = nn.Sequential(make())
    each = UnitGroup("inputs", 6, [Member("0.weight", dim, identity(6))])
    if fits:
        assert positions([each], _params(model, "0.weight"), stored)[0][0][1] == dim
    else:
        with pytest.raises(ValueError, match="different units in each of 2 groups of channels"):
            positions([each], _params(model, "0.weight"), stored)
    alike = UnitGroup("inputs", 3, [Member("0.weight", dim, tiles(3, 2))])
    (((_, place, index),),) = positions([alike], _params(model, "0.weight"), stored)
    assert index.tolist() == [0, 1, 2] * (2 if fits else 1)
    assert place == (dim if stored else 1)


def test_groups_of_names_and_their_way_back() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    given = {"0.weight, 1.weight,1.bias": ["3.weight"]}
    (group,) = groups_from_map(model, given)
    assert (group.name, group.size) == ("0.weight, 1.weight,1.bias", 4)
    assert {",".join(group.masked): group.following} == {"0.weight,1.weight,1.bias": ["3.weight"]}
    assert group.members[3].index.tolist() == repeats(4, 4).tolist()
    params = _params(model, "0.weight", "1.weight", "1.bias")
    (alike,) = groups_from_indices([[0, 1, 2]], params)
    assert alike.masked == group.masked
    ours, theirs = (positions([each], params) for each in (group, alike))
    for (place, dim, index), (other, same, equal) in zip(ours[0], theirs[0], strict=True):
        assert (place, dim, index.tolist()) == (other, same, equal.tolist())


def test_filters_are_outputs_wherever_a_layer_keeps_them() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 1, groups=2), nn.Conv2d(6, 3, 1))
    params = _params(model, "0.weight", "0.bias", "1.weight")
    (filters,) = groups_from_indices([[0, 1]], params)
    assert (filters.size, [member.dim for member in filters.members]) == (6, [1, 0])
    assert [place[:2] for place in positions([filters], params)[0]] == [(0, 0), (1, 0)]
    (channels,) = groups_from_indices([[0]], params, "channel")
    assert (channels.size, channels.members[0].dim) == (2, 0)
    ((_, dim, index),) = positions([channels], params)[0]
    assert (dim, index.tolist()) == (1, [0, 1])


def test_thinning_filters_of_a_transposed_convolution() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 2), nn.ReLU(), nn.Conv2d(6, 3, 1))
    with torch.no_grad():
        model[0].weight[:, [1, 2]] = 0
        model[0].bias[[1, 2]] = 0
    x = torch.randn(1, 4, 3, 3)
    before = model(x)
    units.compress_strucure_pruned_module(model, {"0.weight,0.bias": ["2.weight"]})
    assert (model[0].in_channels, model[0].out_channels, model[2].in_channels) == (4, 4, 4)
    assert torch.allclose(model(x), before, atol=1e-6)


def test_a_single_slice_is_left_unmasked() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1, groups=4), nn.Conv2d(4, 6, 1))
    params = _params(model, "0.weight", "1.weight", "1.bias")
    (group,) = groups_from_indices([[0, 1]], params, "channel")
    assert (group.masked, group.size) == (["1.weight"], 4)
    assert groups_from_indices([[0]], params, "channel") == []
    with pytest.raises(ValueError, match=r"1.bias of shape \(6,\) has no channels"):
        groups_from_indices([[2]], params, "channel")
    with pytest.raises(ValueError, match=r"smallest, found 4, 6; the group is .*1.weight"):
        groups_from_indices([[0, 1]], params)
    with pytest.raises(ValueError, match="structure_type must be 'filter' or 'channel'"):
        groups_from_indices([[0]], params, "row")


def test_old_path() -> None:
    names = "STRUCTURE_DIMS ChannelGroup DependencyGroups dependency_groups shrink_layer"
    for name in (*names.split(), "compress_strucure_pruned_module"):
        assert name in old_path.__all__
        assert getattr(old_path, name) is getattr(units, name)
