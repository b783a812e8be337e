from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import Parameter

from sparseml.pytorch.sparsification.pruning import (
    MagnitudePruningParamsScorer,
    MovementPruningParamsScorer,
    PruningParamsGradScorer,
    PruningParamsScorer,
)


@pytest.fixture
def params() -> list[Parameter]:
    return [Parameter(torch.tensor([1.0, -2.0, 3.0])), Parameter(torch.tensor([[4.0, -5.0]]))]


def ones_like(params):
    return [torch.ones_like(param).detach() for param in params]


def test_the_base_classes_are_abstract(params):
    for base in (PruningParamsScorer, PruningParamsGradScorer):
        with pytest.raises(TypeError, match="abstract"):
            base(params)


def test_magnitude_scores(params):
    scores = MagnitudePruningParamsScorer(params).score_parameters()
    assert [score.tolist() for score in scores] == [[1, 2, 3], [[4, 5]]]


def test_movement_is_summed_over_steps(params):
    scorer = MovementPruningParamsScorer(params)
    expected = torch.zeros(3, dtype=torch.float64)
    for step in range(4):
        params[0].grad = torch.tensor([0.5, -1.0, 2.0]) * (step + 1)
        expected -= 0.01 * params[0].grad.double() * params[0].detach().double()
        scorer.pre_optim_step_update(ones_like(params))
    scores = scorer.score_parameters()
    assert torch.allclose(scores[0].double(), expected)
    assert scores[1].tolist() == [[0.0, 0.0]]  # it never had a gradient


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_steps_that_are_not_finite_add_nothing(params, bad):
    scorer = MovementPruningParamsScorer(params)
    params[0].grad = torch.tensor([1.0, bad, 1.0])
    params[1].grad = torch.ones(1, 2)
    scorer.pre_optim_step_update(ones_like(params))
    scores = scorer.score_parameters()
    assert scores[0].abs().max() == 0
    assert scores[1].abs().min() > 0


def test_pruned_weights_are_not_taken_back(params):
    scorer = MovementPruningParamsScorer(params)
    masks = [torch.tensor([1.0, 0.0, 1.0]), torch.ones(1, 2)]
    scorer.mask_update(masks, [])
    assert scorer.score_parameters()[0].tolist() == [0, float("-inf"), 0]


def test_half_precision_sums_are_kept_in_single():
    param = Parameter(torch.tensor([1e-3], dtype=torch.float16))
    scorer = MovementPruningParamsScorer([param])
    param.grad = torch.tensor([-1e-3], dtype=torch.float16)
    for _ in range(10):
        scorer.pre_optim_step_update(ones_like([param]))
    assert scorer.score_parameters()[0].item() == pytest.approx(1e-7, rel=1e-2)


def test_progress_survives_a_file(params, tmp_path):
    scorer = MovementPruningParamsScorer(params)
    params[0].grad = torch.ones(3)
    scorer.pre_optim_step_update(ones_like(params))
    scorer.update_last_applied_sparsity(0.25)
    torch.save(scorer.progress_state(), tmp_path / "state.pt")
    other = MovementPruningParamsScorer(params)
    other.load_progress_state(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other._last_applied_sparsity == 0.25
    for a, b in zip(scorer.score_parameters(), other.score_parameters(), strict=True):
        assert torch.equal(a, b)


def test_gradient_scorers_in_a_single_process(params):
    scorer = copy.deepcopy(MovementPruningParamsScorer(params, dist_backend="gloo"))
    assert not scorer._is_ddp
    assert scorer._is_main_proc
    assert scorer._broadcast_list_from_main([1, "a"]) == [1, "a"]
