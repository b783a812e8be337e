"""How many bytes a model takes: as it is, compressed, and with its zeros left out."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from sparseml.pytorch.utils.tensors.stats import count_zeros
from sparseml.report.schema import Storage

__all__ = ["measure_storage"]

# what the tools of these names do by default, or little more: higher levels take ten times as
# long for a few per cent
_GZIP_LEVEL = 6
_ZSTD_LEVEL = 10
_GZIP_FORMAT = 16 + zlib.MAX_WBITS


class _Compressor(Protocol):
    def compress(self, data: Any, /) -> bytes: ...

    def flush(self) -> bytes: ...


def measure_storage(state: Mapping[str, Tensor]) -> Storage:
    """Return the bytes that the tensors of a state dict take.

    - ``dense``: as they are;
    - ``gzip`` (level 6) and ``zstd`` (level 10; None without the package ``zstandard``):
      compressed one after the other, in their order;
    - ``bitmask``: a bit per value that says whether it is zero, and the values that are not; for
      each tensor only where that is less.

    Headers of file formats are not counted. Tensors that share all of their memory (tied weights)
    count once.

    :raises ValueError: for a tensor without values (meta device) or with a sparse layout
    """
    tensors = list(_distinct(state))
    itemsize = [tensor.element_size() for tensor in tensors]
    return Storage(
        dense=sum(t.numel() * size for t, size in zip(tensors, itemsize, strict=True)),
        gzip=_compressed(zlib.compressobj(_GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT), tensors),
        zstd=_compressed(_zstd(), tensors),
        bitmask=sum(map(_bitmask_bytes, tensors)),
    )


def _distinct(state: Mapping[str, Tensor]) -> Iterable[Tensor]:
    seen: dict[Any, Tensor] = {}
    for name, tensor in state.items():
        if tensor.is_meta or tensor.layout != torch.strided:
            found = "on the meta device" if tensor.is_meta else f"of layout {tensor.layout}"
            raise ValueError(f"storage is measured of ordinary tensors; {name!r} is {found}")
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        seen.setdefault(place if tensor.numel() else name, tensor.detach())
    return seen.values()


def _bitmask_bytes(tensor: Tensor) -> int:
    kept = (tensor.numel() - count_zeros(tensor)) * tensor.element_size()
    return min(-(-tensor.numel() // 8) + kept, tensor.numel() * tensor.element_size())


def _zstd() -> _Compressor | None:
    try:
        return importlib.import_module("zstandard").ZstdCompressor(level=_ZSTD_LEVEL).compressobj()
    except ImportError:
        return None


def _compressed(compressor: _Compressor | None, tensors: Iterable[Tensor]) -> int | None:
    if compressor is None:
        return None
    size = 0
    for tensor in tensors:
        # numpy knows no bfloat16, but every dtype has bytes
        values = tensor.cpu().contiguous().reshape(-1).view(torch.uint8)
        size += len(compressor.compress(values.numpy()))
    return size + len(compressor.flush())
