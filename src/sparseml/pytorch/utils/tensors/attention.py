"""Attention in a form that torch's ONNX exporter takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class FourDimensionalAttention(TorchFunctionMode):
    """Within it ``scaled_dot_product_attention`` gets tensors of four dimensions, whatever comes.

    The exporter refuses all others. Results are the same, in the shapes that the call asks for.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``func``, or what stands in for it."""
        takes = _attention if func is functional.scaled_dot_product_attention else func
        return takes(*args, **(kwargs or {}))


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """Return ``[..., L, Ev]`` for ``[..., L, E]``, ``[..., S, E]`` and ``[..., S, Ev]``."""

    def shaped(tensor: Tensor) -> Tensor:
        if tensor.ndim < 4:  # as a batch of one
            return tensor[(None,) * (4 - tensor.ndim)]
        return tensor.expand(*query.shape[:-3], *tensor.shape[-3:]).flatten(0, -4)

    if query.ndim == 4:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask, *args, **kwargs
        )
    found = functional.scaled_dot_product_attention(
        shaped(query),
        shaped(key),
        shaped(value),
        None if attn_mask is None else shaped(attn_mask),
        *args,
        **kwargs,
    )
    return found.reshape(*query.shape[:-1], value.shape[-1])
