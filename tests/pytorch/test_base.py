from __future__ import annotations

import importlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

import sparseml.pytorch
from sparseml.pytorch import base


@pytest.mark.parametrize("package", ["torch", "torchvision"])
def test_installed_packages_pass(package: str) -> None:
    pytest.importorskip(package)
    check = getattr(base, f"check_{package}_install")
    assert check() is True
    assert check(min_version="0.1.0", max_version="99.0") is True
    assert check(min_version="98.0", raise_on_error=False) is False
    with pytest.raises(ImportError, match=package):
        check(min_version="98.0")
    with pytest.raises(ImportError, match=package):
        check(max_version="0.1.0")


@pytest.mark.parametrize("package", ["torch", "torchvision"])
def test_failed_imports_are_reported(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, f"{package}_err", ImportError("no such thing"))
    check = getattr(base, f"check_{package}_install")
    assert check(raise_on_error=False) is False
    with pytest.raises(ImportError, match="no such thing"):
        check()


@pytest.mark.parametrize("package", ["torch", "torchvision"])
def test_decorators(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    require: Callable[..., Any] = getattr(base, f"require_{package}")

    @require()
    def double(x: int, *, add: int = 0) -> int:
        """Twice."""
        return 2 * x + add

    monkeypatch.setattr(base, f"{package}_err", None)
    assert double(3, add=1) == 7
    assert (double.__name__, double.__doc__) == ("double", "Twice.")
    monkeypatch.setattr(base, f"{package}_err", ImportError("gone"))
    with pytest.raises(ImportError, match="gone"):
        double(3)


def test_torchvision_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchvision", "torchvision_err"):
        monkeypatch.delitem(base.__dict__, name, raising=False)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert base.torchvision is None
    assert isinstance(base.torchvision_err, ImportError)
    for name in ("torchvision", "torchvision_err"):
        monkeypatch.delitem(base.__dict__, name)


@pytest.mark.parametrize("name", sorted(set(sparseml.pytorch.__all__)))
def test_names_of_the_package(name: str) -> None:
    assert hasattr(sparseml.pytorch, name)
    assert name in dir(sparseml.pytorch)


@pytest.mark.parametrize("module", ["utils", "utils.logger", "utils.helpers", "nn"])
def test_every_announced_name_is_there(module: str) -> None:
    package = importlib.import_module(f"sparseml.pytorch.{module}")
    assert len(set(package.__all__)) == len(package.__all__)
    assert [name for name in package.__all__ if not hasattr(package, name)] == []


def test_unknown_names() -> None:
    for module in (sparseml.pytorch, base):
        with pytest.raises(AttributeError, match="nothing_like_it"):
            _ = module.nothing_like_it


def test_importing_pulls_in_no_optional_package() -> None:
    code = (
        "import sys, sparseml.pytorch.utils; "
        "optional = 'torchvision wandb tensorboard onnx timm transformers clearml'.split(); "
        "print([name for name in optional if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "[]"
