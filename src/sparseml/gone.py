"""What SparseML 1.x had and this package has not, and what takes its place.

Importing one of these names raises an error that says so in one line. ``docs/migrating.md`` has
the whole list.
"""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["GONE", "GoneFinder", "what_takes_its_place"]

_ONNX = "sparseml.pytorch.utils.export_onnx writes ONNX through torch.onnx; its graph is not edited"
_SESSIONS = (
    "the session API is not part of this package: load recipes with sparseml.pytorch.optim."
    "ScheduledModifierManager and call its modify(); for language models use llm-compressor"
)
_QUANTIZATION = (
    "quantization recipes load and print, but do not run yet: torchao quantizes the pruned model"
)
_TIMM = "train with research/sparse_training.py, or research/one_shot_pruning.py for one shot"
_FRAMEWORK = "only PyTorch is supported: load recipes with sparseml.pytorch.optim"
_BUILDERS = "write a recipe with sparseml.pytorch.recipe_template or RecipeYAMLBuilder"
_DETECTION = "take detection models, their losses and metrics from torchvision or ultralytics"

GONE: dict[str, str] = {
    # models, data and training scripts
    "sparseml.pytorch.models": "build the model with timm, torchvision.models or transformers",
    "sparseml.pytorch.datasets": "take data sets from torchvision.datasets, timm.data or datasets",
    "sparseml.pytorch.image_classification": _TIMM,
    "sparseml.image_classification": _TIMM,
    "sparseml.pytorch.torchvision": _TIMM,
    "sparseml.pytorch.object_detection": _DETECTION,
    "sparseml.yolov5": _DETECTION,
    "sparseml.yolov8": _DETECTION,
    "sparseml.openpifpaf": _DETECTION,
    "sparseml.pytorch.utils.ssd_helpers": _DETECTION,
    "sparseml.pytorch.utils.yolo_helpers": _DETECTION,
    "sparseml.pytorch.utils.callbacks": _DETECTION,
    "sparseml.pytorch.utils.SSDLossWrapper": _DETECTION,
    "sparseml.pytorch.utils.YoloLossWrapper": _DETECTION,
    "sparseml.utils.datasets": "take names of classes from torchvision or from the data set itself",
    # transformers and language models
    "sparseml.transformers.export": _ONNX,
    "sparseml.transformers.finetune": _SESSIONS,
    "sparseml.transformers.sparsification.obcq": _SESSIONS,
    "sparseml.transformers": (
        "there is no wrapper for transformers yet: call manager.modify(model, optimizer, ...) in "
        "the training loop, see docs/your_own_loop.md"
    ),
    # sessions
    "sparseml.core": _SESSIONS,
    "sparseml.modifiers": _SESSIONS,
    "sparseml.recipe": _SESSIONS,
    "sparseml.integration": _SESSIONS,
    "sparseml.experimental": _SESSIONS,
    "sparseml.evaluation": "evaluate with lm-evaluation-harness, or in your own loop",
    **dict.fromkeys(
        (
            "sparseml.active_session",
            "sparseml.apply",
            "sparseml.callbacks",
            "sparseml.create_session",
            "sparseml.finalize",
            "sparseml.initialize",
            "sparseml.pre_initialize_structure",
        ),
        _SESSIONS,
    ),
    # other frameworks and run times
    "sparseml.deepsparse": _FRAMEWORK,
    "sparseml.keras": _FRAMEWORK,
    "sparseml.tensorflow_v1": _FRAMEWORK,
    "sparseml.onnx": _ONNX,
    "sparseml.exporters": _ONNX,
    "sparseml.export": _ONNX,
    "sparseml.benchmark": "time a model with sparseml.pytorch.utils.ModuleBenchmarker",
    # quantization
    "sparseml.pytorch.sparsification.quantization.helpers": _QUANTIZATION,
    "sparseml.pytorch.sparsification.quantization.quantize": _QUANTIZATION,
    "sparseml.pytorch.sparsification.quantization.constants": _QUANTIZATION,
    "sparseml.pytorch.utils.quantization": _QUANTIZATION,
    # builders of recipes
    "sparseml.sparsification.PruningRecipeBuilder": _BUILDERS,
    "sparseml.sparsification.RecipeEditor": _BUILDERS,
    "sparseml.sparsification.ModelInfo": _BUILDERS,
    "sparseml.sparsification.model_info": _BUILDERS,
    "sparseml.sparsification.oracle": _BUILDERS,
    "sparseml.sparsification.analyzer": _BUILDERS,
    # the rest
    "sparseml.analytics": "nothing is needed: this package sends no data to anybody",
    "sparseml.pytorch.opset": "torch.onnx chooses the opset; export_onnx takes another one",
}
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
