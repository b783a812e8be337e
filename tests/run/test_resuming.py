"""Whether a checkpoint belongs to a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from sparseml.run import Processes, RunError, RunIdentity
from sparseml.run.settings import Settings, flag


@dataclass(kw_only=True)
class Run(Settings):
    """A run with a setting that weights depend on, one that they do not, and the optimizer."""

    lr: float = flag(0.1)
    scale: Sequence[float] = flag((0.5, 1.0), nargs=2)
    output: str = flag("here", changes="nothing")
    opt: str = flag("a", changes="optimizer")


def test_what_the_numbers_depend_on_is_compared(caplog: pytest.LogCaptureFixture) -> None:
    pair, alone = (RunIdentity.of(Run(), Processes(0, count)) for count in (2, 1))
    assert pair.values == {"lr": 0.1, "scale": [0.5, 1.0], "opt": "a", "processes": 2}
    pair.require_same("x", pair.values)
    assert not caplog.text
    alone.require_same("x", pair.values)
    assert "--resume x comes from other settings" in caplog.text
    assert "processes 2 (now 1)" in caplog.text
    pair.require_same("x", {})


def test_the_state_of_another_optimizer_is_refused() -> None:
    other = RunIdentity.of(Run(opt="b"), Processes())
    with pytest.raises(RunError, match="--resume x comes from --opt a, not b"):
        other.require_same("x", {"opt": "a"})
    other.require_same("x", {"opt": "a"}, with_optimizer=False)
