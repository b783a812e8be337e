"""Distillation from what a teacher's layers give."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from torch import nn

from sparseml.pytorch.functional.distillation import feature_mse
from sparseml.pytorch.optim import ScheduledOptimizer
from sparseml.pytorch.sparsification import DISTILL_PARAM_GROUP_KEY, PerLayerDistillationModifier
from sparseml.pytorch.utils import load_checkpoint, save_checkpoint


def hidden_groups(optimizer):
    return [group for group in optimizer.param_groups if group.get(DISTILL_PARAM_GROUP_KEY)]


def hooks(module):
    return sum(len(layer._forward_hooks) for layer in module.modules())


class TestFields:
    def test_defaults(self):
        modifier = PerLayerDistillationModifier()
        assert (modifier.gain, modifier.epsilon) == (1.5, 1e-6)
        assert modifier.normalize is True and modifier.project_features is True
        assert modifier.student_layer_names is None and modifier.teacher_layer_names is None
        assert "layer_names" not in str(modifier)

    @pytest.mark.parametrize(
        "fields,message",
        [
            ({"student_layer_names": ["a"], "teacher_layer_names": []}, "must name as many layers"),
            ({"student_layer_names": "a"}, "student_layer_names must be a list of layers"),
            ({"gain": "much"}, "gain must be a number"),
        ],
    )
    def test_bad_values(self, fields, message):
        with pytest.raises(ValueError, match=message):
            PerLayerDistillationModifier(**fields)


class TestLayers:
    def test_all_convolutions_and_linear_layers(self, distilling):
        modifier = PerLayerDistillationModifier()
        run = distilling(modifier)
        run.step(0)
        assert list(modifier.state_dict()[DISTILL_PARAM_GROUP_KEY]) == ["0", "5"]
        assert hooks(run.net) == hooks(run.teacher) == 2

    @pytest.mark.parametrize("given", ["student_layer_names", "teacher_layer_names"])
    def test_one_list_stands_for_both(self, distilling, given):
        modifier = PerLayerDistillationModifier(**{given: ["0"]})
        run = distilling(modifier)
        run.step(0)
        assert list(modifier.state_dict()[DISTILL_PARAM_GROUP_KEY]) == ["0"]
        assert hooks(run.teacher[0]) == 1

    def test_different_numbers(self, distilling):
        message = "^Found different numbers of teacher and student layers to distill. Student: 2"
        with pytest.raises(ValueError, match=message):
            distilling(PerLayerDistillationModifier(), teacher=nn.Linear(3, 3))

    @pytest.mark.parametrize(
        "names,error,message",
        [
            (["0", "5x"], RuntimeError, "student_layer_names: no layer '5x'"),
            (["0", "0"], ValueError, "student_layer_names names a layer twice"),
        ],
    )
    def test_bad_names(self, distilling, names, error, message):
        modifier = PerLayerDistillationModifier(student_layer_names=names)
        with pytest.raises(error, match=message):
            distilling(modifier)
        assert not modifier.initialized

    def test_teacher_must_have_layers(self, distilling):
        with pytest.raises(ValueError, match="must be a module whose layers can be watched"):
            distilling(PerLayerDistillationModifier(), teacher=lambda x: x)

    def test_layer_that_does_not_run(self, distilling):
        teacher = nn.Sequential(nn.Flatten(), nn.Linear(32, 5))
        teacher.idle = nn.ModuleList([nn.Linear(2, 2)])
        teacher.forward = lambda x: teacher[1](teacher[0](x))
        run = distilling(PerLayerDistillationModifier(), teacher=teacher)
        with pytest.raises(RuntimeError, match=r"layer 'idle.0' of the teacher did not run"):
            run.step(0)


class TestLoss:
    @pytest.mark.parametrize("normalize", [True, False])
    def test_definition(self, distilling, normalize):
        modifier = PerLayerDistillationModifier(gain=2.0, normalize=normalize, epsilon=0.1)
        run = distilling(modifier)
        loss, total = run.loss(0)
        run.teacher.eval()
        inputs = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
        own, taught = run.net[0](inputs), run.teacher[0](inputs)
        weights = modifier.state_dict()[DISTILL_PARAM_GROUP_KEY]
        mapped = torch.einsum("oi,nihw->nohw", weights["0"]["weight"][:, :, 0, 0], own)
        first = feature_mse(mapped, taught, normalize, 0.1)
        rest = (total - loss) / 2.0 - first
        assert rest > 0
        torch.manual_seed(1)  # for dropout, as in the run
        student = run.net(inputs) @ weights["5"]["weight"].T
        expected = feature_mse(student, run.teacher(inputs), normalize, 0.1)
        assert torch.isclose(rest, expected, rtol=1e-4)

    def test_learns_and_trains_the_projections(self, distilling):
        modifier = PerLayerDistillationModifier(gain=10.0)
        run = distilling(modifier)
        totals = [run.step(0)[1] for _ in range(40)]
        before = copy.deepcopy(modifier.state_dict()[DISTILL_PARAM_GROUP_KEY])
        run.step(0)
        after = modifier.state_dict()[DISTILL_PARAM_GROUP_KEY]
        assert totals[-1] < 0.3 * totals[0]
        assert all(not torch.equal(before[n]["weight"], after[n]["weight"]) for n in before)

    def test_loops_that_clear_the_gradients_of_the_model(self, distilling):
        losses = []
        for of_model in (True, False):
            run = distilling(PerLayerDistillationModifier())
            if of_model:  # as the Trainer of transformers does
                run.optimizer.zero_grad = run.net.zero_grad
            losses.append([run.step(number) for number in range(4)])
        assert losses[0] == losses[1]

    def test_widths_must_agree_without_projections(self, distilling):
        run = distilling(PerLayerDistillationModifier(project_features=False))
        with pytest.raises(RuntimeError, match="must match the size of tensor"):
            run.step(0)

    def test_self_without_projections(self, distilling):
        modifier = PerLayerDistillationModifier(project_features=False, gain=1.0)
        run = distilling(modifier, teacher="self")
        run.net.eval()
        loss, total = run.loss(0)
        assert torch.equal(loss, total)
        run.net.train()
        loss, total = run.loss(0)
        assert total - loss > 0  # the teacher evaluates, the student normalises by its batch
        assert not hidden_groups(run.optimizer)
        assert modifier.state_dict() == {DISTILL_PARAM_GROUP_KEY: {}}

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_mixed_precision(self, distilling, dtype):
        run = distilling(PerLayerDistillationModifier())
        exact = run.loss(0)[1]
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype):
            total = run.loss(0)[1]
        total.backward()
        assert total.dtype == torch.float32 and total.item() == pytest.approx(exact.item(), rel=0.1)
        for group in run.optimizer.param_groups:
            assert all(p.grad.isfinite().all() and p.grad.dtype == p.dtype for p in group["params"])

    def test_features_of_half_precision_models(self, distilling):
        run = distilling(PerLayerDistillationModifier(), teacher=None)
        run.net.half(), run.teacher.half()
        inputs = torch.randn(3, 2, 4, 4).half()
        outputs = run.net(inputs)
        total = run.manager.loss_update(
            outputs.sum(), run.net, run.optimizer, 0.0, 4,
            student_outputs=outputs, student_inputs=inputs,
        )  # fmt: skip
        assert total.dtype == torch.float32 and total.isfinite()
        assert hidden_groups(run.optimizer)[0]["params"][0].dtype == torch.float32


class TestSchedule:
    def test_from_start_to_end_inclusive(self, distilling):
        modifier = PerLayerDistillationModifier(start_epoch=0.5, end_epoch=1.5)
        run = distilling(modifier)
        steps = [run.step(number) for number in range(6)]
        assert hooks(run.net) == 2
        steps += [run.step(number) for number in range(6, 10)]
        assert [loss != total for loss, total in steps] == [False] * 2 + [True] * 5 + [False] * 3
        assert hooks(run.net) == hooks(run.teacher) == 0

    def test_keeps_no_features_while_it_does_not_distill(self, distilling):
        modifier = PerLayerDistillationModifier(start_epoch=1.0)
        run = distilling(modifier)
        run.loss(0)
        assert all(t.tracked_output is None for t in modifier._features._student.values())

    def test_finalize_and_initialize_again(self, distilling):
        modifier = PerLayerDistillationModifier()
        run = distilling(modifier)
        run.step(0)
        modifier.initialize(run.net, distillation_teacher=run.teacher)
        assert hooks(run.net) == 2
        modifier.finalize(run.net)
        assert hooks(run.net) == hooks(run.teacher) == 0
        modifier.initialize(run.net, distillation_teacher=run.teacher)
        run.step(1)
        assert len(hidden_groups(run.optimizer)) == 1

    def test_copies_of_the_model_are_not_watched(self, distilling):
        whole = distilling(PerLayerDistillationModifier())
        expected = [whole.step(number) for number in range(3)]
        run = distilling(PerLayerDistillationModifier())
        average = copy.deepcopy(run.net)
        run.net.register_forward_hook(
            lambda *_: bool(average(torch.ones(3, 2, 4, 4)).sum()) and None
        )
        average.eval()
        assert [run.step(number) for number in range(3)] == expected

    @pytest.mark.parametrize("twin", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])  # noqa: S301
    def test_a_copy_in_a_run_does_not_disturb_it(self, distilling, twin):
        whole = distilling(PerLayerDistillationModifier())
        expected = [whole.step(number) for number in range(2)]
        modifier = PerLayerDistillationModifier()
        run = distilling(modifier)
        assert run.step(0) == expected[0]
        modifier.initialize_loggers(None)
        copied = twin(modifier)
        state = copied.state_dict()[DISTILL_PARAM_GROUP_KEY]
        assert torch.equal(
            state["0"]["weight"], modifier.state_dict()[DISTILL_PARAM_GROUP_KEY]["0"]["weight"]
        )
        copied.finalize()
        assert run.step(1) == expected[1]


class TestOptimizer:
    def test_one_more_group_at_the_highest_rate(self, distilling):
        def optimizer(params):
            first, *rest = params
            groups = [
                {"params": [first], "lr": 0.01},
                {"params": rest, "lr": 0.3, "weight_decay": 0.1},
            ]
            return torch.optim.SGD(groups, lr=1e-9, momentum=0.9, weight_decay=0.5)

        run = distilling(PerLayerDistillationModifier(), optimizer=optimizer)
        assert len(run.optimizer.param_groups) == 2
        for number in range(2):
            run.step(number)
        (group,) = hidden_groups(run.optimizer)
        assert group is run.optimizer.param_groups[2]
        assert (group["lr"], group["weight_decay"], len(group["params"])) == (0.3, 0.1, 2)

    def test_state_hides_the_group(self, distilling):
        run, plain = distilling(PerLayerDistillationModifier()), distilling()
        for number in range(2):
            run.step(number), plain.step(number)
        state, ordinary = run.optimizer.state_dict(), plain.optimizer.state_dict()
        assert state["param_groups"] == ordinary["param_groups"]
        assert state["state"].keys() == ordinary["state"].keys()
        assert run.stepper.state_dict()["state"].keys() == ordinary["state"].keys()

    def test_states_without_the_group_are_loaded(self, distilling):
        run, plain = distilling(PerLayerDistillationModifier()), distilling()
        for number in range(2):
            run.step(number), plain.step(number)
        (group,) = hidden_groups(run.optimizer)
        moments = [dict(run.optimizer.state[param]) for param in group["params"]]
        run.optimizer.load_state_dict(plain.optimizer.state_dict())
        (again,) = hidden_groups(run.optimizer)
        assert again["params"] == group["params"] and run.optimizer.param_groups[1] is again
        for param, before in zip(again["params"], moments, strict=True):
            assert torch.equal(run.optimizer.state[param]["exp_avg"], before["exp_avg"])
        own = run.optimizer.state[run.net[0].weight]["exp_avg"]
        assert torch.equal(own, plain.optimizer.state[plain.net[0].weight]["exp_avg"])
        run.step(2)

    def test_a_state_that_does_not_fit_leaves_the_optimizer_whole(self, distilling):
        run = distilling(PerLayerDistillationModifier())
        run.step(0)
        state = run.optimizer.state_dict()
        state["param_groups"] = state["param_groups"] * 2
        with pytest.raises(ValueError, match="different number of parameter groups"):
            run.optimizer.load_state_dict(state)
        assert len(hidden_groups(run.optimizer)) == 1
        run.step(1)

    def test_groups_added_later_keep_their_place(self, distilling):
        run = distilling(PerLayerDistillationModifier())
        run.step(0)
        late = nn.Parameter(torch.ones(3))
        run.optimizer.add_param_group({"params": [late], "lr": 0.5})
        run.optimizer.zero_grad()
        total = run.loss(1)[1] + late.sum()
        total.backward()
        run.stepper.step()
        state = run.optimizer.state_dict()
        assert [group["lr"] for group in state["param_groups"]] == [0.02, 0.5]
        moment = run.optimizer.state[late]["exp_avg"].clone()
        run.optimizer.state[late]["exp_avg"].zero_()
        run.optimizer.load_state_dict(state)
        assert run.optimizer.param_groups[2]["params"][0] is late
        run.optimizer.load_state_dict(pickle.loads(pickle.dumps(state)))  # noqa: S301
        assert moment.abs().sum() > 0 and len(run.optimizer.param_groups) == 3

    @pytest.mark.parametrize("name", ["OneCycleLR", "CosineAnnealingLR", "StepLR"])
    def test_schedulers_made_before(self, distilling, name, caplog):
        kwargs = {
            "OneCycleLR": {"max_lr": 0.1, "total_steps": 10},
            "CosineAnnealingLR": {"T_max": 10},
            "StepLR": {"step_size": 2},
        }[name]
        run = distilling(PerLayerDistillationModifier())
        scheduler = getattr(torch.optim.lr_scheduler, name)(run.optimizer, **kwargs)
        for number in range(4):
            run.step(number)
            scheduler.step()
            first, projections = (group["lr"] for group in run.optimizer.param_groups)
            assert first == pytest.approx(projections)
        assert caplog.text.count("unless made after the first") == 1

    def test_schedulers_made_after(self, distilling, caplog):
        run = distilling(PerLayerDistillationModifier())
        run.step(0)
        scheduler = torch.optim.lr_scheduler.LambdaLR(run.optimizer, lambda step: 0.5**step)
        run.step(1)
        scheduler.step()
        assert [group["lr"] for group in run.optimizer.param_groups] == [0.01, 0.01]
        assert not caplog.text

    @pytest.mark.parametrize("kwargs", [{"fused": True}, {"foreach": True}, {"amsgrad": True}])
    def test_with_gradient_scaling(self, distilling, kwargs, tmp_path):
        def start():
            run = distilling(
                PerLayerDistillationModifier(),
                optimizer=lambda params: torch.optim.Adam(params, lr=0.02, **kwargs),
            )
            scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
            run.stepper = run.manager.modify(run.net, run.optimizer, 4, wrap_optim=scaler)
            return run, scaler

        def step(run, scaler, number):
            run.optimizer.zero_grad()
            total = run.loss(number)[1] * (float("inf") if number == 1 else 1.0)
            run.stepper.scale(total).backward()
            run.stepper.step(run.optimizer)
            run.stepper.update()

        whole, scaler = start()
        for number in range(3):
            step(whole, scaler, number)
        path = tmp_path / "run.pt"
        save_checkpoint(
            path, whole.net, optimizer=whole.optimizer, manager=whole.manager, scaler=scaler
        )
        step(whole, scaler, 3)
        assert whole.stepper.wrapped_steps == 3
        resumed, again = start()
        load_checkpoint(
            path, resumed.net, optimizer=resumed.optimizer, manager=resumed.manager, scaler=again
        )
        step(resumed, again, 3)
        groups = [run.optimizer.param_groups for run in (whole, resumed)]
        for first, second in zip(*groups, strict=True):
            for one, other in zip(first["params"], second["params"], strict=True):
                assert torch.equal(one, other)

    def test_two_modifiers(self, distilling):
        modifiers = [PerLayerDistillationModifier(student_layer_names=[n]) for n in ("0",)]
        modifiers.append(
            PerLayerDistillationModifier(student_layer_names=["5"], teacher_layer_names=["4"])
        )
        run = distilling(*modifiers)
        run.step(0)
        assert len(hidden_groups(run.optimizer)) == 2
        assert len(run.optimizer.state_dict()["param_groups"]) == 1
        run.optimizer.load_state_dict(run.optimizer.state_dict())
        run.step(1)

    def test_named_parameters(self, distilling):
        net_names = []

        def optimizer(params):
            named = [(f"p{index}", param) for index, param in enumerate(params)]
            net_names.extend(name for name, _ in named)
            return torch.optim.Adam(named, lr=0.02)

        run = distilling(PerLayerDistillationModifier(), optimizer=optimizer)
        run.step(0)
        run.optimizer.load_state_dict(run.optimizer.state_dict())
        assert run.optimizer.param_groups[0]["param_names"] == net_names

    @pytest.mark.parametrize("wrapped", ["stepper", "scheduled"])
    def test_wrappers_are_looked_through(self, distilling, wrapped):
        run = distilling(PerLayerDistillationModifier())
        optimizer = run.stepper
        if wrapped == "scheduled":
            optimizer = ScheduledOptimizer(run.optimizer, run.net, run.manager, 4)
        inner, run.optimizer = run.optimizer, optimizer
        run.loss(0)
        assert len(hidden_groups(inner)) == 1
        assert len(optimizer.state_dict()["param_groups"]) == 1
        optimizer.load_state_dict(optimizer.state_dict())

    def test_optimizers_that_are_not_torchs_own(self, distilling):
        """Lookahead lacks what others have of torch's, as hooks of the state."""
        optimizers = pytest.importorskip("timm.optim")
        run = distilling(PerLayerDistillationModifier())
        inner, run.optimizer = run.optimizer, optimizers.Lookahead(run.optimizer)
        for _ in range(2):
            run.loss(0)[1].backward()
            run.optimizer.step()
        assert len(hidden_groups(inner)) == 1
        assert len(run.optimizer.state_dict()["param_groups"]) == 1
        run.optimizer.load_state_dict(run.optimizer.state_dict())

    def test_needs_an_optimizer(self, distilling):
        run = distilling(PerLayerDistillationModifier())
        run.optimizer = None
        with pytest.raises(ValueError, match="project_features: False"):
            run.loss(0)


class TestState:
    def test_loaded_before_the_first_features(self, distilling):
        run = distilling(PerLayerDistillationModifier())
        for number in range(3):
            run.step(number)
        buffer = io.BytesIO()
        torch.save(run.manager.modifiers[0].state_dict(), buffer)
        buffer.seek(0)
        state = torch.load(buffer, weights_only=True)
        modifier = PerLayerDistillationModifier()
        modifier.load_state_dict(state)
        again = distilling(modifier)
        assert modifier.state_dict().keys() == state.keys()
        again.loss(3)
        weight = modifier.state_dict()[DISTILL_PARAM_GROUP_KEY]["5"]["weight"]
        assert torch.equal(weight, state[DISTILL_PARAM_GROUP_KEY]["5"]["weight"])
        modifier.load_state_dict(state)

    def test_of_other_layers(self, distilling):
        state = {DISTILL_PARAM_GROUP_KEY: {"9": {"weight": torch.ones(2, 2)}}}
        modifier = PerLayerDistillationModifier()
        run = distilling(modifier)
        with pytest.raises(IndexError, match=r"projections of 9 do not fit the layers"):
            modifier.load_state_dict(state)
        modifier.load_state_dict(state, strict=False)
        run.step(0)
        early = PerLayerDistillationModifier()
        early.load_state_dict(state)
        with pytest.raises(IndexError, match=r"projections of 9 do not fit"):
            distilling(early).loss(0)

    def test_unknown_keys(self):
        with pytest.raises(IndexError, match="keeps no state"):
            PerLayerDistillationModifier().load_state_dict({"masks": {}})


class _InPlace(nn.Sequential):
    """A model that changes the outputs of its layers in place, by layers and by functions."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self[0](x).mul_(-1.0)
        return self[2](self[1](x)).mul_(2.0)


def test_features_are_what_the_layers_gave_whatever_changes_them_afterwards() -> None:
    torch.manual_seed(0)
    student, teacher = (
        _InPlace(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4)) for _ in range(2)
    )
    x = torch.randn(8, 4)
    modifier = PerLayerDistillationModifier(project_features=False, normalize=False)
    modifier.initialize(student, distillation_teacher=teacher)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    outputs = student(x)
    loss = modifier.loss_update(
        outputs.sum() * 0, student, optimizer, 0.0, 4, student_outputs=outputs, student_inputs=x
    )
    taught = [teacher[0](x), teacher[2]((-teacher[0](x)).relu())]
    own = [student[0](x), student[2]((-student[0](x)).relu())]
    expected = sum(((a - b.detach()) ** 2).mean() for a, b in zip(own, taught, strict=True))
    torch.testing.assert_close(loss, 1.5 * expected)
    found = torch.autograd.grad(loss, list(student.parameters()))
    wanted = torch.autograd.grad(1.5 * expected, list(student.parameters()))
    torch.testing.assert_close(found, wanted)
