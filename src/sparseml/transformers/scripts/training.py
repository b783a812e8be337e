"""One run of a script: a Trainer, a recipe in it, a model in a folder and a report beside it."""

from __future__ import annotations

import contextlib
import copy
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerState,
    TrainingArguments,
)

from sparseml.optim.errors import RecipeError
from sparseml.report import RunDirectory, layer_sparsities, write_report
from sparseml.run.commands import AboveBars
from sparseml.run.errors import (
    Ending,
    RunError,
    ending_told,
    few,
    run_reported,
    stopping_between_steps,
)
from sparseml.run.fitting import load_recipe
from sparseml.run.progress import say
from sparseml.run.session import Found, Metric
from sparseml.run.sweep import notes_of
from sparseml.transformers.callback import SparseMLCallback
from sparseml.transformers.checkpoints import checkpoints_in, problem_of
from sparseml.transformers.scripts.arguments import (
    RUN_FOLDER,
    DataArguments,
    ModelArguments,
    settle_epochs,
    settle_output,
)
from sparseml.transformers.scripts.outcome import Outcome, sparsity_ratios
from sparseml.utils.atomic import remove_parts

_LABELS = ("labels", "start_positions", "end_positions")
_PREFIX = "eval"
_GOES_ON = "--resume_from_checkpoint true goes on"
_UNTOLD = ("epoch", "_runtime", "_per_second", "_time", "total_flos")


@dataclass
class TrainerTask:
    """What a script trains, and how it is judged.

    :param validation: name → what to evaluate on; of the first the report tells
    :param judge: the outputs of a model for the first of them → what to tell of it
    :param metrics: what that finds, the most telling first, and the loss
    :param samples: how many answers it judges
    :param fresh: names of parameters that no file had, so that they are random
    :param load_teacher: a name → a model to distil from
    """

    model: nn.Module
    tokenizer: Any
    train: Any
    validation: Mapping[str, Any]
    collate: Callable[[list[Any]], Any]
    judge: Callable[[Any], Found]
    metrics: Sequence[Metric]
    samples: int
    fresh: Sequence[str] = ()
    load_teacher: Callable[[str], Any] = field(default=str)


Prepare = Callable[[Any, ModelArguments, TrainingArguments], TrainerTask]


def run_script(
    chosen: ModelArguments, data: DataArguments, args: TrainingArguments, prepare: Prepare
) -> None:
    """Check what is quick to check, then load model and data, train, evaluate and report.

    :param prepare: gives the task
    :raises RunError: for what does not fit
    """
    manager = load_recipe(chosen.recipe, chosen.recipe_args) if chosen.recipe else None
    if chosen.recipe_args and not chosen.recipe:
        raise RunError("--recipe_args are for a --recipe")
    if not (args.do_train or args.do_eval):
        raise RunError("give --do_train, --do_eval or both")
    settle_epochs(args, manager, chosen.recipe)
    resumed = settle_output(args, chosen.overwrite_output_dir, manager is not None)
    settings = {**asdict(chosen), **asdict(data), **args.to_sanitized_dict()}
    train_and_report(prepare(data, chosen, args), chosen, args, manager, resumed, settings)


def train_and_report(
    task: TrainerTask,
    chosen: ModelArguments,
    args: TrainingArguments,
    manager: Any = None,
    resumed: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Train, evaluate, save the model into ``output_dir``, and write ``report.html`` beside it.

    :param manager: of the recipe
    :param resumed: the checkpoint to go on from
    :param settings: to be kept with the run
    """
    teacher = _teacher(task, chosen, manager)
    if not args.do_train:
        _evaluate(_trainer(task, task.model, args), task)
        return
    told = task if args.do_eval else replace(task, metrics=())
    with contextlib.ExitStack() as stack:
        run = None
        stack.enter_context(ending_told(lambda: _ending(args, manager is not None)))
        if args.process_index == 0:
            run = stack.enter_context(_run_directory(args, chosen, resumed, settings or {}))
        # what is shared out among processes cannot be looked at in one of them
        whole = not args.fsdp
        dense = copy.deepcopy(task.model) if whole else None
        outcome = _outcome(run, told, args) if run is not None and whole else None
        trainer = _trainer(task, task.model, args)
        callback = _add_callbacks(trainer, run, chosen, teacher, resumed)
        if dense is not None and resumed is None:
            before = _trainer(task, dense, args)
            before.remove_callback(PrinterCallback)  # as it is told below
            found = _evaluate(before, task, saved=False) if args.do_eval else {}
            if outcome is not None:
                outcome.write("dense", dense, found)
        with stopping_between_steps():
            trained = trainer.train(resume_from_checkpoint=resumed and str(resumed))
        trainer.save_model()
        trainer.save_metrics("train", trained.metrics)
        trainer.save_state()
        found = _evaluate(trainer, task) if args.do_eval else {}
        if outcome is not None:
            _finish(outcome, trainer.model, found, callback and callback.manager)
            if dense is not None and chosen.latency_rounds > 0:
                outcome.time({"dense": dense, "sparse": trainer.model}, chosen.latency_rounds)
    if run is not None:
        _page(run, Path(args.output_dir))


def reported(main: Callable[[], None]) -> int:
    """Run a script; what the user got wrong is told in one line.

    :return: the exit status
    """
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[AboveBars()])
    logging.getLogger("sparseml").setLevel(logging.INFO)
    # which tells of every try to reach the hub; that it cannot be reached is told in the end
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    return run_reported(main)


def _teacher(task: TrainerTask, chosen: ModelArguments, manager: Any) -> Any:
    name, distils = chosen.distill_teacher, bool(manager and manager.distillation_modifiers)
    if not distils:
        if name not in (None, "disable"):
            raise RunError(f"--distill_teacher {name}: there is no recipe that distils")
        return None
    if name in (None, "self") and task.fresh:
        raise RunError(
            f"{chosen.recipe} distils from the model as it is, but {chosen.model_name_or_path} was "
            f"not trained for the task ({few(task.fresh)} are new): train it without a recipe "
            "first, or give --distill_teacher"
        )
    if name in (None, "self", "disable"):
        return name or "self"
    return task.load_teacher(name)


def _trainer(task: TrainerTask, model: nn.Module, args: TrainingArguments) -> Trainer:
    return Trainer(
        model,
        args,
        data_collator=task.collate,
        train_dataset=task.train,
        eval_dataset=next(iter(task.validation.values())),
        processing_class=task.tokenizer,
        compute_metrics=task.judge,
    )


def _add_callbacks(
    trainer: Trainer,
    run: RunDirectory | None,
    chosen: ModelArguments,
    teacher: Any,
    resumed: Path | None,
) -> SparseMLCallback | None:
    step = None if resumed is None else TrainerState.load_from_json(
        str(resumed / "trainer_state.json")
    ).global_step  # fmt: skip
    logger = None if run is None else run.metrics(step)
    callback = None
    if chosen.recipe is not None:
        loggers: Any = None if logger is None else [logger]
        callback = SparseMLCallback(
            chosen.recipe,
            chosen.recipe_args,
            teacher=teacher,
            loggers=loggers,
            resume_from=resumed,
        )
        # as the Trainer does with callbacks that it is made with
        callback.on_init_end(trainer.args, trainer.state, trainer.control, model=trainer.model)
        trainer.add_callback(callback)
    if run is not None:
        trainer.add_callback(_RunLog(run, logger, callback))
    return callback


class _RunLog(TrainerCallback):
    """Keeps what the Trainer logs, and the recipe with its schedule, in the run directory."""

    def __init__(self, run: RunDirectory, logger: Any, callback: SparseMLCallback | None) -> None:
        self._run, self._logger, self._callback = run, logger, callback
        self._saved = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the recipe, which has found out how many steps make an epoch."""
        self._saved = state.global_step
        if self._callback is not None and self._callback.driver is not None:
            steps = self._callback.driver.position.steps_per_epoch
            self._run.write_recipe(self._callback.manager, steps)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write losses, rates and what evaluations find."""
        told = {
            name: float(value)
            for name, value in (kwargs.get("logs") or {}).items()
            if isinstance(value, (int, float)) and not name.endswith(_UNTOLD)
        }
        if told:
            # a run that goes on from a checkpoint drops what is told of the steps that come then
            step = state.global_step - (state.global_step > self._saved)
            self._logger.log_scalars("trainer", told, step=step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Take note of what a checkpoint has behind it."""
        self._saved = state.global_step


@contextlib.contextmanager
def _run_directory(
    args: TrainingArguments,
    chosen: ModelArguments,
    resumed: Path | None,
    settings: Mapping[str, Any],
) -> Iterator[RunDirectory]:
    """Start or continue the run; of one that ends by a mistake before its first checkpoint nothing
    stays, as it would only be in the way of the mended command."""
    folder = Path(args.output_dir) / RUN_FOLDER
    if resumed is not None and (goes_on := RunDirectory.resume(folder)) is not None:
        with goes_on as run:
            remove_parts(Path(args.output_dir))  # of checkpoints that a killed process was writing
            yield run
        return
    name = args.run_name or Path(args.output_dir).name
    try:
        run = RunDirectory.start(folder, name, config=settings, seed=args.seed, overwrite=True)
    except OSError as error:
        raise RunError(f"--output_dir {args.output_dir} cannot be written: {error}") from error
    try:
        with run:
            yield run
    except (RunError, RecipeError):
        if not any(Path(args.output_dir).glob("checkpoint-*")):
            shutil.rmtree(folder)
        raise


def _ending(args: TrainingArguments, follows: bool) -> Ending:
    """Return how to go on with a run that ends now."""
    output = Path(args.output_dir)
    whole = (one for one in checkpoints_in(output) if problem_of(one, follows) is None)
    last = next(whole, None)
    told = "no checkpoint was written yet" if last is None else f"{_GOES_ON} from {last.name}"
    return Ending(output if args.process_index == 0 else None, told)


def _outcome(run: RunDirectory, task: TrainerTask, args: TrainingArguments) -> Outcome:
    def one() -> dict[str, Any]:
        batch = task.collate([next(iter(task.validation.values()))[0]])
        return {name: value.to(args.device) for name, value in batch.items() if name not in _LABELS}

    return Outcome(run, task.metrics, task.samples, one, not task.fresh)


def _evaluate(trainer: Trainer, task: TrainerTask, saved: bool = True) -> Found:
    """Return what the report tells; of further data only the Trainer does."""
    found: Found = {}
    for name, data in task.validation.items():
        prefix = _PREFIX if not found else f"{_PREFIX}_{name}"
        told = trainer.evaluate(data, metric_key_prefix=prefix)
        found = found or {one.name: told[f"{prefix}_{one.name}"] for one in task.metrics}
        if saved:
            trainer.save_metrics(prefix, told)
    return found


def _finish(outcome: Outcome, model: nn.Module, found: Found, manager: Any) -> None:
    layers = layer_sparsities(model, manager)
    outcome.write("sparse", model, found, layers)
    if manager is not None:
        pruned = sum(layer.zeros for layer in layers if layer.asked is not None)
        text = sparsity_ratios(model, pruned).text()
        outcome.run.write_result(notes=[text, *notes_of(manager)])
        say(text)


def _page(run: RunDirectory, folder: Path) -> None:
    try:
        say(f"report: {folder / write_report([run.path], folder).html.name}")
    except ImportError as error:
        say(f"no report: {error}")
