"""Whether a run that is hit at its worst moments ends as if it had not been, once it goes on.

    python benchmarks/attacks.py [--kinds NAME ...] [--attacks NAME ...] [--every N] [--no-result]

Each of five tiny trainings is killed at every stage of every file that it writes, meets a disk that
is full at each of them, reads files of its own that are damaged, shares its folder with another,
and is stopped by signals. What it leaves behind once it has gone on is compared with what the
undisturbed run leaves: weights, masks, optimizer, metrics, files, exit status, lines printed.
Exit status 1 says that something differs. Runs are forked from a process that has imported
everything. Full disks need a system where `unshare` lets a user mount a file system in memory.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from _attack_arena import Arena, Ended
from _attack_damage import damages, readers
from _attack_points import FILLER, Point, Points, fill, kill, send
from _attacked_runs import KINDS, Attacked
from _timing import RESULTS, write_result

ATTACKS = ("kill", "disk", "damage", "two", "signal")
MOST_LINES = 10
_OF_LOOPS = ("step", "evaluation")
_INSIDE = "SPARSEML_ATTACKS_PLACE"
_MEMORY = "96M"


@dataclass
class Tally:
    """What became of the attacks of one kind on one run."""

    attacks: int = 0
    wrong: list[str] = field(default_factory=list)
    most_lines: int = 0
    note: str = ""
    seconds: float = 0.0


def _moments(arena: Arena, *stages: str) -> list[int]:
    return [at for at, point in enumerate(arena.points) if point.stage in stages]


def attack_by_kills(arena: Arena, tally: Tally, every: int) -> None:
    """Kill at every stage of every file, and after some steps."""
    steps = _moments(arena, "step")
    files = [at for at, point in enumerate(arena.points) if point.stage not in _OF_LOOPS]
    for at in sorted([*files, *steps[1::4]])[::every]:
        with _case(arena, tally, f"killed: {' '.join(arena.points[at])}") as (place, wrong):
            ended = arena.hit(place, at, kill)
            if ended.status != -signal.SIGKILL:
                wrong.append(f"was not killed, ended with {ended.status}")
            _compare(arena, place, tally, wrong)


def attack_by_full_disk(arena: Arena, tally: Tally, every: int) -> None:
    """Let a disk be full when a file is begun, or after half of it."""
    if _INSIDE not in os.environ:
        tally.note = "skipped: unshare cannot mount a file system in memory here"
        return
    disk = Path(os.environ[_INSIDE])
    moments = [
        (at, stage)
        for at, point in enumerate(arena.points)
        if point.stage == "begun" or point.what.endswith(".jsonl")
        for stage in (("begun", "half") if point.stage == "begun" else ("begun",))
    ]
    for at, stage in moments[::every]:
        point = arena.points[at]
        with _case(arena, tally, f"disk full: {stage} {point.what}") as (place, wrong):
            act = fill(disk, arena.sizes)
            ended = arena.hit(place, at, lambda p, f, s=stage, a=act: a(Point(s, p.what), f))
            (disk / FILLER).unlink(missing_ok=True)
            _tell(tally, ended, wrong, ended.status)
            if ended.status not in (0, 1, 2):
                wrong.append(f"ended with {ended.status}")
            if ended.status == 0 and not ended.told:
                wrong += arena.differs(place)
            elif ended.status:
                _compare(arena, place, tally, wrong)


def attack_by_two(arena: Arena, tally: Tally, every: int) -> None:
    """Begin a second process in the folder of one that stands still in its middle."""
    if arena.attacked.NAME == "plain loop":
        tally.note = "a loop of one's own has no folder of its own"
        return
    steps = _moments(arena, *_OF_LOOPS)
    for at in steps[1 :: max(1, len(steps) // 3)]:
        for flags in ({"resume": True}, {"anew": True})[: 1 + arena.attacked.REPLACES]:
            with _case(arena, tally, f"a second process {[*flags]}: {at}") as (place, wrong):
                points = Points(place / "out", at, send(signal.SIGSTOP))
                first = arena.start(place, lambda: arena.attacked.run(), points)
                os.waitpid(first, os.WUNTRACED)
                # the first goes on with the files that it has opened for what it prints
                second = arena.process(place, lambda f=flags: arena.attacked.run(**f))
                os.kill(first, signal.SIGCONT)
                ended = arena.wait(first, place)
                _tell(tally, second, wrong, True)
                if second.status != 2:
                    wrong.append(f"the second ended with {second.status}: {second.told[-1:]}")
                if ended.status:
                    wrong.append(f"the first ended with {ended.status}")
                wrong += arena.differs(place)


def attack_by_signals(arena: Arena, tally: Tally, every: int) -> None:
    """Stop by signals after steps and during evaluations."""
    if arena.attacked.NAME == "plain loop":
        tally.note = "in a loop of one's own signals are its own"
        return
    moments = _moments(arena, *_OF_LOOPS)
    for number, at in enumerate(moments[:: 2 * every]):
        sent = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)[number % 3]
        with _case(arena, tally, f"{sent.name}: {' '.join(arena.points[at])}") as (place, wrong):
            ended = arena.hit(place, at, send(sent, whole_group=number % 2 == 0))
            _tell(tally, ended, wrong, True)
            last = at == moments[-1]
            if ended.status != 128 + sent and not (last and ended.status == 0):
                wrong.append(f"ended with {ended.status}: {ended.told[-1:]}")
            if ended.status:
                _compare(arena, place, tally, wrong, more=True)


def attack_by_damage(arena: Arena, tally: Tally, every: int) -> None:
    """Damage files of every kind, and read them."""
    halfway = _halfway(arena)
    cases = [
        (reader, file, how)
        for reader in readers(arena, halfway)
        for file in reader.files()
        for how in damages(file, reader.times)
    ]
    for number, (reader, file, how) in enumerate(cases[::every]):
        name = f"{reader.name} {file.relative_to(reader.place)} {how.name}"
        with _case(arena, tally, name) as (place, wrong):
            shutil.rmtree(place)
            shutil.copytree(reader.place, place, symlinks=True)
            how.do(place / file.relative_to(reader.place), random.Random(number))
            ended = arena.process(place, reader.read)
            _tell(tally, ended, wrong, ended.status)
            if ended.status not in (0, 1, 2):
                wrong.append(f"ended with {ended.status}")
            if ended.status == 0 and not reader.speaks(ended) and reader.weights:
                wrong += reader.differs(place)


def _halfway(arena: Arena) -> Path:
    """Return a workplace with a run that was killed in its middle."""
    place = arena.new_place()
    arena.hit(place, _moments(arena, "step")[-2], kill)
    return place


class _case:
    """One attack in a workplace of its own, which is removed; whatever is wrong is kept."""

    def __init__(self, arena: Arena, tally: Tally, name: str) -> None:
        self.arena, self.tally, self.name = arena, tally, name
        self.wrong: list[str] = []

    def __enter__(self) -> tuple[Path, list[str]]:
        self.place = self.arena.new_place()
        return self.place, self.wrong

    def __exit__(self, *error: object) -> None:
        self.tally.attacks += 1
        if self.wrong:
            self.tally.wrong.append(f"{self.name}: {'; '.join(self.wrong)}")
            print(f"  {self.tally.wrong[-1]}", flush=True)
        shutil.rmtree(self.place, ignore_errors=True)
        for end in ("stdout", "stderr"):
            Path(f"{self.place}.{end}").unlink(missing_ok=True)


def _compare(arena: Arena, place: Path, tally: Tally, wrong: list[str], more: bool = False) -> None:
    ended = arena.go_on(place)
    if ended.status:
        wrong.append(f"cannot be gone on with ({ended.status}): {' | '.join(ended.told[-2:])}")
        _tell(tally, ended, wrong, True)
    else:
        wrong += arena.differs(place, more)


def _tell(tally: Tally, ended: Ended, wrong: list[str], failed: Any) -> None:
    """Note how much was printed for an error."""
    lines = len(ended.told)
    if failed:
        tally.most_lines = max(tally.most_lines, lines)
        if "Traceback" in ended.error or lines > MOST_LINES:
            wrong.append(f"{lines} lines: {' | '.join(ended.told[-2:])[:300]}")


def in_memory() -> Iterator[Path]:
    """Yield a place for the runs: a small disk in memory where one can be mounted."""
    if _INSIDE in os.environ:
        yield Path(os.environ[_INSIDE])
        return
    with tempfile.TemporaryDirectory() as place:
        mount = f'mount -t tmpfs -o size={_MEMORY} none "$0" && exec "$@"'
        begin = ["unshare", "-Urm", "bash", "-c", mount, place]
        try:
            able = not subprocess.run([*begin, "true"], capture_output=True).returncode
        except OSError:
            able = False
        if able:
            environment = {**os.environ, _INSIDE: place}
            sys.exit(
                subprocess.run([*begin, sys.executable, *sys.argv], env=environment).returncode
            )
        yield Path(place)


def load(names: list[str]) -> list[type[Attacked]]:
    """Import what runs need; return the kinds that there is something to run with."""

    import sparseml.report
    import sparseml.report.rendering
    import sparseml.run.one_shot
    import sparseml.run.training
    import sparseml.timm.session
    import sparseml.timm.training

    sparseml.run.training.LATENCY_ROUNDS = 2  # most of the time of a run, as it is
    kinds = [kind for kind in KINDS if kind.NAME in names]
    warnings.simplefilter("ignore")
    for kind in [*kinds]:
        try:
            if kind.NAME == "Transformers Trainer":
                import sparseml.transformers.scripts.training
            if kind.NAME == "fairseq":
                from fairseq_cli import preprocess, train  # noqa: F401
        except ImportError as error:  # noqa: PERF203
            print(f"{kind.NAME}: skipped ({error})")
            kinds.remove(kind)
    return kinds


def keep(kind: str, found: dict[str, Any]) -> None:
    """Write down how it went with one kind of runs, beside what is known of the others."""
    file = RESULTS / "attacks.json"
    known = json.loads(file.read_text())["found"] if file.exists() else {}
    print(f"written to {write_result('attacks', {'found': {**known, kind: found}})}", flush=True)


def main() -> None:
    """Attack every run; print a table, and write down how it went."""
    names = [kind.NAME for kind in KINDS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kinds", nargs="+", default=names, choices=names)
    parser.add_argument("--attacks", nargs="+", default=ATTACKS, choices=ATTACKS)
    parser.add_argument("--every", type=int, default=1, help="take only every N-th of the attacks")
    parser.add_argument("--no-result", action="store_true", help="write no file of results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, dict[str, Any]] = {}
    attacks = {
        "kill": attack_by_kills,
        "disk": attack_by_full_disk,
        "damage": attack_by_damage,
        "two": attack_by_two,
        "signal": attack_by_signals,
    }
    for root in in_memory():
        for kind in load(options.kinds):
            arena = Arena(kind, root / kind.NAME.replace(" ", "_"))
            print(
                f"{kind.NAME}: {len(arena.points)} moments, {len(arena.expected)} files", flush=True
            )
            found[kind.NAME] = {}
            for name in options.attacks:
                tally, begun = Tally(), time.monotonic()
                attacks[name](arena, tally, options.every)
                tally.seconds = round(time.monotonic() - begun, 1)
                found[kind.NAME][name] = vars(tally)
                print(
                    f"{kind.NAME:22}{name:8}{tally.attacks:5} attacks {len(tally.wrong):4} wrong "
                    f"{tally.most_lines:3} lines at most {tally.seconds:7.1f} s  {tally.note}",
                    flush=True,
                )
            shutil.rmtree(arena.root, ignore_errors=True)
            if not options.no_result:  # each time, as a whole run takes a while
                keep(kind.NAME, {"every": options.every, **found[kind.NAME]})
    if any(tally["wrong"] for one in found.values() for tally in one.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
