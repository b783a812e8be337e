"""Distillation of models of Hugging Face's, against its formulas in float64."""

from __future__ import annotations

import copy
import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import (
    DistillationModifier,
    HiddenStateDistillationModifier,
    PerLayerDistillationModifier,
)

transformers = pytest.importorskip("transformers")

SIZES = {
    "bert": {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12},
    "distilbert": {"dim": 8, "n_heads": 2, "hidden_dim": 12},
    "gpt2": {"n_embd": 8, "n_head": 2, "n_positions": 16},
    "t5": {"d_model": 8, "d_kv": 4, "num_heads": 2, "d_ff": 12, "dropout_rate": 0.0},
}
LAYERS = {
    "bert": "num_hidden_layers",
    "distilbert": "n_layers",
    "gpt2": "n_layer",
    "t5": "num_layers",
}
TASKS = {
    "bert": transformers.AutoModelForSequenceClassification,
    "distilbert": transformers.AutoModelForSequenceClassification,
    "gpt2": transformers.AutoModelForCausalLM,
    "t5": transformers.AutoModelForSeq2SeqLM,
}  # fmt: skip
KINDS = sorted(TASKS)

MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


def build(kind, seed=0, task=None, layers=3, **settings):
    torch.manual_seed(seed)
    sizes = {**SIZES[kind], LAYERS[kind]: layers, "vocab_size": 20, "pad_token_id": 0, **settings}
    config = transformers.AutoConfig.for_model(kind, **sizes)
    return (task or TASKS[kind]).from_config(config).double().train()


def batch(kind, **labels):
    ids = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 10, 0, 0]])
    inputs = {"input_ids": ids, "attention_mask": MASK}
    if kind == "t5":
        inputs |= {"decoder_input_ids": ids.flip(1)[:, 1:], "decoder_attention_mask": MASK[:, 1:]}
    wanted = {"gpt2": ids, "t5": ids[:, 1:].contiguous()}.get(kind, torch.tensor([0, 1]))
    return {**inputs, "labels": wanted, **labels}


class Run:
    """A student, its teacher, and modifiers that act from the first step."""

    def __init__(self, kind, *modifiers, teacher=None, student=None, **settings):
        self.inputs = batch(kind)
        self.student = build(kind, **settings) if student is None else student
        self.teacher = build(kind, seed=1, **settings) if teacher is None else teacher
        self.manager = ScheduledModifierManager(list(modifiers))
        params = self.student.parameters()
        self.optimizer = torch.optim.AdamW(params, lr=0.01, weight_decay=0.1)
        self.stepper = self.manager.modify(
            self.student, self.optimizer, 4, distillation_teacher=self.teacher
        )

    def losses(self):
        """The loss of the task, and with the distillation; as without dropout."""
        for layer in self.student.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = 0.0
        outputs = self.student(**self.inputs)
        total = self.manager.loss_update(
            outputs.loss, self.student, self.optimizer, self.stepper.wrapped_epoch, 4,
            student_outputs=outputs, student_inputs=self.inputs,
        )  # fmt: skip
        return outputs, total

    def step(self):
        self.optimizer.zero_grad()
        _, total = self.losses()
        total.backward()
        self.stepper.step()
        return total.item()


def states(model, inputs):
    """The hidden states that the model itself gives, in evaluation mode."""
    model = copy.deepcopy(model).eval()
    with torch.no_grad():
        outputs = model(**inputs, output_hidden_states=True)
    return outputs.get("hidden_states") or outputs["decoder_hidden_states"]


class TestHiddenStates:
    @pytest.mark.parametrize("layer", [-1, 0, 2, -2])
    @pytest.mark.parametrize("kind", KINDS)
    def test_definition(self, kind, layer):
        run = Run(kind, HiddenStateDistillationModifier(weight=2.5, layer=layer))
        own, taught = (states(model, run.inputs)[layer] for model in (run.student, run.teacher))
        _, total = run.losses()
        torch.testing.assert_close(total, 2.5 * (own - taught).square().mean(), rtol=1e-12, atol=0)

    @pytest.mark.parametrize("kind", KINDS)
    def test_without_padding(self, kind):
        run = Run(kind, HiddenStateDistillationModifier(mask_padding=True))
        mask = (MASK[:, 1:] if kind == "t5" else MASK).bool()
        own, taught = (states(model, run.inputs)[-1] for model in (run.student, run.teacher))
        wanted = (own - taught)[mask].square().mean()
        assert mask.sum() < mask.numel() and wanted != (own - taught).square().mean()
        _, total = run.losses()
        torch.testing.assert_close(total, wanted, rtol=1e-12, atol=0)

    def test_beside_the_loss_of_the_task(self):
        run = Run("bert", HiddenStateDistillationModifier(weight=0.5, replace_task_loss=False))
        own, taught = (states(model, run.inputs)[-1] for model in (run.student, run.teacher))
        outputs, total = run.losses()
        wanted = outputs.loss + 0.5 * (own - taught).square().mean()
        torch.testing.assert_close(total, wanted, rtol=1e-12, atol=0)

    def test_weight_of_zero_is_the_task_alone(self):
        teacher = build("bert", seed=1)
        teacher.forward = None  # is not asked
        run = Run("bert", HiddenStateDistillationModifier(weight=0.0), teacher=teacher)
        outputs, total = run.losses()
        assert total is outputs.loss

    @pytest.mark.parametrize("kind", ["bert", "distilbert"])
    def test_head_and_pooler_stay_as_they_are(self, kind):
        run = Run(kind, HiddenStateDistillationModifier(weight=2.0))
        before = copy.deepcopy(run.student.state_dict())
        losses = [run.step() for _ in range(30)]
        changed = {
            name
            for name, value in run.student.state_dict().items()
            if (value != before[name]).any()
        }
        head = {name for name in before if "classifier" in name or "pooler" in name}
        assert head and not changed & head
        assert any("layer.2" in name for name in changed)
        assert losses[-1] < 0.5 * losses[0]

    def test_the_teacher_evaluates_without_gradients(self):
        run = Run("bert", HiddenStateDistillationModifier())
        seen = []
        run.teacher.train().register_forward_hook(
            lambda model, _, __: seen.append((model.training, torch.is_grad_enabled()))
        )
        _, total = run.losses()
        total.backward()
        assert seen == [(False, False)]
        assert all(param.grad is None for param in run.teacher.parameters())

    def test_a_copy_of_the_student_may_teach(self):
        run = Run("gpt2", HiddenStateDistillationModifier(), teacher="self")
        assert run.losses()[1] == 0.0
        with torch.no_grad():
            run.student.transformer.ln_f.bias.add_(2.0)
        assert run.losses()[1].item() == pytest.approx(4.0)

    def test_from_start_to_end(self):
        modifier = HiddenStateDistillationModifier(start_epoch=0.5, end_epoch=1.0, layer=1)
        run = Run("bert", modifier)
        replaced = []
        for _ in range(7):
            outputs, total = run.losses()
            replaced.append(total is not outputs.loss)
            total.backward()
            run.stepper.step()
        assert replaced == [False, False, True, True, True, False, False]
        for model in (run.student, run.teacher):
            assert not model.base_model._forward_hooks and not model.base_model._forward_pre_hooks

    def test_evaluation_gives_what_it_always_does(self):
        run = Run("bert", HiddenStateDistillationModifier(layer=1))
        with torch.no_grad():
            assert set(run.student.eval()(**run.inputs)) == {"loss", "logits"}

    def test_with_gradient_checkpointing(self):
        run, other = (Run("bert", HiddenStateDistillationModifier(layer=1)) for _ in range(2))
        run.student.activation_checkpointing_enable()
        assert run.step() == other.step()
        for own, wanted in zip(run.student.parameters(), other.student.parameters(), strict=True):
            torch.testing.assert_close(own, wanted, rtol=1e-12, atol=1e-15)

    @pytest.mark.parametrize(
        "fields,teacher,message",
        [
            ({"layer": 9}, {}, r"the student \(BertFor\w+\) has no hidden state 9, found 4 hidden"),
            ({}, {"hidden_size": 16}, r"shape \(2, 5, 8\), that of the teacher \(2, 5, 16\); PerL"),
            ({"layer": 3}, {"layers": 2}, "the teacher .* has no hidden state 3, found 3 hidden"),
        ],
    )
    def test_layers_that_do_not_fit(self, fields, teacher, message):
        teacher = build("bert", seed=1, **teacher)
        run = Run("bert", HiddenStateDistillationModifier(**fields), teacher=teacher)
        with pytest.raises(ValueError, match=message):
            run.losses()

    def test_models_of_others(self):
        net = nn.Linear(3, 3)
        modifier = HiddenStateDistillationModifier()
        modifier.initialize(net, distillation_teacher=nn.Linear(3, 3))
        x = torch.ones(2, 3)
        with pytest.raises(ValueError, match="must be a model of Hugging Face's"):
            modifier.loss_update(
                torch.ones(()), net, None, 0.0, 4, student_outputs=net(x), student_inputs=x
            )

    def test_a_teacher_must_be_a_model(self):
        with pytest.raises(ValueError, match="must be a module whose layers can be watched"):
            Run("bert", HiddenStateDistillationModifier(), teacher=lambda **_: None)

    def test_padding_needs_a_mask(self):
        run = Run("bert", HiddenStateDistillationModifier(mask_padding=True))
        del run.inputs["attention_mask"]
        with pytest.raises(
            ValueError, match=r"needs 'attention_mask' .* found .'input_ids', 'labels'"
        ):
            run.losses()

    @pytest.mark.parametrize(
        "fields,message",
        [
            ({"weight": -1.0}, "weight must be at least 0, found -1"),
            ({"layer": 1.5}, "layer must be a whole number, found 1.5"),
            ({"layer": "last"}, "layer must be a number"),
        ],
    )
    def test_bad_values(self, fields, message):
        with pytest.raises(ValueError, match=message):
            HiddenStateDistillationModifier(**fields)


def divergence(student, teacher, temperature):
    own, taught = (F.log_softmax(x / temperature, dim=-1) for x in (student, teacher))
    return (taught.exp() * (taught - own)).sum(-1) * temperature**2


class TestLogits:
    @pytest.mark.parametrize("kind", KINDS)
    def test_of_all_that_a_model_gives_it_is_the_logits(self, kind):
        run = Run(kind, DistillationModifier(hardness=0.7, temperature=3.0))
        outputs, total = run.losses()
        assert len(outputs) > 1
        with torch.no_grad():
            taught = run.teacher.eval()(**run.inputs).logits
        wanted = 0.3 * outputs.loss + 0.7 * divergence(outputs.logits, taught, 3.0).mean()
        torch.testing.assert_close(total, wanted, rtol=1e-12, atol=0)

    def test_answers_to_questions(self):
        task = transformers.AutoModelForQuestionAnswering
        run = Run("bert", DistillationModifier(hardness=1.0), task=task)
        run.inputs = batch(
            "bert", start_positions=torch.tensor([1, 2]), end_positions=torch.tensor([3, 2])
        )
        del run.inputs["labels"]
        outputs, total = run.losses()
        with torch.no_grad():
            taught = run.teacher.eval()(**run.inputs)
        start = divergence(outputs.start_logits, taught.start_logits, 2.0).mean()
        end = divergence(outputs.end_logits, taught.end_logits, 2.0).mean()
        torch.testing.assert_close(total, start / 2 + end / 2, rtol=1e-12, atol=0)
        assert start != end

    def test_tokens_without_padding(self):
        run = Run("gpt2", DistillationModifier(hardness=1.0, mask_padding=True))
        outputs, total = run.losses()
        with torch.no_grad():
            taught = run.teacher.eval()(**run.inputs).logits
        wanted = divergence(outputs.logits, taught, 2.0)[MASK.bool()].mean()
        torch.testing.assert_close(total, wanted, rtol=1e-12, atol=0)

    def test_padding_of_what_has_no_tokens(self):
        run = Run("bert", DistillationModifier(mask_padding=True))
        with pytest.raises(
            ValueError, match=r"'logits' has shape \(2, 2\), and the mask .*\(2, 5\)"
        ):
            run.losses()

    def test_keys_still_choose(self):
        run = Run("gpt2", DistillationModifier(distill_output_keys=["loss", "logits"]))
        with pytest.raises((ValueError, IndexError)):
            run.losses()  # a loss has no classes


class TestPerLayer:
    @pytest.mark.parametrize("kind,layer", [
        ("bert", "bert.encoder.layer.1"),
        ("distilbert", "distilbert.transformer.layer.1.ffn"),
        ("gpt2", "transformer.h.1.attn"),
        ("t5", "decoder.block.1"),
    ])  # fmt: skip
    def test_blocks(self, kind, layer):
        modifier = PerLayerDistillationModifier(
            gain=1.0, student_layer_names=[layer], project_features=False
        )
        run = Run(kind, modifier)
        seen = {}
        for name, model in {"own": run.student, "taught": run.teacher}.items():
            model.get_submodule(layer).register_forward_hook(
                lambda _, __, output, name=name: seen.update({name: output})
            )
        outputs, total = run.losses()
        own, taught = (x[0] if isinstance(x, tuple) else x for x in (seen["own"], seen["taught"]))
        gain = (own - taught).square().mean() / (taught.square().mean() + 1e-6)
        torch.testing.assert_close(total, outputs.loss + gain, rtol=1e-12, atol=0)

    def test_a_wider_teacher_with_projections(self, caplog):
        names = [f"bert.encoder.layer.{number}" for number in range(3)]
        modifier = PerLayerDistillationModifier(student_layer_names=names)
        teacher = build("bert", seed=1, hidden_size=16)
        run = Run("bert", modifier, teacher=teacher)
        with caplog.at_level(logging.WARNING):
            losses = [run.step() for _ in range(40)]
        assert losses[-1] < 0.7 * losses[0]
