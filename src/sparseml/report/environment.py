"""What a run runs on and with."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["describe_environment"]

_ALWAYS = ("sparseml-next", "torch", "numpy")
# named only where the run has imported them: module, distribution
_IF_USED = {
    "timm": "timm",
    "torchvision": "torchvision",
    "transformers": "transformers",
    "fairseq": "fairseq",
    "sklearn": "scikit-learn",
    "numba": "numba",
    "triton": "triton",
}


def describe_environment(packages: Iterable[str] = ()) -> dict[str, Any]:
    """Return machine, interpreter, command line and versions, as plain data.

    Neither the machine's nor the user's name is among it, so that a report can be passed on.

    :param packages: distributions to name the versions of, besides the usual ones
    """
    used = [name for module, name in _IF_USED.items() if module in sys.modules]
    named = dict.fromkeys([*_ALWAYS, *used, *packages])
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        **_torch_settings(),
        "command": shlex.join(sys.argv),
        "packages": {name: found for name in named if (found := _version(name))},
    }


def _processor() -> str:
    """The processor's model name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, names), "") or platform.processor() or platform.machine()


def _torch_settings() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    found = {"threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        found["gpus"] = [torch.cuda.get_device_name(index) for index in range(count)]
        found["cuda"] = torch.version.cuda
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
