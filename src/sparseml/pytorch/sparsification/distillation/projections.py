"""Maps from a student's features to the width of its teacher's, which train along."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.pytorch.sparsification.distillation.hidden_group import HiddenParamGroup
from sparseml.pytorch.utils.distributed import is_distributed, sum_over_ranks
from sparseml.utils.text import few

_Projection = nn.Conv2d | nn.Linear

_SEED = 0


class FeatureProjections:
    """A bias-free linear map for each layer, made when the first features are seen.

    Features of four dimensions are mapped along the second (a 1x1 convolution), others along the
    last. All processes of a distributed run begin with the same weights and average their
    gradients. A state loaded before the first features are seen is kept until then.
    """

    def __init__(self) -> None:
        self._layers: dict[str, _Projection] = {}
        self._weights: Mapping[str, Any] = {}
        self._group = HiddenParamGroup()

    def project(
        self, features: Mapping[str, tuple[Tensor, Tensor]], optimizer: Any
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Map the student's features.

        :param features: name → (student's, teacher's)
        :param optimizer: trains the maps
        :raises IndexError: for a state loaded before that is of other layers
        :raises RuntimeError: for one of other widths
        """
        if not self._layers:
            self._create(features)
        self._group.join([layer.weight for layer in self._layers.values()], optimizer)
        return {
            name: (self._mapped(self._layers[name], student), teacher)
            for name, (student, teacher) in features.items()
        }

    def clear_gradients(self) -> None:
        """Forget the gradients that a step has used; ``zero_grad`` of a model leaves them."""
        for layer in self._layers.values():
            layer.weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        """The weights by the layer's name; empty before the first features."""
        if not self._layers:
            return dict(self._weights)
        return {name: layer.state_dict() for name, layer in self._layers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state_dict`.

        :raises IndexError: for a state of other layers
        """
        self._weights = state
        if self._layers:
            self._load_weights()

    def progress_state(self) -> dict[str, Any]:
        """What the optimizer knows of the maps."""
        return self._group.state()

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`progress_state`."""
        self._group.load_state(state)

    def _create(self, features: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        # a generator of its own, so that resuming draws no number that a whole run does not draw
        generator = torch.Generator().manual_seed(_SEED)
        self._layers = {
            name: _projection(student, teacher, generator)
            for name, (student, teacher) in features.items()
        }
        self._load_weights()

    def _load_weights(self) -> None:
        weights, self._weights = self._weights, {}
        if not weights:
            return
        if set(weights) != set(self._layers):
            raise IndexError(
                f"projections of {few(sorted(weights))} do not fit the layers {few(self._layers)}"
            )
        for name, layer in self._layers.items():
            layer.load_state_dict(weights[name])

    @staticmethod
    def _mapped(layer: _Projection, feature: Tensor) -> Tensor:
        return layer(feature.to(layer.weight.dtype))


def _projection(student: Tensor, teacher: Tensor, generator: torch.Generator) -> _Projection:
    dtype = torch.promote_types(student.dtype, torch.float32)
    layer: _Projection
    if student.ndim == 4:
        layer = nn.Conv2d(student.shape[1], teacher.shape[1], 1, bias=False, device="meta")
    else:
        layer = nn.Linear(student.shape[-1], teacher.shape[-1], bias=False, device="meta")
    layer = layer.to_empty(device="cpu")
    # as PyTorch initialises both kinds
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    layer = layer.to(student.device, dtype)
    if is_distributed():
        layer.weight.register_post_accumulate_grad_hook(_average_over_ranks)
    return layer


def _average_over_ranks(param: Tensor) -> None:
    # linear, so right also when gradients of several passes add up
    if param.grad is not None and is_distributed():
        (total,) = sum_over_ranks([param.grad])
        param.grad = total / torch.distributed.get_world_size()
