"""A log file of one JSON object per line."""

from __future__ import annotations

import json
import os
from pathlib import Path

from sparseml.pytorch.utils.loggers.base import BaseLogger, LogEntry
from sparseml.utils.atomic import atomic_path
from sparseml.utils.plain import plain_data

_FIELDS = {"scalar": "value", "string": "string"}


class JSONLinesLogger(BaseLogger):
    """Appends every entry to a file as one line of JSON.

    A line holds ``time`` (seconds since the epoch), ``step``, ``tag`` and ``value``, ``values``
    or ``string``. Infinite and undefined numbers are written as the strings ``"Infinity"``,
    ``"-Infinity"`` and ``"NaN"`` (which ``float`` reads back), so every line is valid JSON.
    Each line is written and flushed on its own; several processes must not share a file.

    Lines that the file holds already are kept, except a last one cut short by a crash. The file
    and the folders above it are made with the first entry, not before.

    :param path: the file; the attribute is absolute
    :param resume_step: the optimizer step that a resumed run starts from. Lines of that step and
        of later ones, which the run will write again, are dropped when the first entry is written;
        lines without a step are kept
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        resume_step: int | None = None,
        name: str = "jsonl",
        enabled: bool = True,
    ):
        super().__init__(name, enabled)
        self.path = Path(path).expanduser().absolute()
        self._resume_step = resume_step
        self._prepared = False

    def emit(self, entry: LogEntry) -> bool:
        if not self._prepared:
            self._prepare()
        line = {
            "time": plain_data(entry.time()),
            "step": plain_data(entry.step),
            "tag": entry.tag,
            _FIELDS.get(entry.kind, "values"): plain_data(entry.content),
        }
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
        except OSError as error:
            error.filename = str(self.path)  # which is not told where the disk is full
            raise
        return True

    def _prepare(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if self.path.exists():
            text = self.path.read_text(encoding="utf-8", errors="replace")
            kept = "".join(f"{line}\n" for line in text.split("\n") if self._keeps(line))
            if kept != text:
                with atomic_path(self.path) as part:
                    part.write_text(kept, encoding="utf-8")
        self._prepared = True

    def _keeps(self, line: str) -> bool:
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            return False
        step = entry.get("step") if isinstance(entry, dict) else None
        if self._resume_step is None or not isinstance(step, (int, float)):
            return True
        return step < self._resume_step
