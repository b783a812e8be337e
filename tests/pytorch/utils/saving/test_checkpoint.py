from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from torch import nn

from sparseml.pytorch.utils import (
    CheckpointError,
    load_checkpoint,
    load_epoch,
    load_model,
    load_optimizer,
    save_checkpoint,
    save_model,
)
from sparseml.pytorch.utils.saving.checkpoint import pack_masks, unpack_masks
from sparseml.pytorch.utils.saving.files import read_torch_file, write_torch_file


class _Manager:
    """Holds a mask and a counter, as a real manager's state does."""

    def __init__(self, value: int) -> None:
        self.mask = torch.full((3, 5), float(value))
        self.count = value

    def __str__(self) -> str:
        return "version: 1.1.0\n"

    def state_dict(self) -> dict[str, Any]:
        return {"Pruning-1": {"fc.weight": self.mask}, "__progress__": {"count": self.count}}

    def load_structure_state(self, model: nn.Module, state: dict[str, Any]) -> None:
        self.weights_before = [param.detach().clone() for param in model.parameters()]

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        self.mask = state["Pruning-1"]["fc.weight"]
        self.count = state["__progress__"]["count"]


def _parts() -> tuple[nn.Module, Any, Any]:
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.5), nn.Linear(6, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    return model, optimizer, torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)


def _train(model: nn.Module, optimizer: Any, scheduler: Any, steps: int) -> None:
    for _ in range(steps):
        noise = random.random() + float(np.random.rand())  # noqa: NPY002
        loss = (model(torch.randn(8, 4)) - noise).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_resumed_run_is_bit_identical(tmp_path: Path, stop: int) -> None:
    path = tmp_path / "last.ckpt"
    torch.manual_seed(0)
    model, optimizer, scheduler = _parts()
    _train(model, optimizer, scheduler, stop)
    save_checkpoint(path, model, optimizer=optimizer, scheduler=scheduler, epoch=1.5, extra=[1])
    _train(model, optimizer, scheduler, 7 - stop)

    torch.manual_seed(99)
    other, other_optimizer, other_scheduler = _parts()
    info = load_checkpoint(path, other, optimizer=other_optimizer, scheduler=other_scheduler)
    _train(other, other_optimizer, other_scheduler, 7 - stop)
    assert (info.epoch, info.recipe, info.extra) == (1.5, None, [1])
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert other_scheduler.state_dict() == scheduler.state_dict()
    assert repr(other_optimizer.state_dict()) == repr(optimizer.state_dict())


def test_random_state_is_optional(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    model = nn.Linear(2, 2)
    save_checkpoint(path, model, rng=False)
    assert "rng" not in read_torch_file(path)
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    load_checkpoint(path, model)
    save_checkpoint(path, model)
    load_checkpoint(path, model, rng=False)
    assert torch.equal(torch.rand(1), expected)


def test_masks_are_packed_and_come_back(tmp_path: Path) -> None:
    path, model = tmp_path / "c.pth", nn.Linear(2, 2)
    manager = _Manager(1)
    manager.mask[0, 1] = 0
    save_checkpoint(path, model, manager=manager)
    packed = read_torch_file(path)["manager"]["Pruning-1"]["fc.weight"]
    assert packed["__packed_mask__"].numel() == 2  # 15 bits
    other = _Manager(0)
    info = load_checkpoint(path, model, manager=other)
    assert torch.equal(other.mask, manager.mask)
    assert other.mask.dtype == torch.float32
    assert other.count == 1
    assert info.recipe == str(manager)


def test_layers_come_and_go_before_weights_are_loaded(tmp_path: Path) -> None:
    path, fresh, manager = tmp_path / "c.pth", nn.Linear(2, 2), _Manager(0)
    before = fresh.weight.detach().clone()
    save_checkpoint(path, nn.Linear(2, 2), manager=_Manager(1))
    load_checkpoint(path, fresh, manager=manager)
    assert torch.equal(manager.weights_before[0], before)
    assert not torch.equal(fresh.weight, before)


@settings(deadline=None, max_examples=40)
@given(
    st_numpy.arrays(
        st.sampled_from([np.float32, np.float16, np.bool_, np.uint8, np.int64]),
        st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=9),
        elements=st.integers(0, 1),
    )
)
def test_packing_is_exact(array: np.ndarray) -> None:
    tensor = torch.from_numpy(array)
    (back,) = unpack_masks(pack_masks([tensor]))
    assert back.dtype == tensor.dtype
    assert back.shape == tensor.shape
    assert torch.equal(back, tensor)


def test_only_masks_are_packed() -> None:
    state = {
        "scores": torch.tensor([0.0, 0.5]),
        "negative zero": torch.tensor([-0.0, 1.0]),
        "nan": torch.tensor([float("nan")]),
        "nested": ({"n": 3, "text": "x"}, [torch.ones(2, dtype=torch.bfloat16)]),
    }
    packed = pack_masks(state)
    for key in ("scores", "negative zero", "nan"):
        assert packed[key] is state[key]
    back = unpack_masks(packed)
    assert back["nested"][0] == {"n": 3, "text": "x"}
    assert torch.equal(back["nested"][1][0], torch.ones(2, dtype=torch.bfloat16))


def test_the_scale_of_mixed_precision_is_kept(tmp_path: Path) -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=32.0, growth_interval=7)
    save_checkpoint(tmp_path / "c.pth", nn.Linear(1, 1), scaler=scaler)
    other = torch.amp.GradScaler("cpu")
    load_checkpoint(tmp_path / "c.pth", nn.Linear(1, 1), scaler=other)
    assert other.state_dict() == scaler.state_dict()


def test_the_other_loaders_read_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    model, optimizer, _ = _parts()
    save_checkpoint(path, model, optimizer=optimizer, epoch=3.0)
    other, other_optimizer, _ = _parts()
    load_model(path, other, strict=True)
    load_optimizer(path, other_optimizer)
    assert torch.equal(other[0].weight, model[0].weight)
    assert load_epoch(path) == 3.0


def test_what_the_file_lacks_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    model, optimizer, scheduler = _parts()
    save_checkpoint(path, model, scheduler=scheduler)
    with pytest.raises(CheckpointError, match=r"c\.pth holds no state of: optimizer, manager"):
        load_checkpoint(path, model, optimizer=optimizer, manager=_Manager(0))
    save_model(path, model)
    with pytest.raises(CheckpointError, match="no checkpoint of save_checkpoint"):
        load_checkpoint(path, model)
    write_torch_file(path, {"checkpoint_version": 99, "state_dict": {}})
    with pytest.raises(CheckpointError, match="later version of this package"):
        load_checkpoint(path, model)
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none", model)


def _damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "cut short":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flipped":
        data[len(data) // 3] ^= 4
        path.write_bytes(data)
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["cut short", "flipped", "empty", "gone"])
def test_the_checkpoint_before_a_damaged_one_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    path, model = tmp_path / "c.pth", nn.Linear(30, 30)
    for epoch in range(3):
        model.weight.data.fill_(float(epoch))
        save_checkpoint(path, model, epoch=epoch)
    info = load_checkpoint(path, model)
    assert (info.epoch, info.path, caplog.text) == (2, path, "")
    _damage(path, how)
    info = load_checkpoint(path, model)
    assert (info.epoch, info.path.name) == (1, "c.pth.previous")
    assert model.weight.unique().tolist() == [1.0]
    assert "going on from the checkpoint before it" in caplog.text
    assert "c.pth" in caplog.text
    # the run goes on, and is killed before it has saved once more
    assert load_checkpoint(path, model).epoch == 1
    save_checkpoint(path, model, epoch=2)
    assert load_checkpoint(path, model).path == path
    # the damaged file has not taken the place of the whole one
    path.unlink()
    assert load_checkpoint(path, model).epoch == 1
    assert (tmp_path / "c.pth.damaged").exists() == (how != "gone")


def test_two_damaged_checkpoints_are_an_error(tmp_path: Path) -> None:
    path, model = tmp_path / "c.pth", nn.Linear(30, 30)
    for _ in range(2):
        save_checkpoint(path, model)
    _damage(path, "flipped")
    _damage(tmp_path / "c.pth.previous", "cut short")
    with pytest.raises(CheckpointError, match=r"c\.pth is damaged.* and so is the one before it"):
        load_checkpoint(path, model)


def test_the_one_before_need_not_be_kept(tmp_path: Path) -> None:
    for _ in range(2):
        save_checkpoint(tmp_path / "c.pth", nn.Linear(2, 2), keep_previous=False)
    assert [path.name for path in tmp_path.iterdir()] == ["c.pth"]


def test_damage_is_noticed_and_nothing_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "c.pth"
    save_checkpoint(path, nn.Linear(30, 30))
    data = bytearray(path.read_bytes())
    model = nn.Linear(30, 30)
    before = model.weight.detach().clone()
    generator = random.Random(0)
    for _ in range(20):
        broken = bytearray(data)
        broken[generator.randrange(len(data) // 4, len(data) // 2)] ^= 1 << generator.randrange(8)
        path.write_bytes(broken)
        try:
            load_checkpoint(path, model)
        except CheckpointError as error:
            assert str(path) in str(error)
            assert torch.equal(model.weight, before)
        else:  # a bit between the records, which nothing reads
            assert not torch.equal(model.weight, before)
            model.load_state_dict({"weight": before, "bias": model.bias})
