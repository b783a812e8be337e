"""A model that is being pruned is a plain model, whatever is done to it meanwhile."""

from __future__ import annotations

import copy
import io
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.pruning import (
    ACDCPruningModifier,
    GlobalMagnitudePruningModifier,
    MagnitudePruningModifier,
    MovementPruningModifier,
    RigLPruningModifier,
    TopKASTPruningModifier,
)
from sparseml.pytorch.utils import ModuleSparsificationInfo

WEIGHTS = ["re:.*weight"]
GRADUAL = (0.2, 0.75, 0.5, 2.0, 0.5, WEIGHTS)
MAKERS = {
    "global": lambda: GlobalMagnitudePruningModifier(*GRADUAL),
    "blocks": lambda: MagnitudePruningModifier(*GRADUAL, mask_type="1x4"),
    "movement": lambda: MovementPruningModifier(*GRADUAL),
    "acdc": lambda: ACDCPruningModifier(0.75, 0, 4, 1, WEIGHTS),
    "rigl": lambda: RigLPruningModifier(0.75, 0.5, 2.0, 0.5, WEIGHTS),
    "top_kast": lambda: TopKASTPruningModifier(0.75, 0.5, 0.5, 2.0, 0.5, WEIGHTS),
}
every_kind = pytest.mark.parametrize("kind", MAKERS)


class Run:
    """Training of a small network; ``step`` may be called as often as wanted."""

    def __init__(self, modifier, net=None, compiled=None):
        torch.manual_seed(0)
        self.net = net or nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
        self.forward = compiled(self.net) if compiled else self.net
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.1)
        self.modifier = modifier
        self.manager = ScheduledModifierManager([modifier])
        self.stepper = self.manager.modify(
            self.forward,
            self.optimizer,
            steps_per_epoch=4,
            grad_sampler={
                "data_loader_builder": lambda: self.samples,
                "loss_fn": lambda output, target: (output - target).pow(2).mean(),
            },
        )
        self.number = 0

    def samples(self):
        like = next(self.net.parameters())
        yield [torch.linspace(-1, 1, 16).view(2, 8).to(like)], {}, torch.ones(()).to(like)

    def step(self, count=1):
        for _ in range(count):
            param = next(self.net.parameters())
            generator = torch.Generator().manual_seed(self.number)
            inputs = torch.randn(6, 8, generator=generator).to(param)
            self.optimizer.zero_grad()
            (self.forward(inputs) - 1.0).pow(2).mean().backward()
            self.stepper.step()
            self.number += 1
        return self

    @property
    def masks(self):
        return list(self.modifier.module_masks.param_masks)

    def zeros(self, net=None):
        net = net or self.net
        return [int((param == 0).sum()) for param in net.parameters() if param.ndim > 1]


def train_on(net, steps=3):
    """Ordinary training without a manager."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        (net(torch.ones(6, 8)) - 1.0).pow(2).mean().backward()
        optimizer.step()


def same_weights(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@every_kind
def test_copies_are_dense_trainable_models(kind):
    run, undisturbed = Run(MAKERS[kind]()).step(7), Run(MAKERS[kind]()).step(7)
    twin = copy.deepcopy(run.net)
    assert same_weights(twin, run.net) and sum(run.zeros(twin)) == sum(run.zeros()) > 0
    assert type(twin) is nn.Sequential and list(twin.state_dict()) == list(run.net.state_dict())
    for param in twin.parameters():
        assert not param._post_accumulate_grad_hooks
    for part in twin.modules():
        assert not part._forward_hooks and not part._forward_pre_hooks
    train_on(twin)
    assert sum(run.zeros(twin)) < sum(run.zeros())
    run.step(5)
    undisturbed.step(5)
    assert same_weights(run.net, undisturbed.net)


@every_kind
def test_it_is_pickled_and_saved(kind, tmp_path):
    run = Run(MAKERS[kind]()).step(7)
    file = io.BytesIO()
    torch.save(run.net, file)
    file.seek(0)
    for twin in (
        pickle.loads(pickle.dumps(run.net)),  # noqa: S301
        torch.load(file, weights_only=False),
    ):
        assert same_weights(twin, run.net)
        train_on(twin)
    save_file(run.net.state_dict(), tmp_path / "model.safetensors")
    fresh = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    fresh.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert same_weights(fresh, run.net)
    assert run.zeros(fresh) == run.zeros()


def average_models():
    yield (
        "torch",
        lambda net: torch.optim.swa_utils.AveragedModel(
            net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
        ),
        lambda ema, net: ema.update_parameters(net),
    )
    timm_utils = pytest.importorskip("timm.utils")
    yield "V2", lambda net: timm_utils.ModelEmaV2(net, decay=0.9), lambda ema, net: ema.update(net)
    yield "V3", lambda net: timm_utils.ModelEmaV3(net, decay=0.9), lambda ema, net: ema.update(net)


@every_kind
def test_averages_of_its_weights(kind):
    for name, make, update in average_models():
        run = Run(MAKERS[kind]()).step(5)
        early = make(run.net)
        update(early, run.net)  # torch's takes the first as it is
        expected = [param.detach().clone() for param in run.net.parameters()]
        for _ in range(11):
            run.step()
            update(early, run.net)
            pairs = zip(expected, run.net.parameters(), strict=True)
            expected = [torch.lerp(old, new.detach(), 0.1) for old, new in pairs]
        for found, wanted in zip(early.module.parameters(), expected, strict=True):
            assert torch.allclose(found, wanted, atol=1e-6), name
        run.step(4)
        assert run.modifier.ended
        late = make(run.net)  # of a model whose masks do not change any more
        for _ in range(3):
            run.step()
            update(late, run.net)
        assert run.zeros(late.module) == run.zeros(), name
        assert list(late.module.state_dict()) == list(run.net.state_dict())


@every_kind
def test_compiled_models_get_the_same_masks(kind):
    # one graph: there are no hooks that would break it
    def compiled(net):
        return torch.compile(net, backend="aot_eager", fullgraph=True)

    torch._dynamo.reset()
    run, plain = Run(MAKERS[kind](), compiled=compiled).step(12), Run(MAKERS[kind]()).step(12)
    assert list(run.manager.state_dict()) == list(plain.manager.state_dict())
    for mask, other in zip(run.masks, plain.masks, strict=True):
        assert torch.equal(mask, other)
    for one, other in zip(run.net.parameters(), plain.net.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_compiled_to_machine_code():
    torch._dynamo.reset()
    make = MAKERS["global"]
    run, plain = Run(make(), compiled=torch.compile).step(10), Run(make()).step(10)
    assert run.zeros() == plain.zeros()
    for one, other in zip(run.net.parameters(), plain.net.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@every_kind
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_dtype_in_the_middle(kind, dtype):
    run = Run(MAKERS[kind]()).step(6)
    run.net.to(dtype)
    for _ in range(8):
        run.step()
        for param, mask in zip(run.modifier.module_masks.params, run.masks, strict=True):
            assert param.dtype == mask.dtype == dtype
            assert not param[mask == 0].any()
    zeros = sum(int((mask == 0).sum()) for mask in run.masks)
    assert zeros == (0 if run.modifier.applied_sparsity == 0.0 else 144)


@every_kind
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_another_device_in_the_middle(kind):
    run = Run(MAKERS[kind]())
    for device in ("cuda", "cpu", "cuda", "cpu"):
        run.step(3)
        run.net.to(device)
        run.step(1)
        for param, mask in zip(run.modifier.module_masks.params, run.masks, strict=True):
            assert param.device.type == mask.device.type == device
            assert not param[mask == 0].any()
    plain = Run(MAKERS[kind]()).step(16)
    assert run.zeros() == pytest.approx(plain.zeros(), abs=2)
    for one, other in zip(run.net.parameters(), plain.net.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-2)


class Shared(nn.Module):
    """One weight under two names, and one layer that is used twice."""

    def __init__(self):
        super().__init__()
        self.first, self.twice = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.last = nn.Linear(8, 8, bias=False)
        self.last.weight = self.first.weight

    def forward(self, inputs):
        return self.last(self.twice(torch.tanh(self.twice(torch.tanh(self.first(inputs))))))


@every_kind
def test_shared_weights_count_once(kind):
    if kind == "blocks":
        pytest.skip("nothing of its own")
    run = Run(MAKERS[kind](), Shared()).step(16)
    assert run.net.first.weight is run.net.last.weight
    masks = run.masks
    assert len(masks) == 2 and run.modifier.module_masks.layer_names == ["first", "twice"]
    pruned = sum(int((mask == 0).sum()) for mask in masks)
    assert pruned == 96  # three quarters of 128, not of 192
    info = ModuleSparsificationInfo(run.net)
    zeros = sum(int((param == 0).sum()) for param in run.net.parameters())
    assert info.params_total == info.params_prunable_total == 128
    assert info.params_sparse == info.params_prunable_sparse == zeros >= 96
    for param, mask in zip(run.modifier.module_masks.params, masks, strict=True):
        assert not param[mask == 0].any()
        assert len(param._post_accumulate_grad_hooks) <= 2  # one for each set of masks


def test_gradients_of_a_layer_used_twice_are_masked_when_complete():
    run = Run(MAKERS["global"](), Shared()).step(8)
    run.optimizer.zero_grad()
    run.net(torch.ones(3, 8)).sum().backward()
    dense = copy.deepcopy(run.net)
    dense.zero_grad()
    dense(torch.ones(3, 8)).sum().backward()
    for name, mask in zip(("first", "twice"), run.masks, strict=True):
        found, whole = getattr(run.net, name).weight.grad, getattr(dense, name).weight.grad
        assert torch.equal(found, whole * mask)
        assert whole[mask == 0].any()
