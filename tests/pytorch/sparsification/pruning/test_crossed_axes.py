"""Every pruner with every pattern and every budget, in one shot.

A cell prunes exactly what was asked for, in the pattern asked for, or is refused, for a reason that
lies in the mathematics or in what the modifier is by its name.
"""

from __future__ import annotations

import copy
import itertools
import re

import pytest
import torch
from torch import nn

from sparseml.pytorch.functional.patterns import parse_pattern
from sparseml.pytorch.sparsification import pruning

SPARSITY = 0.5
PATTERNS = ("unstructured", "block4", "2:4", "4x1", "2x2", "filter", "channel", "1xchannel")
BUDGETS = ("uniform", "global", "limited", "mapped")
GRADUAL = {
    "init_sparsity": SPARSITY,
    "final_sparsity": SPARSITY,
    "start_epoch": 0.0,
    "end_epoch": 1.0,
    "update_frequency": 1.0,
}
WHEN = {"start_epoch": 0.0, "end_epoch": 3.0, "update_frequency": 1.0}
FISHER = {"fisher_block_size": 8, "damp": 1e-3, "num_grads": 8}
PRUNERS = {
    "GMPruningModifier": GRADUAL,
    "MagnitudePruningModifier": GRADUAL,
    "GlobalMagnitudePruningModifier": GRADUAL,
    "MovementPruningModifier": GRADUAL,
    "SnipMomentumPruningModifier": GRADUAL,
    "ACDCPruningModifier": {"compression_sparsity": SPARSITY, **WHEN},
    "TopKASTPruningModifier": {
        "forward_sparsity": SPARSITY,
        "backward_sparsity": 0.25,
        **WHEN,
    },
    "RigLPruningModifier": {"final_sparsity": SPARSITY, **WHEN},
    "GWProdPruningModifier": {**GRADUAL, "num_grads": 4},
    "MFACPruningModifier": {**GRADUAL, "num_grads": 4, "fisher_block_size": 8},
    "OBSPruningModifier": {**GRADUAL, **FISHER},
    "CAPruningModifier": {**GRADUAL, **FISHER},
    "FastCAPruningModifier": {**GRADUAL, **FISHER, "damp": 1e-2},
    "FastCAP by both": {
        **GRADUAL,
        "num_grads": 8,
        "damp": 1e-2,
        "fisher": "both",
        "order": "loss",
        "ranking": "elimination",
        "weight_update": "joint",
    },
}

REFUSALS = {
    # what is ranked by itself or together by its name
    ("MagnitudePruningModifier", "global"): "global_sparsity is always False",
    ("MagnitudePruningModifier", "limited"): "got an unexpected keyword argument",
    ("GlobalMagnitudePruningModifier", "uniform"): "global_sparsity is always True",
    ("GlobalMagnitudePruningModifier", "mapped"): "must be one number, as global_sparsity ranks",
    # a single sparsity that all phases share is what these methods are
    ("ACDCPruningModifier", "mapped"): "compression_sparsity: a sparsity is a fraction",
    ("TopKASTPruningModifier", "mapped"): "forward_sparsity: a sparsity is a fraction",
    # densities follow from the shapes
    ("RigLPruningModifier", "global"): None,
    ("RigLPruningModifier", "limited"): "got an unexpected keyword argument",
    ("RigLPruningModifier", "mapped"): "final_sparsity: a sparsity is a fraction",
}
SINGLE_WEIGHTS = ("RigLPruningModifier",)
# what is eliminated in blocks, or swept by columns, must not lie in several of them
BY_RUNS = ("CAPruningModifier", "FastCAPruningModifier", "FastCAP by both")
RUNS = ("unstructured", "block4", "2:4")


def reason(name, pattern, budget):
    """A regular expression for the error of a cell that is refused; "" for one that is not."""
    if (name, budget) in REFUSALS:
        return REFUSALS[name, budget] or "no such ranking"
    if name in SINGLE_WEIGHTS and pattern != "unstructured":
        return "mask_type must be 'unstructured'"
    if name in BY_RUNS and pattern not in RUNS:
        return "no runs of consecutive inputs"
    return ""


CELLS = list(itertools.product(PRUNERS, PATTERNS, BUDGETS))
EXACT = [cell for cell in CELLS if not reason(*cell)]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))


def batches():
    generator = torch.Generator().manual_seed(1)
    return [
        ([torch.randn(4, 16, generator=generator)], {}, torch.randn(4, 8, generator=generator))
        for _ in range(8)
    ]


SAMPLER = {
    "data_loader_builder": batches,
    "loss_fn": nn.functional.mse_loss,
    "progress_bar": False,
}


def build(name, pattern, budget):
    fields = {"params": ["re:.*weight"], **PRUNERS[name], "mask_type": pattern}
    fields |= {"global_sparsity": budget in ("global", "limited")}
    fixed = {"uniform": "MagnitudePruningModifier", "mapped": "MagnitudePruningModifier"}
    fixed |= {"global": "GlobalMagnitudePruningModifier", "limited": fixed["uniform"]}
    if fixed[budget] == name or (name.startswith("GlobalMagn") and budget in ("limited", "mapped")):
        del fields["global_sparsity"]
    if budget == "limited":
        fields |= {"max_sparsity_per_param": 0.75, "min_sparsity_per_param": 0.25}
    if budget == "mapped":
        goal = next(
            key for key in ("final", "compression", "forward") if f"{key}_sparsity" in fields
        )
        fields["params"] = []
        fields[f"{goal}_sparsity"] = {0.25: ["0.weight"], 0.5: ["2.weight", "4.weight"]}
        if pattern == "2:4":
            fields[f"{goal}_sparsity"] = {0.5: ["0.weight", "2.weight", "4.weight"]}
        fields |= {"init_sparsity": 0.25} if "init_sparsity" in fields else {}
    return getattr(pruning, name.replace("FastCAP by both", "FastCAPruningModifier"))(**fields)


def prune(modifier):
    model = net()
    kwargs = {"grad_sampler": SAMPLER}
    if "Momentum" in type(modifier).__name__ or "Movement" in type(modifier).__name__:
        modifier.initialize(model, **kwargs)
        model(torch.randn(4, 16)).pow(2).mean().backward()
        modifier.method.observe(modifier.masks)
        outcome = modifier.outcome(model)
        outcome.write(model)
        modifier.finalize(model)
    else:
        before = copy.deepcopy(model.state_dict())
        outcome = modifier.outcome(model, **kwargs)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        modifier.apply(model, **kwargs)
        assert {n for n, _ in outcome.items()} == {"0.weight", "2.weight", "4.weight"}
    return model, outcome


@pytest.mark.parametrize(("name", "pattern", "budget"), EXACT)
def test_cell_is_exact(name, pattern, budget):
    modifier = build(name, pattern, budget)
    model, outcome = prune(modifier)
    zeros = {key: int((~change.mask).sum()) for key, change in outcome.items()}
    for key, change in outcome.items():
        weight = model.get_parameter(key).data
        assert torch.equal(weight != 0, change.mask)
        units = parse_pattern(pattern)
        if pattern == "2:4":
            assert (change.mask.view(len(weight), -1, 4).sum(-1) == 2).all()
        else:
            share = units.unit_scores(change.mask.float())
            assert ((share == 0) | (share == 1)).all(), f"{key}: a unit was torn apart"
    total = sum(zeros.values())
    if budget == "mapped":
        wanted = {"0.weight": 32, "2.weight": 64, "4.weight": 64}
        wanted |= {"0.weight": 64} if pattern == "2:4" else {}
        assert zeros == wanted
    elif name == "RigLPruningModifier" or budget in ("global", "limited"):
        assert total == 192
    else:
        assert zeros == {"0.weight": 64, "2.weight": 64, "4.weight": 64}
    if budget == "limited":
        assert all(32 <= count <= 96 for count in zeros.values())


@pytest.mark.parametrize(("name", "pattern", "budget"), [cell for cell in CELLS if reason(*cell)])
def test_cell_is_refused(name, pattern, budget):
    if REFUSALS.get((name, budget), "") is None:
        pytest.skip("accepted from old recipes, without effect")
    with pytest.raises((ValueError, TypeError)) as refused:
        build(name, pattern, budget).outcome(net(), grad_sampler=SAMPLER)
    text = str(refused.value)
    assert re.search(reason(name, pattern, budget), text) or "must be 'unstructured'" in text


def test_how_many_cells_are_exact():
    assert len(CELLS) == 448
    assert sum(not reason(*cell) for cell in CELLS) >= 270
