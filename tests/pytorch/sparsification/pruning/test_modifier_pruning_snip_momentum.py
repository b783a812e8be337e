"""Pruning by running saliency, against the worked examples of Intel Neural Compressor."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.sparsification.pruning import SnipMomentumPruningModifier
from sparseml.pytorch.utils import LambdaLogger, LoggerManager

SHAPES = [(8, 6), (4, 8), (8, 10)]  # 12, 8 and 20 blocks of 4x1
SCORES = {
    "rising": list(range(1, 41)),
    "mixed": [17 * i % 41 + 1 for i in range(40)],
}
STEPS = {"start_step": 2, "end_step": 6, "update_steps": 2}


def fields(**changes):
    first = {"params": ["re:.*weight"], "init_sparsity": 0.0, "final_sparsity": 0.5, **STEPS}
    return {**first, **changes}


def of_layers(shapes, scores=None):
    """Layers of weights 1, and the gradients that make these the scores of a step."""
    net = nn.Sequential(*(nn.Linear(i, o, bias=False) for o, i in shapes)).double()
    for layer in net:
        nn.init.ones_(layer.weight)
    return net, [torch.as_tensor(each, dtype=torch.float64) for each in scores or []]


def of_blocks(values):
    scores, start = [], 0
    for out, in_ in SHAPES:
        count = out // 4 * in_
        block = torch.tensor(values[start : start + count]).view(out // 4, in_)
        scores.append(block.repeat_interleave(4, dim=0))
        start += count
    return scores


class Training:
    """Optimizer steps with given gradients, at a learning rate of 0."""

    def __init__(self, net, *modifiers, lr=0.0, steps_per_epoch=7, loggers=None):
        self.net, self.optimizer = net, torch.optim.SGD(net.parameters(), lr=lr)
        self.manager = ScheduledModifierManager(list(modifiers))
        self.stepper = self.manager.modify(
            net, self.optimizer, steps_per_epoch=steps_per_epoch, loggers=loggers
        )

    def step(self, gradients):
        for layer, grad in zip(self.net, gradients, strict=True):
            layer.weight.grad = grad.clone()
        self.stepper.step()

    def pruned(self, units=1):
        return [int((layer.weight == 0).sum()) // units for layer in self.net]


@pytest.mark.parametrize(
    ("scores", "final", "limits", "expected"),
    [
        ("rising", 0.5, {}, (11, 7, 2)),
        ("rising", 0.5, {"max": 0.75}, (9, 6, 5)),
        ("rising", 0.5, {"max": 0.75, "min": 0.25}, (9, 6, 5)),
        ("rising", 0.5, {"min": 0.3}, (11, 3, 6)),
        ("rising", 0.5, {"max": 0.5, "min": 0.5}, (6, 4, 10)),
        ("rising", 0.5, None, (6, 4, 10)),
        ("mixed", 0.8, {"max": 1.0}, (10, 5, 17)),
        ("mixed", 0.8, {"max": 0.9, "min": 0.75}, (10, 6, 16)),
    ],
)
def test_worked_examples_of_blocks(scores, final, limits, expected):
    net, gradients = of_layers(SHAPES, of_blocks(SCORES[scores]))
    modifier = SnipMomentumPruningModifier(
        **fields(final_sparsity=final, mask_type="4x1", global_sparsity=limits is not None),
        **{f"{end}_sparsity_per_param": value for end, value in (limits or {}).items()},
    )
    run = Training(net, modifier)
    for _ in range(8):
        run.step(gradients)
    assert run.pruned(units=4) == list(expected)
    assert modifier.ended


@pytest.mark.parametrize(
    ("sparsity", "expected"),
    [
        (0.125, ["1111011011111111", "1111111101101111"]),
        (0.25, ["0011011011111111", "1001111101101111"]),
        (0.5, ["0011011001101100", "1001100101100110"]),
    ],
)
def test_worked_example_of_two_in_four(sparsity, expected):
    scores = torch.tensor([11.0 * i % 37 + 1 for i in range(32)]).view(2, 2, 8)
    net, gradients = of_layers([(2, 8)] * 2, list(scores))
    # below the full sparsity some groups are in the pattern, the others dense
    modifier = SnipMomentumPruningModifier(**fields(final_sparsity=sparsity, mask_type="2:4"))
    run = Training(net, modifier)
    for _ in range(7):
        run.step(gradients)
    kept = ["".join(map(str, (one.weight != 0).int().flatten().tolist())) for one in net]
    assert kept == expected


@pytest.mark.parametrize(
    ("mask_type", "final", "expected"),
    [
        ("2:4", 0.5, [0.0943, 0.1797, 0.2570, 0.3270, 0.3905, 0.4480, 0.5]),
        ("4x1", 0.9, [0.2803, 0.4821, 0.6272, 0.7317, 0.8069, 0.8610, 0.9]),
    ],
)
def test_sparsity_at_each_update_is_the_formula(mask_type, final, expected):
    net, _ = of_layers([(128, 96), (64, 128)])
    when = {"start_step": 5, "end_step": 40, "update_steps": 5}
    modifier = SnipMomentumPruningModifier(
        **fields(final_sparsity=final, mask_type=mask_type, **when)
    )
    run, found, torch_rng = Training(net, modifier), {}, torch.Generator().manual_seed(0)
    for step in range(50):
        before = sum(run.pruned())
        run.step([torch.rand(one.weight.shape, generator=torch_rng).double() for one in net])
        if sum(run.pruned()) != before:
            found[step] = sum(run.pruned())
    total, size = sum(one.weight.numel() for one in net), 2 if mask_type == "2:4" else 4
    assert list(found) == [10, 15, 20, 25, 30, 35, 40]
    for number, (count, rounded) in enumerate(zip(found.values(), expected, strict=True), 1):
        exact = 1 - (1 - final) ** (number / 7)
        assert count == int(total * exact / size + 1e-6) * size
        assert count / total == pytest.approx(rounded, abs=size / total + 5e-5)


def test_a_window_below_the_interval_prunes_at_once():
    net, gradients = of_layers([(4, 8)], [torch.rand(4, 8)])
    when = {"start_step": 3, "end_step": 5, "update_steps": 10}
    run = Training(net, SnipMomentumPruningModifier(**fields(**when)))
    counts = []
    for _ in range(7):
        run.step(gradients)
        counts += run.pruned()
    assert counts == [0, 0, 0, 16, 16, 16, 16]


def test_running_scores_are_the_recurrence():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)).double()
    modifier = SnipMomentumPruningModifier(**fields(), score_decay=0.8, score_gain=0.5)
    run = Training(net, modifier, lr=0.1)
    expected = [torch.zeros(8, 8).double()] * 2
    for _ in range(5):
        gradients = [torch.randn(8, 8).double() for _ in net]
        products = [(g * one.weight.detach()).abs() for g, one in zip(gradients, net, strict=True)]
        if modifier.started:  # gradients of what is pruned are gone, and so is its weight
            assert all(
                (p[one.weight == 0] == 0).all() for p, one in zip(products, net, strict=True)
            )
        expected = [0.8 * q + 0.5 * new for q, new in zip(expected, products, strict=True)]
        run.step(gradients)
        found = modifier.method.scores(modifier.problem(net))
        for q, wanted in zip(found, expected, strict=True):
            torch.testing.assert_close(q, wanted)
    flat, gone = torch.stack(expected).flatten(), torch.cat([p.weight.flatten() for p in net]) == 0
    assert int(gone.sum()) and flat[gone].max() <= flat[~gone].min()


@pytest.mark.parametrize("score_type", ["snip", "gradient", "magnitude"])
def test_other_scores_go_by_the_last_step(score_type):
    torch.manual_seed(1)
    net = nn.Sequential(nn.Linear(8, 8, bias=False)).double()
    modifier = SnipMomentumPruningModifier(
        **fields(start_step=2, end_step=2), score_type=score_type
    )
    run = Training(net, modifier, lr=0.05)
    for _ in range(3):
        weight, grad = net[0].weight.detach().clone(), torch.randn(8, 8).double()
        run.step([grad])
    score = {"snip": weight * grad, "gradient": grad, "magnitude": weight}[score_type].abs()
    mask = modifier.masks["0.weight"]
    assert int((~mask).sum()) == 32 and score[~mask].max() <= score[mask].min()


def test_the_highest_score_of_a_block_is_taken_before_summing():
    # of the first block one weight scores 3 in each step; of the second they take turns
    net, _ = of_layers([(4, 2)])
    modifier = SnipMomentumPruningModifier(**fields(mask_type="4x1", score_reduce="max"))
    run = Training(net, modifier)
    for step in range(7):
        scores = torch.zeros(4, 2).double()
        scores[0, 0], scores[step % 4, 1] = 3.0, 4.0
        run.step([scores])
    assert (net[0].weight[:, 0] == 0).all() and (net[0].weight[:, 1] != 0).all()


def test_highest_scores_of_layers_with_inputs_first():
    layer = Conv1D(8, 6)
    plain = nn.Linear(6, 8)
    plain.weight.data = layer.weight.detach().T.clone()
    grad, found = torch.rand(8, 6), []
    for one, own in ((layer, grad.T), (plain, grad)):
        modifier = SnipMomentumPruningModifier(**fields(mask_type="4x1", score_reduce="max"))
        modifier.initialize(one)
        one.weight.grad = own.clone()
        modifier.method.observe(modifier.masks)
        found.append(modifier.outcome(one)["weight"].mask)
    assert torch.equal(found[0].T, found[1])


@pytest.mark.parametrize("kind", [nn.Linear, Conv1D, nn.Conv2d])
@pytest.mark.parametrize(("keep", "group"), [(2, 4), (1, 4), (3, 4), (2, 8)])
def test_every_group_of_inputs_keeps_n_of_m(kind, keep, group):
    torch.manual_seed(0)
    made = {nn.Linear: (16, 12), Conv1D: (12, 16), nn.Conv2d: (16, 12, 3)}
    layer = kind(*made[kind])
    modifier = SnipMomentumPruningModifier(
        **fields(final_sparsity=1 - keep / group, mask_type=f"{keep}:{group}")
    )
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    stepper = ScheduledModifierManager([modifier]).modify(layer, optimizer, steps_per_epoch=7)
    for _ in range(12):
        stepper.zero_grad()
        inputs = torch.randn(4, 16, 5, 5) if kind is nn.Conv2d else torch.randn(4, 16)
        layer(inputs).pow(2).mean().backward()
        stepper.step()
    weight = layer.weight.T if kind is Conv1D else layer.weight
    groups = (weight != 0).unflatten(1, (-1, group)).sum(2)
    assert (groups == keep).all()


@pytest.mark.parametrize(("mask_type", "sparsity"), [("3:4", 0.25), ("1:4", 0.75), ("6:8", 0.25)])
def test_the_true_sparsity_is_logged(mask_type, sparsity):
    net, _ = of_layers([(4, 16)])
    modifier = SnipMomentumPruningModifier(**fields(final_sparsity=sparsity, mask_type=mask_type))
    logged = []
    logger = LambdaLogger(lambda **entry: logged.append((entry["tag"], entry["value"])) or True)
    loggers = LoggerManager([logger], log_frequency=0.0, log_python=False)
    run = Training(net, modifier, loggers=loggers)
    for _ in range(7):
        run.step([torch.rand(4, 16).double()])
    assert logged[-1] == ("ParamPruning/0.weight", sparsity)


@pytest.mark.parametrize("reduce", ["mean", "sum"])
def test_what_blocks_come_to_may_be_summed_up_before_or_after(reduce):
    net, _ = of_layers([(8, 6)])
    modifier = SnipMomentumPruningModifier(**fields(mask_type="4x1", score_reduce=reduce))
    run, block = Training(net, modifier), torch.zeros(2, 6).double()
    for _ in range(2):  # nothing is pruned yet
        grad = torch.randn(8, 6).double()
        folded = (grad * net[0].weight.detach()).abs().view(2, 4, 6)
        block = 0.9 * block + (folded.mean(1) if reduce == "mean" else folded.sum(1))
        run.step([grad])
    scores = modifier.method.scores(modifier.problem(net))[0]
    torch.testing.assert_close(modifier._pattern.unit_scores(scores), block)


def test_zeros_are_exact_after_every_step_and_stay_after_the_end():
    model = small_bert()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.1)
    modifier = SnipMomentumPruningModifier(**fields(params=["re:.*(query|dense).weight"]))
    stepper = ScheduledModifierManager([modifier]).modify(model, optimizer, 7)
    for step in range(12):
        learn(model, stepper, 1)
        masks = dict(modifier.masks.items())
        assert len(masks) == 9
        for name, mask in masks.items():
            weight = model.get_parameter(name)
            assert not weight[~mask].any() and not weight[~mask].signbit().any()
            assert (weight != 0).equal(mask)
        pruned = sum(int((~mask).sum()) for mask in masks.values())
        assert (pruned == sum(mask.numel() for mask in masks.values()) // 2) == (step >= 6)


def small_bert():
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    config = BertConfig(vocab_size=50, num_hidden_layers=2, max_position_embeddings=16, **sizes)
    torch.manual_seed(0)
    return BertForSequenceClassification(config)


def learn(model, stepper, steps, accumulate=1):
    generator = torch.Generator().manual_seed(3)
    for _ in range(steps):
        stepper.zero_grad()
        for _ in range(accumulate):
            tokens = torch.randint(50, (4, 8), generator=generator)
            labels = torch.randint(2, (4,), generator=generator)
            model(input_ids=tokens, labels=labels).loss.backward()
        stepper.step()


MIXED = """
modifiers:
  - !SnipMomentumPruningModifier
    params: ["re:.*(output|intermediate)[.]dense.weight"]
    init_sparsity: 0.0
    final_sparsity: 0.9
    start_step: 2
    end_step: 10
    update_steps: 2
    global_sparsity: False
  - !SnipMomentumPruningModifier
    params: ["re:.*(query|key|value).weight"]
    init_sparsity: 0.0
    final_sparsity: 0.9
    start_step: 2
    end_step: 10
    update_steps: 2
    mask_type: 4x1
    min_sparsity_per_param: 0.5
    max_sparsity_per_param: 0.95
"""


def test_a_mixed_recipe_holds_both_patterns_and_all_limits():
    model = small_bert()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    stepper = ScheduledModifierManager.from_yaml(MIXED).modify(model, optimizer, 7)
    learn(model, stepper, 14)
    blocks, total = 0, 0
    for name, weight in model.named_parameters():
        zero = weight == 0
        if name.endswith(("query.weight", "key.weight", "value.weight")):
            units = zero.view(8, 4, 32).sum(1)
            assert set(units.unique().tolist()) <= {0, 4}
            assert 0.5 <= zero.double().mean() <= 0.95
            blocks, total = blocks + int((units == 4).sum()), total + units.numel()
        elif "encoder" in name and name.endswith("dense.weight"):
            assert int(zero.sum()) == int(0.9 * weight.numel())
        elif weight.ndim == 2 and "embeddings" not in name:
            assert not zero.any(), name
    assert blocks == int(0.9 * total)


def test_accumulation_and_skipped_steps_count_for_nothing():
    def scores(accumulate, skip):
        model = small_bert().double().eval()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        modifier = SnipMomentumPruningModifier(
            **{**fields(), "params": ["re:.*query.weight"]}, mask_type="4x1"
        )
        stepper = ScheduledModifierManager([modifier]).modify(model, optimizer, 7)
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        generator = torch.Generator().manual_seed(3)
        for step in range(8):
            if step == skip:
                broken = model(input_ids=torch.zeros(1, 4).long(), labels=torch.zeros(1).long())
                scaler.scale(broken.loss * torch.inf).backward()
                scaler.step(stepper)
                scaler.update()
                stepper.zero_grad()
            tokens = torch.randint(50, (4, 8), generator=generator)
            labels = torch.randint(2, (4,), generator=generator)
            for part in range(accumulate):
                own = slice(part * 4 // accumulate, (part + 1) * 4 // accumulate)
                loss = model(input_ids=tokens[own], labels=labels[own]).loss / accumulate
                scaler.scale(loss).backward()
            scaler.step(stepper)
            scaler.update()
            stepper.zero_grad()
            if step == 5:
                found = [one.clone() for one in modifier.method.scores(modifier.problem(model))]
        return found, [mask.clone() for mask in modifier.masks.masks]

    plain = scores(1, None)
    for other in (scores(2, None), scores(1, 2), scores(1, 5)):
        for one, expected in zip(other[0], plain[0], strict=True):
            torch.testing.assert_close(one, expected, rtol=1e-6, atol=1e-12)
        assert all(torch.equal(a, b) for a, b in zip(other[1], plain[1], strict=True))


def test_evaluating_changes_neither_scores_nor_masks():
    model = small_bert()
    modifier = SnipMomentumPruningModifier(**{**fields(), "params": ["re:.*query.weight"]})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    stepper = ScheduledModifierManager([modifier]).modify(model, optimizer, 7)
    learn(model, stepper, 2)  # the next step would prune
    before = copy.deepcopy((modifier.progress_state(), model.state_dict()))
    model.eval()
    with torch.no_grad():
        for _ in range(3):
            model(input_ids=torch.zeros(2, 8).long())
    scores, again = before[0]["method"]["running"], modifier.progress_state()["method"]["running"]
    assert scores and all(torch.equal(again[name], value) for name, value in scores.items())
    assert all(torch.equal(before[1][name], value) for name, value in model.state_dict().items())


def test_when_pruning_has_ended_no_scores_are_kept():
    net, gradients = of_layers([(4, 8)], [torch.rand(4, 8)])
    modifier = SnipMomentumPruningModifier(**fields())
    run = Training(net, modifier)
    for step in range(9):
        run.step(gradients)
        running = modifier.progress_state()["method"]["running"]
        assert bool(running) == (step < 6)


def test_layers_that_do_not_divide():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 2))
    with pytest.raises(ValueError, match=r"2:4.*cannot mask 0[.]weight.*multiple of 4"):
        SnipMomentumPruningModifier(**fields(mask_type="2:4")).initialize(net)
    with pytest.raises(ValueError, match=r"4x1.*cannot mask 3[.]weight.*do not divide"):
        SnipMomentumPruningModifier(**fields(mask_type="4x1")).initialize(net)


def test_layers_that_do_not_divide_may_be_left_dense(caplog):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 2))
    modifier = SnipMomentumPruningModifier(**fields(mask_type="2:4"), skip_indivisible=True)
    assert [one.name for one in modifier.selects(net)] == ["1.weight", "3.weight"]
    assert "0.weight is left dense: 2:4 needs an input dimension" in caplog.text
    few = {"params": ["0.weight"], "mask_type": "2:4", "skip_indivisible": True}
    with pytest.raises(ValueError, match=r"skip_indivisible of Snip.* leave nothing"):
        SnipMomentumPruningModifier(**fields(**few)).selects(net)
    with pytest.raises(ValueError, match=r"mask_type must be one of .*found '4by1'"):
        SnipMomentumPruningModifier(**fields(**{**few, "mask_type": "4by1"})).selects(net)


def test_layers_of_some_types():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 2))
    for kinds, expected in ((["Linear"], ["2.weight"]), (["Conv", "Linear"], None)):
        modifier = SnipMomentumPruningModifier(**fields(layer_types=kinds))
        names = [one.name for one in modifier.selects(net)]
        assert names == (expected or ["0.weight", "2.weight"])


def test_a_parameter_without_gradient_is_named():
    net, _ = of_layers([(4, 8), (4, 8)])
    modifier = SnipMomentumPruningModifier(**fields())
    stepper = ScheduledModifierManager([modifier]).modify(
        net, torch.optim.SGD(net.parameters(), lr=0.1), 7
    )
    net[0].weight.grad = torch.rand(4, 8).double()
    stepper.step()
    stepper.step()
    with pytest.raises(RuntimeError, match=r"no gradient has reached 1[.]weight while.*exclude"):
        stepper.step()


def test_one_shot_without_gradients_goes_by_magnitude(caplog):
    torch.manual_seed(0)
    layer = nn.Linear(16, 8)
    before = layer.weight.detach().abs()
    SnipMomentumPruningModifier(**fields()).apply(layer)
    gone = layer.weight == 0
    assert int(gone.sum()) == 64 and before[gone].max() <= before[~gone].min()
    assert "no gradient has been seen yet" in caplog.text
