"""Data sets and loaders: timm's, over folders of images or the user's own data sets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from timm.data import auto_augment, create_dataset, create_loader
from torch.utils.data import DataLoader, DistributedSampler
from torchvision.transforms import Compose, RandomCrop, Resize

from sparseml.run.errors import RunError, one_line
from sparseml.run.processes import Processes
from sparseml.utils.references import described, is_reference, resolve_reference

_REMOTE = ("hfds/", "hfids/", "tfds/", "wds/")


@dataclass(frozen=True)
class DataSource:
    """Where images come from and how they become batches.

    :param name: ``imagenet`` or the empty string for a folder with a folder per class in each of
        its splits, another name of timm's ``create_dataset``, or ``module.path:callable``, which is
        called with the folder and the split. What it returns is indexed, yields ``(image, label)``
        with a PIL image put through its attribute ``transform``, and tells its ``classes``
    :param folder: the folder of the data
    :param config: as from :func:`~sparseml.timm.models.data_config`
    :param workers: processes that load images
    :param options: more of timm's ``create_dataset``, such as ``class_map``
    """

    name: str
    folder: str
    config: Mapping[str, Any]
    workers: int = 0
    pin_memory: bool = False
    prefetcher: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def dataset(self, split: str, seed: int = 0, batch_size: int = 1) -> Any:
        """Return the data set of a split.

        :raises RunError: if there is none
        """
        build = self.require(split)
        try:
            if build is not None:
                return build(self.folder, split)
        except Exception as error:  # the user's code may raise anything
            raise RunError(f"--dataset {self.name} failed: {described(error)}") from error
        return self._timm_dataset(split, seed, batch_size)

    def require(self, split: str) -> Callable[..., Any] | None:
        """Check, before an image is read, that there is such a data set and its folder.

        :return: what builds a data set of the user's own
        :raises RunError: if there is none
        """
        if not is_reference(self.name):
            if self._in_folders:
                self._require_split(split)
            elif not (self.name.startswith(_REMOTE) or self.options.get("download")):
                self._require_folder()
            return None
        try:
            build: Callable[..., Any] = resolve_reference(self.name)
        except ValueError as error:
            raise RunError(f"--dataset {error}") from error
        self._require_folder()
        return build

    def loader(
        self,
        dataset: Any,
        batch_size: int,
        where: Processes,
        training: bool = False,
        shared: bool = True,
        **augmentation: Any,
    ) -> Any:
        """Return batches of a data set; each process gets its share unless ``shared`` is False.

        :param training: shuffle, drop what does not fill a batch, and augment
        :param augmentation: keywords of timm's ``create_loader``; ``train_crop_mode="pad"`` crops
            padded images, by ``crop_padding`` pixels or an eighth
        :raises RunError: for training data that do not fill one batch, and for settings that timm
            refuses
        """
        if training and len(dataset) < batch_size * (where.count if shared else 1):
            raise RunError(
                f"{self.folder}: {len(dataset)} training images do not fill a batch of "
                f"{batch_size}{f' in each of {where.count} processes' if where.several else ''}"
            )
        settings: dict[str, Any] = {
            "is_training": training,
            "num_workers": self.workers,
            "distributed": where.several and shared,
            "pin_memory": self.pin_memory,
            "use_prefetcher": self.prefetcher,
            "device": where.device,
            # workers that live on keep random states that no checkpoint has
            "persistent_workers": False,
            **{key: self.config[key] for key in ("interpolation", "mean", "std", "crop_pct")},
            **augmentation,
        }
        padded, padding = (
            settings.get("train_crop_mode") == "pad",
            settings.pop("crop_padding", None),
        )
        if padded:
            settings["train_crop_mode"] = None
        try:  # the loader sets the transform of what it is given
            loader = create_loader(
                copy.copy(dataset),
                input_size=self.config["input_size"],
                batch_size=batch_size,
                **settings,
            )
        except (AssertionError, KeyError, TypeError, ValueError, ZeroDivisionError) as error:
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise RunError(f"timm cannot prepare images with these settings: {reason}") from error
        transform = getattr(loader.dataset, "transform", None)
        allow_no_bits(transform)
        if padded and not settings.get("no_aug"):
            crop_padded(transform, self.config["input_size"][1:], padding)
        return loader

    def shuffled(self, dataset: Any, batch_size: int, where: Processes, shared: bool = True) -> Any:
        """Full batches in random order of images that are prepared as for validation."""
        plain = self.loader(dataset, batch_size, where, use_prefetcher=False).dataset
        sampler: Any = DistributedSampler(plain) if where.several and shared else None
        batch_size = min(batch_size, max(1, len(plain) // (where.count if sampler else 1)))
        return DataLoader(
            plain,
            batch_size,
            shuffle=sampler is None,
            sampler=sampler,
            drop_last=True,
            num_workers=self.workers,
            pin_memory=self.pin_memory,
        )

    def _timm_dataset(self, split: str, seed: int, batch_size: int) -> Any:
        try:
            return create_dataset(
                "" if self._in_folders else self.name,
                root=self.folder,
                split=split,
                seed=seed,
                batch_size=batch_size,
                **self.options,
            )
        except (AssertionError, OSError, RuntimeError, ValueError, ImportError, KeyError) as error:
            raise RunError(
                f"no data set {self.name or 'of folders'!r} with a split {split!r} in "
                f"{self.folder}: {one_line(error)}"
            ) from error

    @property
    def _in_folders(self) -> bool:
        return self.name in ("", "imagenet", "folder")

    def _require_folder(self) -> None:
        if not Path(self.folder).is_dir():
            raise RunError(f"--data-dir {self.folder}: no such folder")

    def _require_split(self, split: str) -> None:
        root = Path(self.folder)
        if root.suffix == ".tar" and root.is_file():
            return
        self._require_folder()
        names = {"validation": ("validation", "val", "valid", "eval", "test")}.get(split, (split,))
        if not any((root / name).exists() for name in names):
            found = ", ".join(sorted(path.name for path in root.iterdir() if path.is_dir())[:8])
            raise RunError(
                f"--data-dir {self.folder} has no folder {split!r} of images; "
                f"its folders: {found or 'none'}"
            )


def class_count(dataset: Any) -> int | None:
    """Return how many classes a data set has, if it says."""
    for holder in (dataset, getattr(dataset, "reader", None)):
        classes = getattr(holder, "class_to_idx", None) or getattr(holder, "classes", None)
        if classes:
            return len(classes)
    return None


def require_classes(dataset: Any, folder: str, model_classes: int | None, model: str) -> None:
    """Check that a model tells apart the classes that there are.

    :raises RunError: if it does not; where either does not say, nothing is checked
    """
    found = class_count(dataset)
    if found is None or model_classes is None or found == model_classes:
        return
    raise RunError(
        f"{folder} has {found} classes, but {model} tells {model_classes} apart; "
        f"give --num-classes {found} for a new head, or --class-map FILE to number the classes"
    )


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


def crop_padded(transform: Any, size: tuple[int, int], padding: int | None = None) -> None:
    """Put random crops of padded images in the place of timm's random crops, which zoom.

    Small images, such as those of CIFAR, are usually padded with black by an eighth on each side.

    :param transform: timm's, for training; all that follows its crops stays
    :param size: height and width
    :param padding: pixels of black on each side; an eighth by default
    """
    height, width = size
    each = [width // 8, height // 8] if padding is None else [padding, padding]
    transform.transforms[0] = Compose([Resize(size), RandomCrop(size, each)])


def _operations(transform: Any) -> Iterator[auto_augment.AugmentOp]:
    if isinstance(transform, auto_augment.AugmentOp):
        yield transform
        return
    parts = transform if isinstance(transform, (list, tuple)) else []
    for name in ("transforms", "ops", "policy"):
        parts = [*parts, *(getattr(transform, name, None) or [])]
    for part in parts:
        yield from _operations(part)
