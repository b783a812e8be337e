"""Folders of step files, as the GaP reference has them, become recipes for fairseq's own models."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.nn import Module

from sparseml.gap.profiles import gap_recipe
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.run.errors import RunError

ROOT = Path(__file__).resolve().parents[3]
Layout = list[list[str]]


def block(side: str, number: int) -> list[str]:
    """Names of the reference, of a block."""
    attentions = ["self_attn", "encoder_attn"] if side == "decoder" else ["self_attn"]
    roles = ["in_proj_weight_q", "in_proj_weight_k", "in_proj_weight_v", "out_proj.weight"]
    inner = [f"{attention}.{role}" for attention in attentions for role in roles]
    return [f"{side}.layers.{number}.{one}" for one in [*inner, "fc1.weight", "fc2.weight"]]


def blocks(text: str) -> list[str]:
    """Names of the blocks of a text such as ``E4-5 D0-1``."""
    found = []
    for part in text.split():
        first, _, last = part[1:].partition("-")
        side = {"E": "encoder", "D": "decoder"}[part[0]]
        found += [name for n in range(int(first), int(last) + 1) for name in block(side, n)]
    return found


LAYOUTS = {
    "forward_3": ["E0-5", "D0-2", "D3-5"],
    "sequential_3": ["E0-3", "E4-5 D0-1", "D2-5"],
    "halves_2": ["E0-5", "D0-5"],
    "pairs_6": ["E0-1", "E2-3", "E4-5", "D0-1", "D2-3", "D4-5"],
}
ALL = blocks("E0-5 D0-5")
TODAY = {f"in_proj_weight_{role}": f"{role}_proj.weight" for role in "qkv"}


def today(name: str) -> str:
    stem, _, role = name.rpartition(".")
    return f"{stem}.{TODAY.get(role, role)}"


def write(folder: Path, grown: Sequence[list[str]], style: str, ratios: dict[str, float]) -> str:
    """Write step files: what is pruned is what has grown, or all (``full``)."""
    folder.mkdir()
    for number, group in enumerate(grown):
        masked = [name for name in ALL if name not in group]
        pruned = ALL if style == "full" else grown[number - 1] if number else masked
        content = {
            "rho": 0.001,
            "prune_ratios": {name: ratios[name] for name in pruned},
            "masked_layers": {name: ratios[name] for name in masked},
        }
        (folder / f"step_{number}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    everything = {"rho": 0.001, "prune_ratios": ratios}
    (folder / "all_layers.yaml").write_text(yaml.safe_dump(everything))
    return str(folder)


def laid_out(text: str, model: Module) -> tuple[Any, Layout]:
    """The modifier of a recipe, and the names in each of its partitions."""
    (modifier,) = ScheduledModifierManager.from_yaml(text).pruning_modifiers
    layout: Any = modifier.layout(model)  # type: ignore[attr-defined]
    return modifier, [[layout.selected[n].name for n in part] for part in layout.partitions]


@pytest.fixture
def big(transformer: Callable[..., Module]) -> Module:
    return transformer("wmt14_en_de_big", 33_712)


@pytest.mark.parametrize(
    ("name", "style"), [*((name, "delta") for name in LAYOUTS), ("forward_3", "full")]
)
def test_a_layout_selects_what_the_ready_recipe_does(
    tmp_path: Path, big: Module, name: str, style: str
) -> None:
    parts = [blocks(part) for part in LAYOUTS[name]]
    folder = write(tmp_path / "set", [*parts, parts[0]], style, dict.fromkeys(ALL, 0.95))
    modifier, found = laid_out(gap_recipe(folder), big)
    assert [set(part) for part in found] == [set(map(today, part)) for part in parts]
    ready = (ROOT / f"recipes/fairseq/gap/{name}.yaml").read_text()
    assert found == laid_out(ready, big)[1]
    assert modifier.prune_grown_at_start is (style == "full")
    assert (modifier.final_sparsity, modifier.num_steps) == (0.95, len(parts))


def test_each_tensor_keeps_its_own_sparsity(tmp_path: Path, big: Module) -> None:
    lot = random.Random(0)
    ratios = {name: round(lot.uniform(0.706, 0.972), 3) for name in ALL}
    parts = [blocks(part) for part in LAYOUTS["forward_3"]]
    modifier, found = laid_out(gap_recipe(write(tmp_path / "set", parts, "delta", ratios)), big)
    layout = modifier.layout(big)
    finals = dict(zip((one.name for one in layout.selected), layout.finals, strict=True))
    assert finals == {today(name): ratio for name, ratio in ratios.items()}
    assert [len(part) for part in found] == [36, 30, 30]


def test_the_random_set_draws_a_third_in_each_step(tmp_path: Path, big: Module) -> None:
    lot, grown = random.Random(0), []
    for _ in range(12):
        free = [name for name in ALL if not grown or name not in grown[-1]]
        grown.append(lot.sample(free, 32))
    text = gap_recipe(write(tmp_path / "set", grown, "delta", dict.fromkeys(ALL, 0.9)))
    modifier, _ = laid_out(text, big)
    groups = modifier.layout(big).groups
    assert (modifier.partition_type, len(groups)) == ("random", 12)
    assert {len(group) for group in groups} == {32}


def test_names_that_fairseq_does_not_have_are_told(tmp_path: Path, big: Module) -> None:
    parts = [blocks(part) for part in LAYOUTS["forward_3"]]
    text = gap_recipe(write(tmp_path / "set", parts, "delta", dict.fromkeys(ALL, 0.9)))
    with pytest.raises(RuntimeError, match=r"encoder\.layers\.0\.fc9"):
        laid_out(text.replace("encoder.layers.0.fc1", "encoder.layers.0.fc9"), big)
    (tmp_path / "set/step_2.yaml").write_text("prune_ratios: {}\nmasked_layers: {}\n")
    with pytest.raises(RunError, match=r"step_2\.yaml"):
        gap_recipe(str(tmp_path / "set"))
