"""Translate with a trained model and score the translations.

    python integrations/fairseq/run_test.py output/m30k/checkpoint_last.pt --data data/m30k

``fairseq-generate`` searches by beams, and sacreBLEU compares the translations with the text that
``prepare.py`` was given. What else stands on the command line, such as --cpu and --fp16, goes to
``fairseq-generate``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import sacrebleu.metrics
from torch import Tensor
from translation.corpus import SPLITS, Prepared, read_lines
from translation.subwords import MARKS

from sparseml.fairseq import USER_DIR
from sparseml.fairseq.reading import quiet, read_checkpoint
from sparseml.run.errors import RunError, run_reported
from sparseml.run.files import atomic_text


def parser() -> argparse.ArgumentParser:
    """Return the parser of the flags that are our own."""
    found = argparse.ArgumentParser(
        description="Translate with a trained model and score the translations.",
        epilog="Other flags, such as --cpu and --fp16, go to fairseq-generate.",
        allow_abbrev=False,
    )
    found.add_argument("checkpoint", type=Path, help="of fairseq-train")
    found.add_argument("--data", required=True, type=Path, help="the folder of prepare.py")
    found.add_argument("--split", choices=SPLITS, default="test")
    found.add_argument("--beam", type=int, default=4, help="translations in view [4]")
    found.add_argument("--lenpen", type=float, default=1.0, help="below 1 favours short ones [1]")
    found.add_argument("--lowercase", action="store_true", help="score without regard to case")
    found.add_argument(
        "--output", type=Path, metavar="FILE", help="for the translations, a line each"
    )
    return found


def test(args: argparse.Namespace, further: Sequence[str]) -> None:
    """Translate, score, and say how sparse the model is.

    :raises RunError: for files that do not fit together
    """
    prepared = Prepared.read(args.data)
    with quiet():
        weights = read_checkpoint(args.checkpoint, str(args.checkpoint))["model"]
    references = list(read_lines(args.data / "text" / f"{args.split}.{prepared.languages[1]}"))
    found = _translate(args, prepared, further)
    if len(found) != len(references):
        raise RunError(
            f"fairseq-generate has translated {len(found)} of {len(references)} sentences of "
            f"{args.split}"
        )
    if args.output is not None:
        with atomic_text(args.output) as file:
            file.writelines(f"{line}\n" for line in found)
    metric = sacrebleu.metrics.BLEU(lowercase=args.lowercase)
    print(metric.corpus_score(found, [references]))
    print(metric.get_signature())
    print(sparsity(weights))


def sparsity(weights: dict[str, Tensor]) -> str:
    """Return, in words, how many weights are zero; a tensor of two names counts once."""
    distinct = {weight.data_ptr(): (name, weight) for name, weight in weights.items()}
    matrices = [
        weight for name, weight in distinct.values() if ".layers." in name and weight.ndim == 2
    ]
    return (
        f"zeros: {_zeros(matrices)} in the {len(matrices)} matrices of the layers, "
        f"{_zeros([weight for _, weight in distinct.values()])} in all"
    )


def _zeros(weights: Sequence[Tensor]) -> str:
    zeros, count = (sum(map(int, each)) for each in (
        ((weight == 0).sum() for weight in weights), (weight.numel() for weight in weights)
    ))  # fmt: skip
    return f"{zeros / max(count, 1):.2%} of {count:,}"


def _translate(args: argparse.Namespace, prepared: Prepared, further: Sequence[str]) -> list[str]:
    """Return the translations in the order of the sentences."""
    with TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "fairseq_cli.generate", str(args.data),
            "--user-dir", str(USER_DIR), "--path", str(args.checkpoint),
            "--gen-subset", args.split, "--beam", str(args.beam), "--lenpen", str(args.lenpen),
            "--required-batch-size-multiple", "1",  # or fairseq leaves out the last few
            "--post-process", MARKS[prepared.bpe], "--results-path", folder, *further,
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
            raise RunError(f"fairseq-generate has failed with status {done.returncode}: {last}")
        found = {}
        for line in read_lines(Path(folder) / f"generate-{args.split}.txt"):
            if line.startswith("D-"):
                name, _, text = (*line.split(" ", 2), "")[:3]
                found[int(name.removeprefix("D-"))] = text
    return [found[number] for number in sorted(found)]


def main(words: Sequence[str] | None = None) -> int:
    """Read the flags and test the model; return the exit status."""
    args, further = parser().parse_known_args(words)
    return run_reported(lambda: test(args, further))


if __name__ == "__main__":
    sys.exit(main())
