from __future__ import annotations

import pytest
import torch
from torch.optim import SGD

from sparseml.pytorch.utils import (
    get_optim_groups_learning_rates,
    get_optim_learning_rate,
    set_optim_learning_rate,
)


@pytest.fixture
def optimizer() -> SGD:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in (0.1, 0.2)]
    return SGD(groups)


def test_reading(optimizer: SGD) -> None:
    assert get_optim_learning_rate(optimizer) == 0.1
    assert get_optim_groups_learning_rates(optimizer) == [0.1, 0.2]
    optimizer.param_groups.clear()
    with pytest.raises(RuntimeError, match="no parameter groups"):
        get_optim_learning_rate(optimizer)


def test_setting(optimizer: SGD) -> None:
    set_optim_learning_rate(optimizer, 0.5, groups=[1])
    assert get_optim_groups_learning_rates(optimizer) == [0.1, 0.5]
    set_optim_learning_rate(optimizer, 0.3)
    assert get_optim_groups_learning_rates(optimizer) == [0.3, 0.3]
    with pytest.raises(IndexError, match="no parameter group 2: the optimizer has 2"):
        set_optim_learning_rate(optimizer, 0.3, groups=[2])


def test_tensor_rates_stay_tensors(optimizer: SGD) -> None:
    rate = torch.tensor(0.1)
    optimizer.param_groups[0]["lr"] = rate
    set_optim_learning_rate(optimizer, 0.25)
    assert optimizer.param_groups[0]["lr"] is rate
    assert float(rate) == 0.25
