"""Whether a checkpoint belongs to the run that is to go on from it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from sparseml.run.errors import RunError
from sparseml.run.processes import Processes
from sparseml.run.settings.flags import Changes

__all__ = ["RunIdentity"]

_LOGGER = logging.getLogger(__name__)


class _Settings(Protocol):
    def values(self, *changing: Changes) -> dict[str, Any]: ...


@dataclass(frozen=True)
class RunIdentity:
    """The settings that a run's weights depend on.

    :param values: name → value, as plain data
    :param of_optimizer: those that also say what kind of state the optimizer and its schedule have
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    of_optimizer: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: _Settings, where: Processes) -> RunIdentity:
        """Return the identity of a run with these settings, in so many processes."""
        kept = settings.values("result", "optimizer")
        plain = {key: list(v) if isinstance(v, tuple) else v for key, v in kept.items()}
        return cls({**plain, "processes": where.count}, tuple(settings.values("optimizer")))

    def require_same(
        self, path: Any, before: Mapping[str, Any], with_optimizer: bool = True
    ) -> None:
        """Compare with the values in a checkpoint that this run goes on from.

        Whatever differs is warned of: the run then is another one than if it had not stopped.

        :param before: the ``values`` of the run that wrote the checkpoint
        :param with_optimizer: whether the state of the optimizer is taken over, too
        :raises RunError: if that state is one of another optimizer or schedule
        """
        differing = {
            name: f"{name} {before.get(name)!r} (now {value!r})"
            for name, value in self.values.items()
            if name in before and before[name] != value
        }
        for name in self.of_optimizer if with_optimizer else ():
            if name in differing:
                raise RunError(
                    f"--resume {path} comes from --{name} {before[name]}, not {self.values[name]}; "
                    "--no-resume-opt goes on without the state of the optimizer"
                )
        if differing:
            _LOGGER.warning(
                "--resume %s comes from other settings, so the numbers will not be those of one "
                "whole run: %s", path, ", ".join(differing.values()),
            )  # fmt: skip
