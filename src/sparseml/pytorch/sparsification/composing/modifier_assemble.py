"""Putting a pruned model together from blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.functional.composing.targets import tensor_hash
from sparseml.pytorch.sparsification.composing.blocks import Block, DigestError, Plan
from sparseml.pytorch.sparsification.composing.store import PRUNED, TUNED, BlockStore, Tensors
from sparseml.pytorch.sparsification.fields import as_given, declared_fields, field, fixed, one_of
from sparseml.pytorch.sparsification.modifier import Loggers, PyTorchModifierYAML, ScheduledModifier
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.utils.text import few

SOURCES = (TUNED, PRUNED)


@PyTorchModifierYAML()
@declared_fields()
class AssembleModifier(ScheduledModifier):
    """Replaces the tensors of a model by those of stored blocks when it starts.

    The model must be the origin of the blocks. A ``ConstantPruningModifier`` beside it, with the
    same start or a later one, keeps zero what is pruned.

    | Sample yaml:
    |   !AssembleModifier
    |       store: store
    |       config: small
    |       start_epoch: 0.0

    :param store: folder with a plan and blocks
    :param config: name of a configuration of the plan
    :param source: ``tuned``, or ``pruned`` for the blocks as they were before
    :param end_epoch: without effect: this is done once and not taken back
    """

    store: str = field(as_given)
    config: str = field(as_given)
    source: str = field(one_of(SOURCES), default=TUNED)
    start_epoch: float = 0.0
    end_epoch: float = -1.0
    end_comparator: None = fixed(None)

    def initialize(
        self, module: Module, epoch: float = 0, loggers: Loggers = None, **kwargs: Any
    ) -> None:
        """Check model and blocks; put them together at once if that is due.

        :raises DigestError: for another model, and for altered blocks; nothing is changed then
        """
        super().initialize(module, epoch, loggers, **kwargs)
        start = max(float(self.start_epoch), 0.0)
        if epoch > start and epoch != float("inf"):  # resumed: it was done before
            return
        model, store = unwrap_module(module, root=True), BlockStore(self.store)
        plan = store.plan()
        found = assembled(store, plan, self.config, self.source)
        check_origin(model, plan, found)
        if epoch >= start and self.steps_resolved:
            write_tensors(model, found)

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Put the model together."""
        super().update(module, optimizer, epoch, steps_per_epoch)
        if self.start_pending(epoch, steps_per_epoch) and self.start_epoch > 0:
            store = BlockStore(self.store)
            found = assembled(store, store.plan(), self.config, self.source)
            write_tensors(unwrap_module(module, root=True), found)


def assembled(store: BlockStore, plan: Plan, config: str, source: str = TUNED) -> Tensors:
    """Return the tensors by which a configuration differs from the origin, by full names.

    :raises DigestError: for altered blocks, and for blocks that were tuned in different ways
    :raises FileNotFoundError: for blocks that are not there yet
    """
    found: Tensors = {}
    ways: dict[str, Block] = {}
    for block in plan.blocks_of(config):
        key = block.block_id
        if source == TUNED:
            key, way = store.tuned(block)
            ways[way] = block
        found |= store.read(source, key, block)[0]
    if len(ways) > 1:
        labels = few(block.label for block in ways.values())
        raise DigestError(f"{labels} were tuned with different settings or data: tune them again")
    return found


def masks_of(store: BlockStore, plan: Plan, config: str) -> Tensors:
    """Return the masks (bool) of a configuration, by full names of parameters."""
    found: Tensors = {}
    for block in plan.blocks_of(config):
        found |= store.read(PRUNED, block.block_id, block)[1]
    return found


def check_origin(model: Module, plan: Plan, instead: Mapping[str, Tensor]) -> None:
    """Check that a model is the origin of a plan, or has in places what will be put there.

    :raises DigestError: if it is not
    """
    allowed = {name: tensor_hash(value) for name, value in instead.items()}
    plan.check_model(model, allowed)


@torch.no_grad()
def write_tensors(model: Module, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors into a model in place, so that what is tied stays tied."""
    state = model.state_dict()
    for name, value in tensors.items():
        state[name].copy_(value)
