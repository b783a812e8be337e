"""Sizes, sparsity and cost of a model's layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparseml.legacy.analysis.layer_flops import layer_flops
from sparseml.optim import AnalyzedLayerDesc
from sparseml.pytorch.nn import FATReLU, Hardswish, ReLU, Swish
from sparseml.pytorch.optim import ModuleAnalyzer


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.seq = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU())
        self.scale = nn.Parameter(torch.ones(2))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(4, 5)
        self.idle = nn.Linear(2, 2)

    def forward(self, x):
        return {"out": self.fc(self.pool(self.seq(x)).flatten(1))}


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def analyzer(net):
    analyzer = ModuleAnalyzer(net, enabled=True)
    net(torch.ones(2, 3, 9, 9))
    return analyzer


CONV_FLOPS, BN_FLOPS, RELU_FLOPS = 2 * 16 * (2 * 108 + 4), 2 * 2 * 64, 2 * 64
POOL_FLOPS, FC_FLOPS = 2 * 4 * 16, 2 * (2 * 20 + 5)


class TestModuleAnalyzer:
    def test_convolution(self, analyzer):
        assert analyzer.layer_desc("seq.0") == AnalyzedLayerDesc(
            name="seq.0",
            type_="Conv2d",
            params=112,
            prunable_params=108,
            params_dims={"weight": (4, 3, 3, 3), "bias": (4,)},
            prunable_params_dims={"weight": (4, 3, 3, 3)},
            execution_order=2,
            input_shape=((2, 3, 9, 9),),
            output_shape=((2, 4, 4, 4),),
            flops=CONV_FLOPS,
            total_flops=CONV_FLOPS,
            stride=(2, 2),
        )

    def test_weight_of_batch_norm_counts_as_prunable(self, analyzer):
        desc = analyzer.layer_desc("seq.1")
        assert (desc.params, desc.prunable_params, desc.zeroed_params) == (8, 4, 0)
        assert desc.prunable_params_dims == {"weight": (4,)}
        assert desc.flops == BN_FLOPS

    def test_parts_sum_their_layers(self, analyzer):
        part = analyzer.layer_desc("seq")
        assert (part.params, part.prunable_params, part.type_) == (120, 112, "Sequential")
        assert part.flops == CONV_FLOPS + BN_FLOPS + RELU_FLOPS and not part.terminal
        whole = analyzer.layer_desc()
        assert whole.params == sum(p.numel() for p in analyzer.module.parameters())
        assert whole.flops == part.flops + POOL_FLOPS + FC_FLOPS
        assert whole.input_shape == ((2, 3, 9, 9),) and whole.output_shape == ((2, 5),)

    def test_execution_order(self, analyzer):
        names = ["", "seq", "seq.0", "seq.1", "seq.2", "pool", "fc", "idle"]
        orders = [analyzer.layer_desc(name).execution_order for name in names]
        assert orders == [0, 1, 2, 3, 4, 5, 6, -1]
        analyzer.module(torch.ones(2, 3, 9, 9))
        assert analyzer.layer_desc("fc").execution_order == 6

    def test_last_call_and_all_calls(self, net, analyzer):
        net(torch.ones(1, 3, 9, 9))
        fc = analyzer.layer_desc("fc")
        assert (fc.flops, fc.total_flops) == (FC_FLOPS // 2, FC_FLOPS * 3 // 2)
        assert analyzer.layer_desc().total_flops == analyzer.layer_desc().flops * 3

    def test_prunable_layers(self, analyzer):
        assert [desc.name for desc in analyzer.ks_layer_descs()] == ["idle", "seq.0", "fc"]

    def test_prunable_layers_in_the_order_of_execution(self):
        class Backwards(nn.Sequential):
            def forward(self, x):
                for layer in reversed(self):
                    x = layer(x)
                return x

        net = Backwards(nn.Linear(3, 2), nn.ReLU(), nn.Linear(4, 3))
        analyzer = ModuleAnalyzer(net, enabled=True)
        net(torch.ones(1, 4))
        assert [desc.name for desc in analyzer.ks_layer_descs()] == ["2", "0"]

    def test_zeros_of_biases_do_not_count(self):
        net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2), nn.MultiheadAttention(2, 1))
        for name, param in net.named_parameters():
            param.data.fill_(0.0 if "bias" in name else 1.0)
        net[0].weight.data[0] = 0.0
        analyzer = ModuleAnalyzer(net[:2], enabled=True)
        net[:2](torch.ones(2, 3))
        assert analyzer.layer_desc().zeroed_params == 3
        attention = ModuleAnalyzer(net[2], enabled=True)
        net[2](*[torch.ones(1, 1, 2)] * 3)
        assert attention.layer_desc().zeroed_params == 0

    def test_resnet_50(self):
        net = pytest.importorskip("torchvision").models.resnet50(weights=None)
        analyzer = ModuleAnalyzer(net, enabled=True)
        with torch.no_grad():
            for param in net.parameters():
                param[param == 0] += param.ndim > 1  # a drawn weight may be zero
            net.eval()(torch.zeros(1, 3, 32, 32))
        whole = analyzer.layer_desc()
        counts = (whole.params, whole.prunable_params, whole.zeroed_params)
        assert counts == (25557032, 25529472, 0)

    def test_zeros_cost_nothing_unless_asked(self, net):
        with torch.no_grad():
            net.fc.weight[:, :2] = 0.0
        found = {}
        for ignore_zero in (True, False):
            for multiply_adds in (True, False):
                analyzer = ModuleAnalyzer(net, True, ignore_zero, multiply_adds)
                net(torch.ones(2, 3, 9, 9))
                assert analyzer.layer_desc("fc").zeroed_params == 10
                found[ignore_zero, multiply_adds] = analyzer.layer_desc("fc").flops
                analyzer.enabled = False
        assert found == {
            (True, True): 2 * (2 * 10 + 5), (True, False): 2 * (10 + 5),
            (False, True): FC_FLOPS, (False, False): 2 * (20 + 5),
        }  # fmt: skip

    def test_before_the_first_pass(self, net):
        analyzer = ModuleAnalyzer(net)
        net(torch.ones(2, 3, 9, 9))
        assert not analyzer.enabled
        for ask in (analyzer.layer_desc, analyzer.ks_layer_descs):
            with pytest.raises(RuntimeError, match="run a forward pass first"):
                ask()

    def test_disabling_takes_hooks_away(self, net, analyzer):
        analyzer.enabled = False
        net(torch.ones(5, 3, 9, 9))
        assert analyzer.layer_desc("fc").flops == FC_FLOPS
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())

    def test_wrapped_models(self, net):
        analyzer = ModuleAnalyzer(nn.DataParallel(net), enabled=True)
        net(torch.ones(2, 3, 9, 9))
        assert analyzer.layer_desc("module.fc") == analyzer.layer_desc("fc")
        assert analyzer.layer_desc().type_ == "Net"

    def test_unknown_layer(self, analyzer):
        with pytest.raises(AttributeError, match="seq"):
            analyzer.layer_desc("sq.0")


@pytest.mark.parametrize(
    "layer,shape,expected",
    [
        (nn.Linear(6, 4), (3, 6), 3 * (2 * 24 + 4)),
        (nn.Linear(6, 4, bias=False), (6,), 48),
        (nn.Linear(6, 4), (2, 5, 6), 10 * (2 * 24 + 4)),
        (nn.Conv1d(4, 6, 3, groups=2), (2, 4, 7), 2 * 5 * (2 * 36 + 6)),
        (nn.Conv3d(2, 3, 2, bias=False), (1, 2, 4, 4, 4), 27 * 2 * 48),
        (nn.ConvTranspose2d(2, 3, 2, stride=2), (1, 2, 3, 3), 9 * 2 * 24 + 36 * 3),
        (nn.BatchNorm1d(4), (3, 4), 24),
        (nn.LayerNorm(4), (3, 4), 24),
        (nn.ReLU(), (3, 4), 12),
        (nn.GELU(), (3, 4), 12),
        (nn.MaxPool2d(2), (2, 3, 4, 4), 4 * 2 * 3 * 4),
        (nn.MaxPool2d((1, 2)), (2, 3, 4, 4), 2 * 2 * 3 * 8),
        (nn.AvgPool1d(2), (2, 3, 8), 2 * 2 * 3 * 4),
        (nn.AdaptiveAvgPool2d(2), (1, 3, 8, 6), 4 * 3 * 3 * 4),
        (nn.AdaptiveMaxPool1d(3), (1, 2, 7), 3 * 2 * 3),
        (nn.Softmax(dim=-1), (3, 4), 3 * 12 - 3),
        (nn.Softmax2d(), (2, 3, 4, 4), 3 * 96 - 32),
        (nn.Dropout(), (3, 4), 0),
        (nn.Flatten(), (3, 4), 0),
    ],
)
def test_flops(layer, shape, expected):
    source = torch.ones(shape)
    assert layer_flops(layer, (source,), layer(source)) == expected


def test_flops_of_lookups_and_of_nothing():
    embedding, index = nn.Embedding(4, 2), torch.tensor([1, 2])
    assert layer_flops(embedding, (index,), embedding(index)) == 0
    assert layer_flops(nn.ReLU(), (), None) == 0


def test_activations_of_1x_take_an_operation_for_each_value() -> None:
    x = torch.ones(2, 3)
    for layer in (Hardswish(), Swish(), ReLU(), FATReLU()):
        assert layer_flops(layer, (x,), layer(x)) == 6
