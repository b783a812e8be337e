"""A vision transformer for images of 32x32 pixels: four blocks of width 128, 0.55 M parameters."""

from __future__ import annotations

from typing import Any

from timm.models.vision_transformer import VisionTransformer


def small_vit(num_classes: int = 10, **kwargs: Any) -> VisionTransformer:
    """Patches of 4x4 pixels, four heads, twice the width inside the MLPs."""
    sizes: dict[str, Any] = {"img_size": 32, "patch_size": 4, "embed_dim": 128, "depth": 4}
    model = VisionTransformer(**sizes, num_heads=4, mlp_ratio=2, num_classes=num_classes, **kwargs)
    model.pretrained_cfg = {
        "input_size": (3, 32, 32),
        "mean": (0.4914, 0.4822, 0.4465),
        "std": (0.2470, 0.2435, 0.2616),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
    }
    return model
