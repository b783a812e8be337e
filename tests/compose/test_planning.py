"""Plans: what configurations ask for, each distinct block once, whatever their order."""

from __future__ import annotations

import itertools
import json
import random

import pytest
import torch
from torch import nn

from sparseml.compose.asking import (
    Asking,
    Configuration,
    legacy_plan,
    read_legacy,
    read_recipes,
)
from sparseml.compose.planning import configurations_of, costs_of, make_plan, told_costs
from sparseml.pytorch.sparsification.composing.blocks import DigestError, Plan
from sparseml.run.errors import RunError

from .conftest import ATTENTION, LINEAR, uniform

RECIPE = """
__metadata__: {{name: {name}}}
modifiers:
  - !{kind}PruningModifier
      params: ['re:encoder.*linear.*weight']
      init_sparsity: 0.05
      final_sparsity: {sparsity}
      start_epoch: 0.0
      end_epoch: {end}
      update_frequency: 1.0
  - !EpochRangeModifier {{start_epoch: 0.0, end_epoch: 3.0}}
"""


def recipe(name, sparsity=0.5, kind="Magnitude", end=2.0):
    return Configuration(name, RECIPE.format(name=name, kind=kind, sparsity=sparsity, end=end))


def plan_of(model, *configurations, kind="module", **asking):
    return make_plan(model, configurations, Asking(model, **asking), kind, {"model": "m"})[0]


def test_property_1_each_request_is_one_block_and_each_block_is_requested(trained):
    lot = random.Random(0)
    rates = (0.25, 0.5, 0.75, 1)
    for _ in range(5):
        wanted = [
            Configuration(f"c{n}", rates={m: lot.choice(rates) for m in [*ATTENTION, *LINEAR]})
            for n in range(4)
        ]
        plan = plan_of(trained, *wanted)
        asked = {(m, r) for one in wanted for m, r in one.rates.items() if r != 1}
        assert len(plan.blocks) == len(asked) == plan.reuse["distinct"]
        assert len({block.block_id for block in plan.blocks}) == len(plan.blocks)
        for one in wanted:
            mine = plan.blocks_of(one.name)
            pruned = [m for m, r in one.rates.items() if r != 1]
            assert sorted(b.modules[0] for b in mine) == sorted(pruned)
            assert all(one.name in block.used_by for block in mine)
        assert all(block.used_by for block in plan.blocks)


def test_property_2_the_order_of_configurations_does_not_matter(trained):
    wanted = [uniform("a", 0.5), uniform("b", 0.25), recipe("c", 0.5)]
    texts = set()
    for order in itertools.permutations(wanted):
        content = plan_of(trained, *order).content()
        del content["digest"]
        content["configurations"].sort(key=lambda one: one["name"])
        texts.add(json.dumps(content))
    assert len(texts) == 1


def test_property_2_a_plan_is_read_as_it_was_written(trained, tmp_path):
    plan = plan_of(trained, uniform("a", 0.5), recipe("b"))
    plan.write(tmp_path / "one.json")
    again = Plan.read(tmp_path / "one.json")
    again.write(tmp_path / "two.json")
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert plan_of(trained, *configurations_of(again)).blocks == plan.blocks


class Seq2Seq(nn.Module):
    """The reference's model in small: 3 + 3 layers, 8 heads."""

    def __init__(self):
        super().__init__()
        self.transformer = nn.Transformer(16, 8, 3, 3, 32, batch_first=True)
        self.generator = nn.Linear(16, 11)


def test_property_2_the_overlapped_example_has_66_requests_and_40_blocks(tmp_path):
    torch.manual_seed(0)
    model = Seq2Seq()
    names = [
        name
        for name, one in model.named_modules()
        if isinstance(one, (nn.Linear, nn.MultiheadAttention)) and "out_proj" not in name
    ]
    assert len(names) == 22
    # 18 modules with both rates, 4 with one
    rates = [{n: (0.5, 0.2)[(i + k) % 2 and i >= 4] for i, n in enumerate(names)} for k in range(3)]
    (tmp_path / "conf.json").write_text(json.dumps(rates))
    wanted = read_legacy(tmp_path / "conf.json")
    plan = plan_of(model, *wanted)
    assert plan.reuse == {"requests": 66, "distinct": 40, "factor": 1.65}
    exported = legacy_plan(wanted)
    assert list(exported) == names and exported[names[5]] == [0.2, 0.5]
    assert exported[names[4]] == [0.5, 0.2] and exported[names[0]] == [0.5]


def test_property_3_what_rounds_to_the_same_mask_is_one_block():
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(16, 8, 16)
    rates = [Configuration(f"c{d}", rates={"self_attn": d}) for d in (0.2, 0.25, 0.3)]
    plan = plan_of(model, *rates)
    assert plan.reuse["distinct"] == 1
    assert plan.blocks[0].spec["target"] == {"heads of self_attn": {"heads": 2, "of": 8}}
    floats = [Configuration(n, rates={"linear1": d}) for n, d in (("a", 0.3), ("b", 0.1 + 0.2))]
    assert plan_of(model, *floats).reuse["distinct"] == 1


def test_property_3_rate_1_gives_no_block(trained):
    plan = plan_of(trained, uniform("dense", 1), uniform("sparse", 0.5, LINEAR))
    assert plan.configuration("dense")["blocks"] == []
    params = sum(one.numel() for one in trained.parameters())
    assert plan.configuration("dense")["kept_params"] == params


@pytest.mark.parametrize(
    ("rates", "told"),
    [
        ({"encoder.layers.0.linear1": 0}, "above 0 and at most 1, found 0"),
        ({"encoder.layers.0.linear1": -1}, "found -1"),
        ({"encoder.layers.0.linear1": 1.5}, "found 1.5"),
        ({"encoder.layers.0.linear1": float("nan")}, "found nan"),
        ({"encoder.layers.0.linear3": 0.5}, "no module 'encoder.layers.0.linear3'; did you mean"),
        ({"encoder.layers.0.norm1": 0.5}, "neither a linear layer nor attention"),
        ({"encoder.layers.0.self_attn": 0.1}, "leaves none of 4 heads"),
    ],
)
def test_property_3_what_cannot_be_is_refused(trained, rates, told):
    with pytest.raises(RunError, match="configuration bad: ") as error:
        plan_of(trained, Configuration("bad", rates=rates))
    assert told in str(error.value)


def test_recipes_of_different_schedules_and_pruners_share_what_is_the_same(trained):
    plan = plan_of(trained, recipe("a"), recipe("b", end=1.0), recipe("c", kind="GM"),
                   uniform("d", 0.5, LINEAR))  # fmt: skip
    assert plan.reuse == {"requests": 16, "distinct": 4, "factor": 4.0}
    assert all(block.used_by == ("a", "b", "c", "d") for block in plan.blocks)


def test_ranking_all_together_resolves_to_masks_of_each_layer(trained):
    plan = plan_of(trained, recipe("a", kind="GlobalMagnitude"))
    kept = [n for block in plan.blocks for n in block.spec["target"].values()]
    sizes = [trained.get_parameter(f"{name}.weight").numel() for name in LINEAR]
    assert sum(kept) == round(0.5 * sum(sizes)) and len(set(kept)) > 1


def test_names_come_from_metadata_or_file(tmp_path):
    text = RECIPE.replace("__metadata__: {{name: {name}}}", "")
    (tmp_path / "small.yaml").write_text(text.format(kind="GM", sparsity=0.5, end=1.0))
    (tmp_path / "other.yaml").write_text(recipe("large").recipe)
    files = [str(tmp_path / "small.yaml"), str(tmp_path / "other.yaml")]
    assert [one.name for one in read_recipes(files)] == ["small", "large"]
    with pytest.raises(RunError, match="two recipes are called large"):
        read_recipes([files[1]] * 2)


MOVEMENT = """
modifiers:
  - !MovementPruningModifier
      params: ['re:encoder.layers.0.linear.*weight']
      init_sparsity: 0.05
      final_sparsity: 0.5
      start_epoch: 0.0
      end_epoch: 1.0
      update_frequency: 1.0
"""


def test_modifiers_whose_masks_depend_on_training_are_refused_by_name(trained):
    wanted = Configuration("moving", MOVEMENT)
    reason = "it ranks weights by how training has moved them; --allow-residual"
    told = f"moving: MovementPruningModifier is not composable: {reason}"
    with pytest.raises(RunError, match=told):
        plan_of(trained, wanted)
    plan = plan_of(trained, wanted, allow_residual=True)
    assert plan.configuration("moving")["residual"] == LINEAR[:2] and not plan.blocks


def test_every_pruning_modifier_says_whether_it_is_composable():
    import sparseml.pytorch.sparsification as all_modifiers

    default = all_modifiers.Modifier._order_dependence
    says = {
        name: one._order_dependence
        for name in all_modifiers.__all__
        if isinstance(one := getattr(all_modifiers, name), type)
        and issubclass(one, all_modifiers.BasePruningModifier)
        and not name.startswith("Base")
    }
    assert len(says) > 15 and default not in says.values()
    assert says["GMPruningModifier"] == says["CAPruningModifier"] == ""
    assert all(says[f"{name}PruningModifier"] for name in ("GaP", "RigL", "ACDC", "Movement"))


def test_tied_weights_are_no_block():
    model = nn.Sequential(nn.Embedding(6, 4), nn.Linear(4, 4), nn.Linear(4, 6, bias=False))
    model[2].weight = model[0].weight
    wanted = Configuration("a", rates={"1": 0.5, "2": 0.5})
    with pytest.raises(RunError, match=r"2 cannot be a block: it shares its weight with 0\.weight"):
        plan_of(model, wanted)
    plan = plan_of(model, wanted, allow_residual=True)
    assert [block.modules for block in plan.blocks] == [("1",)]
    assert plan.configuration("a")["residual"] == ["2"]


def test_one_module_is_pruned_by_one_modifier_only(trained):
    twice = recipe("a").recipe.replace("  - !EpochRange", RECIPE.format(
        name="b", kind="GM", sparsity=0.5, end=2.0).partition("modifiers:\n")[2].partition(
        "  - !EpochRange")[0] + "  - !EpochRange")  # fmt: skip
    with pytest.raises(RunError, match="is pruned twice"):
        plan_of(trained, Configuration("a", twice))


def test_layers_and_runs_of_layers_are_blocks(trained):
    wanted = [uniform(n, 0.5) for n in "ab"] + [uniform("c", 0.25)]
    layers = plan_of(trained, *wanted, kind="layer")
    assert [block.modules for block in layers.blocks] == [
        (f"encoder.layers.{n}",) for n in (0, 0, 1, 1)
    ]
    runs = plan_of(trained, *wanted, kind="hierarchical")
    joined = [block for block in runs.blocks if len(block.modules) == 2]
    assert [block.used_by for block in joined] == [("a", "b")]
    assert runs.reuse["distinct"] == 3 and len(runs.configuration("c")["blocks"]) == 2


def test_estimates_are_told_before_anything_runs(trained):
    plan = plan_of(trained, uniform("a", 0.5), uniform("b", 0.5))
    text = "\n".join(told_costs(plan, costs_of(plan, trained, 4.0), 6.0, 2.0))
    assert "2 configurations ask for 12 blocks, 6 of them distinct: each is used 2.00 times" in text
    assert "it pays if each configuration saves more than" in text
    assert "with 6 epochs without and 2 with tuned blocks it pays from" in text


def test_an_edited_plan_is_refused(trained, tmp_path):
    plan_of(trained, uniform("a", 0.5)).write(tmp_path / "plan.json")
    text = (tmp_path / "plan.json").read_text()
    (tmp_path / "plan.json").write_text(text.replace('"heads": 2', '"heads": 3'))
    with pytest.raises(DigestError, match="was edited"):
        Plan.read(tmp_path / "plan.json")
