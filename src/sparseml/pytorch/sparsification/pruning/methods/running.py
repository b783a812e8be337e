"""Methods that rank single weights by scores gathered over the steps of training."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import Tensor

from sparseml.pytorch.functional.scores import with_momentum
from sparseml.pytorch.sparsification.pruning.masks.mask_set import MaskSet
from sparseml.pytorch.sparsification.pruning.methods.method import Method, Problem
from sparseml.pytorch.utils.layer_kinds import to_out_in
from sparseml.pytorch.utils.tensors.sharded import full_value
from sparseml.utils.text import few

_LOGGER = logging.getLogger(__name__)


class RunningScore(Method):
    """The weights go whose score, with momentum over the steps of training, is lowest.

    :param score: of one step, by weight and gradient
    :param decay: how much of the running score outlives a step; 0 ranks by the last step alone
    :param gain: the share of a step's score in the running score
    :param dtype: to keep running scores in, by default that of the score
    :param from_start: leave out the steps before pruning starts
    """

    _progress = ("_running",)

    def __init__(
        self,
        score: Callable[[Tensor, Tensor], Tensor],
        decay: float = 0.9,
        gain: float = 1.0,
        dtype: torch.dtype | None = None,
        from_start: bool = False,
    ) -> None:
        self._score, self._decay, self._gain, self._dtype = score, decay, gain, dtype
        self._from_start = from_start
        self._running: dict[str, Tensor] = {}
        self.shared: Callable[[str, Tensor], Tensor] | None = None
        """What the weights of a unit share of a step's score, by the parameter's name.

        It gets scores of ``[out, in, *kernel]``, and returns those to add in their place.
        """

    @torch.no_grad()
    def observe(self, masks: MaskSet) -> None:
        if self._from_start and not masks.enabled:
            return
        for one in masks.found:
            if one.param.grad is None:
                continue
            score = self._score(one.param, one.param.grad)
            if self.shared is not None:
                turned = to_out_in(one.layer, one.param_name, score)
                score = to_out_in(one.layer, one.param_name, self.shared(one.name, turned))
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
                f"no gradient has reached {few(without)} while others were scored by theirs; "
                "exclude what does not train"
            )
        return problem.turned([full_value(self._running[name]) for name in problem.names])

    def end(self) -> None:
        self._running = {}
