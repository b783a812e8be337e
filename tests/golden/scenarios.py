"""What every pruning modifier is asked to do, and the outcomes that were written down.

    python tests/golden/scenarios.py --write                   # all of outcomes/*.json anew
    python tests/golden/scenarios.py --write CAPruningModifier  # of one modifier
    python tests/golden/scenarios.py --list

The outcomes are those of the commit before the pruning modifiers were rebuilt. They are not to be
written anew to make a test pass: what changes on purpose is listed in the changelog.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from replay import FOLDER_TOKEN, Scenario, outcome_of, single_threaded

OUTCOMES = Path(__file__).parent / "outcomes"

Fields = dict[str, Any]

WHEN: Fields = {"start_epoch": 0.5, "end_epoch": 2.5, "update_frequency": 0.5}
WHOLE: Fields = {"start_epoch": 0.0, "end_epoch": 3.0, "update_frequency": 1.0}
LAYERS: Fields = {"params": "__ALL_PRUNABLE__"}
WEIGHTS: Fields = {"params": ["re:.*weight"]}
DENSE: Fields = {"params": ["conv.weight", "head.weight"]}
GRADUAL: Fields = {**WHEN, **LAYERS, "init_sparsity": 0.1, "final_sparsity": 0.6}
PATTERNS = ("unstructured", "block4", "2:4", "filter", "channel", "4x1", "2x2", [1, 4])
GROUPED: Fields = {
    "params": ["re:conv.*", "re:norm.*", "re:depthwise.*", "head.weight"],
    "param_groups": [
        ["conv.weight", "conv.bias", "norm.weight", "norm.bias", "depthwise.weight"],
    ],
}


def _case(
    modifier: str, name: str, way: str, model: str, fields: Mapping[str, Any], **more: Any
) -> Scenario:
    return Scenario(
        f"{modifier}PruningModifier", f"{way} {model} {name}", way, model, fields, **more
    )


def _both(
    modifier: str, name: str, model: str, fields: Mapping[str, Any], **more: Any
) -> Iterator[Scenario]:
    for way in ("one_shot", "gradual"):
        yield _case(modifier, name, way, model, fields, **more)


def _fitting(pattern: Any) -> Fields:
    """What a pattern asks of the sparsities: N:M leads to one only."""
    return {"mask_type": pattern, **({"final_sparsity": 0.5} if pattern == "2:4" else {})}


def _patterns(modifier: str, base: Fields, conv: Sequence[Any] = PATTERNS) -> Iterator[Scenario]:
    """Every pattern, on linear layers and (some) on those of a convolutional net that it fits."""
    for pattern in PATTERNS:
        fields = {**base, **_fitting(pattern)}
        yield from _both(modifier, str(pattern), "mlp", fields)
        if pattern not in conv:
            continue
        fits_all = pattern in ("unstructured", "filter", "channel")
        chosen = LAYERS if fits_all else DENSE
        yield from _both(modifier, str(pattern), "conv", {**fields, **chosen})


def _gradual_basics(modifier: str, base: Fields, **more: Any) -> Iterator[Scenario]:
    """What every modifier with an initial and a final sparsity knows."""
    own = {**base, "init_sparsity": "__FROM_PARAM__", "final_sparsity": 0.8}
    early = {**base, "start_epoch": 0.0, "final_sparsity": 0.3}
    yield from _both(modifier, "from param", "zeros", {**own, "start_epoch": 0.0}, **more)
    yield from _both(modifier, "among zeros", "zeros", early, **more)
    yield from _both(modifier, "among ties", "ties", early, **more)
    yield _case(modifier, "linear", "gradual", "mlp", {**base, "inter_func": "linear"}, **more)
    yield _case(modifier, "left", "gradual", "mlp", {**base, "leave_enabled": False}, **more)
    always = {**base, "update_frequency": -1.0, "inter_func": "inverse_cubic"}
    yield _case(modifier, "every step", "gradual", "mlp", always, **more)
    yield _case(modifier, "resumed", "resumed", "mlp", base, **more)


def _mapping(modifier: str, base: Fields, **more: Any) -> Iterator[Scenario]:
    fields = {**base, "params": [], "final_sparsity": {0.7: ["0.weight"], 0.4: ["re:2.*weight"]}}
    yield from _both(modifier, "mapping", "mlp", fields, **more)


def _gm() -> Iterator[Scenario]:
    yield from _patterns("GM", GRADUAL)
    yield from _gradual_basics("GM", GRADUAL)
    yield from _mapping("GM", GRADUAL)
    together = {**GRADUAL, "global_sparsity": True}
    for pattern in ("unstructured", "block4", "2:4", "4x1", "2x2", [1, 4]):
        yield from _both("GM", f"global {pattern}", "mlp", {**together, **_fitting(pattern)})
    for pattern in ("filter", "channel"):
        yield from _both("GM", f"global {pattern}", "square", {**together, "mask_type": pattern})
    yield from _both("GM", "global", "conv", together)
    yield from _both("GM", "global among zeros", "zeros", {**together, "final_sparsity": 0.3})
    yield from _both("GM", "global among ties", "ties", together)
    caps = {**together, "max_sparsity_per_param": 0.65}
    floors = {**together, "min_sparsity_per_param": 0.55}
    for name, limits in (("caps", caps), ("floors", floors), ("both", {**caps, **floors})):
        yield from _both("GM", name, "mlp", limits)
        yield from _both("GM", name, "conv", limits)
    for pattern in ("block4", "4x1", [1, 4]):
        fields = {**caps, **floors, "mask_type": pattern}
        yield from _both("GM", f"both {pattern}", "mlp", fields)
    yield _case("GM", "resumed global", "resumed", "conv", caps)
    vectors = {**GRADUAL, **WEIGHTS}
    yield from _both("GM", "with batch norm", "conv", vectors)
    steps = {key: value for key, value in GRADUAL.items() if key not in WHEN}
    steps.update(start_step=1, end_step=9, update_steps=3)
    yield _case("GM", "in steps", "gradual", "mlp", steps)


def _magnitude() -> Iterator[Scenario]:
    yield from _patterns("Magnitude", GRADUAL)
    yield from _gradual_basics("Magnitude", GRADUAL)
    yield from _mapping("Magnitude", GRADUAL)


def _global_magnitude() -> Iterator[Scenario]:
    for pattern in ("unstructured", "block4", "2:4", "4x1", "2x2", [1, 4]):
        fields = {**GRADUAL, **_fitting(pattern)}
        yield from _both("GlobalMagnitude", str(pattern), "mlp", fields)
    for pattern in ("filter", "channel"):
        yield from _both("GlobalMagnitude", pattern, "square", {**GRADUAL, "mask_type": pattern})
    yield from _both("GlobalMagnitude", "all", "conv", GRADUAL)
    yield from _gradual_basics("GlobalMagnitude", GRADUAL)
    limits = {"max_sparsity_per_param": 0.7, "min_sparsity_per_param": 0.5}
    yield from _both("GlobalMagnitude", "limits", "conv", {**GRADUAL, **limits})
    yield _case("GlobalMagnitude", "limits", "resumed", "mlp", {**GRADUAL, **limits})


def _movement() -> Iterator[Scenario]:
    yield from _patterns("Movement", GRADUAL)
    yield from _gradual_basics("Movement", GRADUAL)
    yield from _mapping("Movement", GRADUAL)


def _acdc() -> Iterator[Scenario]:
    base = {**WHOLE, **LAYERS, "compression_sparsity": 0.6}
    for pattern in PATTERNS:
        half = {"compression_sparsity": 0.5} if pattern == "2:4" else {}
        each = {**base, "mask_type": pattern, "global_sparsity": False, **half}
        yield from _both("ACDC", str(pattern), "mlp", each)
        if pattern not in ("filter", "channel"):
            yield from _both("ACDC", f"global {pattern}", "mlp", {**each, "global_sparsity": True})
    yield from _both("ACDC", "global", "conv", base)
    yield from _both("ACDC", "zeros", "zeros", {**base, "compression_sparsity": 0.3})
    yield from _both("ACDC", "ties", "ties", base)
    yield _case("ACDC", "with momentum", "gradual", "mlp", {**base, "momentum_buffer_reset": False})
    yield _case("ACDC", "left", "gradual", "mlp", {**base, "leave_enabled": False})
    steps = {key: value for key, value in base.items() if key not in WHOLE}
    steps.update(start_step=1, end_step=10, update_steps=2)
    yield _case("ACDC", "in steps", "gradual", "mlp", steps)
    yield _case("ACDC", "resumed", "resumed", "mlp", base)


def _constant() -> Iterator[Scenario]:
    base = {**LAYERS, "start_epoch": 0.0, "end_epoch": 2.0}
    yield from _both("Constant", "zeros", "zeros", base)
    yield from _both("Constant", "dense", "mlp", base)
    yield from _both("Constant", "all along", "zeros", LAYERS)
    pruner = {"MagnitudePruningModifier": {**GRADUAL, "end_epoch": 1.0, "leave_enabled": False}}
    yield _case(
        "Constant", "later", "gradual", "conv", {**LAYERS, "start_epoch": 1.0}, others=pruner
    )
    yield _case("Constant", "resumed", "resumed", "zeros", base)


def _top_kast() -> Iterator[Scenario]:
    base = {**WHEN, **LAYERS, "forward_sparsity": 0.6, "backward_sparsity": 0.4}
    for pattern in PATTERNS:
        half = {"forward_sparsity": 0.5, "backward_sparsity": 0.25} if pattern == "2:4" else {}
        each = {**base, "mask_type": pattern, "global_sparsity": False, **half}
        yield from _both("TopKAST", str(pattern), "mlp", each)
        if pattern not in ("filter", "channel"):
            together = {**each, "global_sparsity": True}
            yield from _both("TopKAST", f"global {pattern}", "mlp", together)
    yield from _both("TopKAST", "decay", "conv", {**base, "active_weight_decay": 0.05})
    yield from _both(
        "TopKAST", "zeros", "zeros", {**base, "forward_sparsity": 0.3, "backward_sparsity": 0.1}
    )
    yield from _both("TopKAST", "ties", "ties", base)
    yield _case("TopKAST", "left", "gradual", "mlp", {**base, "leave_enabled": False})
    yield _case("TopKAST", "resumed", "resumed", "mlp", base)


def _rigl() -> Iterator[Scenario]:
    base = {**WHEN, **LAYERS, "final_sparsity": 0.6, "num_grads": 2}
    for rule in ("uniform", "erdos_renyi", "erdos_renyi_kernel"):
        for model in ("mlp", "conv"):
            yield from _both("RigL", rule, model, {**base, "sparsity_strategy": rule})
    yield from _both("RigL", "zeros", "zeros", {**base, "start_epoch": 0.0})
    yield from _both("RigL", "ties", "ties", {**base, "start_epoch": 0.0})
    moving = {**base, "init_update_fraction": 0.8, "momentum_buffer_reset": False, "num_grads": 4}
    yield _case("RigL", "moving", "gradual", "mlp", moving)
    yield _case("RigL", "seed", "gradual", "mlp", {**base, "grad_sampler_kwargs": {"seed": 9}})
    yield _case("RigL", "left", "gradual", "mlp", {**base, "leave_enabled": False})
    yield _case("RigL", "resumed", "resumed", "mlp", base, sampler="iterator")


def _structured() -> Iterator[Scenario]:
    for kind in ("filter", "channel"):
        fields = {**GRADUAL, "mask_type": kind}
        yield from _both("Structured", kind, "mlp", fields)
        yield from _both("Structured", kind, "conv", fields)
        yield from _both("Structured", kind, "ties", {**fields, "start_epoch": 0.0})
    yield from _both("Structured", "group", "conv", {**GRADUAL, **GROUPED})
    own = {**GRADUAL, "init_sparsity": "__FROM_PARAM__", "final_sparsity": 0.8}
    yield from _both("Structured", "from param", "zeros", {**own, "start_epoch": 0.0})
    yield from _mapping("Structured", GRADUAL)
    yield _case("Structured", "left", "gradual", "mlp", {**GRADUAL, "leave_enabled": False})
    yield _case("Structured", "resumed", "resumed", "conv", {**GRADUAL, **GROUPED})


def _sampled(modifier: str, base: Fields, **more: Any) -> Iterator[Scenario]:
    """What every modifier that samples gradients knows."""
    own = {**base, "init_sparsity": "__FROM_PARAM__", "final_sparsity": 0.8, "start_epoch": 0.0}
    yield from _both(modifier, "plain", "conv", base, **more)
    yield from _both(modifier, "from param", "zeros", own, **more)
    yield from _both(
        modifier,
        "below what is zero",
        "zeros",
        {**base, "start_epoch": 0.0, "final_sparsity": 0.3},
        **more,
    )
    yield from _both(modifier, "plain", "ties", base, **more)
    yield _case(modifier, "left", "gradual", "mlp", {**base, "leave_enabled": False}, **more)
    seed = {**base, "grad_sampler_kwargs": {"seed": 9}, "inter_func": "linear"}
    yield _case(modifier, "seed", "gradual", "mlp", seed, **more)
    yield _case(modifier, "resumed", "resumed", "mlp", base, **{**more, "sampler": "iterator"})
    for model in ("mlp", "conv", "zeros"):
        sparsities = (0.65, 0.8, 0.9) if model == "zeros" else (0.3, 0.5, 0.8)
        yield _case(modifier, "plain", "sweep", model, base, **more, sparsities=sparsities)


def _gw_prod() -> Iterator[Scenario]:
    base = {**GRADUAL, "num_grads": 6}
    yield from _patterns("GWProd", base, conv=("unstructured", "2:4", "filter"))
    yield from _sampled("GWProd", base)
    yield from _mapping("GWProd", base)
    together = {**base, "global_sparsity": True}
    for pattern in ("unstructured", "block4", "2:4", [1, 4]):
        yield from _both("GWProd", f"global {pattern}", "mlp", {**together, **_fitting(pattern)})
    for name, fields in (("global", together), ("block4", {**base, "mask_type": "block4"})):
        yield _case("GWProd", name, "sweep", "mlp", fields, sparsities=(0.25, 0.5, 0.75))


def _mfac() -> Iterator[Scenario]:
    base = {**GRADUAL, "num_grads": 6, "damp": 1e-3, "fisher_block_size": 32}
    yield from _patterns("MFAC", base, conv=("unstructured", "2:4", "filter"))
    yield from _sampled("MFAC", base)
    yield from _mapping("MFAC", base)
    together = {**base, "global_sparsity": True}
    yield from _both("MFAC", "global", "mlp", together)
    yield from _both("MFAC", "global block4", "mlp", {**together, "mask_type": "block4"})
    for kind in ("block", "small_block"):
        yield from _both("MFAC", kind, "mlp", {**base, "block_implementation": kind})
    whole = {**base, "fisher_block_size": None, "num_pages": 2}
    yield from _both("MFAC", "one block", "mlp", whole)
    yield from _both("MFAC", "counts", "mlp", {**base, "num_grads": {0.0: 3, 0.3: 5, 0.5: 8}})
    buffered = {**base, "use_gradient_buffering": True, "start_epoch": 1.25, "num_grads": 4}
    for model in ("mlp", "conv"):
        yield _case("MFAC", "buffered", "gradual", model, buffered, sampler="none")
    never_asked = {**buffered, "use_gradient_buffering": None, "global_sparsity": True}
    yield _case("MFAC", "without sampler", "gradual", "mlp", never_asked, sampler="none")
    counts = {**buffered, "num_grads": {0.0: 2, 0.4: 5}}
    yield _case("MFAC", "buffered counts", "gradual", "mlp", counts, sampler="none")
    yield _case("MFAC", "buffered", "resumed", "mlp", buffered, sampler="none")
    for name, fields in (("global", together), ("one block", whole)):
        yield _case("MFAC", name, "sweep", "mlp", fields, sparsities=(0.25, 0.5, 0.75))


def _fisher_fields(modifier: str, base: Fields) -> Iterator[Scenario]:
    """The fields that OBS and CAP share."""
    each = {**base, "global_sparsity": False}
    yield from _sampled(modifier, base)
    yield from _mapping(modifier, each)
    yield from _both(modifier, "plain", "mlp", base)
    yield from _both(modifier, "each", "mlp", each)
    yield from _both(modifier, "each", "conv", each)
    for update in ("simultaneous", "joint"):
        yield from _both(modifier, update, "mlp", {**base, "weight_update": update})
    for layout in ("padded", "divisor", "row"):
        fields = {**base, "fisher_block_layout": layout, "fisher_block_size": 12}
        yield from _both(modifier, layout, "mlp", fields)
        yield _case(modifier, layout, "one_shot", "conv", fields)
    for model in ("mlp", "conv"):
        by_sample = {**base, "fisher_samples": "sample"}
        yield from _both(modifier, "by sample", model, by_sample)
    small = {**base, "fisher_memory": "30kB"}
    yield from _both(modifier, "memory", "mlp", small)
    yield from _both(modifier, "memory each", "mlp", {**small, "global_sparsity": False})
    again = {**base, "num_recomputations": 3}
    yield from _both(modifier, "recomputations", "mlp", again)
    cubic = {**each, "num_recomputations": 2, "recomputation_inter_func": "cubic"}
    yield from _both(modifier, "recomputations each", "mlp", cubic)
    yield from _both(modifier, "double", "mlp", {**base, "fisher_dtype": "float64"})
    sweeps = {
        "each": each,
        "memory": small,
        "recomputations": again,
        "block4": {**base, "mask_type": "block4"},
    }
    for name, fields in sweeps.items():
        yield _case(modifier, name, "sweep", "mlp", fields, sparsities=(0.25, 0.5, 0.75))


def _obs() -> Iterator[Scenario]:
    base = {**GRADUAL, "num_grads": 8, "damp": 1e-3, "fisher_block_size": 16}
    yield from _fisher_fields("OBS", base)
    yield from _both("OBS", "block4", "mlp", {**base, "mask_type": "block4"})
    yield from _both("OBS", "block4", "conv", {**base, **DENSE, "mask_type": "block4"})
    yield from _both("OBS", "diagonal", "mlp", {**base, "fisher_block_size": 1})


def _cap() -> Iterator[Scenario]:
    base = {**GRADUAL, "num_grads": 8, "damp": 1e-3, "fisher_block_size": 16}
    yield from _fisher_fields("CA", base)
    for pattern in ("block4", "2:4", "1x2", [1, 4]):
        for where, fields in (("global", base), ("each", {**base, "global_sparsity": False})):
            chosen = {**fields, **_fitting(pattern)}
            yield from _both("CA", f"{where} {pattern}", "mlp", chosen)
            yield _case("CA", f"{where} {pattern}", "one_shot", "conv", {**chosen, **DENSE})
    nm = {**base, "mask_type": "2:4", "final_sparsity": 0.5}
    yield _case("CA", "2:4", "sweep", "mlp", nm, sparsities=(0.2, 0.5))
    traces = {**base, "fisher_memory": "30kB", "traces_backup_dir": FOLDER_TOKEN}
    yield _case("CA", "traces", "sweep", "mlp", traces, sparsities=(0.25, 0.5, 0.75))
    yield _case("CA", "traces once", "sweep", "mlp", traces, sparsities=(0.6,))


def _fast_cap() -> Iterator[Scenario]:
    base = {**GRADUAL, "num_grads": 8, "damp": 0.01, "fisher_block_size": 16}
    yield from _sampled("FastCA", base)
    yield from _mapping("FastCA", base)
    yield from _both("FastCA", "plain", "mlp", base)
    yield from _both("FastCA", "narrow", "mlp", {**base, "block_size": 4})
    yield from _both("FastCA", "by sample", "mlp", {**base, "fisher_samples": "sample"})
    yield from _both("FastCA", "double", "mlp", {**base, "fisher_dtype": "float64"})
    yield _case(
        "FastCA", "narrow", "sweep", "mlp", {**base, "block_size": 4}, sparsities=(0.25, 0.5, 0.75)
    )


def _layer() -> Iterator[Scenario]:
    yield from _both("Layer", "for good", "mlp", {"layers": ["1"], "start_epoch": 1.0})
    yield from _both("Layer", "for a while", "mlp", {**WHEN, "layers": ["1"]})
    yield from _both("Layer", "several", "conv", {"layers": ["norm", "depthwise"]})


def _thinning() -> Iterator[Scenario]:
    pruner = {"StructuredPruningModifier": {**GRADUAL, **GROUPED}}
    names = ",".join(GROUPED["param_groups"][0])
    fields = {"param_group_dependency_map": {names: ["head.weight"]}, "structure_type": "filter"}
    for name, way, more in (
        ("at the end", "gradual", {}),
        ("twice", "gradual", {"update_epochs": [1.5, 2.5]}),
        ("once", "one_shot", {}),
    ):
        yield Scenario(
            "LayerThinningModifier",
            f"{way} conv {name}",
            way,
            "conv",
            {**fields, **more},
            others=pruner,
        )


def _powerpropagation() -> Iterator[Scenario]:
    fields = {**LAYERS, "alpha": 2.0, "start_epoch": 0.5, "end_epoch": 2.0}
    for way, model in (("one_shot", "mlp"), ("gradual", "mlp"), ("gradual", "conv")):
        yield Scenario("PowerpropagationModifier", f"{way} {model}", way, model, fields)


def _faults() -> Iterator[Scenario]:
    """What is wrong on the commit of the outcomes, and is known to change."""
    together = {**GRADUAL, "final_sparsity": 0.5}
    for pattern in ("filter", "channel"):
        for model in ("unequal", "conv"):
            yield from _both("GlobalMagnitude", pattern, model, {**together, "mask_type": pattern})
    for modifier in ("GWProd", "OBS", "CA", "FastCA", "MFAC"):
        fields = {
            **GRADUAL,
            "start_epoch": 1.0,
            "end_epoch": 9.0,
            "update_frequency": 2.0,
            "num_grads": 4,
            "grad_sampler_kwargs": {},
        }
        yield _case(modifier, "a step an epoch", "gradual", "mlp", fields, per_epoch=1)


def _by_file() -> dict[str, list[Scenario]]:
    makers = (
        _gm, _magnitude, _global_magnitude, _movement, _acdc, _constant, _top_kast, _rigl,
        _structured, _gw_prod, _mfac, _obs, _cap, _fast_cap, _layer, _thinning, _powerpropagation,
    )  # fmt: skip
    files: dict[str, list[Scenario]] = {}
    for maker in makers:
        scenarios = list(maker())
        files[scenarios[0].modifier] = scenarios
    return {**files, "faults": list(_faults())}


SCENARIOS = _by_file()
"""The cases of every file in ``outcomes``: one for each modifier, and one for known faults."""


def key_of(file: str, scenario: Scenario) -> str:
    """What a case is called in its file."""
    return f"{scenario.modifier} {scenario.name}" if file == "faults" else scenario.name


def read(file: str) -> dict[str, Any]:
    """The outcomes written down for a modifier, by case."""
    return json.loads((OUTCOMES / f"{file}.json").read_text())


def write(file: str) -> None:
    """Run the cases of a file and write down what came of them, a line for each case."""
    lines = []
    with single_threaded():
        for scenario in SCENARIOS[file]:
            key = key_of(file, scenario)
            lines.append(f"{json.dumps(key)}: {json.dumps(outcome_of(scenario))}")
    OUTCOMES.mkdir(exist_ok=True)
    (OUTCOMES / f"{file}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


def _main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--write", nargs="*", metavar="FILE", choices=list(SCENARIOS))
    parser.add_argument("--list", action="store_true", help="print the cases of every file")
    options = parser.parse_args(None if arguments is None else list(arguments))
    if options.list:
        for file, scenarios in SCENARIOS.items():
            print(file, *(f"  {key_of(file, scenario)}" for scenario in scenarios), sep="\n")
    if options.write is not None:
        logging.getLogger("sparseml").setLevel(logging.ERROR)
        for file in options.write or SCENARIOS:
            start = time.perf_counter()
            write(file)
            print(f"{file}: {len(SCENARIOS[file])} cases, {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    _main()
