"""What scripts around a ``transformers.Trainer`` share: flags, the run, and what it leaves behind.

The scripts are in ``integrations/huggingface``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparseml.lazy import lazy_names

if TYPE_CHECKING:
    from sparseml.transformers.scripts.arguments import DataArguments, ModelArguments, parsed
    from sparseml.transformers.scripts.outcome import SparsityRatios, sparsity_ratios
    from sparseml.transformers.scripts.training import TrainerTask, reported, run_script

__all__ = [
    "DataArguments",
    "ModelArguments",
    "SparsityRatios",
    "TrainerTask",
    "parsed",
    "reported",
    "run_script",
    "sparsity_ratios",
]

_HOMES = {
    "arguments": "DataArguments ModelArguments parsed",
    "outcome": "SparsityRatios sparsity_ratios",
    "training": "TrainerTask reported run_script",
}
__getattr__, __dir__ = lazy_names(
    __name__, {f"{__name__}.{home}": names for home, names in _HOMES.items()}
)
