"""Old path: :mod:`sparseml.legacy.export.exporter`."""

from sparseml.lazy import lazy_names

_HOMES = {
    "sparseml.legacy.export.exporter": "ModuleExporter script_model trace_model",
    "sparseml.legacy.export.onnx": "export_onnx",
}
__all__ = [*" ".join(_HOMES.values()).split()]
__getattr__, __dir__ = lazy_names(__name__, _HOMES)
