"""How much work a second-order pruner takes, said in one word."""

from __future__ import annotations

import logging
from typing import Any

from sparseml.optim.declared_fields import Property
from sparseml.pytorch.sparsification.fields import one_of

_LOGGER = logging.getLogger(__name__)
_COMMON = {
    "fisher_samples": "auto",
    "gradients_of": "outputs",
    "damp": "auto",
    "layer_floor": 0.05,
    "recomputation_inter_func": "cubic",
}
PRESETS: dict[str, dict[str, Any]] = {
    "fast": {**_COMMON, "num_grads": 512, "fisher_block_size": 64, "num_recomputations": 1},
    "balanced": {**_COMMON, "num_grads": 1024, "fisher_block_size": 128, "num_recomputations": 3},
    "best": {**_COMMON, "num_grads": 2048, "fisher_block_size": 256, "num_recomputations": 6},
}
"""What a word stands for: values of those of these fields that a modifier has.

What they give and cost is measured by ``benchmarks/effort.py``; they were chosen before.
"""


def meant_by(effort: str | None, kind: type) -> dict[str, Any]:
    """Return the values that an effort stands for, of those fields that a modifier's class has."""
    values = PRESETS.get(effort or "", {})
    values = values | getattr(kind, "_efforts", {}).get(effort, {})
    return {name: value for name, value in values.items() if hasattr(kind, name)}


def as_effort(name: str, value: Any) -> str | None:
    """``value`` as one of :data:`PRESETS`; None, or the text ``none``, for none of them."""
    return None if value in (None, "none") else one_of(PRESETS)(name, value)


class _Effort(Property):
    """A field that sets others, as soon as it is set, and warns of what was said of them before."""

    def _keep(self, modifier: Any, value: Any) -> None:
        old: str | None = getattr(modifier, "_effort", None)
        super()._keep(modifier, value)
        kind = type(modifier)
        new, meant = meant_by(modifier._effort, kind), meant_by(old, kind)
        here = {name: getattr(modifier, name) for name in new}
        over = [
            f"{name}: {value}"
            for name, value in here.items()
            if value not in (new[name], meant.get(name), getattr(kind, name).default)
        ]
        if over:
            text = "%s: effort: %s takes the place of %s; leave out one or the other"
            _LOGGER.warning(text, kind.__name__, modifier._effort, ", ".join(over))
        set_effort(modifier, modifier._effort)


def effort_field() -> Any:
    """Return the field ``effort``; it must be declared after those that it sets."""
    return _Effort(as_effort, None, no_serialize_val=None)


def set_effort(modifier: Any, effort: str | None) -> bool:
    """Give a modifier the values that an effort stands for; whether it has any of them."""
    if not hasattr(type(modifier), "effort"):
        return False
    for name, value in meant_by(effort, type(modifier)).items():
        setattr(modifier, name, value)
    return True
