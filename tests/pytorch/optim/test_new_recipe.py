"""Recipes made for a model, and pruning in one call."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
import transformers
from torch import Tensor, nn

import sparseml
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.optim.new_recipe import METHODS, new_recipe, params_to_prune
from sparseml.pytorch.utils.params import get_named_layers_and_params_by_regex

SMALL = {"vocab_size": 40, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}


def _bert() -> nn.Module:
    config = transformers.BertConfig(
        num_hidden_layers=2, hidden_size=16, num_attention_heads=2, intermediate_size=32, **SMALL
    )
    return transformers.BertForSequenceClassification(config)


def _mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    )


MODELS: dict[str, tuple[Any, list[str], set[str]]] = {
    # what makes it, names that stay dense, parts of names that are pruned
    "resnet": (
        lambda: timm.create_model("resnet10t", num_classes=3),
        ["conv1.0.weight", "fc.weight"],
        {"layer1.0.conv1.weight", "layer3.0.downsample.1.weight"},
    ),
    "vit": (
        lambda: timm.create_model("test_vit", num_classes=3),
        ["patch_embed.proj.weight", "head.weight"],
        {"blocks.0.attn.qkv.weight", "blocks.0.mlp.fc2.weight"},
    ),
    "efficientnet": (
        lambda: timm.create_model("test_efficientnet", num_classes=3),
        ["conv_stem.weight", "classifier.weight"],
        {"blocks.1.0.conv_exp.weight"},
    ),
    "bert": (
        _bert,
        ["bert.pooler.dense.weight", "classifier.weight"],
        {"bert.encoder.layer.1.intermediate.dense.weight"},
    ),
    "mlp": (_mlp, ["4.weight"], {"0.weight", "2.weight"}),
}


@pytest.mark.parametrize("name", MODELS)
def test_blocks_are_pruned_and_input_and_output_stay(name: str) -> None:
    build, dense, pruned = MODELS[name]
    model = build()
    entries = params_to_prune(model)
    found = {one.name for one in get_named_layers_and_params_by_regex(model, entries)}
    names = {one for one, _ in model.named_parameters()}
    assert found <= names and pruned <= found and not found & set(dense)
    assert all("bias" not in one and "conv_dw" not in one for one in found)
    out = sorted(found)[:1]
    without = params_to_prune(model, exclude=out)
    left = {one.name for one in get_named_layers_and_params_by_regex(model, without)}
    assert left == found - set(out)


@pytest.mark.parametrize("epochs", [None, 8])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_recipe_that_reaches_its_sparsity(method: str, epochs: Any) -> None:
    manager = ScheduledModifierManager.from_yaml(new_recipe(_bert(), method, 0.75, epochs))
    (pruner,) = manager.pruning_modifiers
    assert type(pruner).__name__ == METHODS[method][0]
    assert pruner.final_sparsity == 0.75
    assert pruner.damp == "auto" if "effort" in METHODS[method][1] else not hasattr(pruner, "damp")
    start = 0.0 if method == "structured" else 0.75 if epochs is None else 0.05
    assert pruner.init_sparsity == start
    assert manager.max_epochs == (1 if epochs is None else 8)


def _batches(keywords: bool) -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    if keywords:
        ids = torch.randint(3, 40, (40, 4, 5), generator=generator)
        labels = torch.randint(0, 2, (40, 4), generator=generator)
        return [{"input_ids": i, "labels": one} for i, one in zip(ids, labels, strict=True)]
    inputs = torch.randn(40, 8, 6, generator=generator)
    labels = torch.randint(0, 3, (40, 8), generator=generator)
    return [*zip(inputs, labels, strict=True)]


@pytest.mark.parametrize("method", ["magnitude", "fast_cap", "cap"])
@pytest.mark.parametrize("keywords", [False, True])
def test_prune_in_one_call(method: str, keywords: bool) -> None:
    model = _bert() if keywords else _mlp()
    done = sparseml.prune(model, method, 0.75, data=_batches(keywords))
    params = dict(model.named_parameters())
    zeros = {name: float((params[name] == 0).float().mean()) for name in done.sparsities}
    assert zeros == pytest.approx(done.sparsities)
    assert done.pruned == pytest.approx(0.75, abs=0.01)
    whole = sum(int((one == 0).sum()) for one in params.values())
    assert done.zeros == pytest.approx(whole / sum(one.numel() for one in params.values()))
    text = str(done)
    assert text.startswith("75.0") and f"{len(zeros)} tensor" in text.splitlines()[0]


def test_a_model_gets_smaller_in_one_call() -> None:
    model = _mlp()
    done = sparseml.prune(model, "structured", 0.5, data=_batches(False))
    assert [model[place].out_features for place in (0, 2, 4)] == [8, 8, 3]
    before, left = (sum(one.numel() for one in net.parameters()) for net in (_mlp(), model))
    assert done.removed == pytest.approx(1 - left / before) and not done.sparsities
    assert str(done) == f"{done.removed:.2%} of all parameters are removed"
    assert model(torch.ones(2, 6)).shape == (2, 3)


def test_a_goal_is_told_beside_what_was_reached() -> None:
    model = _bert()
    before = sum(one.numel() for one in model.parameters())
    goal = {"params": 0.8}
    done = sparseml.prune(model, "structured", goal=goal, data=_batches(True))
    left = sum(one.numel() for one in model.parameters()) / before
    assert left == pytest.approx(0.8, abs=0.05) and done.removed == pytest.approx(1 - left)
    assert "asked 80.0% of the parameters" in str(done) and "params: 0.8" in done.recipe


@pytest.mark.parametrize(
    ("build", "goal", "exclude"),
    [
        (lambda: timm.create_model("test_vit", num_classes=3), {"speedup": 1.5}, []),
        (lambda: timm.create_model("test_resnet", num_classes=3), {"flops": 0.6}, ["fc.weight"]),
        (_bert, None, ["re:.*layer.1.*"]),
    ],
)
def test_units_fade_and_the_smaller_model_trains_on(build: Any, goal: Any, exclude: Any) -> None:
    model = build()
    text = new_recipe(model, "structured", 0.4, 20, exclude, goal=goal)
    manager = ScheduledModifierManager.from_yaml(text)
    (pruner,) = manager.pruning_modifiers
    assert pruner.final_sparsity == (goal or 0.4) and pruner.exclude == (exclude or None)
    assert (pruner.params, pruner.score, pruner.remove) == ("__STRUCTURED__", "taylor", True)
    assert (pruner.end_epoch, manager.max_epochs) == (8.0, 20)


def test_a_recipe_of_ones_own_and_shrinking() -> None:
    model = _mlp()
    with torch.no_grad():
        model[0].weight[::2] = 0.0
        model[0].bias[::2] = 0.0
    recipe = "pruning_modifiers:\n  - !ConstantPruningModifier\n      params: ['0.weight']\n"
    recipe += "      start_epoch: 0.0\n      end_epoch: 1.0\n"
    done = sparseml.prune(model, recipe=recipe)
    assert done.sparsities == {"0.weight": 0.5}
    before = model.eval()(torch.ones(2, 6))
    assert "kept" in str(sparseml.shrink(model, torch.ones(2, 6)))
    assert torch.allclose(before, model(torch.ones(2, 6)), atol=1e-6)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"method": "capp"}, "found 'capp'; did you mean 'cap'"),
        ({"sparsity": 1.0}, "strictly between 0 and 1, found 1.0"),
        ({"goal": {"flops": 0.5}}, "a goal needs method: structured, found magnitude"),
        ({"method": "structured", "goal": {"speed": 2.0}}, "found 'speed'; did you mean 'speedup'"),
        ({"method": "structured"}, "prunes by gradients: give data"),
        ({"method": "cap"}, "prunes by gradients: give data"),
        ({"method": "cap", "data": iter([])}, "can be gone through only once"),
        ({"exclude": ["0.weight", "2.weight"]}, "has no layers to prune but 0.weight"),
    ],
)
def test_what_cannot_be(given: dict[str, Any], expected: str) -> None:
    model = _mlp()
    before = [one.clone() for one in model.parameters()]
    with pytest.raises(ValueError, match=expected):
        sparseml.prune(model, **given)
    assert all(map(torch.equal, before, model.parameters()))


class Sum(nn.Module):
    """Two inputs, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.net = _mlp()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        logits: Tensor = self.net(first + second)
        return logits


@pytest.mark.parametrize("several", [tuple, list])
def test_several_inputs(several: type) -> None:
    data = [(several([inputs, 0.5 * inputs]), labels) for inputs, labels in _batches(False)]
    found = []
    for given in (data, [(1.5 * inputs, labels) for inputs, labels in _batches(False)]):
        model = Sum() if given is data else _mlp()
        sparseml.prune(model, "fast_cap", 0.75, data=given, effort="fast")
        found.append([*model.parameters()])
    assert all(map(torch.equal, *found))


def test_a_loss_that_does_not_fit_is_told() -> None:
    data = [(inputs, inputs) for inputs, _ in _batches(False)]
    with pytest.raises(ValueError, match=r"output of shape \(8, 3\) and labels of shape \(8, 6\)"):
        sparseml.prune(_mlp(), "fast_cap", 0.75, data=data)


def test_batches_without_labels_are_told() -> None:
    with pytest.raises(ValueError, match="must have labels, found the keys"):
        sparseml.prune(_bert(), "cap", data=[{"input_ids": torch.ones(2, 3, dtype=torch.long)}])
