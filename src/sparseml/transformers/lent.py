"""What passes between a Trainer and the modifiers of a recipe: teacher, batches, loss, masks."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import TrainingArguments

from sparseml.transformers.errors import CallbackError, loading
from sparseml.utils.text import shortened

_WORDS = ("self", "disable")


def teacher_of(given: Any) -> Any:
    """Return a teacher: a module as it is, one from a folder, ``"self"`` or ``"disable"``.

    :raises CallbackError: for a folder without a model that can be read
    """
    if given is None or callable(given) or given in _WORDS:
        return given
    is_path = isinstance(given, (str, os.PathLike))
    folder = Path(given if is_path else "").expanduser()
    if not is_path or not (folder / "config.json").exists():
        raise CallbackError(
            "teacher must be a module, 'self', 'disable', or a folder with config.json and weights "
            f"of a model, found {shortened(given)}"
        )
    with loading(f"teacher {folder}", CallbackError):
        config = transformers.AutoConfig.from_pretrained(folder)
        kind = getattr(transformers, (config.architectures or ["AutoModel"])[0])
        return kind.from_pretrained(folder)


def parameters_of(model: Any) -> tuple[set[str], bool]:
    """Return the names of the inputs of a model, and whether it takes any others, too."""
    forward: Callable[..., Any] = model.forward if isinstance(model, nn.Module) else model
    kinds = list(inspect.signature(forward).parameters.values())
    named = {one.name for one in kinds if one.kind not in (one.VAR_KEYWORD, one.VAR_POSITIONAL)}
    return named, any(one.kind is one.VAR_KEYWORD for one in kinds)


def half_type(args: TrainingArguments) -> torch.dtype | None:
    """Return the type that the Trainer computes with in mixed precision; None in full."""
    if args.bf16:
        return torch.bfloat16
    return torch.float16 if args.fp16 else None


def gradient_sampler(
    loader: Any, batch_size: int, model: nn.Module, args: TrainingArguments
) -> dict[str, Any]:
    """Return what modifiers sample gradients on: the Trainer's training data, in an order of its
    own, and the loss that the model returns.

    What a recipe has in ``grad_sampler_kwargs`` goes to the :class:`DataLoader`, such as
    ``batch_size``.
    """

    def build(**kwargs: Any) -> _Batches:
        given: dict[str, Any] = {"batch_size": batch_size, "collate_fn": loader.collate_fn}
        if not isinstance(loader.dataset, IterableDataset):
            given["shuffle"] = True
        return _Batches(DataLoader(loader.dataset, **{**given, **kwargs}), model)

    return {
        "data_loader_builder": build,
        "loss_function": _own_loss,
        "autocast": half_type(args),
    }


def lift_masks(manager: Any) -> None:
    """Keep the last masks off weights that were loaded since, which have masks of their own."""
    for modifier in manager.pruning_modifiers:
        masks = getattr(modifier, "_masks", None)
        if masks is not None:
            masks.enabled = False


class _Batches:
    """Batches of a Trainer as ``(args, kwargs, target)``, on the model's device."""

    def __init__(self, loader: DataLoader[Any], model: nn.Module) -> None:
        self._loader, self._model = loader, model

    def __iter__(self) -> Iterator[tuple[list[Any], Mapping[str, Any], Any]]:
        device = next(self._model.parameters()).device
        for batch in self._loader:
            inputs = send_to_device(batch, device)
            yield [], inputs, inputs.get("labels")


def _own_loss(output: Any, target: Any) -> Tensor:
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if not isinstance(loss, Tensor) or loss.ndim:
        raise CallbackError(
            "the recipe prunes by gradients of the model's loss, but the model returns none for "
            "the Trainer's training data: do these have labels?"
        )
    return loss
