"""Folders of models whose structure a recipe has changed.

``save_pretrained`` writes the weights that a model has, and a configuration that knows nothing of
layers that were taken out or made smaller. The recipe beside them, ``recipe.yaml``, does.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
)

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.utils.model import load_model_state, read_model_file
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.pytorch.utils.saving.files import files_of_index
from sparseml.pytorch.utils.thinning import thin_model_from_checkpoint
from sparseml.sparsification.types import SparsificationTypes
from sparseml.utils.text import few

_LOGGER = logging.getLogger(__name__)
_Path = str | os.PathLike[str]

RECIPE_NAME = "recipe.yaml"


def recipe_of(folder: _Path) -> ScheduledModifierManager | None:
    """Return the recipe that lies in the folder of a model; None without one.

    :raises RecipeError: naming the file, if anything is wrong with it
    """
    file = Path(folder) / RECIPE_NAME
    return ScheduledModifierManager.from_yaml(os.fspath(file)) if file.is_file() else None


def changes_structure(manager: ScheduledModifierManager | None) -> bool:
    """Return whether a recipe has a modifier that changes a model's structure."""
    return manager is not None and any(True for _ in _structural(manager))


def read_weights(folder: _Path) -> dict[str, Tensor]:
    """Return all weights in the folder of a model, on the CPU; they may be shared out over files.

    :raises FileNotFoundError: if it holds none
    :raises CheckpointError: if a file is damaged, or not safe to read
    """
    for index in (SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME):
        if (file := Path(folder) / index).is_file():
            shards = (read_model_file(Path(folder) / name) for name in files_of_index(file))
            return {name: value for one in shards for name, value in one["state_dict"].items()}
    for name in (SAFE_WEIGHTS_NAME, WEIGHTS_NAME):
        if (file := Path(folder) / name).is_file():
            return dict(read_model_file(file)["state_dict"])
    raise FileNotFoundError(f"{folder} holds no weights: neither {SAFE_WEIGHTS_NAME} nor another")


def load_structure(model: nn.Module, folder: _Path, recipe: Any = None) -> None:
    """Give a model the structure of the one in a folder, before it is given its weights.

    Layers that the recipe there takes out are taken out if the folder has no weights of them, and
    layers are made as small as these are. A model that is like that already stays as it is.

    :param folder: of a model; one without ``recipe.yaml`` counts as one with an empty recipe
    :param recipe: text or file of the recipe, instead of ``recipe.yaml``
    :raises FileNotFoundError: if there are no weights
    :raises RecipeError: if anything is wrong with the recipe
    """
    model = unwrap_module(model, root=True)
    fit_structure(model, _recipes(folder, recipe), _named_as_in(model, read_weights(folder)))


def load_weights(model: nn.Module, folder: _Path, recipe: Any = None) -> None:
    """Give a model structure and weights of the one in a folder.

    What has no weights there, such as a new head, stays as it is, with a warning.

    :param recipe: as for :func:`load_structure`
    :raises FileNotFoundError: if there are no weights
    :raises ValueError: if they are of another model
    """
    model = unwrap_module(model, root=True)
    weights = _named_as_in(model, read_weights(folder))
    fit_structure(model, _recipes(folder, recipe), weights)
    try:
        found = load_model_state(model, weights)
    except RuntimeError as error:  # shapes
        raise ValueError(f"{folder} does not fit {type(model).__name__}: {error}") from error
    tie: Any = getattr(model, "tie_weights", None)
    if tie is not None:
        tie()
    missing = sorted(set(found.missing_keys) - _tied(model))
    if within := [name for name in missing if name.startswith(_prefix(model))]:
        raise ValueError(
            f"{folder} has no weights for {few(within)} of {type(model).__name__}, but for "
            f"{few(sorted(weights))}"
        )
    if missing:
        _LOGGER.warning("%s has no weights for %s: they stay as they are", folder, few(missing))
    if found.unexpected_keys:
        _LOGGER.warning("%s: no use is made of %s", folder, few(sorted(found.unexpected_keys)))


def fit_structure(
    model: nn.Module, recipes: Iterable[ScheduledModifierManager], weights: dict[str, Tensor]
) -> None:
    """Bring a model to the structure that weights have, by what recipes can do to it.

    Which of its changes a recipe has made by then depends on how far training had come; the names
    of the weights tell. A change is taken for made if they leave it open.

    :param recipes: in the order in which they were used
    :raises ValueError: for weights of a head that gives more or fewer numbers; recipes change none
    """
    for recipe in recipes:
        for modifier in _structural(recipe):
            moments = [math.inf, modifier.start_epoch, -math.inf]
            # at the end of the run, within its own time, before it
            best = min(moments, key=lambda epoch: _misfit(model, modifier, epoch, weights))
            modifier.apply_structure(model, best)
    prefix = _prefix(model)
    for name, value in model.state_dict().items():
        shape = weights[name].shape if name in weights else value.shape
        if not name.startswith(prefix) and shape[:1] != value.shape[:1]:
            raise ValueError(
                f"{name} of {type(model).__name__} has shape {tuple(value.shape)}, the weights "
                f"have {tuple(shape)}: they are of another task, or of other labels (num_labels)"
            )
    thin_model_from_checkpoint(model, weights)


def _recipes(folder: _Path, recipe: Any) -> list[ScheduledModifierManager]:
    given = ScheduledModifierManager.from_yaml(recipe) if recipe else recipe_of(folder)
    return [] if given is None else [given]


def _structural(recipe: ScheduledModifierManager) -> Iterable[Any]:
    for modifier in recipe.iter_modifiers():
        if SparsificationTypes.structured in modifier.sparsification_types:
            yield modifier


def _misfit(model: nn.Module, modifier: Any, epoch: float, weights: Collection[str]) -> int:
    modifier.apply_structure(model, epoch)
    return len(set(model.state_dict()) ^ set(weights))


def _tied(model: nn.Module) -> set[str]:
    """Return names of weights that are those of other names, of which files hold one."""
    seen: dict[int, list[str]] = {}
    for name, value in model.state_dict(keep_vars=True).items():
        seen.setdefault(id(value), []).append(name)
    return {name for names in seen.values() if len(names) > 1 for name in names}


def _named_as_in(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename weights of a model without a head for one with a head, and the other way round."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    own = any(name.startswith(prefix) for name in model.state_dict())
    given = any(name.startswith(prefix) for name in weights)
    if prefix == "." or own == given:
        return weights
    if own:
        return {prefix + name: value for name, value in weights.items()}
    return {name.removeprefix(prefix): value for name, value in weights.items()}


def _prefix(model: nn.Module) -> str:
    """Return how names of what lies beneath the head begin; all do where there is no head."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    return prefix if any(name.startswith(prefix) for name in model.state_dict()) else ""
