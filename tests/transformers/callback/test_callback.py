"""A recipe runs in a Trainer as it does in a plain loop."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.utils.logger import LambdaLogger
from sparseml.transformers import SparseMLCallback

PRUNED = "params: ['re:.*encoder.*(query|dense).weight']"
GRADUAL = (
    "init_sparsity: 0.25, final_sparsity: 0.75, start_epoch: 0.5, end_epoch: 2.0, "
    f"update_frequency: 0.5, {PRUNED}"
)
MAGNITUDE = f"modifiers:\n  - !MagnitudePruningModifier {{{GRADUAL}}}"
EVERYWHERE = MAGNITUDE.replace(PRUNED, "params: __ALL_PRUNABLE__")
RATE = "modifiers:\n  - !SetLearningRateModifier {learning_rate: 0.02, start_epoch: 1.0}"


def rates_of(trainer: Any) -> list[float]:
    """The learning rates that were logged."""
    return [entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry]


class TestSteps:
    @pytest.mark.parametrize("accumulated", [1, 4])
    def test_equals_a_plain_loop(
        self, trainer_of: Any, model_of: Any, data_of: Any, accumulated: int
    ) -> None:
        """With gradients accumulated, too; the last step of an epoch then has fewer batches."""
        callback = SparseMLCallback(MAGNITUDE)
        trainer = trainer_of(
            callback,
            model_of(dropout=0.0),
            gradient_accumulation_steps=accumulated,
            train_sampling_strategy="sequential",
            lr_scheduler_type="constant",
            optim="sgd",
            max_grad_norm=0.5,
        )
        trainer.train()
        model = model_of(dropout=0.0)
        inner = torch.optim.SGD(model.parameters(), lr=1e-2)
        manager = ScheduledModifierManager.from_yaml(MAGNITUDE)
        batches = [data_of()[start : start + 4] for start in range(0, 24, 4)]
        optimizer = manager.modify(model, inner, -(-len(batches) // accumulated))
        model.train()
        for start in [*range(0, len(batches), accumulated)] * 3:
            for batch in batches[start : start + accumulated]:
                tokens = torch.stack([row["input_ids"] for row in batch])
                labels = torch.tensor([row["labels"] for row in batch])
                # the Trainer takes this model's loss for one that it need not divide
                model(input_ids=tokens, labels=labels).loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            optimizer.zero_grad()
        manager.finalize(model)
        for one, other in zip(trainer.model.parameters(), model.parameters(), strict=True):
            assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)
            assert torch.equal(one == 0, other == 0)
        assert callback.summary().complete
        assert callback.driver is None

    @pytest.mark.parametrize("kind", ["gpt2", "t5", "vit"])
    def test_kinds_of_models(self, trainer_of: Any, model_of: Any, data_of: Any, kind: str) -> None:
        callback = SparseMLCallback(EVERYWHERE)
        optim = "adafactor" if kind == "t5" else "adamw_torch"
        trainer = trainer_of(callback, model_of(kind), data_of(kind), optim=optim)
        trainer.train()
        (pruned,) = callback.summary().pruning
        assert pruned.now == pytest.approx(0.75, abs=1e-3)
        assert len(pruned.params) > 9

    @pytest.mark.parametrize(
        "settings",
        [
            pytest.param({"bf16": True}, id="bf16"),
            pytest.param({"train_sampling_strategy": "group_by_length"}, id="by length"),
            pytest.param({"max_steps": 15}, id="max_steps"),
        ],
    )
    def test_settings(self, trainer_of: Any, zeros: Any, settings: dict[str, Any]) -> None:
        trainer = trainer_of(MAGNITUDE, **settings)
        trainer.train()
        assert zeros(trainer.model) == 384

    def test_evaluation_changes_nothing(self, trainer_of: Any, data_of: Any, model_of: Any) -> None:
        trainer = trainer_of(MAGNITUDE, more={"eval_dataset": data_of()})
        for _ in range(2):
            before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
            trainer.evaluate()
            trainer.predict(data_of())
            assert all(v.equal(before[name]) for name, v in trainer.model.state_dict().items())
            trainer.train()

    def test_a_smaller_batch_is_found(self, trainer_of: Any, zeros: Any) -> None:
        class Short(transformers.Trainer):  # of memory
            taken = 0

            def training_step(self, *args: Any, **kwargs: Any) -> Any:
                Short.taken += 1
                if Short.taken == 4:
                    raise RuntimeError("CUDA out of memory. ")
                return super().training_step(*args, **kwargs)

        callback = SparseMLCallback(MAGNITUDE)
        trainer = trainer_of(callback, kind=Short, auto_find_batch_size=True)
        trainer.train()
        assert callback.summary().position == (24, 3.0, 8), "24 examples in batches of 3"
        assert zeros(trainer.model) == 384

    def test_skipped_steps_do_not_count(self, model_of: Any, tmp_path: Path) -> None:
        """Of a gradient scaler, which the Trainer has on GPUs only."""
        accelerate = pytest.importorskip("accelerate")
        model = model_of(dropout=0.0)
        # the arguments first, as they reset what an Accelerator has set
        arguments = transformers.TrainingArguments(str(tmp_path), use_cpu=True, max_grad_norm=0.0)
        accelerate.Accelerator(cpu=True)
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer = accelerate.optimizer.AcceleratedOptimizer(inner, scaler=scaler)
        callback = SparseMLCallback(MAGNITUDE.replace("Magnitude", "Movement"))
        scheduler = torch.optim.lr_scheduler.LambdaLR(inner, lambda step: 1.0)
        state = transformers.TrainerState(max_steps=18)
        told = (arguments, state, transformers.TrainerControl())
        loader = [None] * 6
        parts = {"model": model, "optimizer": optimizer, "lr_scheduler": scheduler}
        callback.on_train_begin(*told, train_dataloader=_Loader(loader), **parts)
        seen, positions = [], []
        weight = model.bert.encoder.layer[0].intermediate.dense.weight
        for step in range(6):
            loss = model(torch.arange(8)[None], labels=torch.tensor([1])).loss
            scaler.scale(loss * (torch.inf if step == 2 else 1.0)).backward()
            scaled = weight.grad.clone()
            callback.on_pre_optimizer_step(*told, **parts)
            seen.append(bool(torch.allclose(scaled / 64.0, weight.grad)) or step >= 2)
            optimizer.step()
            callback.on_optimizer_step(*told, **parts)
            callback.on_step_end(*told, **parts)
            optimizer.zero_grad()
            positions.append(callback.driver.position.steps)
        assert positions == [1, 2, 2, 3, 4, 5]
        assert all(seen), "modifiers see gradients as they are, not as they were scaled"


class _Loader(list):
    """Batches with what a loader has besides."""

    dataset = collate_fn = None


class TestLearningRates:
    def test_those_of_the_recipe_hold(
        self, trainer_of: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Against the Trainer's scheduler and warm-up; and they are what is logged."""
        with caplog.at_level(logging.WARNING):
            trainer = trainer_of(RATE, warmup_steps=4)
            trainer.train()
        assert rates_of(trainer) == [0.01] * 6 + [0.02] * 12
        assert "lr_scheduler_type and warm-up (LambdaLR) are without effect" in caplog.text

    def test_those_of_the_trainer_stay(self, trainer_of: Any) -> None:
        trainer = trainer_of(MAGNITUDE)
        trainer.train()
        assert rates_of(trainer)[9] == pytest.approx(0.005)

    def test_by_metrics(self, trainer_of: Any, data_of: Any) -> None:
        trainer = trainer_of(
            RATE,
            lr_scheduler_type="reduce_lr_on_plateau",
            eval_strategy="epoch",
            save_strategy="epoch",
            load_best_model_at_end=True,
            more={"eval_dataset": data_of()},
        )
        with pytest.raises(ValueError, match="ReduceLROnPlateau, by metrics"):
            trainer.train()


class TestSamplingGradients:
    @pytest.mark.parametrize("name", ["OBS", "CA", "MFAC", "FastCA"])
    def test_from_the_data_of_the_trainer(self, trainer_of: Any, name: str) -> None:
        more = "num_grads: 6, grad_sampler_kwargs: {batch_size: 2}"
        recipe = MAGNITUDE.replace(
            "MagnitudePruningModifier {", f"{name}PruningModifier {{{more}, "
        )
        callback = SparseMLCallback(recipe)
        trainer = trainer_of(callback, bf16=True)
        trainer.train()
        (pruned,) = callback.summary().pruning
        assert pruned.now == pytest.approx(0.75, abs=1e-3)


class TestSeveralRuns:
    def test_on_one_model(
        self, trainer_of: Any, zeros: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        callback = SparseMLCallback(MAGNITUDE)
        trainer = trainer_of(callback)
        trainer.train()
        first = callback.manager
        with caplog.at_level(logging.WARNING):
            trainer.train()
        assert "the recipe begins anew on a model that it has already been through" in caplog.text
        assert callback.manager is not first
        assert callback.summary().complete
        assert zeros(trainer.model) == 384

    def test_on_a_model_for_each(
        self, trainer_of: Any, model_of: Any, same: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        trainer = trainer_of(MAGNITUDE, more={"model_init": lambda: model_of()})
        trainer.train()
        first = trainer.model
        trainer.train()
        assert trainer.model is not first
        same(trainer.model, first)
        assert "begins anew" not in caplog.text


def test_what_is_logged(trainer_of: Any) -> None:
    seen = []
    logger = LambdaLogger(lambda tag, **_: seen.append(tag) is None)
    trainer_of(SparseMLCallback(MAGNITUDE, loggers=[logger])).train()
    assert any("intermediate.dense.weight" in str(tag) for tag in seen)


def test_variables_and_managers(trainer_of: Any, zeros: Any) -> None:
    text = (
        f"level: 0.75\n{MAGNITUDE.replace('final_sparsity: 0.75', 'final_sparsity: eval(level)')}"
    )
    callback = SparseMLCallback(text, "level=0.5")
    trainer = trainer_of(callback)
    trainer.train()
    assert zeros(trainer.model) == 256
    manager = ScheduledModifierManager.from_yaml(MAGNITUDE)
    assert SparseMLCallback(manager).manager is manager
    with pytest.raises(ValueError, match="recipe_args"):
        SparseMLCallback(manager, "level=0.5")
