"""A run stopped after any step and resumed is bit for bit the run that was not."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.amp import GradScaler

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.utils import LambdaLogger, LoggerManager

TRAINING = """
    - !EpochRangeModifier {start_epoch: 0.0, end_epoch: 3.0}
    - !SetLearningRateModifier {start_epoch: 0.0, learning_rate: 0.05, constant_logging: True}
    - !LearningRateFunctionModifier
        {lr_func: cosine, init_lr: 0.2, final_lr: 0.01, start_epoch: 0.5, end_epoch: 2.0}
    - !LearningRateModifier
        lr_class: MultiStepLR
        lr_kwargs: {gamma: 0.5, milestones: [2.25, 2.5]}
        init_lr: 0.1
        start_epoch: 2.0
    - !SetWeightDecayModifier {start_epoch: 1.25, weight_decay: 1e-2}
    - !TrainableParamsModifier
        {params: ["0.bias"], trainable: False, start_epoch: 0.75, end_epoch: 1.75}
    - !GradualParamModifier
        params: ["4.bias"]
        init_val: [0.0, 0.0, 0.0]
        final_val: [1.0, -1.0, 2.0]
        inter_func: cubic
        start_epoch: 0.5
        end_epoch: 2.5
        update_frequency: 0.5
    - !SparsificationLoggingModifier {start_epoch: 0.25, update_frequency: 0.75}
"""
PRUNING = """
    - !MagnitudePruningModifier
        {params: ["0.weight"], init_sparsity: 0.05, final_sparsity: 0.75, start_epoch: 0.25,
         end_epoch: 2.25, update_frequency: 0.5}
    - !MovementPruningModifier
        {params: ["2.weight"], init_sparsity: 0.05, final_sparsity: 0.5, start_epoch: 0.5,
         end_epoch: 2.0, update_frequency: 0.75, leave_enabled: False}
    - !ConstantPruningModifier {params: ["4.weight"], start_epoch: 1.0}
"""
RECIPES = {
    "training": "modifiers:" + TRAINING,
    "pruning": "training_modifiers:" + TRAINING + "pruning_modifiers:" + PRUNING,
    "steps": """
modifiers:
    - !EpochRangeModifier {start_epoch: 0.0, end_epoch: 3.0}
    - !LearningRateFunctionModifier
        {lr_func: linear, init_lr: 0.2, final_lr: 0.0, start_step: 2, end_step: 9}
    - !TrainableParamsModifier {params: ["0.bias"], trainable: False, start_step: 1, end_step: 5}
    - !GlobalMagnitudePruningModifier
        {params: __ALL_PRUNABLE__, init_sparsity: 0.05, final_sparsity: 0.8, start_step: 1,
         end_step: 10, update_steps: 3}
""",
    "staged": """
dense:
  dense_modifiers:
    - !EpochRangeModifier {start_epoch: 0.0, end_epoch: 1.0}
    - !LearningRateFunctionModifier
        {lr_func: linear, init_lr: 0.2, final_lr: 0.1, start_epoch: 0.0, end_epoch: 1.0}
sparse:
  sparse_modifiers:
    - !EpochRangeModifier {start_epoch: 1.0, end_epoch: 3.0}
    - !SetLearningRateModifier {start_epoch: 1.0, learning_rate: 0.05}
    - !GMPruningModifier
        {params: ["re:.*weight"], init_sparsity: 0.05, final_sparsity: 0.8, start_epoch: 1.0,
         end_epoch: 2.5, update_frequency: 0.5}
""",
}
STEPS, PER_EPOCH = 12, 4
OVERFLOWS = {1, 4, 5, 9}


class Training:
    """A short training that can be saved and restored after every step."""

    def __init__(self, recipe: str, amp: bool = False, epoch: float = 0.0) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8), torch.nn.ReLU(),
            torch.nn.Linear(8, 3),
        )  # fmt: skip
        with torch.no_grad():
            self.model[4].weight[:, ::2] = 0.0
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)
        self.logged: list[tuple[str, Any, Any]] = []
        logger = LambdaLogger(
            lambda tag, value, values, step, wall_time, level: self.logged.append(
                (tag, value if values is None else values, step)
            )
        )
        self.manager = ScheduledModifierManager.from_yaml(recipe)
        self.scaler = GradScaler("cpu", enabled=amp, init_scale=256.0, growth_interval=2)
        self.wrapper = self.manager.modify(
            self.model,
            self.optimizer,
            PER_EPOCH,
            wrap_optim=self.scaler if amp else None,
            epoch=epoch,
            loggers=LoggerManager([logger], log_frequency=0.3, log_python=False),
        )
        self.amp = amp

    def run(self, first: int, last: int) -> None:
        for batch in range(first, last):
            generator = torch.Generator().manual_seed(batch)
            data = torch.randn(5, 6, generator=generator)
            self.optimizer.zero_grad()
            loss = self.wrapper.loss_update(self.model(data).pow(2).mean())
            if self.amp:
                self.wrapper.scale(loss * (float("inf") if batch in OVERFLOWS else 1)).backward()
                self.wrapper.step(self.optimizer)
                self.wrapper.update()
            else:
                loss.backward()
                self.wrapper.step()

    def save(self) -> bytes:
        file = io.BytesIO()
        torch.save(
            {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "manager": self.manager.state_dict(),
            },
            file,
        )
        return file.getvalue()

    def load(self, saved: bytes) -> None:
        state = torch.load(io.BytesIO(saved), weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.amp:
            self.scaler.load_state_dict(state["scaler"])
        self.manager.load_state_dict(state["manager"])

    def result(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "manager": self.manager.state_dict(),
            "trainable": [param.requires_grad for param in self.model.parameters()],
            "position": (self.wrapper.wrapped_steps, self.wrapper.wrapped_epoch),
        }


def assert_same(found: Any, expected: Any, where: str = "") -> None:
    assert type(found) is type(expected), where
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert list(found) == list(expected), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}/{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{where}/{index}")
    else:
        assert found == expected, where


def whole(recipe: str, amp: bool) -> Training:
    training = Training(recipe, amp)
    training.run(0, STEPS)
    return training


@pytest.mark.parametrize("amp", [False, True], ids=["", "amp"])
@pytest.mark.parametrize("name", RECIPES)
def test_resumed_after_any_step(name, amp):
    undisturbed = whole(RECIPES[name], amp)
    taken = STEPS - len(OVERFLOWS) * amp
    assert undisturbed.wrapper.wrapped_steps == taken
    for stop in range(STEPS + 1):
        before = Training(RECIPES[name], amp)
        before.run(0, stop)
        after = Training(RECIPES[name], amp)
        after.load(before.save())
        after.run(stop, STEPS)
        assert_same(after.result(), undisturbed.result(), f"stopped after {stop}: ")
        assert before.logged + after.logged == undisturbed.logged


@pytest.mark.parametrize("stop", [1, 6, 9])
def test_the_epoch_given_to_a_resumed_run_does_not_matter(stop):
    """Scripts that also pass the epoch they resume in get the same run."""
    recipe = RECIPES["pruning"]
    undisturbed, before = whole(recipe, False), Training(recipe)
    before.run(0, stop)
    after = Training(recipe, epoch=float(stop // PER_EPOCH))
    after.load(before.save())
    after.run(stop, STEPS)
    assert_same(after.result(), undisturbed.result())


def test_resumed_twice_and_saved_at_once():
    recipe = RECIPES["pruning"]
    undisturbed, training = whole(recipe, False), Training(recipe)
    for stop in (3, 3, 7, 12):
        training.run(training.wrapper.wrapped_steps, stop)
        saved, training = training.save(), Training(recipe)
        training.load(saved)
        assert_same(
            training.manager.state_dict(),
            torch.load(io.BytesIO(saved), weights_only=True)["manager"],
        )
    assert_same(training.result(), undisturbed.result())


def test_resumed_in_a_new_process(tmp_path):
    recipe = RECIPES["pruning"]
    before = Training(recipe)
    before.run(0, 7)
    (tmp_path / "state").write_bytes(before.save())
    script = tmp_path / "resume.py"
    script.write_text(
        f"""
import importlib.util, pathlib, torch
torch.set_num_threads({torch.get_num_threads()})
spec = importlib.util.spec_from_file_location("test_resume", {__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
training = module.Training(module.RECIPES["pruning"])
training.load(pathlib.Path({str(tmp_path / "state")!r}).read_bytes())
training.run(7, module.STEPS)
pathlib.Path({str(tmp_path / "result")!r}).write_bytes(training.save())
"""
    )
    subprocess.run([sys.executable, str(script)], check=True, env={**os.environ})
    after = Training(recipe)
    after.load((tmp_path / "result").read_bytes())
    assert_same(after.result(), whole(recipe, False).result())
