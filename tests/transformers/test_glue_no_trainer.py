"""The GLUE scripts without a Trainer: what they prune, resume, share, tell, and refuse."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("accelerate")
pytest.importorskip("datasets")
pytest.importorskip("transformers")

from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizerFast,
)

from sparseml.run import read_masks
from sparseml.run.errors import run_reported

FOLDER = Path(__file__).resolve().parents[2] / "integrations" / "huggingface"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{number}" for number in range(11))]
Run = Callable[..., Path]


def write_model(
    folder: Path, dropout: float = 0.1, labels: int = 2, width: int = 16, seed: int = 3
) -> str:
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        num_labels=labels,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    return str(folder)


def write_texts(folder: Path, train: int = 32, lengths: int = 4) -> str:
    folder.mkdir()
    for split, count in {"train": train, "dev": 12}.items():
        lines = ["sentence\tlabel"]
        for number in range(count):
            words = [f"w{(7 * number + 3 * place) % 11}" for place in range(3 + number % lengths)]
            lines.append(f"{' '.join(words)}\t{number % 2}")
        (folder / f"{split}.tsv").write_text("\n".join(lines))
    return str(folder)


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What runs the scripts in this process, without taking times."""
    from accelerate.state import AcceleratorState

    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    monkeypatch.setattr("sparseml.run.training.LATENCY_ROUNDS", 0)
    yield importlib.import_module("no_trainer.outcome")
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def run(tmp_path: Path, scripts: Any) -> Run:
    """Run a script on a small model and few texts, and return where its results are."""
    model, data = write_model(tmp_path / "bert"), write_texts(tmp_path / "data")

    def call(name: str, *flags: str, mixed: bool = False) -> Path:
        folder = tmp_path / name
        usual = ["--task_name", "sst2", "--data_dir", data, "--model_name_or_path", model]
        usual += ["--num_train_epochs", "3", "--per_device_train_batch_size", "4", "--no-report"]
        usual += ["--learning_rate", "1e-2", "--output_dir", str(folder), *flags]
        assert scripts.run_script(usual, "script", mixed) == 0
        return folder

    return call


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def test_a_run_prunes_and_leaves_all_that_belongs_to_it(run: Run, tmp_path: Path) -> None:
    flags = ("--do_prune", "--pruning_pattern", "2:4", "--target_sparsity", "0.5")
    folder = run("out", *flags, "--sparsity_warm_epochs", "1", "--cooldown_epochs", "1")
    recipe = (folder / "recipe.yaml").read_text()
    assert "mask_type: 2:4" in recipe and "start_step: 8" in recipe and "end_step: 16" in recipe
    model = AutoModelForSequenceClassification.from_pretrained(folder / "model")
    for name, param in model.named_parameters():
        linear = param.ndim == 2 and "embeddings" not in name
        kept = (param != 0).float().mean() if linear else torch.tensor(1.0)
        dense = not linear or "pooler" in name or "classifier" in name
        assert kept == (1.0 if dense else 0.5), name
        if not dense:
            assert ((param != 0).view(-1, 4).sum(1) == 2).all(), name
    # 12 layers of 16 x 16 or 16 x 32 are pruned; pooler and classifier count, too
    pruned, everything = 4096 // 2, 4096 + 16 * 16 + 2 * 16
    note = json.loads((folder / "result.json").read_text())["notes"][0]
    assert f"ratio: {pruned / everything:.4f} ({pruned:,} of {everything:,} weights)" in note
    names = {path.name for path in (folder / "checkpoints").glob("*_epoch=*.pth")}
    assert names == {f"bert_epoch={number}.pth" for number in range(3)}
    assert len((folder / "summary.csv").read_text().splitlines()) == 4


def test_resuming_gives_the_same_bits(run: Run, tmp_path: Path) -> None:
    flags = ["--do_prune", "--pruning_pattern", "4x1", "--target_sparsity", "0.75"]
    flags += ["--cooldown_epochs", "1", "--gradient_accumulation_steps", "2"]
    whole = run("whole", *flags, "--lr_scheduler_type", "cosine")
    shutil.copy(whole / "checkpoints" / "bert_epoch=0.pth", tmp_path / "first.pth")
    again = run(
        "again", *flags, "--lr_scheduler_type", "cosine",
        "--resume_from_checkpoint", str(tmp_path / "first.pth"),
    )  # fmt: skip
    before, after = weights(whole), weights(again)
    assert all(torch.equal(before[name], after[name]) for name in before)
    masks, others = (read_masks(folder / "masks.safetensors") for folder in (whole, again))
    assert masks and all(torch.equal(masks[name], others[name]) for name in masks)


def test_the_classifier_is_trained_unless_the_loss_is_replaced(run: Run, tmp_path: Path) -> None:
    first = load_file(tmp_path / "bert" / "model.safetensors")
    plain = weights(run("plain"))
    assert not torch.equal(plain["classifier.weight"], first["classifier.weight"])
    distilled = weights(run("distilled", "--do_prune", "--distill_loss_weight", "2"))
    for name in ("classifier.weight", "classifier.bias", "bert.pooler.dense.weight"):
        assert torch.equal(distilled[name], first[name]), name
    layer = "bert.encoder.layer.0.output.dense.weight"
    assert not torch.equal(distilled[layer], first[layer])


def test_a_student_without_a_head_takes_that_of_the_teacher(run: Run, tmp_path: Path) -> None:
    taught = load_file(tmp_path / "bert" / "model.safetensors")
    model = BertForSequenceClassification.from_pretrained(tmp_path / "bert")
    model.bert.save_pretrained(tmp_path / "headless")
    BertTokenizerFast.from_pretrained(tmp_path / "bert").save_pretrained(tmp_path / "headless")
    folder = run(
        "out", "--model_name_or_path", str(tmp_path / "headless"), "--distill_loss_weight", "1",
        "--teacher_model_name_or_path", str(tmp_path / "bert"),
    )  # fmt: skip
    assert torch.equal(weights(folder)["classifier.weight"], taught["classifier.weight"])


def test_the_mixed_script_prunes_to_two_patterns(run: Run) -> None:
    folder = run("out", "--do_prune", "--target_sparsity", "0.75", mixed=True)
    masks = read_masks(folder / "masks.safetensors")
    single = {name: mask for name, mask in masks.items() if "output" in name or "interm" in name}
    blocks = {name: mask for name, mask in masks.items() if name not in single}
    assert len(single) == len(blocks) == 6
    assert all((~mask).float().mean() == 0.75 for mask in single.values())
    parts = [mask.view(4, 4, 16).float().mean(1) for mask in blocks.values()]
    assert all(((part == 0) | (part == 1)).all() for part in parts)
    pruned = torch.stack([(part == 0).float().mean() for part in parts])
    assert pruned.mean() == 0.75 and pruned.min() >= 0.5 and pruned.max() <= 0.98


def test_the_pruning_type_makes_a_difference(run: Run) -> None:
    flags = ("--do_prune", "--pruning_pattern", "1x1", "--max_train_steps", "12")
    kinds = ("magnitude", "snip_momentum")
    found = [run(kind, *flags, "--pruning_type", kind) for kind in kinds]
    masks = [read_masks(folder / "masks.safetensors") for folder in found]
    assert any(not torch.equal(masks[0][name], masks[1][name]) for name in masks[0])
    rows = (found[0] / "summary.csv").read_text().splitlines()
    assert len(rows) == 3  # of 8 steps and of 4


def test_heads_go_as_a_whole_and_a_pattern_stays_locked(run: Run, tmp_path: Path) -> None:
    flags = ("--do_prune", "--num_train_epochs", "2", "--target_sparsity", "0.5")
    folder = run("heads", *flags, "--pruning_pattern", "mha")
    queries = [
        mask for name, mask in read_masks(folder / "masks.safetensors").items() if "query" in name
    ]
    assert sum(int((~mask).sum()) for mask in queries) == 2 * 8 * 16  # two heads of eight rows
    two_four = run("two_four", *flags, "--pruning_pattern", "2:4")
    locked = run(
        "locked", "--do_prune", "--pruning_type", "pattern_lock", "--pruning_pattern", "2:4",
        "--model_name_or_path", str(two_four / "model"),
    )  # fmt: skip
    before, after = weights(two_four), weights(locked)
    layers = [name for name in before if name.endswith("intermediate.dense.weight")]
    assert all(torch.equal(before[name] == 0, after[name] == 0) for name in layers)
    assert not any(torch.equal(before[name], after[name]) for name in layers)


def test_texts_of_like_length_are_put_together(scripts: Any, tmp_path: Path) -> None:
    training = importlib.import_module("no_trainer.training")
    lengths = [number % 10 + 1 for number in range(80)]
    order = training.EpochOrder(80, 4, seed=1, lengths=lengths)
    found = [[lengths[index] for index in order][at : at + 4] for at in range(0, 80, 4)]
    assert sum(max(batch) - min(batch) for batch in found) < 40
    first = list(order)
    assert sorted(first) == list(range(80)) and first == list(order)
    order.set_epoch(1)
    assert list(order) != first


@pytest.mark.parametrize(
    ("flags", "examples", "epochs", "expected"),
    [
        ({"cooldown_epochs": 5, "sparsity_warm_epochs": 1, "pruning_frequency": 50}, 3668, 15,
         (229, 2292, 50)),
        ({"cooldown_epochs": 5, "pruning_frequency": 500}, 67349, 15, (0, 42093, 500)),
        ({"cooldown_epochs": 5, "sparsity_warm_epochs": 1, "pruning_frequency": 500}, 67349, 15,
         (4209, 42093, 500)),
        ({"cooldown_epochs": 40, "pruning_frequency": 50}, 3668, 120, (0, 18340, 50)),
        ({"cooldown_epochs": 5, "sparsity_warm_epochs": 1}, 3668, 15, (229, 2292, 51)),
        ({}, 64, 3, (0, 11, 1)),  # fewer steps than updates
    ],
)  # fmt: skip
def test_epochs_become_the_steps_of_the_published_runs(
    scripts: Any, flags: dict[str, Any], examples: int, epochs: int, expected: tuple[int, ...]
) -> None:
    recipes = importlib.import_module("no_trainer.recipes")
    settings = importlib.import_module("no_trainer.settings")
    steps = recipes.pruning_steps(settings.PruningGroup(**flags), examples, 16, epochs)
    assert (steps.start_step, steps.end_step, steps.update_steps) == expected


def test_flags_become_a_recipe(scripts: Any) -> None:
    from sparseml.pytorch.optim import ScheduledModifierManager

    recipes = importlib.import_module("no_trainer.recipes")
    settings = importlib.import_module("no_trainer.settings")

    def pruner(**flags: Any) -> Any:
        group = settings.PruningGroup(do_prune=True, **flags)
        text = recipes.recipe_of(group, 3, recipes.Steps(2, 8, 2))
        return ScheduledModifierManager.from_yaml(text).pruning_modifiers[0]

    # Intel's files say how many of a group go, ours how many stay
    assert pruner(pruning_pattern="1:4", target_sparsity=0.25).mask_type == "3:4"
    assert pruner(pruning_pattern="1x1").mask_type == "unstructured"
    channel = pruner(pruning_pattern="1xchannel", target_sparsity=0.6)
    assert channel.mask_type == "1xchannel" and channel.max_sparsity_per_param == 0.98
    assert channel.inter_func == "exp" and channel.global_sparsity
    assert pruner(target_sparsity=0.99).max_sparsity_per_param == 0.99
    assert pruner(pruning_type="snip_progressive").progressive_steps == 4
    assert type(pruner(pruning_type="pattern_lock")).__name__ == "PatternLockModifier"


def test_a_recipe_takes_the_place_of_flags(run: Run, tmp_path: Path) -> None:
    recipe = tmp_path / "own.yaml"
    recipe.write_text(
        "modifiers:\n"
        "  - !GMPruningModifier {params: ['re:.*query.weight'], init_sparsity: 0.0,\n"
        "      final_sparsity: 0.5, start_epoch: 0.0, end_epoch: 2.0, update_frequency: 0.5}\n"
    )
    masks = read_masks(run("out", "--recipe", str(recipe)) / "masks.safetensors")
    assert len(masks) == 2 and all((~mask).float().mean() == 0.5 for mask in masks.values())


def test_regression_and_files_of_ones_own(run: Run, tmp_path: Path) -> None:
    lines = [f"w{number % 11} w3,{number / 10}" for number in range(16)]
    graded = tmp_path / "graded.csv"
    graded.write_text("\n".join(["text,label", *lines]))
    model = write_model(tmp_path / "one", labels=1)
    # --task_name and --data_dir of the others are taken back
    settings = importlib.import_module("no_trainer.settings")
    assert settings.ScriptSettings.DEFAULTS["checkpoint_freq"] == 1
    outcome = importlib.import_module("no_trainer.outcome")
    command = ["--train_file", str(graded), "--validation_file", str(graded), "--no-report"]
    command += ["--model_name_or_path", model, "--output_dir", str(tmp_path / "out")]
    assert outcome.run_script(command, "script") == 0
    head = (tmp_path / "out" / "summary.csv").read_text().splitlines()[0]
    assert "eval/pearson,eval/spearmanr,eval/loss" in head


def test_both_sets_of_mnli_are_evaluated(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "mnli"
    folder.mkdir()
    names = ("entailment", "neutral", "contradiction")
    lines = [f"w{number}\tw1 w2\t{names[number % 3]}" for number in range(8)]
    for split in ("train", "dev_matched", "dev_mismatched"):
        (folder / f"{split}.tsv").write_text("\n".join(["premise\thypothesis\tlabel", *lines]))
    model = write_model(tmp_path / "three", labels=3)
    out = run(
        "out", "--task_name", "mnli", "--data_dir", str(folder), "--model_name_or_path", model,
        "--num_train_epochs", "1",
    )  # fmt: skip
    head, row = (out / "summary.csv").read_text().splitlines()
    found = dict(zip(head.split(","), row.split(","), strict=True))
    assert found["eval/accuracy"] == found["eval/accuracy_mm"]


def test_the_model_goes_to_the_hub_and_the_token_nowhere_else(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    told: list[Any] = []

    class Api:
        def __init__(self, token: str | None) -> None:
            told.append(token)

        def create_repo(self, name: str, exist_ok: bool) -> Any:
            told.append(name)
            return type("Url", (), {"repo_id": f"me/{name}"})

        def upload_folder(self, repo_id: str, folder_path: Path) -> None:
            told.extend([repo_id, (folder_path / "model.safetensors").exists()])

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    flags = ("--push_to_hub", "--hub_model_id", "bert-sst2", "--hub_token", "hf_secret")
    folder = run("out", "--num_train_epochs", "1", *flags)
    assert told == ["hf_secret", "bert-sst2", "me/bert-sst2", True]
    texts = [path for path in folder.rglob("*") if path.suffix in (".json", ".yaml", ".jsonl")]
    assert len(texts) > 5 and not any("hf_secret" in path.read_text() for path in texts)


def test_an_upload_without_a_network_is_told_in_a_line(
    scripts: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class NetworkError(Exception):
        """As httpx has them: no OSError."""

    def unreachable(*args: Any, **kwargs: Any) -> Any:
        raise NetworkError("Name or service not known")

    def trained(argv: Any, script: Any, prog: str) -> int:
        script.uploads, script.hub_model_id = True, "me/bert"
        return 0

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", unreachable)
    monkeypatch.setattr(scripts, "train", trained)
    assert scripts.run_script([], "script") == 2
    told = capsys.readouterr().err.splitlines()
    assert told == ["error: --push-to-hub me/bert: Name or service not known"]


WRONG = {
    "unknown task": (["--task_name", "mrp"], "GLUE has no such task; did you mean 'mrpc'"),
    "column": (["--task_name", "mrpc"], "train.tsv has no column 'sentence1', which task mrpc ne"),
    "labels": (["--task_name", "sst2", "--data_dir", "LABELS"], "label '2' is none of task sst2"),
    "no model": (["--model_name_or_path", "EMPTY"], "the folder holds no model: no config.json"),
    "classes": (["--model_name_or_path", "THREE"], "has 3 outputs, task sst2 needs 2"),
    "pattern": (["--do_prune", "--pruning_pattern", "4by1"], "--pruning-pattern must be NxM"),
    "all of M": (["--do_prune", "--pruning_pattern", "4:4"], "N of each M and fewer than all"),
    "sparsity": (
        ["--do_prune", "--pruning_pattern", "2:4", "--target_sparsity", "0.9"],
        "--target-sparsity must be at most 0.5 with 2:4, found 0.9",
    ),
    "type": (["--do_prune", "--pruning_type", "random"], "argument --pruning-type: invalid choi"),
    "no time": (
        ["--do_prune", "--sparsity_warm_epochs", "2", "--cooldown_epochs", "2"],
        "--sparsity-warm-epochs 2 and --cooldown-epochs 2 leave nothing of 3 epochs",
    ),
    "frequency": (["--do_prune", "--pruning_frequency", "0"], "--pruning-frequency must be at le"),
    "long recipe": (
        ["--recipe", "long.yaml", "--num_train_epochs", "3"],
        "takes 9 epochs, --num-train-epochs 3 ends before",
    ),
    "recipe and flags": (["--recipe", "long.yaml", "--do_prune"], "or --do-prune, not both"),
    "no match": (["--recipe", "nothing.yaml"], "GMPruningModifier"),
    "long texts": (["--max_length", "600"], "--max-length 600: the model takes at most 512 token"),
    "teacher": (
        ["--distill_loss_weight", "1", "--teacher_model_name_or_path", "WIDE"],
        "its hidden states are 24 wide, those of the model 16",
    ),
    "flag": (["--pruning_patern", "4x1"], "did you mean '--pruning-pattern'"),
    "checkpoint": (["--resume_from_checkpoint", "none.pth"], "none.pth: no such file or folder"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_told_in_a_line(
    scripts: Any, tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, message = WRONG[case]
    model, data = write_model(tmp_path / "bert"), write_texts(tmp_path / "data")
    (tmp_path / "EMPTY").mkdir()
    write_model(tmp_path / "THREE", labels=3)
    write_model(tmp_path / "WIDE", width=24)
    write_texts(tmp_path / "LABELS")
    (tmp_path / "LABELS" / "dev.tsv").write_text("sentence\tlabel\nw1\t2\n")
    pruner = (
        "modifiers:\n  - !GMPruningModifier {params: [PARAMS], init_sparsity: 0.0, "
        "final_sparsity: 0.5, start_epoch: 0.0, end_epoch: END, update_frequency: 0.5}\n"
    )
    every = pruner.replace("PARAMS", "__ALL_PRUNABLE__")
    (tmp_path / "long.yaml").write_text(every.replace("END", "9.0"))
    (tmp_path / "nothing.yaml").write_text(
        pruner.replace("PARAMS", "'re:conv.*'").replace("END", "2.0")
    )
    given = [str(tmp_path / flag) if (tmp_path / flag).exists() else flag for flag in flags]
    command = ["--task_name", "sst2", "--data_dir", data, "--model_name_or_path", model]
    command += ["--output_dir", str(tmp_path / "out"), *given]

    def main() -> None:
        try:
            assert scripts.run_script(command, "script") == 2
        except SystemExit as stop:  # as argparse ends
            assert stop.code == 2

    assert run_reported(main) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    assert len(lines) == 1 and message in lines[0]
    assert not (tmp_path / "out" / "run.json").exists()


def test_one_process_where_two_were_meant_is_told(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in {"ACCELERATE_USE_CPU": "True", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    run("out", "--num_train_epochs", "1")
    assert "accelerate launch starts one process on a CPU" in caplog.text


def _launch(folder: Path, processes: int, flags: list[str]) -> Path:
    # on a CPU accelerate's own launcher never starts more than one process, but for MPI
    several = ["torch.distributed.run", f"--nproc-per-node={processes}", "--standalone"]
    one = ["accelerate.commands.launch", "--cpu", "--num_machines=1", "--mixed_precision=no"]
    launcher = several if processes > 1 else [*one, "--num_processes=1", "--dynamo_backend=no"]
    command = [sys.executable, "-m", *launcher, str(FOLDER / "run_glue_no_trainer.py")]
    out = folder / f"of_{processes}"
    batch = ["--per_device_train_batch_size", str(8 // processes), "--output_dir", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *flags, *batch], capture_output=True, text=True, timeout=600, env=environment
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.usefixtures("warm")
@pytest.mark.slow
@pytest.mark.parametrize("weight", ["0", "2"])
def test_two_processes_equal_one(tmp_path: Path, weight: str) -> None:
    # a mean over tokens is one of processes only where all have as many
    flags = ["--task_name", "sst2", "--data_dir", write_texts(tmp_path / "data", lengths=1)]
    flags += ["--model_name_or_path", write_model(tmp_path / "bert", dropout=0.0), "--no-report"]
    flags += ["--teacher_model_name_or_path", write_model(tmp_path / "teacher", seed=4)]
    flags += ["--do_prune", "--pruning_pattern", "4x1", "--target_sparsity", "0.75"]
    flags += ["--num_train_epochs", "2", "--learning_rate", "1e-3", "--cooldown_epochs", "0.5"]
    flags += ["--distill_loss_weight", weight]
    one, two = (_launch(tmp_path, count, flags) for count in (1, 2))
    masks, others = (read_masks(folder / "masks.safetensors") for folder in (one, two))
    assert masks and all(torch.equal(masks[name], others[name]) for name in masks)
    before, after = weights(one), weights(two)
    for name, value in before.items():
        torch.testing.assert_close(value, after[name], rtol=1e-4, atol=2e-5)
    told = [
        (folder / "summary.csv").read_text().splitlines()[-1].split(",") for folder in (one, two)
    ]
    assert told[0][2] == told[1][2]  # the accuracy
