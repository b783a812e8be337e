"""How a run ends before its end: in a line or two on stderr, never in a traceback.

A mistake of the user's is told in one line. Any other error is, too, and its traceback goes to a
file. Signals, by which schedulers stop jobs and users press Ctrl-C, end a run after the step that
is being taken, so that it can be saved.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from sparseml.utils.text import few as few
from sparseml.utils.text import one_line as one_line
from sparseml.utils.text import printable

ERROR_FILE = "error.txt"
"""Where a run directory has the traceback of what ended the run."""
_MISTAKE, _FAILURE = 2, 1
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_OF_WRITING = ("inline_container", "PytorchStreamWriter failed", "iostream error")  # torch's
_WHOLE = "SPARSEML_TRACEBACK"  # set in the environment, it lets tracebacks through
_LONGEST = 600  # letters of an error that is not ours
_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")


class RunError(Exception):
    """Settings, data or files that a run cannot work with."""


class Stopped(BaseException):
    """The end that a signal has asked for."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass
class _Signals:
    asked: int | None = None
    awaited: Callable[[Any], bool] | None = None  # whether a frame is within what lets them wait
    reported: bool = False  # whether Stopped will be told of


_STATE = _Signals()


@contextmanager
def stopping_between_steps() -> Iterator[Callable[[], int | None]]:
    """Let signals wait within the block, which is given a function to ask for them.

    It returns the number of the signal, after which :class:`Stopped` is to be raised, or None.
    A second signal does not wait.
    """
    _STATE.awaited = lambda frame: True
    try:
        yield signal_asked
    except Exception as error:
        if _STATE.asked is not None:  # as where the signal has ended the processes that load data
            raise Stopped(_STATE.asked) from error
        raise
    finally:
        _STATE.awaited = None


def signal_asked() -> int | None:
    """Return the number of the signal that waits for the end of a step."""
    return _STATE.asked


class StoppingLoop:
    """Lets signals wait for the end of a step in a loop of others, which cannot be put in a block.

    Outside of the loop, as after an error in it, signals do what they did before.

    :param inside: whether a frame is within the loop
    """

    def __init__(self, inside: Callable[[Any], bool]) -> None:
        self._inside = inside
        self._stack = ExitStack()

    def begin(self) -> None:
        """Let signals wait from now on."""
        self.end()
        if not _STATE.reported:
            self._stack.enter_context(_handled())
        _STATE.awaited = self._inside
        self._stack.callback(setattr, _STATE, "awaited", None)

    def end(self) -> None:
        """Let signals do what they did before."""
        self._stack.close()

    def stop(self, number: int, goes_on: str) -> NoReturn:
        """End the run that a signal has asked to end.

        :param goes_on: how to go on with it, where nobody else tells
        :raises Stopped: where that is told of; elsewhere SystemExit, once it is told
        """
        self.end()
        stopped = Stopped(number)
        if _STATE.reported:
            raise stopped
        stopped.ending = Ending(goes_on=goes_on)  # type: ignore[attr-defined]
        raise SystemExit(_tell_stopped(stopped))


@contextmanager
def _handled() -> Iterator[None]:
    """Let signals raise :class:`Stopped` in the block if that is told of, or wait for a step."""
    if threading.current_thread() is not threading.main_thread():  # where no handler can be set
        yield
        return
    before: dict[int, Any] = {}
    owner = os.getpid()

    def ask(number: int, frame: Any) -> None:
        if os.getpid() != owner:  # one that loads data ends with the process that it does it for
            return
        waits = _STATE.awaited is not None and _STATE.awaited(frame)
        if waits and _STATE.asked is None:
            _STATE.asked = number
            with suppress(OSError):  # print may be interrupted in the middle of itself
                os.write(2, b"stopping after this step; once more stops at once\n")
        elif _STATE.reported:
            raise Stopped(number)
        else:
            signal.signal(number, before[number])
            os.kill(owner, number)

    for name in _SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # as by nohup
            before[number] = signal.signal(number, ask)
    _STATE.asked = None
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is ask:
                signal.signal(number, handler)


@contextmanager
def _reporting() -> Iterator[None]:
    outer, _STATE.reported = _STATE.reported, True
    try:
        with _handled():
            yield
    finally:
        _STATE.reported = outer


@dataclass(frozen=True)
class Ending:
    """What there is to say at the end of a run that is not its last line.

    :param folder: of the run
    :param goes_on: how to go on with it
    """

    folder: Path | None = None
    goes_on: str = ""


@contextmanager
def ending_told(tell: Callable[[], Ending]) -> Iterator[None]:
    """Add to any error of the block what there is to say then."""
    try:
        yield
    except BaseException as error:
        with suppress(Exception):  # what ended the run matters more
            error.ending = tell()  # type: ignore[attr-defined]
        raise


def run_reported(main: Callable[[], None]) -> int:
    """Call ``main``; whatever ends it is told in a line or two on stderr.

    The traceback of an error that is no mistake of the user's is written to ``error.txt`` in the
    run's folder, or to a temporary file.

    :return: the exit status: 2 after a mistake or on a full disk, 1 after another error, 128 and
        the number of the signal after one
    """
    try:
        with _reporting():
            return mistakes_told(main)
    except (Stopped, KeyboardInterrupt) as end:
        return _tell_stopped(end)
    except Exception as error:
        if os.environ.get(_WHOLE) or hasattr(error, "exit_code"):  # which click tells by itself
            raise
        text, ending = one_line(error), _ending(error)
        text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        _tell(f"error: {type(error).__name__}: {text} ({place} in {last.name})")
        written = _write_traceback(error, ending.folder)
        told = [f"the traceback is in {written}" if written else "", ending.goes_on]
        _tell("; ".join(filter(None, told)))
        return _FAILURE


def mistakes_told(main: Callable[[], None]) -> int:
    """Call ``main``; what the user got wrong, and a full disk, is told in one line.

    :return: the exit status, 2 after such a mistake
    """
    try:
        main()
    except Exception as error:
        reason = one_line(error) if _is_mistake(error) else _no_room(error)
        if reason is None:
            raise
        goes_on = _ending(error).goes_on
        _tell("; ".join(filter(None, [f"error: {reason}", goes_on])))
        return _MISTAKE
    return 0


def _tell_stopped(end: BaseException) -> int:
    number = int(getattr(end, "number", signal.SIGINT))
    goes_on = _ending(end).goes_on
    _tell("; ".join(filter(None, [f"stopped by {signal.Signals(number).name}", goes_on])))
    return 128 + number


def _ending(error: BaseException) -> Ending:
    found = getattr(error, "ending", None)
    return found if isinstance(found, Ending) else Ending()


def _tell(text: str) -> None:
    rank, text = int(os.environ.get("RANK", "0")), printable(text)
    with suppress(OSError):  # stderr may be closed, too
        print(f"[rank {rank}] {text}" if rank else text, file=sys.stderr, flush=True)


def _write_traceback(error: Exception, folder: Path | None) -> Path | None:
    text = "".join(traceback.format_exception(error))
    for parent in (folder, Path(tempfile.gettempdir())):
        if parent is None or not parent.is_dir():
            continue
        file = parent / (ERROR_FILE if parent is folder else f"sparseml-{os.getpid()}-{ERROR_FILE}")
        with suppress(OSError):
            file.write_text(text, encoding="utf-8", errors="backslashreplace")
            return file
    return None


def _is_mistake(error: Exception) -> bool:
    if isinstance(error, RunError):
        return True
    # here, as torch takes a while to import
    from sparseml.optim.errors import RecipeError
    from sparseml.pytorch.utils.saving.files import CheckpointError
    from sparseml.utils.locks import FolderInUseError

    return isinstance(error, (RecipeError, CheckpointError, FolderInUseError))


def _no_room(error: Exception) -> str | None:
    """Return what to tell of a disk that takes nothing more; None for any other error."""
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        file = f"{error.filename} " if error.filename else "the results "
        return f"{file}cannot be written: {error.strerror}"
    # torch and safetensors raise errors of their own
    if os.strerror(errno.ENOSPC) in str(error):
        return f"the results cannot be written: {one_line(error)}"
    if isinstance(error, RuntimeError) and any(part in str(error) for part in _OF_WRITING):
        return f"the results cannot be written, as on a full disk: {one_line(error)}"
    return None
