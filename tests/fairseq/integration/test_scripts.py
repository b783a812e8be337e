"""Preparing a corpus, training on it by fairseq's own command, and testing what was trained."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sacrebleu
import torch

pytestmark = pytest.mark.usefixtures("warm")

Load = Callable[[str], ModuleType]
Flags = Callable[..., list[str]]
SMALL = (
    "--arch transformer --encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 32 "
    "--decoder-embed-dim 32 --encoder-ffn-embed-dim 64 --decoder-ffn-embed-dim 64 "
    "--encoder-attention-heads 2 --decoder-attention-heads 2 --optimizer adam --lr 5e-3 "
    "--max-tokens 200 --cpu --max-epoch 2 --no-epoch-checkpoints --num-workers 0"
)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("bpe", ["sentencepiece", "subword-nmt"])
def test_a_corpus_is_prepared_and_a_model_of_it_tested(
    script: Load, flags: Flags, texts: Path, tmp_path: Path, bpe: str, capsys: Any
) -> None:
    joint = bpe == "sentencepiece"
    target, kind = tmp_path / "data", "joint" if joint else "separate"
    given = [*flags("tsv"), "--bpe", bpe, "--vocabulary", kind, "--vocab-size", "45"]
    assert script("prepare").main([str(target), *given]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "pairs: 60 train, 8 valid, 10 test" and told[-1] == str(target)
    record = json.loads((target / "prepare.json").read_text())
    assert record["pairs"] == {"train": 60, "valid": 8, "test": 10}
    dictionaries = [(target / f"dict.{language}.txt").read_text() for language in ("en", "de")]
    assert (dictionaries[0] == dictionaries[1]) is joint
    for language in ("en", "de"):
        text = (texts / f"test.{language}").read_text()
        assert (target / "text" / f"test.{language}").read_text() == text

    share = ["--share-all-embeddings"] if joint else []
    words = ["fairseq_cli.train", str(target), *SMALL.split(), *share]
    command = [sys.executable, "-W", "ignore", "-m", *words, "--save-dir", str(tmp_path / "run")]
    subprocess.run(command, check=True, capture_output=True)
    checkpoint = tmp_path / "run/checkpoint_last.pt"
    content = torch.load(checkpoint, weights_only=False)
    content["model"]["encoder.layers.0.fc1.weight"][:32] = 0.0  # half of 64 x 32
    torch.save(content, checkpoint)

    out = tmp_path / "test.de"
    flags_of_test = [str(checkpoint), "--data", str(target), "--beam", "2", "--lenpen", "0.6"]
    status = script("run_test").main([*flags_of_test, "--output", str(out), "--cpu"])
    assert status == 0
    bleu, signature, zeros = capsys.readouterr().out.splitlines()
    found = out.read_text().splitlines()
    assert len(found) == 10 and not any("▁" in line or "@@" in line for line in found)
    references = (texts / "test.de").read_text().splitlines()
    own = sacrebleu.corpus_bleu(found, [references])
    assert bleu == str(own) and "case:mixed" in signature
    weights = 3 * 4 * 32 * 32 + 2 * 2 * 64 * 32
    assert zeros.startswith(f"zeros: {1024 / weights:.2%} of {weights:,} in the 16 matrices")
    distinct = {tensor.data_ptr(): tensor.numel() for tensor in content["model"].values()}
    assert zeros.endswith(f" of {sum(distinct.values()):,} in all")


@pytest.mark.slow
def test_two_texts_are_the_same_as_a_table(
    script: Load, flags: Flags, texts: Path, tmp_path: Path
) -> None:
    with gzip.open(texts / "train.en.gz", "wb") as packed:
        packed.write((texts / "train.en").read_bytes().replace(b"\n", b"\r\n"))
    pairs = flags("en", "de")
    pairs[pairs.index(str(texts / "train.en"))] += ".gz"
    size = ["--vocab-size", "45"]
    for name, given in (("two", pairs), ("table", flags("tsv"))):
        assert script("prepare").main([str(tmp_path / name), *given, *size]) == 0
    for file in (tmp_path / "table").rglob("*"):
        if file.is_file() and file.name != "preprocess.log":
            same = tmp_path / "two" / file.relative_to(tmp_path / "table")
            if file.name == "bpe.model":  # which also holds its own path
                same, file = same.with_suffix(".vocab"), file.with_suffix(".vocab")
            assert file.read_bytes() == same.read_bytes(), file


def test_what_the_pieces_are_learned_from_is_drawn_by_the_seed(script: Load) -> None:
    drawn, lines = script("translation.subwords").drawn, [f"line {n}" for n in range(50)]
    one, again, other = (list(drawn(lines, 50, 20, seed)) for seed in (1, 1, 2))
    assert one == again != other and len(one) == 20
    assert one == sorted(one, key=lines.index)
    assert list(drawn(lines, 50, None, 1)) == list(drawn(lines, 50, 50, 1)) == lines


@pytest.mark.slow
def test_pairs_that_no_model_learns_from_are_left_out(
    script: Load, flags: Flags, texts: Path, tmp_path: Path, capsys: Any
) -> None:
    with (texts / "train.tsv").open("a") as file:
        file.write(f"\tein Hund\na dog\t{'Hund ' * 90}\n")
    target = tmp_path / "data"
    given = [*flags("tsv"), "--vocab-size", "45", "--max-pieces", "80"]
    assert script("prepare").main([str(target), *given]) == 0
    told = "pairs: 60 train (2 left out: empty, or of over 80 pieces), 8 valid, 10 test"
    assert capsys.readouterr().out.splitlines()[0] == told
    record = json.loads((target / "prepare.json").read_text())
    assert record["pairs"]["train"] == 60
    assert script("prepare").main([str(target), *given]) == 2
    assert f"{target} is there already; --overwrite replaces it" in capsys.readouterr().err
    assert script("prepare").main([str(target), *given, "--overwrite", "--pairs", "30"]) == 0
    assert capsys.readouterr().out.startswith("pairs: 30 train, 8 valid")


def shorten(file: Path) -> None:
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-3]))


WRONG: dict[str, tuple[tuple[str, ...], Callable[[Path], Any], str]] = {
    "unequal": (
        ("en", "de"), lambda folder: shorten(folder / "train.de"),
        "train.en has 60 lines and .*train.de 57, but each line of one must be the translation",
    ),
    "empty table": (
        ("tsv",), lambda folder: (folder / "valid.tsv").write_text("en\tde\n"),
        r"valid.tsv: there are 0 pairs of sentences",
    ),
    "empty texts": (
        ("en", "de"),
        lambda folder: [(folder / f"test.{one}").write_text("") for one in ("en", "de")],
        "test.en and .*test.de: there are 0 pairs of sentences",
    ),
    "missing": (
        ("en", "de"), lambda folder: (folder / "test.de").unlink(),
        "--test: .*test.de: no such file",
    ),
    "columns": (
        ("tsv",), lambda folder: (folder / "valid.tsv").write_text("en\tfr\na\tb\n"),
        "valid.tsv has no column 'de', only en, fr",
    ),
    "a line": (
        ("tsv",), lambda folder: (folder / "valid.tsv").write_text("en\tde\na\tb\na\tb\tc\n"),
        "valid.tsv, line 3: 3 columns, but 2 in the first line",
    ),
    "no text": (
        ("tsv",), lambda folder: (folder / "test.tsv").write_bytes(b"en\tde\n\xff\xfe\t\xff\n"),
        "test.tsv is no text in UTF-8: ",
    ),
    "no table": (("en",), lambda folder: None, "train.en is no .tsv: give two texts, or one table"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_corpus_that_does_not_fit_is_told_in_a_line_and_nothing_is_left(
    script: Load, flags: Flags, texts: Path, tmp_path: Path, case: str, capsys: Any
) -> None:
    endings, spoil, message = WRONG[case]
    spoil(texts)
    before = left_in(tmp_path)
    assert script("prepare").main([str(tmp_path / "data"), *flags(*endings)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and re.search(message, line), line
    assert left_in(tmp_path) == before


def test_too_many_pieces_are_told(script: Load, flags: Flags, tmp_path: Path, capsys: Any) -> None:
    before = left_in(tmp_path)
    given = [*flags("tsv"), "--vocab-size", "5000"]
    assert script("prepare").main([str(tmp_path / "data"), *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --vocab-size 5000: Vocabulary size too high"), line
    assert left_in(tmp_path) == before


def test_what_cannot_be_tested_is_told(script: Load, tmp_path: Path, capsys: Any) -> None:
    main, missing = script("run_test").main, str(tmp_path / "none.pt")
    assert main([missing, "--data", str(tmp_path)]) == 2
    assert f"error: {tmp_path} is no folder that prepare.py has made" in capsys.readouterr().err
    record = {"languages": ["en", "de"], "bpe": "sentencepiece", "vocabulary": "joint"}
    (tmp_path / "prepare.json").write_text(json.dumps({**record, "seed": 1, "pairs": {}}))
    assert main([missing, "--data", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"error: {missing}: no such file\n"
