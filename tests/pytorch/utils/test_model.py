from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.utils import (
    CheckpointError,
    get_optim_learning_rate,
    load_checkpoint,
    load_epoch,
    load_model,
    load_optimizer,
    save_checkpoint,
    save_model,
    script_model,
    trace_model,
)
from sparseml.pytorch.utils.model import read_model_file

_RECIPE = """
modifiers:
    - !EpochRangeModifier
        start_epoch: 0.0
        end_epoch: 2.0
"""


def _net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def _equal(first: nn.Module, second: nn.Module) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


@pytest.mark.parametrize("name", ["m.pth", "new/folder/m.pt", "m.safetensors"])
def test_round_trip_with_recipe_and_epoch(tmp_path: Path, name: str) -> None:
    model, other = _net(), _net()
    save_model(tmp_path / name, model, recipe=_RECIPE, epoch=2.5, arch_key="net")
    result = load_model(tmp_path / name, other, strict=True)
    assert _equal(model, other)
    assert result.missing_keys == result.unexpected_keys == []
    assert load_epoch(tmp_path / name) == 2.5
    content = read_model_file(tmp_path / name)
    assert content["recipe"] == _RECIPE
    assert content["arch_key"] == "net"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_dtypes_are_kept(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"m{suffix}"
    model = nn.Sequential(nn.Linear(2, 2).half(), nn.BatchNorm1d(2), nn.Linear(2, 2).bfloat16())
    save_model(path, model)
    state = read_model_file(path)["state_dict"]
    assert {key: value.dtype for key, value in state.items()} == {
        key: value.dtype for key, value in model.state_dict().items()
    }


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("saved", [nn.DataParallel, torch.compile, nn.Identity])
@pytest.mark.parametrize("loaded", [nn.DataParallel, torch.compile, nn.Identity])
def test_wrappers_do_not_matter(tmp_path: Path, suffix: str, saved: Any, loaded: Any) -> None:
    model, other = _net(), _net()
    path = tmp_path / f"m{suffix}"
    save_model(path, model if saved is nn.Identity else saved(model))
    assert read_model_file(path)["state_dict"].keys() == model.state_dict().keys()
    load_model(path, other if loaded is nn.Identity else loaded(other), strict=True)
    assert _equal(model, other)


def test_files_of_ddp_runs_load(tmp_path: Path) -> None:
    model, other = _net(), _net()
    torch.save(nn.DataParallel(model).state_dict(), tmp_path / "bare.pth")
    load_model(tmp_path / "bare.pth", other, strict=True)
    assert _equal(model, other)
    with pytest.raises(RuntimeError, match=r"do not fit Sequential: missing 0.bias"):
        load_model(tmp_path / "bare.pth", other, strict=True, fix_data_parallel=False)


def test_a_layer_called_module_stays(tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(_net())
    save_model(tmp_path / "m.pth", averaged)
    assert "module.0.weight" in read_model_file(tmp_path / "m.pth")["state_dict"]
    other = torch.optim.swa_utils.AveragedModel(_net())
    load_model(tmp_path / "m.pth", other, strict=True)
    assert _equal(averaged, other)


def test_strictness_and_tolerance(tmp_path: Path) -> None:
    path = tmp_path / "m.pth"
    source = _net()
    save_model(path, nn.Sequential(*source[:2], nn.Linear(4, 7)))
    target = _net()
    with pytest.raises(RuntimeError, match=r"size mismatch for 2\.weight"):
        load_model(path, target)
    result = load_model(path, target, strict=True, ignore_error_tensors=["2.weight", "2.bias"])
    assert result.missing_keys == ["2.weight", "2.bias"]
    assert torch.equal(target[0].weight, source[0].weight)
    longer = nn.Sequential(*_net(), nn.Linear(7, 1))
    longer[2] = nn.Linear(4, 7)
    assert load_model(path, longer).missing_keys == ["3.weight", "3.bias"]
    with pytest.raises(RuntimeError, match=r"missing 3.bias, 3.weight, unexpected none"):
        load_model(path, longer, strict=True)


def test_thinned_weights_load(tmp_path: Path) -> None:
    small = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
    save_model(tmp_path / "m.pth", small)
    model = _net()
    load_model(tmp_path / "m.pth", model, strict=True)
    assert _equal(model, small)
    assert model[0].out_features == 2
    longer = nn.Sequential(*_net(), nn.Linear(2, 2))
    with pytest.raises(RuntimeError, match=r"missing 3.bias, 3.weight"):
        load_model(tmp_path / "m.pth", longer, strict=True)
    assert longer[0].out_features == 4, "nothing is changed then"


def test_meta_models_get_the_tensors(tmp_path: Path) -> None:
    model = _net()
    save_model(tmp_path / "m.pth", model)
    empty = _net().to("meta")
    load_model(tmp_path / "m.pth", empty, strict=True)
    assert _equal(model, empty)


class WithExtra(nn.Linear):
    """Keeps more in state dicts than tensors."""

    def get_extra_state(self) -> Any:
        return {"scale": 2}

    def set_extra_state(self, state: Any) -> None:
        self.got = state


def test_what_is_no_tensor_in_a_state_dict(tmp_path: Path) -> None:
    model, path = nn.Sequential(WithExtra(3, 3)), tmp_path / "m.pth"
    for save, load in ((save_model, load_model), (save_checkpoint, load_checkpoint)):
        save(path, model)
        loaded: Any = nn.Sequential(WithExtra(3, 3))
        load(path, loaded)
        assert loaded[0].got == {"scale": 2}
    with pytest.raises(ValueError, match=r"holds tensors only, not 0\._extra_state: .*m.safe"):
        save_model(tmp_path / "m.safetensors", model)
    with pytest.raises(ValueError, match=r"on the meta device have no values to save: 0\.weight"):
        save_model(path, _net().to("meta"))


def test_the_stored_recipe_gives_the_structure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epochs: list[float] = []
    monkeypatch.setattr(
        ScheduledModifierManager,
        "apply_structure",
        lambda self, module, epoch, **kwargs: epochs.append(epoch),
    )
    manager = ScheduledModifierManager.from_yaml(_RECIPE)
    for epoch in (None, -1, 1.5):
        save_model(tmp_path / "m.pth", _net(), recipe=manager, epoch=epoch)
        load_model(tmp_path / "m.pth", _net())
    assert read_model_file(tmp_path / "m.pth")["recipe"] == str(manager)
    assert epochs == [float("inf"), float("inf"), 1.5]


def test_optimizer_and_modifiers(tmp_path: Path) -> None:
    model = _net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    save_model(tmp_path / "m.pth", model, optimizer)
    fresh = torch.optim.Adam(_net().parameters(), lr=0.5)
    load_optimizer(tmp_path / "m.pth", fresh)
    assert get_optim_learning_rate(fresh) == 0.01
    moments = [state["exp_avg"] for state in optimizer.state.values()]
    loaded = [state["exp_avg"] for state in fresh.state.values()]
    assert all(torch.equal(a, b) for a, b in zip(moments, loaded, strict=True))
    assert load_epoch(tmp_path / "m.pth") is None
    with pytest.raises(ValueError, match="driven by a manager"):
        save_model(tmp_path / "m.pth", model, optimizer, include_modifiers=True)
    manager = ScheduledModifierManager.from_yaml(_RECIPE)
    wrapped = manager.modify(model, optimizer, steps_per_epoch=2)
    save_model(tmp_path / "m.pth", model, wrapped, include_modifiers=True)
    stored = read_model_file(tmp_path / "m.pth")["manager"]
    assert list(stored) == list(manager.state_dict())


def test_what_is_not_there(tmp_path: Path) -> None:
    save_model(tmp_path / "m.pth", _net())
    with pytest.raises(CheckpointError, match=r"no optimizer state, found state_dict"):
        load_optimizer(tmp_path / "m.pth", torch.optim.SGD(_net().parameters()))
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    with pytest.raises(CheckpointError, match=r"no state dict, found the keys epoch"):
        load_model(tmp_path / "epoch.pth", _net())
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="found list"):
        load_model(tmp_path / "list.pth", _net())
    with pytest.raises(ValueError, match="cannot hold an optimizer"):
        save_model(tmp_path / "m.safetensors", _net(), torch.optim.SGD(_net().parameters()))


def test_pickled_modules_are_refused(tmp_path: Path) -> None:
    torch.save(_net(), tmp_path / "whole.pth")
    with pytest.raises(CheckpointError, match=r"whole\.pth holds pickled classes"):
        load_model(tmp_path / "whole.pth", _net())


def test_tied_weights_stay_tied(tmp_path: Path) -> None:
    for name in ("m.pth", "m.safetensors"):
        models = []
        for _ in range(2):
            model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
            model[1].weight = model[0].weight
            models.append(model)
        save_model(tmp_path / name, models[0])
        load_model(tmp_path / name, models[1], strict=True)
        assert _equal(*models)
        assert models[1][1].weight is models[1][0].weight


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_torchscript(tmp_path: Path) -> None:
    model, x = _net().eval(), torch.randn(2, 3)
    trace_model(tmp_path / "traced.pts", model, x)
    script_model(tmp_path / "scripted.pts", model)
    for name in ("traced.pts", "scripted.pts"):
        assert torch.allclose(torch.jit.load(tmp_path / name)(x), model(x))
