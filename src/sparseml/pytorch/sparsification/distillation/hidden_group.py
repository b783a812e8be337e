"""A parameter group that an optimizer trains but does not show in its state.

The checkpoints of a run whose model is distilled then hold what those of any other run do, and can
be loaded with or without the distillation.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from sparseml.pytorch.utils.optimizers import stepping_optimizers

_LOGGER = logging.getLogger(__name__)

DISTILL_PARAM_GROUP_KEY = "distillation_projection_params"
"""The key that marks the group."""


class HiddenParamGroup:
    """Parameters in an optimizer, with the options and state that it keeps for them."""

    def __init__(self) -> None:
        self._params: list[Tensor] = []
        self._optimizer: Any = None
        self._pending: Mapping[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        # a copy joins an optimizer anew
        return {**vars(self), "_optimizer": None, "_pending": self.state()}

    def join(self, params: Sequence[Tensor], optimizer: Any) -> None:
        """Have the optimizer train the parameters, unless it does already.

        They begin with the options of the group that has the highest learning rate.

        :raises ValueError: for an optimizer that takes no further parameters
        """
        optimizer = getattr(optimizer, "wrapped_optimizer", optimizer)  # of manager.modify
        # the one inside, as those around it need not have what torch's have
        optimizer = next(iter(stepping_optimizers(optimizer)), optimizer)
        if not callable(getattr(optimizer, "add_param_group", None)):
            raise ValueError(
                "the optimizer must be one that trains the projections too, found "
                f"{type(optimizer).__name__} (set project_features: False to do without)"
            )
        self._params, self._optimizer = list(params), optimizer
        if self._group() is not None:
            return
        if not any(map(_is_hidden, optimizer.param_groups)):
            optimizer.register_state_dict_post_hook(_hide)
            optimizer.register_load_state_dict_pre_hook(_fill_in)
        self._add_to(optimizer)
        self._restore()

    def state(self) -> dict[str, Any]:
        """The options and the optimizer's state of each parameter, as plain data and tensors."""
        group = self._group()
        if group is None:
            return dict(self._pending)
        return {
            "options": _copied({k: value for k, value in group.items() if k != "params"}),
            "params": [_copied(self._optimizer.state.get(param, {})) for param in self._params],
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore :meth:`state`, at once or when the parameters join an optimizer."""
        self._pending = state
        self._restore()

    def _add_to(self, optimizer: Any) -> None:
        groups = optimizer.param_groups
        like = max(groups, key=lambda group: float(group.get("lr", 0.0)))
        if "initial_lr" in like:
            _LOGGER.warning(
                "the optimizer gets a parameter group more, for projections; schedulers of PyTorch "
                "that keep a rate for each group, as LambdaLR, fail unless made after the first "
                "distillation loss (those of recipes do not)"
            )
        options = {k: v for k, v in like.items() if k not in ("params", "param_names")}
        params: list[Any] = list(self._params)
        if "param_names" in like:
            params = [(f"projection.{number}", param) for number, param in enumerate(params)]
        optimizer.add_param_group(
            {**_copied(options), "params": params, DISTILL_PARAM_GROUP_KEY: True}
        )

    def _group(self) -> dict[str, Any] | None:
        for group in [] if self._optimizer is None else self._optimizer.param_groups:
            if _is_hidden(group) and group["params"][0] is self._params[0]:
                return group
        return None

    def _restore(self) -> None:
        group = self._group()
        if group is None or not self._pending:
            return
        group.update(self._pending["options"])
        for param, state in zip(self._params, self._pending["params"], strict=True):
            self._optimizer.state[param] = {
                key: _placed(value, param, group) for key, value in state.items()
            }
        self._pending = {}


def _is_hidden(group: Mapping[str, Any]) -> bool:
    return bool(group.get(DISTILL_PARAM_GROUP_KEY))


def _copied(state: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value.detach().clone() if isinstance(value, Tensor) else value
        for key, value in state.items()
    }


def _placed(value: Any, param: Tensor, group: Mapping[str, Any]) -> Any:
    if not isinstance(value, Tensor):
        return value
    # counters stay on the CPU unless the optimizer runs without asking for values
    follows = value.shape == param.shape or group.get("capturable") or group.get("fused")
    return value.clone().to(param.device) if follows else value.clone()


def _hide(_optimizer: Any, state: dict[str, Any]) -> dict[str, Any]:
    """Take hidden groups out of what ``state_dict()`` returns."""
    hidden = {i for group in state["param_groups"] if _is_hidden(group) for i in group["params"]}
    return {
        **state,
        "state": {key: value for key, value in state["state"].items() if key not in hidden},
        "param_groups": [group for group in state["param_groups"] if not _is_hidden(group)],
    }


def _fill_in(optimizer: Any, state: dict[str, Any]) -> dict[str, Any] | None:
    """Put hidden groups as they are into a state without them, so that the optimizer takes it."""
    if any(map(_is_hidden, state["param_groups"])):
        return None
    groups, values = list(state["param_groups"]), dict(state["state"])
    free = 1 + max((i for group in groups for i in group["params"]), default=-1)
    for position, own in enumerate(optimizer.param_groups):
        if _is_hidden(own):
            numbers = list(range(free, free + len(own["params"])))
            free += len(numbers)
            groups.insert(position, {**own, "params": numbers})
            known = zip(numbers, own["params"], strict=True)
            values |= {i: optimizer.state[param] for i, param in known if param in optimizer.state}
    return {**state, "state": values, "param_groups": groups}
