"""The flags of training: timm's, as far as they matter while a model is pruned."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from timm.utils import ParseKwargs

from sparseml.timm.options import (
    INTERPOLATIONS,
    add_data_flags,
    add_model_flags,
    add_run_flags,
    add_sampler_flags,
    flag_pair,
)

__all__ = ["IGNORED_SETTINGS", "training_parser", "training_settings"]

# in timm's files, but without effect here whatever the value
IGNORED_SETTINGS: dict[str, str] = {
    "worker_seeding": "all workers are seeded",
    "eval_metric": "top1 decides",
    "recovery_interval": "each epoch ends with a checkpoint",
    "checkpoint_hist": "one checkpoint per sparsity is kept",
    "jsd_loss": "",
    "native_amp": "--amp",
    "save_images": "",
    "tta": "",
    "decay_milestones": "",
    "resplit": "",
    "use_multi_epochs_loader": "",
    "local_rank": "torchrun tells",
    "dist_backend": "the device tells",
}


def training_parser(description: str) -> ArgumentParser:
    """The parser of ``sparse_training.py``."""
    parser = ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("-c", "--config", metavar="FILE", help="YAML of defaults for all flags")
    add_data_flags(parser)
    add_model_flags(parser)
    add_sampler_flags(parser, ("-gb", "--gs-batch-size"))
    add_run_flags(parser, "./output/train")
    _add_optimisation(parser)
    _add_schedule(parser)
    _add_augmentation(parser)
    _add_extras(parser)
    _add_checkpoints(parser)
    return parser


def training_settings() -> Namespace:
    """All settings of a training run, with their defaults."""
    parser = training_parser("")
    return Namespace(**{action.dest: action.default for action in parser._actions})


def _add_optimisation(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("optimisation")
    add = group.add_argument
    add("-b", "--batch-size", type=int, default=128, help="of each process")
    add("--grad-accum-steps", type=int, default=1, metavar="N", help="batches per optimizer step")
    add("--opt", default="sgd", help="name in timm")
    add("--opt-eps", type=float)
    add("--opt-betas", type=float, nargs="+")
    add("--opt-kwargs", dest="opt_args", nargs="*", default={}, action=ParseKwargs)
    add("--momentum", type=float, default=0.9)
    add("--weight-decay", type=float, default=2e-5)
    add("--layer-decay", type=float)
    add("--clip-grad", type=float)
    add("--clip-mode", choices=("norm", "value", "agc"), default="norm")
    add("--drop", dest="drop_rate", type=float)
    add("--drop-path", dest="drop_path_rate", type=float)
    add("--sync-bn", action="store_true")
    add("--dist-bn", choices=("reduce", "broadcast", ""), default="reduce")


def _add_schedule(parser: ArgumentParser) -> None:
    group = parser.add_argument_group(
        "learning rate", "not used when the recipe has a modifier for it"
    )
    add = group.add_argument
    add("--epochs", type=int, help="[the recipe's, or 300]")
    add("--sched", default="cosine")
    add("--sched-on-updates", action="store_true")
    add("--lr", type=float, help="[--lr-base scaled by the batch size]")
    add("--lr-base", type=float, default=0.1)
    add("--lr-base-size", type=int, default=256)
    for name, value in {
        "warmup-epochs": 5,
        "cooldown-epochs": 0,
        "decay-epochs": 90,
        "patience-epochs": 10,
        "lr-cycle-limit": 1,
    }.items():
        add(f"--{name}", type=int, default=value)
    for name, default in {
        "warmup-lr": 1e-5,
        "min-lr": 0.0,
        "decay-rate": 0.1,
        "lr-cycle-mul": 1.0,
        "lr-cycle-decay": 0.5,
        "lr-k-decay": 1.0,
    }.items():
        add(f"--{name}", type=float, default=default)
    add("--warmup-prefix", action="store_true")


def _add_augmentation(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("augmentation")
    add = group.add_argument
    add("--no-aug", action="store_true")
    add("--aa", help="policy of timm's auto_augment")
    add("--aug-repeats", type=float, default=0)
    add("--scale", type=float, nargs=2, default=(0.08, 1.0))
    add("--ratio", type=float, nargs=2, default=(3 / 4, 4 / 3))
    for name, value in {"hflip": 0.5, "vflip": 0.0, "color-jitter": 0.4, "reprob": 0.0}.items():
        add(f"--{name}", type=float, default=value)
    add("--remode", choices=("pixel", "rand", "const"), default="pixel")
    add("--recount", type=int, default=1)
    add("--train-interpolation", choices=("", "random", *INTERPOLATIONS), default="random")
    add("--train-crop-mode", choices=("rrc", "rkrc", "rkrr"), help="timm's way to crop [rrc]")
    for name, default in {"mixup": 0.0, "cutmix": 0.0, "mixup-prob": 1.0}.items():
        add(f"--{name}", type=float, default=default)
    add("--cutmix-minmax", type=float, nargs=2)
    add("--mixup-switch-prob", type=float, default=0.5)
    add("--mixup-mode", choices=("batch", "pair", "elem"), default="batch")
    add("--mixup-off-epoch", type=int, default=0)
    add("--smoothing", type=float, default=0.1, help="of labels")
    add("--bce-loss", action="store_true")
    add("--bce-target-thresh", type=float)


def _add_extras(parser: ArgumentParser) -> None:
    group: Any = parser.add_argument_group("averages, sharpness, teacher")
    add = group.add_argument
    add("--model-ema", action="store_true", help="also average the weights, masked")
    add("--model-ema-decay", type=float, default=0.9998)
    add("--model-ema-warmup", action="store_true")
    add("--sam", action="store_true", help="sharpness-aware minimisation")
    add("--sam-rho", type=float, default=0.2)
    add("--sam-adaptive", action="store_true")
    add("--sam-topk", type=float, default=0.0, help="fraction of weights to leave out there")
    add("--sam-global-sparsity", action="store_true")
    add("--teacher", help="name in timm or module.path:callable")
    add("--teacher-checkpoint", metavar="FILE")
    add("--distill-weight", type=float, default=0.5)
    add("--distill-temperature", type=float, default=1.0)


def _add_checkpoints(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("checkpoints and logs")
    add = group.add_argument
    add("--resume", metavar="PATH", help="a checkpoint, or the folder of the run to go on with")
    add("--no-resume-opt", action="store_true", help="resume without the optimizer's state")
    add("--checkpoint-freq", type=int, default=-1, metavar="K", help="also keep every K-th epoch's")
    flag_pair(group, "save-last", True, "keep a checkpoint to resume from")
    add("--log-interval", type=int, default=50, metavar="STEPS")
    add("--log-sparsity", action="store_true", help="sparsity of each layer when masks changed")
    add("--log-param-histogram", action="store_true", help="of weights that are not zero")
