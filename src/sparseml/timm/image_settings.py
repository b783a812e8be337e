"""The settings of what is pruned: a model, and its images for all that is done with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sparseml.run.settings.flags import Group, flag

__all__ = [
    "INTERPOLATIONS",
    "DataSettings",
    "ModelSettings",
    "SamplerSettings",
    "TrainingImageSettings",
]

# as timm names them
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")


@dataclass
class ModelSettings(Group):
    """The model, its weights and its input."""

    TITLE = "model"

    model: str = flag("deit_small_patch16_224", "name in timm, or module.path:callable")
    checkpoint: str | None = flag(
        None,
        "weights to start from, .safetensors or torch's",
        also=("--checkpoint-path", "--initial-checkpoint"),
        metavar="FILE",
        changes="nothing",
    )
    pretrained: bool | None = flag(
        None, "timm's pretrained weights [if no --checkpoint]", paired=True, changes="nothing"
    )
    num_classes: int | None = flag(
        None, "outputs of the model, its own number by default", at_least=1
    )
    model_kwargs: dict[str, Any] = flag({}, metavar="KEY=VALUE")
    split_qkv: bool = flag(False, "three layers in place of each attention's qkv")
    img_size: int | None = flag(None, at_least=1)
    input_size: Sequence[int] | None = flag(None, nargs=3, metavar=("C", "H", "W"), at_least=1)
    in_chans: int | None = flag(None, at_least=1)
    crop_pct: float | None = flag(None, above=0)
    mean: Sequence[float] | None = flag(None, nargs="+")
    std: Sequence[float] | None = flag(None, nargs="+")
    interpolation: str = flag("", "[the model's]", choices=("", *INTERPOLATIONS))


@dataclass
class DataSettings(Group):
    """Where the images are."""

    TITLE = "data"

    data_dir: str = flag(metavar="FOLDER", changes="nothing")
    dataset: str = flag("imagenet", "timm's create_dataset, or module.path:callable")
    train_split: str = flag("train")
    val_split: str = flag("validation", changes="nothing")
    class_map: str = flag("", "names of the classes, a line each", metavar="FILE")
    dataset_download: bool = flag(False, changes="nothing")
    val_batch_size: int = flag(
        128, also=("-vb", "--validation-batch-size"), at_least=1, changes="nothing"
    )
    workers: int = flag(4, "processes that load images", also=("-j",), at_least=0)
    prefetcher: bool = flag(
        True, "overlap copies to the GPU with its work", paired=True, changes="nothing"
    )
    pin_mem: bool = flag(False, changes="nothing")


@dataclass
class SamplerSettings(Group):
    """Batches that gradients are sampled on."""

    TITLE = "gradient sampler"
    DESCRIPTION = "for recipes whose pruners need gradients; without mixup and smoothing"

    gs_loader: bool = flag(
        False, "no longer needed: built when a recipe needs it", changes="nothing"
    )
    gs_batch_size: int | None = flag(
        None, also=("-gb", "--grad-sampler-batch-size"), metavar="N", at_least=1
    )
    gs_no_training: bool = flag(False, "images as for validation: not augmented")
    gs_no_aug: bool = flag(False, "no augmentation but resizing and cropping")
    gs_aa: bool = flag(False, "augment by the policy of --aa")
    gs_distributed: bool = flag(False, "each process samples its own share")


@dataclass
class TrainingImageSettings(Group):
    """How images are augmented for training."""

    TITLE = "training images"
    DESCRIPTION: ClassVar[str | None] = (
        "as the model was trained on; --bn-retune measures batch norms on them"
    )

    no_aug: bool = flag(False)
    aa: str | None = flag(None, "policy of timm's auto_augment")
    aug_repeats: float = flag(0, at_least=0)
    scale: Sequence[float] = flag((0.08, 1.0), nargs=2)
    ratio: Sequence[float] = flag((3 / 4, 4 / 3), nargs=2)
    hflip: float = flag(0.5, at_least=0, at_most=1)
    vflip: float = flag(0.0, at_least=0, at_most=1)
    color_jitter: float = flag(0.4, at_least=0)
    reprob: float = flag(0.0, at_least=0, at_most=1)
    remode: str = flag("pixel", choices=("pixel", "rand", "const"))
    recount: int = flag(1, at_least=1)
    train_interpolation: str = flag("random", choices=("", "random", *INTERPOLATIONS))
    train_crop_mode: str | None = flag(
        None,
        "timm's ways to crop, or random crops of padded images, as for CIFAR [rrc]",
        choices=("rrc", "rkrc", "rkrr", "pad"),
    )

    def loader_keywords(self, several: bool) -> dict[str, Any]:
        """Return the keywords of timm's ``create_loader``.

        :param several: whether several processes share the images
        """
        interpolation = {"interpolation": self.train_interpolation}
        return {
            "no_aug": self.no_aug,
            "auto_augment": self.aa,
            "num_aug_repeats": self.aug_repeats if several else 0,
            "scale": self.scale,
            "ratio": self.ratio,
            "hflip": self.hflip,
            "vflip": self.vflip,
            "color_jitter": self.color_jitter,
            "re_prob": self.reprob,
            "re_mode": self.remode,
            "re_count": self.recount,
            "train_crop_mode": self.train_crop_mode,
            **(interpolation if self.train_interpolation else {}),
        }
