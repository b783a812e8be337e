"""A model as ONNX, by one call."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from torch import nn

from sparseml.legacy.export.exporter import ModuleExporter

__all__ = ["export_onnx"]

_LEAST_OPSET = 18
_LOGGER = logging.getLogger(__name__)


def export_onnx(
    module: nn.Module,
    sample_batch: Any,
    file_path: str | os.PathLike[str],
    opset: int | None = None,
    disable_bn_fusing: bool = True,
    convert_qat: bool = False,
    dynamic_axes: Any = None,
    skip_input_quantize: bool = False,
    **export_kwargs: Any,
) -> str:
    """Export a model to a file; see :meth:`ModuleExporter.export_onnx` for what is not said here.

    :param module: the model, of which a copy is exported
    :param sample_batch: a batch as the model takes it
    :param file_path: the file; folders above it are created
    :param opset: ONNX opset; torch's default if None. Torch writes 18 and later, which is what
        smaller numbers lead to, with a warning; SparseML 1.x took 14
    :param dynamic_axes: which dimensions of which inputs may change, instead of the first of each;
        for :func:`torch.onnx.export`
    :param skip_input_quantize: must be False, as is ``convert_qat``
    :return: path of the file
    :raises ImportError: if onnx or onnxscript is not installed
    :raises ValueError: for ``convert_qat`` and ``skip_input_quantize``
    """
    if skip_input_quantize:
        raise ValueError("skip_input_quantize is not supported: graphs are not rewritten")
    if isinstance(dynamic_axes, dict):
        # torch lets only one of the two say so
        export_kwargs = {"dynamic_axes": dynamic_axes, "dynamic_shapes": None, **export_kwargs}
    if opset is not None and opset < _LEAST_OPSET:
        _LOGGER.warning("torch writes opset %d or later, not %d", _LEAST_OPSET, opset)
        opset = _LEAST_OPSET
    path = Path(file_path).expanduser().absolute()
    exporter = ModuleExporter(module, path.parent)
    return exporter.export_onnx(
        sample_batch, path.name, opset, disable_bn_fusing, convert_qat, **export_kwargs
    )
