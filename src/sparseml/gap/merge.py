"""Putting the models of parallel workers together: from each the partition that it has grown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from sparseml.gap.child import MODEL_KEYS, masked_names, read_checkpoint, read_weights
from sparseml.pytorch.utils.saving.files import write_safetensors
from sparseml.run.errors import RunError, few
from sparseml.utils.atomic import atomic_path

Rest = Literal["first", "mean"]
"""Who owns what is in no partition: worker 0, or all workers, whose mean is taken."""


def owners(grown: Sequence[Sequence[str]], names: Sequence[str]) -> dict[str, int | None]:
    """Return parameter → the worker that it comes from, None for what no worker has grown.

    :param grown: for each worker, the parameters that it has grown
    :param names: of all parameters
    :raises RunError: for a parameter that two workers have grown, and a worker without any
    """
    found: dict[str, int | None] = dict.fromkeys(names)
    for worker, own in enumerate(grown):
        if not own:
            raise RunError(f"worker {worker} has grown nothing")
        if strange := [name for name in own if name not in found]:
            raise RunError(f"worker {worker} has grown {few(strange)}, which no model has")
        for name in own:
            if found[name] is not None:
                raise RunError(f"workers {found[name]} and {worker} have both grown {name}")
            found[name] = worker
    return found


def merged(
    models: Sequence[Mapping[str, Tensor]], owner: Mapping[str, int | None], rest: Rest
) -> dict[str, Tensor]:
    """Return the weights that the workers have together.

    :param models: name → tensor of each worker
    :param owner: name → worker, None for what is owned as ``rest`` says; whole numbers, as of the
        batches that a norm has seen, are then those of worker 0
    """
    whole: dict[str, Tensor] = {}
    for name, worker in owner.items():
        values = [model[name] for model in models]
        if worker is not None:
            whole[name] = values[worker]
        elif rest == "first" or not values[0].is_floating_point():
            whole[name] = values[0]
        else:
            whole[name] = torch.stack(values).mean(0)
    return whole


def merge(files: Sequence[Path], target: Path, rest: Rest = "first") -> dict[str, int | None]:
    """Write the weights that workers have together; masks beside their files tell who grew what.

    What a worker has grown is dense, and is pruned when the next run starts.

    :param files: of weights, one a worker
    :param target: the file to write: a ``.safetensors``, or of another kind the first worker's
        checkpoint with these weights, and without what its optimizer knew
    :return: name → worker; None for what is owned as ``rest`` says
    :raises RunError: for models that do not fit together
    """
    models = [read_weights(file) for file in files]
    for file, model in zip(files[1:], models[1:], strict=True):
        if differing := sorted(model.keys() ^ models[0].keys()):
            raise RunError(f"{files[0]} and {file} are not of one model: {few(differing)}")
    masks = [masked_names(file) for file in files]
    selected = [set(one) for one in masks]
    if any(names != selected[0] for names in selected):
        raise RunError("the workers do not prune the same parameters")
    grown = [sorted(name for name, mask in own.items() if mask.all()) for own in masks]
    owner = owners(grown, list(models[0]))
    if left := sorted(name for name in selected[0] if owner[name] is None):
        raise RunError(f"no worker has grown {few(left)}")
    owner = _with_ties(owner, models)
    whole = merged(models, owner, rest)
    if target.suffix == ".safetensors":
        write_safetensors(target, whole, {"format": "pt"})
    else:
        _write_like(files[0], target, whole)
    return owner


def _with_ties(
    owner: Mapping[str, int | None], models: Sequence[Mapping[str, Tensor]]
) -> dict[str, int | None]:
    """Return the owners, a tensor that a file has under several names having one for all."""
    found = dict(owner)
    for name, worker in owner.items():
        for other in owner if worker is not None else ():
            pairs = [(model[name], model[other]) for model in models]
            if owner[other] is None and all(torch.equal(*pair) for pair in pairs):
                found[other] = worker
    return found


def _write_like(file: Path, target: Path, weights: Mapping[str, Tensor]) -> None:
    content = read_checkpoint(file)
    for name in [name for name in content if "optimizer" in name and "history" not in name]:
        content[name] = None
    place = next((key for key in MODEL_KEYS if isinstance(content.get(key), Mapping)), None)
    whole = dict(weights) if place is None else {**content, place: dict(weights)}
    with atomic_path(target) as part:
        torch.save(whole, part)
