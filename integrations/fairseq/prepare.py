"""Prepare a corpus of sentences and their translations for fairseq.

    python integrations/fairseq/prepare.py data/m30k --source-lang en --target-lang de \\
        --train train.tsv.gz --valid val.tsv.gz --test test.tsv.gz

Words are cut into pieces by byte pair encoding, and ``fairseq-preprocess`` makes of them what
``fairseq-train`` reads. The folder is whole or absent.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from translation.corpus import SPLITS, Prepared, read_lines, read_pairs
from translation.subwords import MARKS, Encoder, drawn, learn

from sparseml.run.errors import RunError, run_reported


def parser() -> argparse.ArgumentParser:
    """Return the parser of the flags."""
    found = argparse.ArgumentParser(description="Prepare a parallel corpus for fairseq.")
    found.add_argument("folder", type=Path, help="to write to")
    found.add_argument("--source-lang", required=True, metavar="LANG", help="such as en")
    found.add_argument("--target-lang", required=True, metavar="LANG", help="such as de")
    for split in SPLITS:
        found.add_argument(
            f"--{split}", required=True, nargs="+", type=Path, metavar="FILE",
            help="two texts, source and target, or a .tsv with columns of these names; also .gz",
        )  # fmt: skip
    found.add_argument(
        "--pairs", type=int, metavar="N", help="train on the first N pairs only [all]"
    )
    found.add_argument("--bpe", choices=list(MARKS), default="sentencepiece")
    found.add_argument(
        "--vocabulary", choices=["joint", "separate"], default="joint",
        help="one for both languages, which can then share embeddings, or one for each",
    )  # fmt: skip
    found.add_argument(
        "--vocab-size", type=int, default=8000, metavar="N",
        help="pieces, of each vocabulary; with subword-nmt the pairs that are merged [8000]",
    )  # fmt: skip
    found.add_argument(
        "--learn-from", type=int, metavar="N",
        help="learn the pieces from N sentences, drawn by --seed [all]",
    )  # fmt: skip
    found.add_argument(
        "--max-pieces", type=int, default=250, metavar="N",
        help="leave longer sentences out of the training [250]",
    )  # fmt: skip
    found.add_argument("--seed", type=int, default=42, help="[42]")
    found.add_argument("--workers", type=int, default=1, metavar="N", help="of fairseq [1]")
    found.add_argument("--overwrite", action="store_true", help="replace the folder")
    return found


def prepare(args: argparse.Namespace) -> None:
    """Write the folder.

    :raises RunError: for files and settings that do not fit; nothing is left then
    """
    for split in SPLITS:
        files = getattr(args, split)
        if len(files) > 2:
            raise RunError(f"--{split} takes two texts, or one .tsv, found {len(files)} files")
        if missing := [file for file in files if not file.is_file()]:
            raise RunError(f"--{split}: {missing[0]}: no such file")
    if args.source_lang == args.target_lang:
        raise RunError(f"--source-lang and --target-lang are both {args.source_lang}")
    if args.folder.exists() and not args.overwrite:
        raise RunError(f"{args.folder} is there already; --overwrite replaces it")
    args.folder.parent.mkdir(parents=True, exist_ok=True)
    # not in the usual folder for such things, which may lie on another disk
    part = Path(tempfile.mkdtemp(prefix=f".{args.folder.name}.", dir=args.folder.parent))
    try:
        _fill(args, part)
        if args.folder.exists():
            shutil.rmtree(args.folder)
        part.chmod(0o755)
        part.rename(args.folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    print(args.folder)


def _fill(args: argparse.Namespace, folder: Path) -> None:
    languages = (args.source_lang, args.target_lang)
    most = {"train": args.pairs}
    counts = {
        split: _write_text(
            getattr(args, split), folder / "text" / split, languages, most.get(split)
        )
        for split in SPLITS
    }
    encoders = _learn(args, folder, counts["train"])
    kept = {split: _write_pieces(folder, split, encoders, args.max_pieces) for split in SPLITS}
    _run_fairseq(args, folder)
    shutil.rmtree(folder / "pieces")
    Prepared(languages, args.bpe, args.vocabulary, args.seed, kept).write(folder)
    left = counts["train"] - kept["train"]
    told = f" ({left} left out: empty, or of over {args.max_pieces} pieces)" if left else ""
    print(f"pairs: {kept['train']} train{told}, {kept['valid']} valid, {kept['test']} test")
    sizes = [sum(1 for _ in read_lines(folder / f"dict.{one}.txt")) for one in languages]
    print(
        f"pieces: {sizes[0]} {args.source_lang}, {sizes[1]} {args.target_lang}, {args.vocabulary}"
    )


def _write_text(
    files: Sequence[Path], stem: Path, languages: tuple[str, str], most: int | None
) -> int:
    """Write the sentences of both languages, a line each, and return how many there are.

    :param stem: of the files, which end in the languages
    :param most: how many are written; all files are read to their ends, and so checked
    """
    source, target = (stem.with_name(f"{stem.name}.{one}") for one in languages)
    stem.parent.mkdir(exist_ok=True)
    count = 0
    with source.open("w", encoding="utf-8") as left, target.open("w", encoding="utf-8") as right:
        for pair in read_pairs(files, languages):
            if most is None or count < most:
                count += 1
                left.write(f"{pair[0]}\n")
                right.write(f"{pair[1]}\n")
    return count


def _learn(args: argparse.Namespace, folder: Path, count: int) -> dict[str, Encoder]:
    """Return language → what cuts a sentence of it into pieces."""
    languages = (args.source_lang, args.target_lang)
    texts = [folder / "text" / f"train.{one}" for one in languages]
    if args.vocabulary == "joint":
        lines = chain.from_iterable(map(read_lines, texts))
        lines = drawn(lines, 2 * count, args.learn_from, args.seed)
        return dict.fromkeys(languages, learn(args.bpe, lines, args.vocab_size, folder / "bpe"))
    return {
        one: learn(
            args.bpe, drawn(read_lines(text), count, args.learn_from, args.seed),
            args.vocab_size, folder / f"bpe_{one}",
        )
        for one, text in zip(languages, texts, strict=True)
    }  # fmt: skip


def _write_pieces(folder: Path, split: str, encoders: dict[str, Encoder], most: int) -> int:
    """Write the pieces of a split, and return how many pairs there are."""
    count, pieces = 0, folder / "pieces"
    pieces.mkdir(exist_ok=True)
    source, target = encoders
    with (
        (pieces / f"{split}.{source}").open("w", encoding="utf-8") as left,
        (pieces / f"{split}.{target}").open("w", encoding="utf-8") as right,
    ):
        texts = (read_lines(folder / "text" / f"{split}.{one}") for one in encoders)
        for pair in zip(*texts, strict=True):
            one, other = (encoders[name](line) for name, line in zip(encoders, pair, strict=True))
            if split == "train" and not (0 < len(one) <= most and 0 < len(other) <= most):
                continue
            left.write(" ".join(one) + "\n")
            right.write(" ".join(other) + "\n")
            count += 1
    if not count:
        raise RunError(f"--max-pieces {most} leaves no pair of {split}")
    return count


def _run_fairseq(args: argparse.Namespace, folder: Path) -> None:
    """Make the vocabularies, and the files of numbers that fairseq reads."""
    command = [sys.executable, "-m", "fairseq_cli.preprocess"]
    command += ["--source-lang", args.source_lang, "--target-lang", args.target_lang]
    for split in SPLITS:
        command += [f"--{split}pref", str(folder / "pieces" / split)]
    command += ["--destdir", str(folder), "--workers", str(args.workers)]
    command += ["--joined-dictionary"] if args.vocabulary == "joint" else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise RunError(f"fairseq-preprocess has failed with status {done.returncode}: {last}")


def main(words: Sequence[str] | None = None) -> int:
    """Read the flags and prepare the corpus; return the exit status."""
    args = parser().parse_args(words)
    return run_reported(lambda: prepare(args))


if __name__ == "__main__":
    sys.exit(main())
