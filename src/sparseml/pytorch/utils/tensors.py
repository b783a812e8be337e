"""Working on nested collections of tensors: moving, feeding to a module, saving."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sparseml.utils.arrays import save_numpy
from sparseml.utils.arrays import tensors_export as arrays_export

__all__ = [
    "detach",
    "tensor_export",
    "tensors_batch_size",
    "tensors_export",
    "tensors_module_forward",
    "tensors_to_device",
    "tensors_to_precision",
]


def tensors_batch_size(tensors: Any) -> int:
    """Return the first dimension of the first tensor found, depth first; -1 if there is none.

    A tensor without dimensions does not count.
    """
    if isinstance(tensors, Tensor):
        return tensors.shape[0] if tensors.ndim else -1
    if isinstance(tensors, Mapping):
        tensors = tensors.values()
    if isinstance(tensors, Iterable) and not isinstance(tensors, (str, bytes)):
        for item in tensors:
            size = tensors_batch_size(item)
            if size > -1:
                return size
    return -1


def _map_tensors(tensors: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(tensors, Tensor):
        return function(tensors)
    if isinstance(tensors, Mapping):
        kind = OrderedDict if isinstance(tensors, OrderedDict) else dict
        return kind((key, _map_tensors(item, function)) for key, item in tensors.items())
    if isinstance(tensors, tuple):
        items = [_map_tensors(item, function) for item in tensors]
        return type(tensors)(*items) if hasattr(tensors, "_fields") else tuple(items)
    if isinstance(tensors, Iterable) and not isinstance(tensors, (str, bytes)):
        return [_map_tensors(item, function) for item in tensors]
    raise ValueError(
        "expected a tensor, or a mapping, tuple or iterable of tensors, "
        f"found {type(tensors).__name__}"
    )


def tensors_to_device(tensors: Any, device: str | torch.device) -> Any:
    """Return ``tensors`` with every tensor moved to ``device``.

    Collections keep their kind (``OrderedDict``, mapping, tuple, named tuple); other iterables
    become lists.

    :raises ValueError: for something that is neither a tensor nor a collection
    """
    return _map_tensors(tensors, lambda tensor: tensor.to(device))


def tensors_to_precision(tensors: Any, full_precision: bool) -> Any:
    """Return ``tensors`` with floating-point values as float32, or float16 if not full.

    Integer and boolean tensors (labels, masks) stay as they are. Collections are treated as by
    :func:`tensors_to_device`.

    :raises ValueError: for something that is neither a tensor nor a collection
    """
    dtype = torch.float32 if full_precision else torch.float16
    return _map_tensors(tensors, lambda t: t.to(dtype) if t.is_floating_point() else t)


def tensors_module_forward(
    tensors: Any, module: nn.Module | Callable[..., Any], check_feat_lab_inp: bool = True
) -> Any:
    """Call ``module`` on ``tensors``: a tensor as such, a mapping by keyword, others by position.

    :param check_feat_lab_inp: take a list or tuple of two for (features, labels) and feed only
        the features
    :raises ValueError: for something that is neither a tensor nor a collection
    """
    if check_feat_lab_inp and isinstance(tensors, (tuple, list)) and len(tensors) == 2:
        return tensors_module_forward(tensors[0], module, check_feat_lab_inp=False)
    if isinstance(tensors, Tensor):
        return module(tensors)
    if isinstance(tensors, Mapping):
        return module(**tensors)
    if isinstance(tensors, Iterable) and not isinstance(tensors, (str, bytes)):
        return module(*tensors)
    raise ValueError(
        f"cannot feed {type(tensors).__name__} to a module: expected a tensor, mapping or iterable"
    )


def _to_numpy(tensor: Any) -> Any:
    """Tensors as arrays, in the collections that they come in."""
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
    """Save ``tensors`` as numpy files named ``<name_prefix>-<counter, four digits>.npz``.

    Each tensor of a collection gets a file of its own, with the counter rising.

    :param break_batch: save one file per sample instead: the collection is a batch, whose tensors
        are split along the first dimension and kept together
    :return: paths of the files
    :raises ValueError: for something that is neither a tensor nor a collection
    """
    arrays = _to_numpy(tensors)
    if not break_batch:
        return arrays_export(arrays, export_dir, name_prefix, counter)
    return [
        save_numpy(sample, export_dir, f"{name_prefix}-{number:04d}")
        for number, sample in enumerate(_break_batch(arrays), start=counter)
    ]


def _break_batch(arrays: Any) -> list[Any]:
    if isinstance(arrays, np.ndarray):
        return list(arrays)
    if isinstance(arrays, dict):
        return [dict(zip(arrays, row, strict=True)) for row in _rows(list(arrays.values()))]
    if isinstance(arrays, list):
        return _rows(arrays)
    raise ValueError(f"expected a tensor or a collection, found {type(arrays).__name__}")


def _rows(columns: Sequence[Any]) -> list[Any]:
    sizes = {len(column) for column in columns}
    if len(sizes) > 1:
        raise ValueError(f"the tensors of a batch differ in their first dimension: {sorted(sizes)}")
    return [list(row) for row in zip(*columns, strict=True)]


def detach(x: Any) -> Any:
    """Detach a tensor, or every tensor of a list or tuple (nested ones too).

    :raises ValueError: for anything else
    """
    if isinstance(x, Tensor):
        return x.detach()
    if isinstance(x, (list, tuple)):
        return _map_tensors(x, Tensor.detach)
    raise ValueError(f"expected a tensor, list or tuple, found {type(x).__name__}")
