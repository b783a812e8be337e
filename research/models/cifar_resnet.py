"""Residual networks for images of 32x32 pixels (He et al., 2015, section 4.2).

Shortcuts have no parameters: where the resolution halves, every other pixel is taken and channels
of zeros are added on both sides ("option A").
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad, relu

PRETRAINED_CFG: dict[str, Any] = {
    "input_size": (3, 32, 32),
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "crop_pct": 1.0,
    "interpolation": "bilinear",
}


class Block(nn.Module):
    """Two convolutions and a shortcut around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.added = stride, (outputs - inputs) // 2

    def forward(self, images: Tensor) -> Tensor:
        """``[batch, inputs, height, width]`` to ``[batch, outputs, height / stride, ...]``."""
        found = self.bn2(self.conv2(relu(self.bn1(self.conv1(images)))))
        if self.added:
            images = images[:, :, :: self.stride, :: self.stride]
            images = pad(images, (0, 0, 0, 0, self.added, self.added))
        return relu(found + images)


class CifarResNet(nn.Module):
    """Three groups of blocks with 16, 32 and 64 channels.

    :param blocks: in each group
    """

    def __init__(self, blocks: int, num_classes: int = 10) -> None:
        super().__init__()
        self.num_classes, self.pretrained_cfg = num_classes, PRETRAINED_CFG
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _group(16, 16, 1, blocks)
        self.layer2 = _group(16, 32, 2, blocks)
        self.layer3 = _group(32, 64, 2, blocks)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``[batch, 3, 32, 32]`` to logits ``[batch, num_classes]``."""
        found = relu(self.bn1(self.conv1(images)))
        found = self.layer3(self.layer2(self.layer1(found)))
        return self.linear(avg_pool2d(found, found.shape[-1]).flatten(1))


def _group(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
    rest = (Block(outputs, outputs, 1) for _ in range(blocks - 1))
    return nn.Sequential(Block(inputs, outputs, stride), *rest)


def resnet20(**kwargs: Any) -> CifarResNet:
    """20 layers, 0.27 M parameters."""
    return CifarResNet(3, **kwargs)


def resnet32(**kwargs: Any) -> CifarResNet:
    """32 layers, 0.46 M parameters."""
    return CifarResNet(5, **kwargs)


def resnet56(**kwargs: Any) -> CifarResNet:
    """56 layers, 0.85 M parameters."""
    return CifarResNet(9, **kwargs)
