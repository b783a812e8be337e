"""Shrunk models that need nothing of this package: built by a configuration of their own widths."""

from __future__ import annotations

import copy
import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.pytorch.units.attributes import sizes_of
from sparseml.pytorch.units.gated import gated_units
from sparseml.pytorch.units.gated.removal import scale_queries, scales_of
from sparseml.pytorch.units.probing import call_model, sample_inputs
from sparseml.pytorch.utils.names import unwrap_module

_MOST_TRIED = 500
_TOLERANCE = 1e-4

Shapes = dict[str, tuple[int, ...]]


@torch.no_grad()
def plain_model(model: nn.Module, example_inputs: Any = None) -> nn.Module:
    """Return a shrunk model of transformers anew, built by a configuration of its widths.

    ``save_pretrained`` writes it, and a plain ``from_pretrained`` reads it, without this package.
    Widths must be the same in all layers (``ffn_ranking: per_layer``), and such as a configuration
    can express. Where the scale of attention follows the width of a head, queries make up for it.

    :param model: with the ``config`` that it had before it was shrunk; it stays as it is
    :param example_inputs: a tensor, a tuple of positional or a dict of keyword arguments; None
        where the model says what it takes
    :return: in eval mode, with the same outputs
    :raises ValueError: if no configuration gives these widths, or one does but what follows from
        it (scales, positions) changes the outputs
    """
    model = unwrap_module(model, root=True)
    if not hasattr(model, "config"):
        raise ValueError(f"a {type(model).__name__} has no config: it is no model of transformers")
    plain: nn.Module = type(model)(_fitting(model)).to(next(model.parameters()).dtype)
    state = model.state_dict()
    plain.load_state_dict({name: state[name] for name in plain.state_dict()})
    inputs = sample_inputs(model) if example_inputs is None else example_inputs
    before, after = scales_of(model), scales_of(plain)
    for units in gated_units(plain, inputs, check=False).of("qk"):
        for name in before.keys() & after.keys():
            if units.layers[0].startswith(f"{name}."):
                scale_queries(plain, units, before[name] / after[name])
    read = _read_back(plain)
    made_anew = dict(plain.named_parameters()) | dict(model.named_buffers())
    found = dict(read.named_parameters()) | dict(read.named_buffers())
    wrong = [n for n, one in made_anew.items() if n in found and not _are_same(one, found[n])]
    off = _difference(model, read, inputs)
    if wrong or off > _TOLERANCE:
        what = f"{wrong[0]} (positions)" if wrong else "a scale"
        raise ValueError(
            f"a {type(model).__name__} of these widths has other outputs, by up to {off:.1e} of "
            f"the largest: {what} follows the widths of its configuration; save it with save_shrunk"
        )
    return read


def _are_same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other.to(one))


def _read_back(plain: Any) -> nn.Module:
    """The model as others get it: some of its tensors are not saved but made anew."""
    own = next(plain.parameters())
    with TemporaryDirectory() as folder:
        plain.save_pretrained(folder)
        read: Any = type(plain).from_pretrained(folder, dtype=own.dtype)
        return read.to(own.device).eval()


def _difference(model: nn.Module, plain: nn.Module, inputs: Any) -> float:
    """By how much the first outputs differ, as a share of the largest."""
    modes = [(module, module.training) for module in model.modules()]
    old = call_model(model.eval(), inputs)[0].detach().double()
    for module, training in modes:
        module.training = training
    new = call_model(plain, inputs)[0].detach().double()
    return float((old - new).abs().max() / old.abs().max().clamp_min(1e-30))


def _fitting(model: Any) -> Any:
    """The configuration whose model has the shapes of ``model``."""
    wanted = _shapes(model)
    best: tuple[int, str] = (len(wanted) + 1, "")
    for config in _configurations(model, wanted):
        try:
            found = _built(type(model), config)
        except Exception:  # whatever a model says to widths that do not go together
            continue
        wrong = [name for name in wanted if found.get(name, ()) != wanted[name]]
        if not wrong:
            return config
        first = wrong[0]
        told = f"{first} is {list(wanted[first])}, the nearest gives {list(found.get(first, ()))}"
        best = min(best, (len(wrong), told))
    raise ValueError(
        f"no configuration of a {type(model).__name__} has these widths: {best[1]}. All layers "
        "must be of one width (ffn_ranking: per_layer), and one that a configuration can express; "
        "otherwise save it with save_shrunk"
    )


def _configurations(model: Any, wanted: Shapes) -> Iterator[Any]:
    """Every setting that names a width which is another now, with every width that it may be."""
    candidates: dict[int, set[int]] = defaultdict(set)
    for name, shape in _built(type(model), model.config).items():
        for old, new in zip(shape, wanted.get(name, ()), strict=False):
            candidates[old].add(new)
    attributes: dict[str, set[int]] = defaultdict(set)
    for module in model.modules():
        for name, value in sizes_of(module).items():
            attributes[name].add(value)
    given = model.config.to_dict()
    changing: dict[str, list[int]] = {}
    for name, value in given.items():
        found = set(attributes[name])
        if type(value) is int and value > 1:
            found.add(value)
            for old, after in candidates.items():
                times = old // value if old % value == 0 else 0  # such as a width for each head
                found |= {new // times for new in after if times and new % times == 0}
        if len(found) > 1 or (found and value is None):
            changing[name] = sorted(found)
    if given.get("n_inner", 0) is None:  # GPT-2: four times the width of the stream
        changing["n_inner"] = sorted(candidates[4 * given["n_embd"]])
    if math.prod(len(values) for values in changing.values()) > _MOST_TRIED:
        changing = {name: sorted({values[0], values[-1]}) for name, values in changing.items()}
    # the fewest changes first: shapes do not tell numbers of heads, which stay
    by_changes = sorted(
        itertools.product(*changing.values()),
        key=lambda values: sum(
            given[name] != one for name, one in zip(changing, values, strict=True)
        ),
    )
    for values in by_changes:
        config = copy.deepcopy(model.config)
        for name, value in zip(changing, values, strict=True):
            setattr(config, name, value)
        yield config


def _built(kind: type, config: Any) -> Shapes:
    with torch.device("meta"):
        return _shapes(kind(copy.deepcopy(config)))


def _shapes(model: nn.Module) -> Shapes:
    tensors: Mapping[str, Tensor] = dict(model.named_parameters())
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
