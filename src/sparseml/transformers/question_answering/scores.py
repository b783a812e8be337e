"""How good answers are, as SQuAD counts it."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from sparseml.run.errors import RunError
from sparseml.transformers.question_answering.reading import Question

_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalized_answer(text: str) -> str:
    """Return an answer in lower case, without punctuation, articles and more than one blank."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split())


def exact_match(answer: str, expected: str) -> float:
    """Return 1 for answers that are the same when normalized, else 0."""
    return float(normalized_answer(answer) == normalized_answer(expected))


def overlap_f1(answer: str, expected: str) -> float:
    """Return the harmonic mean of precision and recall of the words; without any, 1 if both lack
    them."""
    given, wanted = normalized_answer(answer).split(), normalized_answer(expected).split()
    if not given or not wanted:
        return float(given == wanted)
    same = sum((Counter(given) & Counter(wanted)).values())
    return 2 * same / (len(given) + len(wanted))


def squad_scores(answers: Mapping[str, str], questions: Sequence[Question]) -> dict[str, float]:
    """Return the mean ``f1`` and ``exact_match``, of each question by the expected answer that fits
    best.

    An empty answer says that there is none. Where some questions have none, the means of those that
    have one and of those that have not come as well, named as in SQuAD 2: ``HasAns_f1``,
    ``HasAns_exact``, ``NoAns_f1``, ``NoAns_exact``.

    :param answers: id of the question → answer
    :return: fractions, 0 to 1
    :raises RunError: for a question without an answer in ``answers``
    """
    lacking = [question.id for question in questions if question.id not in answers]
    if lacking or not questions:
        raise RunError(f"{len(lacking)} of {len(questions)} questions were not answered")
    best = [
        (_best(overlap_f1, answers[one.id], one), _best(exact_match, answers[one.id], one))
        for one in questions
    ]
    found = dict(zip(("f1", "exact_match"), _means(best), strict=True))
    if any(one.is_impossible for one in questions):
        for name, impossible in (("HasAns", False), ("NoAns", True)):
            pairs = zip(best, questions, strict=True)
            some = [scores for scores, one in pairs if one.is_impossible is impossible]
            if some:
                found |= zip((f"{name}_f1", f"{name}_exact"), _means(some), strict=True)
    return found


def _best(score: Callable[[str, str], float], answer: str, question: Question) -> float:
    # answers of nothing but articles and punctuation count as none, as SQuAD has it
    expected = [text for text, _ in question.answers if normalized_answer(text)] or [""]
    return max(score(answer, one) for one in expected)


def _means(pairs: Sequence[tuple[float, float]]) -> list[float]:
    return [sum(values) / len(pairs) for values in zip(*pairs, strict=True)]
