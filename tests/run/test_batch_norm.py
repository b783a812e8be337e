"""Measuring batch norms anew."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sparseml.run import (
    Processes,
    RunError,
    frozen_statistics,
    retune_batch_norm,
    tracked_norms,
)

HERE = Processes()


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4, momentum=0.3)
    return nn.Sequential(nn.Conv2d(3, 4, 1), norm, nn.Dropout(0.9), nn.Conv2d(4, 2, 1))


def _loader(batches: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(8, 3, 5, 5, generator=generator), torch.zeros(8))] * batches


def test_statistics_are_plain_means_over_the_batches() -> None:
    model, loader = _model(), _loader()
    model.train()
    rng = torch.get_rng_state()
    assert retune_batch_norm(model, loader, 2, HERE) == 1
    norm = model[1]
    features = model[0](loader[0][0]).detach()
    torch.testing.assert_close(norm.running_mean, features.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, features.var((0, 2, 3)))
    assert int(norm.num_batches_tracked) == 0 and norm.momentum == 0.3
    assert model.training and norm.training
    assert torch.equal(torch.get_rng_state(), rng), "no dropout was drawn"


class _ByKeyword(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pixels: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return self.inner(pixels * scale)


def test_inputs_may_come_by_keyword() -> None:
    plain, model = _model(), _ByKeyword(_model())
    named = [({"pixels": some, "scale": torch.ones(1)}, labels) for some, labels in _loader()]
    retune_batch_norm(plain, _loader(), 2, HERE)
    assert retune_batch_norm(model, named, 2, HERE) == 1
    assert torch.equal(model.inner[1].running_mean, plain[1].running_mean)


def test_modes_are_kept_module_by_module() -> None:
    model = _model().train()
    model[2].eval()
    retune_batch_norm(model, _loader(), 1, HERE)
    assert [module.training for module in model] == [True, True, False, True]


def test_a_frozen_norm_stays_as_it_is() -> None:
    model = _model().train()
    model[1].eval()
    assert retune_batch_norm(model, _loader(), 1, HERE) == 0
    assert not model[1].running_mean.any()


def test_nothing_to_measure_on() -> None:
    with pytest.raises(RunError, match="not one batch"):
        retune_batch_norm(_model(), [], 3, HERE)
    assert retune_batch_norm(nn.Linear(2, 2), [], 3, HERE) == 0


def test_progress_is_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sparseml.run.progress.QUIET_SECONDS", 0.0)
    retune_batch_norm(_model(), _loader(), 2, HERE)
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    assert lines == ["measuring batch norms 1/2", "measuring batch norms 2/2"]


def test_statistics_can_be_frozen_for_a_while() -> None:
    model = _model().train()
    norm = tracked_norms(model)[0]
    before = norm.running_mean.clone()
    with frozen_statistics(model):
        model(_loader()[0][0])
    assert torch.equal(norm.running_mean, before) and int(norm.num_batches_tracked) == 0
    model(_loader()[0][0])
    assert not torch.equal(norm.running_mean, before) and int(norm.num_batches_tracked) == 1
