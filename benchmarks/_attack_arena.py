"""Runs that are attacked, each in a process and a workplace of its own."""

from __future__ import annotations

import gc
import importlib
import os
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from _attack_outcome import differences, outcome
from _attack_points import Point, Points
from _attacked_runs import Attacked, free_of_others

LIMIT = 120.0
_OWN = ("own_code", "__main__")
_PROGRESS = ("epoch ", "stopping after")
_NOTHING = (
    "no such file or folder",
    "before its first checkpoint",
    "not one",
    "has no checkpoint",
    "holds a run",
)


class Ended(NamedTuple):
    """How a process ended: its status (negative: by a signal), and what it printed.

    :param usual: lines that the undisturbed run prints on stderr, too
    """

    status: int
    out: str
    error: str
    usual: Collection[str]

    @property
    def told(self) -> list[str]:
        """Return the lines on stderr that are about the attack."""
        lines = (line for line in self.error.splitlines() if line.strip())
        return [one for one in lines if one not in self.usual and not one.startswith(_PROGRESS)]


class Arena:
    """Runs of one kind, each in a workplace of its own, forked from this process."""

    def __init__(self, kind: type[Attacked], root: Path) -> None:
        self.root = root
        self.attacked = kind(root / "inputs")
        self._number, self.usual = 0, set[str]()
        self._servers: dict[Callable[[], int], Server] = {}
        made = self.process(self.attacked.place, lambda: self.attacked.prepare() or 0)
        if made.status:
            sys.exit(f"{kind.NAME} cannot be prepared:\n{made.error}")
        self.place = place = self.new_place()
        self._import_what(self.run_once(place, "modules", sys.modules))
        self.expected = outcome(place / "out", but=kind.UNLIKE)
        files = (path for path in (place / "out").rglob("*") if path.is_file())
        self.sizes = {str(path.relative_to(place / "out")): path.stat().st_size for path in files}
        self._warm_up()
        place = self.new_place()
        points = Points(place / "out")
        lines = self.run_once(place, "points", points.seen, points)
        self.points = [Point(*line.split("\t")) for line in lines]
        if wrong := self.differs(place):  # as if what is warm held something of the last run
            sys.exit(f"{kind.NAME} does not give the same twice: {'; '.join(wrong)}")

    def new_place(self, like: Path | None = None) -> Path:
        """Return a workplace in which nothing has run, or one like another."""
        self._number += 1
        place = self.root / str(self._number)
        shutil.copytree(like or self.attacked.place, place, symlinks=True)
        return place

    def process(self, place: Path, work: Callable[[], int], points: Points | None = None) -> Ended:
        """Do work in a process of its own, in a workplace, and wait for its end."""
        return self.wait(self.start(place, work, points), place)

    def start(self, place: Path, work: Callable[[], int], points: Points | None = None) -> int:
        """Begin some work in a process of its own; return its number."""
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child:
            return child
        status = 1
        try:
            os.setsid()
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)  # in the background they may be ignored
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self.enter(place)
            if points is not None:
                points.install()
                self.attacked.watch(points)
            status = work()
        except BaseException:
            traceback.print_exc()
        finally:
            with suppress(OSError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status & 0xFF)
        return 0

    def wait(self, child: int, place: Path) -> Ended:
        """Return how a process has ended; one that takes too long is killed."""
        limit, status = time.monotonic() + LIMIT, None
        while status is None:
            found, code = os.waitpid(child, os.WNOHANG)
            if found:
                status = os.waitstatus_to_exitcode(code)
            elif time.monotonic() > limit:
                os.killpg(child, signal.SIGKILL)
                limit += LIMIT
            else:
                time.sleep(0.002)
        return self._ended(status, place)

    def _ended(self, status: int, place: Path) -> Ended:
        texts = [Path(f"{place}.{name}") for name in ("stdout", "stderr")]
        out, error = (text.read_text(errors="replace") for text in texts)
        return Ended(status, out, error, self.usual)

    def ask(self, place: Path, work: Callable[[], int]) -> Ended:
        """Do work in a workplace, in a process that has done it before in others, which is quick.

        It must leave nothing in the process; one that ends or takes too long is replaced.
        """
        if work not in self._servers:
            self._servers[work] = Server(self, work)
        status = self._servers[work].ask(place)
        if status is None:
            status = self._servers.pop(work).end()
        return self._ended(status, place)

    def run_once(
        self, place: Path, name: str, told: Iterable[Any], points: Points | None = None
    ) -> list[str]:
        """Run undisturbed; return what the process then has to tell, line by line."""
        file = place.with_suffix(f".{name}")

        def work() -> int:
            status = self.attacked.run()
            lines = [one if isinstance(one, str) else "\t".join(one) for one in told]
            file.write_text("\n".join(lines))
            return status

        ended = self.process(place, work, points)
        if ended.status:
            sys.exit(f"{self.attacked.NAME} fails undisturbed:\n{ended.error}")
        self.usual = {*ended.error.splitlines()}
        return file.read_text().splitlines()

    def _import_what(self, names: list[str]) -> None:
        """Import here what every run would import anew."""
        for name in names:
            if name not in sys.modules and name.partition(".")[0] not in _OWN:
                with suppress(Exception):
                    importlib.import_module(name)

    def _warm_up(self) -> None:
        """Run once in this process, so that those forked from it find all caches filled."""
        place, here, paths = self.new_place(), os.getcwd(), [*sys.path]
        sys.stdout.flush()
        streams = [os.dup(number) for number in (1, 2)]
        try:
            self.enter(place)
            self.attacked.run()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, stream in enumerate(streams, 1):
                os.dup2(stream, number)
                os.close(stream)
            os.chdir(here)
            sys.path[:] = paths
            sys.modules.pop(_OWN[0], None)
        gc.collect()
        gc.freeze()  # which else goes through all of it in each run

    def enter(self, place: Path) -> None:
        """Let this process work in a workplace, and print into files beside it."""
        os.chdir(place)
        for number, name in ((1, "stdout"), (2, "stderr")):
            file = os.open(f"{place}.{name}", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
            os.dup2(file, number)
            os.close(file)
        sys.path.insert(0, str(place))
        free_of_others()

    def hit(self, place: Path, at: int, act: Any, **flags: bool) -> Ended:
        """Run, and do something at a moment."""
        points = Points(place / "out", at, act)
        return self.process(place, lambda: self.attacked.run(**flags), points)

    def go_on(self, place: Path) -> Ended:
        """Go on with a run, or begin it anew where nothing is there to go on from."""
        if self.attacked.RESUMES:
            ended = self.process(place, lambda: self.attacked.run(resume=True))
            if ended.status == 0 or not nothing_yet(ended):
                return ended
        return self.process(place, lambda: self.attacked.run(anew=True))

    def differs(self, place: Path, more: bool = False) -> list[str]:
        """Return in which files a run differs from the undisturbed one."""
        try:
            found = outcome(place / "out", self.attacked.CLEANS, but=self.attacked.UNLIKE)
            return differences(found, self.expected, more)
        except Exception as error:  # a file that cannot be read
            return [f"{type(error).__name__}: {error}"]


class Server:
    """A process that does some work in one workplace after another.

    :param work: returns the exit status that a process for it alone would have
    """

    def __init__(self, arena: Arena, work: Callable[[], int]) -> None:
        (asked, self._asks), (self._told, tells) = os.pipe(), os.pipe()

        def serve() -> int:
            os.close(self._asks)
            paths = [*sys.path]
            for line in os.fdopen(asked):
                sys.path[:] = paths
                arena.enter(Path(line.rstrip()))
                status = 1
                try:
                    status = work()
                except BaseException:
                    traceback.print_exc()
                sys.stdout.flush()
                sys.stderr.flush()
                os.write(tells, f"{status}\n".encode())
            return 0

        self._child = arena.start(arena.root, serve)
        os.close(asked)
        os.close(tells)

    def ask(self, place: Path) -> int | None:
        """Have the work done, and return its status; None if the process does not answer."""
        os.write(self._asks, f"{place}\n".encode())
        able, _, _ = select.select([self._told], [], [], LIMIT)
        return int(text) if able and (text := os.read(self._told, 16)) else None

    def end(self) -> int:
        """End the process, if it has not; return its status."""
        os.close(self._asks)
        os.close(self._told)
        with suppress(ProcessLookupError):
            os.killpg(self._child, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self._child, 0)[1])


def nothing_yet(ended: Ended) -> bool:
    return any(part in ended.error for part in _NOTHING)
