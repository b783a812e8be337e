"""The runs of the demo: train densely, prune in one shot, prune gradually."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from display import DENSE, job
from rich.console import Console
from task import Digits, build_model
from torch.nn import Module
from training import accuracy, grad_sampler, train

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.shrink import save_shrunk
from sparseml.pytorch.utils import get_named_layers_and_params_by_regex, tensor_list_sparsity
from sparseml.report import (
    RunDirectory,
    Variant,
    describe_model,
    layer_sparsities,
    measure_latency,
)
from sparseml.report.quality import compare_metric
from sparseml.report.run_directory import SHRUNK_FOLDER

RECIPES = Path(__file__).resolve().parents[2] / "recipes" / "demo"
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
    run that trained; ``models`` the model that each run ended with; ``folders`` where it is kept.
    """

    out: Path
    digits: Digits
    seed: int
    console: Console
    results: list[Result] = field(default_factory=list)
    histories: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    models: dict[str, Module] = field(default_factory=dict)
    folders: dict[str, RunDirectory] = field(default_factory=dict)
    baseline: Variant | None = None

    def dense(self, variables: dict[str, Any]) -> None:
        """Train the network that all others start from."""
        manager = load_recipe("dense", variables)
        with self._start(DENSE, DENSE, variables) as run:
            model = build_model(self.seed)
            self._train(run, DENSE, model, manager)
            self._finish(run, DENSE, DENSE, model, manager)

    def one_shot(self, method: str, recipe: str, sparsities: tuple[float, ...]) -> None:
        """Prune copies of the dense network, without any training, to several sparsities."""
        with job(self.console, method, len(sparsities)) as advance:
            for done, amount in enumerate(sparsities, start=1):
                name, variables = f"{method} {amount:.0%}", {"sparsity": amount}
                manager = load_recipe(recipe, variables)
                model = copy.deepcopy(self.models[DENSE])
                with self._start(name, method, variables) as run:
                    # magnitude needs no gradients, and samples none
                    manager.apply(model, grad_sampler=grad_sampler(self.digits, self.seed))
                    run.write_recipe(manager)
                    result = self._finish(run, name, method, model, manager)
                advance(done, f"{amount:.0%} pruned: accuracy {result['accuracy']:.2%}")

    def gradual(self, method: str, recipe: str, variables: dict[str, Any]) -> None:
        """Prune a copy of the dense network step by step while it trains on."""
        manager = load_recipe(recipe, variables)
        name = f"{method} {manager.pruning_modifiers[0].final_sparsity:.0%}"
        model = copy.deepcopy(self.models[DENSE])
        with self._start(name, method, variables) as run:
            self._train(run, name, model, manager)
            self._finish(run, name, method, model, manager)

    def structured(self, method: str, recipe: str, variables: dict[str, Any]) -> None:
        """Take heads and neurons out of a copy of the dense network while it trains on."""
        manager = load_recipe(recipe, variables)
        model = copy.deepcopy(self.models[DENSE])
        with self._start(method, method, variables) as run:
            self._train(run, method, model, manager)
            result = self._finish(run, method, method, model, manager)
            result["reached"] = manager.pruning_modifiers[0].reached
            run.write_result(notes=[f"Structured pruning: {result['reached']}."])
            save_shrunk(model, run.path / SHRUNK_FOLDER)

    def measure_latency(self, rounds: int) -> None:
        """Time all models in turn, and add what it took to their results."""
        images = self.digits.test_images[:LATENCY_BATCH]
        taken = measure_latency(self.models, images, rounds)
        for result in self.results:
            name = result["name"]
            mine, dense = taken[name], taken[DENSE]
            quartiles = (mine.lower_quartile_ms, mine.median_ms, mine.upper_quartile_ms)
            result |= {"latency_ms": quartiles, "latency_rounds": mine.rounds}
            result["latency_settled"] = mine.settled
            final = {} if name == DENSE else {"sparse": {"latency": [mine]}}
            self.folders[name].write_result({"dense": {"latency": [dense]}, **final})

    def _start(self, name: str, method: str, variables: dict[str, Any]) -> RunDirectory:
        folder = self.out / name.replace(" ", "_").replace("%", "")
        config = {"recipe_variables": variables, "threads": torch.get_num_threads()}
        run = RunDirectory.start(
            folder, name, method, config=config, seed=self.seed, overwrite=True
        )
        run.write_environment(["timm", "scikit-learn"])
        self.folders[name] = run
        return run

    def _train(
        self, run: RunDirectory, name: str, model: Module, manager: ScheduledModifierManager
    ) -> None:
        logger = run.metrics()
        history = self.histories[name] = []
        epochs = manager.max_epochs
        with job(self.console, name, epochs) as advance:

            def on_epoch(epoch: int, steps: int, loss: float) -> None:
                found = {"loss": loss, "accuracy": accuracy(model, self.digits)}
                found["sparsity"] = self._sparsity(model)
                history.append({"epoch": epoch, **found})
                logger.log_scalars("epoch", found, step=steps)
                advance(epoch, f"loss {loss:.3f}, accuracy {found['accuracy']:.2%}")

            steps_per_epoch = train(model, manager, self.digits, self.seed, [logger], on_epoch)
        run.write_recipe(manager, steps_per_epoch)

    def _finish(
        self,
        run: RunDirectory,
        name: str,
        method: str,
        model: Module,
        manager: ScheduledModifierManager,
    ) -> Result:
        right = accuracy(model, self.digits)
        images = self.digits.test_images[:LATENCY_BATCH]
        samples = len(self.digits.test_labels)
        described = describe_model(
            model, {"accuracy": right}, images, samples=samples, trained=True
        )
        final = {} if name == DENSE else {"sparse": described}
        self.baseline = self.baseline or described
        run.save_model(model, recipe=manager)
        run.write_result({"dense": self.baseline, **final}, layer_sparsities(model, manager))
        self.models[name] = model
        result = {
            "name": name,
            "method": method,
            "accuracy": right,
            "equal": compare_metric("accuracy", described, self.baseline).kind == "same",
            "sparsity": self._sparsity(model),
            "parameters": described.parameters,
            "reached": "",
            "bytes": described.storage.dense,
            "compressed_bytes": described.storage.gzip,
        }
        self.results.append(result)
        return result

    def _sparsity(self, model: Module) -> float:
        pruner = load_recipe("one_shot_magnitude", {}).pruning_modifiers[0]
        found = get_named_layers_and_params_by_regex(model, pruner.params, params_strict=True)
        return tensor_list_sparsity([match.param for match in found])
