"""``sparseml export`` and ``sparseml bench``: what one does with a model that was pruned."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from sparseml.cli.problems import Problem

_ROUNDING = 1e-3  # of outputs in ONNX Runtime, as a fraction of the largest
_batch = click.option(
    "--batch", type=click.IntRange(min=1), default=1, show_default=True, help="Inputs in a batch."
)
_length = click.option(
    "--length", type=click.IntRange(min=1), default=128, show_default=True, help="Tokens in a text."
)


@click.command()
@click.argument("source", metavar="MODEL")
@click.option("--onnx", "file", metavar="FILE", required=True, help="The file to write.")
@click.option(
    "--variant",
    type=click.Choice(["shrunk", "sparse"]),
    help="Which model of a run; by default the shrunk one, if there is one.",
)
@_batch
@_length
def export(source: str, file: str, variant: str | None, batch: int, length: int) -> None:
    """Write the model of a run as ONNX.

    MODEL is the folder of a run, of a shrunk model or of a model of Transformers. The outputs of
    the file in ONNX Runtime are compared with those of the model; they differ in no more than
    rounding, or the exit code is 1.

    \b
    Examples:
      sparseml export output/train/resnet18-my --onnx model.onnx
      sparseml export output/train/bert-my/shrunk --onnx model.onnx --batch 8
    """
    from sparseml.cli.finished import inputs_for, load_finished
    from sparseml.utils.references import described

    if Path(file).suffix.lower() != ".onnx":
        raise Problem(f"--onnx {file}: must end in .onnx")
    model = load_finished(source, variant)
    inputs = inputs_for(model, source, batch, length)
    from sparseml.report.onnx import ExportError, export_onnx

    try:
        done = export_onnx(model, inputs, file)
    except ImportError as error:
        raise Problem(
            f"sparseml export needs {error.name or error}; pip install 'sparseml-next[onnx]'"
        ) from error
    except OSError as error:
        raise Problem(f"--onnx {file}: cannot be written: {error.strerror or error}") from error
    except ExportError as error:
        raise Problem(f"{source} cannot be written as ONNX: {error}") from error
    except Exception as error:  # the model's own, or of a file that ONNX Runtime does not take
        raise Problem(f"{source} cannot be written as ONNX: {described(error)}") from error
    told = f"{done.path}: {done.size / 1e6:.2f} MB"
    if done.difference is None:
        click.echo(f"{told}; not compared, as onnxruntime is not installed")
        return
    click.echo(f"{told}; outputs in ONNX Runtime differ by {done.difference:.1e} at most")
    if not done.difference <= _ROUNDING * max(1.0, done.largest):
        click.echo("that is more than rounding: do not use the file", err=True)
        raise SystemExit(1)


@click.command()
@click.argument("sources", metavar="MODEL...", nargs=-1, required=True)
@_batch
@_length
@click.option(
    "--threads", type=click.IntRange(min=1), help="Threads of torch; by default all cores."
)
@click.option(
    "--rounds", type=click.IntRange(min=2), default=40, help="Of each, at least; by default 40."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def bench(
    sources: tuple[str, ...],
    batch: int,
    length: int,
    threads: int | None,
    rounds: int,
    as_json: bool,
) -> None:
    """Time models in turns on the same batch.

    MODEL is the folder of a run, of a shrunk model or of a model of Transformers, a file of
    sparseml export (FILE.onnx, timed in ONNX Runtime), or timm:NAME, hf:DIR or module.path:callable
    (your own code). FOLDER:dense, :sparse and :shrunk choose a model of a run; dense is the one
    that pruning started from, of which only the structure counts.

    \b
    Examples:
      sparseml bench output/train/resnet18-my:dense output/train/resnet18-my
      sparseml bench dense.onnx pruned.onnx --batch 8
      sparseml bench timm:resnet18 timm:mobilenetv2_100 --batch 8 --threads 1
    """
    import torch

    from sparseml.cli.finished import inputs_for
    from sparseml.report.latency import WARMUP, measure_latency
    from sparseml.run.progress import shown_progress

    if threads and threads > (cores := os.cpu_count() or threads):
        raise Problem(f"--threads {threads}: this machine has {cores} cores")
    if threads:
        torch.set_num_threads(threads)
    names = [
        source if sources.count(source) < 2 else f"{source} ({number})"
        for number, source in enumerate(sources, start=1)
    ]
    models = {name: _named(source) for name, source in zip(names, sources, strict=True)}
    inputs = inputs_for(models[names[0]], sources[0], batch, length)
    for name, model in models.items():
        _require_taken(name, model, inputs, names[0])
    with shown_progress("timing", WARMUP + rounds, sys.stderr.isatty()) as advance:
        taken = measure_latency(models, inputs, rounds, WARMUP, advance=advance)
    rows: list[dict[str, Any]] = []
    for name, model in models.items():
        times, first = taken[name], taken[names[0]]
        rows.append(
            {
                "model": name,
                "parameters": sum(one.numel() for one in model.parameters()),
                "median_ms": times.median_ms,
                "quartiles_ms": [times.lower_quartile_ms, times.upper_quartile_ms],
                "speedup": first.median_ms / times.median_ms,
                "settled": times.settled,
            }
        )
    if as_json:
        click.echo(json.dumps({"batch": batch, "threads": torch.get_num_threads(), "models": rows}))
        return
    _print(rows, batch, torch.get_num_threads())


def _require_taken(name: str, model: Any, inputs: Any, first: str) -> None:
    import torch

    from sparseml.pytorch.units.probing import call_model
    from sparseml.utils.references import described

    try:
        with torch.inference_mode():
            call_model(model, inputs)
    except Exception as error:  # a model may refuse inputs in any way
        raise Problem(f"{name} does not take the inputs of {first}: {described(error)}") from error


def _named(source: str) -> Any:
    from sparseml.cli.finished import load_dense, load_finished

    if source.lower().endswith(".onnx"):
        return _onnx_file(source)
    folder, _, variant = source.rpartition(":")
    if folder and Path(folder).expanduser().is_dir():
        if variant == "dense":
            return load_dense(folder)
        if variant in ("sparse", "shrunk"):
            return load_finished(folder, variant)
        raise Problem(f"{source}: after the colon comes dense, sparse or shrunk")
    return load_finished(source)


def _onnx_file(path: str) -> Any:
    from sparseml.report.onnx import OnnxModel

    if not Path(path).expanduser().is_file():
        raise Problem(f"{path}: no such file")
    try:
        return OnnxModel(Path(path).expanduser())
    except ImportError as error:
        raise Problem(
            f"{path} needs {error.name or error}; pip install 'sparseml-next[onnx]'"
        ) from error
    except ValueError as error:
        raise Problem(str(error)) from error


def _print(rows: list[dict[str, Any]], batch: int, threads: int) -> None:
    from sparseml.cli.tables import table

    cells = []
    for row in rows:
        low, high = row["quartiles_ms"]
        cells.append(
            [
                row["model"],
                f"{row['parameters']:,}",
                f"{row['median_ms']:.3g} ({low:.3g}-{high:.3g})",
                f"{row['speedup']:.2f}x",
            ]
        )
    title = f"A batch of {batch} on {threads} thread{'s' if threads > 1 else ''}"
    click.echo(table(title, ["model", ">parameters", ">ms (quartiles)", ">speed-up"], cells))
    if not all(row["settled"] for row in rows):
        click.echo("The times had not settled: something else uses the machine, too.")
