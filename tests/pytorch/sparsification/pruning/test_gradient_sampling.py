from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from torch import nn

from sparseml.pytorch.sparsification.pruning.sampling.gradient_sampling import GradientSampler
from sparseml.pytorch.utils.params import iter_layer_params


def weights_of(net):
    return [found for found in iter_layer_params(net) if found.param_name == "weight"]


def quiet(batches, loss=nn.functional.mse_loss, **options):
    return {
        "data_loader_builder": lambda: batches, "loss_fn": loss, "progress_bar": False, **options
    }  # fmt: skip


def batches(count=6, size=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        ([torch.randn(size, 8, generator=generator)], {}, torch.randn(size, 4, generator=generator))
        for _ in range(count)
    ]


def taken(sampler, net, count, index=0):
    found = weights_of(net)
    grads = torch.cat([one.of(index).clone() for one in sampler.gradients(net, found, count)])
    sampler.require_sound()
    return grads


def expected(net, data, index=0):
    grads = []
    for args, _, target in data:
        loss = nn.functional.mse_loss(net(*args), target)
        grads.append(torch.autograd.grad(loss, weights_of(net)[index].param)[0])
    return torch.stack(grads)


def test_goes_on_where_it_stopped_and_repeats(linear_net, caplog):
    data = batches(5)
    sampler = GradientSampler(quiet(data), {}, "Owner")
    first, second = taken(sampler, linear_net, 2), taken(sampler, linear_net, 2)
    torch.testing.assert_close(torch.cat([first, second]), expected(linear_net, data[:4]))
    assert not caplog.text
    third = taken(sampler, linear_net, 7)
    torch.testing.assert_close(third, expected(linear_net, [*data[4:], *data, data[0]]))
    assert caplog.text.count("Owner: the data of the grad_sampler ended after 5 batches") == 1


def test_a_generator_is_built_anew_when_it_ends(linear_net):
    data = batches(3)
    sampler = GradientSampler({**quiet(None), "data_loader_builder": lambda: iter(data)}, {}, "O")
    wanted = expected(linear_net, [*data, *data[:2]])
    torch.testing.assert_close(taken(sampler, linear_net, 5), wanted)


def test_leaves_no_trace():
    net = nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 4))
    net.train()
    net[1].eval()
    net(torch.randn(4, 8)).sum().backward()
    before = [param.grad.clone() for param in net.parameters()]
    held = [param.grad for param in net.parameters()]
    buffers = [buffer.clone() for buffer in net.buffers()]
    modes = [part.training for part in net.modules()]

    class Noisy:
        def __iter__(self):
            for args, kwargs, target in batches():
                torch.rand(3), np.random.rand(3), random.random()  # noqa: NPY002
                yield args, kwargs, target

    state = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    taken(GradientSampler(quiet(Noisy()), {}, "Owner"), net, 4)
    assert torch.equal(torch.get_rng_state(), state[0]) and random.getstate() == state[1]
    assert np.random.get_state()[1].tolist() == state[2]  # noqa: NPY002
    assert [part.training for part in net.modules()] == modes
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), buffers, strict=True))
    for param, grad, value in zip(net.parameters(), held, before, strict=True):
        assert param.grad is grad and torch.equal(grad, value)


def test_puts_everything_back_after_an_error(linear_net):
    linear_net.train()

    def fail(output, target):
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        taken(GradientSampler(quiet(batches(), fail), {}, "Owner"), linear_net, 2)
    assert all(part.training for part in linear_net.modules())


class Shuffled:
    """A loader that shuffles by the global generator."""

    def __iter__(self):
        data = batches(8)
        return iter([data[i] for i in torch.randperm(8)])


class Stateful(Shuffled):
    """One that decides by the number of the round instead."""

    def __init__(self):
        self.rounds = 0

    def __iter__(self):
        self.rounds += 1
        return iter(batches(8, seed=self.rounds))

    def state_dict(self):
        return {"rounds": self.rounds}

    def load_state_dict(self, state):
        self.rounds = state["rounds"]


@pytest.mark.parametrize("loader", [Shuffled, Stateful])
def test_a_resumed_run_samples_the_same(linear_net, loader, tmp_path):
    sampler = GradientSampler(quiet(loader()), {}, "Owner")
    torch.manual_seed(1)
    for _ in range(3):
        taken(sampler, linear_net, 5)
    torch.save(sampler.progress_state(), tmp_path / "state.pt")
    wanted = taken(sampler, linear_net, 6)
    torch.manual_seed(7)
    again = GradientSampler(quiet(loader()), {}, "Owner")
    again.load_progress_state(torch.load(tmp_path / "state.pt", weights_only=True))
    torch.testing.assert_close(taken(again, linear_net, 6), wanted)


@pytest.mark.parametrize(
    "builder",
    [
        lambda **kwargs: kwargs["data"],
        lambda kwargs: kwargs["data"],
        lambda data, other=1: data,
        lambda kwargs=None: kwargs["data"],
        lambda options, /: options["data"],
        lambda *args, **kwargs: kwargs["data"],
    ],
)
def test_calls_the_builder_as_its_signature_asks_for(linear_net, builder):
    data = batches()
    given = {"data_loader_builder": builder, "loss_function": nn.functional.mse_loss}
    sampler = GradientSampler({**given, "progress_bar": False}, {"data": data}, "Owner")
    torch.testing.assert_close(taken(sampler, linear_net, 1), expected(linear_net, data[:1]))


@pytest.mark.parametrize("builder", [lambda: batches(), lambda a=1: batches(), lambda o: batches()])
def test_calls_the_builder_without_arguments(linear_net, builder):
    sampler = GradientSampler({**quiet(None), "data_loader_builder": builder}, {}, "Owner")
    assert len(taken(sampler, linear_net, 2)) == 2


def test_skips_what_is_not_finite_and_gives_up_beyond_a_tenth(linear_net, caplog):
    data = batches(12)
    data[3][0][0][0, 0] = float("nan")
    sampler = GradientSampler(quiet(data), {}, "Owner")
    wanted = expected(linear_net, [*data[:3], *data[4:11]])
    torch.testing.assert_close(taken(sampler, linear_net, 10), wanted)
    assert "Owner: skipped 1 batches" in caplog.text
    data[5][0][0][0, 0] = float("inf")
    sampler = GradientSampler(quiet(data), {}, "Owner")
    with pytest.raises(RuntimeError, match="2 batches gave gradients that are not finite"):
        taken(sampler, linear_net, 10)


def test_names_a_parameter_without_gradient(linear_net):
    linear_net[0].weight.requires_grad_(False)
    with pytest.raises(RuntimeError, match=r"Owner prunes 0\.weight .* requires_grad is False"):
        taken(GradientSampler(quiet(batches()), {}, "Owner"), linear_net, 1)
    linear_net[0].weight.requires_grad_(True)
    sampler = GradientSampler(quiet(batches(), lambda out, _: linear_net[2].bias.sum()), {}, "Own")
    with pytest.raises(RuntimeError, match=r"0\.weight .* does not depend on it"):
        taken(sampler, linear_net, 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "Owner prunes by gradients: give grad_sampler"),
        ({"data_loader_builder": list}, "its loss_function must be callable, found None"),
        ({"loss_fn": print}, "its data_loader_builder must be callable"),
        ({"data_loader_bilder": list, "loss_fn": print}, "data_loader_bilder.*data_loader_builder"),
    ],
)
def test_a_sampler_that_lacks_something(given, message):
    with pytest.raises(RuntimeError, match=message):
        GradientSampler(given, {}, "Owner")


def test_a_loader_without_batches(linear_net):
    with pytest.raises(RuntimeError, match="has no batches"):
        taken(GradientSampler(quiet([]), {}, "Owner"), linear_net, 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision(linear_net, dtype):
    data = batches(3)
    seen = []

    def loss(output, target):
        seen.append(output.dtype)
        return nn.functional.mse_loss(output.float(), target)

    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        plain = taken(GradientSampler(quiet(data, loss), {}, "Owner"), linear_net, 3)
    found = taken(GradientSampler(quiet(data, loss, autocast=dtype), {}, "O"), linear_net, 3)
    assert seen == [torch.float32] * 3 + [dtype] * 3
    torch.testing.assert_close(plain, expected(linear_net, data))
    torch.testing.assert_close(found, plain, rtol=0.05, atol=0.02)


class TestEverySample:
    @pytest.fixture
    def net(self):
        return nn.Sequential(
            nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(24, 3),
        )

    def test_equals_batches_of_one(self, net):
        images, labels = torch.randn(7, 4, 4, 4), torch.randint(0, 3, (7,))
        found = [one for one in weights_of(net) if one.layer_name in ("0", "4")]
        loss = nn.functional.cross_entropy
        whole = quiet([([images[:4]], {}, labels[:4]), ([images[4:]], {}, labels[4:])], loss)
        single = [([images[i : i + 1]], {}, labels[i : i + 1]) for i in range(7)]
        each = GradientSampler(whole, {}, "Owner", per_sample=True)
        alone = GradientSampler(quiet(single, loss), {}, "Owner")
        for index in (0, 1):
            for count in (7, 6):
                grads = [
                    torch.cat([one.of(index) for one in sampler.gradients(net, found, count)])
                    for sampler in (each, alone)
                ]
                assert len(grads[0]) == count
                if count == 7:
                    torch.testing.assert_close(*grads)
            each = GradientSampler(whole, {}, "Owner", per_sample=True)
            alone = GradientSampler(quiet(single, loss), {}, "Owner")

    def test_refuses_what_it_cannot_watch(self, net):
        sampler = GradientSampler(quiet(batches()), {}, "Owner", per_sample=True)
        with pytest.raises(
            RuntimeError, match=r"1\.weight .* BatchNorm2d .* fisher_samples: batch"
        ):
            list(sampler.gradients(net, weights_of(net), 2))

    def test_refuses_layers_that_run_twice_or_never(self):
        layer = nn.Linear(8, 8)
        found = weights_of(nn.Sequential(layer))
        data = [([torch.randn(2, 8)], {}, torch.zeros(2, 8))]
        for net, reason in (
            (nn.Sequential(layer, layer), "runs more than once"),
            (nn.Sequential(nn.Linear(8, 8)), "is not run"),
            (nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (1, 16)), nn.Unflatten(1, (2, 8)), layer),
             "does not begin with the 2 samples"),
        ):  # fmt: skip
            sampler = GradientSampler(quiet(data), {}, "Owner", per_sample=True)
            with pytest.raises(RuntimeError, match=reason):
                list(sampler.gradients(net, found, 2))

    @pytest.mark.parametrize("first", [True, False])
    def test_as_many_tokens_as_samples_are_no_samples(self, first, caplog):
        class Tokens(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(8, 4)

            def forward(self, tokens):
                return self.layer(tokens if first else tokens.transpose(0, 1)).sum()

        net, data = Tokens(), [([torch.randn(3, 3, 8)], {}, torch.zeros(()))] * 2
        loose = GradientSampler(quiet(data), {}, "Owner", per_sample=None)
        strict = GradientSampler(quiet(data), {}, "Owner", per_sample=True)
        counts = [one.count for one in loose.gradients(net, weights_of(net), 2)]
        assert counts == ([2] if first else [1, 1])
        if first:
            assert len(list(strict.gradients(net, weights_of(net), 2))) == 1
            return
        assert caplog.text.count("one gradient per batch is taken") == 1
        with pytest.raises(RuntimeError, match=r"\(3, 2, 8\) does not begin with the 2 samples"):
            list(strict.gradients(net, weights_of(net), 2))
