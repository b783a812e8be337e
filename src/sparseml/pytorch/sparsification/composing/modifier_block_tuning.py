"""Tuning pruned blocks against the model that they are of, within anyone's training loop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from sparseml.pytorch.functional.composing.losses import LOSSES
from sparseml.pytorch.sparsification.composing.blocks import Block, Plan
from sparseml.pytorch.sparsification.composing.store import PRUNED, BlockStore
from sparseml.pytorch.sparsification.composing.student import (
    DECAYS,
    Student,
    TuningSettings,
    tune_id,
    tuning_id,
)
from sparseml.pytorch.sparsification.composing.teaching import Teaching
from sparseml.pytorch.sparsification.fields import (
    as_flag,
    as_given,
    as_optional_names,
    between,
    declared_fields,
    field,
    fixed,
    one_of,
)
from sparseml.pytorch.sparsification.modifier import Loggers, PyTorchModifierYAML, ScheduledModifier
from sparseml.pytorch.sparsification.pruning.settings.memory import as_memory, parse_bytes
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.utils.text import few

_LOOP = "a training loop"
_MASKS = {"decoder": "decoder_attention_mask", "": "attention_mask"}


@PyTorchModifierYAML()
@declared_fields()
class BlockTuningModifier(ScheduledModifier):
    """Tunes pruned blocks, each against the part of the model that it is of.

    The model is the origin: it is frozen, and stays as it is. Every block gets the inputs that its
    part gets, and learns to give the same output, with an optimizer of its own; gradients of blocks
    never mix. Padded positions do not count, as the ``attention_mask`` among the model's keyword
    arguments tells. At the end the best states go into the store.

    ``sparseml compose tune`` takes its fields from this modifier, and tunes in several processes,
    with held-out data to choose the best states by; here the loss of an epoch has to do.

    | Sample yaml:
    |   !BlockTuningModifier
    |       store: store
    |       start_epoch: 0.0
    |       end_epoch: 5.0

    :param store: folder with a plan and pruned blocks, as ``sparseml compose prune`` makes it
    :param blocks: ids of blocks, or names of configurations; None for all that the plan has
    :param loss: ``nmse``, ``mse`` or ``cosine``
    :param lr: learning rate of each block's own optimizer
    :param weight_decay: of the same
    :param decay: what becomes of ``lr`` until the end: ``linear``, ``cosine`` or ``constant``
    :param patience: epochs without a better loss after which a block is done, 0 for never
    :param max_memory: that the blocks of one pass may take, such as ``4GB``
    :param teacher_dropout: let the model drop out, as when it was trained
    :param dropout: let the blocks drop out
    :param seed: of what blocks draw
    """

    store: str = field(as_given)
    start_epoch: float = -1.0
    end_epoch: float = -1.0
    blocks: Any = field(as_optional_names, default=None)
    loss: str = field(one_of(LOSSES), default="nmse")
    lr: float = field(between(above=0.0), default=1e-3)
    weight_decay: float = field(between(0.0), default=0.0)
    decay: str = field(one_of(DECAYS), default="linear")
    patience: int = field(between(0.0), default=0)
    max_memory: str | None = field(as_memory, default=None)
    teacher_dropout: bool = field(as_flag, default=False)
    dropout: bool = field(as_flag, default=False)
    seed: int = field(between(0.0), default=0)
    end_comparator: int = fixed(-1)

    def _set_up(self) -> None:
        self._teaching: Teaching | None = None
        self._students: list[Student] = []
        self._sums: dict[str, float] = {}
        self._handle: Any = None

    def settings(self) -> TuningSettings:
        """Return how blocks are tuned."""
        span = self._end_epoch - max(self._start_epoch, 0.0)
        return TuningSettings(
            max(1, math.ceil(span)), float(self.lr), float(self.weight_decay), int(self.patience),
            self.loss, self.decay if span > 0 else "constant", self.teacher_dropout, self.dropout,
            int(self.seed),
        )  # fmt: skip

    def chosen(self, plan: Plan) -> list[Block]:
        """Return the blocks of a plan that are meant.

        :raises ValueError: for an entry that is neither block nor configuration
        """
        if self.blocks is None:
            return list(plan.blocks)
        ids = {block.block_id for block in plan.blocks}
        wanted: set[str] = set()
        for entry in [self.blocks] if isinstance(self.blocks, str) else self.blocks:
            wanted |= {entry} if entry in ids else {b.block_id for b in plan.blocks_of(entry)}
        return [block for block in plan.blocks if block.block_id in wanted]

    def initialize(
        self, module: Module, epoch: float = 0, loggers: Loggers = None, **kwargs: Any
    ) -> None:
        """Freeze the model, and make ready to learn from it.

        :raises DigestError: for another model than that of the plan, and for altered blocks
        :raises ValueError: for blocks that take more memory than there may be
        """
        self._let_go()
        store, model = BlockStore(self.store), unwrap_module(module, root=True)
        plan = store.plan()
        plan.check_model(model)
        self._students = [
            Student(block, model, *store.read(PRUNED, block.block_id, block), self.settings())
            for block in self.chosen(plan)
        ]
        needed = sum(student.memory for student in self._students)
        if self.max_memory is not None and needed > parse_bytes(self.max_memory):
            raise ValueError(
                f"the blocks take {needed} bytes, more than max_memory {self.max_memory}: name "
                "fewer in blocks, or use sparseml compose tune, which takes them in groups"
            )
        super().initialize(module, epoch, loggers, **kwargs)
        self._teaching = Teaching(model, self._students, collect=True)
        self._teaching.__enter__()
        self._teaching.students = []  # until it starts

        def begin(called: Module, args: Any, kwargs: Mapping[str, Any]) -> None:
            if called is model:  # and no copy of it
                self._begin(kwargs)

        self._handle = model.register_forward_pre_hook(begin, with_kwargs=True)

    def finalize(
        self, module: Module | None = None, reset_loggers: bool = True, **kwargs: Any
    ) -> None:
        """Leave the model as it was."""
        super().finalize(module, reset_loggers, **kwargs)
        self._let_go()

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Begin to learn at the start; at the end, write what was learned."""
        super().update(module, optimizer, epoch, steps_per_epoch)
        assert self._teaching is not None
        if self.start_pending(epoch, steps_per_epoch):
            self._teaching.students = list(self._students)
        if self.end_pending(epoch, steps_per_epoch):
            self._teaching.students = []
            self._write()

    def loss_update(
        self,
        loss: Tensor,
        module: Module,
        optimizer: Optimizer,
        epoch: float,
        steps_per_epoch: int,
        **kwargs: Any,
    ) -> Tensor:
        """Return the sum of the blocks' losses; the model's own teaches nobody anything."""
        super().loss_update(loss, module, optimizer, epoch, steps_per_epoch, **kwargs)
        assert self._teaching is not None
        found = list(self._teaching.losses.values())
        if found:
            return torch.stack(found).sum()
        # all is frozen, but loops call backward all the same
        return loss + 0.0 * next(self._students[0].module.parameters()).sum()

    def optimizer_post_step(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Move the blocks, each by its own optimizer."""
        super().optimizer_post_step(module, optimizer, epoch, steps_per_epoch)
        assert self._teaching is not None
        for student in list(self._teaching.students):
            key = student.block.block_id
            if key not in self._teaching.losses:
                continue
            loss = float(self._teaching.losses[key].detach())
            if not student.losses:
                student.measured(loss)
            self._sums[key] = self._sums.get(key, 0.0) + loss
            student.step(steps_per_epoch)
            if student.steps % steps_per_epoch == 0:
                student.measured(self._sums.pop(key) / steps_per_epoch)
                if student.done:
                    self._teaching.students.remove(student)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the weights of the blocks, by block id and name."""
        return dict(self._modules().state_dict())

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Restore the weights of the blocks."""
        self._require_initialized("load_state_dict")
        own = self._modules().state_dict()
        if strict and own.keys() != state_dict.keys():
            raise IndexError(
                f"{type(self).__name__} has the blocks {few(sorted(own))}, found "
                f"{few(sorted(state_dict))}"
            )
        self._modules().load_state_dict({n: state_dict.get(n, v) for n, v in own.items()})

    def progress_state(self) -> dict[str, Any]:
        """Return how far each block has come."""
        blocks = {student.block.block_id: student.state() for student in self._students}
        return {**super().progress_state(), "blocks": blocks}

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Go on where the blocks were."""
        super().load_progress_state({n: v for n, v in state.items() if n != "blocks"})
        for student in self._students:
            student.load_state(*state["blocks"][student.block.block_id])
        if self._teaching is not None and self._started and not self._ended:
            self._teaching.students = [one for one in self._students if not one.done]

    def _modules(self) -> torch.nn.ModuleDict:
        return torch.nn.ModuleDict({one.block.block_id: one.module for one in self._students})

    def _begin(self, kwargs: Mapping[str, Any]) -> None:
        assert self._teaching is not None
        given = {part: kwargs.get(name) for part, name in _MASKS.items()}
        self._teaching.begin({n: m.bool() for n, m in given.items() if isinstance(m, Tensor)})

    def _write(self) -> None:
        store, tuning = BlockStore(self.store), tuning_id(self.settings(), _LOOP)
        for student in self._students:
            store.finish(student, tune_id(student.block, tuning), tuning, type(self).__name__)

    def _let_go(self) -> None:
        if self._teaching is not None:
            self._teaching.__exit__()
            self._handle.remove()
        self._teaching = self._handle = None
        self._students, self._sums = [], {}
