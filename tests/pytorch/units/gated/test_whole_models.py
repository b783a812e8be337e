"""SRP as a recipe has it on models that nobody here wrote: what is removed was gated off."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import timm
import torch
import torchvision
import transformers as t
from torch import Tensor, nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.optim.step_driver import StepDriver
from sparseml.pytorch.sparsification import SRPPruningModifier
from sparseml.pytorch.units.gated import gated_units
from sparseml.pytorch.units.probing import call_model

from .models import BERT, IDS, LAYERS_OF_BOTH, LLAMA, ZOO, from_config

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
_IMAGE = {"img_size": 32, "depth": 2, "num_classes": 5, "embed_dim": 24, "num_heads": 3}
_DISTIL = {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 4, "vocab_size": 64}
_OPT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 24,
        "vocab_size": 64, "max_position_embeddings": 32, "pad_token_id": 0}  # fmt: skip
_WHISPER = {**LAYERS_OF_BOTH, "d_model": 16, "vocab_size": 64, "num_mel_bins": 8, "pad_token_id": 0,
            "max_source_positions": 10, "decoder_start_token_id": 0, "eos_token_id": 1,
            "bos_token_id": 2}  # fmt: skip
_SOUND = {
    "input_features": torch.randn(2, 8, 20, generator=torch.Generator().manual_seed(0)),
    "decoder_input_ids": IDS,
}

Build = tuple[Callable[[], nn.Module], Any]
MODELS: dict[str, Build] = {
    **{name: (made.build, made.inputs) for name, made in ZOO.items()},
    "deit": (lambda: timm.create_model("deit_tiny_distilled_patch16_224", **_IMAGE), IMAGES),
    "distilbert": (
        from_config(t.DistilBertForSequenceClassification, t.DistilBertConfig, **_DISTIL), IDS),
    "roberta": (from_config(t.RobertaForSequenceClassification, t.RobertaConfig, **BERT), IDS),
    "electra": (
        from_config(t.ElectraForSequenceClassification, t.ElectraConfig, embedding_size=8, **BERT),
        IDS),
    "albert, shared layers": (
        from_config(t.AlbertForSequenceClassification, t.AlbertConfig, embedding_size=8, **BERT),
        IDS),
    "opt, projected words": (
        from_config(t.OPTForCausalLM, t.OPTConfig, word_embed_proj_dim=8, **_OPT), IDS),
    "qwen2": (from_config(t.Qwen2ForCausalLM, t.Qwen2Config, **LLAMA), IDS),
    "mistral": (from_config(t.MistralForCausalLM, t.MistralConfig, **LLAMA), IDS),
    "bloom, biases of positions": (
        from_config(t.BloomForCausalLM, t.BloomConfig, hidden_size=16, n_layer=2, n_head=4,
                    vocab_size=64, bos_token_id=1, eos_token_id=2), IDS),
    "whisper": (
        from_config(t.WhisperForConditionalGeneration, t.WhisperConfig, **_WHISPER), _SOUND),
}  # fmt: skip
SINGLE = ("llama, grouped queries", "t5", "t5, gated", "qwen2", "mistral")
STEPS = 2
STAGES = {
    "one stage": ("stage: 0, start_epoch: 0.0, end_epoch: 2.0",),
    "two stages": (
        "stage: 1, start_epoch: 0.0, end_epoch: 1.0",
        "stage: 2, start_epoch: 1.0, end_epoch: 2.0",
    ),
}


def _built(name: str) -> tuple[nn.Module, Any]:
    torch.manual_seed(0)
    build, inputs = MODELS[name]
    model = build().double().eval()
    with torch.no_grad():
        for param in model.parameters():
            param.add_(torch.randn_like(param) * 0.05)
    return model, _doubled(inputs)


def _doubled(inputs: Any) -> Any:
    if isinstance(inputs, dict):
        return {name: _doubled(one) for name, one in inputs.items()}
    floating = isinstance(inputs, Tensor) and inputs.is_floating_point()
    return inputs.double() if floating else inputs


def _first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else next(iter(output.values()))


def _result(model: nn.Module, inputs: Any) -> Tensor:
    with torch.no_grad():
        return call_model(model.eval(), inputs)[0]


def _hypotheses(model: nn.Module, inputs: Any) -> Tensor | None:
    """What beam search with a cache finds, of models that generate."""
    if not getattr(model, "can_generate", bool)() or "Classification" in type(model).__name__:
        return None
    given = {"inputs": inputs} if isinstance(inputs, Tensor) else dict(inputs)
    given.pop("decoder_input_ids", None)
    how = {"num_beams": 3, "max_new_tokens": 6, "do_sample": False, "use_cache": True}
    found: Tensor = model.eval().generate(**given, **how)
    return found


def _constants(model: nn.Module) -> dict[str, float]:
    return {
        f"{name}.{key}": value
        for name, module in model.named_modules()
        for key in ("scaling", "embed_scale", "layer_norm_epsilon", "eps")
        if isinstance(value := vars(module).get(key), float)
    }


class _Watched:
    """A run, in which every removal is looked at."""

    def __init__(self, name: str, stages: tuple[str, ...]) -> None:
        self.model, self.inputs = _built(name)
        self.tolerance = 1e-5 if name in SINGLE else 1e-10
        recipe = [
            f"  - !SRPPruningModifier {{compression_rate: 0.4, {stage}, ffn_ranking: per_layer}}"
            for stage in stages
        ]
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.manager = ScheduledModifierManager.from_yaml("modifiers:\n" + "\n".join(recipe))
        sampler = {
            "data_loader_builder": self._batches,
            "loss_fn": lambda output, _: _first(output).square().mean(),
        }
        self.manager.initialize(self.model, grad_sampler=sampler)
        self.removals = 0
        for srp in self.manager.modifiers:
            assert isinstance(srp, SRPPruningModifier)
            self._watch(srp)

    def _batches(self) -> Iterator[tuple[list[Any], dict[str, Any], Tensor]]:
        named = isinstance(self.inputs, dict)
        args = (
            [] if named else list(self.inputs if isinstance(self.inputs, tuple) else [self.inputs])
        )
        while True:
            yield args, self.inputs if named else {}, torch.zeros(())

    def run(self) -> None:
        driver = StepDriver(self.model, self.optimizer, self.manager, STEPS)
        for _ in range(3 * STEPS):
            self.optimizer.zero_grad()
            call_model(self.model.train(), self.inputs)[0].square().mean().backward()
            driver.before_step()
            self.optimizer.step()
            driver.after_step()
        self.manager.finalize(self.model)

    def _watch(self, srp: SRPPruningModifier) -> None:
        end = srp._end_fading

        def watched(optimizer: Any) -> None:
            assert srp._fading is not None
            srp._fading.lower(0.0)
            before, found = _result(self.model, self.inputs), _hypotheses(self.model, self.inputs)
            constants = _constants(self.model)
            keeps = dict(srp._fading._keeps)
            states = {
                name: copy.deepcopy(optimizer.state[param])
                for name, param in self.model.named_parameters()
            }
            end(optimizer)
            after = _result(self.model, self.inputs)
            torch.testing.assert_close(after, before, rtol=0, atol=self.tolerance)
            again = _hypotheses(self.model, self.inputs)
            assert (found is None and again is None) or torch.equal(again, found)
            assert _constants(self.model) == constants
            self._moments_follow(states, keeps)
            self.removals += 1

        srp._end_fading = watched

    def _moments_follow(self, states: dict[str, Any], keeps: dict[Any, Tensor]) -> None:
        names = dict(self.model.named_parameters())
        taken: dict[tuple[str, int], Tensor] = {}
        for units, keep in keeps.items():
            for member in units.group.members:
                stays = keep[member.index] | (member.index < 0)
                before = taken.get((member.param, member.dim))
                taken[member.param, member.dim] = stays if before is None else before & stays
        for name, old in states.items():
            new = self.optimizer.state[names[name]]
            assert new.keys() == old.keys()
            for key, value in old.items():
                expected = value
                if key != "step":
                    for (param, dim), stays in taken.items():
                        if param == name:
                            expected = expected.index_select(dim, stays.nonzero()[:, 0])
                assert torch.equal(new[key], expected), (name, key)


TWICE = ("torch, post-norm", "torch, both sides", "bert", "marian", "t5", "gpt2", "vit")
RUNS = [*((name, "one stage") for name in MODELS), *((name, "two stages") for name in TWICE)]


@pytest.mark.parametrize(("name", "stages"), RUNS)
def test_what_is_removed_was_gated_off(name: str, stages: str) -> None:
    watched = _Watched(name, STAGES[stages])
    whole = sum(param.numel() for param in watched.model.parameters())
    kinds = {units.kind for units in gated_units(watched.model, watched.inputs).found}
    assert kinds == {"stream", "qk", "vo", "fc"}
    watched.run()
    assert watched.removals == len(STAGES[stages])
    left = sum(param.numel() for param in watched.model.parameters())
    assert left < 0.75 * whole


REFUSED: dict[str, tuple[Build, str, str]] = {
    "cait": (
        (lambda: timm.create_model("cait_xxs24_224", **_IMAGE), IMAGES),
        "stream blocks.0.norm1", "removal breaks the model: shape"),
    "torchvision": (
        (lambda: torchvision.models.VisionTransformer(32, 8, 2, 4, 16, 24, num_classes=5), IMAGES),
        "stream encoder.layers.encoder_layer_0.ln_1", "removal breaks the model: shape"),
    "deberta": (
        (from_config(t.DebertaV2ForSequenceClassification, t.DebertaV2Config,
                     relative_attention=True, pos_att_type=["c2p", "p2c"], **BERT), IDS),
        "qk deberta.encoder.layer.0.attention.output.dense", "removal breaks the model"),
    "gpt-neox, part of a head": (
        (from_config(t.GPTNeoXForCausalLM, t.GPTNeoXConfig, bos_token_id=1, eos_token_id=2, **BERT),
         IDS),
        "qk gpt_neox.layers.0.attention.dense", "rotary positions"),
    "llama, long texts": (
        (from_config(t.LlamaForCausalLM, t.LlamaConfig, **LLAMA,
                     rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}),
         IDS),
        "vo model.layers.1.self_attn.o_proj", "or they change"),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused_by_name_before_anything_trains(name: str) -> None:
    (build, inputs), key, reason = REFUSED[name]
    torch.manual_seed(0)
    groups = gated_units(build().eval(), inputs)
    assert reason in groups.skipped[key], groups.skipped
    assert groups.of("fc")


def test_nothing_to_remove_is_an_error_that_tells_why() -> None:
    model = t.DebertaV2Model(t.DebertaV2Config(relative_attention=True, **BERT)).eval()
    manager = ScheduledModifierManager.from_yaml(
        "modifiers:\n  - !SRPPruningModifier {compression_rate: 0.4, stage: 1, start_epoch: 0.0, "
        "end_epoch: 1.0}"
    )
    sampler = {"data_loader_builder": lambda: iter([([IDS], {}, IDS)]), "loss_fn": lambda *_: 0.0}
    with pytest.raises(ValueError, match=r"nothing to remove in stage 1 .*outputs of the model"):
        manager.initialize(model, grad_sampler=sampler)
