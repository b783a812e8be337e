"""The flags of SRP, and the recipe that they stand for."""

from __future__ import annotations

import argparse
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparseml.fairseq.errors import FairseqError
from sparseml.fairseq.reading import read_checkpoint
from sparseml.pytorch.functional.shrinking.rates import DECREASING

_LOGGER = logging.getLogger(__name__)
RECIPE = "recipe:fairseq/srp/single_stage"
_IDLE = {"attn_kd": 0.0, "fc_kd": 0.0, "emb_kd": 0.0, "use_kd": False}
"""Flags that have no effect in the first implementation either, and their defaults."""
_HELP = {
    "compression_rate": "share of the parameters to keep",
    "pruning_iter": "how many times to choose, fade out and remove",
    "pruning_period": "epochs of each",
    "warming_up": "epochs before; units are chosen after them",
    "prob_kd": "weight of the teacher in the loss: the model as it was at first",
    "T": "temperature of the teacher",
}
_DEFAULTS: dict[str, float] = {
    "compression_rate": 0.2,
    "pruning_iter": 1,
    "pruning_period": 15,
    "warming_up": 0,
    "prob_kd": 0.7,
    "T": 10.0,
}
_STAGES = {0: "the stream and all inside of blocks", 1: "the stream", 2: "all inside of blocks"}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of SRP to those of a model."""
    add = parser.add_argument
    add("--srp", action="store_true", default=False, help="shrink the model while it is trained")
    add("--pretrained-model", metavar="FILE", default=None, help="checkpoint to begin with")
    told = "; ".join(f"{number}: {what}" for number, what in _STAGES.items())
    add("--pruning-stage", type=int, choices=list(_STAGES), default=0, help=f"what goes, {told}")
    add("--decreasing", choices=DECREASING, default="sa", help="how gates fall, see the docs")
    for name, default in _DEFAULTS.items():
        flag = f"--{name.replace('_', '-')}"
        add(flag, type=type(default), default=default, metavar="N", help=_HELP[name])
    told = "statistics of norms are always weighted by the gates here"
    add("--weighted-layernorm", action="store_true", default=False, help=told)
    for name, off in _IDLE.items():
        kind: dict[str, Any] = {"action": "store_true"} if off is False else {"type": float}
        add(f"--{name.replace('_', '-')}", default=off, help="without effect", **kind)


def take_flags(cfg: Any) -> None:
    """Put the recipe that the flags of SRP stand for, and the checkpoint, into fairseq's settings.

    :param cfg: fairseq's configuration, of any model
    :raises FairseqError: for flags that contradict each other, and a checkpoint of another stage
    """
    args = cfg.model
    if getattr(args, "pruning_stage", None) is None or not hasattr(args, "pretrained_model"):
        return
    if args.pretrained_model:
        cfg.checkpoint.finetune_from_model = args.pretrained_model
    if not args.srp:
        return
    if cfg.common.get("sparseml_recipe"):
        raise FairseqError("--srp stands for a recipe: leave it, or --sparseml-recipe, out")
    last = Path(cfg.checkpoint.save_dir) / "checkpoint_last.pt"
    goes_on = last.exists() or not cfg.checkpoint.restore_file.endswith("checkpoint_last.pt")
    begin = cfg.checkpoint.finetune_from_model
    if not goes_on:
        if not begin:
            raise FairseqError("--srp shrinks a model that is trained: give --pretrained-model")
        weights = read_checkpoint(Path(begin), f"--pretrained-model {begin}")["model"]
        _require_stage(int(args.pruning_stage), args, weights, begin)
    for name, off in _IDLE.items():
        if getattr(args, name) != off:
            _LOGGER.warning("--%s is without effect", name.replace("_", "-"))
    if not args.weighted_layernorm:
        _LOGGER.warning(
            "statistics of norms are weighted by the gates, as with --weighted-layernorm: those "
            "of the removed units would have to be counted for ever otherwise"
        )
    cfg.common.sparseml_recipe = RECIPE
    cfg.common.sparseml_recipe_args = json.dumps(_variables(args))


def _variables(args: Any) -> Mapping[str, Any]:
    return {
        "compression_rate": float(args.compression_rate),
        "stage": int(args.pruning_stage),
        "decreasing": args.decreasing,
        "warmup_epochs": float(args.warming_up),
        "pruning_epochs": float(args.pruning_period * args.pruning_iter),
        "finetune_epochs": 0.0,
        "pruning_iter": int(args.pruning_iter),
        "num_scoring_batches": 1,
        "kd_weight": float(args.prob_kd),
        "kd_temperature": float(args.T),
    }


def _require_stage(stage: int, args: Any, weights: Mapping[str, Any], file: str) -> None:
    """Check that a checkpoint has lost just what comes before a stage."""
    values = weights.get("encoder.layers.0.self_attn.v_proj.weight")
    if values is None:  # loading will tell
        return
    inside, stream = (size < args.encoder_embed_dim for size in values.shape)
    if (stream, inside) == (stage == 2, False):
        return
    lost = " and ".join(
        what for what, is_gone in {_STAGES[1]: stream, _STAGES[2]: inside}.items() if is_gone
    )
    wanted = "a checkpoint of stage 1" if stage == 2 else "a whole model"
    raise FairseqError(
        f"--pruning-stage {stage} begins with {wanted}; {os.path.basename(file)} has lost "
        f"{lost or 'nothing'}"
    )
