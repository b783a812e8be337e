"""What the documentation says is so."""

from __future__ import annotations

import importlib
import logging
import re
import runpy
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from sparseml.optim import RecipeTypeError
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.utils import restricted_eval

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
RECIPES = [
    (page.stem, number, text)
    for page in PAGES
    for number, text in enumerate(BLOCK.findall(page.read_text(encoding="utf-8")))
    if "modifiers:" in text
]


@pytest.mark.parametrize("name", ["modifiers", "results", "commands"])
def test_pages_that_are_written_by_programs_are_up_to_date(name: str) -> None:
    if name == "commands":  # of which those of a library are as long as it is there
        for library in ("timm", "transformers", "fairseq"):
            _imported(library)
    namespace = runpy.run_path(str(ROOT / "docs" / f"generate_{name}.py"))
    written = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert written == namespace["page"](), f"run: python docs/generate_{name}.py"


def test_the_guide_is_of_the_modifiers_that_there_are() -> None:
    namespace = runpy.run_path(str(ROOT / "docs" / "generate_modifiers.py"))
    assert set(namespace["GUIDE"]) == set(re.findall("^### (.*)", namespace["page"](), re.M))


def test_the_picture_shows_the_results() -> None:
    namespace = runpy.run_path(str(ROOT / "docs" / "generate_results.py"))
    lines = namespace["curves"]()
    first = (ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")[1]
    ((dense, _),) = lines["dense"].values()
    lost = [dense - lines[f"{name}, one shot"][0.8][0] for name in ("CAP", "magnitude")]
    assert f"for {lost[0]:.1f} points" in " ".join(first.split())
    assert f"magnitude costs {lost[1]:.0f}" in first
    assert all(0.9 in points for name, points in lines.items() if name != "dense")


def test_the_reference_names_what_there_is() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    named = re.findall(
        r"^::: (.*)\.(\w+)$(?:\n    options:\n      heading: (.*)\.(\w+))?", page, re.M
    )
    assert len(named) > 15
    for module, name, short, shown in named:
        if module.startswith("sparseml.transformers"):
            _imported("transformers")
        found = getattr(importlib.import_module(module), name)
        assert not short or getattr(importlib.import_module(short), shown) is found


def test_getting_started(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    page = (ROOT / "docs" / "get_started.md").read_text(encoding="utf-8")
    program, shown = (
        "\n".join(re.findall(rf"^```{kind}\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
        for kind in ("python", "text")
    )
    exec(compile(program, "get_started.md", "exec"), {})  # noqa: S102
    number = re.compile(r"\d[\d,]*(?:\.\d+)?")
    printed = re.sub(r"(?m)^\w+Modifier at .*\n", "", capsys.readouterr().out)  # of the log
    assert number.sub("#", printed).split() == number.sub("#", shown).split()
    pairs = zip(number.findall(printed), number.findall(shown), strict=True)
    for found, told in ((float(a.replace(",", "")), float(b.replace(",", ""))) for a, b in pairs):
        assert found == pytest.approx(told, abs=6.0), (found, told)  # another processor


def _imported(library: str) -> Any:
    """Return an optional library, which may warn when it is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(library)


@pytest.mark.parametrize(
    "text", [text for *_, text in RECIPES], ids=[f"{page}-{n}" for page, n, _ in RECIPES]
)
def test_recipes_in_the_documentation_load(text: str) -> None:
    if "!RelativeMagnitudePruningModifier" in text:
        pytest.skip("names a modifier that the page teaches to write")
    assert list(ScheduledModifierManager.from_yaml(text).iter_modifiers())


def test_there_are_recipes_to_load() -> None:
    assert {page for page, *_ in RECIPES} >= {"index", "recipes"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+\.md)(?:#[\w-]+)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).is_file(), target


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if f" {page.name}" not in navigation] == []


def test_the_loop_of_the_front_page(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    (loop,) = re.findall(r"```python\n(import torch\n.*?)```", page, re.DOTALL)
    (recipe,) = BLOCK.findall(page)
    model = torch.nn.Linear(20, 10)
    names = {
        "model": model,
        "loader": [(torch.randn(4, 20), torch.randint(10, (4,)))] * 3,
        "loss_function": torch.nn.functional.cross_entropy,
        "recipe": recipe.replace("20.0", "4.0"),
    }
    # the reader's recipe is a file; the text does as well
    program = tmp_path / "loop.py"
    program.write_text(loop.replace('"recipe.yaml"', "recipe"))
    runpy.run_path(str(program), names)
    assert int((model.weight == 0).sum()) == round(0.9 * 200)


def test_the_example_of_a_model_that_shrinks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (ROOT / "docs" / "srp.md").read_text(encoding="utf-8")
    (loop,) = re.findall(r"```python\n(import torch\n.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(loop, names)  # noqa: S102
    model, again = names["model"], names["again"]
    whole = sum(param.numel() for param in names["Classifier"]().parameters())
    assert sum(param.numel() for param in model.parameters()) < 0.35 * whole
    ids = torch.randint(50, (4, 6))
    assert torch.equal(model.eval()(ids), again(ids))
    assert names["loss"].item() < 1.0  # chance is 1.6


class OwnLoop:
    """The page on loops of one's own: its recipe, and its code by the heading above it."""

    def __init__(self, folder: Path) -> None:
        page = (ROOT / "docs" / "your_own_loop.md").read_text(encoding="utf-8")
        (self.recipe,) = BLOCK.findall(page)
        (folder / "recipe.yaml").write_text(self.recipe)
        parts = re.split(r"^#+ ([A-Z].*)$", page, flags=re.MULTILINE)[1:]
        self.page, self.folder = page, folder
        self.code = {
            heading: "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
            for heading, text in zip(parts[::2], parts[1::2], strict=True)
        }

    def names(self, batches: int = 4) -> dict[str, Any]:
        """What the page takes for granted."""
        torch.manual_seed(0)
        data = [(torch.randn(20), int(label)) for label in torch.randint(10, (4 * batches,))]
        return {
            "model": torch.nn.Linear(20, 10),
            "loader": DataLoader(data, batch_size=4),  # type: ignore[arg-type]
            "loss_function": torch.nn.functional.cross_entropy,
            "scaler": torch.amp.GradScaler("cpu", init_scale=8.0),
        }

    def run(self, names: dict[str, Any], *headings: str, changes: Any = None) -> dict[str, Any]:
        """Run the code below the headings; ``changes`` are pairs of old and new text."""
        text = "\n".join(self.code[heading] for heading in headings)
        for old, new in changes or ():
            assert old in text
            text = text.replace(old, new)
        program = self.folder / "loop.py"
        program.write_text(text)
        return names | runpy.run_path(str(program), names)


@pytest.fixture
def own_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OwnLoop:
    monkeypatch.chdir(tmp_path)
    return OwnLoop(tmp_path)


UNFINISHED = ("manager.finalize(model)", "")  # the reader goes on to train


def _zeros(names: dict[str, Any]) -> int:
    return int((names["model"].weight == 0).sum())


def test_a_plain_loop_of_ones_own(
    own_loop: OwnLoop, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    names = own_loop.run(own_loop.names(), "A plain loop")
    assert _zeros(names) == 180 and names["manager"].summary().complete
    (shown,) = re.findall(r"```text\n(.*?)```", own_loop.page, re.DOTALL)
    assert shown in capsys.readouterr().out
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_what_modifiers_need_besides(own_loop: OwnLoop) -> None:
    names = own_loop.names() | {"teacher": torch.nn.Linear(20, 10)}
    recipe = own_loop.recipe.replace("!GlobalMagnitude", "!GWProd").replace(
        "    init_", "    num_grads: 4\n    init_"
    )
    recipe += "  - !DistillationModifier {start_epoch: 0.0, end_epoch: 6.0}\n"
    names["manager"] = ScheduledModifierManager.from_yaml(recipe)
    names["optimizer"] = torch.optim.SGD(names["model"].parameters(), lr=0.1)
    names = own_loop.run(names, "Gradients and teachers")
    inputs, labels = next(iter(names["loader"]))
    plain = names["loss_function"](names["model"](inputs), labels)
    assert names["loss_of"](inputs, labels) != plain  # the teacher has a say
    names["manager"].finalize(names["model"])
    names["manager"] = ScheduledModifierManager.from_yaml(recipe)
    names = own_loop.run(names, "Without a loop")
    assert _zeros(names) == 180


def test_a_loop_with_a_driver(own_loop: OwnLoop, capsys: pytest.CaptureFixture[str]) -> None:
    headings = ["Two calls instead", "A step that does not happen", "Stopping and going on"]
    headings.append("Asking what will happen")
    names = own_loop.run(own_loop.names(), *headings, changes=[UNFINISHED])
    assert _zeros(names) == 180
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "4 1.0 True False" and lines[-1] == "weight: 0.825"

    taken = names["driver"].position.steps
    names["save"]("checkpoint.pt")
    inputs, labels = next(iter(names["loader"]))
    names["train_step"](inputs, labels)
    assert names["driver"].position.steps == taken + 1 == 25
    names["train_step"](torch.full((4, 20), torch.inf), labels)
    assert names["driver"].position.steps == taken + 1
    names["load"]("checkpoint.pt")
    assert names["driver"].position.steps == taken


def test_averaging_in_a_loop_of_ones_own(own_loop: OwnLoop) -> None:
    names = own_loop.names()
    names["manager"] = manager = ScheduledModifierManager.from_yaml(own_loop.recipe)
    names = own_loop.run(names, "Averaging weights", changes=[("0.999", "0.9")])
    model, averaged, mask_average = names["model"], names["averaged"], names["mask_average"]
    late = torch.optim.swa_utils.AveragedModel(model)
    masked_always = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=averaged.multi_avg_fn)
    optimizer = manager.modify(model, torch.optim.SGD(model.parameters(), lr=0.1), 4)
    for epoch in range(6):
        for inputs, labels in names["loader"]:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
            averaged.update_parameters(model)
            masked_always.update_parameters(model)
            with torch.no_grad():
                masked_always.module.weight.mul_(model.weight != 0)
            if epoch >= 4:
                late.update_parameters(model)
    pruned = model.weight == 0
    assert int(pruned.sum()) == 180
    assert torch.equal(late.module.weight == 0, pruned)
    assert not bool((averaged.module.weight[pruned] == 0).any())
    mask_average()
    assert torch.equal(averaged.module.weight == 0, pruned)
    assert torch.equal(averaged.module.weight, masked_always.module.weight)


def test_accelerate_in_a_loop_of_ones_own(own_loop: OwnLoop) -> None:
    pytest.importorskip("accelerate")
    saving = (
        "    for inputs",
        "    if epoch == 4:\n        accelerator.register_for_checkpointing(manager)\n"
        "        accelerator.save_state('state')\n    for inputs",
    )
    names = own_loop.run(own_loop.names(6), "Accelerate", changes=[saving])
    assert names["steps"] == 2 and names["manager"].summary().position == (12, 6.0, 2)
    assert _zeros(names) == 180
    names["manager"].initialize(names["model"])
    names["accelerator"].load_state("state")
    assert names["manager"].position == (8, 4.0, 2)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:.*training batches")
@pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec", "ignore:.*tensorboardX")
@pytest.mark.filterwarnings("ignore:.*Checkpoint directory")
@pytest.mark.parametrize("callback", [None, "EMAWeightAveraging"])
def test_lightning_in_a_loop_of_ones_own(own_loop: OwnLoop, callback: str | None) -> None:
    _imported("lightning")
    quiet = "enable_progress_bar=False, enable_model_summary=False, logger=False, accelerator='cpu'"
    extra = f", callbacks=[lightning.pytorch.callbacks.{callback}()]" if callback else ""
    change = ("gradient_clip_val=1.0", f"gradient_clip_val=1.0, {quiet}{extra}")
    names = own_loop.run(own_loop.names(), "Lightning", changes=[change])
    summary = names["pruned"].manager.summary()
    assert summary.position == (12, 6.0, 2) and summary.complete and _zeros(names) == 180
    if callback:
        return
    shutil.rmtree("checkpoints")
    shorter = [change, ("max_epochs=6", "max_epochs=3")]
    own_loop.run(own_loop.names(), "Lightning", changes=shorter)
    (checkpoint,) = own_loop.folder.rglob("*.ckpt")
    going_on = [
        change,
        ("fit(pruned, loader)", f"fit(pruned, loader, ckpt_path={str(checkpoint)!r})"),
    ]
    resumed = own_loop.run(own_loop.names(), "Lightning", changes=going_on)
    assert resumed["pruned"].manager.summary() == summary
    assert torch.equal(resumed["model"].weight, names["model"].weight)


def test_the_trainer_in_a_loop_of_ones_own(own_loop: OwnLoop) -> None:
    transformers = _imported("transformers")

    def names() -> dict[str, Any]:
        tokens = torch.randint(16, (16, 4), generator=torch.Generator().manual_seed(0))
        sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2}
        config = transformers.BertConfig(vocab_size=16, num_hidden_layers=1, **sizes)
        torch.manual_seed(0)
        model = transformers.BertForSequenceClassification(config)
        examples = [{"input_ids": row, "labels": int(row[0] % 2)} for row in tokens]
        return {"model": model, "examples": examples}

    quiet = ('"output"', '"output", use_cpu=True, report_to=[], disable_tqdm=True, save_steps=7')
    whole = own_loop.run(names(), "The Trainer of Transformers", changes=[quiet])
    summary = whole["manager"].summary()
    assert summary.position == (12, 6.0, 2) and summary.complete
    assert summary.pruning[0].now == pytest.approx(0.9, abs=1e-3)

    going_on = "manager.load_state_dict(torch.load('output/checkpoint-7/recipe_state.pt'))\n"
    going_on += "trainer.train(resume_from_checkpoint='output/checkpoint-7')"
    resumed = own_loop.run(
        names(), "The Trainer of Transformers", changes=[quiet, ("trainer.train()", going_on)]
    )
    assert resumed["manager"].summary() == summary
    for one, other in zip(*(run["model"].parameters() for run in (whole, resumed)), strict=True):
        assert torch.equal(one, other)


def test_expressions_as_documented() -> None:
    assert repr(restricted_eval("2 * 3")) == "6"
    assert repr(restricted_eval("2 * 3.0")) == "6.0"
    assert restricted_eval("max(-1, abs(-2) // 2, round(0.4))") == 1


def test_the_example_of_an_error_is_real(tmp_path: Path) -> None:
    fields = ["params: []", "init_sparsity: 0.1", "start_epoch: 0.0", "end_epoch: 1.0"]
    lines = ["x: 1", "", "", "", "", "modifiers:", "  - !MagnitudePruningModifier"]
    lines += [f"      {field}" for field in [*fields, "final_sparisty: 0.9", "update_frequency: 1"]]
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(RecipeTypeError) as caught:
        ScheduledModifierManager.from_yaml(path)
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert str(caught.value).removeprefix(f"{tmp_path}/") in page
