"""A pruned copy of a part of a model, that learns to do what the original does."""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from sparseml.pytorch.functional.composing.targets import hash_of
from sparseml.pytorch.sparsification.composing.blocks import Block, DigestError
from sparseml.pytorch.sparsification.param_selection import select_params
from sparseml.pytorch.sparsification.pruning.masks.mask_set import MaskSet
from sparseml.pytorch.sparsification.pruning.masks.outcome import Change, Outcome
from sparseml.pytorch.utils.saving.files import read_safetensors, write_safetensors

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""The arguments of a module, by position and by name."""

MEMORY_OF_WEIGHT = 4 + 1 + 4 + 8 + 4
"""Bytes of each weight that is tuned: value, mask, gradient, what Adam remembers, best value."""
_TOLD = ("steps", "epoch", "best_epoch", "losses")
DECAYS: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: (1.0 + math.cos(math.pi * done)) / 2.0,
}
"""What becomes of the learning rate, by the part of the steps that is done."""


@dataclass(frozen=True)
class TuningSettings:
    """How blocks are tuned.

    :param epochs: at most
    :param lr: learning rate of AdamW
    :param patience: epochs without a better held-out loss after which a block is done; 0 for never
    :param loss: ``nmse``, ``mse`` or ``cosine``
    :param decay: what becomes of ``lr``, a key of :data:`DECAYS`
    :param teacher_dropout: let the original drop out, as when it is trained
    :param dropout: let the pruned copy drop out
    :param seed: of what is drawn for a block, beside its id
    """

    epochs: int = 5
    lr: float = 1e-3
    weight_decay: float = 0.0
    patience: int = 0
    loss: str = "nmse"
    decay: str = "linear"
    teacher_dropout: bool = False
    dropout: bool = False
    seed: int = 0


class Student:
    """A block that is being tuned, with all that is its own: masks, optimizer, best state.

    :param block: which
    :param model: the origin, of which it is a copy
    :param tensors: full name → value, as they were pruned
    :param masks: full name of a parameter → bool
    """

    def __init__(
        self,
        block: Block,
        model: nn.Module,
        tensors: Mapping[str, Tensor],
        masks: Mapping[str, Tensor],
        settings: TuningSettings,
    ) -> None:
        self.block, self.settings = block, settings
        parts = [copy.deepcopy(model.get_submodule(name)) for name in block.modules]
        self.module = nn.ModuleList(parts).train(settings.dropout).requires_grad_(True)
        pairs = zip(block.modules, range(len(parts)), strict=True)
        prefixes = {f"{name}.": f"{place}." for name, place in pairs}
        self._names = {_renamed(name, prefixes): name for name in tensors}
        own = {name: tensors[full] for name, full in self._names.items()}
        self.module.load_state_dict(own)
        inner = {full: name for name, full in self._names.items()}
        changes = {inner[full]: mask for full, mask in masks.items()}
        self.masks = MaskSet(select_params(self.module, list(changes)))
        self.masks.enabled = True
        self.masks.take(Outcome((n, Change(changes[n])) for n in self.masks.full_names))
        params = [param for param in self.module.parameters() if param.is_floating_point()]
        rate, decay = settings.lr, settings.weight_decay
        self.optimizer = torch.optim.AdamW(params, rate, (0.9, 0.98), 1e-9, decay)
        self.best = self._values()
        self.steps = self.epoch = self.best_epoch = 0
        self.losses: list[float] = []  # held out: before, then after each epoch

    @property
    def done(self) -> bool:
        """Whether it has learned as long as it shall."""
        patience = self.settings.patience
        waited = self.epoch - self.best_epoch
        return self.epoch >= self.settings.epochs or (0 < patience <= waited)

    @property
    def memory(self) -> int:
        """Return about how many bytes it takes, activations apart."""
        return MEMORY_OF_WEIGHT * sum(param.numel() for param in self.module.parameters())

    def run(self, calls: Sequence[Call]) -> Tensor:
        """Return what it makes of the inputs of its modules; the first one's are enough.

        :param calls: arguments of each module, in which the tensor that the one before it hands on
            is replaced
        """
        value: Tensor | None = None
        for module, (args, kwargs) in zip(self.module, calls, strict=True):
            if value is not None:
                args, kwargs = _with_first(args, kwargs, value)
            value = first_tensor(module(*detached(args), **detached(kwargs)))
        return cast(Tensor, value)

    @contextlib.contextmanager
    def drawing(self) -> Iterator[None]:
        """Within the block random numbers are its own: of its id, the seed and the step."""
        if not self.settings.dropout:
            yield
            return
        drawn = hash_of([self.block.block_id, self.settings.seed, self.steps])
        with torch.random.fork_rng():
            torch.manual_seed(int(drawn[:15], 16))
            yield

    def step(self, steps_per_epoch: int) -> None:
        """Move the weights by the gradients that there are."""
        whole = max(1, steps_per_epoch * self.settings.epochs)
        rate = self.settings.lr * DECAYS[self.settings.decay](min(1.0, self.steps / whole))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.masks.apply()
        self.steps += 1

    def measured(self, loss: float) -> None:
        """Take the held-out loss before the first epoch or after one, and keep the best state."""
        first = not self.losses
        better = first or loss < min(self.losses)
        self.losses.append(loss)
        if not first:
            self.epoch += 1
        if better:
            self.best, self.best_epoch = self._values(), self.epoch

    def tensors(self) -> dict[str, Tensor]:
        """Return the best state, by full names."""
        return {self._names[name]: value for name, value in self.best.items()}

    def named_masks(self) -> dict[str, Tensor]:
        """Return the masks (bool), by full names."""
        pairs = zip(self.masks.full_names, self.masks.masks, strict=True)
        return {self._names[name]: mask for name, mask in pairs}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all that a resumed tuning needs, as named tensors and plain data."""
        content = {f"now.{name}": value for name, value in self._values().items()}
        content |= {f"best.{name}": value for name, value in self.best.items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            content |= {f"adam.{number}.{name}": torch.as_tensor(v) for name, v in state.items()}
        told = {name: getattr(self, name) for name in _TOLD}
        told |= {"block_id": self.block.block_id, "settings": asdict(self.settings)}
        return content, told

    def load_state(self, content: Mapping[str, Tensor], told: Mapping[str, Any]) -> None:
        """Go on where :meth:`state` was called.

        :raises DigestError: for the state of another block, or of other settings
        """
        own = {"block_id": self.block.block_id, "settings": asdict(self.settings)}
        if {name: told.get(name) for name in own} != own:
            raise DigestError(f"the state of {self.block.label} is of another block or settings")
        self.module.load_state_dict(_below("now.", content))
        self.best = _below("best.", content)
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("adam.", content).items():
            number, _, key = name.partition(".")
            state.setdefault(int(number), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        for name in _TOLD:
            setattr(self, name, told[name])

    def save(self, path: Path) -> None:
        """Write the state as one file that is whole or absent."""
        content, told = self.state()
        write_safetensors(path, content, {"told": json.dumps(told)})

    def load(self, path: Path) -> None:
        """Go on where :meth:`save` was called; see :meth:`load_state`."""
        content, header = read_safetensors(path)
        self.load_state(content, json.loads(header["told"]))

    def _values(self) -> dict[str, Tensor]:
        return {name: value.detach().clone() for name, value in self.module.state_dict().items()}


def first_tensor(output: Any) -> Tensor:
    """Return the first tensor of what a module returns.

    :raises ValueError: if there is none
    """
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, Mapping) else output
    for value in values if isinstance(output, (Mapping, tuple, list)) else ():
        if isinstance(value, Tensor):
            return value
    raise ValueError(f"a block must return a tensor, found {type(output).__name__}")


def detached(value: Any) -> Any:
    """Return arguments without what autograd knows of them, and without caches.

    A cache of keys and values is changed by who is called with it, and is empty before.
    """
    if isinstance(value, Tensor):
        return value.detach()
    if type(value).__name__.endswith("Cache"):
        return None
    if type(value) in (list, tuple):
        return type(value)(detached(one) for one in value)
    return {key: detached(one) for key, one in value.items()} if type(value) is dict else value


def _with_first(args: tuple[Any, ...], kwargs: dict[str, Any], value: Tensor) -> Call:
    if args:
        return (value, *args[1:]), kwargs
    name = next(key for key, one in kwargs.items() if isinstance(one, Tensor))
    return args, {**kwargs, name: value}


def _renamed(name: str, prefixes: Mapping[str, str]) -> str:
    before = next(one for one in prefixes if name.startswith(one))
    return prefixes[before] + name.removeprefix(before)


def _below(prefix: str, content: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): v for n, v in content.items() if n.startswith(prefix)}


def tuning_id(settings: TuningSettings, data: str) -> str:
    """Return the hash of how blocks are tuned, and on which data.

    :param data: what the data are known by
    """
    return hash_of({"settings": asdict(settings), "data": data})


def tune_id(block: Block, tuning: str) -> str:
    """Return the id of a block as it is tuned in some way; see :func:`tuning_id`."""
    return hash_of({"block_id": block.block_id, "tuning": tuning})
