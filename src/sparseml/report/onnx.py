"""Models as ONNX files, compared with what ONNX Runtime makes of them."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sparseml.pytorch.units.probing import tensors_in
from sparseml.pytorch.utils.layers import evaluating
from sparseml.pytorch.utils.tensors.attention import FourDimensionalAttention
from sparseml.utils.atomic import atomic_path
from sparseml.utils.references import described
from sparseml.utils.text import one_line

_TALKING = ("torch.onnx", "torch.fx.experimental.symbolic_shapes", "onnxscript", "onnx_ir")


class ExportError(RuntimeError):
    """A model that torch cannot write as ONNX, and why."""


class Exported(NamedTuple):
    """A model in a file.

    :ivar size: of the file, in bytes
    :ivar difference: the largest between outputs of the model and of the file in ONNX Runtime, None
        where that is not installed
    :ivar largest: the largest of the model's outputs, to compare it with
    """

    path: Path
    size: int
    difference: float | None
    largest: float


def export_onnx(model: nn.Module, inputs: Any, path: str | os.PathLike[str]) -> Exported:
    """Write a model as ONNX by ``torch.onnx.export``, and compare outputs on ``inputs``.

    The first dimension of tensors in the input may have any size in the file. The model is written
    in eval mode; models of transformers without their caches of keys and values.

    :param inputs: a batch: a tensor, a tuple of positional or a dict of keyword arguments
    :param path: of the file; one that is there is replaced at the end
    :raises ImportError: without the packages onnx and onnxscript
    :raises ExportError: if torch cannot export the model
    """
    args, kwargs = _arguments(inputs)
    wrapped = _Plain(model)
    with evaluating(model), torch.inference_mode():
        expected = wrapped(*args, **kwargs)
    with evaluating(model), atomic_path(path) as part, _quiet(), FourDimensionalAttention():
        program = _exported(wrapped, args, kwargs)
        program.save(str(part), external_data=False)
    target = Path(path).expanduser()
    largest = max((float(one.abs().max()) for one in expected if one.numel()), default=0.0)
    difference = None
    if find_spec("onnxruntime") is not None:
        pairs = zip(expected, OnnxModel(target)(*args, **kwargs), strict=True)
        difference = max((float((a.float() - b).abs().max()) for a, b in pairs), default=0.0)
    return Exported(target, target.stat().st_size, difference, largest)


class OnnxModel(nn.Module):
    """An ONNX file, computed by ONNX Runtime on the CPU with as many threads as torch has.

    It is called as the model was; its outputs are a tuple of tensors, in float32.

    :raises ImportError: without the packages onnx and onnxruntime
    :raises ValueError: for what is no ONNX file
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        import onnx
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            weights = onnx.load(path).graph.initializer
            self.session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # of the packages' own, which are no ValueErrors
            raise ValueError(f"{path} is no ONNX file: {described(error)}") from error
        arrays = (torch.from_numpy(onnx.numpy_helper.to_array(one).copy()) for one in weights)
        self.weights = nn.ParameterList(
            nn.Parameter(one, requires_grad=False) for one in arrays if one.is_floating_point()
        )
        self.inputs = {one.name: one.shape for one in self.session.get_inputs()}
        shapes = [*self.inputs.values()]
        if len(shapes) == 1 and len(shapes[0]) == 4:
            self.default_cfg = {"input_size": tuple(shapes[0][1:])}  # as models of timm tell it

    def forward(self, *args: Tensor, **kwargs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs of the file."""
        named = {**dict(zip(self.inputs, args, strict=False)), **kwargs}
        given = {name: named[name].detach().cpu().numpy() for name in self.inputs}
        return tuple(torch.from_numpy(one).float() for one in self.session.run(None, given))


class _Plain(nn.Module):
    """A model whose outputs are a tuple of tensors, whatever its own are."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """Call the model."""
        if hasattr(getattr(self.model, "config", None), "use_cache"):
            kwargs = {**kwargs, "use_cache": False}
        return tuple(tensors_in(self.model(*args, **kwargs)))


def _arguments(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return (tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)), {}


def _exported(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    batch = torch.export.Dim.DYNAMIC
    shapes: dict[str, Any] = {"args": tuple({0: batch} for _ in args)} if args else {}
    if kwargs:
        shapes["kwargs"] = {name: {0: batch} for name in kwargs}
    try:
        return torch.onnx.export(
            model, args, kwargs=kwargs, dynamo=True, dynamic_shapes=shapes, verbose=False
        )
    except ImportError:
        raise
    except Exception:  # some models fix the size of their batch
        try:
            return torch.onnx.export(model, args, kwargs=kwargs, dynamo=True, verbose=False)
        except Exception as error:  # torch's exporter has many ways to give up
            raise ExportError(_reason(error)) from error


def _reason(error: BaseException) -> str:
    """Return what lies below the pages that the exporter tells, and where in the model."""
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    told = "\n".join(map(str, chain))
    operator = re.search(r"target=torch\.ops\.([\w.]+?)(?:\.default)?\]", told)
    line = re.findall(r'File "([^"]+)", line (\d+), in forward', told)
    place = f"{Path(line[-1][0]).name}:{line[-1][1]}" if line else ""
    parts = (operator and f"torch's exporter does not take {operator[1]}", place)
    where = ", ".join(filter(None, parts)) or "torch's exporter gives up"
    if "data-dependent" in str(chain[-1]):
        return f"{where}: what the model does there depends on values; torch.where computes both"
    return f"{where}: {one_line(chain[-1]).partition('; ')[0]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from telling what users can do nothing about."""
    loggers = [logging.getLogger(name) for name in _TALKING]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
