"""A model that sorts digits, which learned that once, and workshops to take it to pieces in."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from sparseml.compose import sorting
from sparseml.compose.asking import Asking, Configuration
from sparseml.compose.origin import Lent
from sparseml.compose.planning import make_plan
from sparseml.compose.tuning import Bench, prune_blocks
from sparseml.pytorch.sparsification.composing.store import BlockStore
from sparseml.pytorch.sparsification.composing.student import TuningSettings, tuning_id
from sparseml.pytorch.sparsification.composing.teaching import find_layouts
from sparseml.pytorch.utils.saving.files import write_safetensors

MODEL, DATA = "sparseml.compose.sorting:model", "sparseml.compose.sorting:data"
ATTENTION = [f"encoder.layers.{n}.self_attn" for n in (0, 1)]
LINEAR = [f"encoder.layers.{n}.linear{k}" for n in (0, 1) for k in (1, 2)]


@pytest.fixture(scope="session")
def trained():
    """The origin; not to be changed."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = sorting.train(300)
    torch.set_num_threads(threads)
    return model


@pytest.fixture(scope="session")
def weights(trained, tmp_path_factory):
    file = tmp_path_factory.mktemp("origin") / "origin.safetensors"
    write_safetensors(file, trained.state_dict(), {})
    return str(file)


@pytest.fixture
def origin(trained):
    return copy.deepcopy(trained)


def uniform(name, density, modules=None):
    """A configuration with one density everywhere."""
    return Configuration(name, rates=dict.fromkeys(modules or [*ATTENTION, *LINEAR], density))


class Workshop:
    """A store with a plan, and what it takes to tune its blocks."""

    def __init__(self, folder, model, configurations, kind="module", data=None, **settings):
        self.model = model
        self.plan, self.pruned = make_plan(
            model, configurations, Asking(model), kind, {"model": MODEL, "weights": None}
        )
        self.store = BlockStore(Path(folder))
        self.data = Lent(data or sorting.SortingData(batches=4, batch_size=16))
        self.settings = TuningSettings(**{"epochs": 2, "lr": 3e-3, **settings})
        prune_blocks(self.plan, model, self.store, self.data)

    def bench(self, worker="0"):
        tuning = tuning_id(self.settings, self.data.fingerprint())
        outputs = [block.modules[-1] for block in self.plan.blocks]
        batches = [*self.data.held_out(), *self.data.training(0)]
        calls = [
            (lambda one=one: self.data.call(self.model, one), self.data.masks(one))
            for one in batches
        ]
        layouts = find_layouts(self.model, outputs, calls)
        return Bench(self.store, self.model, self.data, self.settings, tuning, layouts, worker)

    def tune(self, groups=None):
        """Tune all blocks, by default in one pass, and return them by block id."""
        bench = self.bench()
        for group in groups or [self.plan.blocks]:
            bench.tune(group)
        return {
            block.block_id: self.store.read("tuned", bench.key(block), block)[0]
            for block in self.plan.blocks
        }


@pytest.fixture
def workshop(tmp_path, origin):
    def make(*configurations, name="store", model=None, **given):
        return Workshop(tmp_path / name, model or origin, configurations, **given)

    return make
