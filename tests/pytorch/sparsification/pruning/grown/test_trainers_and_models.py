"""Grow-and-prune under mixed precision by copies, and on models that we did not write."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification import GaPPruningModifier, MagnitudePruningModifier

PER_EPOCH = 2


class MasterCopies:
    """An optimizer that moves float32 copies, and writes them over the parameters at each step."""

    def __init__(self, params):
        self.params = list(params)
        self.masters = {p: nn.Parameter(p.detach().float()) for p in self.params}
        self.inner = torch.optim.Adam(self.masters.values(), lr=0.01)
        self.param_groups, self.state = self.inner.param_groups, self.inner.state

    def step(self, closure=None):
        for param, master in self.masters.items():
            master.grad = None if param.grad is None else param.grad.float()
        self.inner.step()
        with torch.no_grad():
            for param, master in self.masters.items():
                param.copy_(master)

    def zero_grad(self, set_to_none=True):
        for param in self.params:
            param.grad = None


@pytest.mark.parametrize("kind", ["gap", "magnitude"])
def test_copies_in_float32_are_masked(kind):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 12), nn.Linear(12, 4))
    net = net.to(torch.bfloat16)
    optimizer = MasterCopies(net.parameters())
    shared = {"params": ["re:.*weight"], "final_sparsity": 0.75}
    modifier = (
        GaPPruningModifier(num_steps=3, update_frequency=1.0, **shared)
        if kind == "gap"
        else MagnitudePruningModifier(0.2, start_epoch=0.0, end_epoch=3.0, update_frequency=0.5,
                                      **shared)
    )  # fmt: skip
    stepper = ScheduledModifierManager([modifier]).modify(
        net, optimizer, steps_per_epoch=PER_EPOCH, masters=optimizer.masters
    )
    for _ in range(5 * PER_EPOCH):
        optimizer.zero_grad()
        (net(torch.randn(5, 8).bfloat16()) - 1).float().pow(2).mean().backward()
        stepper.step()
        for param, mask in zip(modifier.masks.params, modifier.masks.masks, strict=True):
            master = optimizer.masters[param]
            assert not master[~mask].any() and not param[~mask].any()
            assert torch.equal(master.bfloat16(), param)
    assert [int((~mask).sum()) for mask in modifier.masks.masks] == [96, 144, 36]


def gpt2():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=20, n_positions=8, n_embd=16, n_layer=3, n_head=2, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config), torch.randint(20, (2, 6)), 12


def vit():
    timm = pytest.importorskip("timm")
    kwargs = {"img_size": 8, "patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 2}
    model = timm.models.VisionTransformer(num_classes=3, **kwargs)
    return model, torch.randn(2, 3, 8, 8), 14


def encoder():
    layer = nn.TransformerEncoderLayer(16, 2, 24, 0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 3), torch.randn(2, 5, 16), 12


MODELS = {
    "gpt2": (gpt2, ["__ALL_PRUNABLE__"]),
    "vit": (vit, ["__ALL_PRUNABLE__"]),
    "encoder": (encoder, ["re:.*(in_proj_weight|out_proj.weight|linear[12].weight)"]),
}


@pytest.mark.parametrize("name", MODELS)
def test_on_real_models(name):
    torch.manual_seed(0)
    build, params = MODELS[name]
    model, inputs, count = build()
    modifier = GaPPruningModifier(params, 0.5, num_steps=4, update_frequency=1.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    manager = ScheduledModifierManager([modifier])
    stepper = manager.modify(model, optimizer, steps_per_epoch=PER_EPOCH)
    assert len(modifier.masks) == count
    for step in range(5 * PER_EPOCH):
        optimizer.zero_grad()
        outputs = model(inputs)
        getattr(outputs, "logits", outputs).pow(2).mean().backward()
        stepper.step()
        dense = [place for place, mask in enumerate(modifier.masks.masks) if mask.all()]
        phase = step // PER_EPOCH
        assert dense == (list(modifier._groups[phase]) if phase < 4 else [])
    manager.finalize(model)
    for one in modifier.selects(model):
        assert int((one.param == 0).sum()) == round(0.5 * one.param.numel()), one.name
