"""The attention heads of a model, for those who prune them."""

from __future__ import annotations

from typing import Any

from torch import nn

from sparseml.pytorch.units.group import UnitGroup
from sparseml.pytorch.units.hidden import hidden_units


def attention_heads(model: nn.Module, example_inputs: Any = None) -> list[UnitGroup]:
    """Return the heads of every attention in ``model``, one group for each.

    The members that do not follow are the weights that are zero in a pruned head: query, key and
    value along their outputs, or the layer in which they are fused, and the output projection
    along its inputs. With grouped queries a unit is a head of keys, with all of its queries.
    Attention whose heads may be zeroed but not removed (their number is written elsewhere too) is
    among them.

    :param example_inputs: a tensor, a tuple of positional or a dict of keyword arguments; None
        where the model says what it takes, as those of transformers and timm
    :raises ValueError: for a model without attention heads, or that does not say what it takes
    """
    found = hidden_units(model, example_inputs, check=False).found
    heads = [units.group for units in found if units.kind == "heads"]
    if not heads:
        raise ValueError(
            f"no attention heads were found in a {type(model).__name__}; known is attention of "
            "two heads or more between linear layers, and nn.MultiheadAttention"
        )
    return heads
