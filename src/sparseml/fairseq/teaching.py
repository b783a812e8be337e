"""A teacher beside a model that fairseq trains, and its part in the loss of the criterion."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

from torch import Tensor, nn

from sparseml.fairseq.inputs import IGNORED, keywords
from sparseml.fairseq.shrunk import ShrunkWeights, fit_to_weights
from sparseml.pytorch.optim import StepDriver


def teacher_of(trainer: Any, weights: Mapping[str, Tensor] | None) -> nn.Module:
    """Return a teacher: the model as it is now, or as another one of its configuration was.

    :param weights: of that, as the run before has kept them; units may have gone from it
    """
    if weights is None:
        return copy.deepcopy(trainer.get_model()).requires_grad_(False)
    built: nn.Module = trainer.task.build_model(trainer.cfg.model)
    shapes = {name: value.shape for name, value in built.state_dict().items()}
    if any(shapes.get(name) != value.shape for name, value in weights.items()):
        weights = ShrunkWeights(weights)
        fit_to_weights(built, weights)
    built.load_state_dict(weights)
    return built.to(trainer.device).requires_grad_(False)


def teach(criterion: Any, driver: Callable[[], StepDriver]) -> None:
    """Let a recipe add to the mean loss of a criterion in training, per token or sentence.

    :param driver: gives the one that is in force
    """
    compute = criterion.forward

    @wraps(compute)
    def forward(model: nn.Module, sample: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if not model.training:
            return compute(model, sample, *args, **kwargs)
        seen: list[Any] = []
        handle = model.register_forward_hook(lambda _, given, output: seen.append(output))
        try:
            loss, size, told = compute(model, sample, *args, **kwargs)
        finally:
            handle.remove()
        target = sample["target"]
        mean = driver().loss_update(
            loss / size,
            student_inputs=keywords(sample),
            student_outputs=seen[0][0],
            student_labels=target.masked_fill(target == criterion.padding_idx, IGNORED),
        )
        return mean * size, size, told

    criterion.forward = forward
