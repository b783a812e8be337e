"""What every pruning modifier is asked to do, and the outcomes that were written down.

    python tests/golden/scenarios.py --write                   # all of outcomes/*.json anew
    python tests/golden/scenarios.py --write CAPruningModifier  # of one modifier
    python tests/golden/scenarios.py --list

The outcomes are those of the commit before the pruning modifiers were rebuilt. They are not to be
written anew to make a test pass: what changes on purpose is listed in the changelog.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import cases_by_gradients
import cases_by_magnitude
from cases import GRADUAL, both, case
from replay import Scenario, outcome_of, single_threaded

OUTCOMES = Path(__file__).parent / "outcomes"


def _faults() -> Iterator[Scenario]:
    """What was wrong on the commit of the other outcomes; here are those of the mended code."""
    together = {**GRADUAL, "final_sparsity": 0.5}
    for pattern in ("filter", "channel"):
        for model in ("unequal", "conv"):
            yield from both("GlobalMagnitude", pattern, model, {**together, "mask_type": pattern})
    # with a dampening by which rounding, which processors do differently, does not choose
    damp = {"OBS": 1e-3, "CA": 1e-3, "FastCA": 0.1, "MFAC": 1e-3}
    for modifier in ("GWProd", *damp):
        fields = {
            **GRADUAL,
            "start_epoch": 1.0,
            "end_epoch": 9.0,
            "update_frequency": 2.0,
            "num_grads": 4,
            "grad_sampler_kwargs": {},
            **({"damp": damp[modifier]} if modifier in damp else {}),
        }
        yield case(modifier, "a step an epoch", "gradual", "mlp", fields, per_epoch=1)


def _by_file() -> dict[str, list[Scenario]]:
    files: dict[str, list[Scenario]] = {}
    for maker in (*cases_by_magnitude.MAKERS, *cases_by_gradients.MAKERS):
        scenarios = list(maker())
        files[scenarios[0].modifier] = scenarios
    return {**files, "faults": list(_faults())}


SCENARIOS = _by_file()
"""The cases of every file in ``outcomes``: one for each modifier, and one for known faults."""


def key_of(file: str, scenario: Scenario) -> str:
    """What a case is called in its file."""
    return f"{scenario.modifier} {scenario.name}" if file == "faults" else scenario.name


def read(file: str) -> dict[str, Any]:
    """The outcomes written down for a modifier, by case."""
    return json.loads((OUTCOMES / f"{file}.json").read_text())


def write(file: str) -> None:
    """Run the cases of a file and write down what came of them, a line for each case."""
    lines = []
    with single_threaded():
        for scenario in SCENARIOS[file]:
            key = key_of(file, scenario)
            lines.append(f"{json.dumps(key)}: {json.dumps(outcome_of(scenario))}")
    OUTCOMES.mkdir(exist_ok=True)
    (OUTCOMES / f"{file}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", nargs="*", metavar="FILE", choices=list(SCENARIOS))
    parser.add_argument("--list", action="store_true", help="print the cases of every file")
    options = parser.parse_args(None if arguments is None else list(arguments))
    if options.list:
        for file, scenarios in SCENARIOS.items():
            print(file, *(f"  {key_of(file, scenario)}" for scenario in scenarios), sep="\n")
    if options.write is not None:
        logging.getLogger("sparseml").setLevel(logging.ERROR)
        for file in options.write or SCENARIOS:
            start = time.perf_counter()
            write(file)
            print(f"{file}: {len(SCENARIOS[file])} cases, {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    _main()
