"""The flags that the scripts have in common."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from timm.utils import ParseKwargs

from sparseml.run.errors import RunError, one_line
from sparseml.run.ranges import require_ranges
from sparseml.utils.text import did_you_mean, quoted_list

__all__ = [
    "INTERPOLATIONS",
    "add_data_flags",
    "add_model_flags",
    "add_run_flags",
    "add_sampler_flags",
    "flag_pair",
    "model_kwargs",
    "parse",
    "with_dashes",
]

# as timm names them
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


def with_dashes(argv: Sequence[str]) -> list[str]:
    """Arguments with dashes for underscores in the names of flags: ``--data_dir`` also works."""
    return [_dashed(text) if text.startswith("--") else text for text in argv]


def _dashed(text: str) -> str:
    name, separator, value = text.partition("=")
    return name.replace("_", "-") + separator + value


def flag_pair(parser: Any, name: str, default: bool, text: str) -> None:
    """Add ``--name`` and ``--no-name``."""
    parser.add_argument(
        f"--{name}", action=argparse.BooleanOptionalAction, default=default, help=text
    )


def add_model_flags(parser: ArgumentParser) -> None:
    """The model, its weights and its input."""
    group = parser.add_argument_group("model")
    add = group.add_argument
    add("--model", default="deit_small_patch16_224", help="name in timm, or module.path:callable")
    add(
        "--checkpoint",
        "--checkpoint-path",
        "--initial-checkpoint",
        metavar="FILE",
        help="weights to start from, .safetensors or torch's",
    )
    flag_pair(group, "pretrained", None, "timm's pretrained weights [if no --checkpoint]")  # type: ignore[arg-type]
    add("--num-classes", type=int, help="outputs of the model, its own number by default")
    add("--model-kwargs", nargs="*", default={}, action=ParseKwargs, metavar="KEY=VALUE")
    add("--split-qkv", action="store_true", help="three layers in place of each attention's qkv")
    add("--img-size", type=int)
    add("--input-size", nargs=3, type=int, metavar=("C", "H", "W"))
    add("--in-chans", type=int)
    add("--crop-pct", type=float)
    add("--mean", type=float, nargs="+")
    add("--std", type=float, nargs="+")
    add("--interpolation", choices=("", *INTERPOLATIONS), default="", help="[the model's]")


def model_kwargs(args: Namespace) -> dict[str, Any]:
    """Keywords for the function that builds the model, as far as flags give any."""
    # rates of zero are what every model has by itself, and not every model takes them
    names = ("num_classes", "in_chans", "drop_rate", "drop_path_rate")
    given = {name: getattr(args, name, None) for name in names}
    return {key: value for key, value in given.items() if value} | args.model_kwargs


def add_data_flags(parser: ArgumentParser) -> None:
    """Where the images are."""
    group = parser.add_argument_group("data")
    add = group.add_argument
    add("--data-dir", required=True, metavar="FOLDER")
    add("--dataset", default="imagenet", help="timm's create_dataset, or module.path:callable")
    add("--train-split", default="train")
    add("--val-split", default="validation")
    add("--class-map", default="", metavar="FILE", help="names of the classes, a line each")
    add("--dataset-download", action="store_true")
    add("-vb", "--val-batch-size", "--validation-batch-size", type=int, default=128)
    add("-j", "--workers", type=int, default=4, help="processes that load images")
    flag_pair(group, "prefetcher", True, "overlap copies to the GPU with its work")
    add("--pin-mem", action="store_true")


def add_sampler_flags(parser: ArgumentParser, batch_flags: Sequence[str]) -> None:
    """Batches that gradients are sampled on."""
    group = parser.add_argument_group(
        "gradient sampler", "for recipes whose pruners need gradients; without mixup and smoothing"
    )
    add = group.add_argument
    add("--gs-loader", action="store_true", help="no longer needed: built when a recipe needs it")
    add(*batch_flags, type=int, default=None, dest="gs_batch_size", metavar="N")
    add("--gs-no-training", action="store_true", help="images as for validation: not augmented")
    add("--gs-no-aug", action="store_true", help="no augmentation but resizing and cropping")
    add("--gs-aa", action="store_true", help="augment by the policy of --aa")
    add("--gs-distributed", action="store_true", help="each process samples its own share")


def add_run_flags(parser: ArgumentParser, output: str) -> None:
    """Recipe, where results go, and how to compute."""
    group = parser.add_argument_group("run")
    add = group.add_argument
    add("--sparseml-recipe", "--recipe", required=True, metavar="FILE")
    add("--recipe-args", metavar="TEXT", help="variables of the recipe: JSON, or name=value,...")
    add("--output", "--output-dir", default=output, metavar="FOLDER")
    add("--experiment", default="", metavar="NAME", help="folder below --output [model, recipe]")
    add("--overwrite", action="store_true", help="replace the run that is in that folder")
    add("--seed", type=int, default=42)
    add("--device", default="auto", help="cpu, cuda, cuda:1 [auto]")
    add("--threads", type=int, metavar="N", help="of the CPU, per process")
    add("--channels-last", action="store_true", help="layout of images and convolutions in memory")
    add("--amp", action="store_true", help="mixed precision")
    add("--amp-dtype", choices=("float16", "bfloat16"), help="[float16 on GPUs, else bfloat16]")
    add("--bn-retune", type=int, default=0, metavar="BATCHES", help="batch norms after pruning")
    add("--timeout", type=float, default=1800.0, help="seconds that processes wait for each other")
    add("--log-wandb", action="store_true", help="to Weights & Biases, also offline (WANDB_MODE)")
    add("--log-tensorboard", action="store_true")
    add("--project", default="sparseml", help="in Weights & Biases")
    flag_pair(group, "report", True, "write report.html at the end")


def parse(
    parser: ArgumentParser, argv: Sequence[str], ignored: Mapping[str, Any] | None = None
) -> tuple[Namespace, set[str]]:
    """The arguments, and the names of those given on the command line.

    With a flag ``--config``, the YAML file it names gives defaults for the others. A setting there
    that no flag takes must be off (false, 0, empty), as timm's files list all that timm has.

    :param ignored: settings of such files that change nothing here
    :raises RunError: for a file that cannot be used, with the nearest names of flags, and for
        numbers out of range
    """
    argv = with_dashes(argv)
    if parser.get_default("config") is not None or _has_config(parser):
        finder = ArgumentParser(add_help=False, allow_abbrev=False)
        finder.add_argument("-c", "--config")
        file = finder.parse_known_args(argv)[0].config
        if file:
            parser.set_defaults(**_config(parser, file, ignored or {}))
    args = parser.parse_args(argv)
    require_ranges(parser, args)
    bare = Namespace(**{action.dest: None for action in parser._actions})
    return args, _given(parser, argv, bare)


def _has_config(parser: ArgumentParser) -> bool:
    return any(action.dest == "config" for action in parser._actions)


def _given(parser: ArgumentParser, argv: Sequence[str], bare: Namespace) -> set[str]:
    flags = {option: action.dest for action in parser._actions for option in action.option_strings}
    names = {text.partition("=")[0] for text in argv if text.startswith("-")}
    return {flags[name] for name in names if name in flags and hasattr(bare, flags[name])}


def _config(parser: ArgumentParser, file: str, ignored: Mapping[str, Any]) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise RunError(f"--config {file}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RunError(f"--config {file} is no YAML: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise RunError(
            f"--config {file} must map names to values, found a {type(content).__name__}"
        )
    known = {action.dest: action for action in parser._actions}
    aliases = {
        option.lstrip("-").replace("-", "_"): action.dest
        for action in parser._actions
        for option in action.option_strings
    }
    settings = {}
    for key, value in content.items():
        name = aliases.get(str(key), str(key))
        if name in known:
            settings[name] = _converted(known[name], value, file)
        elif value and key not in ignored:
            hint = did_you_mean(str(key), known)
            raise RunError(f"--config {file}: there is no setting {key!r} (found {value!r}){hint}")
    for action in parser._actions:
        if action.dest in settings:
            action.required = False
    return settings


def _converted(action: argparse.Action, value: Any, file: str) -> Any:
    kind = action.type
    name = f"--config {file}: {action.dest}"
    if action.nargs == 0 and value is not None and not isinstance(value, bool):
        raise RunError(f"{name} must be true or false, found {value!r}")
    if action.choices is not None and value not in (None, *action.choices):
        allowed = quoted_list([str(choice) for choice in action.choices])
        raise RunError(f"{name} must be {allowed}, found {value!r}")
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise RunError(f"{name} must be a whole number, found {value!r}")
    if value is None or not callable(kind) or isinstance(value, (list, dict)):
        return value
    try:
        return kind(value)
    except (TypeError, ValueError) as error:
        raise RunError(
            f"{name} must be of type {getattr(kind, '__name__', kind)}, found {value!r}"
        ) from error
