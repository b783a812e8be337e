from __future__ import annotations

import importlib.metadata
import sys
import types
from typing import Any

import pytest

import sparseml
from sparseml.base import (
    Framework,
    check_version,
    detect_framework,
    detect_frameworks,
    execute_in_sparseml_framework,
    get_version,
)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (Framework.pytorch, [Framework.pytorch]),
        (Framework.onnx, [Framework.onnx]),
        (Framework.unknown, []),
        ("pytorch", [Framework.pytorch]),
        (" PyTorch", [Framework.pytorch]),
        ("Tensorflow_V1", [Framework.tensorflow_v1]),
        ("unknown", []),
        ("model.pt", [Framework.pytorch]),
        ("something else", []),
        (3, []),
    ],
)
def test_detection(item: Any, expected: list[Framework]) -> None:
    assert detect_frameworks(item) == expected
    assert detect_framework(item) is (expected[0] if expected else Framework.unknown)


def test_functions_are_sent_to_the_framework() -> None:
    assert execute_in_sparseml_framework("pytorch", "is_supported", "x.pt") is True
    assert execute_in_sparseml_framework(Framework.pytorch, "detect_framework", item="y") is (
        Framework.unknown
    )


def test_a_single_framework_raises_its_own_error() -> None:
    with pytest.raises(AttributeError, match="no_such_function"):
        execute_in_sparseml_framework("pytorch", "no_such_function")
    with pytest.raises(ModuleNotFoundError):
        execute_in_sparseml_framework("keras", "framework_info")
    with pytest.raises(ValueError, match="no framework found for 'x'; known are deepsparse"):
        execute_in_sparseml_framework("x", "framework_info")


def test_several_frameworks_are_tried_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    keras: Any = types.ModuleType("sparseml.keras")
    keras.detect_framework = lambda item: Framework.keras
    keras.both = lambda: 1 / 0
    monkeypatch.setitem(sys.modules, "sparseml.keras", keras)
    assert detect_frameworks("model.pt") == [Framework.keras, Framework.pytorch]
    assert execute_in_sparseml_framework("model.pt", "is_supported", "torch") is True
    with pytest.raises(RuntimeError, match=r"both failed in every framework: \{'keras': ZeroDiv"):
        execute_in_sparseml_framework("model.pt", "both")


def test_versions() -> None:
    assert get_version("sparseml", True) == sparseml.__version__
    assert get_version("sparseml", True, ["sparseml-nightly"]) == sparseml.__version__
    assert get_version("pytest", True) == importlib.metadata.version("pytest")
    assert get_version("no-such-package", False) is None
    assert get_version("no-such-package", True, ["nor-this", "pytest"]) == get_version(
        "pytest", True
    )
    with pytest.raises(ImportError, match="no-such-package or nor-this is not installed"):
        get_version("no-such-package", True, ["nor-this"])


@pytest.mark.parametrize(
    ("installed", "lowest", "highest", "fits"),
    [
        ("2.1.0", None, None, True),
        ("2.1.0", "2.1", "2.1.0", True),
        ("2.1.0", "2.1.1", None, False),
        ("2.1.0", None, "2.0.9", False),
        ("2.10.0", "2.9", None, True),
        ("2.1.0+cpu", "2.1.0", "2.1.0", True),
        ("2.1.0rc1", "2.1.0", None, False),
        ("2.1.0.dev3", None, "2.1.0", True),
        ("2.1.0.post1", "2.1.0", None, True),
        ("v1.0", "1", "1.0.0", True),
    ],
)
def test_bounds(
    monkeypatch: pytest.MonkeyPatch,
    installed: str,
    lowest: str | None,
    highest: str | None,
    fits: bool,
) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: installed)
    assert check_version("package", lowest, highest, raise_on_error=False) is fits
    if fits:
        assert check_version("package", lowest, highest)
    else:
        with pytest.raises(ImportError, match=r"package must be at .*, found 2.* Do this"):
            check_version("package", lowest, highest, extra_error_message="Do this")


def test_packages_that_are_missing() -> None:
    assert check_version("no-such-package", raise_on_error=False) is False
    with pytest.raises(ImportError, match="not installed"):
        check_version("no-such-package")


def test_our_own_version_is_within_the_bounds_of_old_code() -> None:
    assert check_version("sparseml", "0.0.1", "10.0.0")
