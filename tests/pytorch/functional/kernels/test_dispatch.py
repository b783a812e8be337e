from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.functional.kernels import batched, dispatch, kernels_for


def test_numba_where_it_is_installed():
    numba_cpu = pytest.importorskip("sparseml.pytorch.functional.kernels.numba_cpu")
    assert kernels_for(torch.device("cpu")) is numba_cpu
    assert kernels_for(torch.device("cpu"), "numba") is numba_cpu


def test_torch_elsewhere(monkeypatch):
    assert kernels_for(torch.device("cpu"), "torch") is batched
    assert kernels_for(torch.device("cuda")) is batched
    monkeypatch.setattr(dispatch, "_has_numba", lambda: False)
    assert kernels_for(torch.device("cpu")) is batched


def test_wrong_choices():
    with pytest.raises(ValueError, match="backend is one of"):
        kernels_for(torch.device("cpu"), "triton")
    with pytest.raises(ValueError, match="CPU only"):
        kernels_for(torch.device("cuda"), "numba")
