"""What a recipe says about itself, and what a training run adds to it."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from typing import Any

from sparseml.optim.errors import RecipeValueError
from sparseml.optim.language.document import Document, parse, stages_of
from sparseml.optim.language.source import RecipeSource
from sparseml.utils.constants import FRAMEWORK_METADATA_KEY, RECIPE_METADATA_KEY
from sparseml.utils.text import few, shortened
from sparseml.version import __version__

# the root logger, because callers of old configure that one
_LOGGER = logging.getLogger()


def _warn_of_differences(own: Any, given: Any, where: str) -> None:
    if not isinstance(own, Mapping) or not isinstance(given, Mapping):
        if own != given:
            change = f"{shortened(own)} by {shortened(given)}"
            _LOGGER.warning("metadata of %s is replaced: %s", where, change)
        return
    for key in sorted({*own, *given}, key=str):
        if key not in given:
            _LOGGER.warning("metadata of %s: %s is dropped", where, shortened(key))
        elif key not in own:
            _LOGGER.warning("metadata of %s: %s is added", where, shortened(key))
        elif own[key] != given[key]:
            change = f"{shortened(own[key])} by {shortened(given[key])}"
            _LOGGER.warning("metadata of %s: %s is replaced: %s", where, shortened(key), change)


def _own_metadata(document: Document) -> dict[Any, Any]:
    """The metadata that the recipe holds for each of its parts, None where it holds none."""
    root = document.container if isinstance(document.container, Mapping) else {}
    stages = stages_of(root)
    if not stages:
        return {RECIPE_METADATA_KEY: root.get(RECIPE_METADATA_KEY)}
    own = {key: stage.get(RECIPE_METADATA_KEY) for key, stage in stages.items()}
    having = [key for key, stage in stages.items() if RECIPE_METADATA_KEY in stage]
    if having and len(having) < len(stages):
        lacking = [key for key in stages if key not in having]
        raise document.error(
            RecipeValueError,
            f"all stages or none must have {RECIPE_METADATA_KEY}; it is missing in "
            f"{few(map(shortened, lacking))}",
            (lacking[0],),
        )
    return own


def merge_metadata(document: Document, metadata: dict[str, Any] | None) -> dict[str, Any]:
    """Return what :func:`validate_metadata` does, for a recipe already read."""
    own = _own_metadata(document)
    if metadata is None:
        return own
    by_stage = RECIPE_METADATA_KEY not in own and metadata.keys() == own.keys()
    given = {name: metadata[name] if by_stage else metadata for name in own}
    for name, entry in own.items():
        if entry is not None:
            where = "the recipe" if name == RECIPE_METADATA_KEY else f"stage {name!s:.80}"
            _warn_of_differences(entry, given[name], where)
    return given


def validate_metadata(metadata: dict[str, Any] | None, yaml_str: str) -> dict[str, Any]:
    """Return the metadata for a recipe: what is given, else the recipe's own.

    :param metadata: the metadata given; for a recipe with stages possibly for each by its name
    :return: ``{"__metadata__": entry}``, or an entry for each stage; entries may be None. Where
        given metadata differ from the recipe's, each difference is logged as a warning
    :raises RecipeValueError: if only some stages have metadata
    """
    return merge_metadata(parse(RecipeSource(yaml_str)), metadata)


def add_framework_metadata(metadata: dict[str, Any], **extra: Any) -> dict[str, Any]:
    """Add to each entry with which versions it was made.

    :param metadata: as of :func:`validate_metadata`, changed in place
    :param extra: what to note besides the versions of Python and of this package
    """
    python = platform.python_version()
    versions = {"python_version": python, "sparseml_version": __version__, **extra}
    seen: set[int] = set()
    for name, entry in metadata.items():
        if not isinstance(entry, dict):
            metadata[name] = {FRAMEWORK_METADATA_KEY: dict(versions)}
        elif id(entry) not in seen:  # stages may share one
            seen.add(id(entry))
            before = entry.get(FRAMEWORK_METADATA_KEY)
            before = before if isinstance(before, Mapping) else {}
            for key in sorted(set(before) & set(versions)):
                change = f"{shortened(before[key])} by {versions[key]!r}"
                _LOGGER.warning("metadata of %.80s: %s is overwritten: %s", name, key, change)
            entry[FRAMEWORK_METADATA_KEY] = {**before, **versions}
    return metadata
