"""How fast a Transformer of fairseq translates, in turns with another one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from sparseml.fairseq import load_model
from sparseml.fairseq.inputs import keywords, open_split
from sparseml.fairseq.translating import generator_of

_BEAM = 5
_ROUNDS = 3


def measured(
    data: Path, dense: Path, weights: Path, sentences: int = 256, batch_size: int = 64
) -> dict[str, float]:
    """Return parameters, and speeds in multiples of the dense model's, in turns with it.

    ``generation`` is of the tokens told in a second, ``encoder`` of the sentences read; by the time
    of this process, so that others do not count.

    :param dense: checkpoint of the model to compare with
    :param sentences: of the test split, at most
    """
    loaded = [load_model(f"fairseq:{path}", str(data)) for path in (dense, weights)]
    split = open_split(loaded[0], 100_000, "test", "--gen-subset", sentences)
    batches = list(split.loader(split.batches(batch_size)))
    for one in loaded:
        one.model.eval()
    searches = [generator_of(one.task, one.model, beam=_BEAM, max_len_b=60) for one in loaded]

    def translate(place: int, batch: dict[str, Any]) -> int:
        one = loaded[place]
        found = one.task.inference_step(searches[place], [one.model], batch)
        return sum(len(best[0]["tokens"]) for best in found)

    def encode(place: int, batch: dict[str, Any]) -> int:
        inputs = keywords(batch)
        loaded[place].model.encoder(inputs["src_tokens"], inputs["src_lengths"])
        return len(inputs["src_tokens"])

    dense_rate, rate = _in_turns(translate, batches, 1)
    encoders = _in_turns(encode, batches, 4)
    trained = [param for param in loaded[1].model.parameters() if param.requires_grad]
    return {
        "parameters": sum(param.numel() for param in trained),
        "tokens_per_second": round(rate),
        "generation": round(rate / dense_rate, 2),
        "encoder": round(encoders[1] / encoders[0], 2),
    }


@torch.no_grad()
def _in_turns(
    work: Callable[[int, dict[str, Any]], int], batches: Sequence[dict[str, Any]], repeats: int
) -> tuple[float, float]:
    """Return how much of a kind of work two models do in a second, after a round to warm up."""
    done, spent = [0, 0], [0.0, 0.0]
    for number in range(-1, _ROUNDS * repeats):
        for batch in batches:
            for place in (0, 1):
                begin = time.process_time()
                count = work(place, batch)
                if number >= 0:
                    spent[place] += time.process_time() - begin
                    done[place] += count
    return done[0] / spent[0], done[1] / spent[1]
