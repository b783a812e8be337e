"""Units that fade away: found in models of every make, gated, and removed without a change."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import timm
import torch
import transformers as t
from torch import Tensor, nn

from sparseml.pytorch.shrink import fill_shrunk, save_shrunk
from sparseml.pytorch.units.gated import GatedUnits, Gates, gated_units, remove_gated
from sparseml.pytorch.units.gated.frozen import FrozenSlices
from sparseml.pytorch.units.probing import call_model

from .models import BOTH, IDS, MARIAN, ZOO, Encoder, made

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SINGLE = ("llama, grouped queries", "t5", "t5, gated")
TOLERANCE = {True: 1e-10, False: 1e-3}


def _chosen(units: GatedUnits, seed: int = 0) -> Tensor:
    """Half of the units by chance, as many of each head."""
    generator = torch.Generator().manual_seed(seed)
    size = units.group.size // units.pools
    orders = [torch.randperm(size, generator=generator) for _ in range(units.pools)]
    return torch.cat([order < (size + 1) // 2 for order in orders])


def _told(units: GatedUnits) -> list[Any]:
    """All that units say, to be compared."""
    members = sorted((m.param, m.dim, m.index.tolist()) for m in units.group.members)
    sites = sorted((site.layer, site.where, site.index.tolist()) for site in units.sites)
    buffers = [(m.param, m.index.tolist()) for m in units.buffers]
    rest = [units.group.size, units.pools, units.layers, units.width, units.readers, units.fold]
    return [units.key, members, sites, buffers, *rest]


def _parameters(model: nn.Module) -> int:
    return sum(param.numel() for param in model.parameters())


def _result(model: nn.Module, inputs: Any) -> Tensor:
    with torch.no_grad():
        return call_model(model, inputs)[0]


@pytest.mark.parametrize("name", list(ZOO))
def test_removed_or_gated_off_is_the_same(name: str) -> None:
    model, inputs = made(name)
    keys, before = list(model.state_dict()), _result(model, inputs)
    types = [type(layer) for layer in model.modules()]
    groups = gated_units(model, inputs)
    counts = Counter(units.kind for units in groups.found)
    known = ZOO[name]
    assert counts["stream"] == known.streams and counts["fc"] == known.ffns, groups.skipped
    assert (counts["qk"], counts["vo"]) == (known.shared or known.attentions, known.attentions)
    gates = Gates(model, groups.found)
    assert list(model.state_dict()) == keys
    # norms of Transformers are computed in single precision, root mean squares that is
    exact = name not in SINGLE
    torch.testing.assert_close(_result(model, inputs), before, rtol=0, atol=TOLERANCE[exact] / 100)
    keeps = {units: _chosen(units) for units in groups.found}
    for units, keep in keeps.items():
        gates.lower(units.key, keep, 0.0)
    off = _result(model, inputs)
    assert (off - before).abs().max() > 1e-3
    gates.detach()
    assert torch.equal(_result(model, inputs), before)
    assert [type(layer) for layer in model.modules()] == types
    size = _parameters(model)
    removed = remove_gated(model, keeps)
    assert _parameters(model) <= size - removed * 0.5 and _parameters(model) < 0.75 * size
    after = _result(model, inputs)
    torch.testing.assert_close(after, off, rtol=0, atol=TOLERANCE[exact])
    single = copy.deepcopy(model).float()
    floats = inputs.float() if isinstance(inputs, Tensor) and inputs.ndim > 2 else inputs
    torch.testing.assert_close(_result(single, floats).double(), after, rtol=1e-5, atol=1e-5)
    # once more, as of what is left some can go; what was found has followed
    again, anew = gated_units(model, inputs), gated_units(copy.deepcopy(model), inputs)
    assert Counter(units.kind for units in again.found) == counts, again.skipped
    assert gated_units(model, inputs) is again
    assert [_told(units) for units in again.found] == [_told(units) for units in anew.found]


@pytest.mark.parametrize("kind", ["stream", "fc", "heads"])
@pytest.mark.parametrize("name", ["torch, post-norm", "torch, pre-norm", "gpt2", "marian"])
def test_single_kinds(name: str, kind: str) -> None:
    model, inputs = made(name)
    kinds = ("qk", "vo") if kind == "heads" else (kind,)
    found = gated_units(model, inputs).of(*kinds)
    keeps = {units: _chosen(units, 1) for units in found}
    gates = Gates(model, found)
    for units, keep in keeps.items():
        gates.lower(units.key, keep, 0.0)
    off = _result(model, inputs)
    gates.detach()
    remove_gated(model, keeps)
    torch.testing.assert_close(_result(model, inputs), off, rtol=0, atol=1e-10)


class TestScores:
    def _gradients(self, name: str) -> tuple[nn.Module, dict[str, Tensor], list[GatedUnits]]:
        model, inputs = made(name)
        found = gated_units(model, inputs).of("qk", "vo", "fc")
        gates = Gates(model, found)
        given = gates.trainable()
        loss = call_model(model, inputs)[0].square().mean()
        params = [param for param in model.parameters() if param.requires_grad]
        grads = torch.autograd.grad(loss, [*given, *params], allow_unused=True)
        for param, grad in zip(params, grads[len(given) :], strict=True):
            param.grad = grad
        gates.detach()
        keys = [units.key for units in found]
        return model, dict(zip(keys, grads[: len(given)], strict=True)), list(found)

    def _by_weights(self, model: nn.Module, units: GatedUnits, *places: int) -> Tensor:
        """The sum of gradient times weight over the slices of some members of each unit."""
        total = torch.zeros(units.group.size, dtype=torch.float64)
        for place in places:
            member = units.group.members[place]
            param = model.get_parameter(member.param)
            each = (param.detach() * param.grad).movedim(member.dim, 0)
            each = each.reshape(len(each), -1).sum(1)
            there = member.index >= 0
            total.index_add_(0, member.index[there], each[there])
        return total

    @pytest.mark.parametrize("name", ["bert", "marian"])
    def test_gradients_are_those_of_the_weights(self, name: str) -> None:
        model, gradients, found = self._gradients(name)
        for units in found:
            places = {"qk": [(0, 1), (2, 3)], "vo": [(0, 1), (2,)], "fc": [(2,)]}[units.kind]
            for chosen in places:
                expected = self._by_weights(model, units, *chosen)
                torch.testing.assert_close(gradients[units.key], expected, rtol=1e-9, atol=2e-15)

    def test_those_of_the_first_layer_only_with_relu(self) -> None:
        for name, relu in (("torch, post-norm", True), ("bert", False)):
            model, gradients, found = self._gradients(name)
            for units in (one for one in found if one.kind == "fc"):
                by_first = self._by_weights(model, units, 0, 1)
                same = torch.allclose(gradients[units.key], by_first, rtol=1e-9, atol=2e-15)
                assert same == relu

    def test_finite_differences(self) -> None:
        model, inputs = made("marian")
        groups = gated_units(model, inputs)
        gates = Gates(model, groups.found)
        given = gates.trainable()
        gradients = torch.autograd.grad(call_model(model, inputs)[0].square().mean(), given)
        for units, gradient in zip(groups.found, gradients, strict=True):
            ones = torch.ones(units.group.size, dtype=torch.float64)
            losses = []
            for sign in (1.0, -1.0):
                gates.set(units.key, ones.index_fill(0, torch.tensor(3), 1.0 + sign * 1e-5))
                losses.append(_result(model, inputs).square().mean().item())
            gates.set(units.key, ones)
            difference = (losses[0] - losses[1]) / 2e-5
            assert gradient[3].item() == pytest.approx(difference, rel=1e-4, abs=1e-9)


class TestRefusals:
    def test_normed_queries(self) -> None:
        config = t.Qwen3Config(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
            intermediate_size=24, vocab_size=64, head_dim=4, pad_token_id=0,
        )  # fmt: skip
        skipped = gated_units(t.Qwen3ForCausalLM(config).eval(), IDS).skipped
        assert "something comes between" in skipped["vo model.layers.0.self_attn.o_proj"]

    def test_a_stream_that_is_returned(self) -> None:
        config = t.BertConfig(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=4, intermediate_size=24,
            vocab_size=64,
        )  # fmt: skip
        groups = gated_units(t.BertModel(config).eval(), IDS)
        assert groups.skipped == {
            "stream embeddings.LayerNorm": "its dimensions are outputs of the model"
        }
        assert {units.kind for units in groups.found} == {"qk", "vo", "fc"}

    def test_heads_stay_alike(self) -> None:
        model, inputs = made("bert")
        qk, vo = (gated_units(model, inputs).of(kind)[0] for kind in ("qk", "vo"))
        before = _parameters(model)
        uneven = torch.ones(16, dtype=torch.bool).index_fill(0, torch.tensor([0]), False)
        keep = torch.tensor([True, True, True, False] * 4)
        with pytest.raises(ValueError, match="of every head as many channels must stay"):
            remove_gated(model, {qk: uneven, vo: uneven})
        with pytest.raises(ValueError, match="as many channels of queries and keys as of values"):
            remove_gated(model, {qk: keep, vo: torch.tensor([True, False] * 8)})
        with pytest.raises(ValueError, match="must go together, found qk alone"):
            remove_gated(model, {qk: keep})
        with pytest.raises(ValueError, match="at least one"):
            remove_gated(model, {qk: torch.zeros(16, dtype=torch.bool)})
        assert _parameters(model) == before


class TestEmptyGroups:
    """Property of the gates alone, as of every place something stays when units are removed."""

    def _gated_off(self, kind: str) -> tuple[nn.Module, Gates]:
        model, _ = made("torch, post-norm")
        units = gated_units(model, IDS).of(kind)[0]
        gates = Gates(model, [units])
        gates.set(units.key, torch.zeros(units.group.size, dtype=torch.float64))
        with pytest.raises(ValueError, match="at least one of its units must stay"):
            remove_gated(model, {units: torch.zeros(units.group.size, dtype=torch.bool)})
        return model, gates

    @pytest.mark.parametrize("kind", ["fc", "vo"])
    def test_a_block_without_units_gives_its_bias(self, kind: str) -> None:
        model, gates = self._gated_off(kind)
        off, layer = _result(model, IDS), model.layers.layers[0]
        gates.detach()
        with torch.no_grad():
            (layer.linear2 if kind == "fc" else layer.self_attn.out_proj).weight.zero_()
        torch.testing.assert_close(off, _result(model, IDS), rtol=0, atol=1e-12)

    def test_attention_without_queries_is_uniform_below_its_masks(self) -> None:
        model, _ = made("torch, post-norm")
        padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
        qk = gated_units(model, IDS).of("qk")[0]
        gates = Gates(model, [qk])
        gates.set(qk.key, torch.zeros(qk.group.size, dtype=torch.float64))
        off, attention = _result(model, (IDS, padding)), model.layers.layers[0].self_attn
        gates.detach()
        with torch.no_grad():
            attention.in_proj_weight[:16] = 0.0
            attention.in_proj_bias[:16] = 0.0
        torch.testing.assert_close(off, _result(model, (IDS, padding)), rtol=0, atol=1e-12)
        with torch.no_grad():
            x = model.words(IDS) + model.positions[:5]
            _, weights = attention(x, x, x, key_padding_mask=padding)
        expected = torch.where(padding, 0.0, 1.0 / (~padding).sum(1, keepdim=True))
        torch.testing.assert_close(weights, expected.double()[:, None].expand(2, 5, 5))

    def test_a_stream_without_units_is_refused(self) -> None:
        units = gated_units(made("torch, post-norm")[0], IDS).of("stream")[0]
        with pytest.raises(ValueError, match="at least one"):
            units.group.as_mask(torch.zeros(16, dtype=torch.bool))


def test_tied_weights_stay_one_and_an_untied_head_keeps_its_values() -> None:
    tied, inputs = made("torch, both sides")
    remove_gated(tied, {units: _chosen(units) for units in gated_units(tied, inputs).found})
    assert tied.head.weight is tied.target.weight
    untied, inputs = made("llama, grouped queries")
    head = untied.lm_head.weight.detach().clone()
    keeps = {units: _chosen(units) for units in gated_units(untied, inputs).of("stream")}
    remove_gated(untied, keeps)
    (keep,) = keeps.values()
    assert untied.lm_head.weight is not untied.model.embed_tokens.weight
    assert torch.equal(untied.lm_head.weight, head[:, keep])


def test_shared_tables_have_one_stream_and_separate_ones_two() -> None:
    for name, count in (("bart", 1), ("marian", 1)):
        model, inputs = made(name)
        assert len(gated_units(model, inputs).of("stream")) == count
    config = t.MarianConfig(**{**MARIAN, "share_encoder_decoder_embeddings": False})
    config.decoder_vocab_size, config.tie_word_embeddings = 48, False
    streams = gated_units(t.MarianMTModel(config).eval(), BOTH).of("stream")
    assert len(streams) == 2


def test_rotary_pairs_go_from_all_heads_and_layers_with_their_frequencies(tmp_path: Any) -> None:
    model, inputs = made("llama, grouped queries")
    groups = gated_units(model, inputs)
    (qk,) = groups.of("qk")
    assert (qk.pools, qk.width, len(qk.readers), qk.group.size) == (1, 2, 2, 2)
    frequencies = model.model.rotary_emb.inv_freq.clone()
    keeps = {qk: torch.tensor([False, True])}
    keeps |= {vo: torch.tensor([True, False] * 2) for vo in groups.of("vo")}
    remove_gated(model, keeps)
    assert torch.equal(model.model.rotary_emb.inv_freq, frequencies[1:])
    assert model.model.layers[0].self_attn.head_dim == 2
    # what no configuration tells is saved
    save_shrunk(model, tmp_path)
    again, _ = made("llama, grouped queries")
    fill_shrunk(again, tmp_path)
    assert torch.equal(_result(again, inputs), _result(model, inputs))


def test_the_same_with_many_samples_as_with_two() -> None:
    model, _ = made("bert")
    many = IDS.repeat(8, 1)
    few, more = gated_units(copy.deepcopy(model), IDS), gated_units(model, many)
    assert [_told(units) for units in few.found] == [_told(units) for units in more.found]


def test_scales_that_follow_the_width_are_told_where_scores_are_hardly_trained() -> None:
    config = {"img_size": 32, "depth": 2, "num_classes": 5, "embed_dim": 24, "num_heads": 3}
    model = timm.create_model("vit_tiny_patch16_224", **config).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert all(units.fold for units in gated_units(model, images).of("qk"))
    assert not any(units.fold for units in gated_units(made("gpt2")[0], IDS).of("qk"))


def test_padding_and_masks_stay_what_they_are() -> None:
    model, _ = made("torch, post-norm")
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    inputs = (IDS, padding)
    groups = gated_units(model, inputs)
    gates, keeps = Gates(model, groups.found), {u: _chosen(u) for u in groups.found}
    for units, keep in keeps.items():
        gates.lower(units.key, keep, 0.0)
    off = _result(model, inputs)
    gates.detach()
    remove_gated(model, keeps)
    torch.testing.assert_close(_result(model, inputs), off, rtol=0, atol=1e-10)
    one = _result(model, IDS[1:, :3])
    torch.testing.assert_close(_result(model, inputs)[1:, :3], one, rtol=0, atol=1e-10)


def test_generating_with_a_cache_is_the_same_as_without() -> None:
    model, inputs = made("marian")
    groups = gated_units(model, inputs)
    remove_gated(model, {units: _chosen(units) for units in groups.found})
    how = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False}
    found = [model.generate(IDS, use_cache=cache, **how) for cache in (True, False)]
    assert torch.equal(*found)


@pytest.mark.parametrize("name", ["torch, both sides", "gpt2", "vit"])
def test_saved_and_filled_in_again(name: str, tmp_path: Any) -> None:
    model, inputs = made(name)
    groups = gated_units(model, inputs)
    remove_gated(model, {units: _chosen(units) for units in groups.found})
    save_shrunk(model, tmp_path)
    again, _ = made(name)
    fill_shrunk(again, tmp_path)
    assert torch.equal(_result(again, inputs), _result(model, inputs))


@pytest.mark.parametrize("optimizer", ["Adam", "AdamW", "SGD"])
def test_frozen_slices_stand_still(optimizer: str) -> None:
    torch.manual_seed(0)
    model = Encoder()
    groups = gated_units(model, IDS)
    keeps = {units: _chosen(units) for units in groups.found}
    before = {name: param.detach().clone() for name, param in model.named_parameters()}
    settings = {"momentum": 0.9} if optimizer == "SGD" else {}
    stepping = getattr(torch.optim, optimizer)(
        model.parameters(), lr=0.01, weight_decay=0.1, **settings
    )
    frozen = FrozenSlices(model, keeps)
    for _ in range(3):
        model(IDS).square().mean().backward()
        frozen.before_step(stepping)
        stepping.step()
        frozen.after_step()
        stepping.zero_grad()
    for units, keep in keeps.items():
        for member in units.group.members:
            gone = (member.index >= 0) & ~keep[member.index]
            now, old = (
                values.detach().movedim(member.dim, 0)
                for values in (model.get_parameter(member.param), before[member.param])
            )
            assert torch.equal(now[gone], old[gone])
            assert not torch.equal(now[~gone], old[~gone])
