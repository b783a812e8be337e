"""MobileNetV1 at three quarters of its width, padded as TensorFlow does: 2.6 M parameters."""

from __future__ import annotations

from typing import Any

from timm.models.efficientnet import EfficientNet, _gen_mobilenet_v1


def mobilenet_v1_075(**kwargs: Any) -> EfficientNet:
    """For images of 224x224 pixels; timm has the builder, but no name for this width."""
    settings = {"channel_multiplier": 0.75, "pad_type": "same", "bn_eps": 1e-3, **kwargs}
    return _gen_mobilenet_v1("mobilenetv1_100", **settings)
