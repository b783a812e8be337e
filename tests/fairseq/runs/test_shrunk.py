"""Units of fairseq's Transformers: found, gated, removed; and checkpoints that have lost some."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from torch import Tensor, nn

from sparseml.fairseq.hooks import install
from sparseml.fairseq.shrunk import ShrunkWeights, fit_to_weights, make_shrinkable
from sparseml.fairseq.translating import generator_of
from sparseml.pytorch.functional.shrinking.counting import (
    Attention,
    DecoderLayer,
    EncoderLayer,
    TransformerShape,
)
from sparseml.pytorch.sparsification.pruning.shrinking.choosing import kept_units
from sparseml.pytorch.units.gated import GatedUnits, Gates, gated_units, remove_gated

SMALL = {"embed_dim": 16, "ffn_embed_dim": 24, "attention_heads": 2, "layers": 2}
KINDS: dict[str, dict[str, Any]] = {
    "tied output": {"share_decoder_input_output_embed": True},
    "joint embeddings": {"share_all_embeddings": True},
    "untied output": {},
    "pre-norm": {"encoder_normalize_before": True, "decoder_normalize_before": True},
    "learned positions": {"encoder_learned_pos": True, "decoder_learned_pos": True},
    "embedding norms": {"layernorm_embedding": True},
    "odd widths": {"encoder_embed_dim": 20, "decoder_embed_dim": 12},
}


def _words(count: int) -> Dictionary:
    made = Dictionary()
    for number in range(count - len(made)):
        made.add_symbol(f"w{number}")
    return made


def _built(
    arch: str = "srp", source: int = 40, target: int = 36, sizes: Any = None, **more: Any
) -> tuple[TranslationTask, Any]:
    install()
    sizes = SMALL if sizes is None else sizes
    sides = {f"{side}coder_{k}": v for side in ("en", "de") for k, v in sizes.items()}
    args = Namespace(arch=arch, dropout=0.1, **{**sides, **more})
    ARCH_CONFIG_REGISTRY[arch](args)
    own = _words(source)
    other = own if more.get("share_all_embeddings") else _words(target)
    settings = TranslationConfig(source_lang="de", target_lang="en")
    task = TranslationTask(settings, own, other)
    return task, ARCH_MODEL_REGISTRY[arch].build_model(args, task)


def _batch(task: Any, sentences: int = 5, longest: int = 9) -> dict[str, Tensor]:
    """Sentences of several lengths, padded on the left."""
    chance = torch.Generator().manual_seed(0)
    words = len(task.source_dictionary)
    source = torch.randint(4, words, (sentences, longest), generator=chance)
    source[:, -1] = 2
    for row in range(1, sentences):
        source[row, : row % longest] = 1
    told = torch.randint(4, len(task.target_dictionary), (sentences, 6), generator=chance)
    told[:, 0] = 2
    lengths = (source != 1).sum(1)
    return {"src_tokens": source, "src_lengths": lengths, "prev_output_tokens": told}


def _chosen(units: tuple[GatedUnits, ...], keep: float) -> dict[GatedUnits, Tensor]:
    chance = torch.Generator().manual_seed(1)
    scores = {one.key: torch.randn(one.group.size, generator=chance) for one in units}
    originals = {one.key: one.group.size for one in units}
    kept = kept_units(units, scores, originals, keep)
    return {one: kept[one.key] for one in units}


def _gated(model: nn.Module, task: Any) -> tuple[GatedUnits, ...]:
    inputs = {**_batch(task, 2, 4), "alignment_layer": -1}
    found = gated_units(model.eval(), inputs)
    assert not found.skipped
    return found.found


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_translations_are_those_with_gates_at_zero(kind: str) -> None:
    """Beam search, with what it keeps of the words before; sentences longer than any before."""
    task, model = _built(**KINDS[kind])
    for param in model.parameters():  # biases and norms are not trivial
        param.add_(0.1 * torch.randn(param.shape, generator=torch.Generator().manual_seed(2)))
    batch = _batch(task)
    plain = model.eval()(**batch)[0]
    make_shrinkable(model)
    assert (model(**batch)[0] - plain).abs().max() < 1e-5
    units = _gated(model, task)
    keeps, gates = _chosen(units, 0.6), Gates(model, units)
    for one, keep in keeps.items():
        gates.lower(one.key, keep, 0.0)
    long = _batch(task, 3, 40)
    for module in model.modules():  # no more than 20 were computed before
        if hasattr(module, "columns"):
            module.weights = module.weights[:20]
    outputs = [model(**one)[0] for one in (batch, long)]
    search = generator_of(task, model, beam=3, max_len_b=8)
    sample = {"net_input": batch}
    told = [task.inference_step(search, [model], sample)]
    gates.detach()
    remove_gated(model, keeps)
    for one, output in zip((batch, long), outputs, strict=True):
        assert (model(**one)[0] - output).abs().max() < 1e-5
    told.append(task.inference_step(search, [model], sample))
    for before, after in zip(*told, strict=True):
        assert [one["tokens"].tolist() for one in before] == [
            one["tokens"].tolist() for one in after
        ]
        assert before[0]["score"] == pytest.approx(float(after[0]["score"]), abs=1e-4)
    if kind in ("tied output", "joint embeddings"):
        assert model.decoder.output_projection.weight is model.decoder.embed_tokens.weight
    # and a model of the same configuration takes the weights
    again = _built(**KINDS[kind])[1].eval()
    weights = ShrunkWeights(model.state_dict())
    again.load_state_dict(weights)
    assert torch.equal(again(**long)[0], model(**long)[0])


def test_counts_are_those_of_the_formula() -> None:
    """The published shapes of the model for IWSLT, on random weights."""
    task, model = _built("srp_iwslt_de_en", 8848, 6632, {}, share_decoder_input_output_embed=True)
    make_shrinkable(model)

    def count() -> int:
        return sum(param.numel() for param in model.parameters() if param.requires_grad)

    assert count() == 39_469_056
    for keep, wanted in ((0.389678, 7_827_714), (0.249232, 3_898_752)):
        units = _gated(model, task)
        kept = _chosen(units, keep) if wanted == 7_827_714 else _from(units, keep)
        remove_gated(model, kept)
        assert count() == wanted
        assert count() == _shape(model).parameters()


def _from(units: tuple[GatedUnits, ...], keep: float) -> dict[GatedUnits, Tensor]:
    """Go on from what the first rate has left."""
    whole = {"stream": 512, "qk": 512, "vo": 512, "fc": 1024}
    scores = {one.key: torch.arange(one.group.size).double() for one in units}
    kept = kept_units(units, scores, {one.key: whole[one.kind] for one in units}, keep)
    return {one: kept[one.key] for one in units}


def _shape(model: Any) -> TransformerShape:
    def attention(block: Any) -> Attention:
        return Attention(len(block.k_proj.weight), len(block.v_proj.weight))

    encoder, decoder = model.encoder, model.decoder
    return TransformerShape(
        *(encoder.embed_tokens.num_embeddings, decoder.embed_tokens.num_embeddings),
        *(encoder.embed_tokens.embedding_dim, decoder.embed_tokens.embedding_dim),
        [EncoderLayer(attention(one.self_attn), one.fc1.out_features) for one in encoder.layers],
        [
            DecoderLayer(
                attention(one.self_attn), attention(one.encoder_attn), one.fc1.out_features
            )
            for one in decoder.layers
        ],
    )


@pytest.mark.parametrize(
    ("arch", "sizes"),
    {
        "srp": (512, 2048, 8, 6),
        "srp_wmt_en_de": (512, 2048, 8, 6),
        "srp_iwslt_de_en": (512, 1024, 4, 6),
        "srp_iwslt_de_en_small": (512, 1024, 4, 3),
        "srp_vaswani_wmt_en_de_big": (1024, 4096, 16, 6),
    }.items(),
)
def test_architectures(arch: str, sizes: tuple[int, ...]) -> None:
    install()
    args = Namespace()
    ARCH_CONFIG_REGISTRY[arch](args)
    for side in ("encoder", "decoder"):
        names = ("embed_dim", "ffn_embed_dim", "attention_heads", "layers")
        assert tuple(getattr(args, f"{side}_{name}") for name in names) == sizes
    assert args.dropout == (0.3 if "big" in arch else 0.1)


def test_weights_of_another_model_are_refused_as_ever() -> None:
    _, model = _built()
    for narrow in ({"ffn_embed_dim": 12}, {"embed_dim": 8}):
        weights = _built(sizes=SMALL | narrow)[1].state_dict()
        fit_to_weights(model, weights)
        with pytest.raises(RuntimeError, match="size mismatch"):
            model.load_state_dict(weights)


def test_one_shot_leaves_a_smaller_checkpoint(
    corpora: dict[str, Path], checkpoints: dict[str, Path], call: Callable[..., Any]
) -> None:
    """Which is pruned, and described, as any other."""
    given = [corpora["pairs"], "--model", f"fairseq:{checkpoints['pairs']}"]
    done = call(*given, "--recipe", "recipe:fairseq/one_shot/srp/transformer", "--bleu")
    assert "bleu" in done.out.lower()
    small = next(Path("out/run").rglob("checkpoint.pt"))
    weights = torch.load(small, weights_only=True)["model"]
    assert weights["encoder.embed_tokens.weight"].shape[1] < 16
    again = [corpora["pairs"], "--model", f"fairseq:{small}", "--overwrite"]
    call(*again, "--recipe", "recipe.yaml")
