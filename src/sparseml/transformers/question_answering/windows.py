"""Texts that are longer than a model can read, as windows that overlap."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
from numpy.typing import NDArray

from sparseml.run.errors import RunError
from sparseml.transformers.question_answering.reading import Question

_AT_ONCE = 1000  # questions that are held as Python numbers, which take ten times the memory


@dataclass(frozen=True)
class Window:
    """A question with a part of its text, as tokens.

    :param question: its number
    :param inputs: name → tokens of the model's inputs, not padded
    :param spans: ``[tokens, 2]``, where in the text each token begins and ends; -1 for those that
        are not of the text
    :param null: the token that stands for "no answer"
    :param start: the token at which the first expected answer begins, ``null`` if it is not wholly
        in the window
    :param end: the one that it ends with
    """

    question: int
    inputs: dict[str, NDArray[numpy.int32]]
    spans: NDArray[numpy.int32]
    null: int
    start: int
    end: int


class Windows(Sequence[dict[str, Any]]):
    """The windows over the texts of questions, as a data set whose items a model can be fed with.

    :param questions: whose windows follow each other
    :param tokenizer: of the fast kind, which knows where its tokens come from
    :param max_length: most tokens of a window, those of the question included
    :param stride: tokens by which windows of a text overlap
    :raises RunError: for a tokenizer of another kind, and where a question leaves too little room
    """

    def __init__(
        self, questions: Sequence[Question], tokenizer: Any, max_length: int = 384,
        stride: int = 128,
    ) -> None:  # fmt: skip
        if not getattr(tokenizer, "is_fast", False):
            raise RunError(
                f"{type(tokenizer).__name__} does not tell where its tokens come from; question "
                "answering needs a fast tokenizer (tokenizer.json)"
            )
        self.questions = questions
        _require_room(questions, tokenizer, max_length, stride)
        self.windows: list[Window] = []
        for first in range(0, len(questions), _AT_ONCE):
            some = questions[first : first + _AT_ONCE]
            encoded = tokenizer(
                [one.text for one in some],
                [one.context for one in some],
                truncation="only_second",
                max_length=max_length,
                stride=stride,
                return_overflowing_tokens=True,
                return_offsets_mapping=True,
            )
            self.windows.extend(_windows(encoded, some, first, tokenizer))

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: Any) -> Any:
        """Return the inputs of a window with ``start_positions`` and ``end_positions``."""
        window = self.windows[index]
        return {**window.inputs, "start_positions": window.start, "end_positions": window.end}


def _windows(
    encoded: Any, questions: Sequence[Question], first: int, tokenizer: Any
) -> Iterator[Window]:
    owners, offsets = encoded["overflow_to_sample_mapping"], encoded["offset_mapping"]
    names = [name for name in encoded if name in tokenizer.model_input_names]
    for number, owner in enumerate(owners):
        of_text = numpy.array([part == 1 for part in encoded.sequence_ids(number)])
        spans = numpy.array(offsets[number], dtype=numpy.int32)
        spans[~of_text] = -1
        tokens = encoded["input_ids"][number]
        null = tokens.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in tokens else 0
        start, end = _answer(questions[owner], spans, of_text, null)
        inputs = {name: numpy.array(encoded[name][number], dtype=numpy.int32) for name in names}
        yield Window(first + owner, inputs, spans, null, start, end)


def _answer(
    question: Question, spans: NDArray[numpy.int32], of_text: NDArray[numpy.bool_], null: int
) -> tuple[int, int]:
    """Return the first and last token of the first expected answer."""
    (places,) = numpy.nonzero(of_text)
    if question.is_impossible or not len(places):
        return null, null
    text, begin = question.answers[0]
    finish, shown = begin + len(text), spans[places]
    if begin < shown[0, 0] or finish > shown[-1, 1]:
        return null, null
    first = int(numpy.searchsorted(shown[:, 0], begin, side="right")) - 1
    last = int(numpy.searchsorted(shown[:, 1], finish, side="left"))
    return int(places[first]), int(places[last])


def _require_room(
    questions: Sequence[Question], tokenizer: Any, max_length: int, stride: int
) -> None:
    longest, added = 0, tokenizer.num_special_tokens_to_add(pair=True)
    for first in range(0, len(questions), _AT_ONCE):
        texts = [one.text for one in questions[first : first + _AT_ONCE]]
        tokens = tokenizer(texts, add_special_tokens=False)["input_ids"]
        longest = max(longest, *map(len, tokens))
    room = max_length - added - longest
    if not 0 <= stride < room:
        raise RunError(
            f"windows of {max_length} tokens leave {max(room, 0)} to the text beside the longest "
            f"question ({longest}); they must overlap by fewer, found a stride of {stride}"
        )
