"""Descriptions as JSON, in files or at hand."""

from __future__ import annotations

import os
from pathlib import Path

from sparseml.utils.paths import clean_path, create_parent_dirs


def read_json_text(path_or_json: str) -> str:
    """Return the JSON in a file, which must be there, or the argument itself if it is an object."""
    if path_or_json.lstrip().startswith("{"):
        return path_or_json
    return Path(clean_path(path_or_json)).read_text(encoding="utf-8")


def write_json_text(text: str, path: str | os.PathLike[str] | None) -> None:
    """Write JSON to a file, whose folders are made as needed; print it for None."""
    if path is None:
        print(text)
        return
    create_parent_dirs(path)
    Path(clean_path(path)).write_text(text, encoding="utf-8")
