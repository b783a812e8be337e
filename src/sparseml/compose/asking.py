"""What configurations ask for: the parts of a model that each prunes, and how."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.optim.errors import RecipeError
from sparseml.pytorch.functional.composing.targets import kept_heads, require_density
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import MagnitudePruningModifier
from sparseml.pytorch.sparsification.pruning.masks.outcome import Change, Outcome
from sparseml.pytorch.sparsification.pruning.modifier_pruning_base import BasePruningModifier
from sparseml.pytorch.units import UnitGroup, attention_heads
from sparseml.pytorch.units.slim_attention import fused_heads
from sparseml.pytorch.utils.params import prunable_params
from sparseml.run.errors import RunError
from sparseml.sparsification.types import SparsificationTypes
from sparseml.utils.constants import RECIPE_METADATA_KEY
from sparseml.utils.plain import json_of
from sparseml.utils.text import did_you_mean

HEADS, UNSTRUCTURED = "heads", "unstructured"
_CHANGING = {
    SparsificationTypes.pruning,
    SparsificationTypes.structured,
    SparsificationTypes.quantization,
}


@dataclass(frozen=True)
class Configuration:
    """One of the models that are wanted.

    :param recipe: the text of a recipe, or None
    :param rates: without a recipe, module → density
    """

    name: str
    recipe: str | None = None
    rates: Mapping[str, float] | None = None


@dataclass
class Piece:
    """A module as a configuration prunes it.

    :param changes: full names of parameters → masks and new weights
    :param spec: ``method``, ``granularity``, ``criterion`` and ``target``
    """

    module: str
    changes: Outcome
    spec: dict[str, Any]


@dataclass
class Asked:
    """What a configuration asks for.

    :param pieces: in the model's order, none inside another
    :param residual: modules that are left to the fine-tuning
    """

    pieces: list[Piece] = field(default_factory=list)
    residual: list[str] = field(default_factory=list)


class Asking:
    """Finds out what configurations ask for of one model.

    :param model: the origin; it is not changed
    :param inputs: of the model, to find heads by; None where it says what it takes
    :param grad_sampler: where pruners that need gradients sample them from
    :param allow_residual: leave what cannot be a block to the fine-tuning
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Any = None,
        grad_sampler: Any = None,
        allow_residual: bool = False,
    ) -> None:
        self.model, self.inputs = model, inputs
        self.grad_sampler, self.allow_residual = grad_sampler, allow_residual
        self.order = {name: place for place, (name, _) in enumerate(model.named_modules())}
        self._heads: list[UnitGroup] | None = None

    def of(self, configuration: Configuration) -> Asked:
        """Return what a configuration asks for.

        :raises RunError: for what cannot be, naming module and configuration
        """
        asked = Asked()
        try:
            if configuration.recipe is None:
                found = list(self._by_rates(configuration.rates or {}))
            else:
                found = list(self._by_recipe(configuration.recipe, asked))
            asked.pieces = self._merged(found)
        except (ValueError, TypeError, RuntimeError) as error:
            if isinstance(error, RecipeError):
                raise
            raise RunError(f"configuration {configuration.name}: {error}") from error
        asked.pieces = [one for one in asked.pieces if self._is_own(one, asked)]
        return asked

    def _by_recipe(self, recipe: str, asked: Asked) -> Iterator[Piece]:
        manager = ScheduledModifierManager.from_yaml(recipe)
        for modifier in manager.iter_modifiers():
            if not is_pruner(modifier):
                continue
            name = type(modifier).__name__
            if not isinstance(modifier, BasePruningModifier) or not modifier.composable:
                reason = f"{name} is not composable: {modifier.order_dependence}"
                if not self.allow_residual:
                    hint = "--allow-residual leaves what it prunes to the fine-tuning"
                    raise ValueError(f"{reason}; {hint}")
                asked.residual += [one.layer_name for one in modifier.selects(self.model)]
                continue
            outcome = modifier.outcome(self.model, grad_sampler=self.grad_sampler)
            kind = str(getattr(modifier, "mask_type", UNSTRUCTURED))
            told = {
                "method": name,
                "granularity": kind,
                "criterion": type(modifier._get_method()).__name__,
            }
            yield from (
                self._heads_in(outcome, told) if kind == HEADS else self._split(outcome, told)
            )

    def _by_rates(self, rates: Mapping[str, Any]) -> Iterator[Piece]:
        linear: dict[float, list[str]] = defaultdict(list)
        weights = {one.layer_name: one.name for one in prunable_params(self.model)}
        for name, value in rates.items():
            density = require_density(value, name)
            if name not in self.order:
                hint = did_you_mean(name, [known for known in self.order if known])
                raise ValueError(f"the model has no module {name!r}{hint}")
            if density == 1.0:
                continue
            if name in weights:
                linear[density].append(weights[name])
            else:
                yield self._pruned_heads(self._heads_of(name), density)
        for density, names in linear.items():
            sparsity = 1.0 - density
            kind: Any = MagnitudePruningModifier
            modifier = kind(sparsity, sparsity, 0.0, 1.0, 1.0, names)
            told = {"method": "l1", "granularity": UNSTRUCTURED, "criterion": "Magnitude"}
            yield from self._split(modifier.outcome(self.model), told)

    def _split(self, outcome: Outcome, told: Mapping[str, str]) -> Iterator[Piece]:
        """Yield a piece for every module; of attention the whole, as its parts are not called."""
        parts: dict[str, Outcome] = defaultdict(Outcome)
        for name, change in outcome.items():
            owner = name.rpartition(".")[0]
            above = owner.rpartition(".")[0]
            if isinstance(self.model.get_submodule(above), nn.MultiheadAttention):
                owner = above
            parts[owner][name] = change
        for owner, changes in parts.items():
            kept = {name: int(mask.sum()) for name, (mask, _) in changes.items()}
            yield Piece(owner, changes, {**told, "target": kept})

    def _heads_in(self, outcome: Outcome, told: Mapping[str, str]) -> Iterator[Piece]:
        for group in self._all_heads():
            if all(name in outcome for name in group.masked):
                first = next(one for one in group.members if not one.follows)
                mask = outcome[first.param].mask.movedim(first.dim, 0).flatten(1).any(1)
                keep = torch.zeros(group.size, dtype=torch.bool)
                keep[first.index[mask.cpu()]] = True
                yield self._masked_heads(group, keep, told)

    def _pruned_heads(self, group: UnitGroup, density: float) -> Piece:
        """Prune the heads whose queries, keys and values have the lowest sum of absolute values."""
        params = dict(self.model.named_parameters(remove_duplicate=False))
        scores = torch.zeros(group.size, dtype=torch.float64)
        for member in [one for one in group.members if not one.follows][:-1]:
            weight = params[member.param].detach().cpu().double()
            rows = weight.movedim(member.dim, 0).flatten(1).abs().sum(1)
            known = member.index >= 0
            scores.index_add_(0, member.index[known], rows[known])
        keep = kept_heads(scores, density, group.name)
        told = {"method": "l1", "granularity": HEADS, "criterion": "L1 of queries, keys, values"}
        return self._masked_heads(group, keep, told)

    def _masked_heads(self, group: UnitGroup, keep: Tensor, told: Mapping[str, str]) -> Piece:
        changes = Outcome()
        params = dict(self.model.named_parameters(remove_duplicate=False))
        for member in group.members:
            param = params[member.param]
            kept = keep[member.index.clamp(min=0)] | (member.index < 0)
            shape = [-1 if dim == member.dim else 1 for dim in range(param.ndim)]
            changes[member.param] = Change(kept.reshape(shape).expand_as(param).contiguous())
        owners = [name.rpartition(".")[0] for name in changes]
        target = {"heads": int(keep.sum()), "of": group.size}
        return Piece(_common(owners), changes, {**told, "target": {group.name: target}})

    def _heads_of(self, name: str) -> UnitGroup:
        module = self.model.get_submodule(name)
        if isinstance(module, nn.MultiheadAttention):
            return fused_heads(name, module)
        what = f"{name} is a {type(module).__name__}, neither a linear layer nor attention"
        try:
            groups = self._all_heads()
        except ValueError as error:
            raise ValueError(f"{what} of torch; others are not found: {error}") from error
        owners = {_common([m.param.rpartition(".")[0] for m in g.members]): g for g in groups}
        if name not in owners:
            raise ValueError(f"{what}; attention is in {', '.join(owners)}")
        return owners[name]

    def _all_heads(self) -> list[UnitGroup]:
        if self._heads is None:
            self._heads = attention_heads(self.model, self.inputs)
        return self._heads

    def _merged(self, found: Sequence[Piece]) -> list[Piece]:
        """Return the pieces that prune something, one for a module and all that is inside it."""
        pieces: list[Piece] = []
        for one in sorted(found, key=lambda piece: self.order[piece.module]):
            if all(bool(m.all()) for m, _ in one.changes.values()) and not self._renewed(one):
                continue
            outer = next((p for p in pieces if _is_inside(one.module, p.module)), None)
            if outer is None:
                pieces.append(one)
                continue
            if twice := [name for name in one.changes if name in outer.changes]:
                raise ValueError(f"{twice[0]} is pruned twice")
            outer.changes.update(one.changes)
            outer.spec = joined_specs([outer.spec, one.spec])
        return pieces

    def _renewed(self, piece: Piece) -> bool:
        return bool(renewed(self.model, piece.changes))

    def _is_own(self, piece: Piece, asked: Asked) -> bool:
        """Tell whether nobody else has the tensors of a piece; else it is residual, or an error."""
        inside = {id(p) for p in self.model.get_submodule(piece.module).parameters()}
        for name, param in self.model.named_parameters(remove_duplicate=False):
            if id(param) in inside and not _is_inside(name, piece.module):
                if self.allow_residual:
                    asked.residual.append(piece.module)
                    return False
                raise RunError(
                    f"{piece.module} cannot be a block: it shares its weight with {name}, which "
                    "tuning it would change as well; leave it out, or give --allow-residual"
                )
        return True


def is_pruner(modifier: Any) -> bool:
    """Return whether a modifier takes something out of a model, or changes how it is kept."""
    return bool(set(modifier.sparsification_types) & _CHANGING)


def renewed(model: nn.Module, changes: Outcome) -> dict[str, Tensor]:
    """Return the weights that a method gives anew, where they are not the old ones but masked."""
    found = {}
    for name, (mask, weight) in changes.items():
        if weight is not None and not torch.equal(weight, model.get_parameter(name) * mask):
            found[name] = weight
    return found


def joined_specs(specs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how modules are pruned that make up one block."""
    if len(specs) == 1:
        return dict(specs[0])
    target: dict[str, Any] = {}
    for spec in specs:
        target |= spec["target"]
    texts = ("method", "granularity", "criterion")
    return {t: "+".join(sorted({str(spec[t]) for spec in specs})) for t in texts} | {
        "target": target
    }


def read_recipes(files: Sequence[str]) -> list[Configuration]:
    """Return the configuration of each recipe, named by its ``__metadata__``, or by its file.

    :raises RunError: for two of one name
    """
    found = []
    for file in files:
        metadata = (ScheduledModifierManager.from_yaml(file).metadata or {}).get(
            RECIPE_METADATA_KEY
        )
        name = metadata.get("name") if isinstance(metadata, Mapping) else None
        path = Path(file)
        text = path.read_text(encoding="utf-8") if path.exists() else file
        found.append(Configuration(str(name or path.stem), text))
    names = [one.name for one in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise RunError(
            f"two recipes are called {twice[0]}: give one another name in its __metadata__"
        )
    return found


def read_legacy(path: str | os.PathLike[str]) -> list[Configuration]:
    """Return the configurations of a ``conf.json``: a list of objects, module → density."""
    try:
        content = json_of(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise RunError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, list) or not all(isinstance(one, dict) for one in content):
        raise RunError(f"{path} must be a list of objects, each module → density")
    stem = Path(path).stem
    return [Configuration(f"{stem}_{n}", rates=one) for n, one in enumerate(content)]


def legacy_plan(configurations: Sequence[Configuration]) -> dict[str, list[float]]:
    """Return module → its densities as they are seen first, 1 apart: a ``conf_prune.json``."""
    found: dict[str, list[float]] = {}
    for one in configurations:
        for name, density in (one.rates or {}).items():
            if density != 1 and density not in found.setdefault(name, []):
                found[name].append(density)
    return {name: densities for name, densities in found.items() if densities}


def _common(names: Sequence[str]) -> str:
    """Return the module that has all of some modules inside it, or is them."""
    parts = [name.split(".") for name in names]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared)


def _is_inside(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.") or module == ""
