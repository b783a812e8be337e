"""Descriptions as JSON, in files or at hand."""

from __future__ import annotations

import os

from sparseml.utils.paths import clean_path, create_parent_dirs

__all__ = ["read_json_text", "write_json_text"]


def read_json_text(path_or_json: str) -> str:
    """
    Return the JSON in a file, or the argument itself if it is JSON.

    :param path_or_json: path, or the text of a JSON object
    :raises FileNotFoundError: if it is neither
    """
    if path_or_json.lstrip().startswith("{"):
        return path_or_json
    with open(clean_path(path_or_json), encoding="utf-8") as file:
        return file.read()


def write_json_text(text: str, path: str | os.PathLike[str] | None) -> None:
    """
    Write JSON to a file, or print it.

    :param text: the JSON
    :param path: the file; folders above it are created. None to print
    """
    if path is None:
        print(text)
        return
    create_parent_dirs(path)
    with open(clean_path(path), "w", encoding="utf-8") as file:
        file.write(text)
