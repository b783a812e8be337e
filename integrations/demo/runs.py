"""The runs of the demo: train densely, prune in one shot, prune gradually."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from display import job
from measure import latencies, sparsity, state_bytes
from rich.console import Console
from task import Digits, build_model
from torch.nn import Module
from training import accuracy, train

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.utils import JSONLinesLogger
from sparseml.pytorch.utils.model import save_model

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "demo"
DENSE = "dense"
LATENCY_BATCH = 64

Result = dict[str, Any]


def load_recipe(name: str, variables: dict[str, Any]) -> ScheduledModifierManager:
    """Load ``recipes/demo/<name>.yaml`` with some of its variables set anew."""
    return ScheduledModifierManager.from_yaml(
        str(RECIPES / f"{name}.yaml"), recipe_variables=variables
    )


@dataclass
class Runs:
    """Runs below one directory on one task, and what they found.

    ``results`` has one entry per run, the dense one first; ``histories`` one list of epochs per
    run that trained; ``models`` the model that each run ended with.
    """

    out: Path
    digits: Digits
    seed: int
    console: Console
    results: list[Result] = field(default_factory=list)
    histories: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    models: dict[str, Module] = field(default_factory=dict)

    def dense(self, variables: dict[str, Any]) -> None:
        """Train the network that all others start from."""
        manager = load_recipe("dense", variables)
        model = build_model(self.seed)
        self._train(DENSE, model, manager)
        self._finish(DENSE, DENSE, model, manager)

    def one_shot(self, method: str, recipe: str, sparsities: tuple[float, ...]) -> None:
        """Prune copies of the dense network, without any training, to several sparsities."""
        with job(self.console, method, len(sparsities)) as advance:
            for done, amount in enumerate(sparsities, start=1):
                manager = load_recipe(recipe, {"sparsity": amount})
                model = copy.deepcopy(self.models[DENSE])
                manager.apply(model)
                result = self._finish(f"{method} {amount:.0%}", method, model, manager)
                advance(done, f"{amount:.0%} pruned: accuracy {result['accuracy']:.2%}")

    def gradual(self, method: str, recipe: str, variables: dict[str, Any]) -> None:
        """Prune a copy of the dense network step by step while it trains on."""
        manager = load_recipe(recipe, variables)
        name = f"{method} {manager.pruning_modifiers[0].final_sparsity:.0%}"
        model = copy.deepcopy(self.models[DENSE])
        self._train(name, model, manager)
        self._finish(name, method, model, manager)

    def measure_latency(self, rounds: int) -> None:
        """Time all models in turn, and add what it took to their results."""
        images = self.digits.test_images[:LATENCY_BATCH]
        taken = latencies(self.models, images, rounds)
        for result in self.results:
            result["latency_ms"] = taken[result["name"]]

    def _train(self, name: str, model: Module, manager: ScheduledModifierManager) -> None:
        logger = JSONLinesLogger(self._folder(name) / "metrics.jsonl")
        logger.path.unlink(missing_ok=True)
        history = self.histories[name] = []
        epochs = manager.max_epochs
        with job(self.console, name, epochs) as advance:

            def on_epoch(epoch: int, steps: int, loss: float) -> None:
                found = {"loss": loss, "accuracy": accuracy(model, self.digits)}
                found["sparsity"] = self._sparsity(model)
                history.append({"epoch": epoch, **found})
                logger.log_scalars("epoch", found, step=steps)
                advance(epoch, f"loss {loss:.3f}, accuracy {found['accuracy']:.2%}")

            train(model, manager, self.digits, self.seed, [logger], on_epoch)

    def _finish(
        self, name: str, method: str, model: Module, manager: ScheduledModifierManager
    ) -> Result:
        raw, compressed = state_bytes(model)
        result = {
            "name": name,
            "method": method,
            "accuracy": accuracy(model, self.digits),
            "sparsity": self._sparsity(model),
            "bytes": raw,
            "compressed_bytes": compressed,
        }
        self.results.append(result)
        self.models[name] = model
        manager.save(str(self._folder(name) / "recipe.yaml"))
        save_model(self._folder(name) / "model.safetensors", model, recipe=manager)
        return result

    def _sparsity(self, model: Module) -> float:
        pruner = load_recipe("one_shot_magnitude", {}).pruning_modifiers[0]
        return sparsity(model, pruner.params)

    def _folder(self, name: str) -> Path:
        folder = self.out / name.replace(" ", "_").replace("%", "")
        folder.mkdir(parents=True, exist_ok=True)
        return folder
