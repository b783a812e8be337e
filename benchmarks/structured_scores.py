"""By which score to remove channels, neurons and heads: ours against those of Torch-Pruning.

    python benchmarks/structured_scores.py [--models resnet20 resnet56 small_vit]
        [--sparsities 0.3 0.5] [--test 2000] [--train 2000] [--gradients 64]

Every score removes the same number of units from the same groups of a trained network, so all
models that are compared have the same operations and parameters; then all have their batch norms
measured anew, and nothing is trained. Torch-Pruning (1.6) says its scores for our groups. ``sum``,
``matrices`` and ``l2`` are the ``group_score`` of named parameters, the others the ``score`` of
``params: __STRUCTURED__``. Of the ViT only neurons are compared, as Torch-Pruning has other heads.
Exit code 1 says that none of ours is as good as the best of Torch-Pruning's.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from _cifar import MODELS, accuracy, images, load, retune_norms, sampler
from _timing import RESULTS, write_result
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import StructuredPruningModifier
from sparseml.pytorch.units import dependency_groups
from sparseml.pytorch.units.probing import call_model
from sparseml.pytorch.units.removable import Removable, removable_units, remove_units

OURS = ("sum", "matrices", "l2", "magnitude", "taylor", "obs")
THEIRS: dict[str, Callable[[], Any]] = {
    "TP magnitude": torch_pruning.importance.MagnitudeImportance,
    "TP magnitude, l1": lambda: torch_pruning.importance.MagnitudeImportance(p=1),
    "TP Taylor": torch_pruning.importance.TaylorImportance,
    "TP Hessian": torch_pruning.importance.HessianImportance,
    "TP LAMP": torch_pruning.importance.LAMPImportance,
    "TP FPGM": torch_pruning.importance.FPGMImportance,
}
GRADIENT_BATCH = 16
Data = tuple[Tensor, Tensor]


def main() -> None:
    """Compare on every model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.3, 0.5])
    parser.add_argument("--test", type=int, default=2000, help="images to evaluate on")
    parser.add_argument("--train", type=int, default=2000, help="images to take gradients of")
    parser.add_argument("--gradients", type=int, default=64, help="of 16 images each")
    parser.add_argument("--scores", nargs="+", choices=[*OURS, *THEIRS], default=[*OURS, *THEIRS])
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = {name: compare(name, options) for name in options.models}
    results = _with_known(found, options)
    content = {"options": _told(options), "top1": results}
    print(f"written to {write_result('structured_scores', content)}")
    sys.exit(0 if all(_as_good(found) for found in results.values()) else 1)


def compare(name: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Accuracy of one model by every score, at every sparsity."""
    dense = load(name)
    test, train = (
        images(dense, f"{s}[:{n}]") for s, n in (("test", options.test), ("train", options.train))
    )
    found: dict[str, dict[str, float]] = {"dense": {"0": accuracy(dense, test)}}
    print(f"{name}: dense {found['dense']['0']:.2%}", flush=True)
    places = _places(dense, train[0][:1])
    for score in options.scores:
        if score in ("sum", "matrices", "l2") and places[0].hidden is not None:
            continue
        for sparsity in options.sparsities:
            torch.manual_seed(0)
            model = copy.deepcopy(dense)
            if score in THEIRS:
                _prune_theirs(model, score, sparsity, train, options.gradients)
            else:
                _prune_ours(model, score, sparsity, train, options.gradients)
            retune_norms(model, train[0][:1000])
            size = sum(param.numel() for param in model.parameters())
            top1 = accuracy(model, test)
            found.setdefault(score, {})[str(sparsity)] = top1
            print(f"{name}: {score} {sparsity:.0%}: {top1:.2%}, {size} parameters", flush=True)
    return found


def _places(model: nn.Module, example: Tensor) -> list[Removable]:
    return [one for one in removable_units(model, example).found if one.kind != "heads"]


def _prune_ours(model: nn.Module, score: str, sparsity: float, train: Data, gradients: int) -> None:
    fields: dict[str, Any] = {"params": "__STRUCTURED__", "score": score, "num_grads": gradients}
    if score in ("sum", "matrices", "l2"):
        groups = dependency_groups(model, train[0][:1])
        fields = {
            "params": groups.params,
            "param_groups": groups.param_groups,
            "group_score": score,
        }
    else:
        heads = [u for u in removable_units(model, train[0][:1]).found if u.kind == "heads"]
        fields["exclude"] = [name for one in heads for name in one.group.masked] or None
    pruner = StructuredPruningModifier(0.0, sparsity, 0.0, 1.0, 1.0, **fields)
    manager = ScheduledModifierManager([pruner])
    places = _places(model, train[0][:1])
    manager.apply(model, grad_sampler=sampler(train, GRADIENT_BATCH))
    keeps = {one: _not_zero(model, one) for one in places}
    remove_units(model, keeps)


def _not_zero(model: nn.Module, units: Removable) -> Tensor:
    """Which units have a matrix that makes them and is not zero."""
    kept = torch.zeros(units.group.size, dtype=torch.bool)
    for member in units.group.members:
        weight = model.get_parameter(member.param)
        if member.param not in units.readers and weight.ndim > 1:
            rows = weight.detach().movedim(member.dim, 0).flatten(1)
            kept[member.index[(rows != 0).any(dim=1)]] = True
    return kept


def _prune_theirs(
    model: nn.Module, score: str, sparsity: float, train: Data, gradients: int
) -> None:
    importance = THEIRS[score]()
    batches = sampler(train, GRADIENT_BATCH)["data_loader_builder"]()
    drawn = [next(batches) for _ in range(gradients)]
    if score == "TP Hessian":
        for (pictures,), _, labels in drawn[: gradients // 4]:
            losses = cross_entropy(model(pictures), labels, reduction="none")
            for loss in losses:
                model.zero_grad()
                loss.backward(retain_graph=True)
                importance.accumulate_grad(model)
    elif score == "TP Taylor":
        for (pictures,), _, labels in drawn:
            (cross_entropy(model(pictures), labels) / gradients).backward()
    places = _places(model, train[0][:1])
    graph = torch_pruning.DependencyGraph().build_dependency(
        model, train[0][:1], forward_fn=call_model, verbose=False
    )
    keeps = {}
    for units in places:
        maker = model.get_submodule(units.group.members[0].param.rpartition(".")[0])
        prune = (
            torch_pruning.prune_linear_out_channels
            if isinstance(maker, nn.Linear)
            else torch_pruning.prune_conv_out_channels
        )
        group = graph.get_pruning_group(maker, prune, list(range(units.group.size)))
        scores = importance(group)
        lowest = scores.argsort()[: round(sparsity * units.group.size)]
        keeps[units] = torch.ones(units.group.size, dtype=torch.bool).index_fill(0, lowest, False)
    model.zero_grad()
    remove_units(model, keeps)


def _told(options: argparse.Namespace) -> dict[str, Any]:
    return {
        name: value for name, value in vars(options).items() if name not in ("models", "scores")
    }


def _with_known(results: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Add what earlier runs with the same options have found."""
    file = RESULTS / "structured_scores.json"
    before = json.loads(file.read_text()) if file.is_file() else {}
    if before.get("options") != _told(options):
        return results
    known = before["top1"]
    return {name: {**known.get(name, {}), **results.get(name, {})} for name in {**known, **results}}


def _as_good(found: dict[str, dict[str, float]]) -> bool:
    def best(names: Sequence[str], sparsity: str) -> float:
        return max((found[name][sparsity] for name in names if name in found), default=0.0)

    sparsities = {at for name, tops in found.items() if name != "dense" for at in tops}
    return all(best(OURS, at) >= best(list(THEIRS), at) for at in sparsities)


if __name__ == "__main__":
    main()
