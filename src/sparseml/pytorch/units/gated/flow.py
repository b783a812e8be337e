"""Where the channels of a model go: one run in which every layer is cut from the next."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sparseml.pytorch.units.cutting import Call, cut_run, leaves, mixes_channels, random_outputs
from sparseml.pytorch.units.gated.kinds import norm_of

_PRODUCTS = (torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm, Tensor.bmm)


@dataclass(frozen=True, eq=False)
class Flow:
    """What was seen in a run.

    :param calls: every run of a layer, in order: those that mix channels, embeddings and norms
    :param outputs: what the model returns
    :param params: id -> name of parameters that no cut layer owns
    :param products: both factors of every product of activations, the dimension that is summed
        over being the last of each
    """

    calls: list[Call]
    outputs: list[Tensor]
    params: dict[int, str]
    products: list[tuple[Tensor, Tensor]]

    def leaves_of(self, tensor: Tensor) -> list[Tensor]:
        """Return the made-up outputs and parameters that a tensor is computed from, in order."""
        if tensor.grad_fn is None:
            return [tensor] if tensor.requires_grad else []
        return leaves([tensor])


class _Products(TorchFunctionMode):
    """Notes the factors of products of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = (*args, *kwargs.values())
        if func is F.scaled_dot_product_attention:
            self.seen.append((given[0], given[1]))
        elif func in _PRODUCTS:
            self._note(*given[:2])
        elif func in (torch.baddbmm, Tensor.baddbmm):
            self._note(*given[1:3])
        return func(*args, **kwargs)

    def _note(self, left: Any, right: Any) -> None:
        both = isinstance(left, Tensor) and isinstance(right, Tensor)
        if both and right.ndim > 2 and left.requires_grad and right.requires_grad:
            self.seen.append((left, right.transpose(-2, -1)))


def is_cut(layer: nn.Module) -> bool:
    """Whether a layer's output is made up, so that the next reads nothing from before it."""
    return mixes_channels(layer) or isinstance(layer, nn.Embedding) or norm_of(layer) is not None


def flow_of(model: nn.Module, example_inputs: Any) -> Flow:
    """Run ``model`` and see where the outputs of its layers are read. It is not changed."""
    owned = {
        id(param)
        for layer in model.modules()
        if is_cut(layer)
        for param in layer.parameters(recurse=isinstance(layer, nn.MultiheadAttention))
    }
    named = {id(param): name for name, param in model.named_parameters()}
    with _all_trainable(model), _Products() as products:
        calls, outputs = cut_run(
            model, example_inputs, random_outputs(), gradients=True, cuts=is_cut
        )
    free = {key: name for key, name in named.items() if key not in owned}
    return Flow(calls, outputs, free, products.seen)


@contextmanager
def _all_trainable(model: nn.Module) -> Iterator[None]:
    """Let all parameters take part, those too that training leaves as they are."""
    frozen = [param for param in model.parameters() if not param.requires_grad]
    frozen = [param for param in frozen if param.is_floating_point()]
    for param in frozen:
        param.requires_grad_(True)
    try:
        yield
    finally:
        for param in frozen:
            param.requires_grad_(False)
