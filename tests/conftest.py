"""What tests share: the package's files and imports, runs of W&B, processes (``processes.py``)."""

from __future__ import annotations

import ast
import copy
import gc
import importlib.util
import inspect
import json
import logging
import os
import struct
import sys
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import sparseml

# Two workers with two threads each wait for one another on two cores; small tensors gain nothing
# by a second thread. Before torch is loaded, and for the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(sparseml.__file__).parent


def pytest_configure(config: pytest.Config) -> None:
    """Take in the fixtures of ``processes.py``, by its place: no folder here is to be imported."""
    spec = importlib.util.spec_from_file_location(
        "processes", Path(__file__).with_name("processes.py")
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config.pluginmanager.register(module, "processes")


@dataclass(frozen=True)
class SourceFile:
    """A file of the package; the ``__init__`` of a package has the package's name."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def is_init(self) -> bool:
        return self.path.name == "__init__.py"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that have slow tests, so that no worker waits for such a one at last."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """Keep what all imports have made out of the garbage collector's way.

    That is millions of objects, which each full collection would look at; Trainers ask for some.
    """
    gc.collect()
    gc.freeze()
    if "torch" in sys.modules:
        _do_not_wait_for_times_to_settle()


def _do_not_wait_for_times_to_settle() -> None:
    """Let models be timed for as many rounds as are asked for, and no further three seconds.

    Nearly every run ends by timing its models; how that goes on has tests that give all arguments.
    """
    from sparseml.report import measure_latency

    named = inspect.signature(measure_latency).parameters.values()
    measure_latency.__defaults__ = tuple(
        0.0 if one.name == "seconds" else one.default
        for one in named
        if one.default is not one.empty
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, Any, Any]:
    """Put the levels of loggers back that a script sets which a test has called."""
    loggers = [logging.getLogger(name) for name in (None, "sparseml", "__main__")]
    levels = [logger.level for logger in loggers]
    try:
        return (yield)
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@pytest.fixture(scope="session")
def source_files() -> dict[str, SourceFile]:
    """The files of the package by the names of their modules."""
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        found[name] = SourceFile(name, path, text, ast.parse(text))
    return found


@pytest.fixture(scope="session")
def imports(source_files: Mapping[str, SourceFile]) -> dict[str, set[str]]:
    """For each file the files that it imports from, wherever in it the imports stand."""
    return {
        name: {other for other in _named(file, source_files) if other in source_files} - {name}
        for name, file in source_files.items()
    }


def _named(file: SourceFile, known: Mapping[str, SourceFile]) -> Iterator[str]:
    """Yield modules that a file names in imports.

    ``from package import name`` names the module ``package.name`` if there is one, else the
    ``__init__`` of the package. Packages that a name only leads through do not count.
    """
    package = file.name if file.is_init else file.name.rpartition(".")[0]
    for node in ast.walk(file.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                yield inner if inner in known else base


@dataclass
class StoredRun:
    """A run as Weights & Biases has written it in its offline mode."""

    name: str = ""
    project: str = ""
    display: str = ""
    exit_code: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)


@pytest.fixture
def stored_runs(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], list[StoredRun]]:
    """Keep Weights & Biases offline; give what reads the runs below a folder, the oldest first."""
    wandb = pytest.importorskip("wandb")
    wandb.teardown()  # it reads the environment once
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    # it takes seconds to import what would start runs on other machines
    run = "wandb.sdk.wandb_run.Run._detect_and_apply_job_inputs"
    monkeypatch.setattr(run, lambda run: None, raising=False)

    def read(folder: Path) -> list[StoredRun]:
        wandb.teardown()  # only then all is sure to be on the disk
        files = sorted(folder.rglob("*.wandb"), key=lambda path: path.stat().st_mtime)
        return [_stored_run(path) for path in files]

    return read


def _stored_run(path: Path) -> StoredRun:
    run = StoredRun()
    for record in _records(path.read_bytes()):
        if record.HasField("run"):
            run.name, run.project = record.run.run_id, record.run.project
            run.display = record.run.display_name
        for config in (record.run.config, record.config):
            values = {item.key: json.loads(item.value_json) for item in config.update}
            run.config |= {key: value for key, value in values.items() if key != "_wandb"}
        if record.HasField("history"):
            items = record.history.item
            names = [item.key or "/".join(item.nested_key) for item in items]
            values = [json.loads(item.value_json) for item in items]
            run.rows.append(dict(zip(names, values, strict=True)))
        if record.HasField("exit"):
            run.exit_code = record.exit.exit_code
        run.files += [file.path for file in record.files.files]
    return run


def _records(data: bytes) -> Iterator[Any]:
    """Yield the package's messages; they lie in the format of LevelDB's log, behind 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    at, parts = 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        parts += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


class Called(NamedTuple):
    """What a run did."""

    status: int
    out: str
    error: str


@pytest.fixture
def call_run(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> Callable[..., Called]:
    """Call a run in this process, for a glue; its results go to ``out/run``.

    It must succeed unless it ``fails``.
    """
    flags = ["--output", "out", "--experiment", "run", "--device", "cpu", "--no-report"]

    def called(run: Any, glue: Any, *given: Any, fails: bool = False, threads: int = 1) -> Called:
        caplog.set_level(logging.INFO)
        argv = [*flags, "--threads", threads, *given]
        status = run(list(map(str, argv)), glue, "sparseml")
        out, error = capsys.readouterr()
        done = Called(status, out, error + caplog.text)
        assert (status != 0) == fails, done.out + done.error
        return done

    return called


@pytest.fixture(scope="session")
def quick_hydra() -> Iterator[None]:
    """Let Hydra read each flag of fairseq once, and keep its sources: a third of a training here.

    It would parse hundreds of them anew for each, by a grammar, and copy all sources of settings.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is old in it
        pytest.importorskip("hydra")
        from hydra._internal.config_repository import CachingConfigRepository
        from hydra.core.override_parser.overrides_parser import OverridesParser
    parse, known = OverridesParser.parse_rule, {}

    def parse_once(self: Any, text: str, rule: str) -> Any:
        if (text, rule) not in known:
            known[text, rule] = parse(self, text, rule)
        return copy.copy(known[text, rule])

    def keep(self: Any, delegate: Any) -> None:
        self.delegate, self.cache = delegate, {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OverridesParser, "parse_rule", parse_once)
        patch.setattr(CachingConfigRepository, "__init__", keep)
        yield
