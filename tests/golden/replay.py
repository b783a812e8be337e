"""Run a scenario through the public interface, and write down what came of it.

Everything here goes through recipes, the manager, ``sweep`` and the model's own tensors, so that it
runs the same way whatever the package looks like inside.
"""

from __future__ import annotations

import hashlib
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor, nn
from torch.nn import functional

from sparseml.pytorch.optim import ScheduledModifierManager

__all__ = ["Scenario", "outcome_of", "single_threaded"]

VALUES = 64
STEPS, PER_EPOCH, STOP = 12, 4, 5
FOLDER_TOKEN = "__FOLDER__"


@dataclass(frozen=True)
class Scenario:
    """One thing that a modifier is asked to do.

    :param modifier: name of the modifier's class
    :param name: of the case, unique within the modifier
    :param way: ``one_shot``, ``gradual``, ``resumed`` or ``sweep``
    :param model: one of ``MODELS``
    :param fields: the modifier's fields, as in a recipe; ``__FOLDER__`` becomes an empty folder
    :param others: other modifiers of the recipe, name → fields
    :param sampler: ``given``, ``iterator`` (a loader that goes on where it stopped), or ``none``
    :param sparsities: what a sweep goes through
    :param per_epoch: optimizer steps that make an epoch
    """

    modifier: str
    name: str
    way: str
    model: str
    fields: Mapping[str, Any]
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sampler: str = "given"
    sparsities: Sequence[float] = ()
    per_epoch: int = PER_EPOCH

    @property
    def needs_folder(self) -> bool:
        """Whether a field names the empty folder."""
        return FOLDER_TOKEN in self.fields.values()

    def recipe(self, folder: str) -> str:
        """The recipe as text."""
        modifiers = [*self.others.items(), (self.modifier, self.fields)]
        lines = ["modifiers:"]
        for name, fields in modifiers:
            text = yaml.safe_dump(dict(fields), default_flow_style=True, width=10_000).strip()
            lines.append(f"  - !{name} {text.replace(FOLDER_TOKEN, folder)}")
        return "\n".join(lines) + "\n"


class ConvNet(nn.Module):
    """A convolution, batch norm, a depthwise convolution and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.head = nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        """``[N, 4, H, W]`` to ``[N, 4]``."""
        hidden = functional.relu(self.norm(self.conv(images)))
        return self.head(functional.relu(self.depthwise(hidden)).mean(dim=(2, 3)))


def _mlp(inputs: int = 16, hidden: int = 24, outputs: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, outputs))


def _with_zeros() -> nn.Module:
    """Six of ten weights are zero already, so that a low sparsity has to choose among ties."""
    model = _mlp()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.mul_(torch.rand(layer.weight.shape, generator=generator) > 0.6)
    return model


def _with_ties() -> nn.Module:
    """Few different values, so that most thresholds fall among equal scores."""
    model = _mlp()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.copy_((layer.weight * 20).round() / 20)
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (_mlp, (16,)),
    "square": (lambda: _mlp(16, 16, 16), (16,)),
    "unequal": (lambda: _mlp(32, 8, 32), (32,)),
    "zeros": (_with_zeros, (16,)),
    "ties": (_with_ties, (16,)),
    "conv": (ConvNet, (4, 6, 6)),
}
"""How each model is made, and the shape of one of its inputs."""


class Bench:
    """A model, its optimizer and its data."""

    def __init__(self, scenario: Scenario) -> None:
        make, self.shape = MODELS[scenario.model]
        torch.manual_seed(0)
        self.model = make()
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.2, momentum=0.9)
        self.scenario = scenario

    def step(self, stepper: Any, number: int) -> None:
        """One step of training, on data that depend on its number alone."""
        generator = torch.Generator().manual_seed(1000 + number)
        inputs = torch.randn(6, *self.shape, generator=generator)
        self.optimizer.zero_grad()
        outputs = self.model(inputs)
        (outputs - torch.randn(outputs.shape, generator=generator)).pow(2).mean().backward()
        stepper.step()

    def sampling(self) -> dict[str, Any]:
        """What a modifier that samples gradients is given."""
        if self.scenario.sampler == "none":
            return {}
        iterator = self.scenario.sampler == "iterator"

        def build(seed: int = 3) -> Any:
            stream = self._samples(seed)
            return stream if iterator else [next(stream) for _ in range(16)]

        loss = functional.cross_entropy
        sampler = {"data_loader_builder": build, "loss_fn": loss, "progress_bar": False}
        return {"grad_sampler": sampler}

    def _samples(self, seed: int) -> Iterator[Any]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            inputs = torch.randn(5, *self.shape, generator=generator)
            yield [inputs], {}, torch.randint(4, (5,), generator=generator)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Within the block torch computes with one thread and by deterministic algorithms."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(threads)


def outcome_of(scenario: Scenario) -> dict[str, Any]:
    """What comes of a scenario, as JSON can hold it."""
    ways = {"one_shot": _one_shot, "gradual": _gradual, "resumed": _resumed, "sweep": _sweep}
    with tempfile.TemporaryDirectory() if scenario.needs_folder else nullcontext("") as folder:
        return ways[scenario.way](scenario, folder)


def _one_shot(scenario: Scenario, folder: str) -> dict[str, Any]:
    bench = Bench(scenario)
    manager = ScheduledModifierManager.from_yaml(scenario.recipe(folder))
    manager.apply(bench.model, finalize=False, **bench.sampling())
    record = _Record(manager)
    record.look("one shot")
    found = record.found()
    manager.finalize(bench.model)
    return {**found, **tensors(bench.model.state_dict())}


def _gradual(scenario: Scenario, folder: str) -> dict[str, Any]:
    bench = Bench(scenario)
    manager = ScheduledModifierManager.from_yaml(scenario.recipe(folder))
    stepper = _modify(manager, bench)
    record = _Record(manager)
    for number in range(STEPS):
        bench.step(stepper, number)
        record.look(number)
    return {**record.found(), **_end(manager, bench)}


def _resumed(scenario: Scenario, folder: str) -> dict[str, Any]:
    bench = Bench(scenario)
    manager = ScheduledModifierManager.from_yaml(scenario.recipe(folder))
    stepper = _modify(manager, bench)
    for number in range(STOP):
        bench.step(stepper, number)
    saved = io.BytesIO()
    state = manager.state_dict()
    torch.save([part.state_dict() for part in (bench.model, bench.optimizer, manager)], saved)
    saved.seek(0)
    other = Bench(scenario)
    manager = ScheduledModifierManager.from_yaml(scenario.recipe(folder))
    stepper = _modify(manager, other)
    parts = (other.model, other.optimizer, manager)
    for part, value in zip(parts, torch.load(saved, weights_only=True), strict=True):
        part.load_state_dict(value)
    record = _Record(manager)
    for number in range(STOP, STEPS):
        other.step(stepper, number)
        record.look(number)
    return {**record.found(), "saved": _kinds(state), **_end(manager, other)}


def _sweep(scenario: Scenario, folder: str) -> dict[str, Any]:
    bench = Bench(scenario)
    manager = ScheduledModifierManager.from_yaml(scenario.recipe(folder))
    modifier = manager.pruning_modifiers[0]
    before = tensors(bench.model.state_dict())
    found: dict[str, Any] = {}
    for sparsity, outcome in modifier.sweep(
        bench.model, list(scenario.sparsities), **bench.sampling()
    ):
        masks = {name: mask for name, (mask, _) in outcome.items()}
        weights = {name: weight for name, (_, weight) in outcome.items()}
        found[str(sparsity)] = {"masks": _bits(masks), **tensors(weights)}
    assert tensors(bench.model.state_dict()) == before, "a sweep changed the model"
    return {"names": _shapes(masks), "sweep": found}


def _modify(manager: ScheduledModifierManager, bench: Bench) -> Any:
    per_epoch = bench.scenario.per_epoch
    sampling = bench.sampling()
    return manager.modify(bench.model, bench.optimizer, steps_per_epoch=per_epoch, **sampling)


def _end(manager: ScheduledModifierManager, bench: Bench) -> dict[str, Any]:
    moments = {
        f"{name}.{key}": value
        for name, param in bench.model.named_parameters()
        for key, value in sorted(bench.optimizer.state[param].items())
        if isinstance(value, Tensor)
    }
    manager.finalize(bench.model)
    return {"momentum": tensors(moments, 16), **tensors(bench.model.state_dict())}


class _Record:
    """By the modifier's class, its masks and the sparsity asked for, whenever they have changed."""

    def __init__(self, manager: ScheduledModifierManager) -> None:
        self._manager = manager
        self._masks: dict[str, list[Any]] = {}
        self._applied: dict[str, list[Any]] = {}

    def look(self, moment: Any) -> None:
        for modifier in self._manager.pruning_modifiers:
            name = type(modifier).__name__
            masks = _bits(dict(_masks(modifier.state_dict())))
            _append_if_new(self._masks.setdefault(name, []), moment, masks)
            applied = _plain(getattr(modifier, "applied_sparsity", None))
            _append_if_new(self._applied.setdefault(name, []), moment, applied)

    def found(self) -> dict[str, Any]:
        state = self._manager.state_dict()
        return {
            "names": _shapes(dict(_masks(state))),
            "masks": self._masks,
            "applied_sparsity": self._applied,
            "state": _kinds({key: value for key, value in state.items() if key[:2] != "__"}),
        }


def _append_if_new(entries: list[Any], moment: Any, value: Any) -> None:
    if not entries or entries[-1][1] != value:
        entries.append([moment, value])


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return float(f"{value:.12g}") if isinstance(value, float) else value


def _masks(state: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    for key, value in state.items():
        if isinstance(value, Tensor) and key.endswith(".sparsity_mask"):
            yield prefix + key.removesuffix(".sparsity_mask"), value
        elif isinstance(value, Mapping) and not key.startswith("__"):
            yield from _masks(value, f"{key}/" if key.endswith("_masks") else "")


def _shapes(masks: Mapping[str, Tensor]) -> dict[str, list[int]]:
    return {name: list(mask.shape) for name, mask in masks.items()}


def _bits(masks: Mapping[str, Tensor]) -> str:
    """All masks one after another, a bit for each entry (1 = keep), as hexadecimal digits."""
    flat = [(mask != 0).flatten().cpu().numpy() for mask in masks.values()]
    return np.packbits(np.concatenate(flat)).tobytes().hex() if flat else ""


def _kinds(state: Any) -> Any:
    """The keys of a state, and what is in place of each value: a dtype with a shape, or a type."""
    if isinstance(state, Mapping):
        return {str(key): _kinds(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return [_kinds(value) for value in state]
    if isinstance(state, Tensor):
        return f"{str(state.dtype).removeprefix('torch.')}{list(state.shape)}"
    return type(state).__name__


def tensors(state: Mapping[str, Tensor], most: int = VALUES) -> dict[str, Any]:
    """Tensors as a digest of all bytes, the norm of each, and some of the values.

    The values are spread evenly over those entries that are not zero.
    """
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(name.encode() + str(value.dtype).encode())
        plain = value.detach().contiguous().cpu() + 0  # as a zero has two signs
        digest.update(plain.numpy().tobytes())
    floats = {name: value.detach().double() for name, value in state.items()}
    parts = [value.flatten() for value in floats.values()]
    joined = torch.cat(parts) if parts else torch.zeros(0)
    joined = joined[joined != 0]
    places = torch.linspace(0, max(len(joined) - 1, 0), min(most, len(joined))).long()
    return {
        "digest": digest.hexdigest(),
        "norms": {name: float(f"{value.norm():.8g}") for name, value in floats.items()},
        "values": [float(f"{value:.8g}") for value in joined[places].tolist()],
    }
