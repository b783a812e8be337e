"""Gradients of outputs with random signs: what they estimate, of which outputs, and their seeds."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.pruning import CAPruningModifier, FastCAPruningModifier
from sparseml.pytorch.sparsification.pruning.sampling.gradient_sampling import GradientSampler
from sparseml.pytorch.sparsification.pruning.sampling.output_probe import (
    class_scores,
    probe_outputs,
)
from sparseml.pytorch.utils.params import NamedLayerParam, iter_layer_params


def _no_labels(output: Any, target: Any) -> Tensor:
    raise AssertionError("the loss is not asked")


def _given(data: list[Any], loss: Any = _no_labels) -> dict[str, Any]:
    return {"data_loader_builder": lambda: data, "loss_fn": loss, "progress_bar": False}


@pytest.fixture
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()


def _weights(model: nn.Module) -> list[NamedLayerParam]:
    return [one for one in iter_layer_params(model) if one.param_name == "weight"]


def _data(samples: int = 3) -> list[Any]:
    x = torch.randn(samples, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return [([x], {}, None)]


def _gradients(model: nn.Module, each: bool, count: int) -> Tensor:
    sampler = GradientSampler(_given(_data() * 400), {}, "It", each, "outputs")
    found = sampler.gradients(model, _weights(model), count)
    return torch.cat([one.of(0).flatten(1) for one in found])


@pytest.mark.parametrize("each", [True, False])
def test_gradients_are_those_of_outputs_with_random_signs(model: nn.Sequential, each: bool) -> None:
    x, weight = _data()[0][0][0], model[0].weight

    def run(value: Tensor) -> Tensor:
        return torch.func.functional_call(model, {"0.weight": value}, (x,))

    jacobian = torch.func.jacrev(run)(weight).reshape(3, 3, -1)  # samples, outputs, weights
    gradients = _gradients(model, each, 300)
    if each:
        parts = zip(jacobian.repeat(100, 1, 1), gradients, strict=True)
    else:  # so that the mean of products is the same
        parts = ((jacobian.flatten(0, 1), one * 3**0.5) for one in gradients)
    signs = torch.stack([torch.linalg.lstsq(of.T, one).solution for of, one in parts])
    torch.testing.assert_close(signs.abs(), torch.ones_like(signs))
    moments = signs.T @ signs / 300
    assert (moments - torch.eye(len(moments))).abs().max() < 0.25
    assert signs.mean(0).abs().max() < 0.25


def test_the_same_seed_gives_the_same_signs_and_each_batch_others(model: nn.Sequential) -> None:
    torch.manual_seed(5)
    first = _gradients(model, True, 6)
    state = torch.get_rng_state()
    torch.manual_seed(5)
    assert torch.equal(_gradients(model, True, 6), first)
    torch.set_rng_state(state)
    assert not torch.equal(first[:3], first[3:])  # the same batch drawn a second time
    torch.manual_seed(6)
    assert not torch.equal(_gradients(model, True, 6), first)


def test_goes_on_as_if_it_had_not_stopped(model: nn.Sequential) -> None:
    torch.manual_seed(5)
    whole = _gradients(model, True, 12)
    torch.manual_seed(5)
    sampler = GradientSampler(_given(_data() * 3), {}, "It", True, "outputs")
    parts = [one.of(0).flatten(1) for one in sampler.gradients(model, _weights(model), 6)]
    other = GradientSampler(_given(_data() * 3), {}, "It", True, "outputs")
    other.load_progress_state(sampler.progress_state())
    parts += [one.of(0).flatten(1) for one in other.gradients(model, _weights(model), 3)]
    assert torch.equal(torch.cat(parts), whole[:9])


def _value(output: Any, keywords: dict[str, Any] | None = None) -> Tensor:
    return probe_outputs(output, ([torch.zeros(1, 2)], keywords or {}, None), True, [7])


SCORES = torch.tensor([[1.0, 10.0, 100.0]])
Named = namedtuple("Named", "scores other")


@pytest.mark.parametrize(
    "output",
    [
        (SCORES, torch.full((1, 3), 1e9)),
        (torch.tensor(1e9), SCORES, torch.full((1, 3), 1e9)),  # of Transformers, the loss first
        {"loss": torch.ones(1), "logits": SCORES, "last_hidden_state": torch.full((1, 3), 1e9)},
        {
            "loss": torch.tensor(1e9),
            "aux_loss": torch.tensor(1e9),
            "embedding": SCORES,
            "ids": torch.tensor([5]),
        },
        SCORES.bfloat16(),
    ],
)
def test_takes_the_scores_of_an_output(output: Any) -> None:
    assert _value(output) == _value(SCORES)
    assert abs(_value(SCORES).abs() - 100) < 12


@pytest.mark.parametrize(
    "output",
    [
        {"start_logits": SCORES, "end_logits": 1e6 * SCORES},
        {"logits": SCORES, "pred_boxes": 1e6 * SCORES},
        [SCORES, 1e6 * SCORES],
        Named(SCORES, 1e6 * SCORES),
    ],
)
def test_all_heads_count(output: Any) -> None:
    both = _value(output)
    assert both.abs() > 1e7
    assert both % 1e6 != 0


WHOLE, FLOAT = torch.tensor([2]), torch.tensor([2.0])


@pytest.mark.parametrize(
    ("output", "keywords", "target", "is_classifier"),
    [
        (SCORES, {}, WHOLE, True),
        ((torch.tensor(1.0), SCORES), {"labels": WHOLE}, None, True),  # of Transformers
        ({"loss": torch.tensor(1.0), "logits": SCORES}, {"labels": None}, WHOLE, True),
        (SCORES, {}, FLOAT, False),
        (SCORES, {}, None, False),
        (SCORES[:, :1], {}, WHOLE, False),
        (SCORES, {}, torch.tensor([2, 1]), False),
        (SCORES[None], {"labels": WHOLE}, None, False),
        ([SCORES, SCORES], {}, WHOLE, False),
    ],
)
def test_tells_a_classifier(
    output: Any, keywords: dict[str, Any], target: Any, is_classifier: bool
) -> None:
    found = class_scores(output, ([torch.zeros(1, 2)], keywords, target))
    assert (found is not None) == is_classifier
    assert found is None or torch.equal(found, SCORES)


TOKENS = torch.tensor([[[1.0, 2.0], [3.0, -torch.inf], [1e9, 1e9]]])
NAMES = {"attention_mask": torch.tensor([[1, 1, 0]])}
LABELS = {"labels": torch.tensor([[1, 0, -100]]), "attention_mask": torch.tensor([[0, 1, 1]])}
DECODER = {
    "decoder_attention_mask": torch.tensor([[1, 1, 0]]), "decoder_input_ids": torch.ones(1, 3),
    "attention_mask": torch.tensor([[1, 1, 1]]),
}  # fmt: skip


@pytest.mark.parametrize("keywords", [NAMES, LABELS, DECODER])
def test_tokens_that_are_left_out_do_not_count(keywords: dict[str, Any]) -> None:
    assert _value(TOKENS, keywords).abs() <= 6
    span = {"start_logits": TOKENS[..., 0], "end_logits": TOKENS[..., 0]}
    assert _value(span, keywords).abs() <= 8
    classes = _value(TOKENS[..., 0], keywords)  # as many classes as tokens
    assert classes.abs() > 1e8


def test_an_encoders_mask_is_not_that_of_the_decoder() -> None:
    keywords = {"attention_mask": NAMES["attention_mask"], "decoder_input_ids": torch.ones(1, 3)}
    assert _value(TOKENS, keywords).abs() > 1e8 or _value(TOKENS[..., :1], keywords).abs() > 1e8


def test_an_output_that_is_not_a_number_is_not_passed_over() -> None:
    assert not _value(torch.tensor([[1.0, torch.nan]])).isfinite()


@pytest.mark.parametrize(
    "output", [None, (), torch.tensor([1]), {"loss": torch.ones(())}, SimpleNamespace(x=SCORES)]
)
def test_an_output_without_scores_is_refused(output: Any) -> None:
    with pytest.raises(RuntimeError, match=r"needs a model that returns a tensor .*use grad"):
        _value(output)


RECIPE = """modifiers:
  - !{}
    params: __ALL_PRUNABLE__
    init_sparsity: 0.5
    final_sparsity: 0.5
    start_epoch: 0.0
    end_epoch: 1.0
    update_frequency: 1.0
    num_grads: 32
    gradients_of: outputs
    {}
"""


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("OBSPruningModifier", "relative_damp: 1e-2\n    fisher_block_size: 5"),
        ("CAPruningModifier", "relative_damp: 1e-2"),
        ("FastCAPruningModifier", "damp: 1e-2"),
        ("MFACPruningModifier", "relative_damp: 1e-2"),
    ],
)
def test_prunes_without_labels(model: nn.Sequential, name: str, more: str) -> None:
    manager = ScheduledModifierManager.from_yaml(RECIPE.format(name, more))
    old = model[0].weight.detach().clone()
    manager.apply(
        model.float(), grad_sampler=_given([([x[0][0].float()], {}, None) for x in _data()])
    )
    assert sum(int((model[place].weight == 0).sum()) for place in (0, 2)) in (17, 18)
    assert not torch.equal(model[0].weight[model[0].weight != 0], old.float()[model[0].weight != 0])


def test_the_dampening_is_still_judged_by_the_loss(model: nn.Sequential) -> None:
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(1))
    data = [([part], {}, part.argmax(1) % 3) for part in x.split(8)]
    asked = []

    def loss(output: Tensor, labels: Tensor) -> Tensor:
        asked.append(torch.is_grad_enabled())
        return nn.functional.cross_entropy(output, labels)

    recipe = RECIPE.format("CAPruningModifier", "damp: auto")
    manager = ScheduledModifierManager.from_yaml(recipe)
    manager.apply(model.float(), grad_sampler=_given(data, loss))
    assert asked
    assert not any(asked)


def test_what_it_does_not_concern_is_said(
    model: nn.Sequential, caplog: pytest.LogCaptureFixture
) -> None:
    when = {"start_epoch": 0.0, "end_epoch": 1.0, "update_frequency": 1.0}
    goal = {"init_sparsity": 0.5, "final_sparsity": 0.5, "params": "__ALL__"}
    with pytest.raises(ValueError, match="samples no gradients: leave gradients_of out"):
        FastCAPruningModifier(**when, **goal, fisher="inputs", gradients_of="outputs")
    with pytest.raises(ValueError, match="must be 'loss' or 'outputs', found 'output'"):
        CAPruningModifier(**when, **goal, gradients_of="output")
    recipe = RECIPE.format("MFACPruningModifier", "damp: 1e-2")
    ScheduledModifierManager.from_yaml(recipe).modify(
        model.float(), torch.optim.SGD(model.parameters(), 0.1), steps_per_epoch=4
    )
    assert "gradients_of: outputs has no effect" in caplog.text
