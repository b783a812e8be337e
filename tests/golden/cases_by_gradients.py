"""What modifiers are asked to do that sample gradients."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cases import (
    DENSE,
    GRADUAL,
    LAYERS,
    SELDOM,
    WHEN,
    Fields,
    both,
    case,
    fitting,
    mapping,
    patterns,
)
from replay import FOLDER_TOKEN, Scenario


def _rigl() -> Iterator[Scenario]:
    base = {**WHEN, **LAYERS, "final_sparsity": 0.6, "num_grads": 2}
    for rule in ("uniform", "erdos_renyi", "erdos_renyi_kernel"):
        for model in ("mlp", "conv"):
            yield from both("RigL", rule, model, {**base, "sparsity_strategy": rule})
    yield from both("RigL", "zeros", "zeros", {**base, "start_epoch": 0.0})
    yield from both("RigL", "ties", "ties", {**base, "start_epoch": 0.0})
    moving = {**base, "init_update_fraction": 0.8, "momentum_buffer_reset": False, "num_grads": 4}
    yield case("RigL", "moving", "gradual", "mlp", moving)
    yield case("RigL", "seed", "gradual", "mlp", {**base, "grad_sampler_kwargs": {"seed": 9}})
    yield case("RigL", "left", "gradual", "mlp", {**base, "leave_enabled": False})
    yield case("RigL", "resumed", "resumed", "mlp", base, sampler="iterator")


def _sampled(modifier: str, base: Fields, **more: Any) -> Iterator[Scenario]:
    """What every modifier that samples gradients knows."""
    own = {**base, "init_sparsity": "__FROM_PARAM__", "final_sparsity": 0.8, "start_epoch": 0.0}
    yield from both(modifier, "plain", "conv", base, **more)
    yield from both(modifier, "from param", "zeros", own, **more)
    yield from both(
        modifier,
        "below what is zero",
        "zeros",
        {**base, "start_epoch": 0.0, "final_sparsity": 0.3},
        **more,
    )
    yield from both(modifier, "plain", "ties", base, **more)
    yield case(modifier, "left", "gradual", "mlp", {**base, "leave_enabled": False}, **more)
    seed = {**base, "grad_sampler_kwargs": {"seed": 9}, "inter_func": "linear"}
    yield case(modifier, "seed", "gradual", "mlp", seed, **more)
    yield case(modifier, "resumed", "resumed", "mlp", base, **{**more, "sampler": "iterator"})
    for model in ("mlp", "conv", "zeros"):
        sparsities = (0.65, 0.8, 0.9) if model == "zeros" else (0.3, 0.5, 0.8)
        yield case(modifier, "plain", "sweep", model, base, **more, sparsities=sparsities)


def _gw_prod() -> Iterator[Scenario]:
    base = {**GRADUAL, **SELDOM, "num_grads": 6}
    yield from patterns("GWProd", base, conv=("unstructured", "2:4", "filter"))
    yield from _sampled("GWProd", base)
    yield from mapping("GWProd", base)
    together = {**base, "global_sparsity": True}
    for pattern in ("unstructured", "block4", "2:4", [1, 4]):
        yield from both("GWProd", f"global {pattern}", "mlp", {**together, **fitting(pattern)})
    for name, fields in (("global", together), ("block4", {**base, "mask_type": "block4"})):
        yield case("GWProd", name, "sweep", "mlp", fields, sparsities=(0.25, 0.5, 0.75))


def _mfac() -> Iterator[Scenario]:
    base = {**GRADUAL, **SELDOM, "num_grads": 6, "damp": 1e-3, "fisher_block_size": 32}
    yield from patterns("MFAC", base, conv=("unstructured", "2:4", "filter"))
    yield from _sampled("MFAC", base)
    yield from mapping("MFAC", base)
    together = {**base, "global_sparsity": True}
    yield from both("MFAC", "global", "mlp", together)
    yield from both("MFAC", "global block4", "mlp", {**together, "mask_type": "block4"})
    for kind in ("block", "small_block"):
        yield from both("MFAC", kind, "mlp", {**base, "block_implementation": kind})
    whole = {**base, "fisher_block_size": None, "num_pages": 2}
    yield from both("MFAC", "one block", "mlp", whole)
    yield from both("MFAC", "counts", "mlp", {**base, "num_grads": {0.0: 3, 0.3: 5, 0.5: 8}})
    buffered = {**base, "use_gradient_buffering": True, "start_epoch": 1.25, "num_grads": 4}
    for model in ("mlp", "conv"):
        yield case("MFAC", "buffered", "gradual", model, buffered, sampler="none")
    never_asked = {**buffered, "use_gradient_buffering": None, "global_sparsity": True}
    yield case("MFAC", "without sampler", "gradual", "mlp", never_asked, sampler="none")
    counts = {**buffered, "num_grads": {0.0: 2, 0.4: 5}}
    yield case("MFAC", "buffered counts", "gradual", "mlp", counts, sampler="none")
    yield case("MFAC", "buffered", "resumed", "mlp", buffered, sampler="none")
    for name, fields in (("global", together), ("one block", whole)):
        yield case("MFAC", name, "sweep", "mlp", fields, sparsities=(0.25, 0.5, 0.75))


def _fisher_fields(modifier: str, base: Fields) -> Iterator[Scenario]:
    """The fields that OBS and CAP share."""
    each = {**base, "global_sparsity": False}
    yield from _sampled(modifier, base)
    yield from mapping(modifier, each)
    yield from both(modifier, "plain", "mlp", base)
    yield from both(modifier, "each", "mlp", each)
    yield from both(modifier, "each", "conv", each)
    for update in ("simultaneous", "joint"):
        yield from both(modifier, update, "mlp", {**base, "weight_update": update})
    for layout in ("padded", "divisor", "row"):
        fields = {**base, "fisher_block_layout": layout, "fisher_block_size": 12}
        yield from both(modifier, layout, "mlp", fields)
        yield case(modifier, layout, "one_shot", "conv", fields)
    for model in ("mlp", "conv"):
        by_sample = {**base, "fisher_samples": "sample"}
        yield from both(modifier, "by sample", model, by_sample)
    small = {**base, "fisher_memory": "30kB"}
    yield from both(modifier, "memory", "mlp", small)
    yield from both(modifier, "memory each", "mlp", {**small, "global_sparsity": False})
    again = {**base, "num_recomputations": 3}
    yield from both(modifier, "recomputations", "mlp", again)
    cubic = {**each, "num_recomputations": 2, "recomputation_inter_func": "cubic"}
    yield from both(modifier, "recomputations each", "mlp", cubic)
    yield from both(modifier, "double", "mlp", {**base, "fisher_dtype": "float64"})
    sweeps = {
        "each": each,
        "memory": small,
        "recomputations": again,
        "block4": {**base, "mask_type": "block4"},
    }
    for name, fields in sweeps.items():
        yield case(modifier, name, "sweep", "mlp", fields, sparsities=(0.25, 0.5, 0.75))


def _obs() -> Iterator[Scenario]:
    base = {**GRADUAL, **SELDOM, "num_grads": 8, "damp": 1e-3, "fisher_block_size": 16}
    yield from _fisher_fields("OBS", base)
    yield from both("OBS", "block4", "mlp", {**base, "mask_type": "block4"})
    yield from both("OBS", "block4", "conv", {**base, **DENSE, "mask_type": "block4"})
    yield from both("OBS", "diagonal", "mlp", {**base, "fisher_block_size": 1})


def _cap() -> Iterator[Scenario]:
    base = {**GRADUAL, **SELDOM, "num_grads": 8, "damp": 1e-3, "fisher_block_size": 16}
    yield from _fisher_fields("CA", base)
    for pattern in ("block4", "2:4", "1x2", [1, 4]):
        for where, fields in (("global", base), ("each", {**base, "global_sparsity": False})):
            chosen = {**fields, **fitting(pattern)}
            yield from both("CA", f"{where} {pattern}", "mlp", chosen)
            yield case("CA", f"{where} {pattern}", "one_shot", "conv", {**chosen, **DENSE})
    nm = {**base, "mask_type": "2:4", "final_sparsity": 0.5}
    yield case("CA", "2:4", "sweep", "mlp", nm, sparsities=(0.2, 0.5))
    traces = {**base, "fisher_memory": "30kB", "traces_backup_dir": FOLDER_TOKEN}
    yield case("CA", "traces", "sweep", "mlp", traces, sparsities=(0.25, 0.5, 0.75))
    yield case("CA", "traces once", "sweep", "mlp", traces, sparsities=(0.6,))


def _fast_cap() -> Iterator[Scenario]:
    base = {**GRADUAL, **SELDOM, "num_grads": 8, "damp": 0.01, "fisher_block_size": 16}
    yield from _sampled("FastCA", base)
    yield from mapping("FastCA", base)
    yield from both("FastCA", "plain", "mlp", base)
    yield from both("FastCA", "narrow", "mlp", {**base, "block_size": 4})
    yield from both("FastCA", "by sample", "mlp", {**base, "damp": 0.1, "fisher_samples": "sample"})
    yield from both("FastCA", "double", "mlp", {**base, "fisher_dtype": "float64"})
    yield case(
        "FastCA", "narrow", "sweep", "mlp", {**base, "block_size": 4}, sparsities=(0.25, 0.5, 0.75)
    )


MAKERS = (_rigl, _gw_prod, _mfac, _obs, _cap, _fast_cap)
