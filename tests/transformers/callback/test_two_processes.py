"""Two processes, with the same batches in all, train the model that one does."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = pytest.mark.usefixtures("warm")

WORKER = Path(__file__).with_name("one_of_two.py")


def _worker() -> Any:
    spec = importlib.util.spec_from_file_location("one_of_two", WORKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path: Path) -> None:
    """The masks are the same everywhere; weights differ by the order of sums at most."""
    pytest.importorskip("transformers")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(WORKER), str(tmp_path)],
        env=environment, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    expected = _worker().train(tmp_path / "alone", 1).state_dict()
    taught = _worker().train(tmp_path / "taught", 1, hidden=True).state_dict()
    for rank in range(2):
        found = torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)
        assert not found["differing"], "a resumed run equals a whole one"
        for name, value in found["weights"].items():
            assert torch.equal(value == 0, expected[name] == 0), name
            assert torch.allclose(value, expected[name], rtol=0, atol=1e-6), name
        weight = found["weights"]["transformer.h.0.mlp.c_fc.weight"]
        assert int((weight == 0).sum()) > 0
        for name, value in found["hidden"].items():
            assert torch.allclose(value, taught[name], rtol=0, atol=1e-6), name
