"""Applying and storing 0/1 masks; 1 (or True) keeps a weight, 0 prunes it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_BITS = 8


def apply_masks(
    tensors: Sequence[Tensor], masks: Sequence[Tensor], plain_zeros: bool = False
) -> None:
    """Multiply each tensor by its mask, in place, in few launches. Autograd does not see it.

    :param tensors: weights or gradients
    :param masks: one per tensor: its shape and device, bool or of any dtype
    :param plain_zeros: leave 0.0 where a negative weight times zero gives -0.0, whose sign is a bit
        that a file of the weights must hold and cannot compress; costs the same again
    :raises ValueError: when the numbers of tensors and masks or a pair's shapes differ
    """
    if len(tensors) != len(masks):
        raise ValueError(f"{len(tensors)} tensors but {len(masks)} masks")
    own, factors = [], []
    for index, (tensor, mask) in enumerate(zip(tensors, masks, strict=True)):
        if tensor.shape != mask.shape:
            raise ValueError(
                f"mask {index} has shape {tuple(mask.shape)}, its tensor {tuple(tensor.shape)}"
            )
        own.append(tensor.detach())
        # bytes are multiplied twice as fast as bools on the CPU, and nearly as fast as floats
        factors.append(mask.view(torch.uint8) if mask.dtype == torch.bool else mask)
    if own:
        with torch.no_grad():
            torch._foreach_mul_(own, factors)
            if plain_zeros:
                torch._foreach_add_(own, 0.0)


def pack_mask(mask: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """Store a mask in one bit per weight, a thirty-second of a float32 mask.

    :param mask: any shape and dtype, holding 0 and 1 (or False and True) only
    :return: uint8 of ``ceil(numel / 8)`` bytes on the mask's device, the first weight in the lowest
        bit of the first byte; and the shape, which :func:`unpack_mask` needs
    :raises ValueError: for a value other than 0 and 1
    """
    bits = mask.detach().reshape(-1) != 0
    if mask.dtype != torch.bool and not torch.equal(bits.to(mask.dtype), mask.reshape(-1)):
        raise ValueError("a mask holds only 0 and 1, found other values")
    padded = torch.nn.functional.pad(bits.to(torch.uint8), (0, -bits.numel() % _BITS))
    octets = padded.view(-1, _BITS)
    packed = octets[:, 0].clone()
    for place in range(1, _BITS):
        packed |= octets[:, place] << place
    return packed, tuple(mask.shape)


def unpack_mask(packed: Tensor, shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """Undo :func:`pack_mask`.

    :param packed: uint8, shape ``[ceil(prod(shape) / 8)]``
    :param shape: the mask's shape
    :param dtype: dtype of the result
    :return: mask of 0 and 1, on the device of ``packed``
    :raises ValueError: for another dtype, or a length that does not belong to ``shape``
    """
    size = torch.Size(shape).numel()
    if packed.dtype != torch.uint8 or packed.shape != (-(-size // _BITS),):
        raise ValueError(
            f"a packed mask of shape {tuple(shape)} is uint8 of {-(-size // _BITS)} bytes, "
            f"found {packed.dtype} of shape {tuple(packed.shape)}"
        )
    places = torch.arange(_BITS, dtype=torch.uint8, device=packed.device)
    bits = (packed.unsqueeze(1) >> places) & 1
    return bits.reshape(-1)[:size].reshape(tuple(shape)).to(dtype)
