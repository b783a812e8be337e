"""The numbers that are known of a BERT-mini: 4 layers of 256, with 1024 in between."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.pruning import SnipMomentumPruningModifier

ENCODER = "re:bert.encoder.*(query|key|value|dense).weight"
PRUNABLE, ALL_LINEAR = 3_145_728, 3_211_776
AT_ONCE = {"start_step": 2, "end_step": 2, "update_steps": 1}


@pytest.fixture(scope="module")
def fresh():
    sizes = {"hidden_size": 256, "intermediate_size": 1024, "num_attention_heads": 4}
    torch.manual_seed(0)
    config = BertConfig(vocab_size=30, num_hidden_layers=4, max_position_embeddings=8, **sizes)
    model = BertForSequenceClassification(config)
    state = {name: value.clone() for name, value in model.state_dict().items()}

    def reset():
        model.load_state_dict(state)
        return model

    return reset


def pruner(**fields):
    first = {"params": [ENCODER], "init_sparsity": 0.0, "final_sparsity": 0.9, **AT_ONCE}
    return SnipMomentumPruningModifier(**{**first, **fields})


def steps(model, modifiers, count, importance=lambda name: 1.0):
    """Take steps of SGD at a rate of 0, with gradients drawn for the encoder; yield the zeros."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    stepper = ScheduledModifierManager(modifiers).modify(model, optimizer, steps_per_epoch=10)
    params = {
        name: param
        for name, param in model.named_parameters()
        if "encoder" in name and param.ndim == 2
    }
    generator = torch.Generator().manual_seed(1)
    for name, param in params.items():
        param.grad = torch.randn(param.shape, generator=generator) * importance(name)
    for _ in range(count):
        stepper.step()
        yield {name: int((param == 0).sum()) for name, param in params.items()}


def linear_zeros(model):
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Linear)]
    assert sum(layer.weight.numel() for layer in layers) == ALL_LINEAR
    return sum(int((layer.weight == 0).sum()) for layer in layers)


@pytest.mark.parametrize(
    ("mask_type", "final", "unit", "expected"),
    [
        ("2:4", 0.5, 2, [0.0943, 0.1797, 0.2570, 0.3270, 0.3905, 0.4480, 0.5]),
        ("4x1", 0.9, 4, [0.2803, 0.4821, 0.6272, 0.7317, 0.8069, 0.8610, 0.9]),
    ],
)
def test_sparsity_at_each_update(fresh, mask_type, final, unit, expected):
    when = {"start_step": 5, "end_step": 40, "update_steps": 5}
    modifier = pruner(mask_type=mask_type, final_sparsity=final, **when)
    model, found, before = fresh(), {}, 0
    for number, zeros in enumerate(steps(model, [modifier], 43)):
        total = sum(zeros.values())
        if total != before:
            found[number], before = total, total
    assert list(found) == [10, 15, 20, 25, 30, 35, 40]
    assert [count / PRUNABLE for count in found.values()] == pytest.approx(expected, abs=5e-5)
    for number, count in enumerate(found.values(), 1):
        units = int(PRUNABLE / unit * (1 - (1 - final) ** (number / 7)) + 1e-6)
        assert count == units * unit
    ratio = {"2:4": 0.4897, "4x1": 0.8815}[mask_type]
    assert linear_zeros(model) / ALL_LINEAR == pytest.approx(ratio, abs=5e-5)


def test_every_layer_lies_between_floor_and_cap(fresh):
    limits = {"min_sparsity_per_param": 0.85, "max_sparsity_per_param": 0.93}
    model, modifier = fresh(), pruner(mask_type="4x1", **limits)
    *_, zeros = steps(model, [modifier], 3, importance=lambda name: 1 + len(name) % 7)
    sizes = {name: param.numel() for name, param in model.named_parameters()}
    ratios = [count / sizes[name] for name, count in zeros.items()]
    assert len(ratios) == 24
    # the floor to one of 16,384 blocks, which are rounded down
    assert 0.85 - 1 / 16_384 < min(ratios) < 0.86 and 0.92 < max(ratios) <= 0.93
    # of 786,432 blocks 9 in 10
    assert sum(zeros.values()) == 4 * 707_788
    assert linear_zeros(model) / ALL_LINEAR == pytest.approx(0.8815, abs=5e-5)


@pytest.mark.parametrize(("floor", "cap"), [(0.9, 0.9), (None, None)])
def test_a_balanced_model_and_one_that_is_ranked_layer_by_layer(fresh, floor, cap):
    limits = {"min_sparsity_per_param": floor, "max_sparsity_per_param": cap}
    fields = limits if floor else {"global_sparsity": False}
    model = fresh()
    *_, zeros = steps(model, [pruner(mask_type="1x1", **fields)], 3, lambda name: len(name) % 5 + 1)
    sizes = {name: param.numel() for name, param in model.named_parameters()}
    counts = {sizes[name]: set() for name in zeros}
    for name, count in zeros.items():
        counts[sizes[name]].add(count)
    assert counts == {65_536: {58_982}, 262_144: {235_929}}


def test_a_mixed_recipe(fresh):
    loose = pruner(
        params=["re:.*(output|intermediate)[.]dense[.]weight"],
        mask_type="unstructured",
        global_sparsity=False,
    )
    blocks = pruner(
        params=["re:.*(query|key|value)[.]weight"], mask_type="4x1", min_sparsity_per_param=0.5
    )
    # one layer matters so little that the cap holds it, another so much that the floor does
    scale = {"layer.0.attention.self.query": 1e-4, "layer.3.attention.self.value": 1e4}

    def importance(name):
        return next((factor for part, factor in scale.items() if part in name), 1.0)

    model = fresh()
    *_, zeros = steps(model, [loose, blocks], 3, importance)
    own = {name: zeros[name] for name in blocks.masks}
    assert len(own) == len(loose.masks) == 12
    assert sorted({zeros[name] for name in loose.masks}) == [58_982, 235_929]
    units = {name: count // 4 for name, count in own.items()}
    for name, mask in blocks.masks.items():
        heights = mask.view(64, 4, 256).sum(1)
        assert set(heights.unique().tolist()) == {0, 4}
        assert int((heights == 0).sum()) == units[name] and 8_192 <= units[name] <= 16_056
    assert sum(units.values()) == 176_947 and sum(own.values()) == 707_788
    # the cap is 0.98 of 16,384 blocks
    assert max(units.values()) == 16_056 and min(units.values()) < 9_000
    assert linear_zeros(model) / ALL_LINEAR == pytest.approx(0.8815, abs=5e-5)
    for name, param in model.named_parameters():
        if name not in zeros and param.ndim == 2:
            assert bool(param.ne(0).all()) or "embeddings" in name
