"""Prune two small networks in one shot, by every method and without training, on CIFAR-10.

    python research/cifar_one_shot_study.py --data-dir data

The repository has the results (``research/results/cifar_one_shot.md``); ``--again`` finds them
anew. They go to ``cifar_one_shot.json`` below ``--out``, ``runs/cifar_one_shot_study`` by default,
as they are found; what is there is not computed again, so a run that was stopped goes on, and
several can run at once (``--models``). At the end, or alone with ``--render``, table and plot are
written beside it; those of the documentation only with ``--out research/results``.

Blocks of 64 weights and a dampening of 1e-6 are what the results were found with, and no advice:
with the values of the recipes CAP keeps more (``docs/second_order.md``). ``--tuned`` takes those: a
dampening that is chosen by how far probabilities move, gradients of the outputs, of single images
but for M-FAC, and batch norms measured anew for every method where that lowers the loss; its
results are ``cifar_one_shot_tuned.json``, and its table has the old figures beside them.
``--quick`` finds 80% and 90% by one seed, on 2,000 test images.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from images.image_grid import cifar10
from models.cifar_resnet import resnet20
from recorded_gradients import RecordingLoss, endless_batches, grad_sampler, images_only
from safetensors.torch import load_file
from study_results import COMMITTED, StudyResults, add_flags, beside, settle
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

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
from sparseml.pytorch.sparsification.statistics import StatisticsTuner, tunable_norms
from sparseml.pytorch.utils.tensors.stats import tensor_list_sparsity
from sparseml.run.errors import run_reported

ROOT = Path(__file__).parents[1]
PAGE, PICTURE = ROOT / "docs/second_order.md", ROOT / "docs/images/cifar_one_shot.svg"

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9)
TELLING_FIRST = (0.8, 0.9, 0.7, 0.6, 0.5)
NUM_GRADS, BATCH_SIZE = 512, 16
BLOCK_SIZES = {"resnet20": 256, "small_vit": 192}  # those of the recipes
SETTINGS: dict[str, Any] = {
    "gradients": NUM_GRADS,
    "batch_size": BATCH_SIZE,
    "fisher_block_size": 64,
    "damp": 1e-6,
    "fast_cap_relative_damp": 1e-2,
    "test_images": 10_000,
}
TUNED_SETTINGS = {
    **SETTINGS,
    "fisher_block_size": BLOCK_SIZES,
    "damp": "auto",
    "judged_by": "distance of the classes' probabilities on 256 images or more",
    "fast_cap_relative_damp": "auto",
    "gradients_of": "outputs",
    "single_gradients": 1024,
    "batch_norms": "measured anew on 1,600 images, padded by 4, cropped and mirrored, where that "
    "lowers the loss on 512 others",
}
MODELS = {"resnet20": "ResNet-20", "small_vit": "small ViT"}
NOTES = {
    "resnet20": "batch norms hold the statistics of the dense network: this compares more than "
    "choices; measured anew, global magnitude, stem and classifier dense, keeps 79% at 80%"
}
FILES = {"resnet20": "cifar10_resnet20", "small_vit": "cifar10_vit_d4_w128"}


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


def methods_of(settings: Mapping[str, Any], model: str) -> dict[str, Method]:
    """Return all methods as they prune a network by the settings of a study."""
    blocks = settings["fisher_block_size"]
    size = blocks if isinstance(blocks, int) else blocks[model]
    fisher: dict[str, Any] = {
        "num_grads": NUM_GRADS,
        "damp": settings["damp"],
        "fisher_block_size": size,
    }
    tuned = "gradients_of" in settings
    if tuned:
        fisher["gradients_of"] = settings["gradients_of"]
    batches = {**fisher, "global_sparsity": True}
    if "single_gradients" in settings:
        fisher |= {"fisher_samples": "auto", "num_grads": settings["single_gradients"]}
    together = {**fisher, "global_sparsity": True}
    fast = {**fisher, "damp": settings["fast_cap_relative_damp"]}
    joint = {**together, "weight_update": "joint"}
    cap, obs, fast_cap = CAPruningModifier, OBSPruningModifier, FastCAPruningModifier
    if tuned:
        fast |= {"ranking": "elimination", "weight_update": "joint"}
    whole = {**fast, "fisher": "both", "global_sparsity": True}
    rows = "FastCAP, inputs and gradients, global"
    gw = partial(GWProdPruningModifier, num_grads=NUM_GRADS, global_sparsity=True)
    return {
        "global_magnitude": Method("magnitude, global", GlobalMagnitudePruningModifier, False),
        "cap": Method("CAP", partial(cap, **together)),
        "obs": Method("OBS", partial(obs, **together)),
        "obs_joint": Method("OBS, joint update", partial(obs, **joint)),
        "fast_cap": Method("FastCAP", partial(fast_cap, **fast)),
        **({"fast_cap_rows": Method(rows, partial(fast_cap, **whole))} if tuned else {}),
        "mfac": Method("M-FAC", partial(MFACPruningModifier, **batches)),
        "magnitude": Method("magnitude, uniform", MagnitudePruningModifier, False),
        "gw": Method("gradient x weight", gw),
        "cap_x5": Method("CAP, 5 steps", partial(cap, **together, num_recomputations=5), steps=5),
        "obs_x8": Method("OBS, 8 steps", partial(obs, **together, num_recomputations=8), steps=8),
    }


METHODS = methods_of(SETTINGS, "resnet20")
TUNED_METHODS = methods_of(TUNED_SETTINGS, "resnet20")
ROW_ORDER = [
    *("magnitude global_magnitude gw mfac obs obs_joint obs_x8".split()),  # noqa: SIM905
    *("fast_cap fast_cap_rows cap cap_x5".split()),  # noqa: SIM905
]


def arguments() -> Namespace:
    """The flags."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--data-dir", default=os.environ.get("SPARSEML_DATA", "data"))
    parser.add_argument("--models", nargs="*", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--methods", nargs="*", choices=list(TUNED_METHODS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--sparsities", type=float, nargs="*", default=list(TELLING_FIRST))
    parser.add_argument("--tuned", action="store_true", help="by today's defaults")
    parser.add_argument("--quick", action="store_true", help="80%% and 90%%, seed 0, few images")
    add_flags(parser, "cifar_one_shot_study")
    args = parser.parse_args()
    known = list(TUNED_METHODS if args.tuned else METHODS)
    args.methods = args.methods or known
    if unknown := [name for name in args.methods if name not in known]:
        parser.error(f"--methods {' '.join(unknown)}: only with --tuned")
    if args.quick:
        args.seeds, args.sparsities = args.seeds[:1], [s for s in args.sparsities if s >= 0.8]
    return args


def main() -> None:
    """Find what is missing, and show what there is."""
    args = arguments()
    settle(args)
    settings = {**(TUNED_SETTINGS if args.tuned else SETTINGS)}
    settings["test_images"] = 2_000 if args.quick else 10_000
    name = f"cifar_one_shot{'_tuned' if args.tuned else ''}{'_quick' if args.quick else ''}"
    results = StudyResults.of(name, args, settings)
    if not args.render:
        jobs = [
            (name, method, seed)
            for seed in args.seeds
            for name in args.models
            for method in args.methods
            if TUNED_METHODS[method].samples or seed == 0
        ]
        left = [len(results.missing(*job, args.sparsities)) for job in jobs]
        results.tell(len(jobs) * len(args.sparsities), sum(left))
        studies = [Study(name, Path(args.data_dir), results) for name in args.models if any(left)]
        for seed in args.seeds:
            for study in studies:
                study.dense()
                study.run(seed, args.methods, args.sparsities)
    render(results, args.tuned)


def render(results: StudyResults, tuned: bool) -> None:
    """Write the table and the plot; for the committed results those of the documentation."""
    methods = TUNED_METHODS if tuned else METHODS
    titles = {name: methods[name].title for name in ROW_ORDER if name in methods}
    if not tuned:
        results.show(MODELS, titles, SPARSITIES, PAGE, PICTURE, NOTES)
    elif rows := results.rows():
        before = json.loads((COMMITTED / "cifar_one_shot.json").read_text())["results"]
        results.publish(beside(before, rows, MODELS, titles, SPARSITIES), PAGE)


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
        count = results.settings["test_images"]
        images, labels = _split(data, "test", net.pretrained_cfg)
        self.test = images[:count], labels[:count]
        mean, std = (torch.tensor(net.pretrained_cfg[key]) for key in ("mean", "std"))
        self._black = -mean / std
        self.methods = methods_of(results.settings, name)

    def dense(self) -> None:
        """The network as it is."""
        if self.results.missing(self.name, "dense", 0, [0.0]):
            self._add("dense", 0, 0.0, self.net)

    def run(self, seed: int, methods: Sequence[str], sparsities: Sequence[float]) -> None:
        """All that one seed asks for; methods of several steps last."""
        direct = [name for name in methods if self.methods[name].steps == 1]
        stepwise = [name for name in methods if self.methods[name].steps > 1]
        jobs = [(name, list(sparsities)) for name in direct]
        jobs += [(name, [s]) for s in sparsities for name in stepwise]
        recording: RecordingLoss | None = None
        for name, wanted in jobs:
            if not self.methods[name].samples and seed:
                continue
            wanted = self.results.missing(self.name, name, seed, wanted)
            records = "gradients_of" not in self.results.settings
            if self.methods[name].samples and wanted and recording is None and records:
                recording = self._recording(seed)
            for sparsity, pruned in self._pruned(name, seed, wanted, recording):
                self._add(name, seed, sparsity, pruned)

    def _pruned(
        self, name: str, seed: int, wanted: list[float], recording: RecordingLoss | None
    ) -> Iterator[tuple[float, nn.Module]]:
        method = self.methods[name]
        if not method.samples:
            for sparsity in wanted:
                pruned = copy.deepcopy(self.net)
                ScheduledModifierManager([_modifier(method, sparsity)]).apply(pruned)
                yield sparsity, pruned
        elif wanted:
            batches = partial(endless_batches, *self.train, BATCH_SIZE, seed)
            sampler = grad_sampler(batches) if recording else images_only(batches)
            pruner = _modifier(method, 0.5)
            for sparsity, outcome in pruner.sweep(
                recording or self.net, wanted, grad_sampler=sampler
            ):
                pruned = copy.deepcopy(self.net)
                for param, (_, weight) in outcome.items():
                    pruned.get_parameter(param.removeprefix("net.")).data.copy_(weight)
                yield sparsity, pruned

    def _recording(self, seed: int) -> RecordingLoss:
        recording = RecordingLoss(self.net, _prunable(self.net))
        recording.record(endless_batches(*self.train, BATCH_SIZE, seed), NUM_GRADS)
        return recording

    def _add(self, method: str, seed: int, sparsity: float, net: nn.Module) -> None:
        row = {"model": self.name, "method": method, "seed": seed, "sparsity": sparsity}
        row["zeros"] = tensor_list_sparsity(_prunable(net))
        if "batch_norms" in self.results.settings and tunable_norms(net):
            row |= self._with_both_norms(net, seed)
        else:
            row["accuracy"] = _accuracy(net, *self.test)
        self.results.add(row)
        print(row, flush=True)

    def _with_both_norms(self, net: nn.Module, seed: int) -> dict[str, Any]:
        """Measure batch norms anew; return what the network can do with either."""
        stream = partial(padded_crops, *self.train, self._black, seed)
        judged = StatisticsTuner(stream, cross_entropy).tune(net)
        with judged.other():
            other = _accuracy(net, *self.test)
        accuracy = _accuracy(net, *self.test)
        old, new = (other, accuracy) if judged.kept else (accuracy, other)
        return {
            "accuracy": accuracy,
            "norms": "anew" if judged.kept else "old",
            "old": old,
            "new": new,
        }


def padded_crops(
    images: Tensor, labels: Tensor, black: Tensor, seed: int, size: int = 64
) -> Iterator[tuple[list[Tensor], dict[str, Any], Tensor]]:
    """Yield images as in training: padded by four pixels of black, cropped, half of them mirrored.

    :param black: of each channel, as the network takes it
    """
    order, (high, wide) = torch.Generator().manual_seed(seed), images.shape[-2:]
    for chosen in torch.randperm(len(images), generator=order).split(size):
        canvas = black.view(1, -1, 1, 1).expand(len(chosen), -1, high + 8, wide + 8).clone()
        canvas[..., 4:-4, 4:-4] = images[chosen]
        places = torch.randint(0, 9, (len(chosen), 2), generator=order).tolist()
        crops = torch.stack(
            [one[:, y : y + high, x : x + wide] for one, (y, x) in zip(canvas, places, strict=True)]
        )
        flipped = torch.rand(len(chosen), generator=order) < 0.5
        crops[flipped] = crops[flipped].flip(-1)
        yield [crops.contiguous(memory_format=torch.channels_last)], {}, labels[chosen]


def _network(name: str) -> Any:
    if name == "resnet20":
        return resnet20()
    from models.small_vit import small_vit

    return small_vit()


def _modifier(method: Method, sparsity: float) -> Any:
    return method.modifier(
        params="__ALL_PRUNABLE__",
        init_sparsity=sparsity,
        final_sparsity=sparsity,
        start_epoch=0.0,
        end_epoch=1.0,
        update_frequency=1.0,
    )


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
