"""What has become of the runs of a chain, in a file that is whole at any moment."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparseml.gap.plan import Link
from sparseml.run.errors import RunError, one_line
from sparseml.run.files import atomic_text
from sparseml.utils.paths import file_digest
from sparseml.utils.plain import json_of

FILE = "manifest.json"
_FORMAT = "sparseml-gap/1"
_PLANNED = ("recipe_hash", "seed", "epochs", "rate")


class Manifest:
    """The runs of a chain with their states: ``pending``, ``running``, ``done`` or ``failed``.

    :param folder: the workspace
    :param planned: the runs
    :param resume: go on from the manifest that is there
    :raises RunError: if there is one and it shall not go on, or it is one of another plan
    """

    def __init__(self, folder: Path, planned: Sequence[Link], resume: bool) -> None:
        self.file = folder / FILE
        before = self._read() if self.file.exists() else {}
        if before and not resume:
            raise RunError(
                f"{folder} holds a chain already; --resume goes on with it, another --workspace "
                "begins anew"
            )
        self.entries: dict[str, dict[str, Any]] = {}
        for link in planned:
            plan = {name: getattr(link, name) for name in _PLANNED}
            entry = before.get(link.name, {"state": "pending"})
            if entry["state"] == "done":
                self._require_same(link.name, entry, plan)
            self.entries[link.name] = {**entry, **plan}

    def note(self, name: str, **values: Any) -> None:
        """Write down what has become of a run."""
        self.entries[name].update(values)
        self.write()

    def write(self) -> None:
        """Write the file."""
        steps = [{"name": name, **entry} for name, entry in self.entries.items()]
        with atomic_text(self.file) as file:
            json.dump({"format": _FORMAT, "steps": steps}, file, indent=2)

    def done(self, name: str) -> bool:
        """Return whether a run is done, and what it has left is still there as it was.

        :raises RunError: if that has changed
        """
        entry = self.entries[name]
        if entry["state"] != "done":
            return False
        checkpoint = Path(entry["checkpoint"])
        if not checkpoint.exists():
            raise RunError(f"{self.file}: {name} is done, but {checkpoint} is gone")
        if file_digest(checkpoint) != entry["checkpoint_hash"]:
            raise RunError(f"{checkpoint} has changed since {name} was done")
        return True

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            content = json_of(self.file.read_text(encoding="utf-8"))
            return {entry["name"]: entry for entry in content["steps"]}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(f"{self.file} cannot be read: {one_line(error)}") from error

    def _require_same(self, name: str, entry: dict[str, Any], plan: dict[str, Any]) -> None:
        for key, value in plan.items():
            if entry.get(key) != value:
                raise RunError(
                    f"--resume: {name} was done with {key} {entry.get(key)!r}, not with "
                    f"{value!r}; give the flags and the recipe that the chain began with"
                )
