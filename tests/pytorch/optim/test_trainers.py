"""Other people's loops: the same steps, schedule and weights as in a plain one."""

from __future__ import annotations

import logging
import warnings

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from sparseml.pytorch.optim import RecipeManagerStepWrapper, ScheduledModifierManager, StepDriver

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what these libraries warn of as they are imported
    accelerate = pytest.importorskip("accelerate")
    lightning = pytest.importorskip("lightning.pytorch")
    transformers = pytest.importorskip("transformers")

# what Lightning says of itself, of the machine and of these small runs
pytestmark = pytest.mark.filterwarnings(
    "ignore::lightning.fabric.utilities.rank_zero.LightningDeprecationWarning",
    "ignore:.*does not have many workers.*",
    "ignore:.*number of training batches.*",
    "ignore:.*isinstance\\(treespec, LeafSpec\\).*:FutureWarning",
    "ignore:.*pin_memory.*:UserWarning",
)

BATCHES, ACCUMULATED, EPOCHS = 8, 4, 3
STEPS = BATCHES // ACCUMULATED  # in an epoch
RECIPE = """
modifiers:
  - !EpochRangeModifier
    start_epoch: 0.0
    end_epoch: 3.0
  - !MovementPruningModifier
    params: __ALL_PRUNABLE__
    init_sparsity: 0.25
    final_sparsity: 0.75
    start_epoch: 0.5
    end_epoch: 2.5
    update_frequency: 0.5
"""


class Counting(torch.optim.SGD):
    """Counts the steps that happen."""

    taken = 0

    def step(self, closure=None):
        self.taken += 1
        return super().step(closure)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


def batches():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(BATCHES, 5, 8, generator=generator)
    return list(zip(inputs, torch.randint(4, (BATCHES, 5), generator=generator), strict=True))


def build(model=None):
    model = network() if model is None else model
    manager = ScheduledModifierManager.from_yaml(RECIPE)
    return model, Counting(model.parameters(), lr=0.1, momentum=0.9), manager


def plain(clip=None):
    """The weights and the steps of a loop that leaves no room for doubt."""
    model, inner, manager = build()
    optimizer = manager.modify(model, inner, STEPS)
    scheduler = LambdaLR(optimizer, lambda step: 0.9**step)
    for _ in range(EPOCHS):
        for number, (inputs, labels) in enumerate(batches()):
            (cross_entropy(model(inputs), labels) / ACCUMULATED).backward()
            if number % ACCUMULATED == ACCUMULATED - 1:
                if clip is not None:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
    return model, inner, manager


def same(found, expected):
    model, inner, manager = found
    reference, counted, driven = expected
    assert inner.taken == counted.taken == EPOCHS * STEPS
    assert manager.position == driven.position == (EPOCHS * STEPS, float(EPOCHS), STEPS)
    assert manager.pruning_modifiers[0].ended
    for one, other in zip(model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-5, atol=1e-7)
        assert torch.equal(one == 0, other == 0)
    assert int((model[0].weight == 0).sum()) == 48


class TestAccelerate:
    @pytest.mark.parametrize("order", ["modify first", "prepare first", "driver"])
    def test_accumulated_gradients(self, order):
        accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATED)
        model, inner, manager = build()
        driver = None
        if order == "modify first":
            optimizer = accelerator.prepare(manager.modify(model, inner, STEPS))
        elif order == "prepare first":
            optimizer = manager.modify(model, accelerator.prepare(inner), STEPS)
        else:
            optimizer = accelerator.prepare(inner)
            manager.initialize(model)
            driver = StepDriver(model, optimizer, manager, STEPS)
        scheduler = accelerator.prepare(LambdaLR(inner, lambda step: 0.9**step))
        for _ in range(EPOCHS):
            for inputs, labels in batches():
                with accelerator.accumulate(model):
                    accelerator.backward(cross_entropy(model(inputs), labels))
                    if driver and accelerator.sync_gradients:
                        driver.before_step()
                    optimizer.step()
                    if driver:
                        driver.after_step()
                    scheduler.step()
                    optimizer.zero_grad()
        same((model, inner, manager), plain())

    @pytest.mark.parametrize("order", ["modify first", "prepare first"])
    @pytest.mark.parametrize("fused", [True, False], ids=["fused", ""])
    def test_overflows(self, order, fused):
        """Accelerate has gradient scalers on GPUs only; its optimizer takes them anywhere."""
        accelerate.Accelerator(cpu=True)
        model = network()
        inner = torch.optim.SGD(model.parameters(), lr=0.1, fused=fused)
        manager = ScheduledModifierManager.from_yaml(RECIPE)
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)

        def prepared(optimizer):
            return accelerate.optimizer.AcceleratedOptimizer(optimizer, scaler=scaler)

        if order == "modify first":
            wrapper = manager.modify(model, inner, STEPS)
            optimizer = accelerated = prepared(wrapper)
        else:
            accelerated = prepared(inner)
            optimizer = wrapper = manager.modify(model, accelerated, STEPS)
        positions, skipped = [], []
        for number, (inputs, labels) in enumerate(batches()):
            loss = cross_entropy(model(inputs), labels) * (torch.inf if number in (1, 4) else 1)
            scaler.scale(loss).backward()
            before = model[0].weight.detach().clone()
            optimizer.step()
            assert torch.equal(before, model[0].weight) == (number in (1, 4))
            optimizer.zero_grad()
            positions.append(wrapper.wrapped_steps)
            skipped.append(accelerated.step_was_skipped)
        assert positions == [1, 1, 2, 3, 3, 4, 5, 6]
        if not fused:  # of which it does not hear, with any optimizer
            assert [i for i, one in enumerate(skipped) if one] == [1, 4]


class Module(lightning.LightningModule):
    def __init__(self, automatic=True, clip=None):
        super().__init__()
        self.model, self.inner, self.manager = build()
        self.automatic_optimization, self.clip = automatic, clip

    def configure_optimizers(self):
        optimizer = self.manager.modify(self.model, self.inner, STEPS)
        scheduler = LambdaLR(optimizer, lambda step: 0.9**step)
        return [optimizer], [{"scheduler": scheduler, "interval": "step"}]

    def training_step(self, batch, number):
        inputs, labels = batch
        loss = cross_entropy(self.model(inputs), labels)
        if self.automatic_optimization:
            return loss
        optimizer = self.optimizers()
        self.manual_backward(loss / ACCUMULATED)
        if number % ACCUMULATED == ACCUMULATED - 1:
            self.clip_gradients(optimizer, self.clip, "norm")
            optimizer.step()
            self.lr_schedulers().step()
            optimizer.zero_grad()
        return None


class TestLightning:
    def trainer(self, **kwargs):
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        quiet = {
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "logger": False,
        }
        return lightning.Trainer(accelerator="cpu", max_epochs=EPOCHS, **quiet, **kwargs)

    def test_automatic_optimization(self):
        module = Module()
        trainer = self.trainer(accumulate_grad_batches=ACCUMULATED, gradient_clip_val=0.1)
        trainer.fit(module, DataLoader(batches(), batch_size=None))
        assert isinstance(trainer.optimizers[0], RecipeManagerStepWrapper)
        assert trainer.global_step == EPOCHS * STEPS
        same((module.model, module.inner, module.manager), plain(clip=0.1))

    def test_manual_optimization(self):
        module = Module(automatic=False, clip=0.1)
        trainer = self.trainer()
        trainer.fit(module, DataLoader(batches(), batch_size=None))
        assert trainer.global_step == EPOCHS * STEPS
        same((module.model, module.inner, module.manager), plain(clip=0.1))


class Classifier(nn.Module):
    """What a Trainer of transformers wants of a model."""

    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, inputs, labels):
        logits = self.net(inputs)
        return {"loss": cross_entropy(logits, labels), "logits": logits}


class TestTransformers:
    def test_trainer(self, tmp_path):
        model = Classifier()
        _, inner, manager = build(model.net)
        optimizer = manager.modify(model.net, inner, STEPS)
        settings = transformers.TrainingArguments(
            tmp_path,
            use_cpu=True,
            per_device_train_batch_size=5,
            gradient_accumulation_steps=ACCUMULATED,
            num_train_epochs=EPOCHS,
            max_grad_norm=0.1,
            train_sampling_strategy="sequential",
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        examples = [
            {"inputs": one, "labels": label}
            for inputs, labels in batches()
            for one, label in zip(inputs, labels, strict=True)
        ]
        scheduler = LambdaLR(optimizer, lambda step: 0.9**step)
        trainer = transformers.Trainer(
            model, settings, train_dataset=examples, optimizers=(optimizer, scheduler)
        )
        trainer.train()
        assert trainer.state.global_step == EPOCHS * STEPS
        same((model.net, inner, manager), plain(clip=0.1))

    def test_trainer_with_a_model_of_its_own(self, tmp_path):
        config = transformers.BertConfig(
            vocab_size=32,
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=16,
        )
        torch.manual_seed(0)
        model = transformers.BertForSequenceClassification(config)
        manager = ScheduledModifierManager.from_yaml(
            RECIPE.replace("__ALL_PRUNABLE__", "['re:.*query.weight']")
        )
        inner = torch.optim.AdamW(model.parameters())
        tokens = torch.randint(32, (24, 8), generator=torch.Generator().manual_seed(1))
        examples = [{"input_ids": row, "labels": int(row[0] % 2)} for row in tokens]
        settings = transformers.TrainingArguments(
            tmp_path,
            use_cpu=True,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=2,
            num_train_epochs=EPOCHS,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = transformers.Trainer(
            model,
            settings,
            train_dataset=examples,
            optimizers=(manager.modify(model, inner, 3), None),
        )
        trainer.train()
        assert trainer.state.global_step == manager.position.steps == 9
        weight = model.bert.encoder.layer[0].attention.self.query.weight
        assert int((weight == 0).sum()) == 192
