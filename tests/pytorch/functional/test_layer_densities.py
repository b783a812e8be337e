from __future__ import annotations

import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sparseml.pytorch.functional.layer_densities import (
    DENSITY_RULES,
    density_counts,
    layer_densities,
)

shape_lists = st.lists(st.lists(st.integers(1, 60), min_size=2, max_size=4), min_size=1, max_size=8)
rules = st.sampled_from(sorted(DENSITY_RULES))


def by_bisection(shapes, sparsity, rule):
    """The factor at which min(1, factor * ratio) keeps what it should, by halving intervals."""
    sizes = [math.prod(shape) for shape in shapes]
    ratios = [DENSITY_RULES[rule](shape) for shape in shapes]
    wanted = (1.0 - sparsity) * sum(sizes)
    low, high = 0.0, 1.0 / min(ratios)
    for _ in range(200):
        factor = (low + high) / 2
        kept = math.fsum(
            size * min(1.0, factor * ratio) for size, ratio in zip(sizes, ratios, strict=True)
        )
        low, high = (low, factor) if kept > wanted else (factor, high)
    return [min(1.0, high * ratio) for ratio in ratios]


@given(shape_lists, st.floats(0.0, 1.0), rules)
@example([[3, 4], [5, 5]], 0.0, "erdos_renyi")
@example([[3, 4], [5, 5]], 1.0, "erdos_renyi")
@example([[8, 8]] * 5, 0.5, "erdos_renyi_kernel")
def test_densities_agree_with_bisection(shapes, sparsity, rule):
    densities = layer_densities(shapes, sparsity, rule)
    assert densities == pytest.approx(by_bisection(shapes, sparsity, rule), abs=1e-9)
    assert all(0.0 <= density <= 1.0 for density in densities)


@given(shape_lists, st.floats(0.0, 1.0), rules)
def test_counts_are_exact_in_sum_and_near_each_density(shapes, sparsity, rule):
    sizes = [math.prod(shape) for shape in shapes]
    counts = density_counts(shapes, sparsity, rule)
    assert sum(counts) == round(sum(sizes) * sparsity)
    densities = layer_densities(shapes, sparsity, rule)
    for count, size, density in zip(counts, sizes, densities, strict=True):
        assert 0 <= count <= size
        assert abs(count - size * (1 - density)) < 1 + 1e-6


def test_by_hand():
    # 4 x 4 and 8 x 2 x 3 x 3: ratios 8/16 and 16/144 (kernel), 8/16 and 10/16 (matrices)
    shapes = [(4, 4), (8, 2, 3, 3)]
    assert layer_densities(shapes, 0.9) == pytest.approx([1 / 3, 16 / 216])
    assert layer_densities(shapes, 0.9, "uniform") == pytest.approx([0.1, 0.1])
    factor = 16 / (16 * 0.5 + 144 * 0.625)
    expected = [0.5 * factor, 0.625 * factor]
    assert layer_densities(shapes, 0.9, "erdos_renyi") == pytest.approx(expected)
    # at 60% the small layer would be 1.33 times dense: the large one takes the rest
    assert layer_densities(shapes, 0.6) == pytest.approx([1.0, 48 / 144])
    assert density_counts(shapes, 0.6) == [0, 96]


def test_narrow_layers_are_denser():
    wide, narrow = layer_densities([(512, 512), (512, 10)], 0.95)
    assert narrow > wide


def test_weights_without_elements_take_no_part():
    assert layer_densities([(0, 4), (4, 4)], 0.5) == pytest.approx([1.0, 0.5])
    assert density_counts([(0, 4), (4, 4)], 0.5) == [0, 8]
    assert layer_densities([], 0.5) == density_counts([], 0.5) == []


def test_wrong_input():
    with pytest.raises(ValueError, match=r"between 0 and 1, found 1\.5"):
        layer_densities([(2, 2)], 1.5)
    with pytest.raises(ValueError, match=r"rule must be one of uniform, .* found 'erk'"):
        layer_densities([(2, 2)], 0.5, "erk")
    with pytest.raises(ValueError, match=r"at least two dimensions, found \(7,\)"):
        layer_densities([(2, 2), (7,)], 0.5, "erdos_renyi")
    assert layer_densities([(7,)], 0.5, "uniform") == [0.5]


@given(shape_lists, st.floats(0.0, 1.0), st.floats(0.0, 0.9), rules)
def test_none_is_less_dense_than_the_least(shapes, share, least, rule):
    sizes = [math.prod(shape) for shape in shapes]
    sparsity = share * (1.0 - least)
    densities = layer_densities(shapes, sparsity, rule, least)
    assert all(least - 1e-9 <= density <= 1.0 for density in densities)
    kept = math.fsum(size * density for size, density in zip(sizes, densities, strict=True))
    assert kept == pytest.approx((1.0 - sparsity) * sum(sizes))
    # the others are in proportion to their ratios
    factors = [
        density / DENSITY_RULES[rule](shape)
        for density, shape in zip(densities, shapes, strict=True)
        if least + 1e-6 < density < 1.0 - 1e-6
    ]
    assert factors == pytest.approx([factors[0]] * len(factors)) if factors else True
