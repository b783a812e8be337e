"""The task: scikit-learn's handwritten digits, and a small vision transformer to read them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

TEST_FRACTION = 0.25
NOISE = 0.4  # standard deviation of the noise on training images, whose own is 1
POSITION_SCALE = 0.5  # timm starts from 0.02, which takes far more than 1300 images to grow


@dataclass(frozen=True)
class Digits:
    """Images ``[N, 1, 8, 8]`` float32 of mean 0 and variance 1, and labels ``[N]`` in 0 to 9."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


class NoisyBatches:
    """Shuffled batches with fresh noise on every image: all that keeps so small a set from being
    learnt by heart. What is left over at the end of an epoch is dropped."""

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int, seed: int) -> None:
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.labels) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(len(self.labels), generator=self.generator)
        for batch in order.split(self.batch_size)[: len(self)]:
            images = self.images[batch]
            noise = torch.randn(images.shape, generator=self.generator)
            yield images + NOISE * noise, self.labels[batch]


def load_task(seed: int) -> Digits:
    """1797 images, a quarter of them for testing, every digit in the same proportion."""
    pixels, labels = load_digits(return_X_y=True)
    parts = train_test_split(
        pixels, labels, test_size=TEST_FRACTION, random_state=seed, stratify=labels
    )
    train, test = (torch.tensor(part).float().reshape(-1, 1, 8, 8) for part in parts[:2])
    mean, std = train.mean(), train.std()
    train_labels, test_labels = (torch.tensor(part) for part in parts[2:])
    return Digits((train - mean) / std, train_labels, (test - mean) / std, test_labels)


def build_model(seed: int) -> VisionTransformer:
    """Four blocks of width 64 over sixteen patches of 2x2 pixels: 136,000 parameters."""
    torch.manual_seed(seed)
    model = VisionTransformer(
        img_size=8,
        patch_size=2,
        in_chans=1,
        num_classes=10,
        embed_dim=64,
        depth=4,
        num_heads=4,
        mlp_ratio=2,
        class_token=False,
        global_pool="avg",
    )
    torch.nn.init.normal_(model.pos_embed, std=POSITION_SCALE)
    return model
