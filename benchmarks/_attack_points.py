"""Where a run can be hit: every stage of every file that it writes, and every step."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, NamedTuple

FILLER = "filler"
LINES = 8
"""Of so many lines that are logged one counts."""


class Point(NamedTuple):
    """A moment of a run.

    :param stage: ``begun``, ``half``, ``written``, ``kept`` and ``renamed`` of a file that takes
        another's place as a whole, ``begun``, ``half`` and ``written`` of one that does not,
        ``step`` or ``evaluation``
    :param what: the file, or the number of the step or evaluation
    """

    stage: str
    what: str


class Points:
    """Counts the moments of the run in this process, and does something at one of them.

    :param root: the folder of the run; files outside are passed over
    :param at: the number of the moment; None only counts
    :param act: what to do, given the moment and the file that is being written, if there is one
    """

    def __init__(
        self, root: Path, at: int | None = None, act: Callable[[Point, Path | None], None] = print
    ) -> None:
        self.root, self.at, self.act = root, at, act
        self.seen: list[Point] = []
        self._counts = {"step": 0, "evaluation": 0}
        self._lines = 0

    def reach(self, stage: str, target: Any = None, file: Any = None) -> None:
        """Note a moment, and act if it is the one."""
        if stage in self._counts:
            self._counts[stage] += 1
            point = Point(stage, str(self._counts[stage]))
        else:
            path = Path(target).absolute()
            if not path.is_relative_to(self.root.absolute()):
                return
            point = Point(stage, str(path.relative_to(self.root.absolute())))
        self.seen.append(point)
        if self.at == len(self.seen) - 1:
            self.act(point, None if file is None else Path(file))

    def install(self) -> None:
        """Patch what writes files, takes steps and evaluates; for a process that ends with it."""
        from sparseml.pytorch.optim import StepDriver
        from sparseml.pytorch.utils.loggers.json_lines import JSONLinesLogger
        from sparseml.utils import atomic

        reach = self.reach
        state: dict[str, Any] = {}

        def before_part(original: Any, target: Path) -> None:
            original(target)
            state["target"] = target
            reach("begun", target, target.with_name(f".{target.name}.00000000.part"))

        def sync(original: Any, path: Path) -> None:
            original(path)
            if path.is_dir():
                reach("renamed", state["target"])
            else:
                state["part"] = path
                reach("half", state["target"], path)
                reach("written", state["target"], path)

        def keep(original: Any, target: Path) -> None:
            original(target)
            reach("kept", target, state["part"])

        def emit(original: Any, logger: Any, entry: Any) -> Any:
            done = original(logger, entry)
            self._lines += 1
            if self._lines % LINES == 1:
                reach("half", logger.path, logger.path)
            return done

        def step(original: Any, *args: Any, **kwargs: Any) -> Any:
            done = original(*args, **kwargs)
            reach("step")
            return done

        for owner, name, around in (
            (atomic, "_remove_stale_parts", before_part),
            (atomic, "_sync", sync),
            (atomic, "_keep", keep),
            (JSONLinesLogger, "emit", emit),
            (StepDriver, "after_step", step),
        ):
            wrap(owner, name, around)

    def evaluates(self, owner: Any, name: str) -> None:
        """Count the calls of a function as evaluations."""

        def around(original: Any, *args: Any, **kwargs: Any) -> Any:
            self.reach("evaluation")
            return original(*args, **kwargs)

        wrap(owner, name, around)

    def writes(self, owner: Any, name: str, place: int) -> None:
        """Count the stages of a file that a function writes where it is to be.

        :param place: of the path among the arguments
        """

        def around(original: Any, *args: Any, **kwargs: Any) -> Any:
            path = args[place] if len(args) > place else None
            if not isinstance(path, (str, os.PathLike)) or str(path).endswith(".part"):
                return original(*args, **kwargs)
            self.reach("begun", path)
            done = original(*args, **kwargs)
            self.reach("half", path, path)
            self.reach("written", path, path)
            return done

        wrap(owner, name, around)

    def renames(self, owner: Any, name: str) -> None:
        """Count the stages of a file that a function renames."""

        def around(original: Any, source: str, target: str, *args: Any, **kwargs: Any) -> Any:
            for stage in ("begun", "half", "written"):
                self.reach(stage, target, source)
            done = original(source, target, *args, **kwargs)
            self.reach("renamed", target)
            return done

        wrap(owner, name, around)


def wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    """Have ``around`` called, with the function first, in the place of a function."""
    original = getattr(owner, name)

    @wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    setattr(owner, name, call)


def kill(point: Point, file: Path | None) -> None:
    """End this process as SIGKILL does, with half of the file on the disk if that is the stage."""
    if file is not None and point.stage == "begun":
        file.touch()
    if file is not None and point.stage == "half":
        size = file.stat().st_size
        whole = file.read_bytes().rstrip().rfind(b"\n") + 1 if file.suffix == ".jsonl" else 0
        os.truncate(file, (whole + size) // 2)
    os.kill(os.getpid(), signal.SIGKILL)


def send(number: int, whole_group: bool = False) -> Callable[[Point, Path | None], None]:
    """Return what sends a signal to this process, or to all of its group."""

    def act(point: Point, file: Path | None) -> None:
        (os.killpg if whole_group else os.kill)(os.getpid(), number)

    return act


def fill(disk: Path, sizes: dict[str, int]) -> Callable[[Point, Path | None], None]:
    """Return what leaves no room on a disk, or room for half of the file that comes.

    :param sizes: of the files of the undisturbed run
    """

    def act(point: Point, file: Path | None) -> None:
        left = sizes.get(point.what, 0) // 2 if point.stage == "half" else 0
        wanted = shutil.disk_usage(disk).free - left
        with open(disk / FILLER, "wb", buffering=0) as filler:
            try:
                while wanted > 0:
                    wanted -= filler.write(bytes(min(wanted, 1 << 20)))
            except OSError:
                return

    return act
