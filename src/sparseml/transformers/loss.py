"""Carrying the modifiers of a loss into a Trainer, which lets no callback change its loss.

The loss that Transformers models return is changed where it leaves the model, by a forward hook
that acts on training passes only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sparseml.pytorch.functional.distillation import predictions
from sparseml.pytorch.optim import StepDriver
from sparseml.pytorch.sparsification.pruning.sampling.gradient_sampling import undisturbed
from sparseml.transformers.errors import CallbackError
from sparseml.transformers.lent import parameters_of

_ITEMS = "num_items_in_batch"


def loss_modifiers(manager: Any) -> list[Any]:
    """Return the modifiers of a recipe that change the loss."""
    return [one for one in manager.iter_modifiers() if one.changes_loss]


class Heads(Mapping[str, Any]):
    """Outputs of a model, of which only the predictions are gone through.

    A modifier that names none of them is to compare predictions, not caches and hidden states;
    those can still be looked up by name.

    :param outputs: of a Transformers model
    """

    def __init__(self, outputs: Mapping[str, Any]) -> None:
        self._all = outputs
        self._shown = predictions(outputs)

    def __getitem__(self, key: str) -> Any:
        return self._all[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shown)

    def __len__(self) -> int:
        return len(self._shown)


class LossCarrier:
    """Changes the loss that a model returns in training as the modifiers of a recipe say.

    :param model: inside of all wrappers; it returns its own loss
    :param teacher: whose inputs are chosen by the names of its forward's parameters
    """

    def __init__(self, model: nn.Module, driver: StepDriver, teacher: Any) -> None:
        self._model, self._driver = model, driver
        known = parameters_of(teacher)[0] if callable(teacher) else set()
        self._known_inputs = known or None  # of any other it is not known
        names = sorted({type(one).__name__ for one in loss_modifiers(driver.manager)})
        self._who = " and ".join(names)
        self._scales: bool | None = None  # whether the model divides its loss by the items
        self._passes = self._used = 0
        self._handles = [
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self._after, with_kwargs=True),
        ]

    def __deepcopy__(self, memo: dict[int, Any]) -> LossCarrier:
        return self  # a copy of the model, as a teacher is one, takes its hooks along

    def remove(self) -> None:
        """Let the model return its own loss again."""
        for handle in self._handles:
            handle.remove()

    def require_used(self) -> None:
        """Check, before an optimizer step, that what it steps by is the changed loss.

        :raises CallbackError: if another loss was differentiated
        """
        passes, used = self._passes, self._used
        self._passes = self._used = 0
        if not passes or used < passes:
            raise CallbackError(
                f"{self._who} of the recipe changes the loss that {type(self._model).__name__} "
                "returns, but the Trainer trains by another one (compute_loss of a subclass, or "
                "compute_loss_func); leave the loss to the model, or that modifier out"
            )

    def _trains(self, module: nn.Module) -> bool:
        manager: Any = self._driver.manager
        active = module is self._model and manager.initialized and manager.enabled
        return active and module.training and torch.is_grad_enabled()

    def _before(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        # here, as watching modifiers are to see the pass of the training last
        if self._scales is None and kwargs.get(_ITEMS) is not None and self._trains(module):
            self._scales = _scales_with_items(module, args, kwargs)

    def _after(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        if not self._trains(module):
            return None
        named, loss = isinstance(output, Mapping), _loss_in(output, kwargs)
        if loss is None:
            raise CallbackError(
                f"{self._who} of the recipe changes the loss, but {type(module).__name__} returns "
                "none: give it labels, without label_smoothing_factor and compute_loss_func, "
                "which take them away; or leave that modifier out"
            )
        share = self._share(kwargs)
        total = share * self._driver.loss_update(
            loss / share,
            student_inputs=self._inputs(args, kwargs),
            student_outputs=Heads(output) if named else output[1:],
            student_labels=kwargs.get("labels"),
        )
        self._passes += 1
        if total.requires_grad:
            total.register_hook(self._note)
        if named:
            output["loss"] = total
            return output
        return (total, *output[1:])

    def _note(self, gradient: Tensor) -> None:
        self._used += 1

    def _share(self, kwargs: Mapping[str, Any]) -> Any:
        """Return by what the model has multiplied the mean loss of its batch.

        With gradients accumulated it divides the sum over a batch by the items of all batches.
        """
        labels, items = kwargs.get("labels"), kwargs.get(_ITEMS)
        if not self._scales or items is None or not isinstance(labels, Tensor):
            return 1.0
        return labels.ne(-100).sum().clamp(min=1) / items

    def _inputs(self, args: Any, kwargs: Mapping[str, Any]) -> Any:
        if args:
            return args
        known = self._known_inputs
        return {
            name: value
            for name, value in kwargs.items()
            if name != _ITEMS and (known is None or name in known)
        }


def _scales_with_items(module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Return whether a model divides its loss by ``num_items_in_batch``.

    Many take it as one of any keywords, and pass it by.
    """
    with undisturbed(module), torch.no_grad():
        once, halved = (
            _loss_in(module(*args, **{**kwargs, _ITEMS: kwargs[_ITEMS] * factor}), kwargs)
            for factor in (1, 2)
        )
    return once is not None and halved is not None and bool(halved < 0.75 * once)


def _loss_in(output: Any, kwargs: Mapping[str, Any]) -> Tensor | None:
    """Return the loss that a model has computed; None if it has not."""
    if isinstance(output, Mapping):
        return output.get("loss")
    return None if kwargs.get("labels") is None else output[0]
