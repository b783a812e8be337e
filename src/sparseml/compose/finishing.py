"""Models put together from blocks: writing them, and fine-tuning them as recipes say."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparseml.compose.asking import is_pruner
from sparseml.compose.origin import Lent
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import (
    AssembleModifier,
    ConstantPruningModifier,
    EpochRangeModifier,
)
from sparseml.pytorch.sparsification.composing.blocks import Plan
from sparseml.pytorch.sparsification.composing.modifier_assemble import (
    assembled,
    check_origin,
    masks_of,
    write_tensors,
)
from sparseml.pytorch.sparsification.composing.store import TUNED, BlockStore
from sparseml.pytorch.utils.saving.files import write_safetensors
from sparseml.report import RunDirectory, describe_model, layer_sparsities, measure_latency
from sparseml.run.errors import RunError
from sparseml.run.files import atomic_text
from sparseml.run.masks import MASKS_FILE, write_masks
from sparseml.utils.plain import json_of

RESULT = "composed.json"
_LATENCY_ROUNDS = 5


@dataclass(frozen=True)
class FinishJob:
    """How the models of configurations are fine-tuned.

    :param recipe: file or text of a recipe; without, the model is trained and nothing else
    :param epochs: None for what the recipe has
    :param lr: of AdamW, which a recipe may change
    :param source: ``tuned``, or ``pruned`` for models of blocks that were not tuned
    :param seed: of dropout
    :param latency: whether times are taken
    """

    recipe: str | None = None
    epochs: int | None = None
    lr: float = 1e-3
    weight_decay: float = 0.0
    source: str = TUNED
    seed: int = 0
    latency: bool = True


def compose_model(
    store: BlockStore, plan: Plan, config: str, model: nn.Module, source: str = TUNED
) -> nn.Module:
    """Return a copy of the origin with the blocks of a configuration.

    :raises DigestError: for another model, and for altered blocks
    """
    found = assembled(store, plan, config, source)
    check_origin(model, plan, found)
    copied = copy.deepcopy(model)
    write_tensors(copied, found)
    return copied


def write_composed(
    store: BlockStore, plan: Plan, config: str, model: nn.Module, source: str, out: Path
) -> nn.Module:
    """Write the model of a configuration with its masks; a model of Transformers as such."""
    composed = compose_model(store, plan, config, model, source)
    _write_model(composed, out)
    write_masks(out / MASKS_FILE, masks_of(store, plan, config))
    return composed


def finish(
    store: BlockStore,
    plan: Plan,
    config: str,
    model: nn.Module,
    data: Lent,
    job: FinishJob,
    out: Path,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Put the model of a configuration together, fine-tune it, and write it as a run.

    The recipe may have an ``AssembleModifier``, whose fields are set, and what holds the masks;
    what it lacks of both is added. What is residual in the configuration's own recipe is added too.

    :param model: the origin; it stays as it is
    :return: what was found, also in ``composed.json``
    """
    composed = copy.deepcopy(model)
    manager = _manager(store, plan, config, job)
    epochs = job.epochs if job.epochs is not None else max(0, int(manager.max_epochs))
    began = time.monotonic()
    with RunDirectory.start(
        out, config, config={"config": config, **vars(job)}, seed=job.seed, overwrite=True
    ) as run:
        run.write_environment()
        history = _trained(composed, manager, data, job, epochs, run, say)
        seconds = time.monotonic() - began
        result: dict[str, Any] = {"config": config, "source": job.source, "seed": job.seed}
        result |= {"epochs": epochs, "seconds": round(seconds, 2), "history": history}
        result["metrics"] = {n: v for n, v in history[-1].items() if n not in ("epoch", "train")}
        kept = plan.configuration(config)
        result |= {"kept_params": kept["kept_params"], "flops": kept["flops"]}
        dense = data.evaluate(model)
        result["origin"] = dense
        _describe(run, composed, model, result, data, job)
        _write_model(composed, out)
        write_masks(out / MASKS_FILE, masks_of(store, plan, config))
    with atomic_text(out / RESULT) as file:
        json.dump(result, file, indent=1)
    return result


def _trained(
    model: nn.Module,
    manager: ScheduledModifierManager,
    data: Lent,
    job: FinishJob,
    epochs: int,
    run: RunDirectory,
    say: Callable[[str], None],
) -> list[dict[str, float]]:
    """Train a model, and return what evaluations found before and after each epoch."""
    torch.manual_seed(job.seed)
    steps = data.steps()
    optimizer = torch.optim.AdamW(
        model.parameters(), job.lr, (0.9, 0.98), 1e-9, weight_decay=job.weight_decay
    )
    stepper = manager.modify(model, optimizer, steps_per_epoch=steps)
    run.write_recipe(manager, steps)
    history = [{"epoch": 0.0, **data.evaluate(model)}]
    for epoch in range(epochs):
        total = 0.0
        model.train()
        for batch in data.training(epoch):
            optimizer.zero_grad()
            loss = data.loss(model, batch)
            loss.backward()
            stepper.step()
            total += float(loss.detach())
        found = data.evaluate(model)
        history.append({"epoch": epoch + 1.0, "train": total / steps, **found})
        told = "  ".join(f"{name} {value:.4f}" for name, value in found.items())
        say(f"  epoch {epoch + 1}: {told}")
    manager.finalize(model)
    model.eval()
    return history


def _manager(store: BlockStore, plan: Plan, config: str, job: FinishJob) -> Any:
    """Return the manager of a recipe, with what puts the model together and keeps it sparse."""
    given: list[Any] = []
    if job.recipe is not None:
        given = list(ScheduledModifierManager.from_yaml(job.recipe).iter_modifiers())
    folder = str(store.folder)
    others = [one for one in given if not isinstance(one, AssembleModifier)]
    put = [one for one in given if isinstance(one, AssembleModifier)] or [
        AssembleModifier(folder, config, job.source)
    ]
    if len(put) > 1 or put[0].start_epoch > 0:
        raise RunError("--recipe: one AssembleModifier, with start_epoch 0, is allowed")
    put[0].store, put[0].config, put[0].source = folder, config, job.source
    masked = sorted(masks_of(store, plan, config))
    if masked and not any(isinstance(one, ConstantPruningModifier) for one in others):
        others.append(ConstantPruningModifier(masked, start_epoch=0.0))
    own = plan.configuration(config)
    if own["residual"] and own["recipe"]:
        mine = ScheduledModifierManager.from_yaml(own["recipe"]).iter_modifiers()
        others += [one for one in mine if is_pruner(one) and not one.composable]
    if not any(isinstance(one, EpochRangeModifier) for one in others) and job.epochs is not None:
        others.append(EpochRangeModifier(start_epoch=0.0, end_epoch=float(job.epochs)))
    return ScheduledModifierManager([*put, *others])


def _describe(
    run: RunDirectory,
    composed: nn.Module,
    model: nn.Module,
    result: dict[str, Any],
    data: Lent,
    job: FinishJob,
) -> None:
    batch = next(iter(data.held_out()))
    inputs = None if hasattr(data.data, "call") else batch
    sparse = describe_model(composed, result["metrics"], inputs)
    dense = describe_model(model, result["origin"], inputs, trained=True)
    run.write_result({"dense": dense, "sparse": sparse}, layer_sparsities(composed))
    result["size"] = None if sparse.storage is None else sparse.storage.model_dump()
    if inputs is not None and job.latency:
        with torch.inference_mode():
            taken = measure_latency({"dense": model, "sparse": composed}, inputs, _LATENCY_ROUNDS)
        run.write_result({name: {"latency": [times]} for name, times in taken.items()})
        result["latency"] = {n: times.model_dump() for n, times in taken.items()}


def _write_model(model: nn.Module, out: Path) -> None:
    save: Any = getattr(model, "save_pretrained", None)
    if save is not None:
        save(out / "model")
    write_safetensors(out / "model.safetensors", model.state_dict(), {"format": "pt"})


def finished_models(folder: Path) -> dict[str, Mapping[str, Any]]:
    """Return configuration → what was found, of those that were fine-tuned into a folder."""
    found = {}
    for file in sorted(folder.glob(f"*/{RESULT}")):
        try:
            content = json_of(file.read_bytes())
            found[str(content["config"])] = content
        except (KeyError, TypeError, ValueError) as error:  # noqa: PERF203
            raise RunError(f"{file} is damaged ({error}): fine-tune it anew") from error
    return found
