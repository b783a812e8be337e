"""Processes that tests fork: two of one run, and Pythons for which everything is imported."""

from __future__ import annotations

import atexit
import faulthandler
import gc
import importlib
import inspect
import logging
import os
import random
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from multiprocessing.context import ForkProcess, SpawnProcess
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Ended(NamedTuple):
    """How a process ended: its status, minus the signal that killed it, and its stderr."""

    status: int
    error: str


@pytest.fixture
def in_two(tmp_path: Path) -> Callable[..., list[Ended]]:
    """Let two processes of one run, forked from this one, do some work, which is given its rank.

    A process that has not ended after some seconds is killed.
    """

    def run(work: Callable[[int], object], seconds: float = 100.0) -> list[Ended]:
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        told = [tmp_path / f"stderr of rank {rank}" for rank in range(2)]
        children = [_forked(rank, port, work, file) for rank, file in enumerate(told)]
        ended, end = [], time.monotonic() + seconds
        for child, file in zip(children, told, strict=True):
            found, code = os.waitpid(child, os.WNOHANG)
            while not found:
                time.sleep(0.02)
                if time.monotonic() > end:
                    os.kill(child, signal.SIGKILL)
                found, code = os.waitpid(child, os.WNOHANG)
            ended.append(Ended(os.waitstatus_to_exitcode(code), file.read_text()))
        return ended

    if not hasattr(os, "fork"):
        pytest.skip("a system that cannot fork")
    return run


def _forked(rank: int, port: int, work: Callable[[int], object], told: Path) -> int:
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        sys.stderr = told.open("w", buffering=1)
        os.dup2(sys.stderr.fileno(), 2)
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": 2}
        place |= {"RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": 2}
        os.environ.update({name: str(value) for name, value in place.items()})
        work(rank)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


class WarmProcess(subprocess.Popen[Any]):
    """A process of Python that is forked from this one: what is imported here is there at once.

    It has its own output, folder, environment, arguments, handlers of signals, random numbers and
    ``__main__``. Unlike a new one it has this one's seed of hashes and open files, and what modules
    read of the environment as they were imported; so tests of how a process starts, or of orders
    of sets, start new ones. Other programs are started as ever, as is all where there is a GPU.
    """

    def _execute_child(self, args: Any, *given: Any) -> None:
        start = super()._execute_child  # type: ignore[misc]
        names = list(inspect.signature(start).parameters)[1:]
        told = dict(zip(names, given, strict=True))
        words = [] if isinstance(args, (str, bytes)) else [os.fspath(word) for word in args]
        unusual = any(told.get(name) for name in ("preexec_fn", "pass_fds"))
        if not _is_python(words) or unusual or _gpus():
            start(args, *given)
            return
        ends = [told[name] for name in ("p2cwrite", "c2pread", "errread")]
        streams = [told[name] for name in ("p2cread", "c2pwrite", "errwrite")]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer Pythons do, where there are threads
            self.pid = os.fork()
        if not self.pid:
            _as_new(words, streams, ends, told)
        self._child_created = True
        self._close_pipe_fds(  # type: ignore[attr-defined]
            *(told[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite")),
            told["errread"], told["errwrite"],
        )  # fmt: skip


def _gpus() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_available()  # it cannot be used in a fork


def _is_python(words: list[str]) -> bool:
    if not words or words[0] == sys.executable:
        return bool(words)
    script = Path(words[0])
    return script.parent == Path(sys.executable).parent and script.read_bytes()[:2] == b"#!"


def _as_new(words: list[str], streams: list[int], ends: list[int], told: dict[str, Any]) -> None:
    """Be a new process, from its first line to its end."""
    status = 1
    try:
        atexit._clear()
        faulthandler.disable()
        gc.freeze()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if told["start_new_session"]:
            os.setsid()
        for place, stream in enumerate(streams):
            if stream != -1:
                os.dup2(stream, place)
        for end in ends:
            if end != -1:
                os.close(end)
        os.chdir(told["cwd"] or ".")
        if told["env"] is not None:
            os.environ.clear()
            os.environ.update(told["env"])
        _forget()
        status = _status_of(words[1:] if words[0] == sys.executable else words)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(status)


def _forget() -> None:
    """Leave behind what this process would have inherited, but for the imported modules."""
    encoding = os.environ.get("PYTHONIOENCODING", "utf-8")
    sys.stdin = sys.__stdin__ = os.fdopen(0, encoding=encoding, closefd=False)
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", encoding=encoding, closefd=False)
    told = os.fdopen(2, "w", 1, encoding, "backslashreplace", closefd=False)
    sys.stderr = sys.__stderr__ = told
    sys.path[:0] = [one for one in os.environ.get("PYTHONPATH", "").split(os.pathsep) if one]
    warnings.resetwarnings()
    warnings.simplefilter("ignore")
    logging.root.handlers.clear()
    for name in (None, "sparseml", "__main__"):
        logging.getLogger(name).setLevel(logging.NOTSET if name else logging.WARNING)
    random.seed()
    if torch := sys.modules.get("torch"):
        torch.seed()
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
    handler = "torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler"
    if elastic := sys.modules.get(handler):
        elastic.Popen = subprocess.Popen
    if pools := sys.modules.get("concurrent.futures.thread"):
        pools._threads_queues.clear()
    if state := sys.modules.get("accelerate.state"):
        for kind in (state.PartialState, state.AcceleratorState, state.GradientState):
            kind._shared_state.clear()


def _status_of(words: list[str]) -> int:
    """Run what follows ``python`` on the command line and return how it ended."""
    while words[0] in ("-u", "-W"):
        if words[0] == "-W":
            warnings.simplefilter(words.pop(1))  # type: ignore[arg-type]
        else:
            sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
        words = words[1:]
    status: object = 0
    try:
        if words[0] == "-c":
            sys.argv, sys.path[:0] = ["-c", *words[2:]], [""]
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(words[1], "<string>", "exec"), vars(main))  # noqa: S102
        elif words[0] == "-m":
            sys.argv, sys.path[:0] = ["-m", *words[2:]], [os.getcwd()]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv, sys.path[:0] = list(words), [str(Path(words[0]).resolve().parent)]
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
        status = 1
    if not isinstance(status, (int, type(None))):
        print(status, file=sys.stderr)
        status = 1
    with suppress(AssertionError):  # forked by a thread that is not the main one
        threading._shutdown()  # type: ignore[attr-defined]
    if util := sys.modules.get("multiprocessing.util"):
        util._exit_function()
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except OSError:
        status = status or 120
    return int(status or 0)


def _instead_of_spawning(process: Any) -> Any:
    ForkingPickler.dumps((process._target, process._args, process._kwargs))  # as a new one needs
    return ForkProcess._Popen(process)  # type: ignore[attr-defined]


@contextmanager
def _warm() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if hasattr(os, "fork"):
            patch.setattr(subprocess, "Popen", WarmProcess)
            patch.setattr(SpawnProcess, "_Popen", staticmethod(_instead_of_spawning))
            if "torch" in sys.modules:
                importlib.import_module("torch._dynamo")  # the first optimizer does
        yield


@pytest.fixture
def warm() -> Iterator[None]:
    """Fork processes of Python from this one, in a test that is not about how they start.

    Ten seconds of imports are saved for each.
    """
    with _warm():
        yield


@pytest.fixture(scope="session")
def warmly() -> Callable[[], AbstractContextManager[None]]:
    """Give :func:`warm` for a part of a test, or for a fixture."""
    return _warm
