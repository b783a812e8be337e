"""The version, in one place and in pieces."""

from __future__ import annotations

__all__ = [
    "__version__",
    "is_release",
    "version",
    "version_base",
    "version_bug",
    "version_build",
    "version_major",
    "version_major_minor",
    "version_minor",
]

version_base = "2.0.0"
is_release = False
version = version_base if is_release else f"{version_base}.dev0"
__version__ = version

_pieces = version.split(".")
version_major, version_minor, version_bug = _pieces[:3]
version_build: str | None = _pieces[3] if len(_pieces) > 3 else None
version_major_minor = f"{version_major}.{version_minor}"
