"""Which frameworks and packages are there, and functions sent to the right framework."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from enum import Enum
from typing import Any

__all__ = [
    "Framework",
    "check_version",
    "detect_framework",
    "detect_frameworks",
    "execute_in_sparseml_framework",
    "get_version",
]

_PACKAGE = "sparseml"


class Framework(Enum):
    """The frameworks that recipes know of; only PyTorch is supported by this package."""

    unknown = "unknown"
    deepsparse = "deepsparse"
    onnx = "onnx"
    keras = "keras"
    pytorch = "pytorch"
    tensorflow_v1 = "tensorflow_v1"


def named_framework(item: Any) -> Framework | None:
    """Return a framework as it is or by its name in any case, None for anything else."""
    if isinstance(item, Framework):
        return item
    return Framework.__members__.get(item.lower().strip()) if isinstance(item, str) else None


def detect_frameworks(item: Any) -> list[Framework]:
    """Return the frameworks that something belongs to, if any.

    :param item: a framework, its name in any case, or anything that a framework may know, such as
        a model or the path of its file
    """
    named = named_framework(item)
    if named is not None:
        return [] if named is Framework.unknown else [named]
    found = []
    for framework in Framework:
        try:
            package = importlib.import_module(f"{_PACKAGE}.{framework.value}")
        except ImportError:
            continue
        if package.detect_framework(item) is framework:
            found.append(framework)
    return found


def detect_framework(item: Any) -> Framework:
    """Return the first of :func:`detect_frameworks`, or ``Framework.unknown``."""
    return next(iter(detect_frameworks(item)), Framework.unknown)


def execute_in_sparseml_framework(
    framework: Any, function_name: str, *args: Any, **kwargs: Any
) -> Any:
    """Call ``sparseml.<framework>.<function_name>(*args, **kwargs)``.

    :param framework: what :func:`detect_frameworks` takes
    :raises ValueError: if no framework is detected
    :raises RuntimeError: if several are detected and the call fails in each of them; if it is only
        one, its own error is raised
    """
    frameworks = detect_frameworks(framework)
    if not frameworks:
        known = ", ".join(member.value for member in Framework if member is not Framework.unknown)
        raise ValueError(f"no framework found for {framework!r}; known are {known}")

    errors: dict[str, Exception] = {}
    for candidate in frameworks:
        try:
            package = importlib.import_module(f"{_PACKAGE}.{candidate.value}")
            return getattr(package, function_name)(*args, **kwargs)
        except Exception as error:  # noqa: PERF203 - whatever it is, the next one is tried
            if len(frameworks) == 1:
                raise
            errors[candidate.value] = error
    raise RuntimeError(f"{function_name} failed in every framework: {errors}")


def get_version(
    package_name: str,
    raise_on_error: bool,
    alternate_package_names: Iterable[str] | None = None,
) -> str | None:
    """Return the version of an installed package.

    :param package_name: the distribution's name, as for pip. ``"sparseml"`` is this package,
        although its distribution is named sparseml-next
    :param alternate_package_names: names to look for if the first is not installed
    :raises ImportError: if it is not installed and ``raise_on_error`` is set
    """
    import importlib.metadata

    names = [package_name, *(alternate_package_names or ())]
    for name in names:
        if name == _PACKAGE:
            from sparseml.version import __version__

            return __version__
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    if raise_on_error:
        raise ImportError(f"{' or '.join(names)} is not installed")
    return None


def _comparable(version: str) -> tuple[tuple[int, ...], bool]:
    """Return the numbers without trailing zeros, and whether it is a release (1.0rc1 is none)."""
    match = re.match(r"\s*v?(\d+(?:\.\d+)*)", version)
    if match is None:
        raise ValueError(f"{version!r} is not a version")
    numbers = [int(piece) for piece in match[1].split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    marks = r"[._-]?(a|b|c|rc|alpha|beta|pre|preview|dev)"
    return tuple(numbers), re.match(marks, version[match.end() :]) is None


def check_version(
    package_name: str,
    min_version: str | None = None,
    max_version: str | None = None,
    raise_on_error: bool = True,
    alternate_package_names: Iterable[str] | None = None,
    extra_error_message: str | None = None,
) -> bool:
    """Whether a package is installed in a version within bounds.

    :param package_name: what :func:`get_version` takes, as ``alternate_package_names``
    :param min_version: the lowest version allowed, itself included
    :param max_version: the highest version allowed, itself included
    :param raise_on_error: raise instead of returning False
    :param extra_error_message: appended to the message of the error
    :raises ImportError: if it is not installed or out of bounds, and ``raise_on_error`` is set
    """
    version = get_version(package_name, raise_on_error, alternate_package_names)
    if version is None:
        return False
    problem = None
    if min_version and _comparable(version) < _comparable(min_version):
        problem = f"at least {min_version}"
    if max_version and _comparable(version) > _comparable(max_version):
        problem = f"at most {max_version}"
    if problem and raise_on_error:
        extra = f". {extra_error_message}" if extra_error_message else ""
        raise ImportError(f"{package_name} must be {problem}, found {version}{extra}")
    return problem is None
