"""Whether any recipe, however broken, gives a working manager or one clear error, and quickly.

    python benchmarks/fuzz_recipes.py [--cases 10000] [--seed 0]

Recipes of the repository, the examples in the documentation of every modifier and a few more are
changed at random: characters, words, lines, values, keys, parts of two recipes put together, bytes
of files, variables given from outside. Each must load, and then print, load from its own text and
tell its epochs, or raise a RecipeError. Nothing else may be raised, no code may run, no file but
the recipe may be opened, no case may take more than 2 seconds (of processor time) or 500 MB, and no
error or line of a log may be longer than 2000 characters. Exit code 1 says that one did.
"""

from __future__ import annotations

import argparse
import logging
import random
import re
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _recipe_mutations import Case, corpus, make_case
from _timing import write_result
from sparseml.optim import RecipeError
from sparseml.pytorch.optim import ScheduledModifierManager

MOST_SECONDS = 2.0
MOST_MEGABYTES = 500.0
GIVE_UP_SECONDS = 20.0
MOST_CHARACTERS = 2000


def load_and_use(case: Case, folder: Path) -> ScheduledModifierManager:
    """Load a recipe, and do with it what needs no model.

    :raises RecipeError: if it is none
    :raises AssertionError: if it does not print as what it is
    """
    source: str | Path
    if case.suffix:
        source = folder / f"recipe{case.suffix}"
        source.write_bytes(case.content)
    else:
        # a line break, or it would be a path
        source = case.content.decode("utf-8", "surrogatepass") + "\n"
    manager = ScheduledModifierManager.from_yaml(source, recipe_variables=case.variables)
    printed = str(manager)
    again = ScheduledModifierManager.from_yaml(printed)
    assert str(again) == printed, "it prints otherwise when loaded from its own text"
    try:
        manager.resolve_steps(100)
    except ValueError as error:  # what is given in epochs and what in steps contradict each other
        assert "with 100 steps in an epoch" in str(error)
        return manager
    assert isinstance(manager.max_epochs, int) and isinstance(manager.min_epochs, int)
    manager.get_start_end_epochs()
    manager.phase(1.0)
    manager.qat_active(1.0)
    manager.state_dict()
    return manager


class TookTooLongError(BaseException):
    """Raised into a case that does not end."""


class Watch:
    """Notes what a case does that it must not, and what it costs."""

    FORBIDDEN = ("exec", "import", "open", "os.", "subprocess.", "socket.", "shutil.", "ctypes.")

    def __init__(self) -> None:
        self.watching = False
        self.done: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.watching and event.startswith(self.FORBIDDEN):
            what = str(arguments[:1])[:200]
            if "recipe." not in what:  # the file of this very case
                self.done.append(f"{event} {what}")

    @contextmanager
    def during(self) -> Iterator[dict[str, float]]:
        """Watch a block; the mapping is filled in with its ``seconds`` and ``megabytes``."""
        cost: dict[str, float] = {}
        self.done = []
        before = reset_peak_memory()
        signal.setitimer(signal.ITIMER_PROF, GIVE_UP_SECONDS)
        begun = time.process_time()
        self.watching = True
        try:
            yield cost
        finally:
            self.watching = False
            cost["seconds"] = time.process_time() - begun
            signal.setitimer(signal.ITIMER_PROF, 0.0)
            cost["megabytes"] = (memory("VmHWM") - before) / 1024


class Lengths(logging.Handler):
    """Notes what a logger tells that nobody would read to its end."""

    def __init__(self) -> None:
        super().__init__()
        self.long: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Note a record that is too long."""
        if len(told := record.getMessage()) > MOST_CHARACTERS:
            self.long.append(f"a log line of {len(told)} characters: {told[:100]}")


def reset_peak_memory() -> float:
    """Let the peak begin at what is used now, in kB; systems other than Linux always say 0."""
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        return 0.0
    clear.write_text("5")
    return memory("VmRSS")


def memory(field: str) -> float:
    """A number of kB from what the system knows of this process."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0
    return float(re.search(rf"{field}:\s+(\d+)", status.read_text())[1])  # type: ignore[index]


def _stop(_number: int, _frame: Any) -> None:
    raise TookTooLongError


def run_case(case: Case, folder: Path, watch: Watch) -> tuple[str, str, dict[str, float]]:
    """What a case gave (``manager`` or the class of its error), what was wrong, and its cost."""
    wrong, told = [], Lengths()
    logging.getLogger().addHandler(told)
    with watch.during() as cost:
        try:
            load_and_use(case, folder)
            outcome = "manager"
        except RecipeError as error:
            outcome = type(error).__name__
            if not str(error).strip() or len(str(error)) > MOST_CHARACTERS:
                wrong.append(f"a message of {len(str(error))} characters")
        except TookTooLongError:
            outcome = "none"
        except Exception as error:
            outcome = type(error).__name__
            wrong.append(f"{outcome}: {str(error)[:300]}")
    logging.getLogger().removeHandler(told)
    wrong += watch.done + told.long
    if cost["seconds"] > MOST_SECONDS:
        wrong.append(f"{cost['seconds']:.1f} s")
    if cost["megabytes"] > MOST_MEGABYTES:
        wrong.append(f"{cost['megabytes']:.0f} MB")
    return outcome, "; ".join(wrong), cost


def fuzz(cases: int, seed: int, show: bool = False) -> dict[str, Any]:
    """Run so many cases; counts, the highest costs and the failures."""
    signal.signal(signal.SIGPROF, _stop)
    limit = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int(memory("VmSize")) * 1024 + (4 << 30), limit[1]))
    recipes, watch, rng = corpus(), Watch(), random.Random(seed)
    logger = logging.getLogger("sparseml")
    level = logger.level
    logger.setLevel(logging.DEBUG)
    outcomes: Counter[str] = Counter()
    failures, most = [], {"seconds": 0.0, "megabytes": 0.0}
    try:
        with tempfile.TemporaryDirectory() as place:
            for text in recipes:  # all of them are right, and afterwards everything is imported
                load_and_use(
                    Case(text.encode(), ".md" if text[:3] == "---" else "", None), Path(place)
                )
            for number in range(cases):
                case = make_case(recipes, rng)
                outcome, wrong, cost = run_case(case, Path(place), watch)
                outcomes[outcome] += 1
                most = {name: max(value, most[name]) for name, value in cost.items()}
                if wrong:
                    failures.append({"number": number, "wrong": wrong, "case": repr(case)[:3000]})
                if show and number % 500 == 499:
                    print(f"{number + 1} cases, {len(failures)} failures", flush=True)
    finally:
        logger.setLevel(level)
        resource.setrlimit(resource.RLIMIT_AS, limit)
    return {"outcomes": dict(outcomes.most_common()), "most": most, "failures": failures}


def main() -> None:
    """Run the cases and write down what they gave."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-result", action="store_true", help="write no file of results")
    options = parser.parse_args()
    found = fuzz(options.cases, options.seed, show=True)
    for name, count in found["outcomes"].items():
        print(f"{count:7} {name}")
    print(f"at most {found['most']['seconds']:.2f} s and {found['most']['megabytes']:.0f} MB")
    if not options.no_result:
        print(f"written to {write_result('fuzz_recipes', {**vars(options), **found})}")
    for failure in found["failures"][:20]:
        print(f"\n{failure['number']}: {failure['wrong']}\n{failure['case']}", file=sys.stderr)
    if found["failures"]:
        sys.exit(f"{len(found['failures'])} of {options.cases} cases failed")


if __name__ == "__main__":
    main()
