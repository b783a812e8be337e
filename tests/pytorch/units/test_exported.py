"""Shrunk models where users take them: torch.export, ONNX Runtime, torch.compile, Transformers."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from sparseml.pytorch.shrink import shrink
from sparseml.pytorch.units.gated import GatedUnits, gated_units, remove_gated
from sparseml.pytorch.units.hidden import hidden_units
from sparseml.transformers.plain import plain_model

from .gated.models import IDS, ZOO, made

pytestmark = pytest.mark.filterwarnings("ignore")

TRANSFORMERS = ("bert", "marian", "gpt2", "llama, grouped queries", "vit")


def _kept(units: GatedUnits) -> Tensor:
    """The last half of every pool."""
    size = units.group.size // units.pools
    return (torch.arange(size) >= size // 2).repeat(units.pools)


def _removed(name: str, *kinds: str) -> tuple[nn.Module, Any]:
    model, inputs = made(name)
    groups = gated_units(model, inputs)
    found = groups.of(*kinds) if kinds else groups.found
    remove_gated(model, {units: _kept(units) for units in found})
    return model, inputs


def _by_gates(name: str) -> tuple[nn.Module, Any]:
    model, inputs = _removed(name)
    floats = isinstance(inputs, Tensor) and inputs.is_floating_point()
    return model.float(), inputs.float() if floats else inputs


def _by_zeros(name: str) -> tuple[nn.Module, Any]:
    """A model with neurons of zeros, after shrink."""
    if name == "resnet":
        model = timm.create_model("resnet10t", num_classes=5, in_chans=3).eval()
        inputs: Any = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            for param in (*model.layer1[0].conv1.parameters(), *model.layer1[0].bn1.parameters()):
                param[: len(param) // 2] = 0.0
    else:
        model, inputs = made(name)
        model = model.float()
        inputs = inputs.float() if isinstance(inputs, Tensor) and inputs.ndim > 2 else inputs
        with torch.no_grad():
            for units in hidden_units(model, inputs).found:
                reader = units.group.members[-1]
                weight = model.get_parameter(reader.param).movedim(reader.dim, 0)
                weight[reader.index % 2 == 1] = 0.0
    before = sum(param.numel() for param in model.parameters())
    shrink(model, inputs)
    assert sum(param.numel() for param in model.parameters()) < before
    return model, inputs


def _asked(model: nn.Module, inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments; caches of Transformers are no outputs that export knows."""
    named = dict(inputs) if isinstance(inputs, dict) else {}
    args = () if named else (inputs if isinstance(inputs, tuple) else (inputs,))
    if hasattr(model, "config"):
        named["return_dict"] = False
        if "use_cache" in model.config.to_dict() or hasattr(model.config, "is_decoder"):
            named |= {"use_cache": False} if "Bert" not in type(model).__name__ else {}
    return args, named


def _first(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


HOW: dict[str, tuple[Callable[[str], tuple[nn.Module, Any]], str]] = {
    **{f"{name}, gated": (_by_gates, name) for name in TRANSFORMERS},
    **{f"{name}, shrink": (_by_zeros, name) for name in ("bert", "vit", "resnet")},
}


@pytest.mark.parametrize("case", list(HOW))
def test_export_and_onnx(case: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    make, name = HOW[case]
    model, inputs = make(name)
    args, named = _asked(model, inputs)
    with torch.no_grad():
        expected = _first(model(*args, **named))
        program = torch.export.export(model, args, named)
        torch.testing.assert_close(_first(program.module()(*args, **named)), expected)
        file = tmp_path / "model.onnx"
        torch.onnx.export(program, dynamo=True, verbose=False).save(file)
    session = runtime.InferenceSession(str(file))
    given = [*args, *(one for one in named.values() if isinstance(one, Tensor))]
    names = [one.name for one in session.get_inputs()]
    found = session.run(None, dict(zip(names, (one.numpy() for one in given), strict=True)))[0]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_compiled() -> None:
    model, inputs = _by_gates("bert")
    with torch.no_grad():
        expected = model(inputs).logits
        try:
            found = torch.compile(model)(inputs).logits
        except torch._dynamo.exc.BackendCompilerFailed as error:
            pytest.skip(f"the C++ compiler does not work here: {str(error)[:200]}")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


class TestPlainModels:
    @pytest.mark.parametrize(
        ("name", "kinds"),
        [
            ("bert", ("fc",)),
            ("gpt2", ("fc",)),
            ("gpt2", ("stream", "qk", "vo", "fc")),
            ("bart", ("stream", "qk", "vo", "fc")),
            ("t5, gated", ("stream", "qk", "vo", "fc")),
            ("llama, grouped queries", ("stream", "fc")),
        ],
    )
    def test_are_read_without_this_package(
        self, name: str, kinds: tuple[str, ...], tmp_path: Path
    ) -> None:
        model, inputs = _removed(name, *kinds)
        plain_model(model, inputs).save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path, dtype=torch.float64).eval()
        named = inputs if isinstance(inputs, dict) else {"input_ids": inputs}
        with torch.no_grad():
            found, expected = again(**named)[0], model(**named)[0]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        shapes = {key: value.shape for key, value in model.state_dict().items()}
        assert {key: value.shape for key, value in again.state_dict().items()} == shapes

    @pytest.mark.parametrize(
        ("name", "kinds", "told"),
        [
            ("bert", (), r"bert.pooler.dense.weight is \[16, 8\], the nearest gives \[8, 8\]"),
            ("llama, grouped queries", (), r"model.rotary_emb.inv_freq \(positions\) follows"),
            ("marian", (), r"embed_positions.weight \(positions\) follows"),
            ("t5", ("stream",), "a scale follows"),
            ("bert", ("qk", "vo"), r"query.weight is \[8, 16\], the nearest gives \[16, 16\]"),
        ],
    )
    def test_what_no_configuration_expresses(
        self, name: str, kinds: tuple[str, ...], told: str
    ) -> None:
        model, inputs = _removed(name, *kinds)
        with pytest.raises(ValueError, match=told):
            plain_model(model, inputs)

    def test_layers_of_different_widths(self) -> None:
        model, inputs = made("bert")
        first, second = gated_units(model, inputs).of("fc")
        remove_gated(model, {first: torch.arange(24) < 12, second: torch.arange(24) < 13})
        with pytest.raises(ValueError, match="per_layer"):
            plain_model(model, inputs)

    def test_other_models(self) -> None:
        with pytest.raises(ValueError, match="has no config"):
            plain_model(ZOO["torch, post-norm"].build(), IDS)
