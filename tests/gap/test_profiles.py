"""Recipes of the step files that the GaP reference has shipped, in miniature and in full size."""

from __future__ import annotations

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from sparseml.cli import main
from sparseml.cli.recipe_phases import phases
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import GaPPruningModifier

WIDTH = 1024


def block_names(block, decoder):
    attentions = ["self_attn", "encoder_attn"] if decoder else ["self_attn"]
    parts = [*(f"in_proj_weight_{p}" for p in "qkv"), "out_proj.weight"]
    names = [f"{attention}.{part}" for attention in attentions for part in parts]
    side = "decoder" if decoder else "encoder"
    return [f"{side}.layers.{block}.{name}" for name in [*names, "fc1.weight", "fc2.weight"]]


PARTS = {
    "E": [name for block in range(6) for name in block_names(block, decoder=False)],
    "D0": [name for block in range(3) for name in block_names(block, decoder=True)],
    "D3": [name for block in range(3, 6) for name in block_names(block, decoder=True)],
}


class Block(nn.Module):
    def __init__(self, decoder):
        super().__init__()
        for name in ["self_attn", "encoder_attn"] if decoder else ["self_attn"]:
            parts = {f"{p}_proj": nn.Linear(WIDTH, WIDTH) for p in ("q", "k", "v", "out")}
            self.add_module(name, nn.ModuleDict(parts))
        self.fc1, self.fc2 = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)


def big():
    model = nn.ModuleDict()
    with torch.device("meta"):
        for side in ("encoder", "decoder"):
            blocks = nn.ModuleList(Block(side == "decoder") for _ in range(6))
            model[side] = nn.ModuleDict({"layers": blocks})
    return model


@pytest.fixture
def write(tmp_path):
    """Write a step file of what is pruned at its start and what stays sparse."""

    def file(number, pruned, masked, ratio=0.8, scalar=False):
        lines = ["rho: 0.001", "prune_ratios:", *(f"  {name}: {ratio}" for name in pruned)]
        if scalar:
            lines += ["masked_layers: >", *(f"  module.{name}" for name in masked)]
        else:
            lines += ["masked_layers:", *(f"  {name}: {ratio}" for name in masked)]
        (tmp_path / f"step_{number}.yaml").write_text("\n".join(lines))

    return file


@pytest.fixture
def convert(tmp_path):
    def run(status=0):
        result = CliRunner().invoke(main, ["recipe", "convert", "--from", "gap", str(tmp_path)])
        assert result.exit_code == status, (result.output, result.exception)
        return result.stdout if status == 0 else result.stderr.strip()

    return run


def forward(write, scalar=False):
    parts = list(PARTS.values())
    everything = [name for part in parts for name in part]
    for number in range(4):
        grown = parts[number % 3]
        masked = [name for name in everything if name not in grown]
        write(
            number, parts[number - 1 if number else 1] if number else masked, masked, scalar=scalar
        )


@pytest.mark.parametrize("scalar", [False, True])
def test_the_forward_set(write, convert, scalar):
    forward(write, scalar)
    manager = ScheduledModifierManager.from_yaml(convert())
    modifier = manager.pruning_modifiers[0]
    assert isinstance(modifier, GaPPruningModifier) and modifier.final_sparsity == 0.8
    assert [len(part) for part in modifier.partitions] == [36, 30, 30]
    assert (modifier.num_steps, modifier.update_frequency, manager.max_epochs) == (3, 5.0, 55)
    model = big()
    assert sum(one.param.numel() for one in modifier.selects(model)) == 176_160_768
    found = phases(modifier, model)
    assert [phase["density"] for phase in found] == pytest.approx(
        [0.542857, 0.428571, 0.428571, 0.2], abs=1e-6
    )
    firsts = [phase["first"] for phase in found[:3]]
    assert [name.partition(".self")[0] for name in firsts] == [
        "encoder.layers.0", "decoder.layers.0", "decoder.layers.3",
    ]  # fmt: skip


def test_files_that_prune_everything_anew_give_the_same_recipe(write, convert):
    forward(write)
    delta = convert()
    everything = [name for part in PARTS.values() for name in part]
    for number in range(4):
        grown = PARTS[list(PARTS)[number % 3]]
        write(number, everything, [name for name in everything if name not in grown])
    texts = (delta, convert())
    own = [ScheduledModifierManager.from_yaml(text).pruning_modifiers[0] for text in texts]
    model = big()
    layouts = [one.layout(model) for one in own]
    named = [
        [{layout.selected[place].name for place in group} for group in layout.groups]
        for layout in layouts
    ]
    assert named[0] == named[1] and layouts[0].finals == layouts[1].finals


def test_a_random_set_is_drawn_anew(write, convert):
    names = [f"encoder.layers.{n}.fc1.weight" for n in range(6)]
    groups = [(0, 1), (2, 5), (1, 3)]
    for number, group in enumerate(groups):
        grown = [names[n] for n in group]
        before = [names[n] for n in (groups[number - 1] if number else range(6))]
        write(number, before, [name for name in names if name not in grown])
    modifier = ScheduledModifierManager.from_yaml(convert()).pruning_modifiers[0]
    assert (modifier.partition_type, modifier.num_partitions) == ("random", 3)


def test_sparsities_of_each_tensor(write, convert):
    write(0, ["a.weight"], ["a.weight"], ratio=0.7)
    write(1, ["b.weight"], ["b.weight"], ratio=0.9)
    modifier = ScheduledModifierManager.from_yaml(convert()).pruning_modifiers[0]
    assert modifier.final_sparsity == {0.7: ["a.weight"], 0.9: ["b.weight"]}


def test_what_cannot_be_converted(write, convert, tmp_path):
    assert "holds no step files" in convert(2)
    write(0, ["a"], ["a"])
    write(1, ["a"], ["c"])
    assert "step_1.yaml does not prune c, which has grown before" in convert(2)
    (tmp_path / "step_1.yaml").write_text("prune_ratios: {a: 1.5}")
    assert "step_1.yaml: a must be a sparsity in [0, 1), found 1.5" in convert(2)
    (tmp_path / "step_1.yaml").write_text("prune_ratios: {a: 0.5}\nmasked_layer: {a: 0.5}")
    assert "masked_layer cannot be converted; did you mean 'masked_layers'?" in convert(2)
    (tmp_path / "step_1.yaml").write_text("prune_ratios: {a: 0.5}\nmasked_layers: {a: 0.5}")
    assert "step_1.yaml: a is pruned to 0.5, before to 0.8" in convert(2)
    (tmp_path / "step_1.yaml").write_text("just text")
    assert "step_1.yaml has no prune_ratios" in convert(2)
    (tmp_path / "step_1.yaml").write_text("a: [")
    assert "step_1.yaml cannot be read" in convert(2)


def test_a_name_that_the_model_lacks_is_told(write, convert):
    forward(write)
    text = convert().replace("encoder.layers.0.fc1", "encoder.layers.0.fc9")
    modifier = ScheduledModifierManager.from_yaml(text).pruning_modifiers[0]
    with pytest.raises(RuntimeError, match="fc9"):
        modifier.selects(big())
