"""Structured pruning of what is found in a model: scores, goals, removal."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sparseml.optim import RecipeError
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import StructuredPruningModifier
from sparseml.pytorch.units.probing import call_model
from sparseml.pytorch.units.removable import removable_units
from sparseml.pytorch.utils.saving.checkpoint import load_checkpoint, save_checkpoint

timm = pytest.importorskip("timm")
pytest.importorskip("torch_pruning")


def small_vit() -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.models.vision_transformer.VisionTransformer(
        img_size=16,
        patch_size=4,
        num_classes=5,
        embed_dim=16,
        depth=2,
        num_heads=4,
        mlp_ratio=2,
    )
    model.pretrained_cfg = {"input_size": (3, 16, 16)}  # type: ignore[assignment]
    return model


def small_resnet() -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.models.resnet.ResNet(
        timm.models.resnet.BasicBlock, (1, 1, 1, 1), num_classes=5, channels=(8, 8, 16, 16)
    )
    return model


IMAGES = torch.randn(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
MODELS = {"vit": small_vit, "resnet": small_resnet}


def _batches() -> Iterator[tuple[list[Tensor], dict[str, Any], Tensor]]:
    generator = torch.Generator().manual_seed(1)
    while True:
        images = torch.randn(4, 3, 16, 16, generator=generator)
        yield [images], {}, torch.randint(5, (4,), generator=generator)


SAMPLER = {"data_loader_builder": _batches, "loss_fn": cross_entropy, "progress_bar": False}


def modifier(final: Any = 0.5, **changes: Any) -> StructuredPruningModifier:
    fields: dict[str, Any] = {
        "init_sparsity": 0.0,
        "final_sparsity": final,
        "start_epoch": 0.0,
        "end_epoch": 2.0,
        "update_frequency": 0.5,
        "params": "__STRUCTURED__",
        "num_grads": 4,
        **changes,
    }
    return StructuredPruningModifier(**fields)


def count(model: nn.Module) -> int:
    return sum(param.numel() for param in model.parameters())


@pytest.mark.parametrize("score", ["magnitude", "taylor", "obs"])
@pytest.mark.parametrize("name", MODELS)
def test_one_shot_leaves_half_of_the_units_of_every_place(name: str, score: str) -> None:
    model = MODELS[name]()
    sizes = [units.group.size for units in removable_units(model, IMAGES).found]
    assert len(sizes) >= 4
    modifier(score=score, remove=True).apply(model, grad_sampler=SAMPLER, example_inputs=IMAGES)
    assert [u.group.size for u in removable_units(model, IMAGES).found] == [s // 2 for s in sizes]
    assert model(IMAGES).shape == (6, 5)


@pytest.mark.parametrize("name", MODELS)
def test_masks_compute_what_the_smaller_model_computes(name: str) -> None:
    masked, smaller = MODELS[name](), MODELS[name]()
    for model, remove in ((masked, False), (smaller, True)):
        one = modifier(score="obs", remove=remove)
        one.apply(model, grad_sampler=SAMPLER, example_inputs=IMAGES)
    assert count(smaller) < count(masked)
    outputs = [call_model(model.eval(), IMAGES)[0] for model in (masked, smaller)]
    assert torch.allclose(*outputs, atol=1e-5)


@pytest.mark.parametrize("score", ["taylor", "obs"])
def test_units_that_add_nothing_go_first(score: str) -> None:
    model = small_vit()
    dead = [1, 4, 9, 20]
    with torch.no_grad():
        model.blocks[0].mlp.fc2.weight[:, dead] = 0  # type: ignore[index, union-attr]
    before = model.eval()(IMAGES)
    final = 4 / 32
    names = [n for n, p in model.named_parameters() if "blocks.0.mlp" not in n and p.ndim == 2]
    one = modifier(final, score=score, exclude=names, remove=True)
    one.apply(model, grad_sampler=SAMPLER)
    assert model.blocks[0].mlp.fc1.out_features == 28  # type: ignore[index, union-attr]
    assert torch.allclose(model(IMAGES), before, atol=1e-5)


def test_what_stays_makes_up_for_what_goes() -> None:
    """Of two neurons that do the same the one that stays does the work of both."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        model[0].weight[1], model[0].bias[1] = model[0].weight[0], model[0].bias[0]
        model[2].weight[:, 0] *= 0.8
        model[2].weight[:, 1] = model[2].weight[:, 0]
        model[2].weight[:, 2:] *= 2
    inputs = torch.randn(512, 6, generator=torch.Generator().manual_seed(2))
    before = model(inputs)

    def build() -> Iterator[tuple[list[Tensor], dict[str, Any], Tensor]]:
        for part in inputs.split(1):
            with torch.no_grad():
                target = model(part) + torch.randn(1, 3)
            yield [part], {}, target

    sampler = {"data_loader_builder": build, "loss_fn": nn.functional.mse_loss}
    errors = {}
    for score in ("taylor", "obs"):
        pruned = copy.deepcopy(model)
        one = modifier(0.25, score=score, num_grads=512, remove=True)
        lent = {"grad_sampler": {**sampler, "progress_bar": False}, "example_inputs": inputs[:2]}
        one.apply(pruned, **lent)
        assert pruned[0].out_features == 3
        errors[score] = (pruned(inputs) - before).square().mean().item()
    assert errors["obs"] < 0.5 * errors["taylor"]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["params", "flops"])
def test_goals_that_are_counted_are_met(name: str, kind: str) -> None:
    model = MODELS[name]()
    before = count(model)
    one = modifier({kind: 0.7}, score="taylor", remove=True)
    one.apply(model, grad_sampler=SAMPLER, example_inputs=IMAGES)
    assert one._reached is not None and 0.6 < one._reached <= 0.7
    assert f"asked 70.0% of the {'parameters' if kind == 'params' else 'operations'}" in one.reached
    if kind == "params":
        assert count(model) / before == pytest.approx(one._reached)


def test_a_speedup_is_met_by_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    from sparseml.pytorch.sparsification.pruning.structured import costs

    monkeypatch.setattr(
        costs, "_turns", lambda models, inputs, rounds: {n: [count(m)] for n, m in models.items()}
    )
    model = small_vit()
    before = count(model)
    one = modifier({"speedup": 1.5}, remove=True)
    one.apply(model, example_inputs=IMAGES)
    assert count(model) <= before / 1.5
    measured = f"measured {before / count(model):.2f} times as fast"
    assert one.reached == f"asked 1.50 times as fast, {measured}"


def test_times_are_taken_in_turns() -> None:
    from sparseml.pytorch.sparsification.pruning.structured.costs import time_share

    small, large = nn.Linear(64, 64), nn.Sequential(*[nn.Linear(512, 512) for _ in range(8)])
    large[0] = nn.Linear(64, 512)
    assert time_share(large, small, torch.randn(64, 64), rounds=5) < 0.5


def test_the_cheapest_steps_come_first() -> None:
    from sparseml.pytorch.sparsification.pruning.structured.goals import _walk

    levels = [[4, 2, 1], [4, 2, 1]]
    costs = [[1.0, 0.8, 0.7], [1.0, 0.9, 0.85]]
    losses = [torch.tensor([0.0, 1.0, 4.0, 9.0]), torch.tensor([0.0, 0.2, 0.3, 9.0])]
    # 1 / 0.2, 0.2 / 0.1, 0.1 / 0.05 and 3 / 0.1
    assert _walk(levels, costs, losses) == [[4, 4], [4, 2], [4, 1], [2, 1], [1, 1]]


def train(model: nn.Module, manager: Any, optimizer: Any, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        loss = cross_entropy(
            model(torch.randn(4, 3, 16, 16, generator=generator)),
            torch.randint(5, (4,), generator=generator),
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def begin(name: str, final: Any, score: str) -> tuple[nn.Module, Any, Any]:
    model = MODELS[name]()
    manager = ScheduledModifierManager([modifier(final, score=score, remove=True, end_epoch=2.0)])
    adam = torch.optim.AdamW(model.parameters(), lr=1e-3)
    wrapped = manager.modify(
        model, adam, steps_per_epoch=4, grad_sampler=SAMPLER, example_inputs=IMAGES
    )
    return model, manager, wrapped


@pytest.mark.parametrize(
    ("name", "final", "score"),
    [
        ("vit", 0.5, "taylor"),
        ("resnet", {"params": 0.6}, "magnitude"),
        ("vit", {"flops": 0.7}, "obs"),
    ],
)
@pytest.mark.parametrize("stop", [3, 8, 10])
def test_a_resumed_run_ends_with_the_same_bits(
    tmp_path: Any, name: str, final: Any, score: str, stop: int
) -> None:
    model, manager, optimizer = begin(name, final, score)
    train(model, manager, optimizer, range(stop))
    save_checkpoint(tmp_path / "run.pt", model, optimizer=optimizer, manager=manager)
    train(model, manager, optimizer, range(stop, 12))
    again, other, resumed = begin(name, final, score)
    load_checkpoint(tmp_path / "run.pt", again, optimizer=resumed, manager=other)
    train(again, other, resumed, range(stop, 12))
    manager.finalize(model)
    other.finalize(again)
    assert count(model) < count(MODELS[name]())
    state = again.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_the_model_is_smaller_from_the_end_of_pruning_on() -> None:
    model, manager, optimizer = begin("vit", 0.5, "magnitude")
    before, sizes = count(model), []
    for step in range(12):
        train(model, manager, optimizer, range(step, step + 1))
        sizes.append(count(model))
    assert sizes[:8] == [before] * 8 and len(set(sizes[8:])) == 1 and sizes[8] < before
    moments = [value["exp_avg"].shape for value in optimizer.state.values()]
    assert moments == [param.shape for param in optimizer.state]
    manager.finalize(model)
    assert model.blocks[0].attn.num_heads == 2  # type: ignore[index, union-attr]


def test_what_does_not_end_before_the_run_is_removed_with_it() -> None:
    model, manager, optimizer = begin("vit", 0.5, "magnitude")
    train(model, manager, optimizer, range(7))
    before = count(model)
    manager.finalize(model)
    assert count(model) < before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"final": {"speedup": 2.0, "params": 0.5}}, "takes one goal, found 2"),
        ({"final": {"speedup": 0.5}}, "speedup of final_sparsity must be greater than 1"),
        ({"final": {"params": 1.5}}, "params of final_sparsity is the share to keep, strictly"),
        ({"final": {"sped": 2.0}}, "found 'sped'; did you mean 'speedup'"),
        ({"params": ["a"], "remove": True}, "remove of .* needs params: __STRUCTURED__"),
        ({"params": ["a"], "score": "obs"}, "score of .* needs params: __STRUCTURED__"),
        ({"params": [], "final": {"speedup": 2.0}}, "a goal of .* needs params: __STRUCTURED__"),
        ({"param_groups": [["a"]]}, "param_groups of .* must be empty"),
        ({"init_sparsity": "__FROM_PARAM__"}, "init_sparsity of .* must be a number"),
        ({"score": "tailor"}, "did you mean 'taylor'"),
    ],
)
def test_fields_that_do_not_go_together(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        modifier(**changes)


def test_a_goal_out_of_reach_says_what_can_be_reached() -> None:
    # an error of the recipe, so that the commands tell it in a line, without a traceback
    with pytest.raises(
        RecipeError, match=r"asks for 10.0% of the parameters, which cannot be"
    ) as e:
        modifier({"params": 0.1}).apply(small_vit(), example_inputs=IMAGES)
    assert "removing heads and neurons: with the fewest that may stay the model is" in str(e.value)


def test_a_model_without_units_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing can be removed from a Linear: no neurons, heads"):
        modifier().apply(nn.Linear(3, 3), example_inputs=torch.randn(2, 3))
    with pytest.raises(ValueError, match="give example_inputs: a Sequential does not say"):
        modifier().apply(nn.Sequential(nn.Linear(3, 3)))
    with pytest.raises(RuntimeError, match="prunes by gradients"):
        modifier(score="obs").apply(small_vit(), example_inputs=IMAGES)


class Rigid(nn.Module):
    """Writes the size of its hidden layer into its code."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu().reshape(-1, 8))


def test_a_model_whose_code_knows_its_sizes_is_refused() -> None:
    with pytest.raises(
        ValueError, match="no neurons, heads or channels were found but second: rem"
    ):
        modifier().apply(Rigid(), example_inputs=torch.randn(2, 4))


def test_a_sweep_tells_what_would_be_left() -> None:
    model = small_vit()
    before = {name: param.clone() for name, param in model.named_parameters()}
    outcomes = dict(modifier(remove=True).sweep(model, [0.25, 0.5], example_inputs=IMAGES))
    zeros = [int((change.mask == 0).sum()) for o in outcomes.values() for change in o.values()]
    assert sum(zeros[: len(zeros) // 2]) * 2 == sum(zeros[len(zeros) // 2 :])
    assert all(torch.equal(before[name], param) for name, param in model.named_parameters())


def test_what_is_asked_can_be_asked() -> None:
    model, one = small_vit(), modifier(end_epoch=1.0, inter_func="linear")
    assert one.sparsities_at(model, 0.5) == [0.25] * 8
    assert one.get_applied_sparsity_for_epoch(math.inf, 1) == 0.5
    goal = modifier({"params": 0.7})
    assert goal.sparsities_at(model, math.inf) == [None] * 8
    text = str(ScheduledModifierManager([goal]))
    assert "final_sparsity: {'params': 0.7}" in text or "params: 0.7" in text
    again = ScheduledModifierManager.from_yaml(text).modifiers[0]
    assert again.final_sparsity == {"params": 0.7} and again.params == "__STRUCTURED__"
