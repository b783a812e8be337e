"""The recipe that flags mean, which is what the scripts of Intel have fixed in their code."""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass
from textwrap import indent
from typing import Any

from no_trainer.settings import PROGRESSIVE, PruningGroup
from sparseml.optim.language.yaml_text import dump
from sparseml.run import RunError

CAP = 0.98
UPDATES = 40
_PROGRESSIVE_STEPS = 4
_LOCKED = r"re:(?!.*(pooler|classifier|score|embed|[Nn]orm)).*\.weight$"
_PRUNED = r"re:(?!.*(pooler|classifier)){}.*\.weight$"
_PATTERN = r"[1-9]\d*x[1-9]\d*|[1-9]\d*xchannel|channelx[1-9]\d*"


@dataclass(frozen=True)
class Steps:
    """When pruning happens, in optimizer steps: fields of the modifier.

    :param update_steps: from one update to the next
    """

    start_step: int
    end_step: int
    update_steps: int


def pruning_steps(
    flags: PruningGroup, examples: int, batch: int, epochs: int, most: int | None = None
) -> Steps:
    """Return when to prune.

    As in Intel's scripts an epoch is a fractional number of steps here. Unlike there pruning ends
    with the last step of the run, not behind it.

    :param batch: examples of an optimizer step, over all processes
    :param most: steps of the run, if it ends before its epochs do
    :raises RunError: if warm-up and cool-down leave nothing
    """
    per_epoch = examples / batch
    start = int(flags.sparsity_warm_epochs * per_epoch)
    end = int(per_epoch * (epochs - flags.cooldown_epochs))
    end = min(end, (most or epochs * math.ceil(per_epoch)) - 1)
    if end < max(start, 1):
        raise RunError(
            f"--sparsity-warm-epochs {flags.sparsity_warm_epochs:g} and --cooldown-epochs "
            f"{flags.cooldown_epochs:g} leave nothing of {epochs} epochs to prune in"
        )
    if flags.pruning_frequency == 0:
        raise RunError("--pruning-frequency must be at least 1, or -1 for 40 updates, found 0")
    every = flags.pruning_frequency
    return Steps(start, end, every if every > 0 else max(1, int((end - start + 1) / UPDATES)))


def recipe_of(flags: PruningGroup, epochs: int, steps: Steps, mixed: bool = False) -> str:
    """Return the text of a recipe, which leaves pooler and classifier dense.

    :param mixed: prune feed-forward layers weight by weight, query, key and value 4x1
    :raises RunError: for flags that do not fit together
    """
    modifiers: list[tuple[str, dict[str, Any]]] = [
        ("EpochRangeModifier", {"start_epoch": 0.0, "end_epoch": float(epochs)})
    ]
    if flags.do_prune and mixed:
        pruners = [
            {
                "params": [_PRUNED.format(".*(output|intermediate)")],
                "mask_type": "unstructured",
                "global_sparsity": False,
            },
            {
                "params": [_PRUNED.format(".*(query|key|value)")],
                "mask_type": "4x1",
                "global_sparsity": True,
                "max_sparsity_per_param": max(CAP, flags.target_sparsity),
                "min_sparsity_per_param": min(0.5, flags.target_sparsity),
            },
        ]
        modifiers += [_pruner(flags, steps, 1.0, pruner) for pruner in pruners]
    elif flags.do_prune:
        mask_type, full = _mask_type(flags.pruning_pattern)
        pruner = {"params": [_PRUNED.format("")], "mask_type": mask_type, "global_sparsity": True}
        if "x" in mask_type or mask_type == "unstructured":
            pruner["max_sparsity_per_param"] = max(CAP, flags.target_sparsity)
        modifiers.append(_pruner(flags, steps, full, pruner))
    if flags.distill_loss_weight > 0:
        fields = {"weight": flags.distill_loss_weight, "layer": -1}
        fields |= {"replace_task_loss": True, "mask_padding": True}
        modifiers.append(("HiddenStateDistillationModifier", fields))
    return "modifiers:\n" + "".join(
        f"  - !{name}\n{indent(dump(fields), '      ')}" for name, fields in modifiers
    )


def _pruner(
    flags: PruningGroup, steps: Steps, full: float, own: dict[str, Any]
) -> tuple[str, dict[str, Any]]:
    if flags.pruning_type == "pattern_lock":  # which masks what is zero already
        fields = {"params": [_LOCKED], "mask_type": own["mask_type"]}
        return "PatternLockModifier", {**fields, "start_step": steps.start_step}
    if not flags.target_sparsity <= (full if full < 1.0 else 0.9999):
        limit = f"at most {full:g} with {flags.pruning_pattern}" if full < 1.0 else "below 1"
        raise RunError(f"--target-sparsity must be {limit}, found {flags.target_sparsity}")
    common = {
        **own,
        "layer_types": ["Linear"],
        "spare_head": True,
        "init_sparsity": 0.0,
        "final_sparsity": flags.target_sparsity,
        **asdict(steps),
        "inter_func": "exp",
        "score_type": flags.pruning_type.removesuffix("_progressive"),
        "skip_indivisible": True,
    }
    if flags.pruning_type in PROGRESSIVE:
        common["progressive_steps"] = _PROGRESSIVE_STEPS
    return "SnipMomentumPruningModifier", common


def _mask_type(pattern: str) -> tuple[str, float]:
    """Return a recipe's word for a pattern, and the sparsity that it can reach."""
    if found := re.fullmatch(r"(\d+):(\d+)", pattern):
        gone, group = map(int, found.groups())
        if 0 < gone < group:
            return f"{group - gone}:{group}", gone / group
    elif pattern == "mha":
        return "heads", 1.0
    elif re.fullmatch(_PATTERN, pattern):
        return "unstructured" if pattern == "1x1" else pattern, 1.0
    raise RunError(
        "--pruning-pattern must be NxM, 1xchannel, channelx1, mha, or N:M, to prune N of each M "
        f"and fewer than all, found {pattern!r}"
    )
