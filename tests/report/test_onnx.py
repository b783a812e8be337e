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
from sparseml.report.onnx import ExportError, export_onnx  # noqa: E402

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


class Attention(nn.Module):
    """One head in three dimensions, with a mask that depends on the input."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = x.mean(-1)[:, None, :].expand(-1, 5, -1)
        found: torch.Tensor = nn.functional.scaled_dot_product_attention(
            *self.qkv(x).chunk(3, -1), mask
        )
        return found.sum(1)


class Branching(nn.Module):
    """What it computes depends on values."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


class Unknown(nn.Module):
    """There is no such operator in ONNX."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.airy_ai(x)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (Unknown(), r"does not take aten.special_airy_ai"),
        (Branching(), r"test_onnx.py:\d+: what the model does there depends on values"),
    ],
)
def test_what_cannot_be_written_is_told_in_a_line(
    model: nn.Module, expected: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ExportError, match=expected) as raised:
        export_onnx(model, torch.randn(2, 4), tmp_path / "model.onnx")
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 250
    assert "Unable to find user code" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("build", "inputs"),
    [
        (Attention, torch.randn(2, 5, 4)),
        (lambda: timm.create_model("test_resnet", num_classes=3), torch.randn(2, 3, 32, 32)),
        (_llama, {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}),
    ],
    ids=["attention", "resnet", "llama"],
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
