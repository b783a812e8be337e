"""Fine-tuning configurations in processes of their own, which may be ended early."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparseml.compose.finishing import RESULT
from sparseml.run.errors import RunError

_START = "from sparseml.cli import main; main(prog_name='sparseml')"
_TAIL = 1


@dataclass
class Trying:
    """Starts ``sparseml compose finetune`` for a configuration.

    :param store: the folder of the blocks; models go into ``models/`` there
    :param words: further flags of the command
    """

    store: Path
    words: Sequence[str]

    def start(self, name: str) -> Process:
        """Start a configuration."""
        command = [sys.executable, "-c", _START, "compose", "finetune"]
        command += ["--store", str(self.store), "--config", name, *self.words]
        log = self.store / "models" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        return Process(name, child, log, log.parent / name / RESULT)


@dataclass
class Process:
    """A configuration that is being fine-tuned."""

    name: str
    child: subprocess.Popen[bytes]
    log: Path
    result: Path
    cancelled: bool = False

    def wait(self) -> Mapping[str, float] | None:
        """Return its metrics; None if it was cancelled.

        :raises RunError: if it has failed
        """
        status = self.child.wait()
        if self.cancelled:
            return None
        if status:
            last = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL:]
            told = last[-1] if last else "it said nothing"
            raise RunError(f"{self.name} has failed with status {status}, see {self.log}: {told}")
        found: dict[str, float] = json.loads(self.result.read_text(encoding="utf-8"))["metrics"]
        return found

    def cancel(self) -> None:
        """End it."""
        self.cancelled = True
        self.child.terminate()
