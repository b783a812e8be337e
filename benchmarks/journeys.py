"""How much of the package one optimizer step walks through.

    python benchmarks/journeys.py            # the table
    python benchmarks/journeys.py --list     # and the functions, file by file
    python benchmarks/journeys.py --json

Whoever wants to know what a step does has to read what it walks through. A model of two Linear
layers, with SGD and a recipe for both weights, takes four steps, each in a run of its own:

- ``magnitude, no update``: the step after the first update of ``MagnitudePruningModifier``;
- ``magnitude update``: its second update (the first one also starts the modifier);
- ``CAP, no update`` and ``CAP update``: the same of ``CAPruningModifier``, which samples 16
  gradients. Its kernels are those in torch, whether Numba is installed or not. Torch has two
  threads, whatever the machine has: what the kernels do in threads of their own is not traced (10
  functions more).

What is traced is ``optimizer.step()`` of the optimizer that ``manager.modify`` returned, from the
call to its return; forward and backward pass of the training are not. Of it counts:

- a **function** is a function, method, property or hook that is written in a file of
  ``src/sparseml`` and is called, however often. Lambdas, comprehensions, generator expressions and
  bodies of modules and classes do not count, but what they call does, as does what torch calls
  (optimizer hooks, ``forward`` of our modules). What Python makes up (the ``__init__`` of
  dataclasses) and what runs in C does not count.
- a **file** is one that holds such a function.
- a **move** is a call of such a function when the one called before it is in another file; to go
  on with a generator is a call. Returning is no move.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "sparseml"
PER_EPOCH, UPDATE = 4, 4
RECIPE = """
modifiers:
  - !{name}
    params: __ALL_PRUNABLE__
    init_sparsity: 0.1
    final_sparsity: 0.8
    start_epoch: 0.0
    end_epoch: 10.0
    update_frequency: 1.0
"""
CAP_FIELDS = "    num_grads: 16\n    fisher_block_size: 8\n"
INPUTS, HIDDEN, CLASSES = 16, 16, 8


class Journey:
    """The calls of functions that are written below a folder.

    :param folder: of the files that count
    """

    def __init__(self, folder: Path) -> None:
        self._prefix = f"{folder}/"
        self._calls: list[CodeType] = []

    @contextmanager
    def traced(self) -> Iterator[None]:
        """Within the block calls are taken down."""
        before = sys.getprofile()
        sys.setprofile(self._take_down)
        try:
            yield
        finally:
            sys.setprofile(before)

    def _take_down(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(self._prefix) and _is_function(code):
            self._calls.append(code)

    @property
    def functions(self) -> dict[str, list[str]]:
        """File → the functions in it, files and functions in the order of their first calls."""
        found: dict[str, dict[tuple[str, int], None]] = {}
        for code in self._calls:
            file = code.co_filename.removeprefix(self._prefix)
            found.setdefault(file, {})[(_name(code), code.co_firstlineno)] = None
        return {file: [name for name, _ in functions] for file, functions in found.items()}

    @property
    def moves(self) -> int:
        """How often a call leads to another file than the call before it."""
        files = [code.co_filename for code in self._calls]
        return sum(one != other for one, other in pairwise(files))

    def summary(self) -> dict[str, Any]:
        """Counts, and the functions that they are of."""
        functions = self.functions
        return {
            "functions": sum(map(len, functions.values())),
            "files": len(functions),
            "moves": self.moves,
            "list": functions,
        }


def _is_function(code: CodeType) -> bool:
    # the code of a class body is not optimised, as its names live in a mapping
    optimized = 0x1
    return not code.co_name.startswith("<") and bool(code.co_flags & optimized)


def _name(code: CodeType) -> str:
    return str(getattr(code, "co_qualname", code.co_name))  # since Python 3.11


def journey(recipe: str, steps_before: int) -> Journey:
    """The optimizer step that comes after ``steps_before`` others."""
    from sparseml.pytorch.optim import ScheduledModifierManager

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(INPUTS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
    batches = [([inputs], {}, labels) for inputs, labels in (_batch() for _ in range(64))]
    sampler = {
        "data_loader_builder": lambda: batches,
        "loss_fn": cross_entropy,
        "progress_bar": False,
    }
    sgd = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    manager = ScheduledModifierManager.from_yaml(recipe)
    optimizer = manager.modify(model, sgd, steps_per_epoch=PER_EPOCH, grad_sampler=sampler)
    taken = Journey(PACKAGE)
    for number in range(steps_before + 1):
        inputs, labels = _batch()
        optimizer.zero_grad()
        cross_entropy(model(inputs), labels).backward()
        if number < steps_before:
            optimizer.step()
    with taken.traced():
        optimizer.step()
    return taken


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(4, INPUTS), torch.randint(CLASSES, (4,))


MAGNITUDE = RECIPE.format(name="MagnitudePruningModifier")
CAP = RECIPE.format(name="CAPruningModifier") + CAP_FIELDS
JOURNEYS: dict[str, Callable[[], Journey]] = {
    "magnitude, no update": lambda: journey(MAGNITUDE, 1),
    "magnitude update": lambda: journey(MAGNITUDE, UPDATE),
    "CAP, no update": lambda: journey(CAP, 1),
    "CAP update": lambda: journey(CAP, UPDATE),
}


def main() -> None:
    """Trace the steps and print what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="print the functions of every file")
    parser.add_argument("--json", action="store_true", help="print everything as JSON instead")
    options = parser.parse_args()
    torch.set_num_threads(2)
    sys.modules["numba"] = None  # type: ignore[assignment]  # as if it were not installed
    found = {name: take().summary() for name, take in JOURNEYS.items()}
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{'':22}{'functions':>10}{'files':>7}{'moves':>7}")
    for name, counts in found.items():
        print(f"{name:22}{counts['functions']:10}{counts['files']:7}{counts['moves']:7}")
    for name, counts in found.items() if options.list else ():
        print(f"\n{name}")
        for file, functions in counts["list"].items():
            print(f"  {file}: {', '.join(functions)}")


if __name__ == "__main__":
    main()
