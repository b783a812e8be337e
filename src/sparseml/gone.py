"""What SparseML 1.x had and this package has not, and what takes its place.

Importing one of these names raises an error that says so in one line. ``docs/migrating.md`` has
the whole list.
"""

from __future__ import annotations

import sys
from typing import Any

_INSTEAD = {
    # models, data and training scripts
    "pytorch.models": "build the model with timm, torchvision.models or transformers",
    "pytorch.datasets": "take data sets from torchvision.datasets, timm.data or datasets",
    "pytorch.image_classification image_classification pytorch.torchvision": (
        "train with research/sparse_training.py, or research/one_shot_pruning.py for one shot"
    ),
    "pytorch.object_detection yolov5 yolov8 openpifpaf pytorch.utils.ssd_helpers "
    "pytorch.utils.yolo_helpers pytorch.utils.callbacks pytorch.utils.SSDLossWrapper "
    "pytorch.utils.YoloLossWrapper": (
        "take detection models, their losses and metrics from torchvision or ultralytics"
    ),
    "utils.datasets": "take names of classes from torchvision or from the data set itself",
    # transformers, language models and sessions
    "transformers.finetune transformers.sparsification.obcq core modifiers recipe integration "
    "experimental active_session apply callbacks create_session finalize initialize "
    "pre_initialize_structure": (
        "the session API is not part of this package: load recipes with sparseml.pytorch.optim."
        "ScheduledModifierManager and call its modify(); for language models use llm-compressor"
    ),
    "evaluation": "evaluate with lm-evaluation-harness, or in your own loop",
    # other frameworks and run times
    "deepsparse keras tensorflow_v1": (
        "only PyTorch is supported: load recipes with sparseml.pytorch.optim"
    ),
    "transformers.export onnx exporters export": (
        "sparseml.pytorch.utils.export_onnx writes ONNX through torch.onnx; its graph is not edited"
    ),
    "benchmark": "time a model with sparseml.pytorch.utils.ModuleBenchmarker",
    # quantization and builders of recipes
    "pytorch.sparsification.quantization.helpers pytorch.sparsification.quantization.quantize "
    "pytorch.sparsification.quantization.constants pytorch.utils.quantization": (
        "quantization recipes load and print, but do not run yet: torchao quantizes the pruned "
        "model"
    ),
    "sparsification.PruningRecipeBuilder sparsification.RecipeEditor sparsification.ModelInfo "
    "sparsification.model_info sparsification.oracle sparsification.analyzer": (
        "write a recipe with sparseml.pytorch.recipe_template or RecipeYAMLBuilder"
    ),
    # the rest
    "analytics": "nothing is needed: this package sends no data to anybody",
    "pytorch.opset": "torch.onnx chooses the opset; export_onnx takes another one",
}
GONE = {f"sparseml.{name}": text for names, text in _INSTEAD.items() for name in names.split()}
"""Module, or name in a package, → what to do; what lies below a name counts as the name."""


def what_takes_its_place(name: str) -> str | None:
    """Return what to do without something that is gone; None for what was never here."""
    while name:
        if name in GONE:
            return GONE[name]
        name = name.rpartition(".")[0]
    return None


class GoneFinder:
    """The last place where Python looks for a module: refuses those that are gone."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        """Return None.

        :raises ModuleNotFoundError: for a name that is gone, saying what takes its place. It has no
            ``name``: ``from package import module`` swallows an error that has
        """
        instead = what_takes_its_place(name) if name.startswith("sparseml.") else None
        if instead:
            raise ModuleNotFoundError(
                f"{name} of SparseML 1.x is gone: {instead} (docs/migrating.md)"
            )

    @classmethod
    def install(cls) -> None:
        """Put the finder behind all others, once."""
        if not any(getattr(finder, "__name__", "") == cls.__name__ for finder in sys.meta_path):
            sys.meta_path.append(cls)
