"""Rows that share a matrix, against dense solutions in double precision."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from sparseml.pytorch.functional.second_order.input_moments import InputMoments, conv_patches
from sparseml.pytorch.functional.second_order.shared_rows import ORDERS, shared_rows
from sparseml.pytorch.functional.second_order.whole_rows import solve_rows

DAMP = 1e-2


def moments_of(inputs, shape, run=1, groups=1):
    moments = InputMoments(shape, groups=groups, run=run, dtype=torch.float64)
    moments.accumulate(inputs.reshape(-1, shape[1] * groups, *shape[2:]))
    return moments


def problem(rows=5, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(size, size, generator=generator).double()
    inputs = torch.randn(4 * size, size, generator=generator).double() @ mix
    return torch.randn(rows, size, generator=generator).double(), inputs


def dense(inputs, damp=DAMP):
    matrix = 2 / len(inputs) * inputs.T @ inputs
    return matrix + damp * matrix.diagonal().mean() * torch.eye(len(matrix)).double()


def test_rows_are_solved_as_the_dense_oracle_does(oracle):
    weight, inputs = problem()
    matrix = dense(inputs)
    keep = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) > 0.5
    keep[0], keep[1] = True, False
    new = solve_rows(weight, matrix, keep)
    for row, old, kept in zip(new, weight, keep, strict=True):
        best, _ = oracle.best_rest(old, matrix, (~kept).nonzero()[:, 0].tolist())
        torch.testing.assert_close(row, best)


@pytest.mark.parametrize("order", ORDERS)
def test_a_sweep_leaves_no_gradient_right_of_what_went(order):
    weight, inputs = problem()
    one = shared_rows(weight, moments_of(inputs, weight.shape), damp=DAMP, order=order)
    keep = one.costs() > one.costs().median()
    new, kept = one.swept(keep)
    assert torch.equal(kept, keep) and torch.equal(new != 0, keep)
    slope, places = (new - weight) @ dense(inputs), one.places[0]
    for row, on in zip(slope, keep, strict=True):
        last = int((~on[places]).nonzero()[-1, 0])
        torch.testing.assert_close(row[places][last + 1 :], torch.zeros(7 - last).double())


def test_costs_are_what_pruning_one_run_alone_costs_by_what_is_right_of_it(oracle):
    weight, inputs = problem()
    matrix = dense(inputs)
    for run in (1, 2, 4):
        one = shared_rows(weight, moments_of(inputs, weight.shape, run), damp=DAMP)
        costs = one.costs().view(5, -1, run).sum(-1)
        for row, place in itertools.product(range(5), range(8 // run)):
            rest = slice(place * run, None)
            _, loss = oracle.best_rest(weight[row, rest], matrix[rest, rest], range(run))
            assert float(costs[row, place]) == pytest.approx(loss)


@pytest.mark.parametrize(("run", "nm"), [(1, None), (2, None), (4, (2, 4))])
def test_elimination_equals_brute_force(oracle, run, nm):
    weight, inputs = problem()
    one = shared_rows(weight, moments_of(inputs, weight.shape, run), damp=DAMP)
    scores = one.eliminated(nm)
    group = 1 if nm else run
    for row, found in zip(weight, scores, strict=True):
        order, losses = oracle.greedy(row, dense(inputs), group=group, nm=nm)
        expected = torch.full((8 // group,), torch.inf).double()
        expected[order] = torch.tensor(losses).double()
        torch.testing.assert_close(found.view(-1, group)[:, 0], expected)


def brute_force_nm(weight, matrix, oracle):
    """The best mask of two of four for one row, and its loss."""
    halves = list(itertools.combinations(range(4), 2))
    tries = [[*first, *(4 + place for place in second)] for first in halves for second in halves]
    return min(oracle.best_rest(weight, matrix, gone)[1] for gone in tries)


def test_two_of_four_come_near_the_best_of_all_masks(oracle):
    """Joint weights are best for their mask; no mask is better than the best of all."""
    weight, inputs = problem(rows=12)
    matrix = dense(inputs)
    one = shared_rows(weight, moments_of(inputs, weight.shape, 4), damp=DAMP)
    nothing = torch.zeros_like(weight, dtype=torch.bool)
    swept, kept = one.swept(nothing, (2, 4))
    assert (kept.view(12, 2, 4).sum(-1) == 2).all()
    scores = one.eliminated((2, 4)).view(12, 2, 4)
    chosen = torch.zeros_like(scores, dtype=torch.bool)
    chosen = chosen.scatter_(2, scores.topk(2, dim=2).indices, True).view_as(weight)
    best = sum(brute_force_nm(row, matrix, oracle) for row in weight)
    by = [
        oracle.loss(weight.flatten(), new.flatten(), torch.block_diag(*[matrix] * 12))
        for new in (swept, one.solved(kept), one.solved(chosen))
    ]
    assert by[0] > by[1] > by[2] >= best - 1e-9
    assert by[2] < 1.3 * best


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_patches_are_what_a_convolution_multiplies(groups, mode):
    torch.manual_seed(0)
    layer = nn.Conv2d(
        4, 8, (3, 2), stride=(2, 1), dilation=(1, 2), padding=(1, 2), groups=groups,
        bias=False, padding_mode=mode,
    ).double()  # fmt: skip
    images = torch.randn(3, 4, 9, 7).double()
    how = {name: getattr(layer, name) for name in ("stride", "dilation", "padding_mode")}
    pads = layer._reversed_padding_repeated_twice
    patches = torch.cat(conv_patches(images, layer.kernel_size, padding=pads, **how))
    by_group = patches.unflatten(1, (groups, -1)).transpose(0, 1).flatten(2)
    weight = layer.weight.unflatten(0, (groups, -1)).flatten(2)
    outputs = (by_group @ weight.mT).transpose(0, 1).flatten(1)
    torch.testing.assert_close(outputs, layer(images).movedim(1, -1).flatten(0, -2))


@pytest.mark.parametrize("run", [1, 2])
def test_groups_and_kernels_have_a_matrix_each(oracle, run):
    torch.manual_seed(0)
    layer = nn.Conv1d(4, 6, 2, groups=2, bias=False).double()
    series = torch.randn(8, 4, 9).double()
    patches = torch.cat(conv_patches(series, (2,), stride=(1,), dilation=(1,), padding=(0, 0)))
    moments = moments_of(patches, layer.weight.shape, run, groups=2)
    weight = layer.weight.detach()
    one = shared_rows(weight, moments, damp=DAMP)
    new = one.solved(one.costs() > one.costs().median())
    for group in range(2):
        own = patches.unflatten(1, (2, -1))[:, group].flatten(1)
        for row in range(3 * group, 3 * group + 3):
            gone = (new[row].flatten() == 0).nonzero()[:, 0].tolist()
            best, _ = oracle.best_rest(weight[row].flatten(), dense(own), gone)
            torch.testing.assert_close(new[row].flatten(), best)


def test_dead_inputs_and_dead_weights_stay_out_of_it():
    weight, inputs = problem()
    inputs[:, 3] = 0
    mask = torch.ones_like(weight, dtype=torch.bool)
    mask[:, 5], mask[2, 1] = False, False
    for order in ORDERS:
        one = shared_rows(
            weight, moments_of(inputs, weight.shape), damp=DAMP, mask=mask, order=order
        )
        keep = mask & (torch.arange(8) % 2 > 0)
        for new in (one.swept(keep)[0], one.solved(keep)):
            assert bool(new.isfinite().all()) and torch.equal(new != 0, keep)


def test_wrong_arguments():
    weight, inputs = problem()
    moments = moments_of(inputs, weight.shape)
    with pytest.raises(ValueError, match=r"order is one of \('natural'.*found 'size'"):
        shared_rows(weight, moments, damp=DAMP, order="size")
    with pytest.raises(ValueError, match="damp must be a finite number above 0, found 0"):
        shared_rows(weight, moments, damp=0.0)
    with pytest.raises(ValueError, match="no input has been accumulated"):
        shared_rows(weight, InputMoments(weight.shape), damp=DAMP)
    with pytest.raises(ValueError, match="all zero, so there is nothing to prune by"):
        shared_rows(weight, moments_of(inputs * 0, weight.shape), damp=DAMP)
    with pytest.raises(ValueError, match=r"need a weight \[out, in, \*kernel\], found \(8,\)"):
        InputMoments((8,))
