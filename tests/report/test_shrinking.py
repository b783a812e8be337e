"""The smaller copy of a pruned model that a run measures."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.utils.params import parameter_count
from sparseml.report.describe import layer_sparsities
from sparseml.report.shrinking import layers_text, places_text, shrunk_copy, shrunk_places


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))


def test_zeros_in_rows_make_a_smaller_copy() -> None:
    model, inputs = _model(), torch.randn(3, 6)
    with torch.no_grad():
        model[2].weight[:, :6] = 0
    found = shrunk_copy(model, inputs)
    assert found is not None
    assert parameter_count(found) == 20
    assert model[0].weight.shape == (8, 6)  # as it was
    torch.testing.assert_close(found(inputs), model(inputs))


def test_scattered_zeros_make_none() -> None:
    model = _model()
    with torch.no_grad():
        model[0].weight[::2, ::2] = 0
        model[2].weight[0, :3] = 0
    assert shrunk_copy(model, torch.randn(3, 6)) is None


def test_zeros_that_cannot_go_make_none() -> None:
    model = _model()
    with torch.no_grad():
        model[0].weight[:, 3] = 0  # an input that nobody reads comes all the same
    assert shrunk_copy(model, torch.randn(3, 6)) is None


def test_what_was_removed_before_is_told() -> None:
    model, inputs = _model(), torch.randn(3, 6)
    with torch.no_grad():
        model[2].weight[:, :6] = 0
    once = shrunk_copy(model, inputs)
    assert once is not None
    again = shrunk_copy(once, inputs)  # nothing is left to go
    assert again is not None and again is not once
    places = shrunk_places(again)
    assert [place.model_dump() for place in places] == [
        {"kind": "fc", "name": "2", "before": 8, "after": 2}
    ]
    assert places_text(places) == "kept 2 of 8 neurons"
    other = places[0].model_copy(update={"name": "4", "after": 6})
    assert layers_text([*places, other]) == (
        "What is left of the units: neurons: 2 of 8 (2) to 6 of 8 (4) in each of 2 places."
    )


@pytest.mark.parametrize("remove", [True, False])
def test_no_zeros_are_asked_for_where_units_were_removed(remove: bool) -> None:
    recipe = (
        "modifiers:\n  - !StructuredPruningModifier {params: __STRUCTURED__, init_sparsity: 0.5, "
        "final_sparsity: 0.5, start_epoch: 0.0, end_epoch: 1.0, update_frequency: 1.0, "
        f"remove: {remove}}}"
    )
    model, inputs = _model(), torch.randn(3, 6)
    sampler = {
        "data_loader_builder": lambda **_: iter([([inputs], {}, torch.zeros(3, 2))] * 4),
        "loss_function": nn.functional.mse_loss,
    }
    manager = ScheduledModifierManager.from_yaml(recipe)
    manager.apply(model, grad_sampler=sampler)
    asked = {layer.asked for layer in layer_sparsities(model, manager)}
    assert (asked == {None}) == remove
    assert 0.5 in asked or remove
