"""Index maps: for every slice of a parameter along one dimension, the unit that it belongs to.

An index map is an int64 tensor with one entry per slice; -1 stands for a slice of no unit. The
four functions here make maps from a number of units, or from another map:

=============================================  ==================================================
what a dimension holds                         its index map
=============================================  ==================================================
each slice is a unit (neurons, channels)       ``identity(size)``
heads in q, k, v, or in the columns of o       ``repeats(heads, head_size)``
the same rows of every head                    ``tiles(head_size, heads)``
the heads in a fused qkv                       ``tiles(repeats(heads, head_size), 3)``
a fused qkv that goes head by head             ``repeats(heads, 3 * head_size)``
key heads in q, of grouped-query attention     ``repeats(key_heads, queries_per_key * head_size)``
rotary pairs ``(i, i + head_size / 2)``        ``tiles(tiles(head_size // 2, 2), heads)``
rotary pairs ``(2 i, 2 i + 1)``                ``tiles(repeats(head_size // 2, 2), heads)``
gate and value of a fused GLU                  ``tiles(neurons, 2)``
channels that were flattened into a Linear     ``repeats(channels, height * width)``
one of several inputs that are concatenated    ``offset(channels, start, inputs)``
learned positions that begin at row 2          ``offset(positions, 2, positions + 2)``
whole groups of a convolution                  ``repeats(groups, channels // groups)``
the same channels in each of its groups        ``tiles(channels // groups, groups)``
=============================================  ==================================================
"""

from __future__ import annotations

import torch
from torch import Tensor


def identity(size: int) -> Tensor:
    """Return the map of slices that each are a unit of their own, int64 ``[size]``.

    :raises ValueError: for a size below 1
    """
    _require("size", size, 1)
    return torch.arange(size)


def repeats(units: int | Tensor, times: int) -> Tensor:
    """Return the map in which every unit is ``times`` neighbouring slices: ``0 0 1 1 2 2``.

    :param units: how many there are, or a map whose slices are repeated
    :raises ValueError: for numbers below 1
    """
    _require("times", times, 1)
    return _as_map(units).repeat_interleave(times)


def tiles(units: int | Tensor, times: int) -> Tensor:
    """Return the map that goes through all units ``times`` times: ``0 1 2 0 1 2``.

    :param units: how many there are, or a map that is repeated as a whole
    :raises ValueError: for numbers below 1
    """
    _require("times", times, 1)
    return _as_map(units).repeat(times)


def offset(units: int | Tensor, start: int, size: int) -> Tensor:
    """Return the map of ``size`` slices of which the units' begin at ``start``: ``-1 -1 0 1 2 -1``.

    :param units: how many there are, or their own map
    :raises ValueError: when they do not fit in there
    """
    own = _as_map(units)
    if not 0 <= start <= size - len(own):
        raise ValueError(f"{len(own)} slices do not fit into {size} from number {start} on")
    placed = torch.full((size,), -1)
    placed[start : start + len(own)] = own
    return placed


def _as_map(units: int | Tensor) -> Tensor:
    return units if isinstance(units, Tensor) else identity(units)


def _require(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, found {value}")
