from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparseml.pytorch.utils.names import (
    any_str_or_regex_matches_param_name,
    canonical_name,
    canonical_named_modules,
    compile_pattern,
    strip_wrapper_levels,
    unwrap_module,
)

_PIECES = st.sampled_from(["module", "_orig_mod", "blocks", "0", "fc", "weight", "module_x"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fc.weight", "fc.weight"),
        ("module.fc.weight", "fc.weight"),
        ("module.module.fc.weight", "fc.weight"),
        ("_orig_mod.fc.weight", "fc.weight"),
        ("module._orig_mod.fc.weight", "fc.weight"),
        ("_orig_mod.module.fc.weight", "fc.weight"),
        ("blocks.0._orig_mod.fc.weight", "blocks.0.fc.weight"),
        ("_fsdp_wrapped_module.a._checkpoint_wrapped_module.b", "a.b"),
        ("fc.module.weight", "fc.module.weight"),
        ("modules.fc", "modules.fc"),
        ("module", "module"),
        ("", ""),
    ],
)
def test_canonical_name(name: str, expected: str) -> None:
    assert canonical_name(name) == expected


@given(st.lists(_PIECES, min_size=1, max_size=6))
def test_canonical_name_is_idempotent_and_ignores_wrappers(pieces: list[str]) -> None:
    name = ".".join([*pieces, "bias"])
    plain = canonical_name(name)
    assert canonical_name(plain) == plain
    assert canonical_name(f"module._orig_mod.{name}") == plain


def test_strip_wrapper_levels_keeps_module() -> None:
    assert strip_wrapper_levels("module._orig_mod.fc.weight") == "module.fc.weight"


def _model() -> nn.Module:
    return nn.Sequential(
        nn.Linear(2, 3), nn.Sequential(), nn.Sequential(nn.ReLU(), nn.Linear(3, 1))
    )


def test_named_modules_of_a_plain_model_are_torchs() -> None:
    model = _model()
    assert list(canonical_named_modules(model)) == list(model.named_modules())


def test_wrappers_add_no_level() -> None:
    model = _model()
    expected = list(model.named_modules())
    model[2] = torch.compile(model[2])
    wrapped = nn.DataParallel(torch.compile(model))
    assert list(canonical_named_modules(wrapped)) == expected


def test_a_sole_child_called_module_is_an_engine_only_at_the_root() -> None:
    class Engine(nn.Module):
        def __init__(self, module: nn.Module):
            super().__init__()
            self.module = module

    inner = nn.Linear(2, 2)
    assert list(canonical_named_modules(Engine(inner))) == [("", inner)]
    nested = nn.Sequential(Engine(inner))
    assert [name for name, _ in canonical_named_modules(nested)] == ["", "0", "0.module"]


def test_averaged_model_is_no_wrapper() -> None:
    averaged = torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2))
    assert [name for name, _ in canonical_named_modules(averaged)] == ["", "module"]


def test_shared_layers_come_once() -> None:
    layer = nn.Linear(2, 2)
    assert [n for n, _ in canonical_named_modules(nn.Sequential(layer, layer))] == ["", "0"]


def test_unwrap_module() -> None:
    model = _model()
    assert unwrap_module(model) is model
    assert unwrap_module(nn.DataParallel(torch.compile(model))) is model


@pytest.mark.parametrize(
    ("name", "patterns", "expected"),
    [
        ("0.weight", ["re:0"], True),  # anchored at the start only
        ("10.weight", ["re:0"], False),
        ("0.weight", ["0"], False),  # names are whole
        ("0.weight", ["0.weight"], True),
        ("0.weight", ["0.weigh", "re:.*bias"], False),
        ("0.weight", [], False),
        ("module.0.weight", ["0.weight"], True),
        ("module.0.weight", ["re:0"], True),
        ("0.weight", ["module.0.weight"], True),
        ("0.weight", [r"re:module\.0"], True),
        ("0.weight", [r"re:^module.0\.weight$"], True),
        ("0.weight", [r"re:module\.1"], False),
        ("0._orig_mod.weight", ["re:0.weight$"], True),
        ("blocks.3.attn.weight", [r"re:blocks\.[0-3]\..*weight"], True),
    ],
)
def test_matching(name: str, patterns: list[str], expected: bool) -> None:
    assert any_str_or_regex_matches_param_name(name, patterns) is expected


def test_bad_pattern_is_named_with_its_position() -> None:
    with pytest.raises(ValueError, match=r"'layer\.\(\.\*' at position 6: .*re:layer"):
        compile_pattern("re:layer.(.*")
    with pytest.raises(ValueError, match="bad regular expression"):
        any_str_or_regex_matches_param_name("x", ["re:*"])


@pytest.mark.parametrize("pattern", ["re:a{99999999999999}", f"re:{'(' * 9000}{')' * 9000}"])
def test_patterns_beyond_what_can_be_compiled(pattern: str) -> None:
    with pytest.raises(ValueError, match="bad regular expression") as info:
        compile_pattern(pattern)
    assert len(str(info.value)) < 300


@pytest.mark.parametrize("pattern", ["re:(a|aa)+$", "re:(a|aa|b)*$"])
def test_a_pattern_that_would_take_years_is_told(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"takes more than 1 s for 'a{60}"):
        any_str_or_regex_matches_param_name("a" * 80 + ".weight", [pattern])
    assert not any_str_or_regex_matches_param_name("a" * 80 + ".weight", ["re:(a+)+$"])
