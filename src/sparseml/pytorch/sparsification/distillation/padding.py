"""Which tokens of a batch are real."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import Module

from sparseml.pytorch.utils.names import unwrap_module


def real_tokens(module: Module, inputs: Any) -> Tensor:
    """Return which tokens are no padding (bool, ``[batch, tokens]``), by the attention's mask.

    :param module: a model of Hugging Face's; those with a decoder predict, so that it is the mask
        of the decoder that counts
    :param inputs: of the model, by name
    :raises ValueError: for inputs without that mask
    """
    config = getattr(unwrap_module(module, root=True), "config", None)
    decodes = getattr(config, "is_encoder_decoder", False)
    key = "decoder_attention_mask" if decodes else "attention_mask"
    mask = inputs.get(key) if isinstance(inputs, Mapping) else None
    if mask is None:
        found = sorted(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__
        raise ValueError(
            f"mask_padding: True needs {key!r} among the student's inputs, found {found}; "
            "without padding leave mask_padding out"
        )
    return mask.bool()
