"""Which tokens of a batch are real."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.nn import Module

from sparseml.pytorch.utils.names import unwrap_module

_IGNORED = -100
"""The label of a token that losses pass over."""


def real_tokens(module: Module, inputs: Any) -> Tensor:
    """Return which tokens are no padding (bool, ``[batch, tokens]``), by the attention's mask.

    :param module: a model of Hugging Face's; those with a decoder predict, so that it is the mask
        of the decoder that counts
    :param inputs: of the model, by name
    :raises ValueError: for inputs without that mask
    """
    key = "decoder_attention_mask" if _decodes(module) else "attention_mask"
    mask = inputs.get(key) if isinstance(inputs, Mapping) else None
    if mask is None:
        found = sorted(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__
        raise ValueError(
            f"mask_padding: True needs {key!r} among the student's inputs, found {found}; "
            "without padding leave mask_padding out"
        )
    return mask.bool()


def known_tokens(module: Module, inputs: Any, labels: Any = None) -> Tensor | None:
    """Return what :func:`real_tokens` does, or None where nothing tells of padding.

    Without a mask of the decoder the labels tell, whose padding no loss counts.

    :param labels: of the batch, if they are not among the inputs
    """
    try:
        return real_tokens(module, inputs)
    except ValueError:
        labels = inputs.get("labels", labels) if isinstance(inputs, Mapping) else labels
        told = _decodes(module) and isinstance(labels, Tensor) and labels.ndim == 2
        return labels != _IGNORED if told else None


def _decodes(module: Module) -> bool:
    model = unwrap_module(module, root=True)
    if not hasattr(model, "config"):  # as those of fairseq, whose labels are of the predictions
        return hasattr(model, "decoder")
    return bool(getattr(model.config, "is_encoder_decoder", False))
