"""The root of all PyTorch modifiers, and the decorator that gives a modifier its recipe tag."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from sparseml.optim.modifier import BaseModifier, ModifierProp, ModifierYAML
from sparseml.optim.schedule import ONE_SHOT
from sparseml.pytorch.sparsification.declared_state import gather_progress, restore_progress
from sparseml.pytorch.sparsification.param_selection import as_entries, select_params
from sparseml.pytorch.utils.logger import BaseLogger, LoggerManager
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.sparsification.types import SparsificationTypes
from sparseml.utils.text import few

__all__ = ["PYTORCH_FRAMEWORK", "Loggers", "Modifier", "ModifierProp", "PyTorchModifierYAML"]

_LOGGER = logging.getLogger(__name__)
_ModifierType = TypeVar("_ModifierType", bound=type)

PYTORCH_FRAMEWORK = "pytorch"

Loggers = LoggerManager | list[BaseLogger] | None
"""Where to log to: anything but a manager is put into a new one."""


def PyTorchModifierYAML(
    swap_class_by_state_fn: Callable[[dict[str, Any]], type] | None = None,
) -> Callable[[_ModifierType], _ModifierType]:
    """Make a modifier class, as its decorator, loadable from a recipe under ``!ClassName``.

    :param swap_class_by_state_fn: given the fields found in the recipe, the class to build instead
    """
    return ModifierYAML(PYTORCH_FRAMEWORK, swap_class_by_state_fn=swap_class_by_state_fn)


class Modifier(BaseModifier):
    """What is done to a model, its optimizer or its loss while it trains.

    Life cycle: ``initialize``, then at every optimizer step ``loss_update``, ``update``,
    ``optimizer_pre_step``, the step itself, ``optimizer_post_step``; at last ``finalize``.
    Times are epochs as floats, progress within the epoch included. All of these methods raise
    :class:`RuntimeError` when called on a modifier that is not initialised.

    A class names in ``_progress`` the attributes of its own that a resumed run needs.
    """

    _progress: ClassVar[tuple[str, ...]] = ()
    _masks_params = False  # whether what it selects is to be masked
    _order_dependence = "it does not say that weights, fields and fixed samples decide alone"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._loggers_initialized = False
        self._loggers: LoggerManager | None = None

    def __del__(self) -> None:
        # Hooks on a model must not outlive the modifier that registered them.
        if not getattr(self, "_initialized", False) or sys.is_finalizing():
            return
        try:
            self.finalize()
        except Exception:
            _LOGGER.debug("finalize failed while deleting %s", type(self).__name__, exc_info=True)

    @classmethod
    def load_list(cls, yaml_str: str) -> list[BaseModifier] | dict[str, list[BaseModifier]]:
        """Return all modifiers of a recipe text: a list, or stage name → list if it is staged."""
        return cls.load_framework_list(yaml_str, PYTORCH_FRAMEWORK)

    @classmethod
    def load_obj(cls, yaml_str: str) -> BaseModifier:
        """Return the modifier that a text such as ``!EpochRangeModifier {...}`` describes."""
        return cls.load_framework_obj(yaml_str, PYTORCH_FRAMEWORK)

    @ModifierProp(serializable=False)
    def loggers_initialized(self) -> bool:
        """Whether :meth:`initialize_loggers` has been called."""
        return self._loggers_initialized

    @ModifierProp(serializable=False)
    def loggers(self) -> LoggerManager | list[BaseLogger]:
        """Where this modifier logs to; empty before the loggers are initialised."""
        return [] if self._loggers is None else self._loggers

    def initialize(
        self, module: Module, epoch: float = 0, loggers: Loggers = None, **kwargs: Any
    ) -> None:
        """Attach to a model. May be called again.

        :param epoch: the epoch training starts at; ``ONE_SHOT`` (infinity) for an application at
            once, without training
        :param loggers: a manager, or loggers to put into a new one
        :param kwargs: extras of particular modifiers; every modifier accepts unknown ones
        """
        self._initialized = True
        self.initialize_loggers(loggers)

    def initialize_loggers(self, loggers: Loggers) -> None:
        """Set where to log to; anything but a :class:`LoggerManager` is put into a new one."""
        self._loggers = loggers if isinstance(loggers, LoggerManager) else LoggerManager(loggers)
        self._loggers_initialized = True

    def finalize(
        self, module: Module | None = None, reset_loggers: bool = True, **kwargs: Any
    ) -> None:
        """Detach from the model and, with ``reset_loggers``, from the loggers."""
        self._require_initialized("finalize")
        self._initialized = False
        if reset_loggers:
            self._loggers = None
            self._loggers_initialized = False

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Do what this modifier is there for; called before the optimizer's step."""
        if not (self._initialized and self._enabled):  # no call where there is nothing to say
            self._require_active("update")

    def update_ready(self, epoch: float, steps_per_epoch: int) -> bool:
        """Return whether an update is due; never, for a modifier without a schedule."""
        return False

    def log_update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Log the present state; called after :meth:`update`."""
        self._require_active("log_update")
        self._require_loggers("log_update")

    def loss_update(
        self,
        loss: Tensor,
        module: Module,
        optimizer: Optimizer,
        epoch: float,
        steps_per_epoch: int,
        **kwargs: Any,
    ) -> Tensor:
        """Return the loss to differentiate instead of ``loss``; called whether started or not."""
        if not (self._initialized and self._enabled):
            self._require_active("loss_update")
        return loss

    def optimizer_pre_step(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Act on the final gradients, right before the optimizer's step."""
        if not (self._initialized and self._enabled):
            self._require_active("optimizer_pre_step")

    def optimizer_post_step(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Act on the weights, right after the optimizer's step."""
        if not (self._initialized and self._enabled):
            self._require_active("optimizer_post_step")

    def apply(
        self,
        module: Module,
        epoch: float = ONE_SHOT,
        loggers: Loggers = None,
        finalize: bool = True,
        **kwargs: Any,
    ) -> None:
        """Apply in one shot, without training; ``kwargs`` go to initialize and finalize."""
        self.initialize(module, epoch, loggers, **kwargs)
        if finalize:
            self.finalize(module, **kwargs)

    def apply_structure(
        self,
        module: Module,
        epoch: float = 0.0,
        loggers: Loggers = None,
        finalize: bool = False,
        **kwargs: Any,
    ) -> None:
        """Bring the module's structure (not its values) to what it is at ``epoch``.

        Only modifiers whose ``sparsification_types`` contain ``structured`` do anything.
        """
        if SparsificationTypes.structured in self.sparsification_types:
            self.initialize(module, epoch, loggers, **kwargs)
            if finalize:
                self.finalize(module, **kwargs)

    @property
    def changes_loss(self) -> bool:
        """Return whether :meth:`loss_update` returns another loss than it is given."""
        return type(self).loss_update is not Modifier.loss_update

    @property
    def resizes(self) -> bool:
        """Return whether parameters get other shapes in the middle of training."""
        return False

    def selecting_entries(self) -> list[str]:
        """Return the tokens, names and patterns by which parameters are selected, in order.

        They are those of the field ``params``; a modifier without it has none.
        """
        return as_entries(getattr(self, "params", None))

    def selects(self, module: Module) -> list[NamedLayerParam]:
        """Return the parameters that this modifier selects, checked as initialising checks them.

        Changes neither modifier nor module. A modifier without the field ``params`` selects none.

        :param module: the model; it may be on the meta device, as only names and shapes count
        :raises RuntimeError: for an entry that matches nothing
        :raises ValueError: if nothing is selected at all, or what is selected does not fit
        """
        params = getattr(self, "params", None)
        return [] if params is None else self.select(module, params)

    def select(
        self, module: Module, params: str | Iterable[str], strict: bool | None = None
    ) -> list[NamedLayerParam]:
        """Return the parameters that entries mean to this modifier, without those it excludes.

        :param strict: demand that every entry matches something; by default as ``params_strict``
        """
        strict = getattr(self, "params_strict", True) if strict is None else strict
        exclude, masked = getattr(self, "exclude", None), self._masks_params
        return select_params(module, params, strict, exclude=exclude, masked=masked)

    @property
    def order_dependence(self) -> str:
        """Why what it prunes depends on what training did before; "" if it never does."""
        return self._order_dependence

    @property
    def composable(self) -> bool:
        """Whether weights, fields and fixed samples decide on its masks, and nothing else."""
        return not self.order_dependence

    def needs(self) -> dict[str, str]:
        """Return the extras of :meth:`initialize` that are asked for → what happens without."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold beside model and optimizer; mostly nothing."""
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> None:
        """Restore :meth:`state_dict`.

        :raises IndexError: with ``strict``, on keys that this modifier does not have
        """
        if strict and state_dict:
            raise IndexError(
                f"{type(self).__name__} keeps no state, found the keys {few(sorted(state_dict))}"
            )

    def progress_state(self) -> dict[str, Any]:
        """Return how far this modifier has come: plain data and tensors, to resume bit by bit.

        It holds what :meth:`state_dict` does not: the attributes that the classes name in
        ``_progress``. Tensors among them must not be changed in place.
        """
        return gather_progress(self)

    def load_structure_state(self, module: Module, state: Mapping[str, Any]) -> None:
        """Give ``module`` the layers that it had when :meth:`progress_state` was taken.

        Called on an initialised modifier before the weights of a checkpoint are loaded. Shapes need
        no care, they follow the weights.
        """
        self._require_initialized("load_structure_state")

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`progress_state` on an initialised modifier."""
        self._require_initialized("load_progress_state")
        restore_progress(self, state)

    def _require_initialized(self, caller: str) -> None:
        if not self._initialized:
            raise RuntimeError(
                f"{type(self).__name__}.{caller} was called before initialize (or after finalize); "
                "call initialize(module) first"
            )

    def _require_active(self, caller: str) -> None:
        self._require_initialized(caller)
        if not self._enabled:
            raise RuntimeError(
                f"{type(self).__name__}.{caller} was called while the modifier is disabled; "
                "set enabled = True first"
            )

    def _require_loggers(self, caller: str) -> None:
        if not self._loggers_initialized:
            raise RuntimeError(
                f"{type(self).__name__}.{caller} was called before initialize_loggers; "
                "call initialize or initialize_loggers first"
            )
