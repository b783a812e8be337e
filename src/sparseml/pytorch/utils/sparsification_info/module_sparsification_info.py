"""The whole report on the sparsification of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from torch import nn

from sparseml.pytorch.utils.params import distinct_params
from sparseml.pytorch.utils.sparsification_info.configs import (
    SparsificationPruning,
    SparsificationQuantization,
    SparsificationSummaries,
)


class ModuleSparsificationInfo(BaseModel):
    """Summaries, pruning and quantization of a model."""

    summary_info: SparsificationSummaries
    pruning_info: SparsificationPruning
    quantization_info: SparsificationQuantization

    @classmethod
    def from_module(cls, module: nn.Module) -> ModuleSparsificationInfo:
        """Look at ``module``.

        :raises ValueError: for anything but a module, or naming a parameter on the meta device
        """
        if not isinstance(module, nn.Module):
            raise ValueError(f"module must be a torch.nn.Module, found {type(module).__name__}")
        for found in distinct_params(module):
            if found.param.is_meta:
                fault = "is on the meta device, where it has no values; load the module first"
                raise ValueError(f"the parameter {found.name} {fault}")
        return cls(
            summary_info=SparsificationSummaries.from_module(module),
            pruning_info=SparsificationPruning.from_module(module),
            quantization_info=SparsificationQuantization.from_module(module),
        )

    def loggable_items(self, **kwargs: Any) -> Iterator[tuple[str, Any]]:
        """Yield ``(tag, value)`` of all parts; keywords go to each part."""
        for part in (self.summary_info, self.pruning_info, self.quantization_info):
            yield from part.loggable_items(**kwargs)


def log_module_sparsification_info(module: nn.Module, logger: Any, step: Any = None) -> None:
    """Log the report on ``module``: dicts by ``log_scalars``, others by ``log_scalar``."""
    for tag, value in ModuleSparsificationInfo.from_module(module).loggable_items():
        if isinstance(value, Mapping):
            logger.log_scalars(tag=tag, values=value, step=step)
        else:
            logger.log_scalar(tag=tag, value=value, step=step)
