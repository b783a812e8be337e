"""What tuning blocks once costs, beside fine-tuning every pruned model by itself."""

from __future__ import annotations

import math
from dataclasses import dataclass

TRAINING = 3.0
"""A full training step in forward passes: one forwards, two backwards."""
BLOCK = 2.0
"""A step of a block in its forward passes: there is no gradient for its input."""


@dataclass(frozen=True)
class Costs:
    """Costs of a plan, in units of the caller's choice, such as multiply-adds of a token.

    :param configurations: how many models there shall be, K
    :param forward: of one forward pass of the whole model, f
    :param blocks: of one forward pass of each distinct block, summed up
    :param requests: the same for all blocks of all configurations, shared ones as often as used
    :param passes: groups that the blocks are tuned in, each with a teacher's forward pass, G
    :param teacher: of the teacher's forward passes of all groups, which end after the last block of
        each; None for ``passes * forward``
    :param block_epochs: epochs of tuning, E_b
    :param steps: in an epoch, S
    """

    configurations: int
    forward: float
    blocks: float
    requests: float
    passes: int = 1
    teacher: float | None = None
    block_epochs: float = 1.0
    steps: float = 1.0

    @property
    def epoch(self) -> float:
        """Return the cost of an epoch of fine-tuning one model, S * F."""
        return self.steps * TRAINING * self.forward

    @property
    def block_stage(self) -> float:
        """Return the cost of tuning all distinct blocks."""
        return self.block_epochs * self.steps * (self._teacher + BLOCK * self.blocks)

    @property
    def unshared(self) -> float:
        """Return the cost of tuning the blocks of each configuration anew."""
        alone = self.configurations * self.forward + BLOCK * self.requests
        return self.block_epochs * self.steps * alone

    @property
    def epochs_to_save(self) -> float:
        """Return how many epochs each model must save for the tuning to pay."""
        return self.block_stage / (self.configurations * self.epoch)

    def direct(self, epochs: float) -> float:
        """Return the cost of fine-tuning every model by itself for E_0 epochs."""
        return self.configurations * epochs * self.epoch

    def composed(self, epochs: float) -> float:
        """Return the cost of tuning blocks, then fine-tuning every model for E_1 epochs."""
        return self.block_stage + self.configurations * epochs * self.epoch

    def break_even(self, direct: float, composed: float) -> float:
        """Return from how many configurations on tuning pays; infinity where it never does.

        The plan's blocks are taken as they are: with more configurations of the same rates there
        are no more of them.

        :param direct: epochs without it, E_0
        :param composed: epochs with it to the same quality, E_1
        """
        saved = (direct - composed) * self.epoch
        return self.block_stage / saved if saved > 0 else math.inf

    def speed_up(self, direct: float, composed: float) -> float:
        """Return how many times less the composed models cost."""
        return self.direct(direct) / self.composed(composed)

    @property
    def _teacher(self) -> float:
        return self.passes * self.forward if self.teacher is None else self.teacher
