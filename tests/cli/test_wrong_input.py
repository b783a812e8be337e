"""Whatever is wrong with what a command is given takes ten lines at most, and no traceback."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from sparseml.cli import main

pytestmark = pytest.mark.filterwarnings("ignore")  # as an error one leaves half a module behind
ROOT = Path(__file__).resolve().parents[2]
MOST_LINES, LONGEST = 10, 1000
ANY_FILE = "missing.yaml folder bytes.bin latin.yaml nested.yaml empty.yaml text.txt list.yaml"
RECIPE = """
modifiers:
  - !MagnitudePruningModifier
      params: ['re:.*weight']
      init_sparsity: 0.0
      final_sparsity: 0.5
      start_epoch: 0.0
      end_epoch: 1.0
      update_frequency: 1.0
"""
# a command → what is wrong in a line each; {file} stands for each of ANY_FILE
COMMANDS = {
    "": ["no-such-command", "--no-such-flag", "--verison"],
    "bench": ["", "{file}", "--batch x folder", "--rounds -1 folder", "--batch 0 run"],
    "compose plan": [
        "{file}", "--model no.module:x --out p.json", "--model {file} --recipes {file}",
        "--model sparseml.compose.sorting:nothing", "--model sparseml.compose.sorting:model",
        "--model sparseml.compose.sorting:model --recipes {file} --out p.json",
        "--model sparseml.compose.sorting:model --legacy-conf {file} --out p.json",
        "--model sparseml.compose.sorting:model --weights {file} --recipes recipe.yaml",
        "--legacy-plan {file}", "--estimate --epochs x",
    ],
    "compose prune": ["--plan {file} --store s", "--store {file}", "--plan list.yaml"],
    "compose tune": ["--plan {file} --store s", "--store {file} --data x", "--workers -1"],
    "compose assemble": ["--plan {file} --store s --config c --out o", "--store {file}"],
    "compose finetune": ["--plan {file} --store s --config c", "--store {file} --config c"],
    "compose explore": ["--plan {file} --store s", "--store {file} --objective x"],
    "compose report": ["--store {file}", ""],
    "doctor": ["--no-such-flag", "further"],
    "export": ["{file}", "{file} --onnx out.onnx", "run --onnx folder", "run --batch x"],
    "gap train": [
        "", "--steps x -- true", "--steps 2 -- no-such-program", "--recipe {file} -- true",
        "--steps 2 --parts 0 -- true", "--steps 2 --sparsity 7 --params x -- true",
        "--steps -1 -- true",
    ],
    "gap merge": ["", "{file} -o out.pth", "{file} {file} -o out.pth"],
    "prune": [
        "", "--no-such-flag", "{file} --model x --recipe recipe.yaml", "folder --model own:{file}",
        "folder --model resnet18 --recipe {file}", "folder --recipe recipe.yaml",
        "folder --model no_such_model --recipe recipe.yaml",
        "folder --model resnet18 --recipe recipe.yaml --sparsities x",
        "folder --model resnet18 --recipe recipe.yaml --sparsities 2",
        "folder --model resnet18 --recipe recipe.yaml --device none",
        "folder --model resnet18 --recipe recipe.yaml --output {file}",
        "folder --model hf:{file} --recipe recipe.yaml",
        "folder --model fairseq:{file} --recipe recipe.yaml",
    ],
    "train": [
        "", "--no-such-flag", "folder --model resnet18 --recipe {file}",
        "folder --model no_such_model --recipe recipe.yaml", "{file} --model resnet18",
        "folder --model resnet18 --recipe recipe.yaml --resume {file}",
        "folder --model resnet18 --recipe recipe.yaml --epochs x",
        "folder --model resnet18 --recipe recipe.yaml --initial-masks {file}",
        "folder --model hf:{file} --recipe recipe.yaml",
    ],
    "recipe list": ["--no-such-flag"],
    "recipe check": [
        "", "{file}", "recipe.yaml --model {file}", "recipe.yaml --model no_such_model",
        "recipe.yaml --steps-per-epoch x", "recipe.yaml --recipe-args {file}", "recipe:no/such",
        "recipe.yaml --recipe-args a=b", "recipe.yaml --epochs -1 --steps-per-epoch 0",
    ],
    "recipe show": ["", "{file}", "recipe:no/such", "recipe.yaml --recipe-args [[["],
    "recipe chain": ["", "{file}", "recipe.yaml {file}", "recipe.yaml recipe.yaml -o folder"],
    "recipe convert": ["", "{file}", "{file} --from inc", "{file} --from gap", "x --from no"],
    "recipe new": [
        "", "--model no_such_model", "--model {file}", "--model resnet18 --method none",
        "--model resnet18 --sparsity 7", "--model resnet18 --sparsity 0.5 -o folder",
        "--model timm:resnet18 --sparsity nan", "--model timm:resnet18 --epochs inf",
    ],
    "report": ["", "{file}", "{file} -o folder", "run --no-such-flag"],
}  # fmt: skip
# a script → the same
SCRIPTS = {
    "research/one_shot_pruning.py": ["", "--no-such-flag", "folder --model x --recipe {file}"],
    "research/sparse_training.py": [
        "--no-such-flag", "--model no_such --data-dir folder --sparseml-recipe recipe.yaml",
        "--model resnet18 --data-dir {file} --sparseml-recipe recipe.yaml",
    ],
    "research/one_shot_pruning_hf.py": ["--no-such-flag", "--model {file} --recipe recipe.yaml"],
    "research/one_shot_causal_study.py": ["--no-such-flag", "--out text.txt", "--out folder"],
    "research/run_seq_gap.py": ["", "--no-such-flag", "--partition-type cyclic --num-steps x"],
    "research/srp/demo.py": ["--no-such-flag"],
    "research/composability/config_generator.py": ["--no-such-flag", ""],
    "research/composability/config_prune_generator.py": ["--no-such-flag", ""],
    "research/composability/evaluate.py": ["--no-such-flag", ""],
    "research/composability/finetune.py": ["", "-m {file} -e 1", "-m x -e x"],
    "research/composability/prune.py": ["--no-such-flag", ""],
    "research/composability/retrain.py": ["--no-such-flag", ""],
    "research/composability/train_origin.py": ["--no-such-flag"],
    "integrations/composability/make_origin.py": ["further"],
    "integrations/timm/make_digits.py": ["", "text.txt"],
    "integrations/demo/digits.py": ["--no-such-flag", "--out text.txt"],
    **{
        f"research/{name}_study.py": ["--no-such-flag"]
        for name in ("one_shot", "shrinking", "training", "translation", "transformers")
    },
    "research/composing_study.py": ["--no-such-flag"],
    "research/shrinking_glue_study.py": ["--no-such-flag"],
    "research/cifar_one_shot_study.py": ["--no-such-flag"],
}  # fmt: skip
OF_TRANSFORMERS = {
    "integrations/huggingface/run_glue.py": [
        "", "--no-such-flag", "--model_name_or_path {file} --output_dir o --do_train",
        "--model_name_or_path folder --task_name sst2 --output_dir o --do_train --recipe {file}",
        "--model_name_or_path folder --task_name none --output_dir o --do_train",
        "--model_name_or_path folder --task_name sst2 --data_dir {file} --output_dir o --do_eval",
        "--model_name_or_path folder --output_dir o --do_train --learning_rate x",
    ],
    "integrations/huggingface/run_qa.py": [
        "--no-such-flag", "--model_name_or_path x --train_file {file} --output_dir o --do_train",
    ],
    "integrations/huggingface/run_glue_no_trainer.py": [
        "", "--no-such-flag",
        "--model_name_or_path x --task_name sst2 --data-dir {file} --recipe recipe.yaml",
    ],
    "integrations/huggingface/run_glue_no_trainer_mixed.py": ["", "--no-such-flag"],
    "integrations/huggingface/make_model.py": ["", "out bytes.bin", "out text.txt --words x"],
    "integrations/huggingface/make_questions.py": ["--no-such-flag", "text.txt"],
}  # fmt: skip
OF_FAIRSEQ = {
    "research/srp/train.py": ["", "--no-such-flag", "{file}", "folder --arch none"],
    "research/srp/finetuning.py": ["", "{file}"],
    "research/srp/generate.py": ["", "folder --path missing.pt"],
    "research/srp/pruning.py": ["", "{file}", "folder --srp"],
    "integrations/fairseq/prepare.py": ["", "{file}", "--no-such-flag"],
    "integrations/fairseq/run_test.py": ["", "{file} --data {file}", "--no-such-flag"],
}


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "folder").mkdir()
    for name, content in {
        "recipe.yaml": RECIPE.encode(),
        "bytes.bin": bytes(range(256)) * 20,
        "latin.yaml": "é: ü\n".encode("latin-1") * 30,
        "nested.yaml": b"[" * 5000,
        "empty.yaml": b"",
        "text.txt": b"a line of a text\n" * 40,
        "list.yaml": b"- a\n- 1\n" * 30,
        "run/run.json": b"{" * 50,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)


def _cases(lines: list[str]) -> Iterator[list[str]]:
    for line in lines:
        files = ANY_FILE.split() if "{file}" in line else [""]
        yield from (line.replace("{file}", file).split() for file in files)


def _run(call: Callable[[], object], told: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Call what a process would; what it prints for its error must be short."""
    try:
        call()
        status: object = 0
    except SystemExit as end:
        status = end.code
    out, error = capfd.readouterr()
    lines = f"{out}{error}{status if isinstance(status, str) else ''}".splitlines()
    text = "\n".join([told, *lines])
    assert status and lines, f"{told}: nothing is told"
    assert "Traceback" not in text and len(lines) <= MOST_LINES, text[-3000:]
    assert all(len(line) <= LONGEST for line in lines if "error:" in line), text[-3000:]


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    for words in _cases(COMMANDS[name]):
        call = partial(main, [*name.split(), *words], prog_name="sparseml")
        _run(call, f"sparseml {name} {' '.join(words)}", capfd)


@pytest.mark.parametrize(
    ("needed", "name", "lines"),
    [
        (needed, *one)
        for needed, known in (
            ("timm", SCRIPTS),
            ("datasets", OF_TRANSFORMERS),
            ("fairseq", OF_FAIRSEQ),
        )
        for one in known.items()
    ],
)
def test_scripts(
    needed: str,
    name: str,
    lines: list[str],
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip(needed)
    path = ROOT / name
    monkeypatch.syspath_prepend(str(path.parent))
    before = {*sys.modules}
    for words in _cases(lines):
        monkeypatch.setattr(sys, "argv", [name, *words])
        run = partial(runpy.run_path, str(path), run_name="__main__")
        _run(run, f"{name} {' '.join(words)}", capfd)
    for module in {*sys.modules} - before:  # others have modules of the same names
        if str(path.parent) in (getattr(sys.modules[module], "__file__", None) or ""):
            del sys.modules[module]


def test_all_scripts_are_tried() -> None:
    known = {*SCRIPTS, *OF_TRANSFORMERS, *OF_FAIRSEQ}
    found = {
        str(path.relative_to(ROOT))
        for folder in ("research", "integrations")
        for path in (ROOT / folder).rglob("*.py")
        if "__main__" in path.read_text(encoding="utf-8")
    }
    assert found == known
