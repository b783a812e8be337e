"""The states of managers of SparseML 1.x load, one for each class that keeps a state."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager

SCHEDULE = "start_epoch: 0.0, end_epoch: 5.0, update_frequency: 1, params: ['re:.*weight']"
GRADUAL = f"{{{SCHEDULE}, init_sparsity: 0.05, final_sparsity: 0.5}}"
SPARSE = f"{{{SCHEDULE}, final_sparsity: 0.5, inter_func: cubic}}"
MASKING = {
    "ConstantPruningModifier": "{params: ['re:.*weight']}",
    "GMPruningModifier": GRADUAL,
    "MagnitudePruningModifier": GRADUAL,
    "GlobalMagnitudePruningModifier": GRADUAL,
    "MovementPruningModifier": GRADUAL,
    "MFACPruningModifier": GRADUAL.replace("{", "{available_devices: [cpu], "),
    "OBSPruningModifier": GRADUAL,
    "StructuredPruningModifier": GRADUAL,
    "ACDCPruningModifier": f"{{{SCHEDULE}, compression_sparsity: 0.5}}",
    "RigLPruningModifier": SPARSE,
    "TopKASTPruningModifier": f"{{{SCHEDULE}, forward_sparsity: 0.5, backward_sparsity: 0.25}}",
}
DIGESTS = {
    "ConstantPruningModifier": "ad2c1359bfa5032b33efa2d1b0f4222e",
    "GMPruningModifier": "53ea3434410e01f1210880edfd5f3139",
    "MagnitudePruningModifier": "ccc17306c3cc0d14ada155290de986eb",
    "GlobalMagnitudePruningModifier": "ccc17306c3cc0d14ada155290de986eb",
    "MovementPruningModifier": "ccc17306c3cc0d14ada155290de986eb",
    "MFACPruningModifier": "2b20501d7bddd7e88f2f044f2fcd93e6",
    "OBSPruningModifier": "bc306529c00634bd4a5ba4b74bf2c553",
    "StructuredPruningModifier": "17cc8b71378820cf72ba4cd3dfc5080f",
    "ACDCPruningModifier": "871db42885fca9c9c61330dfc3e14b2d",
    "RigLPruningModifier": "ffe50f148324b5422139a5834f8fdb87",
    "TopKASTPruningModifier": "b61a396da0fa6b1f28bd371bd57bf281",
    "PerLayerDistillationModifier": "e698804de92d0fce5d290b7a20a76094",
}
"""What ends the keys under which SparseML 1.x keeps the states of these modifiers."""


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))


def masks(share: int) -> dict[str, torch.Tensor]:
    """Return masks as SparseML 1.x keeps them, numbers of the dtype of the weights."""
    named = {"0.weight": (4, 4), "2.weight": (2, 4)}
    return {
        f"{name}.sparsity_mask": (torch.arange(rows * columns) % share > 0)
        .view(rows, columns)
        .float()
        for name, (rows, columns) in named.items()
    }


def sampler() -> dict[str, Any]:
    def build(*_: Any, **__: Any) -> Any:
        while True:
            yield [torch.randn(2, 4)], {}, torch.zeros(2, dtype=torch.long)

    return {"data_loader_builder": build, "loss_function": nn.functional.cross_entropy}


def manager_of(name: str, module: nn.Module, **kwargs: Any) -> ScheduledModifierManager:
    recipe = f"modifiers:\n    - !{name} {MASKING.get(name, '{start_epoch: 0.0}')}\n"
    manager = ScheduledModifierManager.from_yaml(recipe)
    manager.initialize(module, grad_sampler=sampler(), **kwargs)
    return manager


def saved(state: dict[str, Any]) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("worded", ["alike", "otherwise"])
@pytest.mark.parametrize("name", MASKING)
def test_masks(name: str, worded: str, caplog: pytest.LogCaptureFixture) -> None:
    net = network()
    manager = manager_of(name, net)
    (modifier,) = manager.modifiers
    state: dict[str, Any] = masks(2)
    if name == "TopKASTPruningModifier":
        state = {"param_masks": state, "grad_masks": masks(4)}
    key = f"{name}-{DIGESTS[name]}" if worded == "alike" else f"{name}-{'0f' * 16}"
    manager.load_state_dict(saved({key: state}))
    assert ("is taken for that of" in caplog.text) == (worded == "otherwise")
    found = modifier.state_dict()
    if name == "TopKASTPruningModifier":
        for kind, share in (("param_masks", 2), ("grad_masks", 4)):
            assert found[kind].keys() == masks(share).keys()
            assert all(torch.equal(found[kind][k], m.bool()) for k, m in masks(share).items())
    else:
        assert found.keys() == masks(2).keys()
        assert all(torch.equal(found[k].float(), mask) for k, mask in masks(2).items())
    assert torch.equal((net[0].weight != 0).float(), masks(2)["0.weight.sparsity_mask"])


def test_projections() -> None:
    name, student, teacher = "PerLayerDistillationModifier", network(), network()
    teacher[0], teacher[2] = nn.Linear(4, 6), nn.Linear(6, 3)
    manager = manager_of(name, student, distillation_teacher=teacher)
    weights = {"0": {"weight": torch.ones(6, 4)}, "2": {"weight": torch.full((3, 2), 2.0)}}
    state = {f"{name}-{DIGESTS[name]}": {"distillation_projection_params": weights}}
    manager.load_state_dict(saved(state))
    inputs, optimizer = torch.randn(3, 4), torch.optim.SGD(student.parameters(), lr=0.1)
    manager.update(student, optimizer, 0.0, 4)
    manager.loss_update(
        torch.zeros(()), student, optimizer, 0.0, 4,
        student_outputs=student(inputs), student_inputs=inputs,
    )  # fmt: skip
    found = manager.state_dict()[f"{name}-{DIGESTS[name]}"]["distillation_projection_params"]
    assert torch.equal(found["0"]["weight"], torch.ones(6, 4))
    assert torch.equal(found["2"]["weight"], torch.full((3, 2), 2.0))


def test_modifiers_without_a_state_have_an_empty_one() -> None:
    recipe = "modifiers:\n    - !EpochRangeModifier {start_epoch: 0, end_epoch: 3}\n"
    manager = ScheduledModifierManager.from_yaml(recipe)
    state = {"EpochRangeModifier-475458c5f3aec75a9bbfc98b9e7243dd": {}}
    assert manager.state_dict() == state
    manager.load_state_dict(state)
    with pytest.raises(IndexError, match="does not belong to this recipe"):
        manager.load_state_dict({**state, "SetParamModifier-475458c5f3aec75a9bbfc98b9e7243dd": {}})
