"""
Sparsify neural networks while they train.

Importing this package is cheap: it loads neither torch nor anything else that is not part of
Python. Names that need more are imported when first used.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any, NoReturn

from sparseml.gone import GoneFinder
from sparseml.lazy import lazy_names
from sparseml.version import (
    __version__,
    is_release,
    version,
    version_base,
    version_bug,
    version_build,
    version_major,
    version_major_minor,
    version_minor,
)

_LAZY = {
    "sparseml.base": (
        "Framework check_version detect_framework detect_frameworks "
        "execute_in_sparseml_framework get_version"
    ),
    "sparseml.legacy.frameworks.info": (
        "FrameworkInferenceProviderInfo FrameworkInfo SparsificationInfo framework_info "
        "load_framework_info load_sparsification_info save_framework_info "
        "save_sparsification_info sparsification_info"
    ),
    "sparseml.pytorch.units.loaded": "load_shrunk",
    "sparseml.log": "get_main_logger get_nm_root_logger set_logging_level",
}
__all__ = [
    "__version__",
    "evaluate",
    "export",
    "is_release",
    "reset_session",
    "version",
    "version_base",
    "version_bug",
    "version_build",
    "version_major",
    "version_major_minor",
    "version_minor",
]

_RIVAL = re.compile(r"^(sparseml(?:_nightly)?)(?:-(\d[^-]*).*)?\.(?:dist-info|egg-info)$", re.I)
_INSTALL_FOLDERS = ("site-packages", "dist-packages")


def _refuse_rivals(paths: list[str] | None = None) -> None:
    """
    Fail if SparseML 1.x is installed, because its files and ours have the same names.

    Looks at names in the folders that packages are installed into, which takes far less time than
    ``importlib.metadata``.

    :param paths: where to look, by default where Python looks for packages
    :raises ImportError: naming the distribution, and what to do
    """
    for folder in sys.path if paths is None else paths:
        if os.path.basename(os.path.normpath(folder)) not in _INSTALL_FOLDERS:
            continue
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for match in filter(None, map(_RIVAL.match, names)):
            name = match[1].lower().replace("_", "-")
            raise ImportError(
                f"The distribution '{name}' {match[2] or ''} is installed in {folder} beside "
                f"'sparseml-next', and both provide the package 'sparseml'. Run: "
                f"pip uninstall -y {name} sparseml-next; pip install sparseml-next"
            )


_refuse_rivals()
GoneFinder.install()

__all__ += " ".join(_LAZY.values()).split()
__getattr__, __dir__ = lazy_names(__name__, _LAZY)


def reset_session() -> None:
    """
    Forget the active session.

    Code written for SparseML 1.x calls this between runs. Recipes here keep their state in their
    manager and in no other place, so there is nothing to forget.
    """


def evaluate(*_args: Any, **_kwargs: Any) -> NoReturn:
    """
    Not part of this package.

    :raises NotImplementedError: always
    """
    raise NotImplementedError(
        "sparseml.evaluate belonged to SparseML 1.x and its runtime, which are no longer "
        "maintained; evaluate the PyTorch model in your own loop or with the trainer you use"
    )


def export(*_args: Any, **_kwargs: Any) -> NoReturn:
    """
    Not part of this package.

    :raises NotImplementedError: always
    """
    raise NotImplementedError(
        "sparseml.export belonged to SparseML 1.x and its runtime, which are no longer maintained; "
        "use torch.onnx.export or sparseml.pytorch.utils.ModuleExporter"
    )
