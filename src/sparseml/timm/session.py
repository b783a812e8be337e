"""What both scripts begin with: the model, the data, and what gradients are sampled on."""

from __future__ import annotations

import functools
import logging
from argparse import Namespace
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sparseml.pytorch.utils.batch_streams import GradientBatches, make_grad_sampler
from sparseml.pytorch.utils.distributed import set_deterministic_seeds
from sparseml.run.processes import Processes
from sparseml.run.progress import shown_progress
from sparseml.timm.data import DataSource, require_classes
from sparseml.timm.evaluation import evaluate
from sparseml.timm.models import data_config, load_model, output_classes, short_name
from sparseml.timm.options import model_kwargs

__all__ = ["Session", "autocast_of", "open_session", "prepare"]

_LOGGER = logging.getLogger(__name__)
_INPUT_KEYS = ("img_size", "input_size", "in_chans", "crop_pct", "mean", "std", "interpolation")

Autocast = Callable[[], AbstractContextManager[Any]]


@dataclass
class Session:
    """A model with its data."""

    args: Namespace
    where: Processes
    model: nn.Module
    source: DataSource
    training_data: Any
    validation_loader: Any
    classes: int

    @property
    def model_name(self) -> str:
        """The model's name, fit for file names."""
        return short_name(self.args.model)

    def evaluate(self, model: nn.Module, name: str = "evaluating") -> dict[str, float]:
        """Loss and accuracies on the validation images, the same in all processes."""
        batches = len(self.validation_loader)
        with shown_progress(name, batches, self.where.is_first) as advance:
            autocast = autocast_of(self.args, self.where)
            return evaluate(model, self.validation_loader, self.where, autocast, advance)

    def sample_images(self, count: int = 1) -> torch.Tensor:
        """A batch to count operations and take times on."""
        images, _ = next(iter(self.validation_loader))
        return images[:count].to(self.where.device)

    def plain_batches(self, batch_size: int) -> Any:
        """Training images in random order, not augmented."""
        return self.source.shuffled(self.training_data, batch_size, self.where)

    def grad_sampler(self) -> dict[str, Any]:
        """What gradients are sampled on; nothing is loaded before it is needed."""
        args, where = self.args, self.where
        build = functools.cache(self._gradient_loader)
        rank = 0 if args.gs_distributed else where.rank
        return make_grad_sampler(
            lambda number: GradientBatches(build, (args.seed, rank, number), where.device)
        )

    def _gradient_loader(self) -> Any:
        args = self.args
        size = args.gs_batch_size or getattr(args, "batch_size", None) or 128
        if args.gs_no_training:
            return self.source.shuffled(self.training_data, size, self.where, args.gs_distributed)
        return self.source.loader(
            self.training_data,
            min(size, len(self.training_data)),
            self.where,
            training=True,
            shared=args.gs_distributed,
            no_aug=args.gs_no_aug,
            auto_augment=getattr(args, "aa", None) if args.gs_aa else None,
            use_prefetcher=False,
        )


def prepare(args: Namespace) -> None:
    """Seed all random generators and set the number of threads."""
    if args.threads:
        torch.set_num_threads(args.threads)
    set_deterministic_seeds(args.seed)


def open_session(args: Namespace, where: Processes) -> Session:
    """Load the model and find the data.

    :raises RunError: if there is no such model or data, or they do not fit together
    """
    model = load_model(
        args.model, args.checkpoint, args.pretrained, args.split_qkv, model_kwargs(args)
    ).to(where.device)
    if args.channels_last:
        model = model.to(memory_format=torch.channels_last)
    config = data_config(model, {key: getattr(args, key) for key in _INPUT_KEYS})
    options = {"class_map": args.class_map or None, "download": args.dataset_download}
    source = DataSource(
        args.dataset,
        args.data_dir,
        config,
        args.workers,
        args.pin_mem,
        args.prefetcher and where.device.type == "cuda",
        {key: value for key, value in options.items() if value},
    )
    classes = output_classes(model)
    datasets = [source.dataset(split, args.seed) for split in (args.train_split, args.val_split)]
    for dataset in datasets:
        require_classes(dataset, args.data_dir, classes, args.model)
    validation = source.loader(datasets[1], args.val_batch_size, where)
    if where.is_first:
        _LOGGER.info("%d images to train on, %d to validate on", *map(len, datasets))
    if classes is None:
        classes = model(torch.zeros(1, *config["input_size"], device=where.device)).shape[-1]
    return Session(args, where, model, source, datasets[0], validation, classes)


def autocast_of(args: Namespace, where: Processes) -> Autocast:
    """What forward passes run in: mixed precision if asked for."""
    if not args.amp:
        return nullcontext
    kind = where.device.type
    name = args.amp_dtype or ("float16" if kind == "cuda" else "bfloat16")
    return lambda: torch.autocast(kind, dtype=getattr(torch, name))
