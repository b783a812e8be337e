"""Models as ONNX files give what they give in torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers
from torch import nn

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")
from sparseml.report.onnx import export_onnx  # noqa: E402

SMALL = {"vocab_size": 40, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
IDS = torch.randint(3, 40, (2, 5), generator=torch.Generator().manual_seed(0))


def _llama() -> nn.Module:
    config = transformers.LlamaConfig(
        num_hidden_layers=1,
        hidden_size=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        **SMALL,
    )
    return transformers.LlamaForCausalLM(config)


@pytest.mark.parametrize(
    ("build", "inputs"),
    [
        (lambda: timm.create_model("test_resnet", num_classes=3), torch.randn(2, 3, 32, 32)),
        (_llama, {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}),
    ],
    ids=["resnet", "llama"],
)
def test_files_equal_models_at_any_size_of_a_batch(build: Any, inputs: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build().train()
    done = export_onnx(model, inputs, tmp_path / "model.onnx")
    assert model.training and done.size == done.path.stat().st_size
    assert done.difference is not None and done.difference < 1e-5 * max(1.0, done.largest)
    session = onnxruntime.InferenceSession(str(done.path))
    named = inputs if isinstance(inputs, dict) else {session.get_inputs()[0].name: inputs}
    given = {name: torch.cat([one, one[:1]]).numpy() for name, one in named.items()}
    found = session.run(None, {one.name: given[one.name] for one in session.get_inputs()})
    assert found[0].shape[0] == 3
