"""A model with its images, which timm lends to a run, after a check of the settings."""

from __future__ import annotations

import errno
import functools
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparseml.pytorch.units.saved import holds_shrunk
from sparseml.pytorch.utils.batch_streams import GradientBatches, make_grad_sampler
from sparseml.pytorch.utils.layers import evaluating
from sparseml.run.errors import RunError
from sparseml.run.files import require_room_for_run
from sparseml.run.precision import autocast_of
from sparseml.run.processes import Processes
from sparseml.run.progress import shown_progress
from sparseml.run.results import experiment_folder
from sparseml.run.session import Metric
from sparseml.timm.data import DataSource, require_classes
from sparseml.timm.evaluation import evaluate
from sparseml.timm.image_settings import (
    DataSettings,
    ImageRunSettings,
    ModelSettings,
    SamplerSettings,
    TrainingImageSettings,
)
from sparseml.timm.models import (
    INPUT_KEYS,
    data_config,
    load_model,
    model_kwargs,
    output_classes,
    require_model,
    short_name,
)
from sparseml.timm.settings import OneShotSettings, TrainingSettings
from sparseml.utils.references import described, is_reference

_LOGGER = logging.getLogger(__name__)


@dataclass
class ImageSession:
    """A model that tells images apart, with its images.

    :param training_batch: how many images :meth:`training_batches` has in each batch
    :param gradient_batch: how many there are in each batch that gradients are sampled on
    :param weights_loaded: whether the model has weights that were trained, None if nobody knows
    """

    run: ImageRunSettings
    sampler: SamplerSettings
    where: Processes
    model: nn.Module
    model_name: str
    source: DataSource
    training_data: Any
    validation_loader: Any
    classes: int
    augmentation: TrainingImageSettings
    training_batch: int
    gradient_batch: int
    weights_loaded: bool | None = None
    built_by: Mapping[str, Any] | None = None

    metrics: Sequence[Metric] = (
        Metric("top1", "val/acc"),
        Metric("top5", "val/acc5"),
        Metric("loss", "val/loss", percent=False),
    )
    packages: Sequence[str] = ("timm", "torchvision")

    @property
    def training_size(self) -> int:
        """Return how many images there are to train on."""
        return len(self.training_data)

    @property
    def evaluated_samples(self) -> int:
        """Return how many images :meth:`evaluate` measures on."""
        return len(self.validation_loader.dataset)

    def evaluate(self, model: nn.Module, name: str = "evaluating") -> dict[str, float]:
        """Return loss and accuracies on the validation images, the same in all processes."""
        batches = len(self.validation_loader)
        with shown_progress(name, batches, self.where.is_first) as advance:
            autocast = autocast_of(self.run, self.where)
            return evaluate(model, self.validation_loader, self.where, autocast, advance)

    def sample_inputs(self, count: int = 1) -> torch.Tensor:
        """Return images ``[count, channels, height, width]`` of the validation images."""
        images, _ = next(iter(self.validation_loader))
        return images[:count].to(self.where.device)

    def training_batches(self) -> Iterable[Any]:
        """Return training images in random order, augmented as in training, with their labels."""
        share = len(self.training_data) // self.where.count
        few = max(1, share // 3)  # so that some can be held out
        return self.training_loader(min(self.training_batch, few), use_prefetcher=False)

    def training_loader(self, batch_size: int, **more: Any) -> Any:
        """Return timm's loader of training images; ``more`` is for its ``create_loader``."""
        keywords = self.augmentation.loader_keywords(self.where.several) | more
        return self.source.loader(
            self.training_data, batch_size, self.where, training=True, **keywords
        )

    def grad_sampler(self) -> dict[str, Any]:
        """Return what gradients are sampled on; nothing is loaded before it is needed."""
        build = functools.cache(self._gradient_loader)
        seed, where = self.run.seed, self.where
        rank = 0 if self.sampler.gs_distributed else where.rank
        return make_grad_sampler(
            lambda number: GradientBatches(build, (seed, rank, number), where.device)
        )

    def _gradient_loader(self) -> Any:
        sampler, size = self.sampler, self.gradient_batch
        if sampler.gs_no_training:
            return self.source.shuffled(
                self.training_data, size, self.where, sampler.gs_distributed
            )
        return self.source.loader(
            self.training_data,
            min(size, len(self.training_data)),
            self.where,
            training=True,
            shared=sampler.gs_distributed,
            no_aug=sampler.gs_no_aug,
            auto_augment=self.augmentation.aa if sampler.gs_aa else None,
            use_prefetcher=False,
        )


def open_session(settings: OneShotSettings | TrainingSettings, where: Processes) -> ImageSession:
    """Load the model and find the data.

    :raises RunError: if there is no such model or data, or they do not fit together
    """
    check_settings(settings, where)
    run, data, chosen = settings.run, settings.data, settings.model
    kwargs = model_kwargs(chosen)
    # of a one-shot run, as far as it says nothing
    training_batch, gradient_batch = data.val_batch_size, 128
    if isinstance(settings, TrainingSettings):
        rates = settings.optimizer
        kwargs = model_kwargs(chosen, rates.drop_rate, rates.drop_path_rate)
        training_batch = gradient_batch = rates.batch_size
    model = load_model(
        chosen.model, chosen.checkpoint, chosen.pretrained, chosen.split_qkv, kwargs
    ).to(where.device)
    if run.channels_last:
        model = model.to(memory_format=torch.channels_last)
    config = data_config(model, {key: getattr(chosen, key) for key in INPUT_KEYS})
    source = _source(data, config, where)
    classes = output_classes(model)
    datasets = [source.dataset(split, run.seed) for split in (data.train_split, data.val_split)]
    for dataset in datasets:
        require_classes(dataset, data.data_dir, classes, chosen.model)
    validation = source.loader(datasets[1], data.val_batch_size, where)
    if where.is_first:
        _LOGGER.info("%d images to train on, %d to validate on", *map(len, datasets))
    outputs = _outputs(model, chosen.model, config["input_size"], where)
    return ImageSession(
        run,
        settings.sampler,
        where,
        model,
        short_name(chosen.model),
        source,
        datasets[0],
        validation,
        outputs if classes is None else classes,
        settings.augmentation,
        run.bn_retune_batch_size or training_batch,
        settings.sampler.gs_batch_size or gradient_batch,
        _weights_loaded(chosen, model),
        _built_by(chosen, kwargs),
    )


def _built_by(chosen: ModelSettings, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return what builds the model again, for who loads a shrunk one."""
    split = {"split_qkv": True} if chosen.split_qkv else {}
    name = chosen.model.removeprefix("timm:")
    return {"library": "timm", "name": name, "kwargs": dict(kwargs), **split}


def _weights_loaded(chosen: ModelSettings, model: nn.Module) -> bool | None:
    """Return whether the model was given all its weights; the user's own may have loaded some.

    Pretrained weights leave the classifier out where it has another number of classes.
    """
    if chosen.checkpoint:
        return True
    if is_reference(chosen.model.removeprefix("timm:")):
        return None
    told = getattr(model, "pretrained_cfg", {}).get("num_classes")
    return chosen.pretrained is not False and told == output_classes(model)


@torch.no_grad()
def _outputs(model: nn.Module, name: str, size: Sequence[int], where: Processes) -> int:
    """Return how many outputs the model has for an image, which it must be able to take."""
    try:
        with evaluating(model):
            return int(model(torch.zeros(1, *size, device=where.device)).shape[-1])
    except Exception as error:  # a model's code may raise anything
        reason = f"takes no images of {' x '.join(map(str, size))}: {described(error)}"
        if hasattr(model, "patch_embed"):
            reason += "; --model-kwargs img_size=N builds it for others"
        raise RunError(f"--model {name} {reason}") from error


def _source(data: DataSettings, config: dict[str, Any], where: Processes) -> DataSource:
    options = {"class_map": data.class_map or None, "download": data.dataset_download}
    return DataSource(
        data.dataset,
        data.data_dir,
        config,
        data.workers,
        data.pin_mem,
        data.prefetcher and where.device.type == "cuda",
        {key: value for key, value in options.items() if value},
    )


def check_settings(settings: OneShotSettings | TrainingSettings, where: Processes) -> None:
    """Check the names of models and data, and that files are there and folders can be written.

    :raises RunError: naming the flag
    """
    model, data, run = settings.model, settings.data, settings.run
    names = [("--model", model.model)]
    files = [("--checkpoint", model.checkpoint), ("--class-map", data.class_map)]
    resumes = False
    if isinstance(settings, TrainingSettings):
        names.append(("--teacher", settings.extras.teacher or ""))
        taught = settings.extras.teacher_checkpoint
        if taught and not settings.extras.teacher:
            raise RunError(f"--teacher-checkpoint {taught} needs --teacher MODEL")
        files.append(("--teacher-checkpoint", taught))
        resumes = bool(settings.checkpoints.resume)
    for flag, name in names:
        if name:
            require_model(name, flag)
    for flag, file in files:
        if file and not Path(file).is_file() and not holds_shrunk(file):
            reason = os.strerror(errno.EISDIR) if Path(file).is_dir() else "no such file"
            raise RunError(f"{flag} {file}: {reason}")
    for split in (data.train_split, data.val_split):
        _source(data, {}, where).require(split)
    if where.is_first and not resumes:  # the others may come when it has begun to write
        require_room_for_run(experiment_folder(run, short_name(model.model)), run.overwrite)
