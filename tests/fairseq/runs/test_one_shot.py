"""``sparseml prune`` for models of fairseq as a whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def _results() -> list[dict[str, Any]]:
    return json.loads(Path("out/run/results.json").read_text())["results"]


@pytest.mark.parametrize("name", ["pairs", "text"])
def test_it(call: Any, corpora: dict[str, Path], checkpoints: dict[str, Path], name) -> None:
    flags = ["--model", f"fairseq:{checkpoints[name]}", "--recipe", "recipe.yaml"]
    more = ["--bleu"] if name == "pairs" else []
    done = call(corpora[name], *flags, "--sparsities", 0.5, 0.8, *more)
    print(done.out, done.error)
    print(*Path("out/run/sparsity=0.5/model").iterdir())
    print(_results())
