"""The masks in force, by the names of their parameters; masks in files, one bit per weight; and
carrying those of one run into another, whose recipe may be a different one."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.pytorch.functional.masks import pack_mask, unpack_mask
from sparseml.pytorch.sparsification.pruning.modifier_pruning_base import BasePruningModifier
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.pytorch.utils.saving.checkpoint import unpack_masks
from sparseml.pytorch.utils.saving.files import (
    CheckpointError,
    read_safetensors,
    read_torch_file,
    write_safetensors,
)
from sparseml.pytorch.utils.tensors.stats import count_zeros, tensor_list_sparsity
from sparseml.run.checkpoints import find_checkpoint
from sparseml.run.errors import RunError, few, one_line

MASKS_FILE = "masks.safetensors"
SUFFIX = ".sparsity_mask"
_SHAPES = "shapes"

Carried = list[tuple[BasePruningModifier, dict[str, Tensor]]]
"""Modifiers of a recipe, each with parameter name → mask that it took."""

_LOGGER = logging.getLogger(__name__)
_FLAG = "--initial-masks"
_NEAR = 1e-3


def _masks(manager: Any) -> Iterator[tuple[str, Tensor, bool]]:
    for modifier in manager.iter_modifiers():
        masks = getattr(modifier, "module_masks", None)
        if isinstance(modifier, BasePruningModifier) and masks is not None:
            names = (name.removesuffix(SUFFIX) for name in masks.names)
            yield from (
                (name, mask, masks.enabled)
                for name, mask in zip(names, masks.param_masks, strict=True)
            )


def masks_in_force(manager: Any) -> dict[str, Tensor]:
    """Return parameter name → mask of zeros and ones, of all pruning modifiers that mask now.

    A parameter that several modifiers mask has the product of their masks.
    """
    found: dict[str, Tensor] = {}
    for name, mask, enabled in _masks(manager):
        if enabled:
            found[name] = found[name] * mask if name in found else mask
    return found


def masked_sparsity(manager: Any) -> float:
    """Return the fraction of masked weights among all that the recipe prunes sooner or later."""
    sizes = {name: mask.numel() for name, mask, _ in _masks(manager)}
    masked = sum(map(count_zeros, masks_in_force(manager).values()))
    return masked / sum(sizes.values()) if sizes else 0.0


def write_masks(path: str | os.PathLike[str], masks: Mapping[str, Tensor]) -> None:
    """Write masks as a safetensors file of packed bits, with the shapes as JSON in its header.

    :param masks: parameter name → zeros and ones
    """
    packed = {name: pack_mask(mask.detach().cpu()) for name, mask in masks.items()}
    shapes = {name: list(shape) for name, (_, shape) in packed.items()}
    bits = {name: data for name, (data, _) in packed.items()}
    write_safetensors(path, bits, {"format": "pt", _SHAPES: json.dumps(shapes)})


def read_masks(path: str | os.PathLike[str], dtype: torch.dtype = torch.bool) -> dict[str, Tensor]:
    """Read what :func:`write_masks` wrote.

    :raises CheckpointError: if the file is damaged or holds no masks
    """
    bits, header = read_safetensors(path)
    try:
        shapes = json.loads(header[_SHAPES])
        return {name: unpack_mask(data, shapes[name], dtype) for name, data in bits.items()}
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{path} holds no packed masks ({one_line(error)})") from error


def masks_of_run(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return parameter name → mask (bool, True = keep) that a run has left.

    :param path: its folder, its ``masks.safetensors``, or one of its checkpoints
    :raises RunError: if there are no masks
    :raises CheckpointError: if the file is damaged
    """
    file = Path(path).expanduser()
    if file.is_dir():
        inside = file / MASKS_FILE
        file = inside if inside.exists() else find_checkpoint(str(path), _FLAG)
    elif not file.exists():
        raise RunError(f"{_FLAG} {path}: no such file or folder")
    if file.suffix == ".safetensors":
        return read_masks(file)
    found: dict[str, Tensor] = {}
    content = read_torch_file(file)
    state = content.get("manager") if isinstance(content, Mapping) else None
    for name, mask in _named(unpack_masks(state)):
        found[name] = found[name] & mask if name in found else mask
    if not found:
        raise RunError(f"{_FLAG} {file} holds no masks")
    return found


def _named(state: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the masks in the state of a manager, whose modifiers may be in stages."""
    for name, value in state.items() if isinstance(state, Mapping) else ():
        if isinstance(value, Tensor) and name.endswith(SUFFIX):
            yield name.removesuffix(SUFFIX), value != 0
        elif not name.startswith("__"):  # progress is no mask
            yield from _named(value)


@torch.no_grad()
def mask_weights(model: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set the weights to zero that masks take away, before a recipe measures how many are.

    :param masks: parameter name → mask, zero or False where the weight goes
    :raises RunError: naming the parameters that the model lacks, or that have another shape;
        nothing is changed then
    """
    # masks of tied weights may go by any of their names
    params = dict(unwrap_module(model).named_parameters(remove_duplicate=False))
    lacking = [name for name in masks if name not in params]
    if lacking:
        raise RunError(f"{_FLAG}: the model has no parameter {few(lacking)}")
    _require_shapes(masks, params)
    for name, mask in masks.items():
        params[name].mul_(mask.to(params[name]))


def carry_masks(manager: Any, masks: Mapping[str, Tensor]) -> Carried:
    """Put masks in force in the modifiers of a recipe that prune these parameters.

    They hold from now on, also before a modifier starts; when it updates its masks it decides anew,
    as its recipe says. Of several modifiers for a parameter the one that starts first takes over.

    :param manager: that has modified the model
    :param masks: parameter name → mask, zero or False where the weight goes
    :raises RunError: naming the parameters that no modifier prunes, or that have another shape;
        nothing is changed then
    """
    pruners = [one for one in manager.iter_modifiers() if isinstance(one, BasePruningModifier)]
    owner: dict[str, BasePruningModifier] = {}
    for modifier in sorted(pruners, key=lambda one: float(one.start_epoch)):
        for name in modifier.masks:
            owner.setdefault(name, modifier)
    lacking = [name for name in masks if name not in owner]
    if lacking:
        raise RunError(
            f"{_FLAG}: no modifier of the recipe prunes {few(lacking)}; "
            "a ConstantPruningModifier keeps masks as they are"
        )
    taken: Carried = []
    for modifier in dict.fromkeys(owner[name] for name in masks):
        own = {name: mask != 0 for name, mask in masks.items() if owner[name] is modifier}
        _require_shapes(own, dict(zip(modifier.masks, modifier.masks.params, strict=True)))
        taken.append((modifier, own))
    for modifier, own in taken:
        modifier.masks.restore([own.get(name, mask) for name, mask in modifier.masks.items()])
        modifier.masks.enabled = True
    return taken


def tell_carried(taken: Carried, steps_per_epoch: int, steps: int) -> None:
    """Log which masks were taken, and what the recipe goes on to do with them.

    :param steps: of the whole run
    """
    for modifier, masks in taken:
        held = tensor_list_sparsity(masks.values())
        updates = list(modifier.schedule.updates(steps_per_epoch, steps))
        asked: list[tuple[float, float]] = []
        for update in updates[:1] + updates[-1:]:
            level = modifier.get_applied_sparsity_for_epoch(update.epoch, steps_per_epoch)
            if level is not None:
                each = level if isinstance(level, (list, tuple)) else [level]
                asked.append((max(each), update.epoch))
        says = "keeps them as they are"
        if asked:
            first, last = (f"{level:.4g} at epoch {epoch:.4g}" for level, epoch in asked)
            says = f"asks for {first}, and at last for {last}"
        name, without = f"{_FLAG}: {type(modifier).__name__}", len(modifier.masks) - len(masks)
        taken_here = f"{len(masks)} masks" + (f" ({without} parameters without)" if without else "")
        _LOGGER.info("%s takes %s, sparsity %.4g; it %s", name, taken_here, held, says)
        if asked and asked[0][0] < held - _NEAR:
            _LOGGER.warning(
                "%s asks for less than the masks hold, so weights come back: let it begin with "
                "init_sparsity %.4g, or __FROM_PARAM__", name, held,
            )  # fmt: skip


def _require_shapes(masks: Mapping[str, Tensor], params: Mapping[str, Tensor]) -> None:
    for name, mask in masks.items():
        if mask.shape != params[name].shape:
            raise RunError(
                f"{_FLAG}: {name} has shape {tuple(params[name].shape)}, its mask "
                f"{tuple(mask.shape)}"
            )
