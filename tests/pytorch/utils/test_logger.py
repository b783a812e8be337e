from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from sparseml.pytorch.utils import (
    BaseLogger,
    LambdaLogger,
    LoggerManager,
    PythonLogger,
    SparsificationGroupLogger,
    TensorBoardLogger,
    WANDBLogger,
)
from sparseml.pytorch.utils.logger import LOGGING_LEVELS, ClearMLLogger

Calls = list[dict[str, Any]]


def _recorder() -> tuple[Calls, LambdaLogger]:
    calls: Calls = []
    return calls, LambdaLogger(lambda **kwargs: calls.append(kwargs))


def _log_everything(logger: Any) -> list[Any]:
    return [
        logger.log_hyperparams({"lr": 0.1, "name": "x"}, level=logging.INFO),
        logger.log_scalar("loss", 1.5, 3, 12.0),
        logger.log_scalar(tag="loss", value=torch.tensor(2.0), step=4, level=logging.INFO),
        logger.log_scalars("acc", {"top1": 1, "top5": 2.0}, 5, 13.0, level=10),
        logger.log_string("note", "hello", 6),
    ]


@pytest.fixture
def package_logger() -> Iterator[logging.Logger]:
    """The package's own logger, put back afterwards."""
    logger = logging.getLogger("sparseml.pytorch.utils.logger")
    before = (list(logger.handlers), logger.level, logger.propagate)
    yield logger
    for handler in logger.handlers:
        if handler not in before[0]:
            handler.close()
    logger.handlers, logger.level, logger.propagate = before


def test_levels() -> None:
    assert LOGGING_LEVELS["warn"] == logging.WARNING
    assert list(LOGGING_LEVELS) == ["debug", "info", "warn", "error", "critical"]


def test_base_logger_takes_nothing() -> None:
    logger = BaseLogger("base")
    assert _log_everything(logger) == [False] * 5
    assert logger.save("file") is False
    assert (logger.name, logger.enabled) == ("base", True)
    logger.enabled = False
    assert logger.enabled is False


def test_lambda_logger() -> None:
    calls, logger = _recorder()
    assert _log_everything(logger) == [True, True, True, True, False]
    assert [call["tag"] for call in calls] == ["hyperparams", "loss", "loss", "acc"]
    assert calls[0]["values"] == {"lr": 0.1, "name": "x"}
    assert calls[1] == {
        "tag": "loss", "value": 1.5, "values": None, "step": 3, "wall_time": 12.0, "level": None,
    }  # fmt: skip
    assert calls[2]["level"] == logging.INFO
    assert calls[2]["wall_time"] > 1e9  # now
    assert calls[3]["value"] is None
    assert calls[3]["values"] == {"top1": 1, "top5": 2.0}
    assert LambdaLogger(print).lambda_func is print
    with pytest.raises(AttributeError):
        logger.lambda_func = print  # type: ignore[misc]


def test_lambda_logger_needs_a_function() -> None:
    with pytest.raises(AssertionError):
        LambdaLogger(None)  # type: ignore[arg-type]


def test_python_logger_writes_lines(caplog: pytest.LogCaptureFixture) -> None:
    target = logging.getLogger("test_python_logger")
    logger = PythonLogger(target, log_level=logging.WARNING)
    with caplog.at_level(logging.INFO, target.name):
        assert all(_log_everything(logger))
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("INFO", "hyperparams: lr: 0.1, name: x"),
        ("WARNING", "loss step 3: 1.5"),
        ("INFO", "loss step 4: 2"),
        ("WARNING", "note step 6: hello"),
    ]


def test_python_logger_forwards_and_copies() -> None:
    target = logging.getLogger("test_forward")
    logger = PythonLogger(target)
    assert logger.isEnabledFor(logging.ERROR)
    assert logger.handlers is target.handlers
    assert copy.deepcopy(logger).logger is target
    with pytest.raises(AttributeError):
        _ = logger.nothing_like_it


def test_default_python_logger_leaves_no_trace(
    package_logger: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NM_TEST_MODE", raising=False)
    monkeypatch.chdir(tmp_path)
    handlers = list(package_logger.handlers)
    logger = PythonLogger()
    logger.log_scalar("a", 1.0)
    assert logger.logger is package_logger
    assert package_logger.handlers == handlers
    assert list(tmp_path.iterdir()) == []


def test_test_mode_redirects_to_a_file(
    package_logger: logging.Logger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package_logger.handlers = []
    folder = tmp_path / "logs"
    monkeypatch.setenv("NM_TEST_MODE", "True")
    monkeypatch.setenv("NM_TEST_LOG_DIR", str(folder))
    for _ in range(2):  # one handler however many loggers
        logger = PythonLogger()
    assert list(folder.iterdir()) == []
    logger.log_scalar("a", 1.0)
    (file,) = folder.iterdir()
    assert file.read_text() == "a: 1\n"
    other = tmp_path / "other"
    monkeypatch.setenv("NM_TEST_LOG_DIR", str(other))
    PythonLogger().log_scalar("b", 2.0)
    assert [path.read_text() for path in other.iterdir()] == ["b: 2\n"]
    assert file.read_text() == "a: 1\n"


class _Writer:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.calls.append((name, *args))


def test_tensorboard_logger_with_a_writer() -> None:
    writer = _Writer()
    logger = TensorBoardLogger(writer=writer)
    assert all(_log_everything(logger))
    assert logger.log_scalar("none", None) is False  # type: ignore[arg-type]
    assert writer.calls == [
        ("add_hparams", {"lr": 0.1, "name": "x"}, {}),
        ("add_scalar", "loss", 1.5, 3, 12.0),
        ("add_scalar", "loss", 2.0, 4, None),
        ("add_scalar", "acc/top1", 1, 5, 13.0),
        ("add_scalar", "acc/top5", 2.0, 5, 13.0),
        ("add_text", "note", "hello", 6, None),
    ]


def test_tensorboard_logger_writes_events(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    logger = TensorBoardLogger(tmp_path / "board")
    logger.log_scalar("loss", 1.0, 1)
    logger.writer.close()
    assert [path.name.split(".")[0] for path in (tmp_path / "board").iterdir()] == ["events"]


def test_tensorboard_default_folder_in_test_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("NM_TEST_MODE", "1")
    monkeypatch.setenv("NM_TEST_LOG_DIR", str(tmp_path))
    TensorBoardLogger().writer.close()
    assert (tmp_path / "tensorboard").is_dir()


def test_tensorboard_logger_refuses_both(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not both"):
        TensorBoardLogger(tmp_path, _Writer())


def test_tensorboard_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch.utils.tensorboard", "tensorboardX"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install sparseml-next\[tensorboard\]"):
        TensorBoardLogger()


@pytest.fixture
def fake_wandb(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, list[Any]]:
    module, calls = ModuleType("wandb"), []
    for name in ("init", "log", "save"):
        monkeypatch.setattr(
            module, name, lambda *a, _n=name, **k: calls.append((_n, a, k)), raising=False
        )
    config = SimpleNamespace(update=lambda *a, **k: calls.append(("config", a, k)))
    monkeypatch.setattr(module, "config", config, raising=False)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module, calls


def test_wandb_logger(fake_wandb: tuple[ModuleType, list[Any]]) -> None:
    module, calls = fake_wandb
    logger = WANDBLogger({"project": "p"})
    assert _log_everything(logger) == [True, True, True, True, False]
    assert logger.log_scalar("zero", 0.0, 7)
    assert logger.save("model.pth")
    assert calls[0] == ("init", (), {"project": "p"})
    assert ("log", ({"acc/top1": 1, "acc/top5": 2.0},), {"step": 5}) in calls
    assert ("log", ({"zero": 0.0},), {"step": 7}) in calls
    assert calls[-1] == ("save", ("model.pth",), {})
    assert LoggerManager([logger]).wandb is module


def test_what_wandb_has_written(
    stored_runs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.pth").write_bytes(b"weights")
    given = {"dir": str(tmp_path / "new"), "config": {"lr": 0.1, "b": [1]}}
    logger = WANDBLogger({"project": "p", **given})
    manager = LoggerManager([logger], log_python=False)
    manager.log_hyperparams({"lr": 0.2, "path": tmp_path, "scale": torch.tensor(2.0)})
    manager.log_scalar("loss", torch.tensor([1.5]), 0)
    manager.log_scalar("nothing", None, 1)
    manager.log_scalars("acc", {"top1": torch.tensor(0.0), "top5": float("nan")}, 1)
    manager.log_scalar("zero", 0.0, 1)
    manager.save("model.pth")
    logger.wandb.finish()
    (run,) = stored_runs(tmp_path / "new")
    assert (run.project, run.exit_code) == ("p", 0)
    assert run.config == {"lr": 0.2, "b": [1], "path": str(tmp_path), "scale": 2.0}
    assert [row["_step"] for row in run.rows] == [0, 1]
    rows = [{name: row[name] for name in sorted(row) if name[0] != "_"} for row in run.rows]
    assert str(rows) == "[{'loss': 1.5}, {'acc/top1': 0, 'acc/top5': nan, 'zero': 0}]"
    assert "model.pth" in run.files


def test_services_that_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.setitem(sys.modules, "clearml", None)
    assert not WANDBLogger.available() and not ClearMLLogger.available()
    with pytest.raises(ModuleNotFoundError, match="WANDBLogger needs wandb"):
        WANDBLogger()
    with pytest.raises(ModuleNotFoundError, match="ClearMLLogger needs clearml"):
        ClearMLLogger()
    with pytest.raises(KeyError):
        WANDBLogger(wandb_err=KeyError("given"))


def test_wandb_writes_to_the_log_folder_in_test_mode(
    fake_wandb: tuple[ModuleType, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NM_TEST_MODE", "True")
    monkeypatch.setenv("NM_TEST_LOG_DIR", str(tmp_path))
    WANDBLogger({"project": "p"})
    assert fake_wandb[1] == [("init", (), {"project": "p", "dir": str(tmp_path)})]


def test_group_logger_leaves_wandb_out_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    group = SparsificationGroupLogger(python=logging.getLogger("test_group"), wandb_=True)
    assert [type(logger) for logger in group.loggers] == [PythonLogger]
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "without Weights & Biases" in record.getMessage()


def test_children_of_a_group_bear_its_name(fake_wandb: tuple[ModuleType, list[Any]]) -> None:
    target = logging.getLogger("test_group")
    group = SparsificationGroupLogger(print, target, 20, _Writer(), {"project": "p"}, "mine")
    assert [logger.name for logger in group.loggers] == ["mine"] * 4
    assert fake_wandb[1] == [("init", (), {"project": "p"})]


def test_group_logger_builds_and_fans_out(tmp_path: Path) -> None:
    calls: Calls = []
    writer = _Writer()
    group = SparsificationGroupLogger(
        lambda_func=lambda **kwargs: calls.append(kwargs),
        python=logging.getLogger("test_group"),
        tensorboard=writer,
    )
    kinds = [type(logger) for logger in group.loggers]
    assert kinds == [LambdaLogger, PythonLogger, TensorBoardLogger]
    assert group.name == "sparsification"
    assert all(_log_everything(group))
    assert len(calls) == 4
    assert len(writer.calls) == 6
    group.enabled = False
    assert not any(logger.enabled for logger in group.loggers)
    assert _log_everything(group) == [False] * 5
    assert len(calls) == 4
    assert SparsificationGroupLogger().loggers == []


def test_group_logger_passes_a_path_on(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (board,) = SparsificationGroupLogger(tensorboard=str(tmp_path / "tb")).loggers
    assert isinstance(board, TensorBoardLogger)
    board.writer.close()
    assert (tmp_path / "tb").is_dir()


def test_manager_adds_one_python_logger() -> None:
    _, logger = _recorder()
    manager = LoggerManager([logger])
    assert [type(item) for item in manager] == [LambdaLogger, PythonLogger]
    assert len(LoggerManager([PythonLogger()])) == 1
    assert manager.name == "manager"
    assert manager.wandb is None
    empty = LoggerManager(log_python=False)
    assert len(empty) == 0
    assert not empty
    with pytest.raises(ValueError, match="must be a BaseLogger, found str"):
        manager.add_logger("x")  # type: ignore[arg-type]


def test_manager_selects_by_name_and_enabled() -> None:
    calls, logger = _recorder()
    manager = LoggerManager([logger], log_python=False)
    _log_everything(manager)
    assert len(calls) == 4
    assert calls[3]["level"] == 10
    manager.log_scalar("a", 1.0, log_types="other")
    manager.log_scalars("a", {"x": 1.0}, log_types=["other"])
    assert len(calls) == 4
    manager.log_scalar("a", 1.0, log_types=["other", "lambda"])
    manager.log_scalar("a", 1.0, log_types="__ALL__")
    assert len(calls) == 6
    logger.enabled = False
    manager.log_scalar("a", 1.0)
    assert len(calls) == 6


def test_manager_calls_the_methods_of_subclasses(tmp_path: Path) -> None:
    class Mine(BaseLogger):
        def __init__(self) -> None:
            super().__init__("mine")
            self.got: list[Any] = []

        def log_scalar(
            self, tag: str, value: Any, step: Any = None, wall_time: Any = None, **kwargs: Any
        ) -> bool:
            self.got.append((tag, value, step))
            return True

        def save(self, file_path: str, **kwargs: Any) -> bool:
            self.got.append(file_path)
            return True

    mine = Mine()
    manager = LoggerManager([mine], log_python=False)
    _log_everything(manager)
    manager.save("x.pth")
    assert mine.got == [("loss", 1.5, 3), ("loss", torch.tensor(2.0), 4), "x.pth"]


@pytest.mark.parametrize(
    ("epoch", "last", "ready"),
    [
        (None, 3.0, True),
        (1.0, None, True),
        (1.0, 1.0, True),
        (1.05, 1.0, False),
        (1.5, 1.0, True),
        (0.0, -1, True),
        (0.9, 1.0, False),
    ],
)
def test_log_ready(epoch: float | None, last: float | None, ready: bool) -> None:
    _, logger = _recorder()
    manager = LoggerManager([logger], log_frequency=0.1, log_python=False)
    assert manager.log_ready(epoch, last) is ready
    logger.enabled = False
    assert manager.log_ready(epoch, last) is False
    logger.enabled = True
    manager.log_frequency = None
    assert manager.log_ready(epoch, last) is False


def test_epoch_to_step() -> None:
    assert LoggerManager.epoch_to_step(1.25, 100) == 125
    assert LoggerManager.epoch_to_step(1.6, 0) == 2
    assert LoggerManager.epoch_to_step(1.6, -1) == 2
