from __future__ import annotations

import pytest
import torch
from torch import nn

from sparseml.pytorch.utils import NamedLayerParam, get_named_layers_and_params_by_regex
from sparseml.pytorch.utils.params import iter_layer_params


def _names(module: nn.Module, entries: list[str], strict: bool = True) -> list[str]:
    return [found.name for found in get_named_layers_and_params_by_regex(module, entries, strict)]


@pytest.fixture
def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Sequential(nn.Linear(3, 1)))


def test_result_tuple(model: nn.Sequential) -> None:
    (found,) = get_named_layers_and_params_by_regex(model, ["2.0.weight"])
    assert isinstance(found, NamedLayerParam)
    assert found == ("2.0", model[2][0], "weight", model[2][0].weight)


def test_order_is_the_models_and_double_matches_count_once(model: nn.Sequential) -> None:
    entries = ["2.0.weight", "re:.*weight", "re:0", "0.weight"]
    assert _names(model, entries) == ["0.weight", "0.bias", "2.0.weight"]


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrappers_do_not_matter(model: nn.Sequential, wrap: object) -> None:
    wrapped = wrap(model)  # type: ignore[operator]
    assert _names(wrapped, [r"re:2\.0", "module.0.bias"]) == ["0.bias", "2.0.weight", "2.0.bias"]


def test_parameters_of_the_root() -> None:
    assert _names(nn.Linear(2, 2), ["re:.*weight", "bias"]) == ["weight", "bias"]


def test_tied_weights_are_one_parameter() -> None:
    model = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False))
    model[1].weight = model[0].weight
    assert _names(model, ["re:.*weight"]) == ["0.weight"]
    assert _names(model, ["1.weight"]) == ["1.weight"]
    assert _names(model, ["1.weight", "0.weight"]) == ["0.weight"]
    assert len(list(iter_layer_params(model))) == 2


def test_entry_without_match(model: nn.Sequential) -> None:
    with pytest.raises(RuntimeError) as caught:
        _names(model, ["0.weight", "0.weigth", r"re:.*\.gamma"])
    text = str(caught.value)
    assert "name '0.weigth' matches no parameter; did you mean '0.weight'" in text
    assert r"pattern 're:.*\.gamma' matches no parameter" in text
    assert "tried on: 0.weight, 0.bias, 2.0.weight, 2.0.bias" in text
    assert _names(model, ["0.weigth", r"re:.*\.gamma"], strict=False) == []


def test_long_lists_of_names_are_cut() -> None:
    model = nn.Sequential(*[nn.Linear(1, 1) for _ in range(20)])
    with pytest.raises(RuntimeError, match="and 30 more"):
        _names(model, ["nothing"])


def test_module_without_parameters() -> None:
    with pytest.raises(RuntimeError, match="no parameters"):
        _names(nn.ReLU(), ["re:.*"])
    assert _names(nn.ReLU(), ["re:.*"], strict=False) == []
    assert _names(nn.ReLU(), []) == []


def test_bad_entries(model: nn.Sequential) -> None:
    with pytest.raises(ValueError, match="bad regular expression '\\['"):
        _names(model, ["re:["])
    with pytest.raises(ValueError, match="must be a list of names"):
        get_named_layers_and_params_by_regex(model, "re:.*")


def test_quant_wrapper_answers_to_the_plain_name() -> None:
    class QuantWrapper(nn.Module):
        def __init__(self, module: nn.Module):
            super().__init__()
            self.quant = nn.Identity()
            self.module = module

    model = nn.Sequential(QuantWrapper(nn.Linear(2, 2)))
    assert _names(model, ["0.weight"]) == ["0.module.weight"]
    assert _names(model, ["0.module.bias"]) == ["0.module.bias"]
    assert _names(QuantWrapper(nn.Linear(2, 2)), ["weight"]) == ["module.weight"]


def test_meta_frozen_and_half_parameters() -> None:
    model = nn.Linear(2, 2, device="meta", dtype=torch.float16).requires_grad_(False)
    assert _names(model, ["weight"]) == ["weight"]
