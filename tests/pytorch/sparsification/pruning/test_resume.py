"""What a resumed pruning run needs, beside what the manager's own tests look at."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.pruning import (
    ACDCPruningModifier,
    BasePruningModifier,
    GaPPruningModifier,
    GlobalMagnitudePruningModifier,
    MagnitudePruningModifier,
    MagnitudePruningParamsScorer,
    MovementPruningModifier,
    PatternLockModifier,
    RigLPruningModifier,
    SnipMomentumPruningModifier,
    TopKASTPruningModifier,
    UnstructuredPruningMaskCreator,
)

STEPS, PER_EPOCH = 14, 4
FIELDS = {
    "params": ["re:.*weight"],
    "final_sparsity": 0.75,
    "start_epoch": 0.5,
    "end_epoch": 2.5,
    "update_frequency": 0.5,
}


class Reintroducing(BasePruningModifier):
    """Half of the weights are masked, and all of them train."""

    def __init__(self):
        super().__init__(
            params=["re:.*weight"],
            start_epoch=0.5,
            end_epoch=2.5,
            update_frequency=0.75,
            allow_reintroduction=True,
            leave_enabled=True,
        )

    def _get_mask_creator(self, param_names, params):
        return UnstructuredPruningMaskCreator()

    def _get_scorer(self, params):
        return MagnitudePruningParamsScorer(params)

    def get_applied_sparsity_for_epoch(self, epoch, steps_per_epoch):
        return 0.5


MAKERS = {
    "from_param": lambda: MagnitudePruningModifier(init_sparsity="__FROM_PARAM__", **FIELDS),
    "free_at_end": lambda: MagnitudePruningModifier(
        init_sparsity=0.1, leave_enabled=False, **FIELDS
    ),
    "limits": lambda: GlobalMagnitudePruningModifier(
        init_sparsity=0.1, max_sparsity_per_param=0.8, mask_type="filter", **FIELDS
    ),
    "movement": lambda: MovementPruningModifier(init_sparsity=0.1, **FIELDS),
    "snip_momentum": lambda: SnipMomentumPruningModifier(
        init_sparsity=0.1, mask_type="2x1", min_sparsity_per_param=0.5, **FIELDS
    ),
    "snip_momentum_2:4": lambda: SnipMomentumPruningModifier(
        **{**FIELDS, "final_sparsity": 0.5, "params": ["2.weight"]},
        init_sparsity=0.0,
        mask_type="2:4",
        score_dtype="bfloat16",
    ),
    "snip_momentum_parts": lambda: SnipMomentumPruningModifier(
        **{**FIELDS, "update_frequency": 0.75}, init_sparsity=0.0, progressive_steps=3
    ),
    "snip_momentum_lasso": lambda: SnipMomentumPruningModifier(
        **{**FIELDS, "final_sparsity": 0.5},
        init_sparsity=0.0,
        mask_type="1xchannel",
        score_type="block_mask",
        reg_type="group_lasso_by_gradient",
        reg_coeff=1e-4,
    ),
    "retrain_free": lambda: SnipMomentumPruningModifier(
        **FIELDS, init_sparsity=0.0, mask_type="channelx1", score_type="retrain_free", num_grads=2
    ),
    "pattern_lock": lambda: PatternLockModifier(
        ["re:.*weight"], start_epoch=0.5, end_epoch=2.5, mask_type="channel"
    ),
    "reintroducing": Reintroducing,
    "acdc": lambda: ACDCPruningModifier(
        0.7, start_step=1, end_step=12, update_steps=3, params=["re:.*weight"]
    ),
    "gap": lambda: GaPPruningModifier(
        ["re:.*weight"],
        0.75,
        start_step=1,
        update_steps=3,
        num_steps=3,
        num_partitions=2,
        reset_optimizer_state="grown",
    ),
    "gap_random": lambda: GaPPruningModifier(
        ["re:.*weight"],
        0.75,
        3,
        0.5,
        0.75,
        num_partitions=2,
        partition_type="random",
        initial_mask="random",
        mask_gradients=False,
    ),
    "rigl": lambda: RigLPruningModifier(**FIELDS, num_grads=2),
    "top_kast": lambda: TopKASTPruningModifier(
        0.7, 0.4, 0.5, 2.5, 0.5, ["re:.*weight"], active_weight_decay=0.01
    ),
}


def endless_samples():
    """An iterator, which a resumed run has to bring to where it was."""
    generator = torch.Generator().manual_seed(7)
    while True:
        yield [torch.randn(4, 6, generator=generator)], {}, torch.ones(())


SAMPLER = {
    "data_loader_builder": endless_samples,
    "loss_function": lambda output, target: (output - target).pow(2).mean(),
}


class Run:
    def __init__(self, modifier):
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 4))
        self.net[0].weight.data[:, 0] = 0.0
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=0.05)
        self.manager = ScheduledModifierManager([modifier])
        self.modifier = modifier
        self.stepper = self.manager.modify(
            self.net, self.optimizer, steps_per_epoch=PER_EPOCH, grad_sampler=SAMPLER
        )

    def step(self, number):
        generator = torch.Generator().manual_seed(number)
        self.optimizer.zero_grad()
        (self.net(torch.randn(5, 6, generator=generator)) - 1).pow(2).mean().backward()
        self.stepper.step()

    def save(self, path):
        parts = (self.net, self.optimizer, self.manager)
        torch.save([part.state_dict() for part in parts], path)

    def load(self, path):
        states = torch.load(path, weights_only=True)
        for part, state in zip((self.net, self.optimizer, self.manager), states, strict=True):
            part.load_state_dict(state)

    def outcome(self):
        masks = tensors(self.modifier.state_dict())
        moments = [
            value
            for state in self.optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        ]
        return [*self.net.state_dict().values(), *masks, *moments]


def tensors(state):
    if isinstance(state, torch.Tensor):
        return [state]
    return [tensor for value in state.values() for tensor in tensors(value)]


@pytest.mark.parametrize("kind", MAKERS)
def test_stopping_after_any_step_changes_nothing(kind, tmp_path):
    whole = Run(MAKERS[kind]())
    for number in range(STEPS):
        whole.save(tmp_path / f"{number}.pt")
        whole.step(number)
    for stop in range(STEPS):
        resumed = Run(MAKERS[kind]())
        resumed.load(tmp_path / f"{stop}.pt")
        for number in range(stop, STEPS):
            resumed.step(number)
        pairs = zip(whole.outcome(), resumed.outcome(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs), f"stopped after {stop} steps"
        assert resumed.modifier.applied_sparsity == whole.modifier.applied_sparsity


def test_reintroduction_trains_masked_weights():
    run = Run(Reintroducing())
    seen = set()
    for number in range(STEPS):
        run.step(number)
        masks = run.modifier.module_masks
        if masks.enabled:
            assert run.net[0].weight[masks.param_masks[0] == 0].abs().max() == 0
            assert int((run.net[0].weight == 0).sum()) >= 36
            seen.add(tuple(masks.param_masks[0].flatten().tolist()))
    assert len(seen) > 1  # so some weights have come back
    run.manager.finalize(run.net)
    assert int((run.net[0].weight == 0).sum()) == 36
