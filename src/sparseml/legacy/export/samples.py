"""Tensors as numpy files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparseml.legacy.export.arrays import save_numbered, save_numpy
from sparseml.legacy.export.arrays import tensors_export as arrays_export


def _to_numpy(tensor: Any) -> Any:
    """Return tensors as arrays, in the collections that they come in."""
    if isinstance(tensor, Tensor):
        tensor = tensor.detach().cpu()
        # numpy has no bfloat16
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    if isinstance(tensor, Mapping):
        return {str(key): _to_numpy(item) for key, item in tensor.items()}
    if isinstance(tensor, Iterable) and not isinstance(tensor, (str, bytes, np.ndarray)):
        return [_to_numpy(item) for item in tensor]
    return tensor


def tensor_export(tensor: Any, export_dir: str | Path, name: str, npz: bool = True) -> str:
    """Save a tensor, or a collection of them, as ``<export_dir>/<name>.npz`` (or ``.npy``).

    Several tensors in an ``.npz`` file keep their keys, or are named ``arr_0``, ``arr_1``, ...
    bfloat16, which numpy lacks, is saved as float32.

    :return: path of the file
    :raises ValueError: for a collection with ``npz=False``
    """
    if isinstance(tensor, (Mapping, list, tuple)) and not npz:
        raise ValueError(f"a .npy file holds one tensor, found a {type(tensor).__name__}")
    return save_numpy(_to_numpy(tensor), export_dir, name, npz)


def tensors_export(
    tensors: Any,
    export_dir: str | Path,
    name_prefix: str,
    counter: int = 0,
    break_batch: bool = False,
) -> list[str]:
    """Save each tensor as ``<name_prefix>-<counter, four digits>.npz``; return paths of the files.

    :param break_batch: save one file per sample instead: the collection is a batch, whose tensors
        are split along the first dimension and kept together
    :raises ValueError: for something that is neither a tensor nor a collection
    """
    arrays = _to_numpy(tensors)
    if not break_batch:
        return arrays_export(arrays, export_dir, name_prefix, counter)
    return save_numbered(_break_batch(arrays), export_dir, name_prefix, counter)


def _break_batch(arrays: Any) -> list[Any]:
    if isinstance(arrays, np.ndarray):
        return list(arrays)
    if not isinstance(arrays, (dict, list)):
        raise ValueError(f"expected a tensor or a collection, found {type(arrays).__name__}")
    columns = list(arrays.values()) if isinstance(arrays, dict) else arrays
    sizes = sorted({len(column) for column in columns})
    if len(sizes) > 1:
        raise ValueError(f"the tensors of a batch differ in their first dimension: {sizes}")
    rows = zip(*columns, strict=True)
    if isinstance(arrays, dict):
        return [dict(zip(arrays, row, strict=True)) for row in rows]
    return [list(row) for row in rows]
