"""See SRP at work in a few minutes: a Transformer learns to reverse sentences, and gets smaller.

    python research/srp/demo.py

With a folder of Multi30k (``--multi30k data/multi30k``) it translates from German instead, which is
no better than its few epochs. Runs and checkpoints lie in ``--output``.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from speed import measured

from sparseml.run.errors import run_reported

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "research/srp"
COUNTS = {"train": 5000, "valid": 100, "test": 300}
WORDS, LONGEST = 20, 8
SIDES = "--{0}-layers 2 --{0}-embed-dim 128 --{0}-ffn-embed-dim 512 --{0}-attention-heads 4 "
COMMON = (
    f"--task SRPtranslation --arch srp {SIDES.format('encoder')}{SIDES.format('decoder')}"
    "--share-decoder-input-output-embed --dropout 0.0 --criterion srp --label-smoothing 0.1 "
    "--optimizer srp_adam --adam-betas (0.9,0.98) --lr-scheduler inverse_sqrt "
    "--max-tokens 800 --cpu --seed 1 --no-epoch-checkpoints --num-workers 0 --no-progress-bar"
)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, shrink, fine-tune, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--output", type=Path, default=ROOT / "output/srp-demo", help="replaced [output/srp-demo]")
    add("--multi30k", type=Path, metavar="FOLDER", help="with train.tsv.gz and others")
    add("--rate", type=float, default=0.2, help="share of the parameters to keep [0.2]")
    add("--epochs", type=int, nargs=3, default=[12, 3, 8], metavar="N",
        help="dense, of each stage, of fine-tuning [12 3 8]")  # fmt: skip
    args = parser.parse_args(argv)
    shutil.rmtree(args.output, ignore_errors=True)
    args.output.mkdir(parents=True)
    began = time.monotonic()
    data = _translations(args) if args.multi30k else _reversals(args.output)
    dense, stage, tuning = args.epochs
    train = [str(data), *COMMON.split()]
    shrink = f"--srp --compression-rate {args.rate} --weighted-layernorm --pruning-period {stage}"
    steps = {
        "dense": ("train", f"--lr 2e-3 --warmup-updates 200 --max-epoch {dense}"),
        "stage1": ("pruning", f"--pruning-stage 1 {shrink} --max-epoch {stage}"),
        "stage2": ("pruning", f"--pruning-stage 2 {shrink} --max-epoch {stage}"),
        "tuned": ("finetuning", f"--max-epoch {tuning}"),
    }
    before: list[str] = []
    for name, (script, flags) in steps.items():
        folder = args.output / name
        print(f"{name} ...", flush=True)
        rates = [] if name == "dense" else ["--lr", "1e-3", "--warmup-updates", "50"]
        _call([script, *train, *flags.split(), *rates, *before, "--save-dir", str(folder)], folder)
        before = ["--pretrained-model", str(folder / "checkpoint_last.pt")]
    models = {name: args.output / name / "checkpoint_last.pt" for name in ("dense", "tuned")}
    pieces = ["--remove-bpe", "sentencepiece"] if args.multi30k else []
    rows = [
        _tested(data, path, pieces) | measured(data, models["dense"], path)
        for path in models.values()
    ]
    print(table(rows, args.rate))
    print(f"{time.monotonic() - began:.0f} seconds; checkpoints: {args.output}")


def table(rows: Sequence[dict[str, float]], rate: float) -> str:
    """Return what was found of both models."""
    lines = [f"{'':<16}{'parameters':>11}{'BLEU':>7}{'right':>8}{'tokens/s':>10}{'encoder':>9}"]
    for name, row in zip(("dense", f"shrunk to {rate:g}"), rows, strict=True):
        lines.append(
            f"{name:<16}{row['parameters']:>11,}{row['bleu']:>7.1f}{row['right']:>8.1%}"
            f"{row['tokens_per_second']:>10,}{row['encoder']:>8.2f}x"
        )
    return "\n".join(lines)


def _tested(data: Path, weights: Path, pieces: Sequence[str]) -> dict[str, float]:
    """Return BLEU, and the share of sentences that are right word by word."""
    log = weights.with_name("generate")
    flags = ["--path", str(weights), "--beam", "5", "--batch-size", "100", "--cpu"]
    flags += [*pieces, "--scoring", "sacrebleu"]
    text = _call(["generate", str(data), *flags, "--num-workers", "0"], log)
    told, wanted = (
        dict(re.findall(pattern, text, re.MULTILINE))
        for pattern in (r"^D-(\d+)\t\S+\t(.*)$", r"^T-(\d+)\t(.*)$")
    )
    found = re.search(r"BLEU\S* = ([\d.]+)", text)
    right = sum(told[number] == line for number, line in wanted.items()) / len(wanted)
    return {"bleu": float(found[1]) if found else float("nan"), "right": right}


def _reversals(output: Path) -> Path:
    """Return a binarised corpus of sentences, and the same backwards."""
    texts, data = output / "texts", output / "data"
    texts.mkdir()
    draw = random.Random(1)

    def sentences(count: int) -> Iterator[list[str]]:
        for _ in range(count):
            yield [f"w{draw.randrange(WORDS)}" for _ in range(draw.randint(3, LONGEST))]

    for split, count in COUNTS.items():
        lines = list(sentences(count))
        for language, texts_of in {"in": lines, "out": [line[::-1] for line in lines]}.items():
            text = "".join(" ".join(words) + "\n" for words in texts_of)
            (texts / f"{split}.{language}").write_text(text)
    prefs = [flag for split in COUNTS for flag in (f"--{split}pref", str(texts / split))]
    command = ["-m", "fairseq_cli.preprocess", "-s", "in", "-t", "out", *prefs]
    _run([*command, "--destdir", str(data)], output / "preprocess.log")
    return data


def _translations(args: Any) -> Path:
    data, files = args.output / "data", {"valid": "val", "test": "test_2016_flickr"}
    command = [str(ROOT / "integrations/fairseq/prepare.py"), str(data), "--vocab-size", "2000"]
    command += ["--source-lang", "de", "--target-lang", "en", "--pairs", "4000"]
    for split in COUNTS:
        command += [f"--{split}", str(args.multi30k / f"{files.get(split, split)}.tsv.gz")]
    _run(command, args.output / "prepare.log")
    return data


def _call(words: Sequence[str], folder: Path) -> str:
    script, *flags = words
    return _run([str(HERE / f"{script}.py"), *flags], folder.with_suffix(".log"))


def _run(words: Sequence[str], log: Path) -> str:
    """Run a script of Python, and return what it has told; end with it if it fails."""
    command = [sys.executable, "-W", "ignore", *words]
    with log.open("wb") as out:
        status = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False)
    if status.returncode:
        raise SystemExit(f"{words[0]} has failed, see {log}")
    return log.read_text(encoding="utf-8")


if __name__ == "__main__":
    sys.exit(run_reported(main))
