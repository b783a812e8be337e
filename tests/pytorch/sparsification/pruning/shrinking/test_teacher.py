"""The teacher of a model that shrinks: which one it is, what it adds, how it outlasts a stop."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from sparseml.pytorch.functional.distillation import kl_logsoftmax
from sparseml.pytorch.sparsification import SRPPruningModifier
from sparseml.pytorch.sparsification.pruning.shrinking.teaching import Teaching
from sparseml.pytorch.utils.saving.checkpoint import load_checkpoint, save_checkpoint

from .runs import SAMPLER, STEPS, WHOLE, Classifier, Run, batches, outputs_of, recipe_of

KD = "kd_weight: 0.7, kd_temperature: 4.0"
STAGES = (
    "compression_rate: 0.4, stage: 1, start_epoch: 0.0, end_epoch: 1.0",
    "compression_rate: 0.4, stage: 2, start_epoch: 1.0, end_epoch: 2.0",
)


def _added(srp: SRPPruningModifier, model: nn.Module, epoch: float) -> Tensor:
    (ids,), _, _ = next(batches(5))
    outputs, nothing = model(ids), torch.zeros((), dtype=torch.float64)
    given = {"student_inputs": ids, "student_outputs": outputs}
    return srp.loss_update(nothing, model, None, epoch, STEPS, **given)


def test_it_is_the_model_as_it_was_and_adds_its_distance_from_the_start_on() -> None:
    run = Run(recipe_of(f"{WHOLE}, {KD}"))
    original = copy.deepcopy(run.model)
    before = outputs_of(original)
    with torch.no_grad():
        for param in run.model.parameters():
            param.add_(0.05 * torch.randn_like(param))
    assert _added(run.srp[0], run.model.eval(), 0.5) == 0.0
    (ids,), _, _ = next(batches(5))
    teacher = run.srp[0]._teaching._teacher
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, original.state_dict()[name])
    # torch takes another path through attention for a model with hooks, which rounds differently
    torch.testing.assert_close(outputs_of(teacher), before, rtol=1e-12, atol=1e-14)
    assert not teacher.training
    expected = 0.7 * kl_logsoftmax(run.model(ids), teacher(ids), 4.0)
    assert expected > 0
    torch.testing.assert_close(_added(run.srp[0], run.model, 1.0), expected)
    assert not any(param.requires_grad for param in teacher.parameters())


@pytest.mark.parametrize("which", [0, 1])
def test_in_a_second_stage_it_is_still_the_whole_model(which: int) -> None:
    run = Run(recipe_of(*(f"{one}, {KD}" if n == which else one for n, one in enumerate(STAGES))))
    original = copy.deepcopy(run.model.state_dict())
    run.steps(6)
    assert run.size < sum(value.numel() for value in original.values())
    for name, value in run.srp[which]._teaching._teacher.state_dict().items():
        assert torch.equal(value, original[name])
    assert _added(run.srp[which], run.model, 1.5) > 0


@pytest.mark.parametrize("given", [None, "self", "module"])
def test_equal_to_the_student_it_adds_nothing_to_the_scores(given: str | None) -> None:
    scores: list[dict[str, Tensor]] = []
    for kd in ("", f", {KD}"):
        run = Run(recipe_of(WHOLE + kd))
        if given == "module":
            teacher = copy.deepcopy(run.model).eval()
            run.srp[0].initialize(run.model, grad_sampler=SAMPLER, distillation_teacher=teacher)
        elif given is not None:
            run = Run(recipe_of(WHOLE + kd), distillation_teacher=given)
        scores.append(_scores(run.srp[0]))
    for key, plain in scores[0].items():
        far = (scores[1][key] - plain).abs().max()
        assert far <= 1e-13 * plain.abs().max(), (key, far)


def _scores(srp: SRPPruningModifier) -> dict[str, Tensor]:
    from sparseml.pytorch.sparsification.pruning.shrinking import modifier_pruning_srp as module

    seen: dict[str, Tensor] = {}
    take = module.unit_scores

    def watched(*args: Any) -> dict[str, Tensor]:
        seen.update(take(*args))
        return seen

    module.unit_scores = watched
    try:
        srp._choose()
    finally:
        module.unit_scores = take
    return seen


def test_another_teacher_has_a_say_in_the_scores() -> None:
    torch.manual_seed(9)
    other = Classifier().double()
    plain, taught = (
        Run(recipe_of(WHOLE)),
        Run(recipe_of(f"{WHOLE}, {KD}"), distillation_teacher=other),
    )
    assert taught.srp[0]._teaching._teacher is other
    one, two = _scores(plain.srp[0]), _scores(taught.srp[0])
    assert any(not torch.allclose(one[key], two[key]) for key in one)


@pytest.mark.parametrize("at", [2, 6, 11, 12, 13])
def test_a_stopped_run_goes_on_with_the_same_teacher(at: int, tmp_path: Path) -> None:
    recipe = recipe_of(f"{WHOLE}, {KD}")
    straight, first = Run(recipe), Run(recipe)
    losses = straight.steps(15)
    first.steps(at)
    parts = {"optimizer": first.optimizer, "manager": first.manager}
    save_checkpoint(tmp_path / "run.pth", first.model, **parts)
    again = Run(recipe, seed=3)  # of other weights, as who goes on need not have the first ones
    parts = {"optimizer": again.optimizer, "manager": again.manager}
    load_checkpoint(tmp_path / "run.pth", again.model, **parts)
    assert again.steps(15 - at) == losses[at:]


def test_without_a_weight_there_is_none() -> None:
    run = Run(recipe_of(WHOLE))
    assert run.srp[0]._teaching is None and not run.srp[0].changes_loss
    assert "teacher" not in run.srp[0].progress_state()
    run = Run(recipe_of(f"{WHOLE}, {KD}"), distillation_teacher="disable")
    assert run.srp[0]._teaching is None
    kinds = [kind.value for kind in run.srp[0].sparsification_types]
    assert kinds == ["pruning", "distillation"]


def test_what_is_missing_is_told() -> None:
    run = Run(recipe_of(f"{WHOLE}, {KD}"))
    with pytest.raises(ValueError, match="kd_weight needs the student's inputs and outputs"):
        run.srp[0].loss_update(torch.zeros(()), run.model, None, 1.0, STEPS)
    with pytest.raises(ValueError, match="distillation_teacher must be a module"):
        Run(recipe_of(f"{WHOLE}, {KD}"), distillation_teacher="itself")
    for name, value in (("kd_weight", -0.1), ("kd_temperature", 0.0)):
        with pytest.raises(ValueError, match=f"{name} must be"):
            SRPPruningModifier(0.5, 0.0, 1.0, **{name: value})


SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 20}


def test_padding_does_not_count() -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(**SIZES, intermediate_size=16)
    model = transformers.BertForMaskedLM(config).eval()
    other = copy.deepcopy(model)
    with torch.no_grad():
        for param in other.parameters():
            param.add_(0.1 * torch.randn_like(param))
    teaching = Teaching(model, other, 1.0, 2.0)
    ids = torch.randint(1, 20, (1, 6))
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    padded = {"input_ids": ids, "attention_mask": mask}
    short = {"input_ids": ids[:, :4], "attention_mask": mask[:, :4]}
    added = [
        teaching.added_to(torch.zeros(()), model, given, model(**given))
        for given in (padded, short)
    ]
    assert added[0] > 0
    torch.testing.assert_close(added[0], added[1])
    logits = model(**padded).logits.detach().requires_grad_(True)
    output = {"logits": logits}
    teaching.added_to(torch.zeros(()), model, padded, output).backward()
    assert bool((logits.grad[0, 4:] == 0).all()) and bool((logits.grad[0, :4] != 0).any())


def test_a_decoder_without_a_mask_is_masked_by_its_labels() -> None:
    torch.manual_seed(0)
    small = {"d_model": 16, "vocab_size": 20, "encoder_layers": 1, "decoder_layers": 1}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    tokens = {"pad_token_id": 1, "decoder_start_token_id": 2, "bos_token_id": 0, "eos_token_id": 2}
    ffn = {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    model = transformers.BartForConditionalGeneration(
        transformers.BartConfig(**small, **heads, **tokens, **ffn)
    ).eval()
    labels = torch.tensor([[4, 5, 6, -100, -100]])
    inputs = {"input_ids": torch.randint(3, 20, (1, 7)), "labels": labels}
    logits = model(**inputs).logits.detach().requires_grad_(True)
    other = transformers.BartForConditionalGeneration(model.config).eval()
    Teaching(model, other, 1.0, 2.0).added_to(
        torch.zeros(()), model, inputs, {"logits": logits}
    ).backward()
    assert bool((logits.grad[0, 3:] == 0).all()) and bool((logits.grad[0, :3] != 0).any())


def test_predictions_of_whole_texts_are_not_masked() -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(**SIZES, intermediate_size=16, num_labels=3)
    model = transformers.BertForSequenceClassification(config).eval()
    other = transformers.BertForSequenceClassification(config).eval()
    inputs = {"input_ids": torch.randint(1, 20, (2, 6)), "attention_mask": torch.ones(2, 6)}
    added = Teaching(model, other, 1.0, 2.0).added_to(
        torch.zeros(()), model, inputs, model(**inputs)
    )
    expected = kl_logsoftmax(model(**inputs).logits, other(**inputs).logits, 2.0)
    torch.testing.assert_close(added, expected)
