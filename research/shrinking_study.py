"""Shrink a translator of Multi30k by SRP, against small ones trained from scratch for as long.

    python research/shrinking_study.py --data data/multi30k --dense checkpoint_last.pt

The fairseq Transformer of 2 + 2 layers of 128 that ``translation_study.py`` trains for 8 epochs is
shrunk to a share of its parameters in 8 more: its stream in two, channels of heads and neurons in
two, four of fine-tuning. A dense model of about that size is trained from random weights for 16.
All is done with the same batches and learning rates. BLEU is of the 1,000 test sentences (beam 5,
the last epoch); speed is measured on one core in turns with the dense model, batch by batch.
The repository has the results (``research/results/shrinking.md``); ``--again`` finds them anew.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from srp.speed import measured
from study_results import Row, StudyResults, add_flags, settle
from study_tasks import PAGE
from translation_study import EPOCHS, TRAIN, call, score, user_dir

from sparseml.run.errors import run_reported

NAME = "shrinking"
MODEL = "multi30k"
DENSE, SRP, SMALL = "dense", "srp", "small"
# share of the parameters -> width and neurons of a dense model of about that size
SIZES = {0.2: (48, 96), 0.5: (84, 168), 0.1: (28, 56)}
RECIPE = """modifiers:
  - !EpochRangeModifier {{start_epoch: 0.0, end_epoch: {epochs}}}
  - !SRPPruningModifier
      compression_rate: {rate}
      stage: 1
      start_epoch: 0.0
      end_epoch: 2.0
      num_scoring_batches: 8
  - !SRPPruningModifier
      compression_rate: {rate}
      stage: 2
      start_epoch: 2.0
      end_epoch: 4.0
      num_scoring_batches: 8
"""
GENERATE = """
    --cpu --beam 5 --lenpen 1 --batch-size 128 --remove-bpe sentencepiece --scoring sacrebleu
"""
SETTINGS = {
    "epochs": EPOCHS,
    "train": TRAIN.split(),
    "generate": GENERATE.split(),
    "recipe": RECIPE,
    "sizes": {str(rate): size for rate, size in SIZES.items()},
}


def main() -> None:
    """Do what is left to do, then show it."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--data", type=Path, metavar="FOLDER", help="of binarised sentences, see the README")
    add("--dense", type=Path, metavar="FILE", help="checkpoint to begin with [trained first]")
    add("--rates", type=float, nargs="+", choices=list(SIZES), default=list(SIZES))
    add("--methods", nargs="+", choices=[SRP, SMALL], default=[SRP, SMALL])
    add("--seed", type=int, default=1)
    add_flags(parser, "shrinking_study")
    args = parser.parse_args()
    settle(args)
    results = StudyResults.of(NAME, args, SETTINGS)
    jobs = [(DENSE, 1.0), *((method, rate) for rate in args.rates for method in args.methods)]
    left = [job for job in jobs if results.missing(MODEL, job[0], args.seed, [_gone(job[1])])]
    if not args.render:
        results.tell(len(jobs), len(left))
        if left and (args.data is None or not (args.data / "dict.en.txt").exists()):
            raise SystemExit(f"--data must be a folder that has dict.en.txt, found {args.data}")
        for job in left:
            run(args, results, *job)
            render(results)
    render(results)


def run(args: Namespace, results: StudyResults, method: str, rate: float) -> None:
    """Train, translate the test sentences, measure, and keep what was found."""
    print(f"{method} at {rate:g}, seed {args.seed}", flush=True)
    folder = args.runs / f"{method}_{rate:g}_{args.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    dense = args.dense or args.runs / f"{DENSE}_1_{args.seed}" / "checkpoint_last.pt"
    weights = folder / "checkpoint_last.pt"
    epochs = EPOCHS * (2 if method == SMALL else 1)
    command = ["fairseq-train", str(args.data.absolute()), *user_dir(), *TRAIN.split()]
    command += ["--seed", str(args.seed), "--max-epoch", str(epochs), "--save-dir", str(folder)]
    if method == SRP:
        recipe = folder / "recipe.yaml"
        recipe.write_text(RECIPE.format(epochs=float(EPOCHS), rate=rate))
        command += ["--sparseml-recipe", str(recipe), "--finetune-from-model", str(dense)]
    elif method == SMALL:
        for side in ("encoder", "decoder"):
            width, neurons = map(str, SIZES[rate])
            command += [f"--{side}-embed-dim", width, f"--{side}-ffn-embed-dim", neurons]
    if method == DENSE and args.dense:
        weights = dense
    else:
        call(command, folder / "train.log")
    log = folder / "test.log"
    command = ["fairseq-generate", str(args.data.absolute()), *user_dir(), "--path", str(weights)]
    call([*command, *GENERATE.split()], log)
    row = {"model": MODEL, "method": method, "seed": args.seed, "sparsity": _gone(rate)}
    results.add(row | score(log) | measured(args.data, dense, weights))


def _gone(rate: float) -> float:
    return round(1.0 - rate, 6)


def render(results: StudyResults) -> None:
    """Write the table; that of the repository also into the page of the studies."""
    if rows := results.rows():
        results.publish(table(rows), PAGE)


def table(rows: Sequence[Row]) -> str:
    """Return BLEU, size and speed of each model."""
    lines = [
        "| model | parameters | BLEU | generation | encoder |",
        "|---|---|---|---|---|",
    ]
    found = {(row["method"], row["sparsity"]): row for row in rows}
    lines += _line("dense, 8 epochs", found.get((DENSE, 0.0)))
    for rate in SIZES:
        lines += _line(f"shrunk to {rate:g} in 8 more", found.get((SRP, _gone(rate))))
        lines += _line("dense of about that size, 16", found.get((SMALL, _gone(rate))))
    return "\n".join(lines) + "\n"


def _line(name: str, row: Row | None) -> list[str]:
    if row is None:
        return []
    bleu, speed = f"{row['bleu']:.2f} ± {row['error']:.1f}", f"{row['generation']:.2f} x"
    speed += f" ({row['tokens_per_second']:,} tokens/s)"
    return [f"| {name} | {row['parameters']:,} | {bleu} | {speed} | {row['encoder']:.2f} x |"]


if __name__ == "__main__":
    sys.exit(run_reported(main))
