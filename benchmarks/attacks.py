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
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch

from _attack_damage import damages, readers
from _attack_points import FILLER, Point, Points, fill, kill, send
from _attacked_runs import KINDS, Attacked, differences, free_of_others, outcome
from _timing import RESULTS, write_result

ATTACKS = ("kill", "disk", "damage", "two", "signal")
MOST_LINES = 10
LIMIT = 120.0
_OWN = ("own_code", "__main__")
_PROGRESS = ("epoch ", "stopping after")
_OF_LOOPS = ("step", "evaluation")
_NOTHING = (
    "no such file or folder",
    "before its first checkpoint",
    "not one",
    "has no checkpoint",
    "holds a run",
)
_INSIDE = "SPARSEML_ATTACKS_PLACE"
_MEMORY = "96M"


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


@dataclass
class Tally:
    """What became of the attacks of one kind on one run."""

    attacks: int = 0
    wrong: list[str] = field(default_factory=list)
    most_lines: int = 0
    note: str = ""
    seconds: float = 0.0


class Arena:
    """Runs of one kind, each in a workplace of its own, forked from this process."""

    def __init__(self, kind: type[Attacked], root: Path) -> None:
        self.root = root
        self.attacked = kind(root / "inputs")
        self._number, self.usual = 0, set[str]()
        made = self.process(self.attacked.place, lambda: self.attacked.prepare() or 0)
        if made.status:
            sys.exit(f"{kind.NAME} cannot be prepared:\n{made.error}")
        place = self.new_place()
        self._import_what(self.run_once(self.new_place(), "modules", sys.modules))
        points = Points(place / "out")
        lines = self.run_once(place, "points", points.seen, points)
        self.points = [Point(*line.split("\t")) for line in lines]
        self.expected = outcome(place / "out")
        files = (path for path in (place / "out").rglob("*") if path.is_file())
        self.sizes = {str(path.relative_to(place / "out")): path.stat().st_size for path in files}
        self.place = place

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
            os.chdir(place)
            for number, name in ((1, "stdout"), (2, "stderr")):
                os.dup2(os.open(f"{place}.{name}", os.O_CREAT | os.O_TRUNC | os.O_WRONLY), number)
            sys.path.insert(0, str(place))
            free_of_others()
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
        texts = [Path(f"{place}.{name}") for name in ("stdout", "stderr")]
        out, error = (text.read_text(errors="replace") for text in texts)
        return Ended(status, out, error, self.usual)

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

    def hit(self, place: Path, at: int, act: Any, **flags: bool) -> Ended:
        """Run, and do something at a moment."""
        points = Points(place / "out", at, act)
        return self.process(place, lambda: self.attacked.run(**flags), points)

    def go_on(self, place: Path) -> Ended:
        """Go on with a run, or begin it anew where nothing is there to go on from."""
        if self.attacked.RESUMES:
            ended = self.process(place, lambda: self.attacked.run(resume=True))
            if ended.status == 0 or not _nothing_yet(ended):
                return ended
        return self.process(place, lambda: self.attacked.run(anew=True))

    def differs(self, place: Path, more: bool = False) -> list[str]:
        """Return in which files a run differs from the undisturbed one."""
        try:
            found = outcome(place / "out", self.attacked.CLEANS)
            return differences(found, self.expected, more)
        except Exception as error:  # a file that cannot be read
            return [f"{type(error).__name__}: {error}"]


def _moments(arena: Arena, *stages: str) -> list[int]:
    return [at for at, point in enumerate(arena.points) if point.stage in stages]


def _nothing_yet(ended: Ended) -> bool:
    return any(part in ended.error for part in _NOTHING)


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
