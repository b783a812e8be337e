"""The process that trains one run of a chain: its command line, and what it leaves."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparseml.gap.plan import Link
from sparseml.pytorch.functional.selection import prune_count
from sparseml.pytorch.utils.saving.files import (
    CheckpointError,
    read_safetensors,
    read_torch_file,
)
from sparseml.run.checkpoints import last_checkpoints
from sparseml.run.errors import RunError, few
from sparseml.run.masks import MASKS_FILE, read_masks
from sparseml.utils.plain import json_of

MODEL_KEYS = ("model", "state_dict")
"""Where a checkpoint may have its weights."""

_START = "from sparseml.cli import main; main(prog_name='sparseml')"
_PLACES = ("{recipe}", "{output}", "{parent}", "{masks}", "{seed}", "{epochs}", "{lr}")


@dataclass(frozen=True)
class Child:
    """How to start a run.

    :param words: flags of ``sparseml train``, or a command with ``{recipe}`` and ``{output}``
        among its words, and ``{parent}``, ``{masks}``, ``{seed}``, ``{epochs}`` and ``{lr}`` where
        it needs them
    :param with_parent: more words for every run that starts from the weights of another
    :param first: more words for those that do not
    :param checkpoint: of a command, the file of weights that it leaves in ``{output}``
    :param gpus: processes, each with a GPU, that ``sparseml train`` runs in
    """

    words: Sequence[str]
    with_parent: Sequence[str] = ()
    first: Sequence[str] = ()
    checkpoint: str = "checkpoints/checkpoint_last.pt"
    gpus: int = 1
    own: bool = field(init=False)
    """Whether it is ``sparseml train``."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "own", not any("{recipe}" in word for word in self.words))
        if not self.own and not any("{output}" in word for word in self.words):
            raise RunError("the command after -- has {recipe}, but no {output} to write to")
        if self.own and any(place in word for word in self.words for place in _PLACES):
            raise RunError("the command after -- has no {recipe}")

    def command(self, link: Link, folder: Path, recipe: Path, parent: Path | None) -> list[str]:
        """Return the command line of a run.

        :param folder: for what it leaves
        :param parent: the weights to start from, None to start from new ones
        """
        words = [*self.words, *(self.first if parent is None else self.with_parent)]
        if self.own:
            return [*self._train(link, folder, recipe, parent), *words]
        values = {
            "recipe": recipe, "output": folder, "parent": parent, "seed": link.seed,
            "epochs": link.epochs, "lr": link.rate,
            "masks": None if parent is None else parent.with_name(MASKS_FILE),
        }  # fmt: skip
        for name, value in values.items():
            if value is None and any(f"{{{name}}}" in word for word in words):
                flag = "--lr" if name == "lr" else "--with-parent, for the words that need it,"
                raise RunError(f"the command after -- has {{{name}}}: give {flag} as well")
            words = [word.replace(f"{{{name}}}", str(value)) for word in words]
        return words

    def weights(self, folder: Path) -> Path:
        """Return the file of weights that a run leaves in its folder."""
        return folder / ("model.safetensors" if self.own else self.checkpoint)

    def _train(self, link: Link, folder: Path, recipe: Path, parent: Path | None) -> list[str]:
        start = [sys.executable, "-c", _START]
        launch: list[str] = []
        if self.gpus > 1:
            processes = f"--nproc-per-node={self.gpus}"
            launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", processes]
            launch += ["--no-python"]
        launch += [*start, "train", "--recipe", str(recipe), "--output", str(folder.parent)]
        launch += ["--experiment", folder.name, "--seed", str(link.seed)]
        launch += ["--epochs", str(link.epochs)]
        launch += [] if link.rate is None else ["--lr", repr(link.rate)]
        if last_checkpoints(folder):  # it has begun before
            return [*launch, "--resume", str(folder)]
        launch += ["--overwrite"]
        if parent is None:
            return launch
        masks = parent.with_name(MASKS_FILE)
        launch += ["--checkpoint", str(parent)]
        return [*launch, "--initial-masks", str(masks)] if masks.exists() else launch


def read_weights(file: Path) -> dict[str, Tensor]:
    """Return name → tensor of a file of weights; of a checkpoint what it has as its model.

    :raises CheckpointError: if it cannot be read
    :raises RunError: if it holds no weights
    """
    if file.suffix == ".safetensors":
        return read_safetensors(file)[0]
    content = read_checkpoint(file)
    for key in MODEL_KEYS:
        if isinstance(content.get(key), Mapping):
            content = content[key]
    found = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not found:
        raise RunError(f"{file} holds no weights")
    return found


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Return what is in a file of ``torch.save``, one of fairseq included.

    :raises CheckpointError: if it cannot be read without running code in it
    :raises RunError: if it is no mapping
    """
    try:
        content: Any = read_torch_file(file)
    except CheckpointError:
        from sparseml.fairseq.reading import fairseq_files  # which imports fairseq

        with fairseq_files():
            content = read_torch_file(file)
    if not isinstance(content, Mapping):
        raise RunError(f"{file} holds no weights")
    return dict(content)


def check_sparsity(link: Link, file: Path, fields: Mapping[str, Any]) -> None:
    """Check that the weights that a run has left are as sparse as they shall be.

    :param fields: of the ``GaPPruningModifier``
    :raises RunError: naming the tensors that are not
    """
    weights, masks_file = read_weights(file), file.with_name(MASKS_FILE)
    final, exact = fields["final_sparsity"], not fields.get("global_sparsity")
    exact &= fields.get("mask_type", "unstructured") == "unstructured"
    one = float(final) if not isinstance(final, Mapping) else None
    if not masks_file.exists():
        least = one if one is not None else min(s for s in final if s)
        if not any(int((w == 0).sum()) >= round(least * w.numel()) > 0 for w in weights.values()):
            raise RunError(f"{link.name}: no tensor in {file} has a sparsity of {least:g}")
        return
    masks = read_masks(masks_file)
    if moved := [name for name, mask in masks.items() if weights[name][~mask].any()]:
        raise RunError(f"{link.name}: {few(moved)} in {file} are not zero where their masks are")
    gone = {name: int((~mask).sum()) for name, mask in masks.items()}
    dense = [name for name, count in gone.items() if not count]
    if len(dense) == len(masks) or (dense and not link.dense and one is not None):
        raise RunError(f"{link.name}: {few(dense)} in {file} are dense")
    for name, count in gone.items() if exact and one is not None else ():
        wanted = prune_count(masks[name].numel(), one or 0.0)
        if count not in (0, wanted):
            raise RunError(
                f"{link.name}: {count} of {masks[name].numel()} weights of {name} in {file} are "
                f"pruned, not {wanted}"
            )


def measured(folder: Path) -> dict[str, Any]:
    """Return the metrics of the model that a run of ``sparseml train`` has left."""
    try:
        result = json_of((folder / "result.json").read_text(encoding="utf-8"))
        return dict(result["variants"]["sparse"]["metrics"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def masked_names(file: Path) -> dict[str, Tensor]:
    """Return the masks that lie beside a file of weights.

    :raises RunError: if there are none
    """
    masks = file.with_name(MASKS_FILE)
    if not masks.exists():
        raise RunError(f"{masks} is not there, so nothing tells which partition {file} has grown")
    return read_masks(masks, torch.bool)
