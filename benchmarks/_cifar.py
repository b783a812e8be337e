"""Small trained networks with images, for the benchmarks that tell accuracies."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.transforms import Compose, RandomCrop, RandomHorizontalFlip

from sparseml.timm import DataSource, Processes, load_model, retune_batch_norm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
DATA = Path(os.environ.get("SPARSEML_DATA", ROOT.parent / "shared" / "data"))
MODELS = {
    "resnet20": ("research.models.cifar_resnet:resnet20", "cifar10_resnet20"),
    "resnet56": ("research.models.cifar_resnet:resnet56", "cifar10_resnet56"),
    "small_vit": ("research.models.small_vit:small_vit", "cifar10_vit_d4_w128"),
}
"""Name -> the function that builds it, and the file of its weights."""


def load(name: str) -> nn.Module:
    """Return a trained model."""
    model, weights = MODELS[name]
    return load_model(model, str(DATA / "weights" / f"{weights}.safetensors")).eval()


def images(model: nn.Module, split: str) -> tuple[Tensor, Tensor]:
    """Return CIFAR-10's images as the model takes them, ``[N, 3, 32, 32]``, and labels ``[N]``.

    :param split: such as ``test[:2000]``
    """
    config: dict[str, Any] = dict(model.pretrained_cfg)  # type: ignore[arg-type]
    source = DataSource("research.images.image_grid:cifar10", str(DATA / "cifar10"), config)
    batches = list(source.loader(source.dataset(split), 500, Processes()))
    return torch.cat([batch[0] for batch in batches]), torch.cat([batch[1] for batch in batches])


def sampler(data: tuple[Tensor, Tensor], batch_size: int, seed: int = 0) -> dict[str, Any]:
    """Return a grad_sampler of random batches."""

    def build() -> Iterator[tuple[list[Tensor], dict[str, Any], Tensor]]:
        order = torch.randperm(len(data[1]), generator=torch.Generator().manual_seed(seed))
        for batch in order.split(batch_size):
            yield [data[0][batch]], {}, data[1][batch]

    return {"data_loader_builder": build, "loss_fn": cross_entropy, "progress_bar": False}


def augmented(pictures: Tensor, seed: int = 0, padding: int = 4) -> Tensor:
    """Return images padded with black, cropped and flipped at random, ``[N, C, H, W]``."""
    black = pictures.amin(dim=(0, 2, 3), keepdim=True)  # of each channel, as they are normalised
    change = Compose([RandomCrop(pictures.shape[-2:], padding), RandomHorizontalFlip()])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return torch.stack([change(one) for one in pictures - black]) + black


@torch.inference_mode()
def accuracy(model: nn.Module, data: tuple[Tensor, Tensor]) -> float:
    """Return the share of images that are read correctly."""
    model.eval()
    right = [
        (model(batch).argmax(1) == labels).sum()
        for batch, labels in zip(data[0].split(250), data[1].split(250), strict=True)
    ]
    return float(sum(right)) / len(data[1])


def retune_norms(model: nn.Module, pictures: Tensor) -> None:
    """Measure the statistics of batch norms anew, on images as the networks were trained on."""
    batches = [(batch,) for batch in augmented(pictures).split(250)]
    retune_batch_norm(model.eval(), batches, len(batches), Processes())
