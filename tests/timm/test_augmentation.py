"""timm's policies with magnitudes at their ends."""

from __future__ import annotations

import pickle

import pytest

pytest.importorskip("timm")

from PIL import Image
from timm.data import auto_augment, create_transform

from sparseml.timm.data import allow_no_bits, crop_padded, posterize


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "original", "v0", "augmix-m5"])
@pytest.mark.parametrize("parts", [False, True])
def test_all_posterizing_operations_take_no_bits(policy: str, parts: bool) -> None:
    transform = create_transform(32, is_training=True, auto_augment=policy, separate=parts)
    seen: list[auto_augment.AugmentOp] = []
    allow_no_bits(transform)
    stages = transform if parts else transform.transforms
    for stage in stages:
        for one in getattr(stage, "transforms", [stage]):
            found = getattr(one, "ops", None) or getattr(one, "policy", None) or []
            for entry in found:
                seen += entry if isinstance(entry, (list, tuple)) else [entry]
    assert len(seen) > 8
    functions = {op.aug_fn for op in seen}
    assert auto_augment.posterize not in functions
    assert posterize in functions


def test_no_bits_are_black_and_others_timms() -> None:
    image = Image.new("RGB", (2, 2), (200, 10, 130))
    assert posterize(image, 0).getpixel((0, 0)) == (0, 0, 0)
    for bits in (1, 3, 8):
        expected = auto_augment.posterize(image, bits).getpixel((0, 0))
        assert posterize(image, bits).getpixel((0, 0)) == expected


def test_the_largest_magnitude_of_a_policy_passes_and_workers_get_it() -> None:
    transform = create_transform(32, is_training=True, auto_augment="rand-m10-mstd0-inc1-n8")
    allow_no_bits(transform)
    transform = pickle.loads(pickle.dumps(transform))  # noqa: S301 as workers do
    image = Image.new("RGB", (40, 40), (200, 10, 130))
    for _ in range(30):
        assert transform(image).shape == (3, 32, 32)


def test_crops_of_padded_images_move_and_do_not_zoom() -> None:
    transform = create_transform(16, is_training=True, hflip=0.0, color_jitter=None, mean=0, std=1)
    crop_padded(transform, (16, 16))
    image = Image.new("RGB", (16, 16), (255, 255, 255))
    seen = set()
    for _ in range(60):
        found = transform(image)[0]
        white, rows, columns = int(found.sum()), found.any(1).sum(), found.any(0).sum()
        assert white == int(rows * columns) and min(rows, columns) >= 14
        seen.add((int(found[0].any()), int(found[-1].any())))
    assert seen == {(0, 1), (1, 0), (1, 1)}, "up, down and not at all"
