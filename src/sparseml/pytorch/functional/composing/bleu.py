"""BLEU as old experiments on block tuning have it. For all else there is sacreBLEU."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

ORDERS = 4


def bleu_legacy(candidates: Sequence[str], references: Sequence[str]) -> float:
    """Return corpus BLEU between 0 and 100 of tokens between blanks, without smoothing.

    N-grams of 1 to 4 tokens weigh the same; the case counts; short candidates are penalised by
    ``exp(1 - reference length / candidate length)``. Papineni et al., "BLEU" (ACL 2002). It is not
    comparable with sacreBLEU, which brings its own tokens.

    :param references: one for each candidate
    :raises ValueError: for other numbers of candidates and references
    """
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} candidates, but {len(references)} references")
    pairs = [
        (one.split(), other.split()) for one, other in zip(candidates, references, strict=True)
    ]
    length = sum(len(candidate) for candidate, _ in pairs)
    wanted = sum(len(reference) for _, reference in pairs)
    logs = []
    for order in range(1, ORDERS + 1):
        matches = total = 0
        for candidate, reference in pairs:
            found = Counter(_ngrams(candidate, order))
            matches += sum((found & Counter(_ngrams(reference, order))).values())
            total += sum(found.values())
        if not matches:
            return 0.0
        logs.append(math.log(matches / total))
    penalty = min(0.0, 1.0 - wanted / length)
    return 100.0 * math.exp(sum(logs) / ORDERS + penalty)


def _ngrams(tokens: Sequence[str], order: int) -> Iterable[tuple[str, ...]]:
    return zip(*(tokens[start:] for start in range(order)), strict=False)
