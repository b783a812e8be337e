from __future__ import annotations

import logging
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from sparseml.pytorch.utils.saving.files import read_torch_file, write_torch_file
from sparseml.pytorch.utils.saving.rng import get_rng_state, set_rng_state


def _draw() -> list[float]:
    numpy_draws = [np.random.randn(), np.random.rand()]  # noqa: NPY002
    return [random.gauss(0, 1), random.random(), *numpy_draws, *torch.randn(3).tolist()]


def test_generators_continue_from_a_file(tmp_path: Path) -> None:
    _draw()  # numpy and python keep half of a pair of normal numbers
    write_torch_file(tmp_path / "rng.pth", get_rng_state())
    expected = [_draw(), _draw()]
    set_rng_state(read_torch_file(tmp_path / "rng.pth"))
    assert [_draw(), _draw()] == expected


def test_another_number_of_gpus_is_told(caplog: pytest.LogCaptureFixture) -> None:
    state = get_rng_state()
    count = len(state["cuda"])
    state["cuda"] = [*state["cuda"], torch.get_rng_state()]
    with caplog.at_level(logging.WARNING):
        set_rng_state(state)
    assert f"taken with {count + 1} GPUs, here are {count}" in caplog.text
