"""What a run leaves behind: a directory to keep, measurements, and a page to look at.

A trainer writes a :class:`RunDirectory` (docs/run_directory.md tells what is in its files) and
fills it with what :func:`describe_model`, :func:`layer_sparsities` and :func:`measure_latency`
find; :func:`write_report`, or ``sparseml report``, makes a page of it. Reading and rendering need
no torch, so nothing is imported before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sparseml.lazy import lazy_names

if TYPE_CHECKING:
    from sparseml.report.describe import (
        count_flops,
        describe_model,
        layer_sparsities,
        measure_storage,
    )
    from sparseml.report.latency import measure_latency
    from sparseml.report.reading import Run, find_runs, read_run
    from sparseml.report.rendering import WrittenReport, report_data, write_report
    from sparseml.report.run_directory import (
        NotARunError,
        RunDirectory,
        describe_environment,
        is_run,
    )
    from sparseml.report.schedule import asked_schedule
    from sparseml.report.schema import Flops, Latency, Layer, Result, RunInfo, Storage, Variant
    from sparseml.report.shrinking import shrunk_copy

__all__ = [
    "Flops",
    "Latency",
    "Layer",
    "NotARunError",
    "Result",
    "Run",
    "RunDirectory",
    "RunInfo",
    "Storage",
    "Variant",
    "WrittenReport",
    "asked_schedule",
    "count_flops",
    "describe_environment",
    "describe_model",
    "find_runs",
    "is_run",
    "layer_sparsities",
    "measure_latency",
    "measure_storage",
    "read_run",
    "report_data",
    "shrunk_copy",
    "write_report",
]

_HOMES = {
    "describe": "count_flops describe_model layer_sparsities measure_storage",
    "latency": "measure_latency",
    "reading": "Run find_runs read_run",
    "rendering": "WrittenReport report_data write_report",
    "run_directory": "NotARunError RunDirectory describe_environment is_run",
    "schedule": "asked_schedule",
    "schema": "Flops Latency Layer Result RunInfo Storage Variant",
    "shrinking": "shrunk_copy",
}
__getattr__, __dir__ = lazy_names(
    __name__, {f"{__name__}.{home}": names for home, names in _HOMES.items()}
)
