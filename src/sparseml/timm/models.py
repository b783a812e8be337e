"""Models by name: timm's, and the user's own."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import timm
import torch
from timm.data import resolve_data_config
from torch import Tensor, nn

from sparseml.pytorch.optim.loading import load_model as load_weights
from sparseml.pytorch.units.saved import fill_shrunk, holds_shrunk
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.pytorch.utils.saving.files import CheckpointError
from sparseml.run.errors import RunError, few, one_line
from sparseml.timm.image_settings import ModelSettings
from sparseml.timm.weights import weights_at_hand
from sparseml.utils.references import described, is_reference, resolve_reference
from sparseml.utils.text import did_you_mean

_PREFIX = "timm:"

_PARTS = ("q", "k", "v")

INPUT_KEYS = ("img_size", "input_size", "in_chans", "crop_pct", "mean", "std", "interpolation")
"""Settings that say what images a model takes."""


def short_name(model: str) -> str:
    """Return what a model is called in names of files: ``module.path:callable`` is its callable."""
    return re.sub(r"[^\w.=-]+", "_", model.rpartition(":")[2])


def model_kwargs(
    settings: ModelSettings, drop_rate: float | None = None, drop_path_rate: float | None = None
) -> dict[str, Any]:
    """Return keywords for the function that builds the model, as far as settings give any."""
    # rates of zero are what every model has by itself, and not every model takes them
    given = {
        "num_classes": settings.num_classes,
        "in_chans": settings.in_chans,
        "drop_rate": drop_rate,
        "drop_path_rate": drop_path_rate,
    }
    return {key: value for key, value in given.items() if value} | settings.model_kwargs


def load_model(
    name: str,
    checkpoint: str | None = None,
    pretrained: bool | None = None,
    split_attention: bool = False,
    kwargs: Mapping[str, Any] | None = None,
    flags: tuple[str, str] = ("--model", "--checkpoint"),
) -> nn.Module:
    """Build a model and give it its weights.

    :param name: a name that timm knows, perhaps after ``timm:``, or ``module.path:callable``,
        called with ``kwargs``
    :param checkpoint: a file of weights, ``.safetensors`` or torch's, with or without a recipe, or
        the folder of a shrunk model
    :param pretrained: load timm's pretrained weights, by default if there is no checkpoint; the
        user's own models never have any
    :param split_attention: give each attention three layers in place of its ``qkv``
        (:func:`~sparseml.timm.models.split_qkv`); after the weights are loaded
    :param flags: that gave name and checkpoint, for errors
    :raises RunError: if there is no such model, it cannot be built, or the weights do not fit it
    """
    name = name.removeprefix(_PREFIX)
    kwargs = {key: value for key, value in (kwargs or {}).items() if value is not None}
    build = require_model(name, flags[0])
    if not is_reference(name):
        kwargs["pretrained"] = not checkpoint if pretrained is None else pretrained
        if kwargs["pretrained"]:
            kwargs = weights_at_hand(name, flags) | kwargs
    try:
        model = build(**kwargs)
    except Exception as error:  # a model's code, and a download, may raise anything
        hint = "; --no-pretrained takes no weights of timm" if kwargs.get("pretrained") else ""
        raise RunError(f"{flags[0]} {name} cannot be built: {described(error)}{hint}") from error
    if not isinstance(model, nn.Module):
        found = type(model).__name__
        raise RunError(f"{flags[0]} {name} must give a torch.nn.Module, got {found}")
    shrunk = checkpoint is not None and holds_shrunk(checkpoint)
    if checkpoint and not shrunk:
        _load_weights(model, name, checkpoint, flags[1])
    if split_attention and not split_qkv(model):
        raise RunError(f"--split-qkv: {name} has no attention with a layer 'qkv' to split")
    if checkpoint and shrunk:  # as it was when it lost units
        fill_shrunk(model, checkpoint)
    return model


def data_config(model: nn.Module, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return size, mean, deviation, crop and interpolation: of the options, else of the model.

    The user's own models tell theirs in an attribute ``pretrained_cfg``, as timm's do.
    """
    return dict(resolve_data_config(dict(options), model=unwrap_module(model)))


def output_classes(model: nn.Module) -> int | None:
    """Return how many classes a model tells apart, if it says (``num_classes``)."""
    classes = getattr(unwrap_module(model), "num_classes", None)
    return classes if isinstance(classes, int) else None


def require_model(name: str, flag: str = "--model") -> Callable[..., Any]:
    """Return what builds a model, without building it.

    :param name: as for :func:`load_model`
    :raises RunError: if there is no such model
    """
    name = name.removeprefix(_PREFIX)
    if not is_reference(name):
        if not timm.is_model(name.partition(".")[0]):
            hint = did_you_mean(name, timm.list_models())
            raise RunError(
                f"{flag} {name}: timm {timm.__version__} has no such model{hint}; "
                "models of your own are given as module.path:callable"
            )
        return functools.partial(timm.create_model, name)
    try:
        build = resolve_reference(name)
    except ValueError as error:
        raise RunError(f"{flag} {error}") from error
    if not callable(build):
        raise RunError(f"{flag} {name} is of type {type(build).__name__}; it must be callable")
    return build


def _load_weights(model: nn.Module, name: str, checkpoint: str, flag: str) -> None:
    try:
        loaded = load_weights(checkpoint, model)
    except OSError as error:  # none there, a folder, not to be read
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise RunError(f"{flag} {checkpoint}: {reason}") from error
    except CheckpointError:
        raise
    except RuntimeError as error:  # shapes
        lines = str(error).splitlines()
        reason = one_line(lines[1] if len(lines) > 1 else lines[0])
        raise RunError(f"{flag} {checkpoint} does not fit {name}: {reason}") from error
    if loaded.missing_keys or loaded.unexpected_keys:
        raise RunError(
            f"{flag} {checkpoint} does not fit {name}: "
            f"without a value {few(loaded.missing_keys)}, not in the model "
            f"{few(loaded.unexpected_keys)}"
        )


class SplitLinear(nn.Module):
    """A linear layer cut along its outputs into three, ``q``, ``k`` and ``v``.

    Its output is that of the layer it was made of: ``[..., in]`` to ``[..., 3 * out]``.

    :param whole: the layer to cut; its outputs must be a multiple of three
    """

    q: nn.Linear
    k: nn.Linear
    v: nn.Linear

    def __init__(self, whole: nn.Linear) -> None:
        super().__init__()
        width, rest = divmod(whole.out_features, len(_PARTS))
        if rest:
            raise ValueError(f"{whole.out_features} outputs cannot be cut into {len(_PARTS)}")
        kind = {"device": whole.weight.device, "dtype": whole.weight.dtype}
        for name, rows in zip(_PARTS, torch.arange(3 * width).chunk(3), strict=True):
            part = nn.Linear(whole.in_features, width, bias=whole.bias is not None, **kind)
            with torch.no_grad():
                for key, own in part.named_parameters():
                    own.copy_(getattr(whole, key)[rows])
            self.add_module(name, part)

    def forward(self, tokens: Tensor) -> Tensor:
        """Apply the three layers and join their outputs."""
        return torch.cat([self.q(tokens), self.k(tokens), self.v(tokens)], dim=-1)


def split_qkv(model: nn.Module) -> list[str]:
    """Cut every linear layer called ``qkv`` in place, so that its parts can be pruned apart.

    ``blocks.0.attn.qkv.weight`` becomes ``blocks.0.attn.qkv.q.weight`` and so on. The model
    computes the same.

    :return: the names of the layers that were cut
    """
    root = unwrap_module(model, root=True)
    found: list[tuple[str, Any]] = [
        (name, module)
        for name, module in root.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] == "qkv"
    ]
    for name, layer in found:
        parent = root.get_submodule(name.rpartition(".")[0])
        setattr(parent, "qkv", SplitLinear(layer))  # noqa: B010  the attribute of a Module
    return [name for name, _ in found]
