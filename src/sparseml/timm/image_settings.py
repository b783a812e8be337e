"""The settings of what is pruned: a model, and its images for all that is done with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from sparseml.run.errors import RunError
from sparseml.run.settings.flags import Group, flag, harmless
from sparseml.run.settings.groups import RunSettings

# as timm names them
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")

# keyword of timm's create_loader → setting
_RENAMED = (
    "auto_augment=aa num_aug_repeats=aug_repeats re_prob=reprob re_mode=remode re_count=recount"
)
_SAME = "no_aug scale ratio hflip vflip color_jitter train_crop_mode"
_KEYWORDS = {
    **dict(pair.split("=") for pair in _RENAMED.split()),
    **{name: name for name in _SAME.split()},
}


@dataclass
class ModelSettings(Group):
    """The model, its weights and its input."""

    TITLE = "model"

    model: str = flag("deit_small_patch16_224", "name in timm, or module.path:callable")
    checkpoint: str | None = harmless(
        None,
        "weights to start from, .safetensors or torch's",
        also=("--checkpoint-path", "--initial-checkpoint"),
        metavar="FILE",
    )
    pretrained: bool | None = harmless(
        None, "timm's pretrained weights [if no --checkpoint]", paired=True
    )
    num_classes: int | None = flag(
        None, "outputs of the model, its own number by default", at_least=1
    )
    model_kwargs: dict[str, Any] = flag({}, "for the function that builds it", metavar="KEY=VALUE")
    split_qkv: bool = flag(False, "three layers in place of each attention's qkv")
    img_size: int | None = flag(None, "height and width of images [the model's]", at_least=1)
    input_size: Sequence[int] | None = flag(
        None, "of images [the model's]", nargs=3, metavar=("C", "H", "W"), at_least=1
    )
    in_chans: int | None = flag(None, "channels of images [the model's]", at_least=1)
    crop_pct: float | None = flag(
        None, "part of an image that validation looks at [the model's]", above=0
    )
    mean: Sequence[float] | None = flag(None, "of channels, to subtract [the model's]", nargs="+")
    std: Sequence[float] | None = flag(None, "of channels, to divide by [the model's]", nargs="+")
    interpolation: str = flag("", "[the model's]", choices=("", *INTERPOLATIONS))


@dataclass
class DataSettings(Group):
    """Where the images are."""

    TITLE = "data"

    data_dir: str = harmless(
        help="of images, a folder a class in train/ and val/; also without the flag's name",
        also=("--data",),
        metavar="FOLDER",
        alone=True,
    )
    dataset: str = flag("imagenet", "timm's create_dataset, or module.path:callable")
    train_split: str = flag("train", "its folder, or its name in the data set")
    val_split: str = harmless("validation", "likewise; val/ will do, too")
    class_map: str = flag("", "names of the classes, a line each", metavar="FILE")
    dataset_download: bool = harmless(False, "if it is not there")
    val_batch_size: int = harmless(
        128, "of each process", also=("-vb", "--validation-batch-size"), at_least=1
    )
    workers: int = flag(4, "processes that load images", also=("-j",), at_least=0)
    prefetcher: bool = harmless(True, "overlap copies to the GPU with its work", paired=True)
    pin_mem: bool = harmless(False, "load into memory that copies faster to a GPU")


@dataclass
class ImageRunSettings(RunSettings):
    """The settings of every run, and how images lie in memory."""

    channels_last: bool = flag(False, "layout of images and convolutions in memory")


@dataclass
class SamplerSettings(Group):
    """Batches that gradients are sampled on."""

    TITLE = "gradient sampler"
    DESCRIPTION = "for recipes whose pruners need gradients; without mixup and smoothing"

    gs_loader: bool = harmless(False, "no longer needed: built when a recipe needs it")
    gs_batch_size: int | None = flag(
        None,
        "images a gradient [128, training --batch-size]",
        also=("-gb", "--grad-sampler-batch-size"),
        metavar="N",
        at_least=1,
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
        "as the model was trained on: batch norms are measured on them after pruning"
    )

    no_aug: bool = flag(False, "only resize and crop, as for validation")
    aa: str | None = flag(None, "policy of timm's auto_augment")
    aug_repeats: float = flag(0, "of each image, over several processes", at_least=0)
    scale: Sequence[float] = flag((0.08, 1.0), "of random crops, from and to", nargs=2)
    ratio: Sequence[float] = flag((3 / 4, 4 / 3), "of their sides, likewise", nargs=2)
    hflip: float = flag(0.5, "probability to mirror", at_least=0, at_most=1)
    vflip: float = flag(0.0, "probability to turn upside down", at_least=0, at_most=1)
    color_jitter: float = flag(0.4, "how much; not with --aa", at_least=0)
    reprob: float = flag(0.0, "probability to erase a part", at_least=0, at_most=1)
    remode: str = flag("pixel", "what is put there", choices=("pixel", "rand", "const"))
    recount: int = flag(1, "parts to erase", at_least=1)
    train_interpolation: str = flag(
        "random", "'' as for validation", choices=("", "random", *INTERPOLATIONS)
    )
    train_crop_mode: str | None = flag(
        None,
        "timm's ways to crop, or random crops of padded images, as for CIFAR [rrc]",
        choices=("rrc", "rkrc", "rkrr", "pad"),
    )
    crop_padding: int | None = flag(
        None,
        "of black on each side, of which random crops are taken, as for CIFAR with 4 "
        "[with --train-crop-mode pad an eighth]; mirroring and colours stay as they are",
        metavar="PIXELS",
        at_least=0,
    )

    def loader_keywords(self, several: bool) -> dict[str, Any]:
        """Return the keywords of timm's ``create_loader``.

        :param several: whether several processes share the images
        :return: also ``crop_padding``, in pixels, which
            :meth:`~sparseml.timm.data.DataSource.loader` knows
        :raises RunError: for two ways to crop at once
        """
        keywords = {name: getattr(self, setting) for name, setting in _KEYWORDS.items()}
        if self.crop_padding is not None:
            if self.train_crop_mode not in (None, "pad"):
                raise RunError(
                    f"--crop-padding {self.crop_padding} is a way to crop of its own: leave out "
                    f"--train-crop-mode {self.train_crop_mode}"
                )
            keywords |= {"train_crop_mode": "pad", "crop_padding": self.crop_padding}
        if not several:
            keywords["num_aug_repeats"] = 0
        if self.train_interpolation:
            keywords["interpolation"] = self.train_interpolation
        return keywords
