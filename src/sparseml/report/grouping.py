"""What runs have in common, and what each is called, where several are shown side by side."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sparseml.optim.errors import RecipeError
from sparseml.optim.helpers import load_recipe_yaml_str_no_classes
from sparseml.report.reading import Run
from sparseml.report.zeros import pruned_sparsity

_TAG = "OBJECT."
_SUFFIX = "PruningModifier"
# those that are not called as the class is
_NAMES = {"CA": "CAP", "FastCA": "FastCAP", "GM": "magnitude"}
_FEW_UPDATES = 2
_ONE_SHOT = "one shot"


def arranged(runs: Sequence[Run]) -> list[Run]:
    """Return runs in an order of their own, by group and sparsity, each with a label of its own.

    Groups come by the age of their oldest run, whatever order the runs are given in.
    """
    aged = sorted(runs, key=lambda run: (run.info.created or "", str(run.path)))
    groups = [group_of(run, runs) for run in aged]
    order = {group: number for number, group in reversed(list(enumerate(groups)))}
    found = sorted(
        zip(aged, groups, strict=True),
        key=lambda pair: (order[pair[1]], pruned_sparsity(pair[0].result.layers) or 0.0),
    )
    for run, group in found:
        run.group = group
    _label([run for run, _ in found])
    return [run for run, _ in found]


def _label(runs: Sequence[Run]) -> None:
    """Tell runs of one name apart by the parts of their paths that differ."""
    count = Counter(run.info.name for run in runs)
    alike = [run for run in runs if count[run.info.name] > 1]
    above = len(Path(os.path.commonpath([run.path for run in alike])).parts) if alike else 0
    for run in alike:
        tails = [other.path.parts[above:] for other in alike if other.info.name == run.info.name]
        shared = 0
        while len({tail[-1 - shared :][:1] for tail in tails}) == 1:
            shared += 1
        where = "/".join(run.path.parts[above : len(run.path.parts) - shared])
        run.label = f"{run.info.name} ({where})"


def group_of(run: Run, runs: Sequence[Run] = ()) -> str:
    """Return the group that a run says it belongs to or, if it does not, its method and way.

    :param runs: all that are shown; if they prune different models, the model is named too
    """
    given = run.info.group
    # what earlier versions wrote in place of a group
    recipe = Path(str(run.config.get("sparseml_recipe", ""))).stem
    if given and not (recipe and given.endswith(recipe)):
        return given
    several = len({_model(other) for other in runs}) > 1
    dense = run.variant("dense")
    told = [
        _model(run) if several else "",
        method_of(run) or run.info.name,
        way_of(run),
        "from untrained weights" if dense and dense.trained is False else "",
        _norms_of(run, runs),
    ]
    return ", ".join(filter(None, told))


def _norms_of(run: Run, runs: Sequence[Run]) -> str:
    """Return how often batch norms were measured anew, if that is not the default.

    Runs in one shot measure them by themselves. That they were told not to is said beside others
    that did.
    """
    batches = run.config.get("bn_retune")
    if batches:
        return f"--bn-retune {batches}"
    said = batches == 0 and way_of(run) == _ONE_SHOT and any(map(_measures_norms, runs))
    return "--bn-retune 0" if said else ""


def _measures_norms(run: Run) -> bool:
    # runs of versions that did not have the setting do not have the key
    return run.config.get("bn_retune", 0) is None and way_of(run) == _ONE_SHOT


def _model(run: Run) -> str:
    """Return the model's name; of ``module.path:callable`` the callable's."""
    return str(run.config.get("model") or "").rpartition(":")[2]


def method_of(run: Run) -> str | None:
    """Return how a run chooses what goes, by the modifiers of its resolved recipe.

    :return: None if nothing in it prunes, or if it cannot be read
    """
    try:
        recipe = load_recipe_yaml_str_no_classes(run.recipe or "")
    except RecipeError:
        return None
    found = list(_modifiers(recipe))
    named = [_method(name, fields) for name, fields in found if name.endswith(_SUFFIX)]
    if named and any("Distillation" in name for name, _ in found):
        named.append("distillation")
    return " + ".join(dict.fromkeys(named)) or None


def _modifiers(content: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield names and fields of all modifiers in nested dicts and lists."""
    if isinstance(content, list):
        for item in content:
            yield from _modifiers(item)
    elif isinstance(content, dict):
        for key, value in content.items():
            if str(key).startswith(_TAG):
                yield str(key).removeprefix(_TAG), value if isinstance(value, dict) else content
            else:
                yield from _modifiers(value)


def _method(name: str, fields: dict[str, Any]) -> str:
    """Return ``global magnitude 2:4`` and the like."""
    bare = name.removesuffix(_SUFFIX)
    together = bare.removeprefix("Global")
    words = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", together)
    said = _NAMES.get(together, words if re.search("[A-Z]{2}", words) else words.lower())
    scope = "global " if bare != together or fields.get("global_sparsity") is True else ""
    mask = fields.get("mask_type", "unstructured")
    return f"{scope}{said}" if mask == "unstructured" else f"{scope}{said} {mask}"


def way_of(run: Run) -> str:
    """Return what a run did beside pruning: ``one shot``, ``gradual``, ``fine-tuned``, ...

    A run is gradual if it was to ask for rising sparsities while it trained; if for one, once and
    perhaps again at the end, it was fine-tuned. All else is ``while training``.
    """
    plans = run.schedule.modifiers if run.schedule else []
    if run.metrics.last_step is None and not plans:
        return _ONE_SHOT
    levels = [[update.highest for update in plan.updates] for plan in plans]
    if any(level != sorted(level) for level in levels):
        return "while training"
    if any(len(set(level)) > 1 for level in levels):
        return "gradual"
    if not levels:
        return "trained"
    return "while training" if max(map(len, levels), default=0) > _FEW_UPDATES else "fine-tuned"
