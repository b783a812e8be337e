"""What the cases of several modifiers are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from replay import Scenario

Fields = dict[str, Any]

WHEN: Fields = {"start_epoch": 0.5, "end_epoch": 2.5, "update_frequency": 0.5}
SELDOM: Fields = {"start_epoch": 0.5, "end_epoch": 2.0, "update_frequency": 0.75}
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


def case(
    modifier: str, name: str, way: str, model: str, fields: Mapping[str, Any], **more: Any
) -> Scenario:
    return Scenario(
        f"{modifier}PruningModifier", f"{way} {model} {name}", way, model, fields, **more
    )


def both(
    modifier: str, name: str, model: str, fields: Mapping[str, Any], **more: Any
) -> Iterator[Scenario]:
    for way in ("one_shot", "gradual"):
        yield case(modifier, name, way, model, fields, **more)


def fitting(pattern: Any) -> Fields:
    """What a pattern asks of the sparsities: N:M leads to one only."""
    return {"mask_type": pattern, **({"final_sparsity": 0.5} if pattern == "2:4" else {})}


def patterns(modifier: str, base: Fields, conv: Sequence[Any] = PATTERNS) -> Iterator[Scenario]:
    """Every pattern, on linear layers and (some) on those of a convolutional net that it fits."""
    for pattern in PATTERNS:
        fields = {**base, **fitting(pattern)}
        yield from both(modifier, str(pattern), "mlp", fields)
        if pattern not in conv:
            continue
        fits_all = pattern in ("unstructured", "filter", "channel")
        chosen = LAYERS if fits_all else DENSE
        yield from both(modifier, str(pattern), "conv", {**fields, **chosen})


def gradual_basics(modifier: str, base: Fields, **more: Any) -> Iterator[Scenario]:
    """What every modifier with an initial and a final sparsity knows."""
    own = {**base, "init_sparsity": "__FROM_PARAM__", "final_sparsity": 0.8}
    early = {**base, "start_epoch": 0.0, "final_sparsity": 0.3}
    yield from both(modifier, "from param", "zeros", {**own, "start_epoch": 0.0}, **more)
    yield from both(modifier, "among zeros", "zeros", early, **more)
    yield from both(modifier, "among ties", "ties", early, **more)
    yield case(modifier, "linear", "gradual", "mlp", {**base, "inter_func": "linear"}, **more)
    yield case(modifier, "left", "gradual", "mlp", {**base, "leave_enabled": False}, **more)
    always = {**base, "update_frequency": -1.0, "inter_func": "inverse_cubic"}
    yield case(modifier, "every step", "gradual", "mlp", always, **more)
    yield case(modifier, "resumed", "resumed", "mlp", base, **more)


def mapping(modifier: str, base: Fields, **more: Any) -> Iterator[Scenario]:
    fields = {**base, "params": [], "final_sparsity": {0.7: ["0.weight"], 0.4: ["re:2.*weight"]}}
    yield from both(modifier, "mapping", "mlp", fields, **more)
