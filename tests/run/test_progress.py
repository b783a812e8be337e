"""Showing how far a job is."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from sparseml.cli.tables import table
from sparseml.run import say, shown_progress
from sparseml.run.commands import AboveBars


class Terminal(io.StringIO):
    """A text buffer that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def _progress(stream: Any, total: int = 20) -> str:
    with shown_progress("job", total, stream=stream) as advance:
        for done in range(1, total + 1):
            advance(done, f"loss {done}")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, []), (3.0, [4, 8, 12, 16, 20]), (11.0, range(1, 21)), (0.6, [17, 20])],
)
def test_plain_lines_in_a_log_come_by_time(
    monkeypatch: pytest.MonkeyPatch, seconds: float, told: Sequence[int]
) -> None:
    now = iter(seconds * step for step in range(21))
    monkeypatch.setattr("sparseml.run.progress.time.monotonic", lambda: next(now))
    lines = _progress(io.StringIO()).splitlines()
    assert lines == [f"job {done}/20  loss {done}" for done in told]


def test_a_bar_on_a_terminal() -> None:
    shown = _progress(Terminal())
    assert "\r" in shown and "20/20" in shown and "loss 20" in shown and "\n" not in shown


def test_lines_of_a_log_go_above_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    record = logging.makeLogRecord({"msg": "a line", "levelno": logging.INFO})
    with shown_progress("job", 20, stream=terminal) as advance:
        advance(1, "loss 1")
        shown = terminal.tell()
        AboveBars().handle(record)
    before, line, after = terminal.getvalue()[shown:].partition("a line\n")
    assert line and before.strip("\r ") == "", "the bar is cleared first"
    assert "1/20" in after, "and drawn anew below"


def test_silence_of_other_processes() -> None:
    stream = io.StringIO()
    with shown_progress("job", 3, shown=False, stream=stream) as advance:
        advance(1, "")
    assert stream.getvalue() == ""


def test_what_would_control_a_terminal_is_shown_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b[2Jb\x07\u202e ü\n\tc")
    assert capsys.readouterr().out == "a\\x1b[2Jb\\x07\\u202e ü\n\tc\n"
    assert table("", ["name"], [["w\x1b]0;t\x07"]]).splitlines()[-1] == " w\\x1b]0;t\\x07"
