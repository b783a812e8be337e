"""SEQUITUR, costs, losses, targets and the old BLEU, each against what was worked out by hand."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparseml.pytorch.functional.composing.bleu import bleu_legacy
from sparseml.pytorch.functional.composing.costs import Costs
from sparseml.pytorch.functional.composing.losses import (
    block_error,
    fitting_mask,
    loss_of,
    masks_fitting,
)
from sparseml.pytorch.functional.composing.sequitur import Grammar, Rule, cover, shared_blocks
from sparseml.pytorch.functional.composing.targets import (
    hash_of,
    kept_heads,
    require_density,
    tensor_hash,
)


def check_grammar(grammar, symbols):
    assert grammar.start.expanded() == tuple(symbols)
    rules = grammar.rules()
    uses = Counter(id(one) for rule in rules for one in rule.body if isinstance(one, Rule))
    assert all(uses[id(rule)] == rule.uses >= 2 for rule in rules[1:])
    seen = {}
    for rule in rules:
        body = rule.body
        for place, pair in enumerate(itertools.pairwise(body)):
            before = seen.setdefault(pair, (rule, place))
            overlaps = before[0] is rule and place - before[1] == 1
            assert before == (rule, place) or overlaps, f"{pair} occurs twice"


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=40))
def test_property_4_invariants_hold_after_every_symbol(symbols):
    grammar = Grammar()
    for count, symbol in enumerate(symbols, start=1):
        grammar.add(symbol)
        check_grammar(grammar, symbols[:count])


def test_property_4_the_example_of_the_paper():
    grammar = Grammar("abcab")
    (rule,) = grammar.rules()[1:]
    assert rule.body == ["a", "b"] and grammar.start.body == [rule, "c", rule]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 3), max_size=8), max_size=5))
def test_property_4_blocks_never_overlap_in_a_configuration(sequences):
    blocks = shared_blocks(sequences)
    for sequence in sequences:
        parts = cover(sequence, blocks)
        assert [one for part in parts for one in part] == list(sequence)


def test_property_4_identical_configurations_are_one_block():
    assert shared_blocks(["abcd"] * 4) == [tuple("abcd")]


def test_a_longer_block_must_not_cost_reuse():
    assert shared_blocks(["abc", "abd", "abc"]) == [("a", "b")]
    assert shared_blocks(["ab", "cd"]) == []


def test_property_20_bleu_legacy():
    corpus = ["a b c d e", "the cat sat on the mat"]
    assert bleu_legacy(corpus, corpus) == pytest.approx(100.0)
    assert bleu_legacy(["a b c d"], ["a b c x"]) == 0.0
    short = bleu_legacy(["a b c d"], ["a b c d e"])
    assert short == pytest.approx(100 * math.exp(1 - 5 / 4), abs=1e-6)
    # 5 of 6 tokens, 3 of 5, 2 of 4 and 1 of 3 are found
    by_hand = 100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25
    assert bleu_legacy(["a b c d x e"], ["a b c d e f"]) == pytest.approx(by_hand, abs=1e-6)
    assert bleu_legacy(["A b c d"], ["a b c d"]) == 0.0
    with pytest.raises(ValueError, match="1 candidates, but 2"):
        bleu_legacy(["a"], ["a", "b"])


def test_the_cost_model_gives_the_worked_number():
    # L = 42 equal modules, 3 configurations, 2 rates, 20 block epochs, all linear
    costs = Costs(3, forward=42.0, blocks=84.0, requests=126.0, block_epochs=20)
    assert costs.block_stage / costs.epoch == pytest.approx(20 * (1 / 3 + 4 / 3))
    assert costs.epochs_to_save == pytest.approx(11.11, abs=0.01)
    short = Costs(3, forward=42.0, blocks=84.0, requests=126.0, block_epochs=4)
    assert short.block_stage / short.epoch == pytest.approx(6.67, abs=0.01)
    assert short.unshared == pytest.approx(3 * 4 * (42 + 2 * 42))


def test_it_pays_from_the_break_even_on():
    costs = Costs(4, forward=10.0, blocks=20.0, requests=40.0, block_epochs=3)
    even = costs.break_even(direct=6.0, composed=2.0)
    at = Costs(1, forward=10.0, blocks=20.0, requests=40.0, block_epochs=3)
    assert even * 6.0 * at.epoch == pytest.approx(at.block_stage + even * 2.0 * at.epoch)
    assert costs.break_even(2.0, 2.0) == math.inf
    assert costs.speed_up(6.0, 2.0) == pytest.approx(costs.direct(6.0) / costs.composed(2.0))


def test_losses_by_hand():
    target = torch.tensor([[[3.0, 4.0], [1.0, 0.0]]])
    output = torch.tensor([[[3.0, 3.0], [0.0, 1.0]]])
    assert float(loss_of(block_error(output, target, "nmse"))) == pytest.approx(3 / 26)
    assert float(loss_of(block_error(output, target, "mse"))) == pytest.approx(3 / 4)
    real = torch.tensor([[True, False]])
    assert float(loss_of(block_error(output, target, "nmse", real))) == pytest.approx(1 / 25)
    cosine = loss_of(block_error(output, target, "cosine"))
    assert float(cosine) == pytest.approx((1 - 21 / (5 * 18**0.5) + 1) / 2)
    with pytest.raises(ValueError, match=r"gives \(1, 2, 2\), the original \(2, 2\)"):
        block_error(output, target[0], "nmse")


def test_property_10_the_last_position_counts_and_padding_does_not():
    lot = torch.Generator().manual_seed(0)
    target, output = (torch.randn(2, 5, 3, generator=lot) for _ in range(2))
    real = torch.ones(2, 5, dtype=torch.bool)
    loss = loss_of(block_error(output, target, "nmse", real))
    padded = [torch.cat([one, torch.full((2, 4, 3), 7.0)], 1) for one in (output, target)]
    mask = torch.cat([real, torch.zeros(2, 4, dtype=torch.bool)], 1)
    assert torch.allclose(loss, loss_of(block_error(*padded, "nmse", mask)), atol=1e-6)
    moved = target.clone()
    moved[:, -1] += 1.0
    assert not torch.allclose(loss, loss_of(block_error(output, moved, "nmse", real)))


def test_masks_are_told_by_their_shapes():
    masks = {"encoder": torch.ones(2, 5), "decoder": torch.ones(2, 3)}
    assert masks_fitting((2, 5, 8), masks) == ["encoder"]
    assert masks_fitting((3, 2, 8), masks) == ["decoder"]  # positions first
    assert masks_fitting((2, 8), masks) == []
    assert fitting_mask((3, 2, 8), masks, "decoder").shape == (3, 2)
    assert fitting_mask((2, 8), masks, None) is None


def test_property_3_heads_are_counted_as_the_reference_counts_them():
    scores = torch.arange(8.0)
    for density in (0.2, 0.25, 0.3):
        assert kept_heads(scores, density, "here").tolist() == [False] * 6 + [True] * 2
    ties = kept_heads(torch.zeros(4), 0.5, "here")
    assert ties.tolist() == [True, True, False, False]
    with pytest.raises(ValueError, match=r"here: a density of 0\.1 leaves none of 4 heads"):
        kept_heads(torch.zeros(4), 0.1, "here")


@pytest.mark.parametrize("value", [0, -0.5, 1.5, math.nan, math.inf, True, "half", None])
def test_property_3_densities_outside_their_range_are_refused(value):
    with pytest.raises(ValueError, match="fc: a density must be above 0 and at most 1"):
        require_density(value, "fc")


def test_hashes_tell_dtype_shape_and_bits_apart():
    zeros = torch.zeros(2, 3)
    others = [zeros.double(), zeros.T, torch.tensor([[0.0, 0.0, -0.0]] * 2), zeros.bfloat16()]
    assert len({tensor_hash(one) for one in [zeros, *others]}) == 5
    assert tensor_hash(zeros.T.contiguous().T) == tensor_hash(zeros)
    assert tensor_hash(torch.tensor(1.0)) != tensor_hash(torch.tensor(2.0))
    assert hash_of({"a": 1, "b": 2}) == hash_of({"b": 2, "a": 1})
