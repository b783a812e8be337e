"""What is said of a run before it begins."""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

import pytest
import torch
from torch import nn

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.pruning.sampling.gradient_sampling import GradientSampler
from sparseml.pytorch.sparsification.pruning.settings.processor import tell_without_numba
from sparseml.pytorch.utils.batch_streams import make_grad_sampler
from sparseml.pytorch.utils.params import NamedLayerParam
from sparseml.run import Processes
from sparseml.run.fitting import fast_bfloat16, foretell, timed_sampler
from sparseml.run.settings import RunSettings

CAP = """
modifiers:
  - !{kind}PruningModifier
      params: ['re:.*weight']
      init_sparsity: 0.5
      final_sparsity: 0.5
      start_epoch: 0
      end_epoch: 2
      update_frequency: 1
      {fields}
"""


class Lent:
    """What a forecast reads of a session."""

    where = Processes()
    model = nn.Linear(4, 2)
    gradient_batch, training_size = 128, 65_536


def _manager(kind: str, fields: str = "num_grads: 4096") -> Any:
    return ScheduledModifierManager.from_yaml(CAP.format(kind=kind, fields=fields))


def _run(**settings: Any) -> RunSettings:
    return RunSettings(sparseml_recipe="recipe.yaml", **settings)


@pytest.mark.parametrize(
    ("kind", "fields", "batches", "told"),
    [
        ("CA", "num_grads: 4096", 4096, "4,096 batches of 128, 524,288 inputs, 8 passes"),
        ("GWProd", "num_grads: 64", 64, "64 batches of 128, 8,192 inputs, 0.125 passes"),
        (
            "OBS",
            "num_grads: 300\n      fisher_samples: sample\n      num_recomputations: 3",
            3,
            "3 batches of 128, 384 inputs, 0.00586 passes over the training data, 3 times",
        ),
        ("MFAC", "num_grads: {0.0: 64, 0.5: 256}", 256, "256 batches of 128, 32,768 inputs"),
    ],
)
def test_how_much_is_sampled(
    kind: str, fields: str, batches: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert foretell(_manager(kind, fields), Lent(), _run()) == batches
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("kind", "fields"), [("Magnitude", ""), ("MFAC", "use_gradient_buffering: True")]
)
def test_nothing_is_said_of_what_samples_nothing(
    kind: str, fields: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert foretell(_manager(kind, fields), Lent(), _run()) == 0
    assert capsys.readouterr().out == ""


def test_a_gradual_run_samples_at_each_update(capsys: pytest.CaptureFixture[str]) -> None:
    foretell(_manager("CA"), Lent(), _run(), steps_per_epoch=10, steps=30)
    assert capsys.readouterr().out.endswith("over the training data, 3 times\n")


@pytest.mark.parametrize("missing", [True, False])
def test_a_missing_numba_is_told_to_those_who_need_it(
    missing: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    find = importlib.util.find_spec
    there = None if missing else object()
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: there if name == "numba" else find(name, *a)
    )
    tell_without_numba.cache_clear()
    for kind in ("CA", "GWProd", "CA"):
        foretell(_manager(kind), Lent(), _run())
    assert sum("pip install sparseml-next[numba]" in text for text in caplog.messages) == missing


@pytest.mark.parametrize("native", [True, False])
def test_slow_bfloat16_is_told(
    native: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        "sparseml.pytorch.sparsification.pruning.settings.processor.platform.machine",
        lambda: "x86_64",
    )
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    for name in names:
        monkeypatch.setattr(torch.cpu, name, lambda: native, raising=False)
    assert fast_bfloat16() == native
    for settings in ({"amp": True}, {"amp": True, "amp_dtype": "float16"}, {}):
        foretell(_manager("Magnitude", ""), Lent(), _run(**settings))
    assert [r.levelno for r in caplog.records] == [logging.WARNING] * (not native)
    for name in names:
        monkeypatch.delattr(torch.cpu, name)
    assert fast_bfloat16(), "nobody is warned of what is not known"


@pytest.mark.parametrize("gradients_of", ["loss", "outputs"])
def test_the_time_is_told_after_a_few_batches(
    gradients_of: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([100.0, 104.0])
    monkeypatch.setattr("sparseml.run.fitting.time.monotonic", lambda: next(clock))
    model, batch = nn.Linear(4, 2), ([torch.randn(3, 4)], {}, torch.zeros(3, dtype=torch.long))
    given = {**make_grad_sampler(lambda n: [batch] * 4096), "progress_bar": False}
    sampler = GradientSampler(timed_sampler(given, 4096), {}, "it", False, gradients_of)
    weight = NamedLayerParam("", model, "weight", model.weight)
    assert len(list(sampler.gradients(model, [weight], 12))) == 12
    assert capsys.readouterr().out == "sampling gradients takes about 34 min\n"
