"""Recipes made of the step files of the GaP reference, one for a whole folder of them.

A step file lists the tensors that are pruned when its step starts (``prune_ratios``) and those that
stay sparse in it (``masked_layers``); what is listed nowhere among these is grown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import indent
from typing import Any, NamedTuple

import yaml

from sparseml.optim.language.yaml_text import RecipeLoader, dump
from sparseml.run.errors import RunError, few
from sparseml.utils.text import did_you_mean

_HEAD = """\
# Converted from {folder}, {count} step files.
num_steps: {steps}
epochs_per_step: 5.0
finetune_epochs: 40.0

training_modifiers:
  - !EpochRangeModifier
      start_epoch: 0.0
      end_epoch: eval(num_steps * epochs_per_step + finetune_epochs)

pruning_modifiers:
  - !GaPPruningModifier
      num_steps: eval(num_steps)
      update_frequency: eval(epochs_per_step)
"""
_KEYS = {"prune_ratios", "masked_layers"}
_WITHOUT_MEANING = {"rho", "random_gap"}  # the reference reads them, and does nothing with them
_NUMBER = re.compile(r"(\d+)")
_PROJECTION = re.compile(r"\.in_proj_weight_([qkv])$")


class StepFile(NamedTuple):
    """What a step file says, in today's names."""

    name: str
    ratios: dict[str, float]
    masked: set[str] | None
    hints: dict[str, float]


def gap_recipe(folder: str) -> str:
    """Return the recipe that does what a folder of step files does.

    Names of the reference become those of today's fairseq. Groups that were drawn by lot are drawn
    anew, by the seed.

    :raises RunError: naming the file, for one that cannot be read, and for steps that do not follow
        upon each other
    """
    files = [_read(path) for path in _files(Path(folder))]
    ratios = _ratios(files)
    steps = [one for one in files if one.masked is not None]
    prunable = list(dict.fromkeys([*ratios, *(name for one in steps for name in one.masked or ())]))
    groups = [frozenset(prunable) - (one.masked or set()) for one in steps]
    _require_sequence(steps, groups, folder)
    values = {ratios.get(name) for name in prunable}
    if None in values:
        raise RunError(
            f"{folder}: no file says how sparse {few(sorted(set(prunable) - set(ratios)))} is"
        )
    fields: dict[str, Any] = {"params": prunable}
    fields["final_sparsity"] = ratios[prunable[0]] if len(values) == 1 else {
        ratio: [name for name in prunable if ratios[name] == ratio] for ratio in sorted(values)  # type: ignore[type-var]
    }  # fmt: skip
    distinct = list(dict.fromkeys(groups))
    partitions = [[name for name in prunable if name in group] for group in distinct]
    if sum(map(len, distinct)) == len(frozenset().union(*distinct)) == len(prunable):
        fields["partitions"] = partitions
        count = len(distinct)
    elif len({len(group) for group in distinct}) == 1:
        fields |= {"partition_type": "random", "num_partitions": len(prunable) // len(distinct[0])}
        count = len(groups)
    else:
        raise RunError(f"{folder}: the groups that grow are neither partitions nor of one size")
    if groups[0] <= set(steps[0].ratios):  # such as the set of 0.95, which prunes all in every step
        fields["prune_grown_at_start"] = True
    head = _HEAD.format(folder=folder, count=len(files), steps=count)
    return head + indent(dump(fields), " " * 6)


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise RunError(f"{folder}: no such folder")
    found = [*folder.glob("*.yaml"), *folder.glob("*.yml")]
    steps = [path for path in found if path.name.startswith("step_")]
    chosen = steps or [path for path in found if not path.name.startswith("all")]
    if not chosen:
        raise RunError(f"{folder} holds no step files (step_0.yaml, step_1.yaml, ...)")
    return sorted(chosen, key=lambda path: [
        int(part) if part.isdigit() else part for part in _NUMBER.split(path.stem)
    ])  # fmt: skip


def _read(path: Path) -> StepFile:
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), RecipeLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, Mapping) or not isinstance(content.get("prune_ratios"), Mapping):
        raise RunError(f"{path} has no prune_ratios, a mapping of names to sparsities")
    for key in content:
        if key not in _KEYS | _WITHOUT_MEANING:
            raise RunError(f"{path}: {key} cannot be converted{did_you_mean(str(key), _KEYS)}")
    ratios = {}
    for name, ratio in content["prune_ratios"].items():
        if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0 <= ratio < 1:
            raise RunError(f"{path}: {name} must be a sparsity in [0, 1), found {ratio!r}")
        ratios[_today(str(name))] = float(ratio)
    masked = content.get("masked_layers")
    hints = masked if isinstance(masked, Mapping) else {}
    names = masked.split() if isinstance(masked, str) else masked
    return StepFile(
        path.name,
        {name: ratio for name, ratio in ratios.items() if ratio},
        None if names is None else {_today(str(name)) for name in names},
        {_today(str(name)): v for name, v in hints.items() if isinstance(v, float) and 0 < v < 1},
    )


def _ratios(files: Sequence[StepFile]) -> dict[str, float]:
    found: dict[str, float] = {}
    for one in files:
        for name, ratio in one.ratios.items():
            if found.setdefault(name, ratio) != ratio:
                raise RunError(f"{one.name}: {name} is pruned to {ratio}, before to {found[name]}")
    # where the first step prunes nothing, only the values of masked_layers tell
    return {**{name: v for one in files for name, v in one.hints.items()}, **found}


def _require_sequence(
    steps: Sequence[StepFile], groups: Sequence[frozenset[str]], folder: str
) -> None:
    if not steps:
        raise RunError(f"{folder}: no file has masked_layers, so nothing tells what grows")
    for one, group in zip(steps, groups, strict=True):
        if not group:
            raise RunError(f"{one.name} grows nothing: masked_layers names all that is pruned")
    for (before, now), one in zip(pairwise(groups), steps[1:], strict=True):
        if left := sorted(before - set(one.ratios)) if one.ratios else []:
            raise RunError(f"{one.name} does not prune {few(left)}, which has grown before")
        if both := sorted(before & now):
            raise RunError(f"{one.name} grows {few(both)} once more, as the step before")


def _today(name: str) -> str:
    """Return the name that a tensor of the reference has in today's fairseq."""
    return _PROJECTION.sub(r".\1_proj.weight", name.replace("module.", ""))
