"""How far the zeros in a model's activations can be increased before its results suffer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from sparseml.legacy.module_run.losses import LossWrapper
from sparseml.legacy.module_run.runners import ModuleRunResults, ModuleTester
from sparseml.legacy.nn.fatrelu import FATReLU, set_relu_to_fat
from sparseml.pytorch.utils.layers import get_layer
from sparseml.pytorch.utils.tensors.stats import tensor_sparsity

_MOST_HALVINGS = 60  # float64 tells no finer steps apart


@dataclass(frozen=True, eq=False)
class LayerBoostResults:
    """What boosting has done to a layer.

    Fractions of zeros of its output (``as``), one value for each batch, and losses of the model,
    with the threshold found (``boosted``) and before (``baseline``).
    """

    name: str
    threshold: float
    boosted_as: Tensor
    boosted_loss: ModuleRunResults
    baseline_as: Tensor
    baseline_loss: ModuleRunResults


class ModuleASOneShootBooster:
    """Raises the thresholds of a model's ReLUs, layer by layer and without training.

    Each ReLU becomes a :class:`~sparseml.legacy.nn.fatrelu.FATReLU` that sets more activations to
    zero (Kurtz et al., ICML 2020).

    :param module: the model, which is changed
    :param device: where the model is and the batches are put
    :param dataset: samples to measure with
    :param loss: as for :class:`~sparseml.legacy.module_run.runners.ModuleTester`
    :param data_loader_kwargs: further arguments of the ``DataLoader``
    """

    def __init__(
        self,
        module: nn.Module,
        device: str | torch.device,
        dataset: Dataset[Any],
        batch_size: int,
        loss: LossWrapper | Callable[[Any, Any], Tensor],
        data_loader_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._module = module
        self._loader = DataLoader(dataset, batch_size, **dict(data_loader_kwargs or {}))
        self._tester = ModuleTester(module, device, loss, log_steps=0, log_summary=False)

    def run_layers(
        self,
        layers: Sequence[str],
        max_target_metric_loss: float,
        metric_key: str,
        metric_increases: bool,
        precision: float = 0.001,
    ) -> dict[str, LayerBoostResults]:
        """Raise the thresholds of layers, in turn, and leave them there.

        :param layers: names of the layers, each an activation
        :param max_target_metric_loss: how much worse than at the start the metric may get by one
            layer, in the metric's unit
        :param metric_key: which of the loss's values is the metric
        :param metric_increases: whether a worse model has a greater metric, as a loss does; False
            for an accuracy
        :param precision: how exactly a threshold is looked for
        :raises AttributeError: for a layer that the model does not have
        :raises KeyError: for a metric that the loss does not give
        :raises ValueError: for a precision that is not above 0
        """
        if precision <= 0:
            raise ValueError(f"precision must be above 0, found {precision}")
        how = (max_target_metric_loss, metric_key, metric_increases, precision)
        return {name: self._boosted(name, *how) for name in layers}

    def _boosted(
        self, name: str, allowed: float, key: str, increases: bool, precision: float
    ) -> LayerBoostResults:
        found = get_layer(name, self._module)
        layer = found if isinstance(found, FATReLU) else set_relu_to_fat(self._module, name)
        start = layer.threshold.clone()
        before, before_as, greatest = self._measured(layer)
        baseline = float(before.result_mean(key))

        def measured_at(threshold: float) -> tuple[float, Any]:
            layer.set_threshold(threshold)
            measured = self._measured(layer)
            change = float(measured[0].result_mean(key)) - baseline
            return (change if increases else -change), measured

        low, high, best = float(start.max()), max(greatest, float(start.max())), (before, before_as)
        for _ in range(_MOST_HALVINGS):
            if high - low <= precision:
                break
            middle = (low + high) / 2
            worse, measured = measured_at(middle)
            if worse <= allowed:
                low, best = middle, measured[:2]
            else:
                high = middle
        if best[0] is before:
            layer.threshold.copy_(start)
        else:
            layer.set_threshold(low)
        return LayerBoostResults(name, low, best[1], best[0], before_as, before)

    def _measured(self, layer: nn.Module) -> tuple[ModuleRunResults, Tensor, float]:
        """Return losses, fraction of zeros of each batch, and the greatest activation."""
        seen: list[tuple[Tensor, float]] = []

        def watch(_layer: nn.Module, _inputs: Any, output: Tensor) -> None:
            seen.append((tensor_sparsity(output).detach().cpu(), float(output.max())))

        with layer.register_forward_hook(watch):
            results = self._tester.run(self._loader, "boosting", show_progress=False)
        if results is None or not seen:
            raise ValueError("no batch of the dataset has gone through the layer")
        fractions = torch.stack([fraction for fraction, _ in seen])
        return results, fractions, max(most for _, most in seen)
