from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.utils import (
    CrossEntropyLossWrapper,
    LambdaLogger,
    LossWrapper,
    ModuleDeviceContext,
    ModuleRunFuncs,
    ModuleRunHooks,
    ModuleRunResults,
    ModuleTester,
    ModuleTrainer,
    TopKAccuracy,
    def_model_backward,
)


def _loader(samples: int = 10, batch_size: int = 4) -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 3, generator=generator)
    return DataLoader(TensorDataset(x, (x.sum(1) > 0).long()), batch_size=batch_size)


def _trainer(model: nn.Module, **kwargs: Any) -> tuple[ModuleTrainer, torch.optim.Optimizer]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = CrossEntropyLossWrapper({"top1": TopKAccuracy()})
    return ModuleTrainer(model, "cpu", loss, optimizer, **kwargs), optimizer


def test_training_is_the_plain_loop() -> None:
    model = nn.Linear(3, 2)
    twin = copy.deepcopy(model)
    trainer, _ = _trainer(model)
    results = trainer.run_epoch(_loader(), epoch=0, max_epochs=1, show_progress=False)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    losses = []
    for x, y in _loader():
        loss = F.cross_entropy(twin(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses += [loss.detach()] * len(x)
    assert torch.equal(model.weight, twin.weight)
    assert results is not None
    assert torch.equal(results.result_list_tensor("__loss__"), torch.stack(losses))
    assert results.result_mean("__loss__") == pytest.approx(float(torch.stack(losses).mean()))
    assert set(results.results) == {"__loss__", "top1"}


@pytest.mark.parametrize(
    ("own", "epoch", "batches", "steps"), [(1, 1, 5, 5), (2, 1, 5, 3), (1, 3, 6, 2), (4, 2, 4, 1)]
)
def test_accumulation_counts_optimizer_steps(
    own: int, epoch: int, batches: int, steps: int
) -> None:
    trainer, optimizer = _trainer(nn.Linear(3, 2), num_accumulated_batches=own)
    count = []
    optimizer.register_step_post_hook(lambda *_: count.append(1))
    loader = _loader(batches * 2, 2)
    trainer.run_epoch(loader, 0, 1, show_progress=False, gradient_accum_steps=epoch)
    assert len(count) == steps
    trainer.run(iter(loader), "generator", show_progress=False)
    assert len(count) == steps + -(-batches // own)  # the epoch's own wish is forgotten


@pytest.mark.parametrize(("own", "epoch"), [(3, 1), (1, 3), (2, 3)])
def test_gradients_are_averaged_and_losses_reported_whole(own: int, epoch: int) -> None:
    model = nn.Linear(3, 2)
    twin = copy.deepcopy(model)
    trainer, _ = _trainer(model, num_accumulated_batches=own)
    results = trainer.run_epoch(_loader(12), 0, 1, show_progress=False, gradient_accum_steps=epoch)
    losses = [F.cross_entropy(twin(x), y) for x, y in _loader(12)]
    (sum(losses) / 3).backward()
    assert torch.allclose(model.weight, twin.weight - 0.1 * twin.weight.grad)
    assert results is not None
    reported = torch.stack([values[0] for values in results.result("__loss__")])
    assert torch.allclose(reported, torch.stack(losses).detach())


def test_left_over_batches_get_a_smaller_step() -> None:
    model = nn.Linear(3, 2)
    twin = copy.deepcopy(model)
    trainer, _ = _trainer(model, num_accumulated_batches=4)
    trainer.run(_loader(4), "", show_progress=False)
    (x, y), *_ = _loader(4)
    (F.cross_entropy(twin(x), y) / 4).backward()
    assert torch.allclose(model.weight, twin.weight - 0.1 * twin.weight.grad)


def test_testing_learns_nothing_and_restores_the_mode() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)).train()
    before = copy.deepcopy(model.state_dict())
    tester = ModuleTester(model, "cpu", CrossEntropyLossWrapper())
    modes: list[tuple[bool, bool]] = []
    tester.run_hooks.register_batch_forward_hook(
        lambda *args: modes.append((model.training, args[-1].requires_grad))
    )
    results = tester.run(_loader(), "test", show_progress=False)
    assert results is not None
    assert len(results.result_list_tensor("__loss__")) == 10
    assert modes == [(False, False)] * 3
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize(("max_steps", "samples"), [(-1, 10), (0, 10), (2, 8), (9, 10)])
def test_max_steps(max_steps: int, samples: int) -> None:
    tester = ModuleTester(nn.Linear(3, 2), "cpu", CrossEntropyLossWrapper())
    results = tester.run(_loader(), "", show_progress=False, max_steps=max_steps)
    assert results is not None
    assert len(results.result_list_tensor("__loss__")) == samples


def test_hooks_and_their_arguments() -> None:
    trainer, _ = _trainer(nn.Linear(3, 2))
    calls: list[tuple[str, int]] = []
    handles = [
        getattr(trainer.run_hooks, f"register_batch_{point}_hook")(
            lambda *args, _point=point: calls.append((_point, len(args)))
        )
        for point in ("start", "forward", "loss", "backward", "end")
    ]
    seen: list[Any] = []
    trainer.run_hooks.register_batch_end_hook(lambda *args: seen.append(args[:3]))
    trainer.run(_loader(8), "", counter=5, show_progress=False)
    points = [("start", 4), ("forward", 5), ("loss", 6), ("backward", 6), ("end", 6)]
    assert calls == points * 2
    assert seen == [(5, 0, 4), (5, 1, 4)]
    for handle in handles:
        handle.remove()
    trainer.run(_loader(8), "", show_progress=False)
    assert len(calls) == 10


def test_start_hooks_see_the_batch_on_its_device() -> None:
    trainer, _ = _trainer(nn.Linear(3, 2))
    trainer.run_funcs.to_device = lambda data, device: [data[0] + 1, data[1], device]
    trainer.run_funcs.model_forward = lambda data, module: module(data[0])
    trainer.loss.get_labels = lambda data, pred, name: data[1]
    seen: list[Any] = []
    trainer.run_hooks.register_batch_start_hook(lambda *args: seen.append(args[-1]))
    trainer.run(_loader(4), "", show_progress=False)
    assert seen[0][-1] == "cpu" and torch.equal(seen[0][0], next(iter(_loader(4)))[0] + 1)


def test_hooks_are_invoked_by_keyword_too() -> None:
    hooks, calls = ModuleRunHooks(), []
    for point in ("start", "forward", "loss", "backward", "end"):
        getattr(hooks, f"register_batch_{point}_hook")(lambda *args: calls.append(args))
    given = {"counter": 1, "step_count": 2, "batch_size": 3, "data": 4}
    hooks.invoke_batch_start(**given)
    hooks.invoke_batch_forward(**given, pred=5)
    for invoke in (hooks.invoke_batch_loss, hooks.invoke_batch_backward, hooks.invoke_batch_end):
        invoke(**given, pred=5, losses=6)
    assert calls == [(1, 2, 3, 4), (1, 2, 3, 4, 5), *[(1, 2, 3, 4, 5, 6)] * 3]


def test_hooks_may_remove_themselves() -> None:
    hooks, calls = ModuleRunHooks(), []
    handle = hooks.register_batch_start_hook(lambda *_: (calls.append(1), handle.remove()))
    hooks.register_batch_start_hook(lambda *_: calls.append(2))
    hooks.invoke_batch_start(0, 0, 1, None)
    hooks.invoke_batch_start(0, 1, 1, None)
    assert calls == [1, 2, 2]


def test_functions_can_be_replaced() -> None:
    trainer, _ = _trainer(nn.Linear(3, 2))
    other = ModuleRunFuncs(
        batch_size=lambda data: 1,
        to_device=lambda data, device: [data[0] * 0, data[1]],
        model_forward=lambda data, module: module(data[0]),
        model_backward=lambda losses, module, *, scaler: losses["__loss__"].backward(),
    )
    trainer.run_funcs.copy(run_funcs=other)
    assert trainer.run_funcs == other
    results = trainer.run(_loader(), "", show_progress=False)
    assert results is not None
    assert len(results.result("__loss__")) == 3
    assert all(len(values) == 1 for values in results.result("__loss__"))


def test_plain_functions_get_output_and_labels() -> None:
    model = nn.Linear(3, 2)
    tester = ModuleTester(model, "cpu", F.cross_entropy)
    assert isinstance(tester.loss, LossWrapper)
    results = tester.run(_loader(), "", show_progress=False)
    assert results is not None
    wanted = [F.cross_entropy(model(x), y).item() for x, y in _loader()]
    assert [float(values[0]) for values in results.result("__loss__")] == pytest.approx(wanted)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model.weight.detach().clone()
    trainer = ModuleTrainer(model, "cpu", F.cross_entropy, optimizer)
    trainer.run(_loader(), "", show_progress=False)
    assert not torch.equal(model.weight, before)


def _logged(run: Any) -> list[tuple[str, int, float]]:
    calls: list[dict[str, Any]] = []
    run([LambdaLogger(lambda **kwargs: calls.append(kwargs))])
    return [(call["tag"], call["step"], call["value"]) for call in calls]


_PACE = ["Seconds per step", "Steps per second", "Est remaining minutes"]


def test_logging_of_a_trainer() -> None:
    def run(loggers: Any) -> None:
        trainer, optimizer = _trainer(nn.Linear(3, 2), loggers=loggers, log_name="fit", log_steps=2)

        def halve(*_: Any) -> None:  # for the next step
            optimizer.param_groups[0]["lr"] /= 2

        trainer.run_hooks.register_batch_end_hook(halve)
        trainer.run_epoch(_loader(10), 1, 2, show_progress=False)

    logged = _logged(run)
    names = ["__loss__", "top1", "Epoch Counter", "Batch Size", *_PACE, "Learning Rate"]
    sums = ["__loss__", "top1", "Batch Size", "Learning Rate"]
    assert [(tag, step) for tag, step, _ in logged] == [
        *((f"fit/{name}", 3) for name in names),
        *((f"fit/{name}", 5) for name in names),
        *((f"fit/{name} Summary", 1) for name in sums),
        ("fit/Minutes per epoch", 1),
    ]
    values = {(tag.removeprefix("fit/"), step): value for tag, step, value in logged}
    assert values["Epoch Counter", 3] == 1
    assert (values["Batch Size", 3], values["Batch Size", 5]) == (4, 2)
    assert values["Batch Size Summary", 1] == pytest.approx(10 / 3)
    # the rate of the step itself, not of the next
    assert (values["Learning Rate", 3], values["Learning Rate", 5]) == (0.1, 0.025)
    seconds = values["Seconds per step", 3]
    assert values["Steps per second", 3] == pytest.approx(1 / seconds)
    assert values["Est remaining minutes", 3] == pytest.approx(2 * seconds / 60)
    assert values["Est remaining minutes", 5] == 0.0
    assert 0.0 < values["Minutes per epoch", 1] < 1.0


def test_logging_of_a_tester_and_of_loaders_without_a_length() -> None:
    def run(loggers: Any) -> None:
        tester = ModuleTester(nn.Linear(3, 2), "cpu", F.cross_entropy, loggers, log_steps=2)
        tester.run((batch for batch in _loader()), "", show_progress=False)

    names = ["__loss__", "Epoch Counter", "Batch Size", *_PACE[:2]]
    assert [(tag, step) for tag, step, _ in _logged(run)] == [
        *((f"Test/{name}", step) for step in (0, 2) for name in names),
        ("Test/__loss__ Summary", 0),
        ("Test/Batch Size Summary", 0),
        ("Test/Minutes per epoch", 0),
    ]


def test_nothing_is_logged_without_loggers(caplog: pytest.LogCaptureFixture) -> None:
    tester = ModuleTester(nn.Linear(3, 2), "cpu", CrossEntropyLossWrapper())
    with caplog.at_level(logging.DEBUG):
        tester.run(_loader(), "", show_progress=False)
    assert not caplog.records


def test_results_are_optional() -> None:
    def run(loggers: Any) -> None:
        tester = ModuleTester(
            nn.Linear(3, 2), "cpu", CrossEntropyLossWrapper(), loggers, log_summary=False
        )
        assert tester.run(_loader(), "", show_progress=False, track_results=False) is None

    assert ("Test/__loss__", 0) in [(tag, step) for tag, step, _ in _logged(run)]
    summing = ModuleTester(nn.Linear(3, 2), "cpu", CrossEntropyLossWrapper())
    with pytest.raises(ValueError, match="log_summary needs track_results"):
        summing.run(_loader(), "", track_results=False)


@pytest.mark.parametrize(
    "wrong", [{"use_mixed_precision": 1}, {"world_size": 0}, {"world_size": 1.0}]
)
def test_device_contexts_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match="must be a"):
        ModuleDeviceContext(**wrong)
    context = ModuleDeviceContext()
    for name, value in wrong.items():
        with pytest.raises(AssertionError, match="must be a"):
            setattr(context, name, value)
    trainer, _ = _trainer(nn.Linear(3, 2), device_context=context)
    assert trainer.device_context is context
    assert ModuleTester(nn.Linear(3, 2), "cpu", F.cross_entropy).device_context == context


def test_closures_and_mixed_precision() -> None:
    calls = []

    def closure() -> None:
        calls.append(1)

    trainer, _ = _trainer(nn.Linear(3, 2), optim_closure=closure)
    trainer.run(_loader(), "", show_progress=False)
    assert len(calls) == 3
    context = ModuleDeviceContext(use_mixed_precision=True)
    with pytest.raises(RuntimeError, match="optim_closure"):
        _trainer(nn.Linear(3, 2), optim_closure=closure, device_context=context)
    model = nn.Linear(3, 2)
    mixed, _ = _trainer(model, device_context=context)
    dtypes = []
    mixed.run_hooks.register_batch_forward_hook(lambda *args: dtypes.append(args[-1].dtype))
    before = model.weight.detach().clone()
    mixed.run(_loader(), "", show_progress=False)
    assert dtypes == [torch.bfloat16] * 3
    assert not torch.equal(model.weight, before)
    assert ModuleDeviceContext.default_context() == ModuleDeviceContext(False, 1)


def test_a_recipe_drives_the_trainer_also_in_mixed_precision() -> None:
    for context in (ModuleDeviceContext(), ModuleDeviceContext(use_mixed_precision=True)):
        model = nn.Linear(3, 2)
        inner = torch.optim.SGD(model.parameters(), lr=0.1)
        manager = ScheduledModifierManager.from_yaml(
            "modifiers:\n    - !MagnitudePruningModifier\n        params: ['weight']\n"
            "        init_sparsity: 0.0\n        final_sparsity: 0.5\n        start_epoch: 0.0\n"
            "        end_epoch: 2.0\n        update_frequency: 0.5\n"
        )
        optimizer = manager.modify(model, inner, steps_per_epoch=3)
        loss = CrossEntropyLossWrapper()
        trainer = ModuleTrainer(model, "cpu", loss, optimizer, device_context=context)
        for epoch in range(3):
            trainer.run_epoch(_loader(), epoch, 3, show_progress=False)
        assert optimizer.wrapped_epoch == 3.0
        assert int((model.weight == 0).sum()) == 3


def test_backward_scales_on_request() -> None:
    weight = torch.ones(1, requires_grad=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    def_model_backward({"__loss__": (weight * 3).sum()}, nn.Linear(1, 1), scaler)
    assert float(weight.grad) == 24.0
    def_model_backward({"__loss__": (weight * 3).sum()}, nn.Linear(1, 1))
    assert float(weight.grad) == 27.0


def test_unknown_results_are_named() -> None:
    results = ModuleRunResults()
    results.append({"__loss__": torch.tensor(2.0, requires_grad=True)}, 3)
    results.append({"__loss__": torch.tensor(4.0)}, 1)
    assert results.result_list_tensor("__loss__").tolist() == [2.0, 2.0, 2.0, 4.0]
    assert float(results.result_mean("__loss__")) == 2.5
    assert float(results.result_std("__loss__")) == 1.0
    assert "__loss__" in repr(results)
    with pytest.raises(KeyError, match="no result 'acc'; there are __loss__"):
        results.result("acc")


def test_progress_bar(capfd: pytest.CaptureFixture[str]) -> None:
    tester = ModuleTester(nn.Linear(3, 2), "cpu", CrossEntropyLossWrapper())
    tester.run_epoch(_loader(), epoch=1, max_epochs=3)
    assert "Test epoch 2/3" in capfd.readouterr().err
