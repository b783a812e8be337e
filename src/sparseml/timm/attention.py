"""Attention with separate layers for queries, keys and values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparseml.pytorch.utils.names import unwrap_module

__all__ = ["SplitLinear", "split_qkv"]

_PARTS = ("q", "k", "v")


class SplitLinear(nn.Module):
    """A linear layer cut along its outputs into three, ``q``, ``k`` and ``v``.

    Its output is that of the layer it was made of: ``[..., in]`` to ``[..., 3 * out]``.

    :param whole: the layer to cut; its outputs must be a multiple of three
    """

    q: nn.Linear
    k: nn.Linear
    v: nn.Linear

    def __init__(self, whole: nn.Linear) -> None:
        super().__init__()
        width, rest = divmod(whole.out_features, len(_PARTS))
        if rest:
            raise ValueError(f"{whole.out_features} outputs cannot be cut into {len(_PARTS)}")
        kind = {"device": whole.weight.device, "dtype": whole.weight.dtype}
        for name, rows in zip(_PARTS, torch.arange(3 * width).chunk(3), strict=True):
            part = nn.Linear(whole.in_features, width, bias=whole.bias is not None, **kind)
            with torch.no_grad():
                for key, own in part.named_parameters():
                    own.copy_(getattr(whole, key)[rows])
            self.add_module(name, part)

    def forward(self, tokens: Tensor) -> Tensor:
        """Apply the three layers and join their outputs."""
        return torch.cat([self.q(tokens), self.k(tokens), self.v(tokens)], dim=-1)


def split_qkv(model: nn.Module) -> list[str]:
    """Cut every linear layer called ``qkv`` in place, so that its parts can be pruned apart.

    ``blocks.0.attn.qkv.weight`` becomes ``blocks.0.attn.qkv.q.weight`` and so on. The model
    computes the same.

    :return: the names of the layers that were cut
    """
    root = unwrap_module(model, root=True)
    found: list[tuple[str, Any]] = [
        (name, module)
        for name, module in root.named_modules()
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] == "qkv"
    ]
    for name, layer in found:
        parent = root.get_submodule(name.rpartition(".")[0])
        setattr(parent, "qkv", SplitLinear(layer))  # noqa: B010  the attribute of a Module
    return [name for name, _ in found]
