"""The attacks on one kind of runs, each a case of its own."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from _attack_arena import Arena, Ended
from _attack_damage import Damage, Reader, damages, readers
from _attack_points import FILLER, Point, Points, fill, kill, send

MOST_LINES = 10
DISK = "SPARSEML_ATTACKS_PLACE"
"""Set in the environment to a small disk in memory, where there is one."""
_OF_LOOPS = ("step", "evaluation")


class NotHere(Exception):
    """Why there are no attacks of a kind."""


@dataclass
class Found:
    """What became of one attack.

    :param wrong: what is not as it should be
    :param lines: printed for an error
    """

    wrong: list[str] = field(default_factory=list)
    lines: int = 0

    def tell(self, ended: Ended, failed: object) -> None:
        """Note how much was printed, if that was for an error."""
        lines = len(ended.told)
        if failed:
            self.lines = max(self.lines, lines)
            if "Traceback" in ended.error or lines > MOST_LINES:
                self.wrong.append(f"{lines} lines: {' | '.join(ended.told[-2:])[:300]}")

    def compare(self, arena: Arena, place: Path, more: bool = False) -> None:
        """Go on with a run, and note how it then differs from the undisturbed one."""
        ended = arena.go_on(place)
        if ended.status:
            last = " | ".join(ended.told[-2:])
            self.wrong.append(f"cannot be gone on with ({ended.status}): {last}")
            self.tell(ended, True)
        else:
            self.wrong += arena.differs(place, more)


class Case(NamedTuple):
    """One attack.

    :param name: the same whenever the runs are the same
    :param attack: to be called with a workplace and what it is to note its findings in
    :param file: the kind of file that is damaged
    """

    name: str
    attack: Callable[[Path, Found], None]
    file: str = ""


def by_kills(arena: Arena) -> Iterator[Case]:
    """Kill at every stage of every file, and after some steps."""
    steps = _moments(arena, "step")
    files = [at for at, point in enumerate(arena.points) if point.stage not in _OF_LOOPS]
    for at in sorted([*files, *steps[1::4]]):
        yield Case(f"{at} {' '.join(arena.points[at])}", partial(_kill, arena, at))


def _kill(arena: Arena, at: int, place: Path, found: Found) -> None:
    ended = arena.hit(place, at, kill)
    if ended.status != -signal.SIGKILL:
        found.wrong.append(f"was not killed, ended with {ended.status}")
    found.compare(arena, place)


def by_full_disk(arena: Arena) -> Iterator[Case]:
    """Let a disk be full when a file is begun, or after half of it.

    :raises NotHere: where there is no small disk
    """
    if DISK not in os.environ:
        raise NotHere("unshare cannot mount a file system in memory here")
    for at, point in enumerate(arena.points):
        begun = point.stage == "begun"
        for stage in ("begun", "half") if begun else ("begun",):
            if begun or point.what.endswith(".jsonl"):
                moment = Point(stage, point.what)
                yield Case(f"{at} {' '.join(moment)}", partial(_fill, arena, at, moment))


def _fill(arena: Arena, at: int, moment: Point, place: Path, found: Found) -> None:
    disk = Path(os.environ[DISK])
    act = fill(disk, arena.sizes)
    ended = arena.hit(place, at, lambda _, file: act(moment, file))
    (disk / FILLER).unlink(missing_ok=True)
    found.tell(ended, ended.status)
    if ended.status not in (0, 1, 2):
        found.wrong.append(f"ended with {ended.status}")
    if ended.status == 0 and not ended.told:
        found.wrong += arena.differs(place)
    elif ended.status:
        found.compare(arena, place)


def by_two(arena: Arena) -> Iterator[Case]:
    """Begin a second process in the folder of one that stands still in its middle.

    :raises NotHere: for a loop of one's own
    """
    if arena.attacked.NAME == "plain loop":
        raise NotHere("a loop of one's own has no folder of its own")
    steps = _moments(arena, *_OF_LOOPS)
    for at in steps[1 :: max(1, len(steps) // 3)]:
        for flag in ("resume", "anew")[: 1 + arena.attacked.REPLACES]:
            yield Case(f"{at} a second process, {flag}", partial(_begin, arena, at, flag))


def _begin(arena: Arena, at: int, flag: str, place: Path, found: Found) -> None:
    points = Points(place / "out", at, send(signal.SIGSTOP))
    first = arena.start(place, arena.attacked.run, points)
    os.waitpid(first, os.WUNTRACED)
    # the first goes on with the files that it has opened for what it prints
    second = arena.process(place, lambda: arena.attacked.run(**{flag: True}))
    os.kill(first, signal.SIGCONT)
    ended = arena.wait(first, place)
    found.tell(second, True)
    if second.status != 2:
        found.wrong.append(f"the second ended with {second.status}: {second.told[-1:]}")
    if ended.status:
        found.wrong.append(f"the first ended with {ended.status}")
    found.wrong += arena.differs(place)


def by_signals(arena: Arena) -> Iterator[Case]:
    """Stop by signals after steps and during evaluations.

    :raises NotHere: for a loop of one's own
    """
    if arena.attacked.NAME == "plain loop":
        raise NotHere("in a loop of one's own signals are its own")
    for number, at in enumerate(_moments(arena, *_OF_LOOPS)):
        sent = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)[number % 3]
        group = number % 2 == 0
        name = f"{at} {sent.name} {'to all ' * group}{' '.join(arena.points[at])}"
        yield Case(name, partial(_stop, arena, at, sent, group))


def _stop(
    arena: Arena, at: int, sent: signal.Signals, group: bool, place: Path, found: Found
) -> None:
    ended = arena.hit(place, at, send(sent, whole_group=group))
    found.tell(ended, True)
    last = at >= _moments(arena, "step")[-1]  # nothing is left to be trained
    if ended.status != 128 + sent and not (last and ended.status == 0):
        found.wrong.append(f"ended with {ended.status}: {ended.told[-1:]}")
    if ended.status:
        found.compare(arena, place, more=True)
    else:
        found.wrong += arena.differs(place)


def by_damage(arena: Arena) -> Iterator[Case]:
    """Damage files of every kind, and read them."""
    halfway = arena.new_place()
    if steps := _moments(arena, "step"):
        arena.hit(halfway, steps[-2], kill)
    for reader in readers(arena, halfway):
        for file in reader.files():
            for number, how in enumerate(damages(file, reader.times)):
                inside = file.relative_to(reader.place)
                name = f"{reader.name} {inside} {how.name} {number}"
                do = partial(_damage, arena, reader, inside, how, name)
                yield Case(name, do, reader.kind(inside))


def _damage(
    arena: Arena, reader: Reader, file: Path, how: Damage, name: str, place: Path, found: Found
) -> None:
    shutil.rmtree(place)
    shutil.copytree(reader.place, place, symlinks=True)
    how.do(place / file, random.Random(name))
    damaged = _content(place / file)
    ended = arena.ask(place, reader.read)
    found.tell(ended, ended.status)
    if ended.status not in (0, 1, 2):
        found.wrong.append(f"ended with {ended.status}")
    if ended.status == 0 and not reader.speaks(ended) and reader.weights:
        found.wrong += reader.differs(place, file if _content(place / file) == damaged else None)


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


ATTACKS: dict[str, Callable[[Arena], Iterator[Case]]] = {
    "kill": by_kills,
    "disk": by_full_disk,
    "damage": by_damage,
    "two": by_two,
    "signal": by_signals,
}
"""Name → what yields the cases."""


def _moments(arena: Arena, *stages: str) -> list[int]:
    return [at for at, point in enumerate(arena.points) if point.stage in stages]
