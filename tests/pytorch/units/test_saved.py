"""Shrunk models on disk: written, read by us, and read by plain torch as the docs show."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

import sparseml
from sparseml.pytorch.shrink import fill_shrunk, save_shrunk, shrink
from sparseml.pytorch.units import hidden_units
from sparseml.pytorch.units.probing import call_model, sample_inputs
from sparseml.pytorch.utils.saving.files import CheckpointError

from .transformers_zoo import ZOO

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
DOCS = Path(__file__).parents[3] / "docs" / "faster_models.md"


def _shrunk(model: nn.Module, inputs: object = None) -> nn.Module:
    with torch.no_grad():
        for units in hidden_units(model, inputs).found:
            member = units.group.members[-1]
            model.get_parameter(member.param).movedim(member.dim, 0)[member.index % 2 == 1] = 0
    shrink(model, inputs)
    return model


def _same(one: nn.Module, other: nn.Module, inputs: object) -> None:
    with torch.no_grad():
        for a, b in zip(call_model(one, inputs), call_model(other, inputs), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", ZOO)
def test_transformers_come_back(name: str, tmp_path: Path) -> None:
    model = _shrunk(ZOO[name].build("sdpa"))
    assert save_shrunk(model, tmp_path) == tmp_path
    loaded = sparseml.load_shrunk(tmp_path)
    assert type(loaded) is type(model)
    assert not loaded.training
    _same(model, loaded, sample_inputs(model))
    for (_, one), (_, other) in zip(model.named_modules(), loaded.named_modules(), strict=True):
        numbers = {key: value for key, value in vars(one).items() if type(value) is int}
        assert numbers == {key: getattr(other, key) for key in numbers}
    shapes = json.loads((tmp_path / "shrunk.json").read_text())["shapes"]
    assert shapes == {key: list(value.shape) for key, value in model.state_dict().items()}


def test_dtype_comes_back(tmp_path: Path) -> None:
    model = _shrunk(ZOO["llama"].build("sdpa").to(torch.bfloat16))
    loaded = sparseml.load_shrunk(save_shrunk(model, tmp_path))
    assert {param.dtype for param in loaded.parameters()} == {torch.bfloat16}
    _same(model, loaded, sample_inputs(model))


def test_large_models_come_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = _shrunk(ZOO["bert"].build("sdpa"))
    whole = type(model).save_pretrained
    monkeypatch.setattr(type(model), "save_pretrained", partialmethod(whole, max_shard_size="20KB"))
    save_shrunk(model, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    _same(model, sparseml.load_shrunk(tmp_path), sample_inputs(model))


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(24, 4, 48, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()


def test_any_module_comes_back_by_its_builder(tmp_path: Path) -> None:
    inputs = torch.randn(2, 5, 24)
    model = _shrunk(_encoder(), inputs)
    save_shrunk(model, tmp_path)
    _same(model, sparseml.load_shrunk(tmp_path, builder=_encoder), inputs)


def _documented(task: str) -> Callable[[str], nn.Module]:
    """The function that the docs show."""
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    code = next(block for block in blocks if "AutoConfig" in block)
    assert "sparseml" not in code
    scope: dict[str, object] = {}
    exec(code.replace("AutoModelForSequenceClassification", task), scope)  # noqa: S102
    return scope["load"]  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("bert", "AutoModelForSequenceClassification"),
        ("distilbert", "AutoModelForSequenceClassification"),
        ("vit", "AutoModelForImageClassification"),
        ("llama", "AutoModelForCausalLM"),
        ("gpt2", "AutoModelForCausalLM"),
    ],
)
def test_documented_lines_read_it_without_us(name: str, task: str, tmp_path: Path) -> None:
    model = _shrunk(ZOO[name].build("sdpa"))
    save_shrunk(model, tmp_path)
    _same(model, _documented(task)(str(tmp_path)), sample_inputs(model))


def test_plain_from_pretrained_does_not_go_unnoticed(tmp_path: Path) -> None:
    save_shrunk(_shrunk(ZOO["bert"].build("sdpa")), tmp_path)
    with pytest.raises(RuntimeError, match="mismatch"):
        transformers.AutoModelForSequenceClassification.from_pretrained(str(tmp_path))


def test_wrong_folders_are_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no shrunk model: there is no shrunk\.json"):
        sparseml.load_shrunk(tmp_path)
    inputs = torch.randn(2, 5, 24)
    save_shrunk(_shrunk(_encoder(), inputs), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"has no config\.json, so give load_shrunk a"):
        sparseml.load_shrunk(tmp_path)
    with pytest.raises(CheckpointError, match="holds another model than the one to fill"):
        sparseml.load_shrunk(tmp_path, builder=lambda: nn.Linear(3, 3))
    narrow = nn.TransformerEncoder(nn.TransformerEncoderLayer(24, 4, 8, batch_first=True), 2)
    with pytest.raises(CheckpointError, match=r"holds another model.*size mismatch"):
        fill_shrunk(narrow, tmp_path)
    deeper = nn.TransformerEncoder(nn.TransformerEncoderLayer(24, 4, 48, batch_first=True), 3)
    with pytest.raises(CheckpointError, match=r"it lacks 'layers\.2\.self_attn\.in_proj_w"):
        fill_shrunk(deeper, tmp_path)
    (tmp_path / "shrunk.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"shrunk\.json is damaged"):
        fill_shrunk(_encoder(), tmp_path)
    (tmp_path / "shrunk.json").write_text('{"format": 2}')
    with pytest.raises(CheckpointError, match=r"shrunk\.json is not of format 1, found 2"):
        fill_shrunk(_encoder(), tmp_path)
