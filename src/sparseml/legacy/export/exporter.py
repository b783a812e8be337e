"""Writing a trained model in the forms that it is deployed in."""

from __future__ import annotations

import copy
import importlib.util
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.legacy.export.samples import tensors_export
from sparseml.legacy.helpers.tensors import map_tensors, tensors_to_device
from sparseml.pytorch.utils.model import save_model
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.pytorch.utils.saving.files import atomic_path, write_torch_file
from sparseml.pytorch.utils.tensors.attention import FourDimensionalAttention
from sparseml.pytorch.utils.tensors.nested import tensors_batch_size, tensors_module_forward

__all__ = ["ModuleExporter", "export_onnx", "script_model", "trace_model"]


_LEAST_OPSET = 18
_LOGGER = logging.getLogger(__name__)


def trace_model(path: str | Path, model: nn.Module, sample_batch: Any) -> None:
    """Trace ``model`` on ``sample_batch`` with TorchScript and save that."""
    _save_script(path, torch.jit.trace_module(model, {"forward": sample_batch}))


def script_model(path: str | Path, model: nn.Module) -> None:
    """Compile ``model`` with TorchScript and save that."""
    _save_script(path, torch.jit.script(model))


def _save_script(path: str | Path, script: Any) -> None:
    with atomic_path(path) as part:
        torch.jit.save(script, str(part))


class ModuleExporter:
    """Exports a copy of a module, on the CPU and in eval mode, below the folder ``output_dir``.

    Wrappers such as DDP are taken off. Nothing is written before something is exported.
    """

    def __init__(self, module: nn.Module, output_dir: str | Path):
        self.module = copy.deepcopy(unwrap_module(module)).to("cpu").eval()
        self._output_dir = Path(output_dir).expanduser().absolute()

    output_dir = property(lambda self: str(self._output_dir), doc="The folder's absolute path.")

    def export_pytorch(
        self,
        optimizer: Any = None,
        recipe: Any = None,
        epoch: float | None = None,
        name: str = "model.pth",
        use_zipfile_serialization_if_available: bool = True,
        include_modifiers: bool = False,
        export_entire_model: bool = False,
        arch_key: str | None = None,
    ) -> str:
        """Save the weights as ``training/<name>`` and return its path; see ``save_model``.

        :param export_entire_model: pickle the whole module instead. ``load_model`` does not read
            such a file, since unpickling it runs code.
        """
        path, zipped = self._output_dir / "training" / name, use_zipfile_serialization_if_available
        if export_entire_model:
            write_torch_file(path, self.module, zipped=zipped)
        else:
            rest = (optimizer, recipe, epoch, zipped, include_modifiers, arch_key)
            save_model(path, self.module, *rest)
        return str(path)

    def export_samples(
        self,
        sample_batches: Iterable[Any],
        sample_labels: Iterable[Any] | None = None,
        sample_originals: Iterable[Any] | None = None,
        exp_counter: int = 0,
    ) -> None:
        """Save batches and the module's outputs for them, one numpy file per sample.

        Files are ``sample-inputs/inp-0000.npz``, ``sample-outputs/out-0000.npz``,
        ``sample-labels/lab-0000.npz`` and ``sample_originals/org-0000.npz``, those of each batch
        before preprocessing; ``exp_counter`` is the first number.
        """
        inputs = [tensors_to_device(batch, "cpu") for batch in sample_batches]
        with torch.no_grad():
            outputs = [tensors_module_forward(batch, self.module, False) for batch in inputs]
        for folder, prefix, batches in (
            ("sample-inputs", "inp", inputs),
            ("sample-outputs", "out", outputs),
            ("sample-labels", "lab", sample_labels or ()),
            ("sample_originals", "org", sample_originals or ()),
        ):
            path, number = self._output_dir / folder, exp_counter
            for batch in batches:
                number += len(tensors_export(batch, path, prefix, number, break_batch=True))

    def export_onnx(
        self,
        sample_batch: Any,
        name: str = "model.onnx",
        opset: int | None = None,
        disable_bn_fusing: bool = True,
        convert_qat: bool = False,
        **export_kwargs: Any,
    ) -> str:
        """Export to ONNX as ``<name>``, with a dynamic batch dimension.

        Inputs are named ``input`` (``input_0``, ``input_1``, ... if several; the keys of a
        mapping), outputs ``output`` (``output_0``, ...).

        :param sample_batch: a batch as the module takes it; one sample will do
        :param opset: ONNX opset, torch's default if None
        :param disable_bn_fusing: without effect: fusing is up to torch's exporter
        :param convert_qat: not supported, a ValueError unless False
        :param export_kwargs: further arguments of ``torch.onnx.export``, which win
        :return: path of the file
        :raises ImportError: if onnx or onnxscript is not installed
        """
        if convert_qat:
            raise ValueError("convert_qat is not supported: quantized graphs are not rewritten")
        _require_onnx()
        args, kwargs = _as_arguments(sample_batch)
        if "dynamic_shapes" not in export_kwargs or "dynamic_axes" in export_kwargs:
            args, kwargs = _at_least_two((args, kwargs))
        with torch.no_grad():
            outputs = self.module(*args, **kwargs)
        settings = {
            "kwargs": kwargs,
            "input_names": list(kwargs) or _numbered("input", len(args)),
            "output_names": _output_names(outputs),
            "opset_version": opset,
            "dynamic_shapes": _dynamic_shapes(args, kwargs),
            "dynamo": True,
            "external_data": False,
            "verbose": False,
        }
        path = self._output_dir / name
        with atomic_path(path) as part, FourDimensionalAttention():
            torch.onnx.export(self.module, args, str(part), **settings | export_kwargs)
        return str(path)

    def export_torchscript(self, name: str = "model.pts", sample_batch: Any = None) -> str:
        """Export to TorchScript as ``framework/<name>``, traced with a batch if there is one."""
        path = self._output_dir / "framework" / name
        if sample_batch is None:
            script_model(path, self.module)
        else:
            trace_model(path, self.module, sample_batch)
        return str(path)

    def create_deployment_folder(
        self,
        labels_to_class_mapping: str | Path | Mapping[Any, str] | None = None,
        onnx_model_name: str | None = None,
    ) -> str:
        """Put the ONNX model, and what its classes are called, into ``deployment/``.

        :param labels_to_class_mapping: label → name of the class, or a JSON file of that; written
            to ``config.json``
        :param onnx_model_name: name that :meth:`export_onnx` was given
        :return: path of the folder
        :raises FileNotFoundError: if the model was not exported before
        """
        source = self._output_dir / (onnx_model_name or "model.onnx")
        if not source.exists():
            raise FileNotFoundError(f"no ONNX model at {source}: call export_onnx first")
        folder = self._output_dir / "deployment"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, folder / "model.onnx")
        if labels_to_class_mapping is not None:
            mapping: Any = labels_to_class_mapping
            if isinstance(mapping, (str, Path)):
                mapping = json.loads(Path(mapping).read_text(encoding="utf-8"))
            config = json.dumps({"labels_to_class_mapping": dict(mapping)}, indent=2)
            (folder / "config.json").write_text(config + "\n", encoding="utf-8")
        return str(folder)


def _require_onnx() -> None:
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        needed, install = " and ".join(missing), f"pip install {' '.join(missing)}"
        raise ImportError(f"exporting to ONNX needs {needed}: {install}")


def _as_arguments(batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    moved = tensors_to_device(batch, "cpu")
    if isinstance(moved, Mapping):
        return (), dict(moved)
    return ((moved,) if isinstance(moved, Tensor) else tuple(moved)), {}


def _numbered(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}_{index}" for index in range(count)]


def _output_names(outputs: Any) -> list[str]:
    if isinstance(outputs, Mapping):
        return list(outputs)
    return _numbered("output", len(outputs) if isinstance(outputs, Sequence) else 1)


def _at_least_two(tensors: Any) -> Any:
    """Return a batch of one doubled, as torch would take a first dimension of 1 for a constant."""
    if tensors_batch_size(tensors) != 1:
        return tensors
    return map_tensors(tensors, lambda x: torch.cat([x, x]) if x.ndim and len(x) == 1 else x)


def _dynamic_shapes(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    def batch_axis(value: Any) -> dict[int, str] | None:
        return {0: "batch"} if isinstance(value, Tensor) and value.ndim else None

    if tensors_batch_size([*args, *kwargs.values()]) < 1:
        return None
    return {key: batch_axis(kwargs[key]) for key in kwargs} or tuple(map(batch_axis, args))


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
    """Export a model to a file; for what is not said here see :meth:`ModuleExporter.export_onnx`.

    :param file_path: the file; folders above it are created
    :param opset: ONNX opset; torch's default if None. Torch writes 18 and later, which is what
        smaller numbers lead to, with a warning; SparseML 1.x took 14
    :param dynamic_axes: which dimensions of which inputs may change, instead of the first of each;
        for :func:`torch.onnx.export`
    :param skip_input_quantize: must be False, as is ``convert_qat``
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
