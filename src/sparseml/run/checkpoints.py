"""Checkpoints of a training run: to resume from, and the best one of each sparsity.

A checkpoint also tells whether it belongs to the run that is to go on from it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from sparseml.pytorch.optim.loading import load_checkpoint
from sparseml.pytorch.utils.model import shapes_of
from sparseml.pytorch.utils.saving.checkpoint import save_checkpoint
from sparseml.pytorch.utils.saving.files import (
    CheckpointError,
    atomic_path,
    previous_path,
    read_torch_file,
)
from sparseml.pytorch.utils.saving.rng import get_rng_state, set_rng_state
from sparseml.run.errors import RunError, one_line
from sparseml.run.processes import Processes
from sparseml.run.session import TrainingRunSettings
from sparseml.utils.text import few, shortened

__all__ = ["Checkpoints", "RunIdentity", "find_checkpoint"]

_LOGGER = logging.getLogger(__name__)
_FEW_BYTES = 1 << 20


def find_checkpoint(path: str, flag: str = "--resume") -> Path:
    """Return the file to resume from, given it or the folder of its run.

    :param flag: that gave it, for errors
    :raises RunError: if there is none
    """
    given = Path(path).expanduser()
    if not given.is_dir():
        if not given.exists():
            raise RunError(f"{flag} {path}: no such file or folder")
        return given
    found = last_checkpoints(given)
    if not found and (given / "run.json").exists():
        raise RunError(
            f"{flag} {path}: the run has ended before its first checkpoint; begin it anew, with "
            "--overwrite"
        )
    if len(found) != 1:
        raise RunError(f"{flag} {path}: {len(found)} files *_last.pth are there, not one")
    return found[0]


def last_checkpoints(folder: Path) -> list[Path]:
    """Return the files to resume from in a folder and below it, sorted.

    A file that is only there as it was before (``.previous``) counts; hidden ones, which are being
    written or were when their process was killed, do not.
    """
    kept = [path for path in folder.glob("**/*_last.pth*") if not path.name.startswith(".")]
    return sorted({path.with_name(path.name.partition(".pth")[0] + ".pth") for path in kept})


@dataclass(frozen=True)
class RunIdentity:
    """The settings that a run's weights depend on.

    :param values: name → value, as plain data
    :param of_optimizer: those that also say what kind of state the optimizer and its schedule have
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    of_optimizer: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: TrainingRunSettings, where: Processes) -> RunIdentity:
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
            name: f"{name} {shortened(before.get(name))} (now {shortened(value)})"
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
                "whole run: %s", path, few(differing.values(), 8),
            )  # fmt: skip


@dataclass
class Checkpoints:
    """Writes the checkpoints of a run into a folder, and reads one back.

    Only the first process writes; reading is for all.

    :param parts: what :func:`~sparseml.pytorch.utils.save_checkpoint` takes: ``optimizer``,
        ``manager``, ``scheduler``, ``scaler``; those that are None are left out
    :param extras: name → anything else with ``state_dict`` and ``load_state_dict``
    :param identity: of the run, to compare on resuming
    """

    folder: Path
    name: str
    model: nn.Module
    where: Processes
    parts: dict[str, Any]
    extras: dict[str, Any] = field(default_factory=dict)
    identity: RunIdentity = field(default_factory=RunIdentity)

    @property
    def last(self) -> Path:
        """Return the file to resume from."""
        return self.folder / f"{self.name}_last.pth"

    def best(self, sparsity: float) -> Path:
        """Return the file of the best state at a sparsity."""
        return self.folder / f"{self.name}_sparsity={sparsity:.2f}_best.pth"

    def of_epoch(self, epoch: int) -> Path:
        """Return the file of an epoch."""
        return self.folder / f"{self.name}_epoch={epoch}.pth"

    def save(
        self,
        paths: list[Path],
        epoch: int,
        progress: dict[str, Any],
        begun: dict[str, Any] | None = None,
    ) -> None:
        """Write the state after ``epoch`` epochs, or in the middle of the one that follows.

        :param paths: the file to resume from is written last of all, so that what belongs to it is
            there when it is
        :param progress: plain data that :meth:`load` hands back
        :param begun: what this process needs to go on with an epoch that it has begun
        :raises RunError: if a file cannot be written; what it would have replaced stays
        """
        # each process draws by itself
        rng, each = self.where.gather(get_rng_state()), self.where.gather(begun)
        if not self.where.is_first or not paths:
            return
        extra: dict[str, Any] = {"rng": rng, "progress": progress}
        if begun is not None:
            extra["begun"] = each
        extra["settings"] = dict(self.identity.values)
        extra |= {key: value.state_dict() for key, value in self.extras.items()}
        first, *others = sorted(paths, key=lambda path: path == self.last)
        with _writing(first):
            save_checkpoint(
                first,
                self.model,
                **self._present(),
                epoch=epoch,
                rng=False,
                extra=extra,
                keep_previous=first == self.last,
            )
        for path in others:
            with _writing(path), atomic_path(path, path == self.last) as part:
                shutil.copyfile(first, part)

    def load(
        self, path: Path, with_optimizer: bool = True
    ) -> tuple[int, dict[str, Any], dict[str, Any] | None]:
        """Put everything back to where it was.

        :return: the epochs done, and what :meth:`save` was given as ``progress`` and ``begun``
        :raises RunError: if the file is of another kind, or of another recipe, model or optimizer
        :raises CheckpointError: if it is damaged
        """
        parts = self._present()
        if not with_optimizer:
            parts = {key: parts[key] for key in parts if key not in ("optimizer", "scheduler")}
        shapes = shapes_of(self.model.state_dict())
        try:
            info = load_checkpoint(path, self.model, **parts, rng=False)
        except CheckpointError:
            raise
        except (IndexError, OSError) as error:
            raise RunError(f"--resume {path}: {one_line(error)}") from error
        except (KeyError, RuntimeError, ValueError) as error:
            if with_optimizer:  # which may be why
                held = read_torch_file(path if path.exists() else previous_path(path))
                self.identity.require_same(path, _settings_in(held.get("extra")))
            reason = f"does not fit {self.name}: {one_line(error)}"
            raise RunError(f"--resume {path} {reason}") from error
        extra = info.extra
        if not isinstance(extra, dict) or not {"rng", "progress"} <= extra.keys():
            raise RunError(f"--resume {path} was not written by this script")
        lacking = [key for key in self.extras if key not in extra]
        if lacking:
            raise RunError(f"--resume {path} holds no state of: {few(lacking)}")
        before, model = _settings_in(extra), self.identity.values.get("model")
        # thinning changes shapes, too; then the model is built as it was
        if before.get("model") != model and shapes != shapes_of(self.model.state_dict()):
            raise RunError(
                f"--resume {path} comes from --model {before.get('model')}, whose layers have "
                f"other shapes than those of {model}"
            )
        self.identity.require_same(path, before, with_optimizer)
        for key, value in self.extras.items():
            value.load_state_dict(extra[key])
        begun = extra.get("begun")
        if begun is not None and len(begun) != self.where.count:
            raise RunError(
                f"--resume {path} was saved in the middle of an epoch by {len(begun)} processes, "
                f"and only as many can go on with it, not {self.where.count}"
            )
        if len(extra["rng"]) == self.where.count:
            set_rng_state(extra["rng"][self.where.rank])
        return int(info.epoch or 0), extra["progress"], begun and begun[self.where.rank]

    def _present(self) -> dict[str, Any]:
        return {key: value for key, value in self.parts.items() if value is not None}


def _settings_in(extra: Any) -> Mapping[str, Any]:
    return extra.get("settings", {}) if isinstance(extra, dict) else {}


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError) as error:
        folder = next(parent for parent in path.parents if parent.exists())
        free = shutil.disk_usage(folder).free
        why = "the disk is full" if free < _FEW_BYTES else one_line(str(error).partition("\n")[0])
        last = bool(last_checkpoints(path.parent))
        kept = "; the last checkpoint is whole, --resume goes on from it" if last else ""
        told = f"{path} cannot be written: {why} ({free / 1e6:.1f} MB free){kept}"
        raise RunError(told) from error
