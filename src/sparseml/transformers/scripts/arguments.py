"""The flags of scripts, beside those of ``transformers.TrainingArguments``."""

from __future__ import annotations

import ast
import logging
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from transformers import HfArgumentParser, TrainingArguments
from transformers.utils.logging import disable_progress_bar

from sparseml.run.errors import RunError, one_line
from sparseml.transformers.checkpoints import checkpoints_in, problem_of
from sparseml.utils.locks import FolderLock
from sparseml.utils.text import did_you_mean

RUN_FOLDER = "run"
"""Where in the output folder the run directory is; its own files have names of Transformers'."""

_LOGGER = logging.getLogger(__name__)
_NOT_GIVEN = -1.0
_EPOCHS = 3.0
_LAST = ("true", "1", "yes", "last")


def _help(text: str) -> dict[str, str]:
    return {"help": text}


@dataclass
class ModelArguments:
    """What is trained, and how it is pruned."""

    model_name_or_path: str = field(metadata=_help("folder of a model, or its name on the hub"))
    recipe: str | None = field(
        default=None, metadata=_help("a file, or recipe:NAME; without one nothing is pruned")
    )
    recipe_args: str | None = field(
        default=None, metadata=_help("variables of the recipe: name=value,name=value or JSON")
    )
    distill_teacher: str | None = field(
        default=None,
        metadata=_help(
            "folder or name of a model to distil from, 'disable', or 'self' for the model as it is "
            "at the start, which is the default where the recipe distils"
        ),
    )
    overwrite_output_dir: bool = field(
        default=False, metadata=_help("remove what an earlier run left in --output_dir")
    )
    latency_rounds: int = field(
        default=20, metadata=_help("in which times are taken for the report; 0 takes none")
    )


@dataclass
class DataArguments:
    """What is trained and evaluated on."""

    train_file: str | None = field(default=None, metadata=_help("to train on"))
    validation_file: str | None = field(default=None, metadata=_help("to evaluate on"))
    max_seq_length: int = field(default=128, metadata=_help("tokens after which texts are cut"))
    pad_to_max_length: bool = field(
        default=False, metadata=_help("make all texts equally long, not only those of a batch")
    )
    max_train_samples: int | None = field(default=None, metadata=_help("the first of them"))
    max_eval_samples: int | None = field(default=None, metadata=_help("the first of them"))


class _Parser(HfArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Tell what is wrong in one line, without the hundred flags that there are."""
        raise RunError(message)


def parsed(
    argv: Sequence[str] | None, data: type[DataArguments], description: str
) -> tuple[ModelArguments, Any, TrainingArguments]:
    """Return the flags of a script, in three parts.

    ``num_train_epochs`` is -1 where neither it nor ``max_steps`` is given.

    :param argv: those of the command line if None
    :param data: what there is to say of the data
    :raises RunError: for flags that there are not, or that contradict each other
    """
    kinds: Any = (ModelArguments, data, TrainingArguments)
    parser = _Parser(kinds, description=description, allow_abbrev=False)
    parser.set_defaults(num_train_epochs=_NOT_GIVEN)
    try:
        model, texts, args = parser.parse_args_into_dataclasses(argv, look_for_args_file=False)
    except (ValueError, ImportError) as error:
        left = re.search(r"not used by the HfArgumentParser: (\[.*\])", str(error))
        if left is None:
            raise RunError(one_line(error)) from error
        flag = ast.literal_eval(left.group(1))[0]
        known = [name for action in parser._actions for name in action.option_strings]
        hint = did_you_mean(flag.partition("=")[0], known)
        raise RunError(f"there is no flag {flag}{hint}") from error
    if not sys.stderr.isatty():  # lines instead of bars
        args.disable_tqdm = True
        disable_progress_bar()
        if "datasets" in sys.modules:
            sys.modules["datasets"].disable_progress_bars()
    if args.device.type == "cpu":
        args.dataloader_pin_memory = False
    return model, texts, args


def settle_epochs(args: TrainingArguments, manager: Any, recipe: str | None) -> None:
    """Train for as many epochs as the recipe takes, unless flags say how many.

    :raises RunError: if these are fewer
    """
    needed = 0 if manager is None or args.max_steps > 0 else manager.max_epochs
    if args.num_train_epochs == _NOT_GIVEN:
        args.num_train_epochs = float(needed) if needed > 0 else _EPOCHS
    elif needed > args.num_train_epochs:
        told = f"--num_train_epochs {args.num_train_epochs:g} ends before"
        raise RunError(f"{recipe} takes {needed:g} epochs, {told}")


def last_whole(output: Path, follows: bool) -> Path | None:
    """Return the last checkpoint of a run that can be gone on from; of later ones it is told why.

    :param follows: whether the run follows a recipe
    """
    for folder in checkpoints_in(output):
        problem = problem_of(folder, follows)
        if problem is None:
            return folder
        _LOGGER.warning("%s is passed over: %s", folder, problem)
    return None


def settle_output(args: TrainingArguments, overwrite: bool, follows: bool) -> Path | None:
    """Return the checkpoint to go on from, if that is wanted, and make room for the run if not.

    :param follows: whether the run follows a recipe
    :raises RunError: for a checkpoint that is none, or a folder with a run that is not to go
    """
    told, output = args.resume_from_checkpoint, Path(args.output_dir or "trainer_output")
    if told is not None and args.do_train:
        if str(told).lower() in _LAST:
            found = last_whole(output, follows)
        else:
            found = Path(told)
            if problem := problem_of(found, follows):
                raise RunError(f"--resume_from_checkpoint {told} is no checkpoint: {problem}")
        if found is None:
            raise RunError(f"--resume_from_checkpoint {told}: {output} has no checkpoint")
        return found
    if not args.do_train or args.process_index > 0:  # the first may have begun to write
        return None
    left = [output / RUN_FOLDER, *output.glob("checkpoint-*")]
    left = [folder for folder in left if folder.exists()]
    if left and not overwrite:
        raise RunError(
            f"--output_dir {output} holds a run ({left[0].name}): give --resume_from_checkpoint "
            "true to go on with it, --overwrite_output_dir to replace it, or another folder"
        )
    if left:
        lock = FolderLock(output / RUN_FOLDER)
        for folder in checkpoints_in(output):
            shutil.rmtree(folder)
        lock.release()
    return None
