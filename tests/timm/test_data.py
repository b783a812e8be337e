"""Data sets, loaders and evaluation."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from sparseml.timm import DataSource, Processes, RunError, class_count, evaluate, require_classes
from sparseml.timm.data import posterize
from sparseml.timm.image_settings import TrainingImageSettings

CONFIG = {
    "input_size": (3, 8, 8),
    "interpolation": "bilinear",
    "mean": (0.5, 0.5, 0.5),
    "std": (0.5, 0.5, 0.5),
    "crop_pct": 1.0,
}
HERE = Processes()


def _source(folder: Path, name: str = "imagenet") -> DataSource:
    return DataSource(name, str(folder), CONFIG)


def test_folders_of_images(images: Path) -> None:
    source = _source(images)
    train, validation = source.dataset("train"), source.dataset("validation")
    assert (len(train), len(validation), class_count(train)) == (48, 21, 3)
    loader = source.loader(train, 10, HERE, training=True, scale=(0.5, 1.0))
    batches = list(loader)
    assert [len(labels) for _, labels in batches] == [10] * 4
    assert batches[0][0].shape == (10, 3, 8, 8)
    assert len(list(source.loader(validation, 10, HERE))) == 3
    assert train.transform is None, "loaders must not change each other's images"
    policy = "rand-m10-mstd0-inc1-n8"  # posterizes to 0 bits, which Pillow 13 refuses
    loader = source.loader(train, 10, HERE, training=True, auto_augment=policy)
    (policies,) = (t for t in loader.dataset.transform.transforms if hasattr(t, "ops"))
    assert posterize in {operation.aug_fn for operation in policies.ops}
    assert len(list(loader)) == 4
    loader = source.loader(train, 10, HERE, training=True, no_aug=False, train_crop_mode="pad")
    crop = loader.dataset.transform.transforms[0].transforms[1]
    assert (crop.size, crop.padding) == ((8, 8), [1, 1])
    settings = TrainingImageSettings(crop_padding=3, hflip=1.0, color_jitter=0.0)
    padded = source.loader(train, 10, HERE, training=True, **settings.loader_keywords(False))
    first, *rest = padded.dataset.transform.transforms
    assert (first.transforms[1].size, first.transforms[1].padding) == ((8, 8), [3, 3])
    assert first.transforms[1].fill == 0 and any(getattr(one, "p", 0) == 1.0 for one in rest)
    settings.train_crop_mode = "rrc"
    with pytest.raises(RunError, match="--crop-padding 3 is a way to crop of its own"):
        settings.loader_keywords(False)
    assert next(iter(loader))[0].shape == (10, 3, 8, 8)


def test_images_as_for_validation_in_random_order(images: Path) -> None:
    source = _source(images)
    loader = source.shuffled(source.dataset("train"), 20, HERE)
    torch.manual_seed(0)
    first, second = (torch.cat([labels for _, labels in loader]) for _ in range(2))
    assert len(first) == 40 and not torch.equal(first, second)
    assert len(set(first[:20].tolist())) == 3, "all classes come early"


def test_the_same_images_as_a_data_set_of_ones_own(workplace: Path, images: Path) -> None:
    code = """
from torchvision.datasets import ImageFolder

def folder(root, split):
    return ImageFolder(f"{root}/{split}")

def broken(root, split):
    raise KeyError("no labels")
"""
    (workplace / "own_data.py").write_text(code)
    source = _source(images, "own_data:folder")
    dataset = source.dataset("val")
    assert class_count(dataset) == 3
    own, theirs = (
        next(iter(one.loader(one.dataset("val"), 21, HERE))) for one in (source, _source(images))
    )
    assert torch.equal(own[0], theirs[0]) and torch.equal(own[1], theirs[1])
    with pytest.raises(RunError, match=r"own_data:broken failed: .*KeyError: 'no labels'"):
        _source(images, "own_data:broken").dataset("val")
    with pytest.raises(RunError, match="own_data has no 'foldr'; did you mean 'folder'"):
        _source(images, "own_data:foldr").dataset("val")


def test_folders_that_are_missing(images: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"--data-dir /nowhere: no such folder"):
        _source(Path("/nowhere")).dataset("train")
    with pytest.raises(RunError, match=r"has no folder 'test' of images; its folders: train, val"):
        _source(images).dataset("test")
    (tmp_path / "train").mkdir()
    with pytest.raises(RunError, match=r"no data set 'imagenet' with a split 'train'"):
        _source(tmp_path).dataset("train")


def test_too_few_images_for_a_batch(images: Path) -> None:
    source = _source(images)
    with pytest.raises(RunError, match="48 training images do not fill a batch of 64"):
        source.loader(source.dataset("train"), 64, HERE, training=True)


def test_classes_that_do_not_fit(images: Path) -> None:
    dataset = _source(images).dataset("train")
    require_classes(dataset, "x", 3, "net")
    require_classes(dataset, "x", None, "net")
    with pytest.raises(RunError, match=r"x has 3 classes, but net tells 10 apart.*num-classes 3"):
        require_classes(dataset, "x", 10, "net")


class Coloured(Dataset):
    """Images whose label is the number of the image modulo four."""

    def __init__(self, count: int) -> None:
        self.count, self.transform = count, None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if index >= self.count:
            raise IndexError(index)
        image = Image.new("RGB", (8, 8), (index % 4 * 60, 0, 0))
        return self.transform(image) if self.transform else image, index % 4


class ByColour(nn.Module):
    """Tells the label from the colour, but is wrong about label 3."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        label = ((images[:, 0, 0, 0] * 0.5 + 0.5) * 255 / 60).round().long() % 3
        return 5 * nn.functional.one_hot(label, 4).float()


def test_evaluation_counts_every_image_once() -> None:
    loader = DataSource("", "", CONFIG).loader(Coloured(10), 4, HERE)
    model = ByColour().train()
    found = evaluate(model, loader, HERE)
    assert found["top1"] == 0.8 and found["top5"] == 1.0
    right, wrong = (-torch.log_softmax(torch.tensor([5.0, 0, 0, 0]), 0)[i].item() for i in (0, 1))
    assert found["loss"] == pytest.approx(0.8 * right + 0.2 * wrong)
    assert model.training


@pytest.mark.parametrize("count", [2, 3])
def test_shares_of_processes_overlap_nowhere(count: int) -> None:
    from timm.data.distributed_sampler import OrderedDistributedSampler

    dataset, seen = Coloured(10), 0
    sums = [0.0] * 4

    class Alone(Processes):
        """A process that is told the others' sums afterwards."""

        def sum(self, values: list[float]) -> list[float]:
            sums[:] = [a + b for a, b in zip(sums, values, strict=True)]
            return values

    for rank in range(count):
        where = Alone(rank, count)
        loader = DataSource("", "", CONFIG).loader(dataset, 3, Processes())
        sampler = OrderedDistributedSampler(dataset, count, rank)
        shared = torch.utils.data.DataLoader(loader.dataset, batch_size=3, sampler=sampler)
        evaluate(ByColour(), shared, where)
        seen += len(sampler)
    assert seen >= 10 and sums[3] == 10 and sums[1] == 8


def test_processes_are_plain_data() -> None:
    assert dataclasses.replace(HERE, rank=1).is_first is False
    assert HERE.gather("x") == ["x"] and HERE.sum([1.0]) == [1.0]
