"""Methods that rank single weights by scores gathered over the steps of training."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from sparseml.pytorch.functional.patterns import PerTensor
from sparseml.pytorch.functional.scores import with_momentum
from sparseml.pytorch.sparsification.pruning.masks.mask_set import MaskSet
from sparseml.pytorch.sparsification.pruning.methods.method import Method, Problem
from sparseml.pytorch.utils.layer_kinds import to_out_in
from sparseml.pytorch.utils.tensors.sharded import full_value

_LOGGER = logging.getLogger(__name__)


class RunningScore(Method):
    """The weights go whose score, with momentum over the steps of training, is lowest.

    :param score: of one step, by weight and gradient
    :param decay: how much of the running score outlives a step; 0 ranks by the last step alone
    :param gain: the share of a step's score in the running score
    :param dtype: to keep running scores in, by default that of the score
    """

    _progress = ("_running",)

    def __init__(
        self,
        score: Callable[[Tensor, Tensor], Tensor],
        decay: float = 0.9,
        gain: float = 1.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._score, self._decay, self._gain, self._dtype = score, decay, gain, dtype
        self._running: dict[str, Tensor] = {}
        self.units: PerTensor | None = None
        """Units whose weights shall share the highest score of each step, before it is added."""

    @torch.no_grad()
    def observe(self, masks: MaskSet) -> None:
        for one in masks.found:
            if one.param.grad is None:
                continue
            score = self._score(one.param, one.param.grad)
            if self.units is not None:
                turned = to_out_in(one.layer, one.param_name, score)
                folded, dims = self.units.fold(turned)
                shared = folded.amax(dims, keepdim=True).expand_as(folded).reshape(turned.shape)
                score = to_out_in(one.layer, one.param_name, shared)
            before = self._running.get(one.name)
            if before is None or before.shape != score.shape:
                before = torch.zeros_like(score, dtype=self._dtype)
            before = before.to(score.device)
            self._running[one.name] = with_momentum(before, score, self._decay, self._gain)

    def scores(self, problem: Problem) -> list[Tensor]:
        """Return the running scores; before any gradient was seen, magnitudes.

        :return: at least float32, or ``dtype``
        :raises RuntimeError: naming parameters that no gradient has reached while others had some
        """
        without = [name for name in problem.names if name not in self._running]
        if len(without) == len(problem.names):
            _LOGGER.warning("no gradient has been seen yet, so magnitudes decide what is pruned")
            return [weight.abs() for weight in problem.weights]
        if without:
            raise RuntimeError(
                f"no gradient has reached {', '.join(without[:5])}{', ...' if without[5:] else ''} "
                "while others were scored by theirs; exclude what does not train"
            )
        return problem.turned([full_value(self._running[name]) for name in problem.names])

    def end(self) -> None:
        self._running = {}
