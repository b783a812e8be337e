"""Trained networks that the studies prune, and how the scripts are called for them."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study_results import add_flags

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "research/README.md"  # shows the tables

_CIFAR = "research.images.image_grid:cifar10"
_IMAGENET = "research.images.zipped_images:imagenet_sample"
# nearly twice as fast for convolutions on the CPUs that know it; slower for the small ViT
_BFLOAT16 = ["--amp", "--amp-dtype", "bfloat16"]
# the stored images are squares of 227 pixels, of which a network sees the middle 224
_IMAGENET_INPUT = [*["--crop-pct", "0.98678"], *["--mean", *3 * ["0.5"]], *["--std", *3 * ["0.5"]]]


@dataclass(frozen=True)
class Task:
    """A trained network, its images, and the recipes that fit it.

    :param title: in tables
    :param model: as ``--model`` takes it
    :param weights: file below ``weights/`` of the folder of data
    :param family: of recipes
    :param folder: of images, below the folder of data
    :param dataset: as ``--dataset`` takes it
    :param flags: more flags of both scripts
    :param gradients: to sample in one shot: how many, and of how many images each
    """

    title: str
    model: str
    weights: str
    family: str
    folder: str = "cifar10"
    dataset: str = _CIFAR
    flags: Sequence[str] = ()
    gradients: tuple[int, int] = (512, 16)


TASKS = {
    "resnet20": Task(
        "ResNet-20",
        "research.models.cifar_resnet:resnet20",
        "cifar10_resnet20",
        "resnet",
        flags=_BFLOAT16,
    ),
    "resnet56": Task(
        "ResNet-56",
        "research.models.cifar_resnet:resnet56",
        "cifar10_resnet56",
        "resnet",
        flags=_BFLOAT16,
    ),
    "small_vit": Task(
        "small ViT", "research.models.small_vit:small_vit", "cifar10_vit_d4_w128", "vit"
    ),
    "mobilenetv1": Task(
        "MobileNetV1 0.75",
        "research.models.mobilenet_v1:mobilenet_v1_075",
        "imagenet_mobilenetv1_075",
        "efficientnet",
        "imagenet_val1000",
        _IMAGENET,
        [*_BFLOAT16, *_IMAGENET_INPUT],
        (200, 2),
    ),
    "mobilenetv2": Task(
        "MobileNetV2 1.0",
        "mobilenetv2_100",
        "imagenet_mobilenetv2_100",
        "efficientnet",
        "imagenet_val1000",
        _IMAGENET,
        [*_BFLOAT16, *_IMAGENET_INPUT, "--model-kwargs", "pad_type=same"],
        (200, 2),
    ),
}


def study_parser(description: str, study: str) -> ArgumentParser:
    """The flags that studies by the scripts have."""
    parser = ArgumentParser(description=description, allow_abbrev=False)
    add = parser.add_argument
    add("--data", type=Path, metavar="FOLDER", help="holds the images and weights/")
    add("--tasks", nargs="+", choices=TASKS, default=list(TASKS), metavar="TASK")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--threads", type=int, default=1)
    add_flags(parser, study)
    return parser


def require_data(args: Namespace) -> None:
    """Make the folder of the data absolute.

    :raises SystemExit: if there is none
    """
    if args.data is None or not args.data.is_dir():
        found = "" if args.data is None else f", found {args.data}"
        raise SystemExit(f"--data must be the folder that holds the images and weights/{found}")
    args.data = args.data.absolute()


def call(
    script: str,
    task: Task,
    args: Namespace,
    recipe: str,
    variables: dict[str, Any],
    seed: int,
    folder: Path,
    flags: Sequence[str] = (),
) -> None:
    """Run a script of this folder on a task.

    :param script: its file's name
    :param recipe: folder below ``recipes/timm``
    :param variables: of the recipe
    :param folder: of the run
    :raises subprocess.CalledProcessError: if it fails
    """
    path = ROOT / "recipes/timm" / recipe / f"{task.family}.yaml"
    command = [sys.executable, str(ROOT / "research" / script)]
    command += ["--model", task.model, "--dataset", task.dataset]
    command += ["--checkpoint", str(args.data / "weights" / f"{task.weights}.safetensors")]
    command += ["--data-dir", str(args.data / task.folder), "--sparseml-recipe", str(path)]
    command += ["--recipe-args", json.dumps(variables), "--seed", str(seed)]
    command += ["--output", str(folder.parent), "--experiment", folder.name, "--overwrite"]
    command += ["-gb", str(task.gradients[1]), "-vb", "50", "--workers", "0", "--no-report"]
    command += ["--threads", str(args.threads), "--channels-last", *task.flags, *flags]
    subprocess.run(command, cwd=ROOT, check=True)
