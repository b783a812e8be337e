"""Pieces of words by byte pair encoding, learned by sentencepiece or by subword-nmt."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from sparseml.run.errors import RunError, one_line

Encoder = Callable[[str], list[str]]

MARKS = {"sentencepiece": "sentencepiece", "subword-nmt": "subword_nmt"}
"""What fairseq's ``--post-process`` calls the pieces of each."""


def learn(kind: str, lines: Iterable[str], size: int, stem: Path) -> Encoder:
    """Learn pieces, write them to a file, and return what cuts a sentence into them.

    :param kind: ``sentencepiece`` or ``subword-nmt``
    :param size: how many pieces there are; of ``subword-nmt`` how many pairs are merged
    :param stem: the file, without its ending
    :raises RunError: if the text does not have so many
    """
    return (_sentencepiece if kind == "sentencepiece" else _subword_nmt)(lines, size, stem)


def drawn(lines: Iterable[str], count: int, most: int | None, seed: int) -> Iterator[str]:
    """Yield lines drawn by lot, in their order; all of them unless there are more than ``most``.

    :param count: how many there are
    """
    if most is None or most >= count:
        yield from lines
        return
    chosen = set(random.Random(seed).sample(range(count), most))
    yield from (line for number, line in enumerate(lines) if number in chosen)


def _sentencepiece(lines: Iterable[str], size: int, stem: Path) -> Encoder:
    import sentencepiece

    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(lines), model_prefix=str(stem), vocab_size=size,
            model_type="bpe", character_coverage=1.0, num_threads=1, minloglevel=2,
        )  # fmt: skip
    except (RuntimeError, OSError) as error:
        # after the place in its source and the check that has failed it says what to do
        reason = one_line(error).rpartition("] ")[2]
        raise RunError(f"--vocab-size {size}: {reason}") from error
    model = sentencepiece.SentencePieceProcessor(model_file=f"{stem}.model")
    return lambda line: list(model.encode(line, out_type=str))


def _subword_nmt(lines: Iterable[str], size: int, stem: Path) -> Encoder:
    from subword_nmt.apply_bpe import BPE
    from subword_nmt.learn_bpe import learn_bpe

    codes = stem.with_suffix(".codes")
    with codes.open("w", encoding="utf-8") as file, contextlib.redirect_stderr(io.StringIO()):
        learn_bpe(lines, file, size)
    with codes.open(encoding="utf-8") as file:
        bpe = BPE(file)
    return lambda line: bpe.process_line(line).split()
