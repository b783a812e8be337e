"""Shrinking in one call: what is zero goes, and the outputs stay."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from sparseml.pytorch.shrink import Shrinkage, rounded, shrink
from sparseml.pytorch.units import dependency_groups, hidden_units
from sparseml.pytorch.units.probing import call_model, sample_inputs

from .transformers_zoo import ZOO

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def _prune(model: nn.Module, inputs: Any = None, columns: int = 0, rows: int = 1) -> None:
    """Zero, of each three units, one by the reader's columns and one by the makers' rows."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, param in model.named_parameters():
            if param.ndim == 1 and name.endswith("bias"):
                param.add_(torch.randn_like(param))  # folding has to show
        for units in hidden_units(model, inputs).found:
            for member in units.group.members:
                reads = member.param == f"{units.reader}.weight"
                if not member.follows:
                    gone = member.index % 3 == (columns if reads else rows)
                    model.get_parameter(member.param).movedim(member.dim, 0)[gone] = 0


def _shrunk(model: nn.Module, inputs: Any, **settings: Any) -> tuple[Shrinkage, float]:
    with torch.no_grad():
        before = call_model(model, inputs)
        done = shrink(model, inputs, **settings)
        after = call_model(model, inputs)
    pairs = list(zip(before, after, strict=True))
    largest = max(old.abs().max().item() for old, _ in pairs)
    return done, max((old - new).abs().max().item() for old, new in pairs) / largest


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.parametrize(
    ("attention", "dtype", "most"), [("sdpa", torch.float32, 1e-5), ("eager", torch.float64, 1e-12)]
)
def test_transformers_compute_the_same(
    name: str, attention: str, dtype: torch.dtype, most: float
) -> None:
    model = ZOO[name].build(attention).to(dtype)
    _prune(model)
    inputs = sample_inputs(model)
    done, off = _shrunk(model, inputs)
    assert off < most
    for kind, sizes in (("heads", ZOO[name].heads), ("neurons", ZOO[name].neurons)):
        places = [place for place in done.places if place.kind == kind]
        assert sorted(place.before for place in places) == sorted(sizes)
        # a third is left, and a head at least
        assert all(place.after == max(place.before // 3, 1) for place in places)
    # what is left trains, and nothing more can go
    sum(out.float().sum() for out in call_model(model.train(), inputs)).backward()
    again = shrink(model.eval(), inputs)
    assert again.parameters_after == again.parameters_before == done.parameters_after


def test_only_the_result_is_told_not_what_is_tried_on_copies(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level("INFO", logger="sparseml"):
        done = shrink(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), torch.rand(1, 3, 16))
    assert caplog.messages == [str(done)] and done.parameters_after == done.parameters_before


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit3_small_patch16_224"])
def test_timm_vit_computes_the_same(name: str) -> None:
    model = timm.create_model(name, img_size=32, depth=2).eval()
    images = torch.randn(2, 3, 32, 32)
    _prune(model, images)
    done, off = _shrunk(model, images)
    assert off < 1e-5
    assert Counter(place.kind for place in done.places) == {"heads": 2, "neurons": 2}
    assert done.parameters_after < 0.6 * done.parameters_before


@pytest.mark.parametrize("structure_type", ["filter", "channel"])
def test_convolutional_networks_lose_channels(structure_type: str) -> None:
    model = timm.create_model("resnet18").eval()
    images = torch.randn(2, 3, 64, 64)
    found = dependency_groups(model, images, structure_type)
    with torch.no_grad():
        for group in found.unit_groups(model):
            for member in group.members:
                if not member.follows:
                    gone = member.index % 2 == 1
                    model.get_parameter(member.param).movedim(member.dim, 0)[gone] = 0
    done, off = _shrunk(model, images)
    assert off < 1e-5
    assert {place.kind for place in done.places} == {"channels"}
    assert all(2 * place.after == place.before for place in done.places)


def _mlp(activation: nn.Module, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), activation, nn.Linear(8, 5, bias=bias)).double()


@pytest.mark.parametrize("activation", [nn.GELU(), nn.ReLU(), nn.Sigmoid(), nn.Tanh(), nn.SiLU()])
def test_constants_go_into_the_bias(activation: nn.Module) -> None:
    model, inputs = _mlp(activation), torch.randn(7, 6).double()
    with torch.no_grad():
        model[0].weight[:3] = 0
    bias = model[2].bias.detach().clone()
    constant = model[2].weight[:, :3] @ activation(model[0].bias[:3])
    done, off = _shrunk(model, inputs)
    assert off < 1e-15
    assert [place.after for place in done.places] == [5]
    torch.testing.assert_close(model[2].bias, bias + constant, rtol=0, atol=1e-15)


def test_constants_without_a_bias_to_take_them_stay() -> None:
    inputs = torch.randn(7, 6).double()
    for activation, left in ((nn.Sigmoid(), 8), (nn.Tanh(), 5)):
        model = _mlp(activation, bias=False)
        with torch.no_grad():
            model[0].weight[:3] = 0
            model[0].bias[:3] = 0  # tanh(0) is nothing, sigmoid(0) is not
        done, off = _shrunk(model, inputs)
        assert off < 1e-15
        assert [place.after for place in done.places] == [left]


def test_neurons_that_are_off_only_on_the_sample_stay() -> None:
    model = _mlp(nn.ReLU())
    with torch.no_grad():
        model[0].bias[:4] = -100.0  # dead for these inputs, not for larger ones
    assert shrink(model, torch.rand(7, 6).double()).places[0].after == 8


class _Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(6, 8, bias=False) for _ in range(2))
        self.down = nn.Linear(8, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


@pytest.mark.parametrize("layer", ["gate", "up", "down"])
def test_gated_neurons_go_by_any_of_their_weights(layer: str) -> None:
    model = _Gated()
    with torch.no_grad():
        weight = model.get_submodule(layer).weight
        (weight.T if layer == "down" else weight)[2:4] = 0
    done, off = _shrunk(model, torch.randn(3, 6))
    assert off < 1e-6
    assert [place.after for place in done.places] == [6]
    assert (model.gate.out_features, model.up.out_features, model.down.in_features) == (6, 6, 6)


def test_rounding_keeps_the_first_zero_units() -> None:
    model, inputs = _mlp(nn.GELU()), torch.randn(7, 6).double()
    with torch.no_grad():
        model[2].weight[:, [1, 4, 6]] = 0
    whole = model[0].weight.detach().clone()
    done, off = _shrunk(model, inputs, round_to=6)
    assert off < 1e-15
    assert done.places[0].after == 6
    assert torch.equal(model[0].weight, whole[[0, 1, 2, 3, 5, 7]])


def test_rounding_is_exact() -> None:
    keep = torch.tensor([True, False, False, True, False])
    assert rounded(keep, 1).tolist() == keep.tolist()
    assert rounded(keep, 3).tolist() == [True, True, False, True, False]
    assert rounded(keep, 8).tolist() == [True] * 5
    assert rounded(~keep & False, 1).tolist() == [True, False, False, False, False]


def test_optimizer_follows() -> None:
    model, inputs = _mlp(nn.GELU()), torch.randn(7, 6).double()
    optimizer = torch.optim.Adam(model.parameters())
    model(inputs).sum().backward()
    optimizer.step()
    with torch.no_grad():
        model[2].weight[:, :3] = 0
    shrink(model, inputs, optimizer=optimizer)
    assert optimizer.state[model[0].weight]["exp_avg"].shape == (5, 6)
    model(inputs).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("asserts", [False, True])
def test_what_cannot_be_removed_is_left_with_a_reason(asserts: bool) -> None:
    class FixedSize(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)

        def forward(self, x: Tensor) -> Tensor:
            inner = self.up(x)
            if asserts:  # as the attention of fairseq does
                assert inner.shape[1] == 8, "another width"
            return self.down(inner.reshape(-1, 2, 4).reshape(-1, 8))

    model, inputs = FixedSize(), torch.randn(3, 6)
    with torch.no_grad():
        model.down.weight[:, 1::2] = 0
    whole = copy.deepcopy(model)
    done = shrink(model, inputs)
    assert not done.places
    assert done.skipped["down"].startswith("removal breaks the model: ")
    assert torch.equal(model(inputs), whole(inputs))


def test_result_reads_well() -> None:
    model = _mlp(nn.GELU())
    with torch.no_grad():
        model[2].weight[:, :3] = 0
    assert str(shrink(model, torch.randn(7, 6).double())) == (
        "kept 5 of 8 neurons, 65 of 101 parameters"
    )


def test_wrong_input_is_one_clear_error() -> None:
    with pytest.raises(ValueError, match=r"^give example_inputs: a Sequential does not say what"):
        shrink(_mlp(nn.GELU()))
    with pytest.raises(ValueError, match=r"^round_to must be at least 1, found 0$"):
        shrink(_mlp(nn.GELU()), torch.randn(7, 6).double(), round_to=0)


@pytest.mark.parametrize("positions", [1, 2])
def test_one_position_is_not_taken_for_a_constant(positions: int) -> None:
    class Stepped(nn.Module):
        """Neurons that a fixed gate lets through, and steps that small outputs do not show."""

        def __init__(self) -> None:
            super().__init__()
            self.gate, self.up, self.down = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(self.gate(x).sigmoid() * self.up(x).relu())

    model = Stepped()
    with torch.no_grad():
        model.gate.weight[:3] = 0  # half open, whatever goes in
    done, off = _shrunk(model, torch.randn(positions, 6))
    assert off < 1e-6
    assert [place.after for place in done.places] == [8]
    with torch.no_grad():
        model.up.weight[:2] = 0
    done, off = _shrunk(model, torch.randn(positions, 6))
    assert off < 1e-6
    assert [place.after for place in done.places] == [6]
