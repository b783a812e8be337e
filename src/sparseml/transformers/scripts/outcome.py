"""What a run of a script leaves behind: the run directory, and the sparsity in two ratios."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparseml.pytorch.utils.layers import evaluating
from sparseml.report import Layer, RunDirectory, Variant, describe_model, measure_latency
from sparseml.run.progress import say
from sparseml.run.session import Found, Metric

_COUNTED = re.compile(r"^Linear$|Conv.d")
_MEGABYTE = 1e6
_SAID = {"dense": "before training", "sparse": "after training"}


@dataclass(frozen=True)
class SparsityRatios:
    """How many weights a recipe has pruned, of different wholes.

    :param zeros: in the parameters that it prunes
    :param matmul: weights of all linear and convolution layers, whether pruned or not
    :param all: parameters of the model
    """

    zeros: int
    matmul: int
    all: int

    @property
    def of_matmul(self) -> float:
        """Return the share of the weights of linear and convolution layers, as Intel's pruner
        reports it."""
        return self.zeros / max(1, self.matmul)

    @property
    def of_all(self) -> float:
        """Return the share of all parameters."""
        return self.zeros / max(1, self.all)

    def text(self) -> str:
        """Return both in words."""
        return (
            f"The recipe has pruned {self.zeros:,} weights: {self.of_matmul:.2%} of the "
            f"{self.matmul:,} in linear and convolution layers, pooler and head among them, and "
            f"{self.of_all:.2%} of all {self.all:,} parameters."
        )


def sparsity_ratios(model: nn.Module, zeros: int) -> SparsityRatios:
    """Return the ratios of a pruned model.

    :param zeros: weights that the recipe has pruned
    """
    found = (module for module in model.modules() if _COUNTED.search(type(module).__name__))
    weights: list[Any] = [getattr(module, "weight", None) for module in found]
    counted = {id(one): one.numel() for one in weights if isinstance(one, torch.Tensor)}
    everything = sum(param.numel() for param in model.parameters())
    return SparsityRatios(zeros, sum(counted.values()), everything)


@dataclass(frozen=True)
class Outcome:
    """Writes what came of a run.

    :param run: where to
    :param metrics: what evaluations find
    :param samples: how many are evaluated on
    :param inputs: gives a batch of one, as keywords for the model
    :param trained: whether the weights before training were those of a trained model, head and all
    """

    run: RunDirectory
    metrics: Sequence[Metric]
    samples: int
    inputs: Callable[[], Mapping[str, Any]]
    trained: bool

    def write(
        self, name: str, model: nn.Module, found: Found, layers: Sequence[Layer] | None = None
    ) -> None:
        """Write what a model is like, ``dense`` or ``sparse``, and say it.

        :param layers: zeros of each
        """
        told = {metric.name: found[metric.name] for metric in self.metrics}
        with evaluating(model):
            inputs = dict(self.inputs())
            variant = describe_model(model, told, inputs, samples=self.samples)
        if name == "dense":
            variant = variant.model_copy(update={"trained": self.trained})
        self.run.write_result({name: variant}, layers)
        say(f"{_SAID.get(name, name)}: {self.line(variant)}")

    def line(self, variant: Variant) -> str:
        """Return what is known of a model in one line."""
        told = [metric.text(variant.metrics) for metric in self.metrics]
        if variant.parameters and variant.nonzero is not None:
            told.append(f"zeros {1 - variant.nonzero / variant.parameters:.2%}")
        if variant.storage:
            size, packed = variant.storage.dense, variant.storage.gzip or 0
            told.append(f"{size / _MEGABYTE:.1f} MB, gzipped {packed / _MEGABYTE:.1f} MB")
        return "  ".join(told)

    def time(self, models: Mapping[str, nn.Module], rounds: int) -> None:
        """Take times of models, in turns, and say the medians."""
        taken = measure_latency(models, dict(self.inputs()), rounds)
        self.run.write_result({name: {"latency": [times]} for name, times in taken.items()})
        each = (f"{_SAID[name]} {times.median_ms:.2f} ms" for name, times in taken.items())
        told = ", ".join(each)
        say(f"latency of one text: {told}")
