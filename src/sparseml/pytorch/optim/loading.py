"""Loading a model whose structure a recipe has changed."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from typing import Any

from torch import nn

from sparseml.pytorch.optim.manager import ScheduledModifierManager
from sparseml.pytorch.utils.model import load_model_state, read_model_file


def load_model(
    path: str | os.PathLike[str],
    model: nn.Module,
    strict: bool = False,
    ignore_error_tensors: Iterable[str] | None = None,
    fix_data_parallel: bool = True,
) -> Any:
    """Load the weights of a file into ``model``, changing its structure first where needed.

    Only tensors and plain data are read (``weights_only=True``): a file with a whole pickled
    module is refused. If the file holds a recipe, its structural modifiers are applied to the
    model as at the stored epoch (as after the last one if none is stored); then layers that are
    smaller in the file (thinned) are shrunk.

    :param path: what ``save_model`` or ``save_checkpoint`` wrote, a bare state dict, or a
        ``.safetensors`` file
    :param strict: demand that the names of model and file agree
    :param ignore_error_tensors: names that may be missing, unexpected or of another shape
    :param fix_data_parallel: ignore levels that wrappers (DDP, ``torch.compile``) add to names
    :return: torch's record of ``missing_keys`` and ``unexpected_keys``
    :raises CheckpointError: naming the file, if it is damaged, unsafe to read or no model file
    :raises RuntimeError: when shapes differ or, with ``strict``, names
    """
    content = read_model_file(path)
    if content.get("recipe"):
        epoch = content.get("epoch")
        manager = ScheduledModifierManager.from_yaml(content["recipe"])
        manager.apply_structure(model, math.inf if epoch is None or epoch == -1 else epoch)
    how = (strict, ignore_error_tensors, fix_data_parallel)
    return load_model_state(model, content["state_dict"], *how)
