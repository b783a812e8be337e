"""Descriptions of a model's layers."""

from __future__ import annotations

import json

import pytest

from sparseml.optim import AnalyzedLayerDesc

CONV = {
    "name": "seq.conv", "type_": "Conv2d", "params": 50, "zeroed_params": 5, "prunable_params": 48,
    "params_dims": {"weight": (4, 3, 2, 2), "bias": (2,)},
    "prunable_params_dims": {"weight": (4, 3, 2, 2)}, "execution_order": 3,
    "input_shape": ((1, 3, 8, 8),), "output_shape": ((1, 4, 7, 7),), "flops": 10,
    "total_flops": 20, "stride": (1, 1),
}  # fmt: skip


def test_defaults_describe_a_part_made_of_layers():
    desc = AnalyzedLayerDesc("seq", "Sequential")
    assert not desc.terminal and not desc.prunable and desc.execution_order == -1
    assert (desc.params, desc.flops, desc.total_flops, desc.stride) == (0, 0, 0, None)


def test_a_layer():
    desc = AnalyzedLayerDesc(**CONV)
    assert desc.terminal and desc.prunable
    values = desc.dict()
    assert values["type"] == "Conv2d" and values["params_dims"]["bias"] == [2]
    assert json.loads(json.dumps(values)) == values
    assert AnalyzedLayerDesc.from_dict(values) == desc


def test_files(tmp_path):
    descs = [AnalyzedLayerDesc(**CONV), AnalyzedLayerDesc("", "Net", stride=2)]
    path = str(tmp_path / "deep" / "layers.json")
    AnalyzedLayerDesc.save_descs(descs, path)
    assert AnalyzedLayerDesc.load_descs(path) == descs
    with pytest.raises(FileNotFoundError):
        AnalyzedLayerDesc.load_descs(str(tmp_path / "none.json"))


def test_merging_adds_counts_to_the_original():
    orig = AnalyzedLayerDesc("seq", "Sequential", params=1)
    merged = AnalyzedLayerDesc.merge_descs(orig, [AnalyzedLayerDesc(**CONV)] * 2)
    assert (merged.name, merged.type_, merged.terminal) == ("seq", "Sequential", False)
    assert (merged.params, merged.zeroed_params, merged.prunable_params) == (101, 10, 96)
    assert (merged.flops, merged.total_flops) == (20, 40) and orig.params == 1


@pytest.mark.parametrize("values", [{"name": "a"}, {"name": "a", "type": "B", "parms": 3}])
def test_other_fields(values):
    with pytest.raises(ValueError, match="unknown or missing fields"):
        AnalyzedLayerDesc.from_dict(values)
