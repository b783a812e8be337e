"""Gradual correlation-aware pruning."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from sparseml.pytorch.sparsification.fields import declared_fields, field
from sparseml.pytorch.sparsification.modifier import PyTorchModifierYAML
from sparseml.pytorch.sparsification.pruning.fisher_fields import as_optional_text
from sparseml.pytorch.sparsification.pruning.fisher_passes import FisherSettings
from sparseml.pytorch.sparsification.pruning.modifier_pruning_obs import OBSPruningModifier

__all__ = ["CAPruningModifier"]


def _as_int(name: str, value: Any) -> int:
    return int(value)


@PyTorchModifierYAML()
@declared_fields()
class CAPruningModifier(OBSPruningModifier):
    """Removes weights one after another, always the one that costs least after those before it.

    Kuznedelev et al., "CAP: Correlation-Aware Pruning for Highly-Accurate Sparse Vision Models"
    (2023). The weights that stay make up for all that went together (``weight_update: joint``).

    | Sample yaml:
    |   !CAPruningModifier
    |       init_sparsity: 0.4
    |       final_sparsity: 0.9
    |       start_epoch: 0.0
    |       end_epoch: 10.0
    |       update_frequency: 2.0
    |       params: ['re:.*(attn.(qkv|proj)|mlp.fc\\d+).weight']
    |       num_grads: 4096
    |       damp: 1e-8
    |       fisher_block_size: 192

    The fields are those of :class:`OBSPruningModifier`, and:

    :param mask_type: ``unstructured``, runs of inputs (``block4``, ``1x8``, ``[1, 8]``) or ``N:M``,
        which keeps N of M (the files of the CAP release say how many of M are *pruned*)
    :param blocks_in_parallel: accepted from recipes of the CAP release; nothing depends on it
    :param traces_backup_dir: a folder for inverse Fisher matrices that ``fisher_memory`` has no
        room for. With ``global_sparsity`` they are estimated twice without it
    """

    _eliminate = True

    fisher_block_size: int = 50
    weight_update: str = "joint"
    blocks_in_parallel: int = field(_as_int, default=-1)
    traces_backup_dir: str | None = field(as_optional_text, default=None)

    def _pattern(self) -> tuple[int, tuple[int, int] | None]:
        shape = self._mask_type
        if isinstance(shape, list) and len(shape) == 2 and shape[0] == 1 and shape[1] > 1:
            return shape[1], None
        words = {"unstructured": "1x1", "block4": "1x4", "tensorrt": "2:4"}
        found = re.fullmatch(r"\s*(\d+)\s*([x:])\s*(\d+)\s*", words.get(str(shape), str(shape)))
        first, last = (int(found[1]), int(found[3])) if found else (0, 0)
        if found and found[2] == ":" and 0 < first < last:
            return last, (first, last)
        if found and found[2] == "x" and first == 1 and last >= 1:
            return last, None
        raise ValueError(
            f"mask_type of {type(self).__name__} must be unstructured, block4, 1xk, [1, k] or N:M "
            f"(N kept of M), found {shape!r}"
        )

    def _settings(self) -> FisherSettings:
        return dataclasses.replace(super()._settings(), folder=self.traces_backup_dir)
