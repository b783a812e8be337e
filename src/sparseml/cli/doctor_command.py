"""``sparseml doctor``: what this installation has, and what it lacks for which task."""

from __future__ import annotations

import json
import os
import platform
import re
from importlib.metadata import PackageNotFoundError, requires, version

import click

from sparseml.version import __version__

PURPOSES = {
    "timm": "models of timm, and folders of images",
    "transformers": "models of Transformers, and texts",
    "fairseq": "translation by fairseq",
    "report": "report.html of a run",
    "structured": "removing channels of convolutional networks",
    "numba": "CAP in a fraction of the time on a CPU",
    "onnx": "sparseml export",
    "tensorboard": "--log-tensorboard",
    "wandb": "--log-wandb",
}
"""Extras that are asked about → what needs them."""
_DISTRIBUTION = "sparseml-next"
_EXTRA = re.compile(r"""^([\w.-]+).*extra\s*==\s*['"]([\w-]+)['"]""")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def doctor(as_json: bool) -> None:
    """Say what is installed, what the machine has, what is missing.

    \b
    Example:
      sparseml doctor
    """
    from sparseml.cli.tables import table

    machine, extras = _machine(), _extras()
    if as_json:
        click.echo(json.dumps({"machine": machine, "extras": extras}, indent=2))
        return
    click.echo(
        table("Machine", ["what", "found"], [[what, str(one)] for what, one in machine.items()])
    )
    rows = [[name, str(found["state"]), str(found["for"])] for name, found in extras.items()]
    click.echo(table("Extras", ["extra", "state", "needed for"], rows))
    missing = [name for name, found in extras.items() if found["missing"]]
    if missing:
        click.echo(f"pip install '{_DISTRIBUTION}[{','.join(missing)}]' installs what is missing.")
    for note in _notes(machine):
        click.echo(note)


def _machine() -> dict[str, object]:
    import torch

    found: dict[str, object] = {
        "sparseml-next": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cores": os.cpu_count(),
        "threads of torch": torch.get_num_threads(),
        "bfloat16 in hardware": _has_bfloat16(),
    }
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found["GPUs"] = ", ".join(torch.cuda.get_device_name(one) for one in range(gpus)) or "none"
    return found


def _has_bfloat16() -> str:
    """Return whether the processor multiplies in bfloat16, as far as the system tells."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
            flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    except OSError:
        return "unknown"
    return "yes" if re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", flags) else "no"


def _extras() -> dict[str, dict[str, object]]:
    wanted: dict[str, list[str]] = {name: [] for name in PURPOSES}
    for line in _requirements():
        match = _EXTRA.match(line)
        if match and match[2] in wanted and match[1] != _DISTRIBUTION:
            wanted[match[2]].append(match[1])
    found: dict[str, dict[str, object]] = {}
    for name, packages in wanted.items():
        versions = {package: _version(package) for package in packages}
        missing = [package for package, there in versions.items() if there is None]
        there = [f"{package} {one}" for package, one in versions.items() if one]
        state = f"without {', '.join(missing)}" if missing else ", ".join(there)
        found[name] = {"state": state, "missing": missing, "for": PURPOSES[name]}
    return found


def _requirements() -> list[str]:
    try:
        return requires(_DISTRIBUTION) or []
    except PackageNotFoundError:  # run from its source, without having been installed
        return []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _notes(machine: dict[str, object]) -> list[str]:
    notes = []
    if machine["bfloat16 in hardware"] == "no" and machine["GPUs"] == "none":
        notes.append("bfloat16 is slower than float32 here: leave out --amp and dtype: bfloat16.")
    cores, threads = machine["cores"], machine["threads of torch"]
    if isinstance(cores, int) and isinstance(threads, int) and threads > cores:
        notes.append(f"torch uses {threads} threads on {cores} cores: set OMP_NUM_THREADS.")
    return notes
