"""Questions about texts: files of SQuAD, windows over long texts, answers from logits, scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparseml.lazy import lazy_names

if TYPE_CHECKING:
    from sparseml.transformers.question_answering.answers import AnswerRules, best_answers
    from sparseml.transformers.question_answering.reader import Reader, load_reader
    from sparseml.transformers.question_answering.reading import Question, read_squad
    from sparseml.transformers.question_answering.scores import (
        exact_match,
        normalized_answer,
        overlap_f1,
        squad_scores,
    )
    from sparseml.transformers.question_answering.windows import Window, Windows

__all__ = [
    "AnswerRules",
    "Question",
    "Reader",
    "Window",
    "Windows",
    "best_answers",
    "exact_match",
    "load_reader",
    "normalized_answer",
    "overlap_f1",
    "read_squad",
    "squad_scores",
]

_HOMES = {
    "answers": "AnswerRules best_answers",
    "reader": "Reader load_reader",
    "reading": "Question read_squad",
    "scores": "exact_match normalized_answer overlap_f1 squad_scores",
    "windows": "Window Windows",
}
__getattr__, __dir__ = lazy_names(
    __name__, {f"{__name__}.{home}": names for home, names in _HOMES.items()}
)
