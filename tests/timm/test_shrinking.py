"""``sparseml train`` with a recipe that takes units out of a ViT of timm."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import sparseml

SCRIPT = "sparse_training.py"
RECIPE = """
stage: 0
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 4}
  - !SRPPruningModifier {compression_rate: 0.4, start_epoch: 0.5, end_epoch: 2.5,
      kd_weight: 0.5, stage: eval(stage)}
"""
SIZES = "img_size=16 patch_size=8 embed_dim=24 depth=2 num_heads=2".split()  # noqa: SIM905


@pytest.fixture
def vit(flags: list[Any], call: Any, workplace: Path) -> list[Any]:
    """Flags to train a small ViT."""
    (workplace / "srp.yaml").write_text(RECIPE)
    model = ["--model", "vit_tiny_patch16_224", "--no-pretrained", "--num-classes", 3]
    model += ["--input-size", 3, 16, 16]
    own = [*model, "--model-kwargs", *SIZES, "-b", 8, "--lr", 0.01, "--warmup-epochs", 0]
    return [*flags[2:], *own, "--opt", "adamw", "--sparseml-recipe", "srp.yaml", "--epochs", 4]


def test_it_resumes_and_ends_as_a_small_model_that_loads(vit: list[Any], call: Any) -> None:
    call(SCRIPT, *vit, "--checkpoint-freq", 1)
    whole = load_file("out/run/model.safetensors")
    folder = Path("out/run/checkpoints")
    name = "vit_tiny_patch16_224"
    for epoch in range(3):
        shutil.copy(folder / f"{name}_epoch={epoch}.pth", folder / f"{name}_last.pth")
        call(SCRIPT, *vit, "--resume", "out/run")
        resumed = load_file("out/run/model.safetensors")
        assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    variants = json.loads(Path("out/run/result.json").read_text())["variants"]
    assert variants["shrunk"]["parameters"] < 0.45 * variants["dense"]["parameters"]
    loaded = sparseml.load_shrunk("out/run/shrunk")
    assert all(torch.equal(value, whole[key]) for key, value in loaded.state_dict().items())
    # and it can be trained on: all of it is gone already
    more = ["--checkpoint", "out/run/shrunk", "--experiment", "more", "--recipe-args", "stage=2"]
    call(SCRIPT, *vit, *more)
    again = json.loads(Path("out/more/result.json").read_text())["variants"]
    assert again["shrunk"]["parameters"] == variants["shrunk"]["parameters"]
    deeper = [size.replace("depth=2", "depth=3") for size in SIZES]
    more += ["--model-kwargs", *deeper, "--overwrite"]
    done = call(SCRIPT, *vit, *more, fails=True)
    assert "out/run/shrunk holds another model than the one to fill" in done.error
    assert "it lacks 'blocks.2.norm1.weight'" in done.error


def test_what_cannot_follow_is_refused(vit: list[Any], call: Any) -> None:
    done = call(SCRIPT, *vit, "--model-ema", fails=True)
    assert "a moving average of its weights cannot follow: leave out --model-ema" in done.error
    done = call(
        SCRIPT, *vit, "--model", "resnet18", "--model-kwargs", "zero_init_last=1", fails=True
    )
    assert "srp.yaml: SRPPruningModifier finds nothing to remove in stage 0" in done.error
    assert "Traceback" not in done.error
