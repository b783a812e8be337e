"""Whether a recipe and a run of fairseq fit together, told before anything is trained."""

from __future__ import annotations

import logging
import math
from typing import Any

from torch import nn

from sparseml.fairseq.errors import FairseqError
from sparseml.pytorch.optim.step_driver import Position
from sparseml.pytorch.optim.summary import steps_to
from sparseml.pytorch.sparsification.modifier import Modifier
from sparseml.pytorch.sparsification.pruning import SRPPruningModifier
from sparseml.run.errors import RunError
from sparseml.run.fitting import require_fitting_patterns, require_fitting_schedule

_LOGGER = logging.getLogger(__name__)
_NEAR = 1e-9


class Length:
    """How many updates fairseq makes, as it counts them.

    :param cfg: fairseq's configuration
    :param iterator: over the epochs of the training data, from where the run goes on
    :param updates: made so far
    """

    def __init__(self, cfg: Any, iterator: Any, updates: int) -> None:
        self._settings, self._batches = cfg.optimization, len(iterator)
        self.updates, self.epochs = self._left(iterator, updates)
        """Updates and epochs still to come; infinite without an end."""

    def updates_in(self, epoch: int, batches: int | None = None) -> int:
        """Return the updates of an epoch, counted from 1.

        :param batches: of that epoch; by default as many as the first one has
        """
        batches, frequency = batches or self._batches, self._frequency(epoch)
        if self._settings.skip_remainder_batch:
            return max(1, (batches - 1) // frequency)
        return -(-batches // frequency)

    def _frequency(self, epoch: int) -> int:
        frequencies = self._settings.update_freq
        return int(frequencies[min(epoch, len(frequencies)) - 1])

    def _left(self, iterator: Any, updates: int) -> tuple[float, float]:
        last = self._settings.max_epoch or math.inf
        most = (self._settings.max_update or math.inf) - updates
        if last == most == math.inf:
            return math.inf, math.inf
        epoch, total, epochs = iterator.next_epoch_idx, 0.0, 0.0
        begun = iterator.iterations_in_epoch if epoch == iterator.epoch else 0
        done = -(-begun // self._frequency(epoch))
        while epoch <= last and total < most:
            whole = self.updates_in(epoch)
            taken = min(whole - done, most - total)
            total, epochs = total + taken, epochs + taken / whole
            epoch, done = epoch + 1, 0
        return total, epochs


def require_supported(cfg: Any) -> None:
    """Check that fairseq trains in a way that modifiers can follow.

    :param cfg: fairseq's configuration
    :raises FairseqError: naming what they cannot
    """
    distributed, common = cfg.distributed_training, cfg.common
    backend = distributed.ddp_backend
    refused = {
        f"--ddp-backend {backend}: take legacy_ddp (no_c10d) or pytorch_ddp (c10d)": backend
        in ("fully_sharded", "slowmo"),
        "--use-bmuf, which lets the weights of processes drift apart": cfg.optimization.use_bmuf,
        f"--zero-sharding {distributed.zero_sharding}, which shares out what the optimizer knows": (
            distributed.zero_sharding != "none"
        ),
        "--pipeline-model-parallel": distributed.pipeline_model_parallel,
        f"--model-parallel-size {common.model_parallel_size}": common.model_parallel_size > 1,
        "--tpu, or --bf16 that implies it": common.tpu,
        "--quantization-config-path, which replaces layers": bool(common.quantization_config_path),
        "--optimizer composite, which is several": (
            getattr(cfg.optimizer, "_name", None) == "composite"
        ),
    }
    for what, is_so in refused.items():
        if is_so:
            raise FairseqError(f"--sparseml-recipe does not work with {what}")
    if cfg.ema.store_ema:
        _LOGGER.warning("--store-ema: the averaged weights are not pruned, only the model's own")


def require_fitting_model(manager: Any, model: nn.Module, recipe: str) -> None:
    """Check that every modifier can work here, and finds what it is for in the model.

    :raises FairseqError: naming the modifier
    """
    for modifier in manager.iter_modifiers():
        kind, shrinks = type(modifier), isinstance(modifier, SRPPruningModifier)
        if modifier.changes_loss and not shrinks:
            raise FairseqError(
                f"{recipe}: {kind.__name__} changes the loss, which fairseq's criterion computes "
                "on its own; it does not work with --sparseml-recipe"
            )
        changes = kind.load_structure_state is not Modifier.load_structure_state
        if changes and not shrinks:
            raise FairseqError(
                f"{recipe}: {kind.__name__} changes the layers of the model, with which fairseq "
                "could not read its checkpoints; it does not work with --sparseml-recipe"
            )
    try:
        require_fitting_patterns(manager, model, recipe)
    except RunError as error:
        raise FairseqError(f"{error} ({type(model).__name__})") from error


def shrinking(manager: Any) -> list[SRPPruningModifier]:
    """Return the modifiers of a recipe under which the model gets smaller."""
    return [one for one in manager.iter_modifiers() if isinstance(one, SRPPruningModifier)]


def require_shrinkable(cfg: Any, copies: bool, resizes: bool, recipe: str) -> None:
    """Check that what a run keeps beside the model can get smaller with it.

    :param cfg: fairseq's configuration
    :param resizes: whether it does, or gets zeros
    :param copies: whether there are float32 copies of the weights
    :raises FairseqError: naming what cannot
    """
    processes = cfg.distributed_training.distributed_world_size
    refused = {
        "--fp16, which keeps copies in float32: take --amp, or neither": copies,
        "--store-ema, which keeps averages": resizes and cfg.ema.store_ema,
        f"{processes} processes, which exchange gradients of whole layers": (
            resizes and processes > 1
        ),
    }
    for what, is_so in refused.items():
        if is_so:
            raise FairseqError(f"{recipe}: SRPPruningModifier does not work with {what}")


def require_fitting_length(manager: Any, position: Position, ends: float, recipe: str) -> None:
    """Check that the run is long enough for all that the recipe asks for.

    :param manager: whose steps are resolved
    :param position: where the recipe goes on
    :param ends: the epoch of the recipe at which the run ends
    :raises FairseqError: if the recipe goes on for longer, or a modifier never acts
    """
    bounds = [
        getattr(modifier, field, -1.0)
        for modifier in manager.iter_modifiers()
        for field in ("start_epoch", "end_epoch")
    ]
    epochs, steps = max(bounds, default=-1.0), position.steps_per_epoch
    if epochs > ends + _NEAR:
        raise FairseqError(
            f"{recipe} goes on until epoch {epochs:g}, for {steps_to(epochs, steps)} updates of "
            f"which {steps} make an epoch, but the run ends after {steps_to(ends, steps)} updates "
            f"(epoch {ends:g}): give a higher --max-epoch or --max-update, or a shorter recipe"
        )
    if math.isfinite(ends):
        # what is due at the very end is done there, too
        require_fitting_schedule(manager, steps, ends + 1 / steps, recipe)
