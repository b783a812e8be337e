"""Transformers models by task, from folders whose recipes may have changed their structure."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    GenerationConfig,
)
from transformers.utils import GENERATION_CONFIG_NAME

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.units.saved import SHAPES_FILE, fill_shrunk
from sparseml.pytorch.utils.sparsification import ModuleSparsificationInfo
from sparseml.transformers.structure import (
    changes_structure,
    load_structure,
    load_weights,
    recipe_of,
)
from sparseml.utils.text import few

__all__ = [
    "SparseAutoConfig",
    "SparseAutoModel",
    "SparseAutoModelForCausalLM",
    "SparseAutoTokenizer",
]

_LOGGER = logging.getLogger(__name__)

SparseAutoConfig, SparseAutoTokenizer = AutoConfig, AutoTokenizer

_NOT_A_MODEL = ("self", "disable", None)
_OF_BUILDING = ("dtype", "torch_dtype", "attn_implementation", "trust_remote_code")
_OF_FILES = ("cache_dir", "revision", "token", "force_download", "local_files_only")


def load_pretrained(
    kind: Any, name: str | os.PathLike[str], recipe: Any = None, **kwargs: Any
) -> Any:
    """Return what ``kind.from_pretrained(name)`` does, with the structure that the folder has.

    :param kind: an ``AutoModelFor...`` of transformers
    :param name: the folder of a model; for one without a recipe, or one whose recipe leaves the
        structure as it is, all that transformers takes, names on the hub included
    :param recipe: text or file of a recipe, instead of the folder's ``recipe.yaml``
    :param kwargs: for ``from_pretrained``; where the structure is another than the configuration
        says, those of the configuration, ``dtype``, ``attn_implementation`` and the like
    :return: the model, in evaluation mode
    :raises RecipeError: if anything is wrong with the recipe
    :raises ValueError: if weights do not fit the structure, and for other ``kwargs``
    :raises OSError: if there is no such model
    """
    kwargs = _of_today(kwargs)
    given = recipe_of(name) if recipe is None else ScheduledModifierManager.from_yaml(recipe)
    shrunk = (Path(name) / SHAPES_FILE).is_file()
    if not (changes_structure(given) or shrunk) or not Path(name).is_dir():
        return kind.from_pretrained(name, **kwargs)
    building = {key: kwargs.pop(key) for key in _OF_BUILDING if key in kwargs}
    building = {key: value for key, value in building.items() if value != "auto"}
    config = kwargs.pop("config", None)
    if config is None:
        config, kwargs = AutoConfig.from_pretrained(name, return_unused_kwargs=True, **kwargs)
    if unknown := sorted(set(kwargs) - set(_OF_FILES)):
        raise ValueError(
            f"the structure of the model in {name} is not that of its config.json: {few(unknown)} "
            f"cannot be used for it, only {', '.join(_OF_BUILDING)} and fields of its configuration"
        )
    model = kind.from_config(config, **building)
    if shrunk:
        load_structure(model, name, recipe)
        fill_shrunk(model, name)
    else:
        load_weights(model, name, recipe)
    if model.can_generate() and (Path(name) / GENERATION_CONFIG_NAME).is_file():
        model.generation_config = GenerationConfig.from_pretrained(name)
    return model.eval()


def _of_today(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return keywords without those that scripts of SparseML 1.x give and transformers has not."""
    kwargs = {**kwargs}
    kwargs.pop("from_tf", None)
    if (token := kwargs.pop("use_auth_token", None)) is not None:
        kwargs.setdefault("token", token)
    return {key: value for key, value in kwargs.items() if value is not None}


class SparseAutoModelForCausalLM(AutoModelForCausalLM):
    """Causal models, from folders that may hold a recipe."""

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: Any, *model_args: Any, recipe: Any = None, **kwargs: Any
    ) -> Any:
        """Return a model; see :func:`load_pretrained`."""
        name = pretrained_model_name_or_path
        if model_args:
            raise ValueError(f"give arguments of the model by keyword, found {model_args}")
        return load_pretrained(AutoModelForCausalLM, name, recipe, **kwargs)


def _loader(kind: Any) -> Any:
    def load(
        model_name_or_path: str, model_type: str = "model", recipe: Any = None, **kwargs: Any
    ) -> nn.Module:
        model: nn.Module = load_pretrained(kind, model_name_or_path, recipe, **kwargs)
        info = ModuleSparsificationInfo(model)
        _LOGGER.info(
            "loaded %s %s from %s: %d parameters, of those to prune %.2f%% are zero",
            model_type,
            type(model).__name__,
            model_name_or_path,
            info.params_total,
            info.params_prunable_sparse_percent,
        )
        return model

    load.__doc__ = f"""Return a model of {kind.__name__}; see :func:`load_pretrained`.

    :param model_type: what logs call it, such as ``student``
    """
    return staticmethod(load)


def _both_loader(kind: Any) -> Any:
    load = _loader(kind).__func__

    def load_both(
        model_name_or_path: str,
        teacher_name_or_path: str | None,
        model_kwargs: Mapping[str, Any] | None = None,
        teacher_kwargs: Mapping[str, Any] | None = None,
    ) -> tuple[nn.Module, nn.Module | str | None]:
        model = load(model_name_or_path, model_type="student", **(model_kwargs or {}))
        if teacher_name_or_path in _NOT_A_MODEL:
            return model, teacher_name_or_path
        return model, load(teacher_name_or_path, model_type="teacher", **(teacher_kwargs or {}))

    load_both.__doc__ = f"""Return two models of {kind.__name__}, a student and its teacher.

    :param teacher_name_or_path: ``"self"``, ``"disable"`` and None come back as they are
    """
    return staticmethod(load_both)


class SparseAutoModel:
    """Models by task, and with them teachers, from folders that may hold a recipe."""

    masked_language_modeling_from_pretrained = _loader(AutoModelForMaskedLM)
    masked_language_modeling_from_pretrained_distil = _both_loader(AutoModelForMaskedLM)
    question_answering_from_pretrained = _loader(AutoModelForQuestionAnswering)
    question_answering_from_pretrained_distil = _both_loader(AutoModelForQuestionAnswering)
    text_classification_from_pretrained = _loader(AutoModelForSequenceClassification)
    text_classification_from_pretrained_distil = _both_loader(AutoModelForSequenceClassification)
    token_classification_from_pretrained = _loader(AutoModelForTokenClassification)
    token_classification_from_pretrained_distil = _both_loader(AutoModelForTokenClassification)
    text_generation_from_pretrained = _loader(AutoModelForCausalLM)
    text_generation_from_pretrained_distil = _both_loader(AutoModelForCausalLM)
