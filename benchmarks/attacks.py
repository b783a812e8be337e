"""Whether a run that is hit at its worst moments ends as if it had not been, once it goes on.

    python benchmarks/attacks.py [--kinds NAME ...] [--attacks NAME ...] [--every N ...]
        [--log FILE] [--seconds S] [--no-result]

Each of five tiny trainings is killed at every stage of every file that it writes, meets a disk that
is full at each of them, reads files of its own that are damaged, shares its folder with another,
and is stopped by signals. What it leaves behind once it has gone on is compared with what the
undisturbed run leaves: weights, masks, optimizer, metrics, files, exit status, lines printed.
Exit status 1 says that something differs. Runs are forked from a process that has run once, so that
nothing is imported, compiled or read twice. A long run can be done in parts, by ``--log``; what of
it has not been done is among the results. Full disks need a system where ``unshare`` lets a user
mount a file system in memory.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import torch

from _attack_arena import Arena
from _attack_cases import ATTACKS, DISK, Case, Found, NotHere
from _attacked_runs import KINDS, Attacked
from _timing import RESULTS, write_result

_MEMORY = "192M"
Cell = tuple[str, str]
"""The names of a kind of runs and of an attack."""


class Log:
    """What has been done, also in earlier parts of a long run, as one line of JSON each.

    :param path: of the file with it; None keeps nothing
    :param again: whether to do once more what was wrong
    """

    def __init__(self, path: Path | None, again: bool = False) -> None:
        self.path = path
        self.planned: dict[Cell, dict[str, Any]] = {}
        self.done: dict[Cell, dict[str, dict[str, Any]]] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                self._take(json.loads(line))
        for entries in self.done.values() if again else ():
            for name in [name for name, entry in entries.items() if entry["wrong"]]:
                del entries[name]

    def add(self, cell: Cell, **entry: Any) -> None:
        """Keep something: the plan of a cell, or the outcome of one of its attacks."""
        entry = {"kind": cell[0], "attack": cell[1], **entry}
        self._take(entry)
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(entry) + "\n")

    def _take(self, entry: dict[str, Any]) -> None:
        cell = entry["kind"], entry["attack"]
        if "planned" in entry:
            self.planned[cell] = entry
        else:
            self.done.setdefault(cell, {})[entry["name"]] = entry

    def results(self) -> dict[str, dict[str, Any]]:
        """Return kind → attack → what was planned, done and found."""
        results: dict[str, dict[str, Any]] = {}
        for (kind, attack), plan in self.planned.items():
            done = self.done.get((kind, attack), {}).values()
            told = [f"{one['name']}: {'; '.join(one['wrong'])}" for one in done if one["wrong"]]
            found: dict[str, Any] = {
                "planned": plan["planned"],
                "attacks": len(done),
                "not_run": max(0, plan["planned"] - len(done)),
                "wrong": told,
                "most_lines": max((one["lines"] for one in done), default=0),
                "seconds": round(sum(one["seconds"] for one in done), 1),
            }
            if plan["note"]:
                found["note"] = plan["note"]
            if files := Counter(one["file"] for one in done if one["file"]):
                found["files"] = dict(sorted(files.items()))
            results.setdefault(kind, {})[attack] = found
        return results


def attack(arena: Arena, cell: Cell, cases: Sequence[Case], log: Log, end: float) -> bool:
    """Do what the log lacks of some attacks; return whether time has sufficed."""
    done = log.done.get(cell, {})
    for case in cases:
        if case.name in done:
            continue
        if time.monotonic() > end:
            return False
        begun, found, place = time.monotonic(), Found(), arena.new_place()
        case.attack(place, found)
        shutil.rmtree(place, ignore_errors=True)
        for stream in ("stdout", "stderr"):
            Path(f"{place}.{stream}").unlink(missing_ok=True)
        seconds = round(time.monotonic() - begun, 2)
        log.add(cell, name=case.name, file=case.file, seconds=seconds, **vars(found))
        if found.wrong:
            print(f"  {cell[0]} {cell[1]} {case.name}: {'; '.join(found.wrong)}", flush=True)
    return True


def planned(arena: Arena, cell: Cell, every: int, log: Log) -> list[Case]:
    """Return the attacks of a cell, of which a part is spread over all; the log knows how many."""
    note, found = "", list[Case]()
    try:
        found = [*ATTACKS[cell[1]](arena)]
    except NotHere as reason:
        note = str(reason)
    log.add(cell, planned=len(found), note=note)
    random.Random(0).shuffle(found)
    return found[::every]


def in_memory() -> Iterator[Path]:
    """Yield a place for the runs: a small disk in memory where one can be mounted."""
    if DISK in os.environ:
        yield Path(os.environ[DISK])
        return
    with tempfile.TemporaryDirectory() as place:
        if begin := on_small_disk(place):
            sys.exit(subprocess.run([*begin, sys.executable, *sys.argv]).returncode)
        yield Path(place)


def on_small_disk(place: str) -> list[str]:
    """Return the words that begin a command which has a small disk in memory at a place.

    :return: none where the system does not let a user mount one
    """
    mount = f'mount -t tmpfs -o size={_MEMORY} none "$0" && exec env {DISK}="$0" "$@"'
    begin = ["unshare", "-Urm", "bash", "-c", mount, place]
    try:
        able = not subprocess.run([*begin, "true"], capture_output=True).returncode
    except OSError:
        able = False
    return begin if able else []


def load(names: Sequence[str]) -> list[type[Attacked]]:
    """Import what runs need; return the kinds that there is something to run with."""
    from sparseml.report.latency import measure_latency

    measure_latency.__defaults__ = (2, 1, 0.0, None)
    warnings.simplefilter("ignore")
    kinds = []
    for kind in KINDS:
        if kind.NAME in names:
            try:
                for module in kind.NEEDS:
                    importlib.import_module(module)
                kinds.append(kind)
            except ImportError as error:
                print(f"{kind.NAME}: skipped ({error})")
    if training := sys.modules.get("sparseml.run.training"):
        training.LATENCY_ROUNDS = 2  # type: ignore[attr-defined]  # most of the time of a run else
    return kinds


def keep(results: Mapping[str, dict[str, Any]]) -> None:
    """Write down how it went, beside what is known of other kinds of runs."""
    file = RESULTS / "attacks.json"
    known = json.loads(file.read_text())["found"] if file.exists() else {}
    found = {**known, **{kind: {**known.get(kind, {}), **results[kind]} for kind in results}}
    (RESULTS / "attacks.md").write_text("\n".join(page(found)) + "\n")
    print(f"written to {write_result('attacks', {'found': found})}", flush=True)


def page(results: Mapping[str, dict[str, Any]]) -> Iterator[str]:
    """Yield the lines of a Markdown table: how many of the attacks were done, and were survived."""
    yield "| run | attack | planned | done | wrong | most lines | |"
    yield "|---|---|--:|--:|--:|--:|---|"
    files = Counter[str]()
    for kind in (one.NAME for one in KINDS):
        for name in ATTACKS:
            one = results.get(kind, {}).get(name)
            if one is None:
                yield f"| {kind} | {name} | | not run | | | |"
                continue
            files.update(one.get("files", {}))
            cells = (one[key] for key in ("planned", "attacks"))
            wrong, note = len(one["wrong"]), one.get("note", "")
            row = [kind, name, *cells, wrong, one["most_lines"], note]
            yield f"| {' | '.join(map(str, row))} |"
    yield f"\nDamaged files, {sum(files.values())} in all: " + ", ".join(
        f"{count} of `{name}`" for name, count in sorted(files.items())
    )


def table(results: Mapping[str, dict[str, Any]]) -> Iterable[str]:
    """Yield a line for each cell."""
    for kind, attacks in results.items():
        for name, one in attacks.items():
            left = f"{one['not_run']} not run" if one["not_run"] else one.get("note", "")
            yield (
                f"{kind:22}{name:8}{one['attacks']:5} attacks {len(one['wrong']):4} wrong "
                f"{one['most_lines']:3} lines at most {one['seconds']:7.1f} s  {left}"
            )


def main() -> None:
    """Attack every run; print a table, and write down how it went."""
    names = [kind.NAME for kind in KINDS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kinds", nargs="+", default=names, choices=names)
    parser.add_argument("--attacks", nargs="+", default=[*ATTACKS], choices=ATTACKS)
    parser.add_argument(
        "--every",
        type=int,
        nargs="+",
        default=[1],
        metavar="N",
        help="take only every N-th of the attacks; several are for one kind each",
    )
    parser.add_argument(
        "--log", type=Path, help="where what is done is kept, and not done again: JSON lines"
    )
    parser.add_argument("--again", action="store_true", help="but do again what was wrong")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after which to end")
    parser.add_argument("--no-result", action="store_true", help="write no file of results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    every = dict(zip(options.kinds, cycle(options.every), strict=False))
    log, end = Log(options.log, options.again), time.monotonic() + options.seconds
    for root in in_memory():
        for kind in load(options.kinds):
            arena = Arena(kind, root / kind.NAME.replace(" ", "_"))
            print(
                f"{kind.NAME}: {len(arena.points)} moments, {len(arena.expected)} files", flush=True
            )
            for name in options.attacks:
                cell = kind.NAME, name
                if time.monotonic() < end:
                    attack(arena, cell, planned(arena, cell, every[kind.NAME], log), log, end)
            shutil.rmtree(arena.root, ignore_errors=True)
    results = log.results()
    print("\n".join(table(results)), flush=True)
    if not options.no_result:
        keep(results)
    if any(one["wrong"] for found in results.values() for one in found.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
