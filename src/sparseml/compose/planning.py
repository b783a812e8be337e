"""Plans: the distinct blocks of all configurations, and what tuning them once costs and saves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from sparseml.compose.asking import Asked, Asking, Configuration, Piece, joined_specs, renewed
from sparseml.pytorch.functional.composing.costs import Costs
from sparseml.pytorch.functional.composing.sequitur import cover, shared_blocks
from sparseml.pytorch.functional.composing.targets import canonical_json, hash_of, tensors_hash
from sparseml.pytorch.sparsification.composing.blocks import (
    Block,
    Plan,
    block_id,
    block_tensors,
    model_hashes,
)
from sparseml.pytorch.sparsification.composing.store import mask_id
from sparseml.pytorch.sparsification.pruning.masks.outcome import Outcome
from sparseml.pytorch.utils.params import distinct_params

Kind = Literal["module", "layer", "hierarchical"]
KINDS: tuple[Kind, ...] = ("module", "layer", "hierarchical")


@dataclass(frozen=True)
class Pruned:
    """A block with what it takes to make it.

    :param changes: full names of parameters → masks and new weights
    """

    block: Block
    changes: Outcome

    def tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """Return all tensors of the block as they are pruned."""
        found = {n: v.clone() for n, v in block_tensors(model, self.block.modules).items()}
        for name, (mask, weight) in self.changes.items():
            found[name] = found[name] * mask if weight is None else weight.clone()
        return found

    def masks(self) -> dict[str, Tensor]:
        """Return the masks (bool), by full names."""
        return {name: mask for name, (mask, _) in self.changes.items()}


def make_plan(
    model: nn.Module,
    configurations: Sequence[Configuration],
    asking: Asking,
    kind: Kind = "module",
    base: Mapping[str, Any] | None = None,
) -> tuple[Plan, list[Pruned]]:
    """Return the plan of some configurations, and its blocks as they are pruned.

    The blocks, their ids and their order do not depend on the order of the configurations.

    :param kind: ``module``, a block for each; ``layer``, one for each layer of a stack;
        ``hierarchical``, one for each run of layers that configurations share
    :param base: ``model`` and ``weights``, where the origin is from
    :raises RunError: for what a configuration cannot ask for
    """
    asked = [asking.of(one) for one in configurations]
    symbols = _Symbols(model, asking.order)
    runs = [symbols.runs(one, kind) for one in asked]
    if kind == "hierarchical":
        runs = _covered(runs, symbols)
    requests = sum(len(one) for one in runs)
    distinct: dict[tuple[tuple[str, ...], str], list[tuple[dict[str, Any], Outcome]]] = {}
    uses: dict[tuple[tuple[str, ...], str], list[str]] = {}
    for configuration, found in zip(configurations, runs, strict=True):
        for modules, changes, spec in found:
            key = modules, symbols.mask_id(changes)
            distinct.setdefault(key, []).append((spec, changes))
            uses.setdefault(key, []).append(configuration.name)
    blocks = []
    for key, found_for in distinct.items():
        modules, masks = key
        spec, changes = min(found_for, key=lambda one: canonical_json(one[0]))
        origin = tensors_hash(block_tensors(model, modules))
        known = block_id(modules, origin, {**spec, "mask_id": masks})
        users = tuple(sorted(uses[key]))
        block = Block(known, modules, origin, spec, masks, symbols.cost(modules), users)
        blocks.append(Pruned(block, changes))
    blocks.sort(key=lambda one: _sorting(one.block, asking.order))
    ids = {(one.block.modules, one.block.mask_id): one.block.block_id for one in blocks}
    described = [
        _described(model, configuration, ask, [ids[m, symbols.mask_id(c)] for m, c, _ in found],
                   [changes for _, changes, _ in found])
        for configuration, ask, found in zip(configurations, asked, runs, strict=True)
    ]  # fmt: skip
    hashes = model_hashes(model)
    given = {"model": "", "weights": None, **(base or {})}
    reuse = {"requests": requests, "distinct": len(blocks)}
    reuse["factor"] = round(requests / len(blocks), 6) if blocks else 1.0  # type: ignore[assignment]
    plan = Plan(
        {**given, "digest": hash_of(hashes), "tensors": hashes},
        tuple(one.block for one in blocks),
        tuple(described),
        reuse,
        {"blocks": kind, "allow_residual": asking.allow_residual},
    )
    return plan, blocks


def costs_of(
    plan: Plan, model: nn.Module, epochs: float = 1.0, passes: Sequence[Sequence[Block]] = ()
) -> Costs:
    """Return what a plan costs, in multiply-adds of a token.

    :param epochs: of tuning blocks
    :param passes: the groups that they are tuned in, by default one of all
    """
    forward, before = 0.0, {"": 0.0}
    for name, module in model.named_modules():
        before[name] = forward
        forward += sum(_adds(module, param) for param in module.parameters(recurse=False))
    used = {name: before[name] + _whole(model.get_submodule(name)) for name in before}
    groups = passes or [plan.blocks]
    teacher = sum(max((used[b.modules[-1]] for b in group), default=0.0) for group in groups)
    by_id = {block.block_id: block.cost_estimate for block in plan.blocks}
    asked = sum(by_id[key] for one in plan.configurations for key in one["blocks"])
    return Costs(
        len(plan.configurations), forward, sum(by_id.values()), asked, len(groups), teacher, epochs
    )


def told_costs(
    plan: Plan,
    costs: Costs,
    direct: float | None = None,
    composed: float | None = None,
) -> list[str]:
    """Return the estimate in words.

    :param direct: epochs of fine-tuning without tuned blocks
    :param composed: epochs with them, to the same quality
    """
    stage = costs.block_stage / costs.epoch
    reuse, count = plan.reuse, costs.configurations
    lines = [
        f"{count} configurations ask for {reuse['requests']} blocks, {reuse['distinct']} of them "
        f"distinct: each is used {reuse['factor']:.2f} times",
        f"tuning them for {costs.block_epochs:g} epochs costs as much as {stage:.2f} epochs of "
        f"training one model; without sharing, {costs.unshared / costs.epoch:.2f}",
        f"it pays if each configuration saves more than {costs.epochs_to_save:.2f} epochs of "
        "fine-tuning",
    ]
    if direct is not None and composed is not None:
        even = costs.break_even(direct, composed)
        lines.append(
            f"with {direct:g} epochs without and {composed:g} with tuned blocks it pays from "
            f"{even:.2f} configurations on; for {count} it is "
            f"{costs.speed_up(direct, composed):.2f} times as fast"
        )
    return lines


Run = tuple[tuple[str, ...], Outcome, dict[str, Any]]


class _Symbols:
    """The parts of a model that configurations choose among."""

    def __init__(self, model: nn.Module, order: Mapping[str, int]) -> None:
        self.model, self.order = model, order
        self._ids: dict[int, tuple[Outcome, str]] = {}

    def runs(self, asked: Asked, kind: Kind) -> list[Run]:
        """Return the blocks of a configuration, each of a single module or layer."""
        if kind == "module":
            return [((one.module,), one.changes, one.spec) for one in asked.pieces]
        layers: dict[str, list[Piece]] = {}
        for piece in asked.pieces:
            layers.setdefault(self.layer(piece.module) or piece.module, []).append(piece)
        return [
            ((name,), _union(one.changes for one in pieces), joined_specs([p.spec for p in pieces]))
            for name, pieces in sorted(layers.items(), key=lambda one: self.order[one[0]])
        ]

    def layer(self, module: str) -> str:
        """Return the outermost layer of a stack that a module is in, or ""."""
        parts = module.split(".")
        for count in range(1, len(parts)):
            above, name = ".".join(parts[:count]), ".".join(parts[: count + 1])
            if isinstance(self.model.get_submodule(above), nn.ModuleList):
                return name
        return ""

    def mask_id(self, changes: Outcome) -> str:
        """Return the id of masks and new weights."""
        if id(changes) not in self._ids:
            masks = {name: mask for name, (mask, _) in changes.items()}
            self._ids[id(changes)] = changes, mask_id(masks, renewed(self.model, changes))
        return self._ids[id(changes)][1]

    def cost(self, modules: Iterable[str]) -> float:
        """Return the multiply-adds of a token in some modules."""
        return sum(_whole(self.model.get_submodule(name)) for name in modules)

    def follows(self, one: str, other: str) -> bool:
        """Tell whether a layer is the next of the same stack."""
        above, _, place = one.rpartition(".")
        return place.isdigit() and other == f"{above}.{int(place) + 1}" and bool(self.layer(other))


def _covered(runs: Sequence[Sequence[Run]], symbols: _Symbols) -> list[list[Run]]:
    """Join neighbouring layers to blocks wherever that costs no reuse."""
    sequences: list[list[tuple[str, str]]] = []
    places: list[list[list[Run]]] = []
    for found in runs:
        parts: list[list[Run]] = []
        for run in found:
            if parts and symbols.follows(parts[-1][-1][0][0], run[0][0]):
                parts[-1].append(run)
            else:
                parts.append([run])
        places.append(parts)
        sequences += [[(r[0][0], symbols.mask_id(r[1])) for r in part] for part in parts]
    blocks: Any = shared_blocks(sequences)
    covered: list[list[Run]] = []
    joined: dict[tuple[Any, ...], Run] = {}
    for parts in places:
        whole: list[Run] = []
        for part in parts:
            rest = iter(part)
            for block in cover([(r[0][0], symbols.mask_id(r[1])) for r in part], blocks):
                members = [next(rest) for _ in block]
                if block not in joined:
                    names = tuple(one[0][0] for one in members)
                    changes = _union(one[1] for one in members)
                    joined[block] = names, changes, joined_specs([one[2] for one in members])
                whole.append(joined[block])
        covered.append(whole)
    return covered


def _union(changes: Iterable[Outcome]) -> Outcome:
    found = Outcome()
    for one in changes:
        found.update(one)
    return found


def _described(
    model: nn.Module,
    configuration: Configuration,
    asked: Asked,
    blocks: Sequence[str],
    changes: Sequence[Outcome],
) -> dict[str, Any]:
    gone = {name: int((~mask).sum()) for one in changes for name, (mask, _) in one.items()}
    params = distinct_params(model)
    kept = sum(one.param.numel() - gone.get(one.name, 0) for one in params)
    adds = sum(_adds(one.layer, one.param) and _adds(one.layer, one.param) - gone.get(one.name, 0)
               for one in params)  # fmt: skip
    told: dict[str, Any] = {"name": configuration.name, "blocks": list(blocks)}
    told |= {"residual": sorted(set(asked.residual)), "kept_params": kept, "flops": 2.0 * adds}
    return told | {"recipe": configuration.recipe, "rates": configuration.rates}


def _adds(module: nn.Module, param: Tensor) -> float:
    """Return the multiply-adds that a parameter takes for a token; a table is looked up."""
    return 0.0 if param.ndim < 2 or isinstance(module, nn.Embedding) else float(param.numel())


def _whole(module: nn.Module) -> float:
    return sum(_adds(one, p) for one in module.modules() for p in one.parameters(recurse=False))


def _sorting(block: Block, order: Mapping[str, int]) -> Any:
    places = tuple(order[name] for name in block.modules)
    return places, canonical_json(block.spec["target"]), block.mask_id


def configurations_of(plan: Plan) -> list[Configuration]:
    """Return the configurations that a plan was made of."""
    return [Configuration(o["name"], o["recipe"], o["rates"]) for o in plan.configurations]
