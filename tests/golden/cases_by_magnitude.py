"""What modifiers are asked to do that need no sampled gradients."""

from __future__ import annotations

from collections.abc import Iterator

from cases import (
    GRADUAL,
    GROUPED,
    LAYERS,
    PATTERNS,
    WEIGHTS,
    WHEN,
    WHOLE,
    both,
    case,
    fitting,
    gradual_basics,
    mapping,
    patterns,
)
from replay import Scenario


def _gm() -> Iterator[Scenario]:
    yield from patterns("GM", GRADUAL, conv=("unstructured", "block4", "2:4", "filter", "channel"))
    yield from gradual_basics("GM", GRADUAL)
    yield from mapping("GM", GRADUAL)
    together = {**GRADUAL, "global_sparsity": True}
    for pattern in ("unstructured", "block4", "2:4", "4x1", "2x2", [1, 4]):
        yield from both("GM", f"global {pattern}", "mlp", {**together, **fitting(pattern)})
    for pattern in ("filter", "channel"):
        yield from both("GM", f"global {pattern}", "square", {**together, "mask_type": pattern})
    yield from both("GM", "global", "conv", together)
    yield from both("GM", "global among zeros", "zeros", {**together, "final_sparsity": 0.3})
    yield from both("GM", "global among ties", "ties", together)
    caps = {**together, "max_sparsity_per_param": 0.62}
    floors = {**together, "min_sparsity_per_param": 0.58}
    for name, limits in (("caps", caps), ("floors", floors), ("both", {**caps, **floors})):
        yield from both("GM", name, "mlp", limits)
        yield from both("GM", name, "conv", limits)
    for pattern in ("block4", "4x1", [1, 4]):
        fields = {**caps, **floors, "mask_type": pattern}
        yield from both("GM", f"both {pattern}", "mlp", fields)
    yield case("GM", "resumed global", "resumed", "conv", caps)
    vectors = {**GRADUAL, **WEIGHTS}
    yield from both("GM", "with batch norm", "conv", vectors)
    steps = {key: value for key, value in GRADUAL.items() if key not in WHEN}
    steps.update(start_step=1, end_step=9, update_steps=3)
    yield case("GM", "in steps", "gradual", "mlp", steps)


def _magnitude() -> Iterator[Scenario]:
    yield from patterns("Magnitude", GRADUAL)
    yield from gradual_basics("Magnitude", GRADUAL)
    yield from mapping("Magnitude", GRADUAL)


def _global_magnitude() -> Iterator[Scenario]:
    for pattern in ("unstructured", "block4", "2:4", "4x1", "2x2", [1, 4]):
        fields = {**GRADUAL, **fitting(pattern)}
        yield from both("GlobalMagnitude", str(pattern), "mlp", fields)
    for pattern in ("filter", "channel"):
        yield from both("GlobalMagnitude", pattern, "square", {**GRADUAL, "mask_type": pattern})
    yield from both("GlobalMagnitude", "all", "conv", GRADUAL)
    yield from gradual_basics("GlobalMagnitude", GRADUAL)
    limits = {"max_sparsity_per_param": 0.63, "min_sparsity_per_param": 0.57}
    yield from both("GlobalMagnitude", "limits", "conv", {**GRADUAL, **limits})
    yield case("GlobalMagnitude", "limits", "resumed", "mlp", {**GRADUAL, **limits})


def _movement() -> Iterator[Scenario]:
    yield from patterns("Movement", GRADUAL, conv=("unstructured", "2:4", "filter"))
    yield from gradual_basics("Movement", GRADUAL)
    yield from mapping("Movement", GRADUAL)


def _acdc() -> Iterator[Scenario]:
    base = {**WHOLE, **LAYERS, "compression_sparsity": 0.6}
    for pattern in PATTERNS:
        half = {"compression_sparsity": 0.5} if pattern == "2:4" else {}
        each = {**base, "mask_type": pattern, "global_sparsity": False, **half}
        yield from both("ACDC", str(pattern), "mlp", each)
        if pattern not in ("filter", "channel"):
            yield from both("ACDC", f"global {pattern}", "mlp", {**each, "global_sparsity": True})
    yield from both("ACDC", "global", "conv", base)
    yield from both("ACDC", "zeros", "zeros", {**base, "compression_sparsity": 0.3})
    yield from both("ACDC", "ties", "ties", base)
    yield case("ACDC", "with momentum", "gradual", "mlp", {**base, "momentum_buffer_reset": False})
    yield case("ACDC", "left", "gradual", "mlp", {**base, "leave_enabled": False})
    steps = {key: value for key, value in base.items() if key not in WHOLE}
    steps.update(start_step=1, end_step=10, update_steps=2)
    yield case("ACDC", "in steps", "gradual", "mlp", steps)
    yield case("ACDC", "resumed", "resumed", "mlp", base)


def _constant() -> Iterator[Scenario]:
    base = {**LAYERS, "start_epoch": 0.0, "end_epoch": 2.0}
    yield from both("Constant", "zeros", "zeros", base)
    yield from both("Constant", "dense", "mlp", base)
    yield from both("Constant", "all along", "zeros", LAYERS)
    pruner = {"MagnitudePruningModifier": {**GRADUAL, "end_epoch": 1.0, "leave_enabled": False}}
    yield case(
        "Constant", "later", "gradual", "conv", {**LAYERS, "start_epoch": 1.0}, others=pruner
    )
    yield case("Constant", "resumed", "resumed", "zeros", base)


def _top_kast() -> Iterator[Scenario]:
    base = {**WHEN, **LAYERS, "forward_sparsity": 0.6, "backward_sparsity": 0.4}
    for pattern in PATTERNS:
        half = {"forward_sparsity": 0.5, "backward_sparsity": 0.25} if pattern == "2:4" else {}
        each = {**base, "mask_type": pattern, "global_sparsity": False, **half}
        yield from both("TopKAST", str(pattern), "mlp", each)
        if pattern not in ("filter", "channel"):
            together = {**each, "global_sparsity": True}
            yield from both("TopKAST", f"global {pattern}", "mlp", together)
    yield from both("TopKAST", "decay", "conv", {**base, "active_weight_decay": 0.05})
    yield from both(
        "TopKAST", "zeros", "zeros", {**base, "forward_sparsity": 0.3, "backward_sparsity": 0.1}
    )
    yield from both("TopKAST", "ties", "ties", base)
    yield case("TopKAST", "left", "gradual", "mlp", {**base, "leave_enabled": False})
    yield case("TopKAST", "resumed", "resumed", "mlp", base)


def _structured() -> Iterator[Scenario]:
    for kind in ("filter", "channel"):
        fields = {**GRADUAL, "mask_type": kind}
        yield from both("Structured", kind, "mlp", fields)
        yield from both("Structured", kind, "conv", fields)
        yield from both("Structured", kind, "ties", {**fields, "start_epoch": 0.0})
    yield from both("Structured", "group", "conv", {**GRADUAL, **GROUPED})
    own = {**GRADUAL, "init_sparsity": "__FROM_PARAM__", "final_sparsity": 0.8}
    yield from both("Structured", "from param", "zeros", {**own, "start_epoch": 0.0})
    yield from mapping("Structured", GRADUAL)
    yield case("Structured", "left", "gradual", "mlp", {**GRADUAL, "leave_enabled": False})
    yield case("Structured", "resumed", "resumed", "conv", {**GRADUAL, **GROUPED})


def _layer() -> Iterator[Scenario]:
    yield from both("Layer", "for good", "mlp", {"layers": ["1"], "start_epoch": 1.0})
    yield from both("Layer", "for a while", "mlp", {**WHEN, "layers": ["1"]})
    yield from both("Layer", "several", "conv", {"layers": ["norm", "depthwise"]})


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


MAKERS = (
    _gm,
    _magnitude,
    _global_magnitude,
    _movement,
    _acdc,
    _constant,
    _top_kast,
    _structured,
    _layer,
    _thinning,
    _powerpropagation,
)
