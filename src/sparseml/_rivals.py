"""Is another distribution installed that provides the same package?"""

from __future__ import annotations

import os
import re
import sys

__all__ = ["refuse_rivals"]

_RIVAL = re.compile(r"^(sparseml(?:_nightly)?)(?:-(\d[^-]*).*)?\.(?:dist-info|egg-info)$", re.I)
_INSTALL_FOLDERS = ("site-packages", "dist-packages")


def refuse_rivals(paths: list[str] | None = None) -> None:
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
