"""Recipes made of the pruning settings of Intel Neural Compressor.

Its ``WeightPruningConfig`` has keys for all pruners and, in ``pruning_configs``, a mapping for each
pruner, whose values win. Here that is a file of YAML or JSON with the same keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from textwrap import indent
from typing import Any

from sparseml.cli.problems import Problem
from sparseml.optim.language.yaml_text import RecipeLoader, dump
from sparseml.utils.text import did_you_mean, quoted_list

_HEAD = "# Converted from {path}.\n"
_PRUNERS = ("magnitude", "gradient", "snip", "snip_momentum")
_PROGRESSIVE, _PARTS = "_progressive", 4
_TYPES = [
    *_PRUNERS,
    *(kind + _PROGRESSIVE for kind in _PRUNERS),
    "block_mask",
    "retrain_free",
    "pattern_lock",
]
_KINDS = ["Conv", "Linear"]
_WORDS = r"(\d+)x(\d+|channel)|channelx(\d+)|(\d+):(\d+)"

Check = Callable[[Any], bool]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _fraction(value: Any) -> bool:
    return _number(value) and 0.0 <= value < 1.0


def _whole(least: int) -> tuple[str, Check]:
    return (
        f"a whole number of at least {least}",
        lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least,
    )


def _one_of(*words: str) -> tuple[str, Check]:
    return quoted_list(words), lambda value: value in words


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


_SHARE: tuple[str, Check] = ("a number in [0, 1)", _fraction)
_STRENGTH: tuple[str, Check] = (
    "a number of at least 0",
    lambda value: _number(value) and value >= 0.0,
)
_TEXT: tuple[str, Check] = ("a text", lambda value: isinstance(value, str))
_NAMES: tuple[str, Check] = ("a list of names", _is_names)
_FLAG: tuple[str, Check] = ("true or false", lambda value: isinstance(value, bool))
_ANYTHING: tuple[str, Check] = ("anything", lambda value: True)

# key -> default, what it must be, and the check of that
_KEYS: dict[str, tuple[Any, tuple[str, Check]]] = {
    "target_sparsity": (0.9, _SHARE),
    "pruning_type": ("snip_momentum", _TEXT),
    "pattern": ("4x1", _TEXT),
    "op_names": ([], _NAMES),
    "excluded_op_names": ([], _NAMES),
    "pruning_op_types": (_KINDS, _NAMES),
    "start_step": (0, _whole(0)),
    "end_step": (0, _whole(0)),
    "pruning_frequency": (1, _whole(1)),
    "pruning_scope": ("global", _one_of("global", "local")),
    "sparsity_decay_type": ("exp", _one_of("exp", "cos", "linear", "cube")),
    "max_sparsity_ratio_per_op": (0.98, _SHARE),
    "min_sparsity_ratio_per_op": (0.0, _SHARE),
    "criterion_reduce_type": ("mean", _one_of("mean", "sum", "max")),
    "criterion_type": (None, _ANYTHING),  # pruning_type says it
    "reg_type": (None, _one_of("group_lasso")),
    "parameters": ({}, ("a mapping", lambda value: isinstance(value, Mapping))),  # of reg_type
    "reg_coeff": (0.0, _STRENGTH),
    "low_memory_usage": (False, _FLAG),
    "resume_from_pruned_checkpoint": (None, _ANYTHING),  # has no effect there
    "lock_init_sparsity": (False, _FLAG),
}


def inc_recipe(path: str) -> str:
    """Return the recipe that prunes as the file at ``path`` has Intel's pruner do.

    N:M there says how many of M are pruned, here how many are kept.

    :raises Problem: naming the file and the key that cannot be converted
    """
    content = _read(path)
    everywhere = {key: value for key, value in content.items() if key != "pruning_configs"}
    own = content.get("pruning_configs") or [{}]
    if not isinstance(own, list) or not all(isinstance(one, Mapping) for one in own):
        raise Problem(f"{path}: pruning_configs must be a list of mappings, found {own!r}")
    pruners = [
        _Settings(path, everywhere, local, f"pruning_configs[{number}].")
        for number, local in enumerate(own)
    ]
    text = _HEAD.format(path=Path(path).name) + "modifiers:\n"
    for settings in pruners:
        name, fields = _modifier(settings)
        text += f"  - !{name}\n{indent(dump(fields), '    ')}"
    _require_loadable(path, text)
    return text


def _require_loadable(path: str, text: str) -> None:
    from sparseml.optim.errors import RecipeError
    from sparseml.pytorch.optim import ScheduledModifierManager

    try:
        ScheduledModifierManager.from_yaml(text)
    except RecipeError as error:
        raise Problem(f"{path}: {error}", file=path) from error


def _read(path: str) -> dict[str, Any]:
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
        content = yaml.load(text, Loader=RecipeLoader)
    except OSError as error:
        raise Problem(f"{path}: cannot be read: {error.strerror}", file=path) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Problem(f"{path}: is neither YAML nor JSON: {error}", file=path) from error
    if not isinstance(content, Mapping):
        raise Problem(f"{path}: must be a mapping of keys, found {type(content).__name__}")
    old: Any = content
    for key in ("pruning", "approach", "weight_compression_v2"):  # how files of 1.x nest it
        old = old.get(key) if isinstance(old, Mapping) else None
    if isinstance(old, Mapping):
        content = {**old, "pruning_configs": old.get("pruners")}
        del content["pruners"]
    return dict(content)


class _Settings:
    """The settings of one pruner, checked when asked for: its own, everyone's, or defaults."""

    def __init__(
        self, path: str, everywhere: Mapping[str, Any], local: Mapping[str, Any], place: str
    ) -> None:
        self._path, self._given = path, ((place, local), ("", everywhere))
        for prefix, mapping in self._given:
            for key in mapping:
                if key not in _KEYS:
                    hint = did_you_mean(str(key), _KEYS)
                    raise Problem(f"{path}: {prefix}{key} is not a key{hint}", key=f"{prefix}{key}")

    def __getitem__(self, key: str) -> Any:
        default, (wanted, check) = _KEYS[key]
        for _, mapping in self._given:
            value = mapping.get(key)
            if value is not None:
                if not check(value):
                    raise self.problem(key, f"must be {wanted}, found {value!r}")
                return value
        return default

    def problem(self, key: str, message: str) -> Problem:
        """Return the error about a key, named as it was given."""
        prefix = next((prefix for prefix, given in self._given if given.get(key) is not None), "")
        return Problem(f"{self._path}: {prefix}{key} {message}", key=f"{prefix}{key}")


def _modifier(settings: _Settings) -> tuple[str, dict[str, Any]]:
    for key in _KEYS:
        settings[key]
    kind, start, end = (settings[key] for key in ("pruning_type", "start_step", "end_step"))
    if end < start:
        raise settings.problem("end_step", f"must be at least start_step {start}, found {end}")
    fields: dict[str, Any] = {**_selection(settings)}
    if kind == "pattern_lock":
        if _pattern(settings)[0] == "heads":
            raise settings.problem("pattern", f"cannot be mha with {kind}")
        lock = {"params": fields["params"], "start_step": start, "mask_type": _pattern(settings)[0]}
        return "PatternLockModifier", lock | {
            key: value for key, value in fields.items() if key == "exclude"
        }
    _require_offered(settings, kind)
    plain = kind.removesuffix(_PROGRESSIVE)
    if plain != "magnitude" and end == 0:
        raise settings.problem("end_step", f"must be above 0, as {kind} needs a step to score by")
    target, cap = settings["target_sparsity"], settings["max_sparsity_ratio_per_op"]
    mask_type, full = _pattern(settings)
    if target > full:
        raise settings.problem("target_sparsity", f"must be at most {full:g}, found {target}")
    together = settings["pruning_scope"] == "global"
    fields |= {
        "init_sparsity": "__FROM_PARAM__" if settings["lock_init_sparsity"] else 0.0,
        "final_sparsity": float(min(target, cap)),
        "start_step": end if kind == "retrain_free" else start,
        "end_step": end,
        "update_steps": settings["pruning_frequency"],
        "inter_func": settings["sparsity_decay_type"],
        "mask_type": mask_type,
        "global_sparsity": together,
        "score_type": plain,
        "score_reduce": settings["criterion_reduce_type"],
        "spare_head": True,
    }
    if settings["low_memory_usage"]:
        fields["score_dtype"] = "bfloat16"
    if plain != kind:
        fields["progressive_steps"] = _PARTS
    if kind == "retrain_free":  # what was seen in all of the time decides once
        fields["num_grads"] = max(end - start, 1)
    fields |= _regularised(settings, mask_type)
    if together:
        fields |= _limits(settings, float(cap), fields["final_sparsity"])
    return "SnipMomentumPruningModifier", fields


def _require_offered(settings: _Settings, kind: str) -> None:
    if kind == "sparse_gpt":
        why = "'sparse_gpt' has no modifier here: it rebuilds each layer's output from its inputs"
        near = "the nearest is FastCAPruningModifier, which prunes so by gradients of the loss"
        raise settings.problem("pruning_type", f"{why}; {near}")
    if kind not in _TYPES:
        hint = did_you_mean(kind, _TYPES)
        raise settings.problem(
            "pruning_type", f"must be {quoted_list(_TYPES)}, found {kind!r}{hint}"
        )
    mask_type = _pattern(settings)[0]
    if kind == "block_mask" and "x" not in mask_type:
        raise settings.problem("pattern", f"must be NxM with {kind}, found {mask_type!r}")
    if kind == "retrain_free" and "channel" not in mask_type:
        raise settings.problem(
            "pattern", f"must be 1xchannel or channelx1 with {kind}, found {mask_type!r}"
        )


def _regularised(settings: _Settings, mask_type: str) -> dict[str, Any]:
    if settings["reg_type"] is None:
        return {}
    if "x" not in mask_type:
        raise settings.problem("reg_type", f"'group_lasso' needs pattern NxM, found {mask_type!r}")
    # there, what parameters does not say is 0, whatever reg_coeff says
    strength = settings["parameters"].get("reg_coeff", settings["reg_coeff"])
    wanted, check = _STRENGTH
    if not check(strength):
        raise settings.problem("parameters", f"must have as reg_coeff {wanted}, found {strength!r}")
    if strength == 0.0:
        raise settings.problem("reg_type", "'group_lasso' needs a reg_coeff above 0 in parameters")
    return {"reg_type": "group_lasso_by_gradient", "reg_coeff": float(strength)}


def _limits(settings: _Settings, cap: float, final: float) -> dict[str, float]:
    floor = float(settings["min_sparsity_ratio_per_op"])
    if floor > final:
        raise settings.problem(
            "min_sparsity_ratio_per_op", f"must be at most the sparsity {final}, found {floor}"
        )
    limits = {"max_sparsity_per_param": cap}
    return limits | ({"min_sparsity_per_param": floor} if floor else {})


def _pattern(settings: _Settings) -> tuple[str, float]:
    """Return our word for a pattern, and the sparsity that it can reach."""
    word = settings["pattern"].rpartition("_")[2]
    if word == "mha":
        return "heads", 1.0
    found = re.fullmatch(_WORDS, word)
    if not found or any(part == "0" for part in found.groups()):
        raise settings.problem(
            "pattern", f"must be NxM, 1xchannel, channelx1, N:M or mha, found {word!r}"
        )
    if not found[4]:
        return word, 1.0
    gone, group = int(found[4]), int(found[5])
    if gone >= group:
        raise settings.problem("pattern", f"must prune fewer than all of M, found {word!r}")
    return f"{group - gone}:{group}", float(Fraction(gone, group))


def _selection(settings: _Settings) -> dict[str, Any]:
    names, kinds = settings["op_names"], settings["pruning_op_types"]
    everything = not names or ".*" in names
    fields: dict[str, Any] = {"params": "__ALL_PRUNABLE__"}
    if not everything:
        fields["params"] = _patterns(settings, "op_names", names)
    if not everything or sorted(kinds) != _KINDS:
        fields["layer_types"] = kinds
    if out := settings["excluded_op_names"]:
        fields["exclude"] = _patterns(settings, "excluded_op_names", out)
    return fields


def _patterns(settings: _Settings, key: str, names: Sequence[str]) -> list[str]:
    """Return patterns of weights for patterns that are searched for in names of layers."""
    try:
        re.compile("|".join(f"(?:{name})" for name in names))
    except re.error as error:
        raise settings.problem(key, f"{names} has no regular expressions: {error}") from error
    ends = [re.sub(r"(?<!\\)\$", r"(?=\\.weight$)", name) for name in names]
    return [rf"re:.*(?:{name}).*\.weight$" for name in ends]
