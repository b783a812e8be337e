"""Prune two small networks in one shot, by every method and without training, on CIFAR-10.

    python research/cifar_one_shot_study.py --data-dir data

The repository has the results (``research/results/cifar_one_shot.md``); ``--again`` finds them
anew. They go to ``cifar_one_shot.json`` below ``--out``, ``runs/cifar_one_shot_study`` by default,
as they are found; what is there is not computed again, so a run that was stopped goes on, and
several can run at once (``--models``). At the end, or alone with ``--render``, table and plot are
written beside it; those of the documentation only with ``--out research/results``.

Blocks of 64 weights and a dampening of 1e-6 are what the results were found with, and no advice:
with the values of the recipes CAP keeps more (``docs/second_order.md``).
"""

from __future__ import annotations

import copy
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from images.image_grid import cifar10
from models.cifar_resnet import resnet20
from recorded_gradients import RecordingLoss, endless_batches, grad_sampler
from safetensors.torch import load_file
from study_results import StudyResults, add_flags, settle
from torch import Tensor, nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.pruning import (
    CAPruningModifier,
    FastCAPruningModifier,
    GlobalMagnitudePruningModifier,
    GWProdPruningModifier,
    MagnitudePruningModifier,
    MFACPruningModifier,
    OBSPruningModifier,
)
from sparseml.pytorch.utils.tensors.stats import tensor_list_sparsity
from sparseml.run.errors import run_reported

ROOT = Path(__file__).parents[1]
PAGE, PICTURE = ROOT / "docs/second_order.md", ROOT / "docs/images/cifar_one_shot.svg"

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9)
TELLING_FIRST = (0.8, 0.9, 0.7, 0.6, 0.5)
NUM_GRADS, BATCH_SIZE, BLOCK_SIZE, DAMP = 512, 16, 64, 1e-6
SETTINGS = {
    "gradients": NUM_GRADS,
    "batch_size": BATCH_SIZE,
    "fisher_block_size": BLOCK_SIZE,
    "damp": DAMP,
    "fast_cap_relative_damp": 1e-2,
    "test_images": 10_000,
}
MODELS = {"resnet20": "ResNet-20", "small_vit": "small ViT"}
NOTES = {
    "resnet20": "batch norms hold the statistics of the dense network: this compares more than "
    "choices; measured anew, global magnitude, stem and classifier dense, keeps 79% at 80%"
}
FILES = {"resnet20": "cifar10_resnet20", "small_vit": "cifar10_vit_d4_w128"}

_FISHER = {"num_grads": NUM_GRADS, "damp": DAMP, "fisher_block_size": BLOCK_SIZE}
_GLOBAL = {**_FISHER, "global_sparsity": True}


@dataclass(frozen=True)
class Method:
    """How one line of the table is found.

    :param title: in the table
    :param modifier: takes the fields that all pruning modifiers have
    :param samples: whether it prunes by gradients, so that seeds matter
    :param steps: with gradients of their own each
    """

    title: str
    modifier: Callable[..., Any]
    samples: bool = True
    steps: int = 1


METHODS = {
    "global_magnitude": Method("magnitude, global", GlobalMagnitudePruningModifier, samples=False),
    "cap": Method("CAP", partial(CAPruningModifier, **_GLOBAL)),
    "obs": Method("OBS", partial(OBSPruningModifier, **_GLOBAL)),
    "obs_joint": Method(
        "OBS, joint update", partial(OBSPruningModifier, **_GLOBAL, weight_update="joint")
    ),
    "fast_cap": Method("FastCAP", partial(FastCAPruningModifier, **{**_FISHER, "damp": 1e-2})),
    "mfac": Method("M-FAC", partial(MFACPruningModifier, **_GLOBAL)),
    "magnitude": Method("magnitude, uniform", MagnitudePruningModifier, samples=False),
    "gw": Method(
        "gradient x weight",
        partial(GWProdPruningModifier, num_grads=NUM_GRADS, global_sparsity=True),
    ),
    "cap_x5": Method(
        "CAP, 5 steps", partial(CAPruningModifier, **_GLOBAL, num_recomputations=5), steps=5
    ),
    "obs_x8": Method(
        "OBS, 8 steps", partial(OBSPruningModifier, **_GLOBAL, num_recomputations=8), steps=8
    ),
}
ROW_ORDER = (
    "magnitude global_magnitude gw mfac obs obs_joint obs_x8 fast_cap cap cap_x5".split()  # noqa: SIM905
)


def arguments() -> Namespace:
    """The flags."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--data-dir", default=os.environ.get("SPARSEML_DATA", "data"))
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--sparsities", type=float, nargs="*", default=list(TELLING_FIRST))
    add_flags(parser, "cifar_one_shot_study")
    return parser.parse_args()


def main() -> None:
    """Find what is missing, and show what there is."""
    args = arguments()
    settle(args)
    results = StudyResults.of("cifar_one_shot", args, SETTINGS)
    if not args.render:
        jobs = [
            (name, method, seed)
            for name in args.models
            for seed in args.seeds
            for method in args.methods
            if METHODS[method].samples or seed == 0
        ]
        left = [len(results.missing(*job, args.sparsities)) for job in jobs]
        results.tell(len(jobs) * len(args.sparsities), sum(left))
        for name in args.models if any(left) else ():
            study = Study(name, Path(args.data_dir), results)
            study.dense()
            for seed in args.seeds:
                study.run(seed, args.methods, args.sparsities)
    render(results)


def render(results: StudyResults) -> None:
    """Write the table and the plot; for the committed results those of the documentation."""
    titles = {name: METHODS[name].title for name in ROW_ORDER}
    results.show(MODELS, titles, SPARSITIES, PAGE, PICTURE, NOTES)


class Study:
    """All methods on one network.

    :param name: of the network
    :param data: the folder of images and weights
    :param results: where they go
    """

    def __init__(self, name: str, data: Path, results: StudyResults) -> None:
        self.name, self.results = name, results
        net = _network(name)
        net.load_state_dict(load_file(data / f"weights/{FILES[name]}.safetensors"))
        self.net = net.eval().to(memory_format=torch.channels_last)
        self.train = _split(data, "train", net.pretrained_cfg)
        self.test = _split(data, "test", net.pretrained_cfg)

    def dense(self) -> None:
        """The network as it is."""
        if self.results.missing(self.name, "dense", 0, [0.0]):
            self._add("dense", 0, 0.0, self.net)

    def run(self, seed: int, methods: Sequence[str], sparsities: Sequence[float]) -> None:
        """All that one seed asks for; methods of several steps last."""
        direct = [name for name in methods if METHODS[name].steps == 1]
        stepwise = [name for name in methods if METHODS[name].steps > 1]
        jobs = [(name, list(sparsities)) for name in direct]
        jobs += [(name, [s]) for s in sparsities for name in stepwise]
        recording: RecordingLoss | None = None
        for name, wanted in jobs:
            if not METHODS[name].samples and seed:
                continue
            wanted = self.results.missing(self.name, name, seed, wanted)
            if METHODS[name].samples and wanted and recording is None:
                recording = self._recording(seed)
            for sparsity, pruned in self._pruned(name, seed, wanted, recording):
                self._add(name, seed, sparsity, pruned)

    def _pruned(
        self, name: str, seed: int, wanted: list[float], recording: RecordingLoss | None
    ) -> Iterator[tuple[float, nn.Module]]:
        method = METHODS[name]
        if not method.samples:
            for sparsity in wanted:
                pruned = copy.deepcopy(self.net)
                ScheduledModifierManager([_modifier(method, sparsity)]).apply(pruned)
                yield sparsity, pruned
        elif wanted:
            assert recording is not None
            sampler = grad_sampler(partial(endless_batches, *self.train, BATCH_SIZE, seed))
            sweep = _modifier(method, 0.5).sweep(recording, wanted, grad_sampler=sampler)
            for sparsity, outcome in sweep:
                pruned = copy.deepcopy(self.net)
                for param, (_, weight) in outcome.items():
                    pruned.get_parameter(param.removeprefix("net.")).data.copy_(weight)
                yield sparsity, pruned

    def _recording(self, seed: int) -> RecordingLoss:
        recording = RecordingLoss(self.net, _prunable(self.net))
        recording.record(endless_batches(*self.train, BATCH_SIZE, seed), NUM_GRADS)
        return recording

    def _add(self, method: str, seed: int, sparsity: float, net: nn.Module) -> None:
        zeros, accuracy = tensor_list_sparsity(_prunable(net)), _accuracy(net, *self.test)
        row = {"model": self.name, "method": method, "seed": seed, "sparsity": sparsity}
        row |= {"accuracy": accuracy, "zeros": zeros}
        self.results.add(row)
        print(row, flush=True)


def _network(name: str) -> Any:
    if name == "resnet20":
        return resnet20()
    from models.small_vit import small_vit

    return small_vit()


def _modifier(method: Method, sparsity: float) -> Any:
    return method.modifier("__ALL_PRUNABLE__", sparsity, sparsity, 0.0, 1.0, 1.0)


def _prunable(net: nn.Module) -> list[Tensor]:
    return [part.weight for part in net.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]


def _split(data: Path, name: str, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """All images of a split as the network takes them, and their labels."""
    grid = cifar10(str(data / "cifar10"), name)
    mean, std = (torch.tensor(inputs[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    images = torch.from_numpy(grid.images).permute(0, 3, 1, 2).float().div_(255)
    images = images.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)
    return images, torch.from_numpy(grid.labels)


@torch.inference_mode()
def _accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    pairs = zip(images.split(50), labels.split(50), strict=True)
    right = sum(int((net(some).argmax(1) == truth).sum()) for some, truth in pairs)
    return right / len(labels)


if __name__ == "__main__":
    sys.exit(run_reported(main))
