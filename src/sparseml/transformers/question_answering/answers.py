"""Answers in words, from what a model gives for the tokens of every window."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy
from numpy.typing import NDArray

from sparseml.transformers.question_answering.windows import Window, Windows

Logits = NDArray[numpy.float32]


@dataclass(frozen=True)
class AnswerRules:
    """What counts as an answer.

    :param n_best: how many starts and ends of a window are looked at, and answers kept
    :param max_tokens: of an answer
    :param may_be_null: whether a question may have no answer
    :param null_threshold: how much more likely that must be than the best answer, as a difference
        of logits
    """

    n_best: int = 20
    max_tokens: int = 30
    may_be_null: bool = False
    null_threshold: float = 0.0


class _Candidate(NamedTuple):
    score: float
    text: str
    start_logit: float
    end_logit: float


def best_answers(
    windows: Windows, start_logits: Logits, end_logits: Logits, rules: AnswerRules
) -> tuple[dict[str, str], dict[str, list[dict[str, Any]]]]:
    """Return the best answer to every question, and the ones that come next.

    :param start_logits: ``[windows, tokens]``, how likely each token begins the answer; what is
        beyond the tokens of a window is padding
    :param end_logits: how likely it ends it
    :return: id of the question → answer, empty for none; id → its ``n_best`` answers, each with
        ``text``, ``probability`` among these, ``start_logit`` and ``end_logit``
    :raises ValueError: if there are not as many rows as windows
    """
    if not len(windows) == len(start_logits) == len(end_logits):
        raise ValueError(
            f"{len(windows)} windows need as many rows of logits, found {len(start_logits)} and "
            f"{len(end_logits)}"
        )
    found: list[list[_Candidate]] = [[] for _ in windows.questions]
    nulls: list[_Candidate | None] = [None] * len(found)
    for window, starts, ends in zip(windows.windows, start_logits, end_logits, strict=True):
        number = window.question
        context = windows.questions[number].context
        found[number].extend(_candidates(window, context, starts, ends, rules))
        null = _candidate("", float(starts[window.null]), float(ends[window.null]))
        # the question has no answer only as far as none of its windows says that it has one
        nulls[number] = min(nulls[number] or null, null)
    answers, ranked = {}, {}
    for question, candidates, none in zip(windows.questions, found, nulls, strict=True):
        best = sorted(candidates, reverse=True)[: rules.n_best]
        answers[question.id] = best[0].text if best else ""
        if rules.may_be_null and none is not None:
            if best and none.score - best[0].score > rules.null_threshold:
                answers[question.id] = ""
            best = sorted([*best, none], reverse=True)
        ranked[question.id] = _with_probabilities(best)
    return answers, ranked


def _candidates(
    window: Window, context: str, starts: Logits, ends: Logits, rules: AnswerRules
) -> Iterator[_Candidate]:
    (places,) = numpy.nonzero(window.spans[:, 0] >= 0)
    first = places[numpy.argsort(-starts[places], kind="stable")[: rules.n_best]]
    last = places[numpy.argsort(-ends[places], kind="stable")[: rules.n_best]]
    length = last[None, :] - first[:, None] + 1
    for row, column in zip(
        *numpy.nonzero((length > 0) & (length <= rules.max_tokens)), strict=True
    ):
        start, end = first[row], last[column]
        text = context[window.spans[start, 0] : window.spans[end, 1]]
        yield _candidate(text, float(starts[start]), float(ends[end]))


def _candidate(text: str, start: float, end: float) -> _Candidate:
    return _Candidate(start + end, text, start, end)


def _with_probabilities(candidates: list[_Candidate]) -> list[dict[str, Any]]:
    if not candidates:
        return []
    highest = max(one.score for one in candidates)
    odds = [math.exp(one.score - highest) for one in candidates]
    return [
        {
            "text": one.text,
            "probability": value / sum(odds),
            "start_logit": one.start_logit,
            "end_logit": one.end_logit,
        }
        for one, value in zip(candidates, odds, strict=True)
    ]
