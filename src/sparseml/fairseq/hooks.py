"""The few functions of fairseq that a recipe takes part in, each called as before."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Callable
from dataclasses import field, fields, make_dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any, Optional

import torch
from torch.multiprocessing.spawn import ProcessExitedException

from sparseml.fairseq.checkpoints import (
    STATE_KEY,
    UNITS_KEY,
    batches_as_before,
    begins_anew,
    copies_whole,
)
from sparseml.fairseq.errors import FairseqError, reported
from sparseml.fairseq.fitting import require_supported
from sparseml.fairseq.reading import COMPARES, fairseq_files
from sparseml.fairseq.recipe_run import RecipeRun
from sparseml.fairseq.shrunk import fit_to_weights, note_shrunk
from sparseml.fairseq.srp.flags import take_flags
from sparseml.pytorch.units.origins import origins_of, set_origins
from sparseml.pytorch.utils.saving.files import compare_checksums
from sparseml.run.errors import Ending, ending_told, run_reported, stopping_between_steps
from sparseml.run.fitting import load_recipe

_LOGGER = logging.getLogger(__name__)
FLAGS = {
    "sparseml_recipe": "recipe to train by: a file, or recipe:NAME",
    "sparseml_recipe_args": "values for variables of the recipe: JSON, or name=value,...",
    "sparseml_initial_masks": "masks to begin with: a masks.safetensors, or the folder that has it",
    "sparseml_output": "folder of the run to be made, for recipe, metrics and a report",
}
_RUNS: list[RecipeRun] = []
"""The run of this process, from the loading of its checkpoint to its end."""


def install() -> None:
    """Let fairseq's training follow recipes; once more changes nothing."""
    from fairseq import checkpoint_utils
    from fairseq.distributed import utils as distributed_utils
    from fairseq.models import BaseFairseqModel
    from fairseq.trainer import Trainer

    if hasattr(Trainer.state_dict, "__wrapped__"):
        return
    _add_flags()
    importlib.import_module("sparseml.fairseq.srp.names")
    _wrap(distributed_utils, "call_main", _call_main)
    _wrap(checkpoint_utils, "load_checkpoint_to_cpu", _read)
    setattr(checkpoint_utils.load_checkpoint_to_cpu, COMPARES, True)
    _wrap(checkpoint_utils, "load_checkpoint", _load)
    _wrap(checkpoint_utils, "save_checkpoint", _save)
    _wrap(Trainer, "state_dict", _state)
    _wrap(BaseFairseqModel, "load_state_dict", _fill)


def _add_flags() -> None:
    """Give fairseq's common settings a field for each flag.

    So they are flags and keys of configurations, reach processes that fairseq starts, and stand in
    its checkpoints, where a fairseq without them passes them over.
    """
    from fairseq.dataclass.configs import CommonConfig
    from fairseq.dataclass.initialize import hydra_init

    # fairseq reads the types of fields, which must be types and not their names
    told = [
        (name, Optional[str], field(default=None, metadata={"help": text}))  # noqa: UP045
        for name, text in FLAGS.items()
    ]
    for one in fields(make_dataclass("Flags", told)):
        CommonConfig.__dataclass_fields__[one.name] = one
        CommonConfig.__annotations__[one.name] = one.type
        setattr(CommonConfig, one.name, None)
    hydra_init()


def run_of(trainer: Any) -> RecipeRun | None:
    """Return how a trainer follows its recipe; None if it has none."""
    return next((run for run in _RUNS if run.trainer is trainer), None)


def _wrap(owner: Any, name: str, around: Callable[..., Any]) -> None:
    original = getattr(owner, name)

    @wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    setattr(owner, name, call)


def _call_main(original: Any, cfg: Any, main: Any, **kwargs: Any) -> Any:
    """Run a main function of fairseq in this process or in others; first check the recipe."""
    reported(_check)(cfg)
    try:
        return original(cfg, partial(run_to_end, main), **kwargs)
    except ProcessExitedException as error:
        if error.exit_code > 1 or cfg.common.get("sparseml_recipe"):  # it has told why
            raise SystemExit(error.exit_code) from error
        raise


def _check(cfg: Any) -> None:
    take_flags(cfg)
    common, distributed = cfg.common, cfg.distributed_training
    if not common.get("sparseml_recipe"):
        return
    require_supported(cfg)
    load_recipe(common.sparseml_recipe, common.get("sparseml_recipe_args"))
    starts = distributed.distributed_world_size > 1 and not distributed.distributed_no_spawn
    if starts and not torch.cuda.device_count():
        raise FairseqError(
            f"--distributed-world-size {distributed.distributed_world_size}: fairseq starts a "
            "process for each GPU, and here is none; start them yourself, each with "
            "--distributed-no-spawn, --distributed-rank and --distributed-init-method"
        )


def run_to_end(main: Any, cfg: Any, **kwargs: Any) -> None:
    """Call a main function of fairseq, and then end what recipe it has followed.

    A run that follows one is saved after the update in which a signal comes; whatever ends it is
    told in a line or two, and by the exit status.
    """
    if not cfg.common.get("sparseml_recipe"):
        main(cfg, **kwargs)
        return

    def run() -> None:
        try:
            with stopping_between_steps():
                main(cfg, **kwargs)
            for one in _RUNS:
                one.finish()
        except BaseException as error:
            for one in _RUNS:
                one.failed(error)
            raise

    def ending() -> Ending:
        return _RUNS[0].ending() if _RUNS else Ending()

    def told() -> None:
        with ending_told(ending):
            run()

    try:
        if status := run_reported(told):
            raise SystemExit(status)
    finally:
        _RUNS.clear()


def _read(original: Any, path: str, *args: Any, **kwargs: Any) -> Any:
    if os.path.isfile(path):  # else fairseq fetches it from elsewhere
        compare_checksums(Path(path))
    with fairseq_files():
        state = original(path, *args, **kwargs)
    note_shrunk(state)
    return state


def _load(original: Any, cfg: Any, trainer: Any, **kwargs: Any) -> Any:
    """Load a checkpoint, and begin or go on with the recipe."""
    anew = begins_anew(cfg, trainer)
    follows = bool(trainer.cfg.common.get("sparseml_recipe"))
    with batches_as_before(trainer, follows and not anew):
        extra_state, iterator = original(cfg, trainer, **kwargs)
    found = (extra_state or {}).get(STATE_KEY)
    set_origins(trainer.get_model(), (extra_state or {}).get(UNITS_KEY, {}))
    if follows:
        state, loaded = None if anew else found, extra_state is not None
        teacher = (found or {}).get("teacher")
        _RUNS[:] = [reported(RecipeRun)(trainer, iterator, state, loaded, teacher)]
    elif found is not None and not anew:
        _LOGGER.warning(
            "the checkpoint was trained with a recipe; without --sparseml-recipe its pruned "
            "weights do not stay zero"
        )
    return extra_state, iterator


def _save(original: Any, cfg: Any, trainer: Any, iterator: Any, loss: Any) -> Any:
    """Save a checkpoint; one that is not sparse yet cannot be the best."""
    run = run_of(trainer)
    if run is not None:
        run.validated(loss)
        loss = loss if run.is_sparse else None
    with copies_whole():
        return original(cfg, trainer, iterator, loss)


def _fill(original: Any, model: Any, weights: Any, *args: Any, **kwargs: Any) -> Any:
    """Load weights, of a model that has lost units, too."""
    fit_to_weights(model, weights)
    return original(model, weights, *args, **kwargs)


def _state(original: Any, trainer: Any) -> Any:
    state, run = original(trainer), run_of(trainer)
    if run is not None:
        state["extra_state"][STATE_KEY] = run.state()
    if units := origins_of(trainer.get_model()):
        state["extra_state"][UNITS_KEY] = units
    return state
