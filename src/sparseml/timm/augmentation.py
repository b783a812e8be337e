"""What timm's augmentation lacks: a Pillow that takes less than it used to, and padded crops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from PIL import Image
from timm.data import auto_augment
from torchvision.transforms import Compose, RandomCrop, Resize

__all__ = ["allow_no_bits", "crop_padded"]


def posterize(image: Any, bits_to_keep: int, **rest: Any) -> Any:
    """timm's operation, also for 0 bits, which leave a black image.

    timm's policies ask for 0 bits where a random magnitude is at its end (``rand-m9-mstd0.5-inc1``
    about once in a thousand images), and Pillow 13 refuses them.
    """
    if bits_to_keep < 1:
        return Image.new(image.mode, image.size)
    return auto_augment.posterize(image, bits_to_keep, **rest)


def allow_no_bits(transform: Any) -> None:
    """Put :func:`posterize` in the place of timm's in all policies of a transform."""
    for operation in _operations(transform):
        if operation.aug_fn is auto_augment.posterize:
            operation.aug_fn = posterize


def crop_padded(transform: Any, size: tuple[int, int]) -> None:
    """Put random crops of padded images in the place of timm's random crops, which zoom.

    Small images, such as those of CIFAR, are usually padded with black by an eighth on each side.

    :param transform: timm's, for training
    :param size: height and width
    """
    height, width = size
    padding = [width // 8, height // 8]
    transform.transforms[0] = Compose([Resize(size), RandomCrop(size, padding)])


def _operations(transform: Any) -> Iterator[auto_augment.AugmentOp]:
    if isinstance(transform, auto_augment.AugmentOp):
        yield transform
        return
    parts = transform if isinstance(transform, (list, tuple)) else []
    for name in ("transforms", "ops", "policy"):
        parts = [*parts, *(getattr(transform, name, None) or [])]
    for part in parts:
        yield from _operations(part)
