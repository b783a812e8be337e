"""A Trainer with a recipe, as scripts of SparseML 1.x have it, on transformers of today."""

from __future__ import annotations

import copy
import json
import logging
import math
from typing import Any

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager

transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")

from sparseml.transformers.sparsification import (  # noqa: E402
    RECIPE_NAME,
    DisableHalfPrecisionCallback,
    RecipeManagerTrainerInterface,
    Trainer,
    TrainingArguments,
)
from sparseml.transformers.sparsification.trainer import TransformersTrainer  # noqa: E402

SIZES = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12, "vocab_size": 20}
WEIGHT = "bert.encoder.layer.0.intermediate.dense.weight"
SAMPLES = 20

PRUNING = f"""
modifiers:
  - !GMPruningModifier
      params: ['{WEIGHT}']
      init_sparsity: 0.25
      final_sparsity: 0.75
      start_epoch: 0.0
      end_epoch: 2.0
      update_frequency: 0.4
"""
RATES = """
  - !LearningRateFunctionModifier
      lr_func: linear
      init_lr: 0.01
      final_lr: 0.001
      start_epoch: 0.0
      end_epoch: 2.0
"""
DISTILLING = """
  - !DistillationModifier
      hardness: 0.5
      temperature: 2.0
      distill_output_keys: [logits]
"""
PROJECTING = """
  - !PerLayerDistillationModifier
      student_layer_names: ['bert.encoder.layer.0']
"""
REMOVING = """
modifiers:
  - !EpochRangeModifier {start_epoch: 0.0, end_epoch: 2.0}
  - !LayerPruningModifier {layers: ['bert.encoder.layer.1'], start_epoch: 1.0}
"""


def bert(seed: int = 0, layers: int = 2, **settings: Any) -> Any:
    torch.manual_seed(seed)
    sizes = {**SIZES, "num_hidden_layers": layers, **settings}
    config = transformers.BertConfig(**sizes, hidden_dropout_prob=0.0)
    return transformers.BertForSequenceClassification(config)


def data(count: int = SAMPLES, **more: Any) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(3, 20, (count, 5), generator=generator)
    return [
        {
            "input_ids": row,
            "attention_mask": torch.ones(5, dtype=torch.long),
            **more,
            "labels": n % 2,
        }
        for n, row in enumerate(ids)
    ]


def arguments(folder: Any, **given: Any) -> TrainingArguments:
    usual = {
        "per_device_train_batch_size": 4, "learning_rate": 0.01, "num_train_epochs": 7.0,
        "use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no",
        "logging_steps": 1, "seed": 3,
    }  # fmt: skip
    return TrainingArguments(output_dir=str(folder), **{**usual, **given})


def trainer(folder: Any, recipe: str | None, model: Any = None, **given: Any) -> Trainer:
    args = given.pop("args", None) or arguments(folder)
    model = bert() if model is None else model
    given = {"train_dataset": data(), "eval_dataset": data(8), "model_state_path": None, **given}
    return Trainer(model=model, recipe=recipe, args=args, **given)


def watched(model: nn.Module) -> list[dict[str, Any]]:
    """Return a list that gets the inputs of each pass."""
    seen: list[dict[str, Any]] = []
    model.register_forward_pre_hook(lambda _, args, given: seen.append(given), with_kwargs=True)
    return seen


def sparsity(model: nn.Module, name: str = WEIGHT) -> float:
    return float((model.get_parameter(name) == 0).float().mean())


def same(own: nn.Module, other: nn.Module) -> bool:
    pairs = zip(own.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


class TestTraining:
    def test_the_recipe_says_how_long(self, tmp_path: Any) -> None:
        run = trainer(tmp_path, PRUNING)
        assert run.args.num_train_epochs == 2
        found = run.train()
        assert found.global_step == 2 * SAMPLES / 4 and found.metrics["epoch"] == 2.0
        assert sparsity(run.model) == 0.75

    def test_without_a_recipe_it_is_the_trainer_of_transformers(self, tmp_path: Any) -> None:
        args = arguments(tmp_path, num_train_epochs=1)
        run = trainer(tmp_path, None, args=args)
        run.train()
        other = transformers.Trainer(model=bert(), args=args, train_dataset=data())
        other.train()
        assert same(run.model, other.model)
        run.save_model()
        assert not (tmp_path / RECIPE_NAME).exists()

    def test_sparsity_follows_the_schedule(self, tmp_path: Any) -> None:
        seen: list[float] = []

        class Watch(transformers.TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                seen.append(sparsity(kwargs["model"]))

        run = trainer(tmp_path, PRUNING, callbacks=[Watch()])
        run.train()
        manager, model = ScheduledModifierManager.from_yaml(PRUNING), bert()
        optimizer = manager.modify(model, torch.optim.SGD(model.parameters(), lr=0.0), 5)
        wanted = []
        for _ in range(10):
            optimizer.step()
            wanted.append(sparsity(model))
        assert seen == wanted and len(set(seen)) > 3

    def test_accumulated_gradients_move_no_schedule(self, tmp_path: Any) -> None:
        args = arguments(tmp_path, gradient_accumulation_steps=2, per_device_train_batch_size=2)
        run = trainer(tmp_path, PRUNING, args=args)
        assert run.train().global_step == 10
        assert run.manager_steps_per_epoch == 5 and sparsity(run.model) == 0.75

    def test_rates_of_the_recipe_hold(self, tmp_path: Any) -> None:
        run = trainer(tmp_path, PRUNING + RATES)
        run.train()
        rates = [row["learning_rate"] for row in run.state.log_history if "learning_rate" in row]
        wanted = [0.01 - 0.009 * step / 10 for step in range(10)]
        assert rates == pytest.approx(wanted)

    def test_trains_again_with_the_same_trainer(self, tmp_path: Any) -> None:
        run = trainer(tmp_path, PRUNING + RATES)
        run.train()
        first = run.manager
        run.train()
        assert run.manager is not first and sparsity(run.model) == 0.75

    def test_data_without_a_length(self, tmp_path: Any) -> None:
        class Stream(torch.utils.data.IterableDataset):  # type: ignore[type-arg]
            def __iter__(self) -> Any:
                return iter(data())

        recipe = PRUNING.replace("end_epoch: 2.0", "end_epoch: 0.8")
        run = trainer(
            tmp_path, recipe, args=arguments(tmp_path, max_steps=5), train_dataset=Stream()
        )
        assert run.train().global_step == 5 and sparsity(run.model) == 0.75

    def test_schedules_in_steps(self, tmp_path: Any) -> None:
        recipe = PRUNING.replace("start_epoch: 0.0", "start_step: 1")
        recipe = recipe.replace("end_epoch: 2.0", "end_step: 13").replace(
            "update_frequency: 0.4", "update_steps: 2"
        )
        run = trainer(tmp_path, recipe)
        assert run.args.num_train_epochs == 3
        run.train()
        assert sparsity(run.model) == 0.75

    def test_gradients_are_sampled_from_the_training_data(self, tmp_path: Any) -> None:
        recipe = PRUNING.replace("GMPruning", "OBSPruning").rstrip()
        recipe += "\n      num_grads: 8\n      grad_sampler_kwargs: {batch_size: 2}\n"
        run = trainer(tmp_path, recipe, args=arguments(tmp_path, label_smoothing_factor=0.1))
        run.train()
        assert sparsity(run.model) == 0.75

    def test_best_models_only_after_an_epoch(self, tmp_path: Any) -> None:
        args = arguments(
            tmp_path, eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True,
            best_model_after_epoch=2, metric_for_best_model="loss", learning_rate=0.0,
        )  # fmt: skip
        run = trainer(tmp_path, PRUNING, args=args)
        run.train()
        assert run.state.best_global_step == 10 and sparsity(run.model) == 0.75


class TestOldScripts:
    def test_a_script_of_1_8(self, tmp_path: Any) -> None:
        """What ``sparseml.transformers.train.text_classification`` did, in short."""
        from dataclasses import dataclass, field

        from transformers import HfArgumentParser

        from sparseml.transformers import SparseAutoModel
        from sparseml.transformers.sparsification import Trainer, TrainingArguments

        dense, out = tmp_path / "dense", tmp_path / "out"
        bert().save_pretrained(dense)
        recipe = tmp_path / "recipe.md"
        recipe.write_text(
            "---\nnum_epochs: 4.0\n"
            + PRUNING.replace("end_epoch: 2.0", "end_epoch: eval(num_epochs)")
            + DISTILLING
            + "---\n# A recipe\n"
        )

        @dataclass
        class ModelArguments:
            model_name_or_path: str

        @dataclass
        class DataTrainingArguments:
            task_name: str | None = None
            max_seq_length: int = 384
            one_shot: bool = field(default=False)

        parser = HfArgumentParser((ModelArguments, DataTrainingArguments, TrainingArguments))
        model_args, data_args, training_args = parser.parse_args_into_dataclasses(
            f"--model_name_or_path {dense} --task_name sst2 --output_dir {out} --recipe {recipe} "
            "--recipe_args num_epochs=2 --distill_teacher "
            f"{dense} --per_device_train_batch_size 4 --do_train --do_eval --use_cpu "
            "--report_to none --disable_tqdm true --eval_strategy epoch "
            "--save_strategy epoch".split()
        )
        config = transformers.AutoConfig.from_pretrained(
            model_args.model_name_or_path, num_labels=2, finetuning_task=data_args.task_name
        )
        kwargs = {"config": config, "cache_dir": None, "revision": "main", "use_auth_token": None}
        model, teacher = SparseAutoModel.text_classification_from_pretrained_distil(
            model_name_or_path=model_args.model_name_or_path,
            model_kwargs=kwargs,
            teacher_name_or_path=training_args.distill_teacher,
            teacher_kwargs={"cache_dir": None, "use_auth_token": None},
        )
        run = Trainer(
            model=model,
            model_state_path=model_args.model_name_or_path,
            recipe=training_args.recipe,
            recipe_args=training_args.recipe_args,
            metadata_args=["per_device_train_batch_size", "max_seq_length", "save_strategy"],
            data_args=data_args,
            teacher=teacher,
            args=training_args,
            train_dataset=data() if training_args.do_train else None,
            eval_dataset=data(8) if training_args.do_eval else None,
            compute_metrics=lambda found: {"accuracy": float((found.predictions[:, 0] > 0).mean())},
            tokenizer=None,
            data_collator=transformers.default_data_collator,
        )
        if not run.one_shot:
            result = run.train(resume_from_checkpoint=None)
            run.log_metrics("train", result.metrics)
            run.save_metrics("train", result.metrics)
            run.save_model()
            run.save_state()
            run.save_optimizer_and_scheduler(training_args.output_dir)
        metrics = run.evaluate(eval_dataset=data(8))
        assert metrics["eval_accuracy"] >= 0.0
        assert run.predict(data(6)).predictions.shape == (6, 2)
        assert json.loads((out / "train_results.json").read_text())["epoch"] == 2.0
        assert (out / "optimizer.pt").exists() and (out / "scheduler.pt").exists()
        written = (out / RECIPE_NAME).read_text()
        assert "max_seq_length: 384" in written and "per_device_train_batch_size: 4" in written
        again = SparseAutoModel.text_classification_from_pretrained(str(out), model_type="model")
        assert same(again, run.model) and sparsity(again) == 0.75
        assert (out / "checkpoint-10" / "sparseml_state.pt").exists()

    def test_names_at_the_paths_of_1_8(self) -> None:
        import sparseml.transformers.sparsification as package
        from sparseml.transformers.sparsification import trainer as module

        assert package.Trainer.__mro__[1:4] == (
            module.TrainerInterface, RecipeManagerTrainerInterface, TransformersTrainer,
        )  # fmt: skip
        assert package.RECIPE_NAME == "recipe.yaml"

    def test_the_mixin_before_a_trainer_of_ones_own(self, tmp_path: Any) -> None:
        class Own(transformers.Trainer):  # type: ignore[misc]
            def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
                self.computed = True
                return super().compute_loss(*args, **kwargs)

        class Mixed(RecipeManagerTrainerInterface, Own):
            pass

        run = Mixed(bert(), None, PRUNING + DISTILLING, teacher="self", args=arguments(tmp_path),
                    train_dataset=data())  # fmt: skip
        run.train()
        assert run.computed and sparsity(run.model) == 0.75
        assert run.finalize_manager() and not run.finalize_manager()


class TestDistillation:
    @pytest.mark.parametrize("smoothing", [0.0, 0.1])
    @pytest.mark.parametrize("accumulation", [1, 2])
    def test_the_loss_of_the_first_step(
        self, accumulation: int, smoothing: float, tmp_path: Any
    ) -> None:
        losses: list[Any] = []

        class Watched(Trainer):
            def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
                found = super().compute_loss(*args, **kwargs)
                losses.append((args[0].training, args[1], found))
                return found

        args = arguments(
            tmp_path, gradient_accumulation_steps=accumulation, label_smoothing_factor=smoothing
        )
        student, teacher = bert(), bert(seed=1)
        before = copy.deepcopy(student).train()
        run = Watched(
            student, None, PRUNING + DISTILLING, teacher=teacher, args=args, train_dataset=data()
        )
        run.train()
        training, inputs, loss = losses[0]
        with torch.no_grad():
            own, taught = before(**inputs), teacher.eval()(**inputs)
        task = nn.functional.cross_entropy(own.logits, inputs["labels"], label_smoothing=smoothing)
        soft, wanted = (one.logits.div(2).log_softmax(-1) for one in (own, taught))
        apart = 4 * (wanted.exp() * (wanted - soft)).sum(-1).mean()
        assert training and "labels" in inputs
        torch.testing.assert_close(loss, 0.5 * task + 0.5 * apart)
        assert run.state.log_history[0]["loss"] == pytest.approx(
            sum(one[2].item() for one in losses[:accumulation]) / accumulation, rel=1e-4
        )

    def test_evaluation_gives_the_loss_of_the_task(self, tmp_path: Any) -> None:
        args = arguments(tmp_path, eval_strategy="epoch")
        run = trainer(tmp_path, PRUNING + DISTILLING, teacher=bert(seed=1), args=args)
        run.train()
        last = [row["eval_loss"] for row in run.state.log_history if "eval_loss" in row][-1]
        assert run.evaluate()["eval_loss"] == pytest.approx(last)

    def test_columns_for_the_teacher_alone(self, tmp_path: Any) -> None:
        datasets = pytest.importorskip("datasets")
        seen: list[Any] = []
        teacher = bert(seed=1)
        teacher.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True
        )
        rows = [{name: torch.as_tensor(v).tolist() for name, v in row.items()} for row in data()]
        rows = [
            {**row, "distill_teacher:input_ids": row["input_ids"][::-1], "idx": 3} for row in rows
        ]
        run = trainer(
            tmp_path, PRUNING + DISTILLING, teacher=teacher, eval_dataset=None,
            train_dataset=datasets.Dataset.from_list(rows),
        )  # fmt: skip
        run.train()
        assert len(seen) == 10 and all(set(one) == {"input_ids"} for one in seen)
        run.predict(datasets.Dataset.from_list(rows))

    def test_a_student_that_knows_less_than_its_teacher(self, tmp_path: Any) -> None:
        torch.manual_seed(0)
        config = transformers.DistilBertConfig(
            dim=8, n_heads=2, hidden_dim=12, n_layers=2, vocab_size=20
        )
        seen: list[Any] = []
        teacher = bert(seed=1)
        teacher.register_forward_pre_hook(
            lambda _, args, kwargs: seen.append(kwargs), with_kwargs=True
        )
        student = transformers.DistilBertForSequenceClassification(config)
        students: list[Any] = []
        student.register_forward_pre_hook(
            lambda _, args, kwargs: students.append(kwargs), with_kwargs=True
        )
        recipe = (
            "modifiers:\n  - !EpochRangeModifier {start_epoch: 0.0, end_epoch: 1.0}" + DISTILLING
        )
        rows = data(token_type_ids=torch.ones(5, dtype=torch.long))
        run = trainer(tmp_path, recipe, student, teacher=teacher, train_dataset=rows)
        run.train()
        assert seen and all("token_type_ids" in one for one in seen)
        assert students and not any("token_type_ids" in one for one in students)

    def test_projections_follow_the_rate_of_the_trainer(self, tmp_path: Any) -> None:
        recipe = PRUNING + PROJECTING
        rates: list[Any] = []

        class Watch(transformers.TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                rates.append([group["lr"] for group in kwargs["optimizer"].param_groups])

        run = trainer(tmp_path, recipe, teacher=bert(seed=1, hidden_size=16), callbacks=[Watch()])
        run.train()
        assert all(len(one) == 3 and len(set(one)) == 1 for one in rates) and rates[-1][0] == 0.0

    def test_hidden_states(self, tmp_path: Any) -> None:
        recipe = PRUNING + "  - !HiddenStateDistillationModifier {weight: 2.0}\n"
        student = bert()
        before = copy.deepcopy(student.state_dict())
        run = trainer(tmp_path, recipe, student, teacher=bert(seed=1))
        run.train()
        head = [name for name in before if "classifier" in name or "pooler" in name]
        assert all(torch.equal(before[name], run.model.state_dict()[name]) for name in head)

    def test_a_teacher_is_needed(self, tmp_path: Any) -> None:
        run = trainer(tmp_path, PRUNING + DISTILLING)
        run.evaluate()
        with pytest.raises(ValueError, match=r"DistillationModifier .* needs a teacher: give"):
            run.train()

    def test_disabled(self, tmp_path: Any) -> None:
        runs = []
        for recipe in (PRUNING + DISTILLING, PRUNING):
            runs.append(trainer(tmp_path, recipe, teacher="disable"))
            runs[-1].train()
        assert same(runs[0].model, runs[1].model)


class TestStructure:
    def test_layers_go_at_their_time(self, tmp_path: Any) -> None:
        run = trainer(tmp_path, REMOVING)
        run.train()
        assert not any("layer.1" in name for name in run.model.state_dict())

    def test_evaluated_as_at_the_end_and_trained_from_the_start(self, tmp_path: Any) -> None:
        run = trainer(tmp_path, REMOVING)
        run.evaluate()
        assert not any("layer.1" in name for name in run.model.state_dict())
        removed: list[bool] = []

        class Watch(transformers.TrainerCallback):  # type: ignore[misc]
            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                removed.append(not any("layer.1" in name for name in kwargs["model"].state_dict()))

        run.add_callback(Watch())
        run.train()
        assert removed == [False] * 5 + [True] * 5

    def test_the_structure_that_the_model_comes_with(self, tmp_path: Any) -> None:
        first = trainer(tmp_path / "first", REMOVING)
        first.train()
        first.save_model()
        args = arguments(tmp_path / "second")
        # a plain model has random weights in the place of the layer
        model = bert(seed=9)
        second = trainer(tmp_path, PRUNING, model, args=args, model_state_path=tmp_path / "first")
        second.apply_manager(epoch=0.0)
        assert same(second.model, first.model)
        second.train()
        second.save_model()
        whole = ScheduledModifierManager.from_yaml(str(tmp_path / "second" / RECIPE_NAME))
        assert whole.num_stages() == 2 and whole.max_epochs == 4
        third = trainer(
            tmp_path, None, bert(seed=4), args=args, model_state_path=tmp_path / "second"
        )
        found = third.evaluate()
        assert same(third.model, second.model)
        assert found["eval_loss"] == pytest.approx(second.evaluate()["eval_loss"])
        third.save_model(str(tmp_path / "third"))
        assert (tmp_path / "third" / RECIPE_NAME).exists()


class TestOneShot:
    def test_the_recipe_is_applied_without_training(self, tmp_path: Any) -> None:
        run = trainer(tmp_path, PRUNING, data_args={"one_shot": True})
        before = copy.deepcopy(run.model.state_dict())
        found = run.train()
        assert found.global_step == 0 and found.metrics == {}
        changed = [k for k, v in run.model.state_dict().items() if not torch.equal(v, before[k])]
        assert changed == [WEIGHT] and sparsity(run.model) == 0.75
        run.save_model()
        assert (tmp_path / RECIPE_NAME).exists()

    def test_by_gradients(self, tmp_path: Any) -> None:
        recipe = PRUNING.replace("GMPruning", "OBSPruning").rstrip() + "\n      num_grads: 8\n"
        run = trainer(tmp_path, recipe, data_args={"one_shot": True})
        run.train()
        assert sparsity(run.model) == 0.75


class TestResuming:
    RECIPES = {
        "pruning": (PRUNING + RATES, None),
        "momentum": (PRUNING.replace("GMPruning", "MovementPruning"), None),
        "distillation": (PRUNING + DISTILLING, "self"),
        "layers": (REMOVING, None),
        "projections": (PRUNING + PROJECTING, "wide"),
    }

    @pytest.mark.parametrize(
        ("name", "step"), [*((name, 7) for name in RECIPES), ("projections", 3), ("layers", 5)]
    )
    def test_it_equals_the_run_that_was_not_stopped(
        self, name: str, step: int, tmp_path: Any
    ) -> None:
        recipe, teacher = self.RECIPES[name]

        def run(folder: str, saved: str) -> Trainer:
            more = {"save_strategy": saved, "save_steps": step, "lr_scheduler_type": "linear"}
            args = arguments(tmp_path / folder, **more)
            taught = bert(seed=1, hidden_size=16) if teacher == "wide" else teacher
            return trainer(tmp_path, recipe, args=args, teacher=taught)

        whole = run("a", "steps")
        whole.train()
        rest = run("b", "no")
        found = rest.train(resume_from_checkpoint=str(tmp_path / "a" / f"checkpoint-{step}"))
        assert found.global_step == 10
        assert same(rest.model, whole.model)

    def test_the_last_checkpoint(self, tmp_path: Any) -> None:
        args = arguments(tmp_path, save_strategy="steps", save_steps=4, max_steps=4)
        trainer(tmp_path, PRUNING, args=args).train()
        rest = trainer(tmp_path, PRUNING, args=arguments(tmp_path))
        assert rest.train(resume_from_checkpoint=True).global_step == 10
        assert sparsity(rest.model) == 0.75

    def test_another_recipe(self, tmp_path: Any) -> None:
        args = arguments(tmp_path, save_strategy="steps", save_steps=4)
        trainer(tmp_path, PRUNING, args=args).train()
        rest = trainer(tmp_path, PRUNING.replace("0.75", "0.5"), args=args)
        with pytest.raises(ValueError, match=r"sparseml_state.pt is of another recipe"):
            rest.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))

    def test_a_checkpoint_without_the_state(
        self, tmp_path: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        args = arguments(tmp_path, save_strategy="steps", save_steps=4)
        trainer(tmp_path, PRUNING, args=args).train()
        (tmp_path / "checkpoint-4" / "sparseml_state.pt").unlink()
        rest = trainer(tmp_path, PRUNING, args=args)
        rest.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
        assert "goes on from epoch 0.8" in caplog.text and sparsity(rest.model) == 0.75


class TestGiven:
    def test_metadata(self, tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
        run = trainer(
            tmp_path, PRUNING, metadata_args=["seed", "max_length", "nothing"],
            data_args={"max_length": 128},
        )  # fmt: skip
        assert run.metadata == {"seed": 3, "max_length": 128, "nothing": None}
        assert "metadata_args names nothing" in caplog.text
        assert run.manager is not None and "seed: 3" in str(run.manager)

    def test_names_in_both_arguments(self, tmp_path: Any) -> None:
        with pytest.raises(ValueError, match=r"must not share names, found seed in both"):
            trainer(tmp_path, PRUNING, metadata_args=["seed"], data_args={"seed": 4})

    def test_recipes_in_the_arguments(self, tmp_path: Any) -> None:
        args = arguments(
            tmp_path, recipe="final: 0.75\n" + PRUNING.replace("0.75", "eval(final)"),
            recipe_args='{"final": 0.5}',
        )  # fmt: skip
        run = trainer(tmp_path, None, args=args)
        run.train()
        assert sparsity(run.model) == 0.5

    def test_modifiers_log_to_tensorboard(self, tmp_path: Any) -> None:
        reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        args = arguments(tmp_path, report_to=["tensorboard"])
        run = trainer(tmp_path, PRUNING, args=args, modifier_log_frequency=0.2)
        run.train()
        assert run.logger_manager.log_frequency == 0.2
        files = [str(path.parent) for path in tmp_path.rglob("events.*")]
        tags = reading.EventAccumulator(files[0]).Reload().Tags()["scalars"]
        assert f"ParamPruning/{WEIGHT}" in tags

    def test_modifiers_log_to_wandb(
        self, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, stored_runs: Any
    ) -> None:
        monkeypatch.setenv("WANDB_DIR", str(tmp_path))
        args = arguments(tmp_path, report_to=["wandb"])
        trainer(tmp_path, PRUNING, args=args, modifier_log_frequency=0.2).train()
        (stored,) = stored_runs(tmp_path)
        steps = [row["train/global_step"] for row in stored.rows if f"ParamPruning/{WEIGHT}" in row]
        assert len(steps) > 3 and steps == sorted(steps)
        assert any("train/loss" in row for row in stored.rows)

    def test_how_sparse_it_is_is_told(
        self, tmp_path: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO, logger="sparseml"):
            trainer(tmp_path, PRUNING).train()
        assert "of those to prune are zero" in caplog.text and "GMPruningModifier" in caplog.text

    def test_trainings_that_keep_the_weights_to_themselves(self, tmp_path: Any) -> None:
        run = trainer(tmp_path, PRUNING)
        run.is_fsdp_enabled = True
        with pytest.raises(ValueError, match="runs no recipe with fsdp; SparseMLCallback"):
            run.create_optimizer()

    def test_nothing_to_finalize_before_training(self, tmp_path: Any) -> None:
        run = trainer(tmp_path, PRUNING)
        assert run.apply_manager(epoch=math.inf) and not run.apply_manager(epoch=math.inf)
        assert not run.finalize_manager()
        assert not trainer(tmp_path, None).apply_manager(epoch=0.0)


def test_full_precision_once_the_recipe_quantizes(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSEML_ALLOW_INERT", "1")
    recipe = PRUNING + "  - !QuantizationModifier {start_epoch: 1.0}\n"
    args = arguments(tmp_path, bf16=True)
    run = trainer(tmp_path, recipe, args=args)
    callback = DisableHalfPrecisionCallback(run)
    run.add_callback(callback)
    layer = run.model.bert.encoder.layer[0].intermediate.dense
    dtypes: list[torch.dtype] = []
    layer.register_forward_hook(lambda _, __, output: dtypes.append(output.dtype))
    run.train()
    assert dtypes == [torch.bfloat16] * 5 + [torch.float32] * 5
    assert callback.quant_start_epoch == 1.0
