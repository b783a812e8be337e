"""Stores and models: what is written is what is read, whole, checked, and never unpickled."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from sparseml.compose import sorting
from sparseml.compose.asking import Asking, Configuration
from sparseml.compose.finishing import FinishJob, compose_model, finish, write_composed
from sparseml.compose.planning import make_plan
from sparseml.compose.tuning import TuneJob, prune_blocks, tune
from sparseml.pytorch.functional.composing.targets import tensors_hash
from sparseml.pytorch.sparsification.composing.blocks import DigestError, block_tensors
from sparseml.pytorch.sparsification.composing.ledger import STALE_SECONDS, Claims, Ledger
from sparseml.pytorch.sparsification.composing.store import BlockStore
from sparseml.pytorch.sparsification.composing.student import TuningSettings
from sparseml.pytorch.utils.saving.files import read_safetensors
from sparseml.run.masks import read_masks

from .conftest import ATTENTION, DATA, LINEAR, MODEL, uniform


@pytest.fixture
def tuned(workshop):
    made = workshop(uniform("a", 0.5), uniform("b", 0.25), uniform("dense", 1), epochs=1)
    made.tune()
    return made


def test_property_11_models_have_the_bits_of_blocks_and_origin(tuned):
    before = tuned.model.state_dict()
    for name in ("a", "b"):
        state = compose_model(tuned.store, tuned.plan, name, tuned.model).state_dict()
        mine: dict[str, torch.Tensor] = {}
        for block in tuned.plan.blocks_of(name):
            key = tuned.store.tuned(block)[0]
            mine |= read_safetensors(tuned.store.path("tuned", key))[0]
        assert set(block_tensors(tuned.model, [*ATTENTION, *LINEAR])) <= set(mine)
        for key, value in state.items():
            assert torch.equal(value, mine.get(key, before[key])), key


def test_property_11_tied_weights_stay_tied(tmp_path, workshop):
    model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 4), nn.Linear(4, 6, bias=False))
    model[2].weight = model[0].weight
    made = workshop(Configuration("a", rates={"1": 0.5}), model=model, data=_Numbers())
    made.tune()
    composed = compose_model(made.store, made.plan, "a", model)
    assert composed[2].weight is composed[0].weight


class _Numbers:
    fingerprint = "numbers"

    def training(self, epoch):
        return [(torch.arange(6).reshape(2, 3),)] * 2

    held_out = lambda self: self.training(0)  # noqa: E731

    def evaluate(self, model):
        return {"loss": 0.0}


def test_property_12_rate_1_is_the_origin(tuned):
    composed = compose_model(tuned.store, tuned.plan, "dense", tuned.model)
    pairs = zip(composed.state_dict().items(), tuned.model.state_dict().items(), strict=True)
    assert all(n == m and torch.equal(v, w) for (n, v), (m, w) in pairs)


def test_property_12_models_are_files_like_any_other_and_masks_hold(tuned, tmp_path):
    composed = write_composed(tuned.store, tuned.plan, "b", tuned.model, "tuned", tmp_path / "b")
    again = sorting.model()
    again.load_state_dict(read_safetensors(tmp_path / "b/model.safetensors")[0])
    digits = tuned.data.data.held_out()[0]
    assert torch.equal(again.eval()(*digits), composed.eval()(*digits))
    job = FinishJob(epochs=2, lr=1e-2, weight_decay=0.1, latency=False)
    found = finish(
        tuned.store, tuned.plan, "b", tuned.model, tuned.data, job, tmp_path / "f", lambda _: None
    )
    masks = read_masks(tmp_path / "f/masks.safetensors")
    state = read_safetensors(tmp_path / "f/model.safetensors")[0]
    assert set(masks) == {n for one in tuned.plan.blocks_of("b") for n in _masked(tuned, one)}
    for name, mask in masks.items():
        assert not state[name][~mask].any()
        assert not torch.equal(state[name], composed.state_dict()[name])
    assert [one["epoch"] for one in found["history"]] == [0, 1, 2]
    assert found["kept_params"] == tuned.plan.configuration("b")["kept_params"]


def _masked(made, block):
    return made.store.read("pruned", block.block_id, block)[1]


RESIDUAL = """
modifiers:
  - !MovementPruningModifier
      params: ['head.weight']
      init_sparsity: 0.05
      final_sparsity: 0.5
      start_epoch: 0.0
      end_epoch: 1.0
      update_frequency: 0.5
  - !MagnitudePruningModifier
      params: ['re:encoder.*linear1.weight']
      init_sparsity: 0.05
      final_sparsity: 0.5
      start_epoch: 0.0
      end_epoch: 1.0
      update_frequency: 1.0
"""


def test_what_is_residual_is_pruned_while_fine_tuning(origin, tmp_path):
    wanted, asking = [Configuration("r", RESIDUAL)], Asking(origin, allow_residual=True)
    plan, pruned = make_plan(origin, wanted, asking, base={"model": MODEL})
    assert plan.configuration("r")["residual"] == ["head"]
    store = BlockStore(tmp_path / "store")
    store.adopt(plan)
    for one in pruned:
        store.prune(one.block, one.tensors(origin), one.masks())
    from sparseml.compose.origin import Lent

    data, job = (
        Lent(sorting.SortingData(3, 16)),
        FinishJob(epochs=2, source="pruned", latency=False),
    )
    finish(store, plan, "r", origin, data, job, tmp_path / "r", lambda _: None)
    state = read_safetensors(tmp_path / "r/model.safetensors")[0]
    for name in ("head.weight", "encoder.layers.0.linear1.weight"):
        assert float((state[name] == 0).float().mean()) == pytest.approx(0.5, abs=0.01)


def test_property_16_damaged_and_altered_blocks_are_refused(tuned):
    block = tuned.plan.blocks_of("a")[0]
    file = tuned.store.path("tuned", tuned.store.tuned(block)[0])
    whole = file.read_bytes()
    changed = bytearray(whole)
    changed[-3] ^= 1
    for content in (whole[:-5], bytes(changed), b""):
        file.write_bytes(content)
        with pytest.raises(DigestError, match="not the file that was written"):
            compose_model(tuned.store, tuned.plan, "a", tuned.model)
    other = tuned.plan.blocks_of("b")[0]
    shutil.copyfile(tuned.store.path("tuned", tuned.store.tuned(other)[0]), file)
    with pytest.raises(DigestError):
        compose_model(tuned.store, tuned.plan, "a", tuned.model)
    file.unlink()
    with pytest.raises(DigestError):
        compose_model(tuned.store, tuned.plan, "a", tuned.model)


def test_property_16_another_origin_is_refused(tuned):
    with torch.no_grad():
        tuned.model.head.bias[0] += 1e-3
    for action in (
        lambda: compose_model(tuned.store, tuned.plan, "a", tuned.model),
        lambda: prune_blocks(tuned.plan, tuned.model, tuned.store),
    ):
        with pytest.raises(DigestError, match=r"made for another model: head\.bias"):
            action()


def test_property_16_blocks_that_were_tuned_in_different_ways_are_refused(tuned):
    settings = TuningSettings(epochs=1, lr=1e-4)
    tuned.settings = settings
    tuned.bench().tune(tuned.plan.blocks_of("a")[:1])
    with pytest.raises(DigestError, match="tuned with different settings"):
        compose_model(tuned.store, tuned.plan, "a", tuned.model)


class Malice:
    def __reduce__(self):
        return os._exit, (66,)


def test_property_17_nothing_is_ever_unpickled(tuned):
    block = tuned.plan.blocks_of("a")[0]
    file = tuned.store.path("tuned", tuned.store.tuned(block)[0])
    evil = pickle.dumps(Malice())
    file.write_bytes(evil)
    with pytest.raises(DigestError):
        compose_model(tuned.store, tuned.plan, "a", tuned.model)
    from sparseml.utils.paths import file_digest

    known = tuned.store.ledger.last("finished", block_id=block.block_id)
    told = {k: v for k, v in known.items() if k not in ("event", "time", "sha256")}
    tuned.store.ledger.add("finished", **told, sha256=file_digest(file))
    with pytest.raises(DigestError, match="not a safetensors file"):
        compose_model(tuned.store, tuned.plan, "a", tuned.model)


def test_ledgers_outlive_torn_lines_and_many_writers(tmp_path):
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.add("claimed", block_id="a")
    with ledger.path.open("a") as file:
        file.write('{"event": "fini')
    threads = [
        threading.Thread(target=lambda n=n: [ledger.add("step", n=n, k=k) for k in range(20)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledger.events("step")) == 80 and len(ledger.events()) == 81
    assert ledger.last("step", n=2)["k"] == 19 and ledger.last("finished") is None


def test_claims_lapse_when_nobody_holds_them(tmp_path):
    claims = Claims(tmp_path)
    assert claims.take("a", "0") and not claims.take("a", "1")
    old = time.time() - STALE_SECONDS - 1
    os.utime(tmp_path / "a", (old, old))
    assert claims.take("a", "1")
    held = json.loads((tmp_path / "a").read_text())
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / "a").write_text(json.dumps({**held, "pid": gone.pid}))
    assert claims.take("a", "2")
    claims.release("a")
    assert claims.take("a", "3")


@pytest.mark.usefixtures("warm")
def test_property_6_and_7_workers_race_and_agree(tmp_path, origin, weights):
    """Two processes tune what one does, each block once, to the same bits."""
    wanted = [uniform("a", 0.5, LINEAR), uniform("b", 0.25, LINEAR[:1])]
    base = {"model": MODEL, "weights": weights}
    plan = make_plan(origin, wanted, Asking(origin), base=base)[0]
    found = []
    for workers in (1, 2):
        store = BlockStore(tmp_path / f"store{workers}")
        store.adopt(plan)
        job = TuneJob(str(store.folder), MODEL, DATA, TuningSettings(epochs=15), weights,
                      batch_size=8, workers=workers, threads=1)  # fmt: skip
        tune(job, lambda _: None)
        finished = store.ledger.events("finished")
        assert sorted(one["block_id"] for one in finished) == sorted(
            b.block_id for b in plan.blocks
        )
        found.append(contents(store, plan))
        if workers == 2:
            assert {one["worker"] for one in store.ledger.events("claimed")} == {"0", "1"}
        tune(job, lambda _: None)
        assert len(store.ledger.events("finished")) == len(plan.blocks)
    assert found[0] == found[1]


def test_property_6_two_workers_at_the_same_claims(tuned, workshop, origin):
    made = workshop(uniform("a", 0.5, LINEAR), name="race", epochs=1)
    benches = [made.bench("0"), made.bench("1")]
    assert made.store.claims.take(benches[0].key(made.plan.blocks[0]), "9")
    assert benches[0].tune(made.plan.blocks[:1]) == 0
    made.store.claims.release(benches[0].key(made.plan.blocks[0]))
    counts = [bench.tune(made.plan.blocks) for bench in benches]
    assert counts == [4, 0] and len(made.store.ledger.events("finished")) == 4


def contents(store, plan):
    """Block id → hash of the tensors of the tuned block."""
    found = {}
    for block in plan.blocks:
        tensors, masks = store.read("tuned", store.tuned(block)[0], block)
        found[block.block_id] = tensors_hash(tensors) + tensors_hash(masks)
    return found


class Stopping(sorting.SortingData):
    """Data that end the tuning at some batch, as if it was killed."""

    left = 10**9

    def loss_of_power(self):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt

    def call(self, model, batch):
        self.loss_of_power()
        return model(*batch)


@pytest.mark.parametrize("left", [3, 11, 17])
def test_property_15_killed_and_resumed_equals_uninterrupted(workshop, left):
    wanted = [uniform("a", 0.5, LINEAR[:2]), uniform("b", 0.25, ATTENTION[:1])]
    whole = workshop(*wanted, name="whole", dropout=True, data=Stopping(4, 16)).tune()
    made = workshop(*wanted, name="killed", dropout=True, data=Stopping(4, 16))
    bench = made.bench()
    first = made.plan.blocks[:1]
    bench.tune(first)
    file = made.store.path("tuned", bench.key(first[0]))
    stamp = file.stat().st_mtime_ns
    made.data.data.left = left
    with pytest.raises(KeyboardInterrupt):
        bench.tune(made.plan.blocks)
    made.data.data.left = 10**9
    bench.tune(made.plan.blocks)
    assert file.stat().st_mtime_ns == stamp
    for block in made.plan.blocks:
        again = made.store.read("tuned", bench.key(block), block)[0]
        assert all(torch.equal(again[n], v) for n, v in whole[block.block_id].items())
    assert len(made.store.ledger.events("finished")) == len(made.plan.blocks)


KILLED = """
import sys
from sparseml.compose.tuning import TuneJob, tune
from sparseml.pytorch.sparsification.composing.student import TuningSettings
store, weights, resume = sys.argv[1:]
settings = TuningSettings(epochs=4, lr=3e-3)
tune(TuneJob(store, {model!r}, {data!r}, settings, weights, batch_size=8, threads=1,
             resume=resume == "resume"))
"""


@pytest.mark.slow
def test_property_15_a_process_that_is_killed_is_resumed(tmp_path, origin, weights):
    plan = make_plan(
        origin, [uniform("a", 0.5)], Asking(origin), base={"model": MODEL, "weights": weights}
    )[0]
    script = tmp_path / "tune.py"
    script.write_text(KILLED.format(model=MODEL, data=DATA))
    sums = []
    for name in ("killed", "whole"):
        store = BlockStore(tmp_path / name)
        store.adopt(plan)
        command = [sys.executable, "-W", "ignore", str(script), str(store.folder), weights]
        child = subprocess.Popen([*command, "new"])
        while name == "killed" and not store.ledger.events("step"):
            time.sleep(0.05)
            assert child.poll() is None
        if name == "killed":
            child.send_signal(signal.SIGKILL)
            child.wait()
            assert not store.ledger.events("finished")
            subprocess.run([*command, "resume"], check=True)
            assert any(one["epoch"] > 0 for one in store.ledger.events("started"))
        else:
            assert child.wait() == 0
        sums.append(contents(store, plan))
    assert sums[0] == sums[1] and len(sums[0]) == len(plan.blocks)


def test_a_store_is_of_one_model(tuned):
    other = sorting.Sorter()
    plan = make_plan(other, [uniform("a", 0.5)], Asking(other))[0]
    with pytest.raises(DigestError, match="blocks of another model"):
        tuned.store.adopt(plan)
    assert Path(tuned.store.folder, "base.json").exists()
