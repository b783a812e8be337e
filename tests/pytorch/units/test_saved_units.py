"""Models that lost gated units on disk: scales, what is left of what, and pruning them again."""

from __future__ import annotations

import copy
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import sparseml
from sparseml.pytorch.shrink import load_shrunk, save_shrunk, shrink
from sparseml.pytorch.sparsification import SRPPruningModifier
from sparseml.pytorch.units import hidden_units
from sparseml.pytorch.units.gated import gated_units, remove_gated
from sparseml.pytorch.units.origins import origins_of, set_origins
from sparseml.pytorch.units.probing import call_model, sample_inputs
from sparseml.pytorch.units.removable import removable_units, remove_units
from sparseml.pytorch.utils import load_checkpoint, load_model, save_checkpoint, save_model
from sparseml.pytorch.utils.saving.files import CheckpointError

from .transformers_zoo import ZOO

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
DOCS = Path(__file__).parents[3] / "docs" / "faster_models.md"
KWARGS = {"num_classes": 5, "img_size": 32, "depth": 2, "embed_dim": 24, "num_heads": 2}
VIT = "vit_tiny_patch16_224"


def _halved(model: nn.Module, inputs: Any = None) -> nn.Module:
    """Remove every second unit of all kinds."""
    keeps = {
        units: (torch.arange(units.group.size // units.pools) % 2 == 0).repeat(units.pools)
        for units in gated_units(model, inputs).found
    }
    assert keeps and remove_gated(model, keeps) > 0
    return model


@torch.no_grad()
def _same(one: nn.Module, other: nn.Module, inputs: object) -> None:
    for a, b in zip(call_model(one, inputs), call_model(other, inputs), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["bert", "gpt2", "bart", "vit"])
def test_once_and_once_more(name: str, tmp_path: Path) -> None:
    model = _halved(ZOO[name].build("sdpa").eval())
    loaded = load_shrunk(save_shrunk(model, tmp_path / "once"))
    inputs = sample_inputs(model)
    _same(model, loaded, inputs)
    assert origins_of(loaded) == origins_of(model) and sparseml.load_shrunk is load_shrunk
    again = load_shrunk(save_shrunk(_halved(loaded), tmp_path / "twice"))
    _same(loaded, again, inputs)
    units = json.loads((tmp_path / "twice/shrunk.json").read_text())["units"]
    stream = next(value for key, value in units.items() if key.startswith("stream "))
    assert stream == {"of": 24, "kept": [0, 4, 8, 12, 16, 20]}
    assert all(len(one["kept"]) < one["of"] for one in units.values())


@pytest.mark.parametrize("fused", [True, False])
def test_timm_is_built_by_what_the_file_tells(fused: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = timm.create_model(VIT, **KWARGS).eval()
    images = torch.randn(2, 3, 32, 32)
    _halved(model, images)
    built_by = {"library": "timm", "name": VIT, "kwargs": KWARGS}
    loaded = load_shrunk(save_shrunk(model, tmp_path, built_by))
    # the scale follows the width of a head, which is no longer that of the name
    assert loaded.blocks[0].attn.scale == model.blocks[0].attn.scale == 6**-0.5
    for one in (model, loaded):
        for block in one.blocks:
            block.attn.fused_attn = fused
    _same(model, loaded, images)


def test_timm_by_its_own_name(tmp_path: Path) -> None:
    model = timm.create_model("test_vit", num_classes=3).eval()
    images = torch.randn(1, 3, 160, 160)
    loaded = load_shrunk(save_shrunk(_halved(model, images), tmp_path))
    _same(model, loaded, images)
    content = json.loads((tmp_path / "shrunk.json").read_text())
    expected = {"library": "timm", "name": "test_vit", "kwargs": {"num_classes": 3}}
    assert content["built_by"] == expected
    for told, message in (
        ({"library": "timm", "name": "no_vit"}, r"no_vit: timm .* has no such model"),
        ({"library": "other"}, "must name a library of transformers, timm"),
    ):
        (tmp_path / "shrunk.json").write_text(json.dumps({**content, "built_by": told}))
        with pytest.raises(CheckpointError, match=message):
            load_shrunk(tmp_path)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("bert", "AutoModelForSequenceClassification"),
        ("vit", "AutoModelForImageClassification"),
        ("gpt2", "AutoModelForCausalLM"),
        ("bart", "AutoModelForSeq2SeqLM"),
    ],
)
def test_documented_lines_read_it_without_us(name: str, task: str, tmp_path: Path) -> None:
    model = _halved(ZOO[name].build("sdpa").eval())
    save_shrunk(model, tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    code = next(block for block in blocks if "AutoConfig" in block)
    scope: dict[str, Any] = {}
    exec(code.replace("AutoModelForSequenceClassification", task), scope)  # noqa: S102
    _same(model, scope["load"](str(tmp_path)), sample_inputs(model))


def _vit() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(VIT, **{**KWARGS, "embed_dim": 32, "num_heads": 4}).eval()


@pytest.mark.parametrize("file", ["model.pth", "model.safetensors", "checkpoint.pth"])
@pytest.mark.parametrize("channels", [True, False])
def test_load_model_knows_what_heads_are_left(file: str, channels: bool, tmp_path: Path) -> None:
    model, images, path = _vit(), torch.randn(2, 3, 32, 32), tmp_path / file
    if channels:  # of each head
        _halved(model, images)
    else:
        found = [units for units in removable_units(model, images).found if units.kind == "heads"]
        remove_units(model, {units: torch.arange(4) % 2 == 0 for units in found})
    if file == "checkpoint.pth":
        save_checkpoint(path, model)
    else:
        save_model(path, model)
    for load in (load_model, load_checkpoint) if file == "checkpoint.pth" else (load_model,):
        loaded = _vit()
        load(path, loaded)
        _same(model, loaded, images)
        assert origins_of(loaded) == origins_of(model) != {}
        with pytest.raises(CheckpointError, match=f"{file} is of another model: ResNet has no"):
            load(path, timm.create_model("test_resnet"))


def test_loading_guesses_no_heads(tmp_path: Path) -> None:
    model, images, path = _vit(), torch.randn(2, 3, 32, 32), tmp_path / "weights.pth"
    _halved(model, images)
    set_origins(model, {})  # as if its units had gone elsewhere
    for save, load in ((save_model, load_model), (save_checkpoint, load_checkpoint)):
        save(path, model)
        with pytest.raises(CheckpointError, match=r"s.pth: blocks.0.attn.qkv has 48 outputs, 96"):
            load(path, _vit())


def test_a_pickled_model_brings_along_what_tells_of_it_in_files() -> None:
    whole, model = Layers(), _halved(Layers(), IDS)
    kept = pickle.dumps(model)
    # unpickled anywhere, it imports what lets files hold its structure
    assert b"sparseml.pytorch.units.origins" in kept
    assert b"sparseml" not in pickle.dumps(whole)
    assert origins_of(pickle.loads(kept)) == origins_of(model) != {}  # noqa: S301


class Layers(nn.Module):
    """Layers of torch between embeddings and a head."""

    def __init__(self, depth: int = 2, width: int = 8) -> None:
        super().__init__()
        self.words = nn.Embedding(10, width)
        layer = nn.TransformerEncoderLayer(width, 2, 12, 0.0, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.head = nn.Linear(width, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.layers(self.words(ids)).mean(dim=1))


IDS = torch.arange(20).reshape(4, 5) % 10


def test_any_model_that_is_given(tmp_path: Path) -> None:
    model = _halved(Layers().eval(), IDS)
    save_shrunk(model, tmp_path)
    own = Layers()
    assert load_shrunk(tmp_path, own) is own and not own.training
    _same(model, own, IDS)
    _same(model, load_shrunk(tmp_path, Layers), IDS)
    # one that is as small already
    assert load_shrunk(tmp_path, copy.deepcopy(model)) is not None
    with pytest.raises(CheckpointError, match=r"Layers has no module 'layers.layers.1"):
        load_shrunk(tmp_path, Layers(1))
    with pytest.raises(CheckpointError, match=r"holds another model.*it lacks 'layers.layers.2"):
        load_shrunk(tmp_path, Layers(3))
    save_shrunk(Layers(), tmp_path / "whole")
    with pytest.raises(CheckpointError, match=r"holds another model.*size mismatch for"):
        load_shrunk(tmp_path / "whole", copy.deepcopy(model))


def test_heads_and_neurons_go_after_channels_have() -> None:
    model = _halved(Layers().double().eval(), IDS)
    with torch.no_grad():
        for units in hidden_units(model, IDS).found:
            member = units.group.members[-1]
            model.get_parameter(member.param).movedim(member.dim, 0)[member.index == 0] = 0
    shrink(model, IDS)
    found = origins_of(model)
    assert found["heads layers.layers.0.self_attn.out_proj"] == {"of": 2, "kept": [1]}
    # of both heads every second of four channels, then of the second one alone
    assert found["qk layers.layers.0.self_attn.out_proj"] == {"of": 8, "kept": [4, 6]}
    assert found["fc layers.layers.0.linear2"] == {"of": 12, "kept": [2, 4, 6, 8, 10]}


def _batches() -> Any:
    while True:
        yield [IDS], {}, IDS[:, 0] % 3


SAMPLER = {"data_loader_builder": _batches, "loss_fn": nn.functional.cross_entropy}


def _sizes(model: nn.Module) -> list[int]:
    groups = gated_units(model, IDS).found
    neurons = sum(units.group.size for units in groups if units.kind == "fc")
    return [neurons, *(units.group.size for units in groups if units.kind != "fc")]


@pytest.mark.parametrize("loads", [False, True])
def test_a_second_stage_in_a_run_of_its_own_counts_from_the_whole(
    loads: bool, tmp_path: Path
) -> None:
    def stage(number: int, **more: Any) -> Callable[[nn.Module], None]:
        modifier = SRPPruningModifier(0.4, 0.0, 1.0, stage=number, **more)
        return lambda model: modifier.apply(model, grad_sampler=SAMPLER)

    torch.manual_seed(0)
    model, once = Layers(), Layers()
    stage(0)(once)
    stage(1)(model)
    if loads:
        model = load_shrunk(save_shrunk(model, tmp_path), Layers())
    stage(2)(model)
    assert _sizes(model) == _sizes(once)
    before = _sizes(model)
    stage(0)(model)  # it is at that rate already
    assert _sizes(model) == before
