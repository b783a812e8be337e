"""Layers that recipes put into models, and activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from sparseml.lazy import lazy_names

_MOVED = {
    "sparseml.legacy.nn.activations": (
        "Hardswish ReLU ReLU6 SqueezeExcite Swish create_activation hard_swish is_activation "
        "replace_activation replace_activations swish"
    ),
    "sparseml.legacy.nn.fatrelu": (
        "FATReLU convert_relus_to_fat fat_exp_relu fat_pw_relu fat_relu fat_sig_relu "
        "set_relu_to_fat"
    ),
}
__all__ = ["Identity"]
__all__ += " ".join(_MOVED.values()).split()
__getattr__, __dir__ = lazy_names(__name__, _MOVED)


class Identity(nn.Module):
    """Returns its inputs: one positional argument as it is, several as a tuple.

    Keyword arguments are ignored, so that it can take the place of any layer whose output has the
    shape of its input.

    :param mapping_lambda: called with the inputs, keywords included, to make the output instead
    :param args: ignored
    :param kwargs: ignored
    """

    def __init__(self, mapping_lambda: Callable[..., Any] | None = None, *args: Any, **kwargs: Any):
        super().__init__()
        self.mapping_lambda = mapping_lambda

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.mapping_lambda is not None:
            return self.mapping_lambda(*args, **kwargs)
        return args[0] if len(args) == 1 else args
