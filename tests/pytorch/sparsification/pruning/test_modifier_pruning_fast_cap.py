from __future__ import annotations

import pytest
import torch

from sparseml.pytorch.sparsification.pruning import (
    FastCAPruningModifier,
    GMPruningModifier,
    MagnitudePruningModifier,
)

FIELDS = {"params": ["re:.*weight"], "init_sparsity": 0.5, "final_sparsity": 0.5}
FIELDS |= {"start_epoch": 0.0, "end_epoch": 4.0, "update_frequency": 1.0, "damp": 0.01}


def test_golden_vector(dots, feeding):
    grads = [
        [1, 0, 2, -1, 0, 1, 1, 0],
        [0.5, -1, 0, 1, 1, 1, 0, 0],
        [0, 1, 1, 0, 0.5, 0, -1, 2],
    ]
    net = dots((2, 4))
    net.layers[0].weight.data = torch.tensor([[1, -0.5, 2, 0.25], [-0.3, 0.8, 0.1, -1.2]]).double()
    fields = {**FIELDS, "num_grads": 3, "fisher_block_size": 4, "block_size": 4}
    sampler = feeding([[torch.tensor(grad).double().view(2, 4)] for grad in grads])
    FastCAPruningModifier(**fields, fisher_dtype="float64").apply(net, grad_sampler=sampler)
    expected = torch.tensor([[1, 0, 1.847998, 0], [0, 0.797745, 0, -1.291301]]).double()
    torch.testing.assert_close(net.layers[0].weight.data, expected, rtol=0, atol=2e-6)


def test_differs_from_magnitude_and_loses_less(dots, feeding):
    net = dots((12, 16))
    gradients = net.gradients(60)
    before = net.layers[0].weight.data.clone()
    fields = {**FIELDS, "num_grads": 60, "fisher_block_size": 16}
    FastCAPruningModifier(**fields).apply(net, grad_sampler=feeding(gradients))
    found = net.layers[0].weight.data.clone()
    net.layers[0].weight.data = before.clone()
    plain = {key: value for key, value in FIELDS.items() if key != "damp"}
    MagnitudePruningModifier(**plain).apply(net)
    stack = torch.stack([one[0] for one in gradients])
    fisher = torch.einsum("tri,trj->ij", stack, stack)

    def loss(weight):
        change = weight - before
        return float(torch.einsum("ri,ij,rj->", change, fisher, change))

    assert not torch.equal(found != 0, net.layers[0].weight.data != 0)
    assert loss(found) < loss(net.layers[0].weight.data)


def test_defaults_and_fields():
    fields = {key: value for key, value in FIELDS.items() if key != "damp"}
    modifier = FastCAPruningModifier(**fields, global_sparsity=False)
    assert (modifier.damp, modifier.num_grads, modifier.fisher_block_size) == (1e-7, 1024, 50)
    assert modifier.global_sparsity is False and "global_sparsity" not in str(modifier)
    same = FastCAPruningModifier(**fields)
    assert not any(name in str(same) for name in ("fisher:", "order", "ranking", "weight_update"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mask_type": "filter"}, "mask_type of FastCAP.* must be unstructured, .* found 'filter'"),
        ({"mask_type": "2:4"}, "fisher_block_size .* multiple of 4 with 2:4 masks, found 50"),
        ({"fisher": "outputs"}, "fisher must be .*'inputs' or 'both', found 'outputs'"),
        ({"order": "size"}, "order must be 'natural', 'diagonal' or 'loss', found 'size'"),
        ({"block_size": 8, "order": "loss"}, "block_size .* is for unstructured masks .* found 8"),
        ({"block_size": 8, "global_sparsity": True}, "block_size .* of each parameter by itself"),
        ({"fisher": "inputs", "global_sparsity": True}, "needs fisher: gradients or both"),
        ({"fisher": "inputs", "fisher_samples": "sample"}, "fisher_samples .* fisher is inputs"),
    ],
)
def test_what_does_not_fit_together_is_told(wrong, message):
    with pytest.raises(ValueError, match=message):
        FastCAPruningModifier(**FIELDS, **wrong)


def test_more_dampening_is_reported(dots, feeding, caplog):
    net = dots((4, 8))
    gradients = [[torch.randn(4, 8).double()]]
    fields = {**FIELDS, "damp": 1e-12, "num_grads": 1, "fisher_block_size": 8}
    FastCAPruningModifier(**fields).apply(net, grad_sampler=feeding(gradients))
    assert "was not positive definite with damp 1e-12" in caplog.text
    assert int((net.layers[0].weight == 0).sum()) == 16


def test_what_it_takes_is_said_before_anything_happens(dots, feeding, caplog, monkeypatch):
    net = dots((4, 8), (6, 8))
    fields = {**FIELDS, "num_grads": 1, "fisher_block_size": 8}
    with caplog.at_level("INFO"):
        FastCAPruningModifier(**fields).initialize(net, grad_sampler=feeding(net.gradients(1)))
    # float32: two matrices of 8 x 8, and five copies of 48 weights
    assert "Fisher matrices of 2 parameters take 1.47 kB" in caplog.text
    monkeypatch.setattr(
        "sparseml.pytorch.sparsification.pruning.methods.fisher_passes.free_bytes",
        lambda device: 1000,
    )
    with pytest.raises(RuntimeError, match=r"needs 1\.47 kB on cpu.*fisher_block_size"):
        FastCAPruningModifier(**fields).initialize(net, grad_sampler=feeding(net.gradients(1)))


INPUTS = {**FIELDS, "num_grads": 4, "fisher": "inputs"}


def _sampler(batches):
    loss = torch.nn.functional.mse_loss
    return {"data_loader_builder": lambda: iter(batches), "loss_fn": loss, "progress_bar": False}


def _tokens(mask=None):
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        named = {} if mask is None else {"attention_mask": mask}
        inputs = torch.randn(3, 5, 8, generator=generator)
        yield [inputs + 2 * inputs.roll(1, -1)], named, torch.zeros(3, 5, 8)


class Masked(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(8, 12), torch.nn.Linear(12, 8)

    def forward(self, x, attention_mask=None):
        return self.second(self.first(x).relu())


@pytest.mark.parametrize("update", ["sweep", "joint"])
@pytest.mark.parametrize("mask_type", ["unstructured", "2:4", "1x4"])
def test_inputs_change_outputs_less_than_magnitude_does(mask_type, update):
    net, batches = Masked(), list(_tokens())
    fields = {**INPUTS, "mask_type": mask_type, "weight_update": update}
    magnitude = {key: FIELDS[key] for key in FIELDS if key != "damp"}
    outcomes = [
        FastCAPruningModifier(**fields).outcome(net, grad_sampler=_sampler(batches)),
        GMPruningModifier(**magnitude, mask_type=mask_type).outcome(net),
    ]
    inputs = torch.cat([batch[0][0] for batch in batches]).flatten(0, 1)
    weight = net.first.weight.data
    errors = []
    for outcome in outcomes:
        mask, new = outcome["first.weight"]
        assert int((~mask).sum()) == 48
        changed = (weight * mask if new is None else new) - weight
        errors.append(float((inputs @ changed.T).square().sum()))
    assert errors[0] < 0.9 * errors[1]


def test_tokens_that_the_mask_leaves_out_do_not_count():
    """What is behind the mask may be anything."""
    found = []
    for filler in (0.0, 100.0):
        mask = torch.ones(3, 5, dtype=torch.long)
        mask[0, 2:], mask[2, 4:] = 0, 0
        batches = list(_tokens(mask))
        for batch in batches:
            batch[0][0][mask == 0] = filler
        modifier = FastCAPruningModifier(**INPUTS)
        found.append(modifier.outcome(Masked(), grad_sampler=_sampler(batches)))
    for one, other in zip(*(outcome.values() for outcome in found), strict=True):
        torch.testing.assert_close(one.weight, other.weight)


def test_a_global_ranking_spares_the_layer_that_matters():
    net = Masked()
    with torch.no_grad():
        net.second.weight[2:] *= 1e-2
    for fisher in ("gradients", "both"):
        fields = {**INPUTS, "fisher": fisher, "fisher_block_size": 8, "global_sparsity": True}
        modifier = FastCAPruningModifier(**fields, max_sparsity_per_param=0.8)
        outcome = modifier.outcome(net, grad_sampler=_sampler(list(_tokens())))
        zeros = [int((~mask).sum()) for mask, _ in outcome.values()]
        assert sum(zeros) == 96 and zeros[1] > zeros[0]


class Several(torch.nn.Module):
    """Layers of all kinds."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(9, 8)
        self.up = torch.nn.ConvTranspose1d(8, 8, 2)
        self.idle, self.out = torch.nn.Linear(8, 8), torch.nn.Linear(8, 8)

    def forward(self, x):
        return self.out(self.up(self.embed(x).mT).mT)


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("embed.weight", "inputs of embed.weight: weight of a Embedding is multiplied by no vec"),
        ("up.weight", "up.weight: weight of a ConvTranspose1d .* Use fisher: gradients"),
        ("idle.weight", "cannot look at the inputs of idle.weight: its layer is not run"),
    ],
)
def test_layers_without_vectors_of_inputs_are_refused_by_name(param, message):
    batches = [([torch.arange(6).view(2, 3)], {}, torch.zeros(2, 4, 8))] * 4
    with pytest.raises(RuntimeError, match=message):
        modifier = FastCAPruningModifier(**{**INPUTS, "params": [param]})
        modifier.outcome(Several(), grad_sampler=_sampler(batches))


def test_inputs_that_are_not_finite_and_do_not_fit_the_pattern_are_named():
    batches = list(_tokens())
    batches[1][0][0][0, 0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"of the layer of first\.weight are not all finite"):
        FastCAPruningModifier(**INPUTS).outcome(Masked(), grad_sampler=_sampler(batches))
    fields = {**INPUTS, "mask_type": "2:4", "params": ["weight"]}
    with pytest.raises(ValueError, match=r"'2:4' cannot mask weight: .* multiple of 4, found"):
        FastCAPruningModifier(**fields).outcome(
            torch.nn.Linear(6, 4), grad_sampler=_sampler(batches)
        )
