"""Sharpness-aware minimisation: the gradient where the loss is worst nearby."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import Parameter

_TINY = 1e-12


@dataclass(frozen=True)
class SharpnessAware:
    """Settings of sharpness-aware minimisation (Foret et al., 2021, equation 2).

    :param rho: length of the step towards a higher loss
    :param adaptive: measure it relative to each weight (Kwon et al., "ASAM", 2021)
    :param topk: there, also leave out this fraction of smallest weights: the gradient is then that
        of a sparser model, which makes later pruning harm less
    :param global_sparsity: rank the weights of all tensors together for ``topk``
    """

    rho: float = 0.05
    adaptive: bool = False
    topk: float = 0.0
    global_sparsity: bool = False

    def __post_init__(self) -> None:
        if self.rho < 0 or not 0 <= self.topk < 1:
            raise ValueError(
                f"rho must not be negative and topk in [0, 1), found {self.rho} and {self.topk}"
            )

    def replace_gradients(
        self, params: Iterable[Parameter], backward: Callable[[], object]
    ) -> None:
        """Put the gradients at the perturbed weights in the place of those at the weights.

        Weights without gradient (masked ones, say) are not perturbed; gradients that are not
        finite are left as they are.

        :param backward: computes gradients anew into ``.grad``, which it finds to be None
        """
        held = [param for param in params if param.grad is not None]
        if not held:
            return
        before = [param.detach().clone() for param in held]
        try:
            if self._perturb(held):
                for param in held:
                    param.grad = None
                backward()
        finally:
            with torch.no_grad():
                torch._foreach_copy_([param.data for param in held], before)

    @torch.no_grad()
    def _perturb(self, params: list[Parameter]) -> bool:
        grads: list[Any] = [param.grad for param in params]
        scaled = [
            grad * param.abs() if self.adaptive else grad
            for param, grad in zip(params, grads, strict=True)
        ]
        # half precision would overflow; double stays
        norms = [
            torch.linalg.vector_norm(part, dtype=torch.promote_types(part.dtype, torch.float32))
            for part in scaled
        ]
        norm = torch.linalg.vector_norm(torch.cat([norm.reshape(1).cpu() for norm in norms]))
        if not bool(norm.isfinite()):
            return False
        for param, part in zip(params, scaled, strict=True):
            along = part * param.abs() if self.adaptive else part
            param.add_(along, alpha=self.rho / (float(norm) + _TINY))
        if self.topk:
            self._drop_smallest([param for param in params if param.ndim > 1])
        return True

    def _drop_smallest(self, params: list[Parameter]) -> None:
        groups = [params] if self.global_sparsity else [[param] for param in params]
        for group in groups:
            sizes = torch.cat([param.abs().flatten() for param in group])
            count = round(self.topk * len(sizes))
            if count:
                threshold = sizes.kthvalue(count).values
                for param in group:
                    param.masked_fill_(param.abs() <= threshold, 0.0)
