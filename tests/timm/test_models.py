"""Models by name, and their weights."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from sparseml.pytorch.utils import CheckpointError
from sparseml.timm import RunError, data_config, load_model, output_classes, short_name

OWN = "own_code:small"


def test_a_model_of_timm() -> None:
    model = load_model("resnet10t", pretrained=False, kwargs={"num_classes": 7, "in_chans": None})
    assert output_classes(model) == 7
    config = data_config(model, {"img_size": 96})
    assert config["input_size"] == (3, 96, 96)
    assert config["mean"] == model.pretrained_cfg["mean"]


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_model_of_the_users_own_with_weights(workplace: Path, suffix: str) -> None:
    weights = load_model(OWN).state_dict()
    path = workplace / f"weights.{suffix}"
    save_file(weights, path) if suffix == "safetensors" else torch.save(weights, path)
    model = load_model(OWN, str(path))
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())
    assert data_config(model, {"mean": [0.1, 0.2, 0.3]}) | {"x": 1} == {
        "input_size": (3, 8, 8),
        "interpolation": "bilinear",
        "mean": (0.1, 0.2, 0.3),
        "std": (0.5, 0.5, 0.5),
        "crop_pct": 1.0,
        "crop_mode": "center",
        "x": 1,
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnt50", r"no such model; did you mean 'resnet50"),
        ("own_code:smal", r"own_code has no 'smal'; did you mean 'Small'"),
        ("own_cod:small", r"no module named 'own_cod'"),
        ("own_code:not_a_model", r"of type int; it must be callable"),
        ("own_code:OWN", r"has no 'OWN'"),
        ("builtins:list", r"must give a torch.nn.Module, got list"),
        ("own_code:Small.forward", r"cannot be built: .*TypeError"),
    ],
)
def test_names_that_name_no_model(workplace: Path, name: str, expected: str) -> None:
    with pytest.raises(RunError, match=expected):
        load_model(name)


def test_weights_of_another_number_of_classes(workplace: Path) -> None:
    path = workplace / "weights.safetensors"
    save_file(load_model(OWN, kwargs={"num_classes": 5}).state_dict(), path)
    with pytest.raises(RunError, match=r"weights.safetensors does not fit own_code:small: .*head"):
        load_model(OWN, str(path))


def test_weights_of_another_model(workplace: Path) -> None:
    path = workplace / "weights.safetensors"
    save_file({"stem": torch.ones(2)}, path)
    with pytest.raises(RunError, match=r"without a value body\S+, .* and \d+ more, not in .* stem"):
        load_model(OWN, str(path))


def test_files_that_are_missing_or_cut_short(workplace: Path) -> None:
    with pytest.raises(RunError, match=r"--checkpoint gone.pth: no such file"):
        load_model(OWN, "gone.pth")
    for name in ("weights.safetensors", "weights.pth"):
        weights = load_model(OWN).state_dict()
        save_file(weights, name) if name.endswith("s") else torch.save(weights, name)
        whole = Path(name).read_bytes()
        Path(name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(CheckpointError, match=rf"{name} is not .*damaged or cut short"):
            load_model(OWN, name)


def test_splitting_what_is_not_there(workplace: Path) -> None:
    with pytest.raises(RunError, match="--split-qkv: own_code:small has no attention"):
        load_model(OWN, split_attention=True)


@pytest.mark.parametrize(
    ("name", "expected"), [("a.b:net", "net"), ("vit.in1k", "vit.in1k"), ("hf-hub:a/b", "a_b")]
)
def test_names_for_files(name: str, expected: str) -> None:
    assert short_name(name) == expected


@pytest.mark.parametrize("there", [False, True])
def test_a_host_of_weights_that_does_not_answer_is_asked_once(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name, copy = "test_resnet", tmp_path / "model.safetensors"
    expected = load_model(name, pretrained=False).state_dict()
    save_file(expected, copy)
    asked: list[str] = []

    def refuse(url: str, **_: object) -> None:
        asked.append(url)
        raise OSError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.get_session", lambda: SimpleNamespace(head=refuse))
    monkeypatch.setattr(
        "huggingface_hub.try_to_load_from_cache", lambda *_, **__: str(copy) if there else None
    )
    if there:
        assert torch.equal(load_model(name).state_dict()["fc.weight"], expected["fc.weight"])
    else:
        with pytest.raises(RunError, match=r"timm/test_resnet\S* are not on .*Name or .*--no-pre"):
            load_model(name)
    assert len(asked) == 1 and "Retrying" not in caplog.text
