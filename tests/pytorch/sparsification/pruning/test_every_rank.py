"""Two processes agree on every mask, also when they share the parameters, and fail together."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch without distributed")

SCRIPT = Path(__file__).with_name("ranks_worker.py")


def load_worker():
    spec = importlib.util.spec_from_file_location("ranks_worker", SCRIPT)
    worker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(worker)
    return worker


WORKER = load_worker()


def start(*arguments):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common.update(WORLD_SIZE="2", OMP_NUM_THREADS="1")
    return [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), *map(str, arguments)],
            env={**common, "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    processes = start(folder)
    errors = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", WORKER.pruning_names(WORKER.load_table()))
def test_masks_are_equal_after_every_step(ranks, name):
    first, second = (rank["every"][name] for rank in ranks)
    assert first == second
    assert len(first["masks"]) == WORKER.STEPS
    if name not in ("ConstantPruningModifier", "PatternLockModifier"):  # that find no zeros
        assert len(set(first["masks"])) > 1
        assert first["pruned"]


@pytest.mark.parametrize("kind", WORKER.SHARDED)
def test_sharded_parameters_get_the_masks_of_one_process(ranks, kind):
    first, second = (rank["sharded"][kind] for rank in ranks)
    alone = WORKER.sharded(WORKER.SHARDED[kind](), rank=0, world=1)
    assert len({tuple(masks[0].flatten().tolist()) for masks in alone["masks"]}) > 1
    for step, masks in enumerate(alone["masks"]):
        for mask, one, other in zip(
            masks, first["masks"][step], second["masks"][step], strict=True
        ):
            assert torch.equal(one, mask) and torch.equal(other, mask), f"step {step}"
    for value, one, other in zip(
        alone["weights"], first["weights"], second["weights"], strict=True
    ):
        assert torch.equal(one, other)
        assert torch.allclose(one, value, atol=1e-6)
        assert torch.equal(one == 0, value == 0)


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("how", ["killed", "stuck"])
def test_one_that_fails_does_not_leave_the_others_waiting(tmp_path, how):
    survivor, failing = start(tmp_path, how)
    begun = time.monotonic()
    try:
        _, errors = survivor.communicate(timeout=120)
    finally:
        failing.kill()
        failing.communicate()
    assert survivor.returncode != 0
    assert "rank 0 of 2 cannot go on exchanging masks: another process of this run" in errors
    assert time.monotonic() - begun < 90  # starting included
