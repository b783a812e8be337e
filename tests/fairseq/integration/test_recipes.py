"""The recipes restate the profiles of the GaP reference, on models that fairseq builds."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from torch.nn import Module

from sparseml.cli.recipe_phases import phases
from sparseml.pytorch.functional.selection import prune_count
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import GaPPruningModifier

Build = Callable[..., Module]
RECIPES = Path(__file__).resolve().parents[3] / "recipes/fairseq/gap"
NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))
MODELS = {"iwslt": "iwslt_de_en", "small": "small"}
PRUNABLE = 176_160_768
FORWARD = ([36, 30, 30], [75_497_472, 50_331_648, 50_331_648])
LAYOUTS = {
    "forward_3": FORWARD,
    "forward_3_global": FORWARD,
    "forward_3_by_role": FORWARD,
    "sequential_3": ([24, 32, 40], [50_331_648, 58_720_256, 67_108_864]),
    "halves_2": ([36, 60], [75_497_472, 100_663_296]),
    "pairs_6": ([12] * 3 + [20] * 3, [25_165_824] * 3 + [33_554_432] * 3),
}


def read(name: str, **variables: Any) -> tuple[Any, Any]:
    """The manager of a recipe, and its pruning modifier."""
    manager = ScheduledModifierManager.from_yaml(
        str(RECIPES / f"{name}.yaml"), recipe_variables=variables
    )
    (modifier,) = manager.pruning_modifiers
    return manager, modifier


@pytest.fixture
def big(transformer: Build) -> Module:
    return transformer("wmt14_en_de_big", 33_712)


def test_the_big_model_has_the_published_size(big: Module) -> None:
    own = dict(big.named_parameters())
    # the reference's attention has no biases
    biases = sum(p.numel() for name, p in own.items() if name.endswith("_proj.bias"))
    assert sum(param.numel() for param in own.values()) - biases == 210_808_832


@pytest.mark.parametrize("name", LAYOUTS)
def test_partitions_are_those_of_the_profile(big: Module, name: str) -> None:
    layout = read(name)[1].layout(big)
    sizes = [[layout.selected[place].param.numel() for place in part] for part in layout.partitions]
    assert (list(map(len, sizes)), list(map(sum, sizes))) == LAYOUTS[name]
    assert sum(map(sum, sizes)) == PRUNABLE and len(layout.selected) == 96


def test_density_of_each_step(big: Module) -> None:
    modifier = read("forward_3", sparsity=0.8, num_steps=4)[1]
    found = [phase["density"] for phase in phases(modifier, big)]
    assert found == pytest.approx([0.5429, 0.4286, 0.4286, 0.5429, 0.2], abs=1e-4)
    assert [prune_count(count, 0.8) for count in (1_048_576, 4_194_304)] == [838_861, 3_355_443]


def test_sparsities_by_role_make_the_same_in_the_mean(big: Module) -> None:
    layout = read("forward_3_by_role")[1].layout(big)
    pairs = zip(layout.selected, layout.finals, strict=True)
    gone = sum(final * one.param.numel() for one, final in pairs)
    assert gone / PRUNABLE == pytest.approx(0.9) and set(layout.finals) == {0.86, 0.93}


def test_random_groups_are_a_third_of_the_tensors(big: Module) -> None:
    groups = read("random_3")[1].layout(big).groups
    assert len(groups) == 100 and {len(group) for group in groups} == {32}
    assert all(not set(one) & set(next_) for one, next_ in pairwise(groups))


@pytest.mark.parametrize("name", NAMES)
def test_it_fits_its_model_and_ends_sparse(transformer: Build, name: str) -> None:
    config = MODELS.get(name.partition("_")[0], "wmt14_en_de_big")
    model = transformer(config, 33_712 if "big" in config else 100)
    manager, modifier = read(name)
    wanted = {
        name
        for name, param in model.named_parameters()
        if re.search(r"layers.*(_proj|fc[12])\.weight$", name)
    }
    assert {one.name for one in modifier.selects(model)} == wanted
    assert modifier.end_epoch < manager.max_epochs
    if isinstance(modifier, GaPPruningModifier):
        assert phases(modifier, model)[-1]["dense"] == "all sparse"
    else:
        end = modifier.end_epoch
        asked = [modifier.get_applied_sparsity_for_epoch(e, 1) for e in (0.0, 10.0, 20.0, end)]
        assert asked == [0.0, 0.9, 0.0, 0.9]
    shorter, _ = read(name, num_steps=4, epochs_per_step=2.0, finetune_epochs=1.0)
    assert shorter.max_epochs == 9


def test_partitions_of_other_depths_are_a_variable(transformer: Build) -> None:
    parts = [[r"re:encoder\."], [r"re:decoder\.layers\.0"], [r"re:decoder\.layers\.1"]]
    layout = read("forward_3", partitions=parts)[1].layout(transformer("small"))
    same = read("small_forward_3")[1].layout(transformer("small"))
    assert layout.partitions == same.partitions
