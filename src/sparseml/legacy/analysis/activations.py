"""How sparse the activations of a layer are."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.legacy.helpers.tensors import tensor_sample
from sparseml.pytorch.utils.layer_tracking import ASLayerTracker
from sparseml.pytorch.utils.layers import get_layer
from sparseml.pytorch.utils.tensors.nested import iter_tensors
from sparseml.pytorch.utils.tensors.stats import tensor_sparsity

__all__ = ["ASResultType", "ModuleASAnalyzer"]


class ASResultType(enum.Enum):
    """What is measured."""

    inputs_sparsity = "inputs_sparsity"
    inputs_sample = "inputs_sample"
    outputs_sparsity = "outputs_sparsity"
    outputs_sample = "outputs_sample"


def _results(kind: ASResultType) -> Any:
    return property(lambda self: self.results(kind), doc=f"The {kind.value} of each pass.")


def _summary(kind: ASResultType, how: str) -> Any:
    def get(self: ModuleASAnalyzer) -> Tensor:
        return getattr(self, f"results_{how}")(kind)

    return property(get, doc=f"The {how} of {kind.value} over all passes.")


class ModuleASAnalyzer:
    """Measures the activations of a layer in every forward pass.

    Each tensor that goes in (or comes out) in a pass gives one result, on the CPU: its fraction of
    exact zeros, or values drawn from it at random. Means and the like are over all results and, for
    drawn values, over the values too; they raise a RuntimeError where nothing was measured.

    :param module: the layer
    :param dim: measure for each index of this dimension or these dimensions; None for whole tensors
    :param track_inputs_sparsity: measure the fraction of zeros of what goes in
    :param track_outputs_sparsity: measure that of what comes out
    :param inputs_sample_size: draw so many values of what goes in; 0 for none
    :param outputs_sample_size: draw so many values of what comes out; 0 for none
    :param enabled: measure from now on
    :param seed: of the drawing
    """

    def __init__(
        self,
        module: nn.Module,
        dim: int | Sequence[int] | None = None,
        track_inputs_sparsity: bool = False,
        track_outputs_sparsity: bool = False,
        inputs_sample_size: int = 0,
        outputs_sample_size: int = 0,
        enabled: bool = True,
        *,
        seed: int = 0,
    ) -> None:
        self._module = module
        self._dim = dim
        self._measures = {
            "inputs": (track_inputs_sparsity, inputs_sample_size),
            "outputs": (track_outputs_sparsity, outputs_sample_size),
        }
        self._seed = seed
        self._generators: dict[torch.device, torch.Generator] = {}
        self._tracker = ASLayerTracker(
            module, True, True, self._measure("inputs"), self._measure("outputs")
        )
        self._enabled = False
        self.clear()
        if enabled:
            self.enable()

    @staticmethod
    def analyze_layers(
        module: nn.Module, layers: Sequence[str], *args: Any, **kwargs: Any
    ) -> dict[str, ModuleASAnalyzer]:
        """Return an analyzer for each of the named layers of ``module``, by name.

        :param args: the remaining arguments of each analyzer, as ``kwargs``
        :raises AttributeError: naming the nearest names, if there is no such layer
        """
        return {name: ModuleASAnalyzer(get_layer(name, module), *args, **kwargs) for name in layers}

    module = property(attrgetter("_module"), doc="The layer.")
    dim = property(attrgetter("_dim"), doc="What is measured index by index.")
    enabled = property(attrgetter("_enabled"), doc="Whether forward passes are measured.")
    inputs_sparsity = _results(ASResultType.inputs_sparsity)
    inputs_sparsity_mean = _summary(ASResultType.inputs_sparsity, "mean")
    inputs_sparsity_std = _summary(ASResultType.inputs_sparsity, "std")
    inputs_sparsity_max = _summary(ASResultType.inputs_sparsity, "max")
    inputs_sparsity_min = _summary(ASResultType.inputs_sparsity, "min")
    inputs_sample = _results(ASResultType.inputs_sample)
    inputs_sample_mean = _summary(ASResultType.inputs_sample, "mean")
    inputs_sample_std = _summary(ASResultType.inputs_sample, "std")
    inputs_sample_max = _summary(ASResultType.inputs_sample, "max")
    inputs_sample_min = _summary(ASResultType.inputs_sample, "min")
    outputs_sparsity = _results(ASResultType.outputs_sparsity)
    outputs_sparsity_mean = _summary(ASResultType.outputs_sparsity, "mean")
    outputs_sparsity_std = _summary(ASResultType.outputs_sparsity, "std")
    outputs_sparsity_max = _summary(ASResultType.outputs_sparsity, "max")
    outputs_sparsity_min = _summary(ASResultType.outputs_sparsity, "min")
    outputs_sample = _results(ASResultType.outputs_sample)
    outputs_sample_mean = _summary(ASResultType.outputs_sample, "mean")
    outputs_sample_std = _summary(ASResultType.outputs_sample, "std")
    outputs_sample_max = _summary(ASResultType.outputs_sample, "max")
    outputs_sample_min = _summary(ASResultType.outputs_sample, "min")

    def enable(self) -> None:
        """Measure from now on."""
        self._tracker.enable()
        self._enabled = True

    def disable(self) -> None:
        """Stop measuring; results stay."""
        self._tracker.disable()
        self._enabled = False

    def clear(self, specific_result_type: ASResultType | None = None) -> None:
        """Forget the results of one kind, or all."""
        if specific_result_type is None:
            self._results: dict[ASResultType, list[Tensor]] = {kind: [] for kind in ASResultType}
        else:
            self._results[specific_result_type] = []

    def results(self, result_type: ASResultType) -> list[Tensor]:
        """Return the results of one kind: ``[*dims]``, for drawn values ``[*dims, size]``."""
        return self._results[result_type]

    def results_mean(self, result_type: ASResultType) -> Tensor:
        """Return the mean of one kind of results, of shape ``[*dims]``."""
        return self._stacked(result_type).mean(0)

    def results_std(self, result_type: ASResultType) -> Tensor:
        """Return the standard deviation of one kind of results; NaN for a single value."""
        stacked = self._stacked(result_type)
        return stacked.std(0) if len(stacked) > 1 else torch.full_like(stacked[0], torch.nan)

    def results_max(self, result_type: ASResultType) -> Tensor:
        """Return the highest of one kind of results."""
        return self._stacked(result_type).amax(0)

    def results_min(self, result_type: ASResultType) -> Tensor:
        """Return the lowest of one kind of results."""
        return self._stacked(result_type).amin(0)

    def _stacked(self, kind: ASResultType) -> Tensor:
        """Return all values to be summed up in the first dimension."""
        results = self._results[kind]
        if not results:
            raise RuntimeError(f"no {kind.value} was measured: enable it and run a forward pass")
        stacked = torch.stack(results)
        if kind in (ASResultType.inputs_sample, ASResultType.outputs_sample):
            stacked = stacked.movedim(-1, 0).flatten(0, 1)
        return stacked

    def _measure(self, side: str) -> Callable[[Any], None]:
        sparsity, sample_size = self._measures[side]

        def measure(values: Any) -> None:
            for tensor in map(Tensor.detach, iter_tensors(values)):
                if sparsity:
                    found = tensor_sparsity(tensor, self._dim).cpu()
                    self._results[ASResultType[f"{side}_sparsity"]].append(found)
                if sample_size > 0:
                    generator = self._generator(tensor.device)
                    drawn = tensor_sample(tensor, sample_size, self._dim, generator=generator)
                    self._results[ASResultType[f"{side}_sample"]].append(drawn.cpu())

        return measure

    def _generator(self, device: torch.device) -> torch.Generator:
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]
