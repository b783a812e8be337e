"""Recipes to start from load, say what was asked for, and run."""

from __future__ import annotations

import importlib
import itertools
import subprocess
import sys

import pytest
import torch
import yaml
from click.testing import CliRunner
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.recipe_template.cli import main
from sparseml.pytorch.recipe_template.main import recipe_template

LR = ["linear", "cosine", "cyclic_linear", "cyclic", "constant", "stepped", "exponential"]
PRUNING = {
    True: "GlobalMagnitudePruningModifier",
    "true": "GlobalMagnitudePruningModifier",
    "GMP": "GlobalMagnitudePruningModifier",
    "AC/DC": "ACDCPruningModifier",
    "acdc": "ACDCPruningModifier",
    "mfac": "MFACPruningModifier",
    "obs": "OBSPruningModifier",
    "constant": "ConstantPruningModifier",
}


def loaded(*args, **kwargs):
    """The modifiers of a template by the names of their classes."""
    manager = ScheduledModifierManager.from_yaml(recipe_template(*args, **kwargs))
    return {type(modifier).__name__: modifier for modifier in manager.iter_modifiers()}


def variables(*args, **kwargs):
    """The variables of a template."""
    return yaml.safe_load(recipe_template(*args, **kwargs).split("training_modifiers")[0])


@pytest.mark.parametrize(("pruning", "name"), PRUNING.items())
def test_pruning(pruning, name) -> None:
    found = loaded(pruning)
    assert set(found) == {"EpochRangeModifier", "LearningRateFunctionModifier", name}


@pytest.mark.parametrize(
    ("pruning", "quantization", "constant"),
    [(None, True, False), ("", True, False), (False, True, True), ("FALSE", "true", True),
     (False, False, False), (None, "false", False)],
)  # fmt: skip
def test_false_is_not_none(pruning, quantization, constant) -> None:
    found = loaded(pruning, quantization)
    assert ("ConstantPruningModifier" in found) is constant
    assert ("QuantizationModifier" in found) is (str(quantization).lower() == "true")


@pytest.mark.parametrize("lr", LR)
def test_learning_rates(lr) -> None:
    found = loaded(True, lr=lr, init_lr=0.1, final_lr=0.01)
    rate = next(found[name] for name in found if "LearningRate" in name)
    assert 0.1 in (getattr(rate, "init_lr", None), getattr(rate, "learning_rate", None))
    expected = {
        "constant": "SetLearningRateModifier",
        "stepped": "LearningRateModifier",
        "exponential": "LearningRateModifier",
    }
    assert type(rate).__name__ == expected.get(lr, "LearningRateFunctionModifier")
    if lr == "cyclic":
        assert rate.lr_func == "cyclic_linear"
    if lr == "stepped":
        assert rate.lr_kwargs["milestones"] == [10.0, 15.0]


def test_all_that_goes_together_loads() -> None:
    names = ["gmp", "acdc", "mfac", "obs", "constant", None]
    for pruning, quantization, lr, teacher in itertools.product(
        names, (True, False), ("linear", "constant"), (True, False)
    ):
        for epochs in (3, 20.0, 90.0):
            found = loaded(
                pruning, quantization, lr, num_epochs=epochs, distillation=teacher, sparsity=0.9
            )
            assert found["EpochRangeModifier"].end_epoch == epochs


def test_asked_for_sparsity_reaches_the_modifier() -> None:
    pruner = loaded("mfac", sparsity=0.6, global_sparsity=False)["MFACPruningModifier"]
    assert pruner.final_sparsity == 0.6 and pruner.init_sparsity == 0.05
    assert pruner.num_grads == 64 and pruner.fisher_block_size == 10000
    assert pruner.global_sparsity is False
    assert loaded(True, sparsity=0.01)["GlobalMagnitudePruningModifier"].init_sparsity == 0.01
    pruner = loaded("movement", global_sparsity=False)["MovementPruningModifier"]
    assert pruner.update_frequency == 0.5 and pruner.end_epoch == 10.0
    assert "MagnitudePruningModifier" in loaded(True, global_sparsity=False)


def test_variables_in_their_order() -> None:
    found = variables("obs", True, distillation=True)
    assert list(found) == [
        "lr_func", "init_lr", "final_lr", "num_epochs", "num_qat_epochs",
        "num_qat_finetuning_epochs", "quantization_submodules", "num_pruning_active_epochs",
        "num_pruning_finetuning_epochs", "pruning_init_sparsity", "pruning_final_sparsity",
        "pruning_update_frequency", "mask_type", "global_sparsity", "_num_pruning_epochs",
        "num_grads", "fisher_block_size", "distillation_hardness", "distillation_temperature",
    ]  # fmt: skip
    assert found["num_qat_epochs"] == 5.0 and found["num_qat_finetuning_epochs"] == 2.5
    assert found["num_pruning_active_epochs"] == found["num_pruning_finetuning_epochs"] == 7.5
    assert found["pruning_update_frequency"] == 7.5 / 20
    assert found["num_grads"] == 1024 and found["fisher_block_size"] == 50
    assert variables(True, num_epochs=90)["pruning_update_frequency"] == 1.0
    assert variables(True, True, num_epochs=14)["num_qat_epochs"] == 2.0


def test_overrides_of_variables() -> None:
    manager = ScheduledModifierManager.from_yaml(
        recipe_template(True), recipe_variables={"num_epochs": 5.0, "pruning_final_sparsity": 0.5}
    )
    assert manager.max_epochs == 10.0  # pruning's own epochs are variables of their own
    assert manager.pruning_modifiers[0].final_sparsity == 0.5


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"pruning": "magnitud"}, "pruning must be"),
        ({"pruning": 1}, "pruning must be"),
        ({"pruning": "movement"}, "global_sparsity"),
        ({"quantization": "yes"}, "quantization must be"),
        ({"quantization": None}, "quantization must be"),
        ({"lr": "linnear"}, "did you mean"),
        ({"quantization": True, "num_epochs": 2.0}, "quantization takes 2 epochs"),
        ({"target": "vnni"}, "'block4' for the target vnni"),
        ({"target": "tensorrt", "mask_type": "block4"}, "'2:4'"),
        ({"mask_type": "block4"}, "'unstructured'"),
        ({"target": "cpu", "mask_type": "2:4"}, "'unstructured'"),
    ],
)
def test_what_is_not_offered(kwargs, message) -> None:
    with pytest.raises(ValueError, match=message):
        recipe_template(**kwargs)


@pytest.mark.parametrize(("target", "mask_type"), [("vnni", "block4"), ("tensorrt", "2:4")])
def test_targets(target, mask_type) -> None:
    found = loaded(True, target=target, mask_type=mask_type)
    assert found["GlobalMagnitudePruningModifier"].mask_type == mask_type


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_conv = nn.Conv2d(3, 4, 3)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 1))
        self.output = nn.Linear(4, 2)

    def forward(self, x):
        return self.output(self.body(self.input_conv(x)).mean((2, 3)))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_layers_of_a_model(tmp_path) -> None:
    path = tmp_path / "model.pts"
    torch.jit.save(torch.jit.script(Net()), str(path))
    for model in (Net(), str(path)):
        pruner = loaded(True, model=model)["GlobalMagnitudePruningModifier"]
        assert pruner.params == ["body.0.weight", "body.2.weight"]


def test_a_template_prunes() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    text = recipe_template(True, model=model, num_epochs=4.0, sparsity=0.75)
    manager = ScheduledModifierManager.from_yaml(text)
    optimizer = manager.modify(model, optimizer, steps_per_epoch=2)
    for _ in range(8):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 8, 8)).sum().backward()
        optimizer.step()
    manager.finalize(model)
    weights = torch.cat([model.body[0].weight.flatten(), model.body[2].weight.flatten()])
    assert (weights == 0).float().mean().item() == 0.75


def test_files(tmp_path) -> None:
    for name in ("new/recipe.md", "recipe.yaml"):
        text = recipe_template("acdc", file_name=tmp_path / name)
        written = (tmp_path / name).read_text()
        assert text in written and (written == text) == name.endswith(".yaml")
        manager = ScheduledModifierManager.from_yaml(str(tmp_path / name))
        assert str(manager) == str(ScheduledModifierManager.from_yaml(text))


class TestCommand:
    @pytest.mark.parametrize(
        "args",
        [
            [],
            ["--pruning", "true", "--quantization", "true", "--lr", "constant"],
            ["--pruning", "--quantization", "--distillation", "--learning_rate", "cyclic"],
            ["--pruning", "ac/dc", "--lr", "stepped"],
            ["--pruning", "movement", "--lr", "exponential"],
            ["--pruning", "obs", "--target", "vnni"],
            ["--pruning", "gmp", "--target", "tensorrt", "--file_name", "mine.yaml"],
            ["--pruning", "FALSE", "--quantization", "TRUE"],
        ],
    )
    def test_writes_what_can_be_loaded(self, args, tmp_path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        result = CliRunner().invoke(main, args)
        assert result.exit_code == 0, result.output
        path = "mine.yaml" if "mine.yaml" in args else "recipe.md"
        assert list(ScheduledModifierManager.from_yaml(path).iter_modifiers())

    def test_other_choices(self) -> None:
        result = CliRunner().invoke(main, ["--lr", "quadratic"])
        assert result.exit_code == 2 and "cyclic_linear" in result.output


def test_the_name_is_a_function_and_a_package() -> None:
    import sparseml.pytorch

    package = importlib.import_module("sparseml.pytorch.recipe_template")
    assert sparseml.pytorch.recipe_template is package, "importing a submodule sets it"
    assert package(pruning=True) == recipe_template(pruning=True)
    code = (
        "from sparseml.pytorch import recipe_template; a = recipe_template('obs'); "
        "from sparseml.pytorch.recipe_template.main import recipe_template as f; b = f('obs'); "
        "from sparseml.pytorch import recipe_template; print(a == b == recipe_template('obs'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"
