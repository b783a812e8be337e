"""Models that others wrote, without some of their layers."""

from __future__ import annotations

import copy
import pickle
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from sparseml.pytorch.nn import Identity
from sparseml.pytorch.sparsification import LayerPruningModifier

transformers = pytest.importorskip("transformers")
IDS = torch.arange(14).view(2, 7)
BOTH = {"input_ids": IDS, "decoder_input_ids": IDS}
_SIZES = {"num_hidden_layers": 3, "hidden_size": 16, "num_attention_heads": 2}
_TEXT = {**_SIZES, "vocab_size": 50, "intermediate_size": 32}
_T5 = {"vocab_size": 50, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 3, "num_heads": 2}
_GPT2 = {"vocab_size": 50, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32}
_GPT2 |= {"bos_token_id": 0, "eos_token_id": 1, "initializer_range": 1.0}


def _distilbert() -> nn.Module:
    sizes = {"vocab_size": 50, "dim": 16, "n_layers": 3, "n_heads": 2, "hidden_dim": 32}
    return transformers.DistilBertModel(transformers.DistilBertConfig(**sizes))


def _vit() -> nn.Module:
    sizes = {**_SIZES, "intermediate_size": 32, "image_size": 32, "patch_size": 16}
    return transformers.ViTModel(transformers.ViTConfig(**sizes))


def _llama() -> nn.Module:
    config = transformers.LlamaConfig(**_TEXT, initializer_range=1.0)
    return transformers.LlamaForCausalLM(config)


MODELS: dict[str, tuple[Callable[[], nn.Module], list[str], dict[str, Any]]] = {
    "bert": (
        lambda: transformers.BertModel(transformers.BertConfig(**_TEXT)),
        ["encoder.layer"],
        {"input_ids": IDS},
    ),
    "roberta": (
        lambda: transformers.RobertaModel(transformers.RobertaConfig(**_TEXT)),
        ["encoder.layer"],
        {"input_ids": IDS},
    ),
    "distilbert": (_distilbert, ["transformer.layer"], {"input_ids": IDS}),
    "gpt2": (
        lambda: transformers.GPT2LMHeadModel(transformers.GPT2Config(**_GPT2)),
        ["transformer.h"],
        {"input_ids": IDS},
    ),
    "vit": (_vit, ["layers"], {"pixel_values": torch.ones(2, 3, 32, 32)}),
    "t5": (
        lambda: transformers.T5Model(transformers.T5Config(**_T5)),
        ["encoder.block", "decoder.block"],
        BOTH,
    ),
    "llama": (_llama, ["model.layers"], {"input_ids": IDS}),
}


def _without(model: nn.Module, lists: list[str], number: int) -> nn.Module:
    """Return a copy whose lists of layers are really shorter."""
    shorter = copy.deepcopy(model)
    for name in lists:
        layers = list(shorter.get_submodule(name))
        del layers[number]
        shorter.set_submodule(name, nn.ModuleList(layers))
    return shorter


@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.parametrize("name", MODELS)
def test_transformers_give_what_they_give_with_a_shorter_list(name: str, number: int) -> None:
    torch.manual_seed(0)
    make, lists, inputs = MODELS[name]
    model = make().eval()
    shorter = _without(model, lists, number)
    LayerPruningModifier([f"{one}.{number}" for one in lists]).initialize(model)
    for extra in ({}, {"output_hidden_states": True}, {"return_dict": False}):
        expected, found = shorter(**inputs, **extra), model(**inputs, **extra)
        assert torch.equal(found[0], expected[0])
        if isinstance(found, dict):
            assert {k: len(v) for k, v in found.items()} == {k: len(v) for k, v in expected.items()}
    model.train()(**inputs)[0].float().square().mean().backward()
    shorter.train()(**inputs)[0].float().square().mean().backward()
    trained = {n for n, p in model.named_parameters() if p.grad is not None}
    assert len(trained) == sum(p.grad is not None for p in shorter.parameters()) > 10


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("name", ["gpt2", "llama"])
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.filterwarnings("ignore:.*past_key_values")
def test_a_cache_knows_how_far_it_is_without_a_layer(name: str, number: int, static: bool) -> None:
    torch.manual_seed(0)
    make, (layers,), _ = MODELS[name]
    model = make().eval()
    LayerPruningModifier([f"{layers}.{number}"]).initialize(model)
    cache = transformers.DynamicCache()
    if static:
        cache = transformers.StaticCache(config=model.config, max_cache_len=16)
    steps = [
        model(input_ids=IDS[:, i : i + 1], past_key_values=cache, use_cache=True).logits
        for i in range(7)
    ]
    expected = model(input_ids=IDS).logits  # up to 50
    torch.testing.assert_close(torch.cat(steps, 1), expected, atol=1e-3, rtol=0.0)


def test_a_layer_that_is_back_works_as_before() -> None:
    make, _, inputs = MODELS["bert"]
    model = make().eval()
    before = model(**inputs)[0]
    modifier = LayerPruningModifier(["encoder.layer.1"], start_epoch=0.0, end_epoch=1.0)
    modifier.initialize(model)
    assert not torch.equal(model(**inputs)[0], before)
    modifier.finalize(model)
    assert torch.equal(model(**inputs)[0], before)


def test_timm_and_torchvision() -> None:
    timm, torchvision = pytest.importorskip("timm"), pytest.importorskip("torchvision")
    images = torch.randn(2, 3, 32, 32)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=3).eval()
    shorter = copy.deepcopy(vit)
    shorter.blocks = nn.Sequential(vit.blocks[0], vit.blocks[2])
    LayerPruningModifier(["blocks.1"]).initialize(vit)
    assert torch.equal(vit(images), shorter(images))
    resnet = torchvision.models.resnet18(num_classes=3)
    LayerPruningModifier(["layer1.1", "layer4.1"]).initialize(resnet)
    resnet(images).sum().backward()
    LayerPruningModifier(["layer2.0"]).initialize(resnet)
    message = r"layer2\.0 \(BasicBlock\) cannot be taken out: it turns the shape \(2, 64, 8, 8\)"
    with pytest.raises(ValueError, match=message):
        resnet(images)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.filterwarnings("ignore:.*nested tensor", "ignore:enable_nested_tensor")
def test_transformers_of_torch(batch_first: bool) -> None:
    model = nn.Transformer(16, 2, 3, 3, 32, batch_first=batch_first)
    names = ["encoder.layers.0", "decoder.layers.2"]
    LayerPruningModifier(names).initialize(model)
    for mode in (True, False):
        model.train(mode)
        given = torch.randn(5, 4, 16)
        mask = torch.zeros(*(5, 4) if batch_first else (4, 5), dtype=torch.bool)
        model(given, given, src_key_padding_mask=mask).sum().backward()


Pair = namedtuple("Pair", "values weights")


class _Giving(nn.Module):
    def __init__(self, form: Callable[..., Any]) -> None:
        super().__init__()
        self.form, self.linear, self.kind = form, nn.Linear(4, 4), "full"

    def forward(self, hidden: torch.Tensor, bias: Any = None, flag: bool = False) -> Any:
        return self.form(self.linear(hidden), bias, flag)


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        (lambda x, bias, flag: x, lambda x, bias: x),
        (lambda x, bias, flag: (x,), lambda x, bias: (x,)),
        (lambda x, bias, flag: [x, bias], lambda x, bias: [x, bias]),
        (lambda x, bias, flag: Pair(x, x + 1), lambda x, bias: Pair(x, None)),
        (lambda x, bias, flag: {"x": x, "b": bias}, lambda x, bias: {"x": x, "b": bias}),
        (lambda x, bias, flag: (x, x) if flag else x, lambda x, bias: x),
        # not to be asked without values, so it is taken for the plain input
        (lambda x, bias, flag: x if x.sum() > 0 else -x, lambda x, bias: x),
    ],
)
def test_the_form_is_that_of_the_layer(form: Any, wanted: Any) -> None:
    model = nn.ModuleDict({"a": _Giving(form)})
    LayerPruningModifier(["a"]).initialize(model)
    hidden, bias = torch.randn(2, 4), torch.randn(4)
    for found in (model["a"](hidden, bias), model["a"](bias=bias, hidden=hidden)):
        expected = wanted(hidden, bias)
        assert type(found) is type(expected)
        many = isinstance(expected, (tuple, list))
        pairs = zip(found, expected, strict=True) if many else [(found, expected)]
        assert isinstance(expected, dict) or all(one is other for one, other in pairs)
        if isinstance(expected, dict):
            assert found["x"] is hidden and found["b"] is bias


def test_a_layer_that_looks_at_the_values_of_masks() -> None:
    torch.manual_seed(0)
    config = transformers.LongformerConfig(**_TEXT, attention_window=4, pad_token_id=49)
    model = transformers.LongformerModel(config).eval()
    shorter = _without(model, ["encoder.layer"], 1)
    LayerPruningModifier(["encoder.layer.1"]).initialize(model)
    assert torch.equal(model(IDS).last_hidden_state, shorter(IDS).last_hidden_state)


def test_a_layer_that_cannot_be_asked_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(nn.Module):
        def forward(self, inputs: torch.Tensor) -> tuple[torch.Tensor, None]:
            raise OSError("no camera")

    model = nn.Sequential(Broken(), nn.ReLU())
    LayerPruningModifier(["0"]).initialize(model)
    inputs = torch.ones(1, 2)
    assert torch.equal(model(inputs), inputs) and torch.equal(model(inputs), inputs)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("the layer 0 (Broken)") and message.endswith("no camera")


def test_another_call_may_have_another_form() -> None:
    layer = _Giving(lambda x, bias, flag: (x, x + 1) if flag else x)
    model = nn.ModuleDict({"a": layer})
    LayerPruningModifier(["a"]).initialize(model)
    x = torch.randn(2, 4)
    assert model["a"](x, flag=True) == (x, None)
    assert model["a"](x, flag=False) is x


def test_the_model_is_as_small_as_without_and_travels() -> None:
    layer = _Giving(lambda x, bias, flag: (x,))
    seen: list[Any] = []
    layer.linear.register_forward_hook(lambda *args: seen.append(args))
    model = nn.Sequential(nn.Linear(4, 4), layer)
    LayerPruningModifier(["1"]).initialize(model)
    assert isinstance(model[1], Identity) and model[1].kind == "full"
    assert list(model.state_dict()) == ["0.weight", "0.bias"]
    assert "_Giving" in repr(model[1])
    x, generator = torch.randn(2, 4), torch.get_rng_state()
    model(x)
    assert torch.equal(torch.get_rng_state(), generator)
    for one in (model, copy.deepcopy(model)):
        assert torch.equal(one(x)[0], model[0](x))
    half = copy.deepcopy(model).to(torch.bfloat16)
    assert half(x.bfloat16())[0].dtype == torch.bfloat16
    assert not seen and layer.linear.weight.grad is None
    with pytest.raises(AttributeError, match="nothing"):
        _ = model[1].nothing


def test_pickled_whole() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.MultiheadAttention(4, 2))
    LayerPruningModifier(["1"]).initialize(model)
    again = pickle.loads(pickle.dumps(model))  # noqa: S301
    x = torch.randn(3, 1, 4)
    assert again[1](x, x, x)[0] is x and again[1](x, x, x)[1] is None


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_compiled_exported_and_traced(called: bool) -> None:
    make, _, inputs = MODELS["bert"]
    model = make().eval()
    LayerPruningModifier(["encoder.layer.1"]).initialize(model)
    ids = inputs["input_ids"]
    if called:
        model(ids)
    compiled = torch.compile(model, backend="eager", fullgraph=called)(ids)
    exported = torch.export.export(model, (ids,), strict=False).module()(ids)
    assert torch.equal(compiled[0], model(ids)[0]) and torch.equal(exported[0], model(ids)[0])


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_traced_before_the_first_call() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4)))
    LayerPruningModifier(["1"]).initialize(model)
    x = torch.randn(2, 4)
    traced = torch.jit.trace(model, (x,))
    assert torch.equal(traced(x), model(x)) and str(traced.inlined_graph).count("aten") == 1
