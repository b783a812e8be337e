"""Who has done what to the blocks of a store, and who is at work on one now."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock

from sparseml.utils.plain import json_of

STALE_SECONDS = 60.0


class Ledger:
    """A file of JSON lines that is only ever added to; several processes may do so at a time.

    :param path: of the file; it may be missing
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, event: str, **entries: Any) -> None:
        """Write one event: ``claimed``, ``started``, ``step``, ``finished``, ``failed``..."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"event": event, "time": round(time.time(), 3), **entries})
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(descriptor).st_size
            # what a process that was killed has not written to the end stands on a line by itself
            torn = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            os.write(descriptor, (("\n" if torn else "") + line + "\n").encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def events(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return all events in order, or those of one kind."""
        found = []
        text = self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        for line in text.splitlines():
            try:
                one = json_of(line)
            except ValueError:  # torn
                continue
            if isinstance(one, dict) and (event is None or one.get("event") == event):
                found.append(one)
        return found

    def last(self, event: str, **entries: Any) -> dict[str, Any] | None:
        """Return the last event of a kind that has these entries."""
        fitting = [
            one
            for one in self.events(event)
            if all(one.get(key) == value for key, value in entries.items())
        ]
        return fitting[-1] if fitting else None


class Claims:
    """The right to work on something, held by one process at a time.

    A claim is a file that its holder touches; it lapses when its process is gone, or has not done
    so for a minute.

    :param folder: of the files
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def take(self, key: str, worker: str) -> bool:
        """Claim something; False if another holds it."""
        with self.locked():
            file = self.folder / key
            if file.exists() and not self._lapsed(file):
                return False
            held = {"worker": worker, "pid": os.getpid(), "host": socket.gethostname()}
            file.write_text(json.dumps(held), encoding="utf-8")
            return True

    def release(self, key: str) -> None:
        """Let others claim it."""
        (self.folder / key).unlink(missing_ok=True)

    @contextmanager
    def beating(self, keys: list[str]) -> Iterator[None]:
        """Within the block, and as long as this process lives, claims do not lapse."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(STALE_SECONDS / 6):
                for key in list(keys):
                    file = self.folder / key
                    if file.exists():
                        os.utime(file)

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def locked(self) -> FileLock:
        """Return the lock under which claims are taken and work is handed in."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder / ".lock")

    def _lapsed(self, file: Path) -> bool:
        try:
            held = json_of(file.read_text(encoding="utf-8"))
            alive = time.time() - file.stat().st_mtime <= STALE_SECONDS
        except (OSError, ValueError):  # released just now, or torn
            return True
        if held["host"] == socket.gethostname() and held["pid"] != os.getpid():
            alive = alive and _runs(held["pid"])
        return not alive


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True
