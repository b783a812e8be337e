"""Where pruned and tuned blocks lie: safetensors beside a ledger, whole or absent, checked."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparseml.pytorch.functional.composing.targets import masks_hash, tensors_hash
from sparseml.pytorch.sparsification.composing.blocks import Block, DigestError, Plan
from sparseml.pytorch.sparsification.composing.ledger import Claims, Ledger
from sparseml.pytorch.sparsification.composing.student import Student
from sparseml.pytorch.utils.saving.files import (
    CheckpointError,
    read_safetensors,
    write_safetensors,
)
from sparseml.utils.paths import file_digest

PRUNED, TUNED = "pruned", "tuned"
_MASK = ".mask"
Tensors = dict[str, Tensor]


class BlockStore:
    """A folder of blocks.

    ``plan.json`` and ``base.json``, ``pruned/<block_id>.safetensors``,
    ``tuned/<tune_id>.safetensors``, ``state/<tune_id>/`` while a block is being tuned,
    ``ledger.jsonl`` and ``models/<configuration>/``. A file holds each tensor under its name in the
    model, and masks as ``<tensor>.mask`` (uint8). Nothing in it is ever unpickled.

    :param folder: made when something is written
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.ledger = Ledger(self.folder / "ledger.jsonl")
        self.claims = Claims(self.folder / "claims")

    @property
    def plan_file(self) -> Path:
        """Where the plan is kept."""
        return self.folder / "plan.json"

    def plan(self) -> Plan:
        """Read the plan; see :meth:`Plan.read`."""
        return Plan.read(self.plan_file)

    def adopt(self, plan: Plan) -> None:
        """Keep a plan.

        :raises DigestError: if the store is of another origin
        """
        if self.plan_file.exists() and self.plan().base["digest"] != plan.base["digest"]:
            raise DigestError(f"{self.folder} holds blocks of another model: give another store")
        plan.write(self.plan_file)
        text = json.dumps({**plan.base, "schema_version": 1}, indent=1)
        (self.folder / "base.json").write_text(text + "\n", encoding="utf-8")

    def path(self, kind: str, key: str) -> Path:
        """Return the file of a block."""
        return self.folder / kind / f"{key}.safetensors"

    def state_path(self, tune_id: str) -> Path:
        """Return the file from which the tuning of a block is resumed."""
        return self.folder / "state" / tune_id / "state.safetensors"

    def write(
        self,
        kind: str,
        key: str,
        block: Block,
        tensors: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        **told: Any,
    ) -> str:
        """Write a block, and return the SHA-256 of the file, which belongs into the ledger.

        :param tensors: full names of parameters and buffers
        :param masks: parameter name → bool
        :param told: kept beside it, such as the losses
        """
        content = {**tensors, **{f"{n}{_MASK}": m.to(torch.uint8) for n, m in masks.items()}}
        spec = json.dumps(dict(block.spec), sort_keys=True)
        header = {"block_id": block.block_id, "origin": block.origin, "spec": spec}
        header |= {name: str(value) for name, value in told.items()}
        header |= {"torch": str(torch.__version__), "modules": json.dumps(list(block.modules))}
        write_safetensors(self.path(kind, key), content, header)
        return file_digest(self.path(kind, key))

    def prune(self, block: Block, tensors: Tensors, masks: Tensors) -> None:
        """Write a block as it was pruned, unless it is there."""
        if self.ledger.last(PRUNED, block_id=block.block_id):
            self.read(PRUNED, block.block_id, block)
            return
        sha = self.write(PRUNED, block.block_id, block, tensors, masks)
        self.ledger.add(PRUNED, block_id=block.block_id, sha256=sha, modules=list(block.modules))

    def finished(self, tune_id: str) -> dict[str, Any] | None:
        """Return what the ledger tells of a tuned block; None before it is finished."""
        return self.ledger.last("finished", tune_id=tune_id)

    def finish(self, student: Student, key: str, tuning: str, worker: str) -> None:
        """Write a block that was tuned, unless somebody else has.

        :param key: its id as it is tuned in this way
        :param tuning: how; the blocks of a model must agree in it
        """
        block, losses = student.block, student.losses
        told = {"block_id": block.block_id, "tune_id": key, "worker": worker}
        with self.claims.locked():
            if self.finished(key):
                self.ledger.add("reused", **told)
                return
            best = min(losses, default=float("nan"))
            before = losses[0] if losses else best
            kept = {"tuning": tuning, "steps": student.steps, "before": before, "after": best}
            sha = self.write(TUNED, key, block, student.tensors(), student.named_masks(), **kept)
            epochs = {"epochs": student.epoch, "best_epoch": student.best_epoch}
            self.ledger.add("finished", **told, **kept, **epochs, losses=losses, sha256=sha)

    def tuned(self, block: Block) -> tuple[str, str]:
        """Return the id of a block as it was tuned last, and how that was.

        :raises FileNotFoundError: if it was not yet
        """
        known = self.ledger.last("finished", block_id=block.block_id)
        if known is None:
            raise FileNotFoundError(f"{block.label} is not tuned yet in {self.folder}")
        return known["tune_id"], known["tuning"]

    def read(self, kind: str, key: str, block: Block) -> tuple[Tensors, Tensors]:
        """Return tensors and masks (bool) of a block.

        :raises DigestError: if the file is not what was written, or of another block
        :raises FileNotFoundError: if there is none
        """
        file = self.path(kind, key)
        event = ("finished", {"tune_id": key}) if kind == TUNED else (PRUNED, {"block_id": key})
        known = self.ledger.last(event[0], **event[1])
        if known is None:
            raise FileNotFoundError(f"{block.label} is not {kind} yet in {self.folder}")
        if not file.exists() or file_digest(file) != known["sha256"]:
            raise DigestError(f"{file} is not the file that was written: damaged, cut or altered")
        try:
            content, header = read_safetensors(file)
        except CheckpointError as error:
            raise DigestError(str(error)) from error
        masks = {n.removesuffix(_MASK): m.bool() for n, m in content.items() if n.endswith(_MASK)}
        tensors = {n: value for n, value in content.items() if not n.endswith(_MASK)}
        if header.get("block_id") != block.block_id or not _are_of(block, masks):
            raise DigestError(f"{file} does not hold the block of {block.label} that is planned")
        return tensors, masks


def _are_of(block: Block, masks: Tensors) -> bool:
    return block.mask_id.partition("+")[0] == masks_hash(masks)


def mask_id(masks: Tensors, renewed: Tensors) -> str:
    """Return the id of masks; of weights that a method gave anew a hash follows after a plus."""
    return masks_hash(masks) + (f"+{tensors_hash(renewed)}" if renewed else "")
