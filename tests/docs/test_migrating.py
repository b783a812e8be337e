"""Every row of the page on moving from SparseML 1.x says what is so."""

from __future__ import annotations

import copy
import importlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sparseml.gone import GONE
from sparseml.optim import RecipeError
from sparseml.pytorch.nn import fat_relu
from sparseml.pytorch.optim import ModuleAnalyzer, ScheduledModifierManager
from sparseml.pytorch.sparsification import pruning
from sparseml.pytorch.utils import LossWrapper, ModuleTrainer, load_model, save_model
from sparseml.utils import restricted_eval

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "migrating.md").read_text(encoding="utf-8")
TABLES = {
    title: [
        [cell.strip() for cell in line.strip("| ").split(" | ")]
        for line in text.splitlines()
        if line.startswith("|") and not line.startswith(("| Old", "|---"))
    ]
    for title, text in re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
}
NAMES = [
    (name, now)
    for title in ("Names", "Names that are gone")
    for old, now, _ in TABLES[title]
    for name in re.findall(r"`(sparseml\.[\w.]+)`", old)
]
CHECKS: dict[str, Callable[..., None]] = {}
"""First words of a row of behaviour → what shows that it is so."""


def row(words: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def add(check: Callable[..., None]) -> Callable[..., None]:
        assert words not in CHECKS
        CHECKS[words] = check
        return check

    return add


def load(text: str, **kwargs: Any) -> Any:
    return ScheduledModifierManager.from_yaml(text, **kwargs)


def magnitude(**fields: Any) -> str:
    """A recipe that prunes by magnitude, with other fields."""
    values: dict[str, Any] = {
        "params": "__ALL_PRUNABLE__",
        "init_sparsity": 0.0,
        "final_sparsity": 0.5,
        "start_epoch": 0.0,
        "end_epoch": 1.0,
        "update_frequency": 1.0,
    }
    lines = [f"    {name}: {value}" for name, value in {**values, **fields}.items()]
    return "modifiers:\n  - !MagnitudePruningModifier\n" + "\n".join(lines)


def pruned(model: nn.Module, recipe: str, **kwargs: Any) -> nn.Module:
    load(recipe).apply(model, **kwargs)
    return model


RANGE = "modifiers:\n  - !EpochRangeModifier\n    start_epoch: 0.0\n    end_epoch: 1.0\n"
STAGES = "".join(
    f"{name}:\n  modifiers:\n    - !EpochRangeModifier\n      start_epoch: {start}.0\n"
    f"      end_epoch: {start + 1}.0\n"
    for start, name in enumerate(("first", "second"))
)


def test_a_recipe_and_a_loop_of_1x(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe, loop, shown = (
        re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)[0]
        for kind in ("yaml", "python", "text")
    )
    Path("recipe.yaml").write_text(recipe)
    model = nn.Linear(20, 10)
    names = {
        "model": model,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "loader": [(torch.randn(4, 20), torch.randint(10, (4,)))] * 4,
        "loss_function": nn.functional.cross_entropy,
    }
    exec(compile(loop, "migrating.md", "exec"), names)  # noqa: S102
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(("name", "now"), NAMES)
def test_names(name: str, now: str) -> None:
    if now.startswith("Gone"):
        with pytest.raises(ModuleNotFoundError, match=r"of SparseML 1\.x is gone: "):
            importlib.import_module(name)
        return
    assert now.startswith("Works"), now
    package, _, last = name.rpartition(".")
    try:
        assert getattr(importlib.import_module(package), last) is not None
    except AttributeError:
        assert importlib.import_module(name).__all__


def test_all_that_is_gone_is_on_the_page() -> None:
    assert {name for name, now in NAMES if now.startswith("Gone")} == set(GONE) - {
        "sparseml.export"  # stands among the names that work: it is a function, too
    }


def behaviours() -> list[str]:
    return [old for title in ("Recipes", "Training") for old, _, _ in TABLES[title]]


def test_every_row_is_checked() -> None:
    plain = [re.sub("`", "", old) for old in behaviours()]
    unchecked = [old for old in plain if not any(old.startswith(words) for words in CHECKS)]
    stale = [words for words in CHECKS if not any(old.startswith(words) for old in plain)]
    assert (unchecked, stale) == ([], [])


def _checks() -> list[Any]:
    return [pytest.param(check, id=words) for words, check in CHECKS.items()]


@row("zoo: stubs")
def _() -> None:
    with pytest.raises((RecipeError, ValueError, FileNotFoundError), match="zoo"):
        load("zoo:cv/classification/resnet_v1-50/pytorch/sparseml/imagenet/pruned-moderate")


@row("init_sparsity: 0")
def _() -> None:
    with pytest.raises(RecipeError, match=r"0\.0"):
        load(magnitude(init_sparsity="0"))


@row("lr_class: ExponentialLR")
def _() -> None:
    text = (
        "modifiers:\n  - !LearningRateModifier\n    lr_class: ExponentialLR\n"
        "    lr_kwargs: {gamma: 0.5}\n    init_lr: 0.1\n    start_epoch: 0.0\n"
    )
    (modifier,) = load(text).iter_modifiers()
    assert modifier.lr_class == "StepLR" and modifier.lr_kwargs["step_size"] == 1


@row("a pattern that matches nothing")
def _() -> None:
    with pytest.raises(Exception, match="weight"):
        pruned(nn.Linear(4, 4), magnitude(params="['weight', 're:wieght']"))


@row("a misspelt field")
def _() -> None:
    with pytest.raises(RecipeError, match="final_sparsity") as caught:
        load(magnitude(final_sparisty=0.5))
    assert re.search(r":\d+: ", str(caught.value)) or "line" in str(caught.value)


@row("stages together with groups")
def _() -> None:
    with pytest.raises(RecipeError):
        load(STAGES + RANGE)


@row("a key twice in one mapping")
def _(caplog: pytest.LogCaptureFixture) -> None:
    assert load(f"{RANGE}    end_epoch: 2.0\n").max_epochs == 2
    assert "end_epoch" in caplog.text


@row("-x in an expression")
def _() -> None:
    assert restricted_eval("-x + 3", {"x": 1}) == 2


@row("overrides in JSON")
def _() -> None:
    with pytest.raises((RecipeError, ValueError, TypeError)):
        load(RANGE, recipe_variables="[1, 2]")


@row("single-line tags with dots")
def _() -> None:
    tag = "!EpochRangeModifier {start_epoch: 0.0, end_epoch: 1.0}"
    assert load(f"modifiers:\n  - {tag}\n").max_epochs == 1


@row(".yml files")
def _(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yml"
    path.write_text("modifiers:\n  - !SetLearningRateModifier\n    learning_rate: 1e-3\n")
    (modifier,) = load(path).iter_modifiers()  # type: ignore[arg-type]
    assert modifier.learning_rate == 1e-3


@row("expressions that call functions")
def _() -> None:
    assert restricted_eval("max(1, round(2.4))") == 2
    with pytest.raises(Exception, match="open"):
        restricted_eval("open('x')")


@row("inter_func: inverse_cubic")
def _() -> None:
    model = pruned(nn.Linear(8, 8), magnitude(inter_func="inverse_cubic"))
    assert int((model.weight == 0).sum()) == 32


@row("mask_type: 2:4 on convolutions")
def _() -> None:
    model = pruned(nn.Conv2d(8, 4, 3), magnitude(mask_type="'2:4'"))
    groups = (model.weight != 0).reshape(4, 2, 4, 3, 3).sum(2)
    assert set(groups.unique().tolist()) == {2}


@row("modify after apply")
def _() -> None:
    model = nn.Linear(4, 4)
    manager = load(magnitude())
    manager.apply(model)
    manager.modify(model, torch.optim.SGD(model.parameters(), lr=0.1), steps_per_epoch=2)
    assert all(modifier.initialized for modifier in manager.iter_modifiers())


@row("from_yaml(text).modifiers")
def _() -> None:
    assert load(RANGE).modifiers[0].end_epoch == 1.0


@row("state_dict, and from_yaml(..., add_modifiers=...)")
def _() -> None:
    manager = load(STAGES)
    manager.load_state_dict(manager.state_dict())
    more = load(STAGES, add_modifiers=list(load(RANGE).iter_modifiers()))
    assert len(list(more.iter_modifiers())) == 3


@row("masks as forward hooks")
def _() -> None:
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    load(magnitude()).modify(model, optimizer, steps_per_epoch=2)
    assert not model._forward_pre_hooks and not model._forward_hooks
    assert list(copy.deepcopy(model).state_dict()) == ["weight", "bias"]


@row("ties when masks are made")
def _() -> None:
    model = nn.Linear(10, 10)
    nn.init.constant_(model.weight, 0.5)
    assert int((pruned(model, magnitude()).weight == 0).sum()) == 50


@row("a folder sparse_logs")
def _(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pruned(nn.Linear(4, 4), magnitude())
    assert os.listdir(tmp_path) == []


@row("save_model casts")
def _(tmp_path: Path) -> None:
    save_model(tmp_path / "a.pth", nn.Linear(2, 2).bfloat16())
    saved = torch.load(tmp_path / "a.pth", weights_only=True)
    assert saved["state_dict"]["weight"].dtype == torch.bfloat16


@row("loading a pickled module")
def _(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "a.pth")
    with pytest.raises(Exception, match=r"pickle|weights"):
        load_model(tmp_path / "a.pth", nn.Linear(2, 2))


@row('distillation_teacher="self"')
def _() -> None:
    text = "modifiers:\n  - !DistillationModifier\n    start_epoch: 0.0\n    end_epoch: 1.0\n"
    model = nn.Linear(4, 4)
    manager = load(text)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    manager.modify(model, optimizer, steps_per_epoch=2, distillation_teacher="self")
    inputs = torch.randn(2, 4)
    outputs = model(inputs)
    loss = manager.loss_update(
        outputs.sum(), model, optimizer, 0.0, 2, student_outputs=outputs, student_inputs=inputs
    )
    assert bool(torch.isfinite(loss))


@row("RigL without a grad_sampler")
def _() -> None:
    modifier = pruning.RigLPruningModifier(
        final_sparsity=0.5, start_epoch=0.0, end_epoch=1.0, update_frequency=1.0,
        params="__ALL_PRUNABLE__", num_grads=1,
    )  # fmt: skip
    with pytest.raises(RuntimeError, match="grad_sampler"):
        modifier.apply(nn.Linear(4, 4))


@row("momentum of RigL's masked weights")
def _() -> None:
    from sparseml.pytorch.sparsification.pruning.masks.optimizer_state import mask_moments

    layer = nn.Linear(4, 4)
    optimizer = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    nn.init.zeros_(layer.weight)
    mask_moments(optimizer, [layer.weight])
    state = optimizer.state[layer.weight]
    assert state["exp_avg"].abs().sum() == 0 and state["exp_avg_sq"].abs().sum() == 0


@row("analytics, and torch.compile")
def _() -> None:
    assert torch.compile.__module__ == "torch"


@row("initialising a quantization modifier")
def _() -> None:
    manager = load("modifiers:\n  - !QuantizationModifier\n    start_epoch: 0.0\n")
    model = nn.Linear(4, 4)
    with pytest.raises(Exception, match=r"[Qq]uantiz"):
        manager.modify(model, torch.optim.SGD(model.parameters(), lr=0.1), steps_per_epoch=1)


@row("the rest of a recipe with quantization")
def _() -> None:
    manager = load(f"{magnitude()}\n  - !QuantizationModifier\n    start_epoch: 0.0\n")
    model = nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    manager.modify(model, optimizer, steps_per_epoch=1, allow_inert=True)
    assert manager.pruning_modifiers[0].initialized


@row("a mapping as RigL's final_sparsity")
def _() -> None:
    with pytest.raises((TypeError, ValueError), match="final_sparsity"):
        pruning.RigLPruningModifier(
            final_sparsity={0.5: ["weight"]}, start_epoch=0.0, end_epoch=1.0,
            update_frequency=1.0, params="__ALL_PRUNABLE__", num_grads=1,
        )  # fmt: skip


@row("FLOPs of ModuleAnalyzer")
def _() -> None:
    model = nn.Linear(7, 3)
    analyzer = ModuleAnalyzer(model, enabled=True)
    model(torch.ones(2, 7))
    flops = analyzer.layer_desc().flops
    assert isinstance(flops, int) and flops == 2 * (2 * 21 + 3)


@row("batches left over by num_accumulated_batches")
def _() -> None:
    model = nn.Linear(1, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = LossWrapper(lambda pred, _labels: pred.sum())
    trainer = ModuleTrainer(model, "cpu", loss, optimizer, num_accumulated_batches=2)
    before = model.weight.item()
    trainer.run([(torch.ones(1, 1), torch.ones(1))], "train", show_progress=False)
    assert model.weight.item() < before


@row("thresholds of a FATReLU")
def _() -> None:
    assert fat_relu(torch.tensor([0.5, 0.4]), 0.5).tolist() == [0.5, 0.0]


@pytest.mark.parametrize("check", _checks())
def test_behaviour(check: Callable[..., None], request: pytest.FixtureRequest) -> None:
    wanted = check.__code__.co_varnames[: check.__code__.co_argcount]
    check(**{name: request.getfixturevalue(name) for name in wanted})
