"""Names of layers and parameters, and what recipe entries match them.

Wrappers that a training loop puts around a model (``DataParallel``, ``DistributedDataParallel``,
``torch.compile``, FSDP, activation checkpointing) add a level to every name. The functions of this
package report names without those levels, so that a recipe, a log and a saved state mean the same
parameter whatever the model is wrapped in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

import regex
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from sparseml.utils.text import shortened

#: Entries of a recipe starting with this are regular expressions, the others full names.
REGEX_PREFIX = "re:"

#: Seconds that one pattern may take for one name. Some try the same letters in so many ways that a
#: match would take years.
_MATCH_SECONDS = 1.0

_PARALLEL_CHILD = "module"
# These attribute names belong to wrappers alone, so they can be told from the text.
_WRAPPER_CHILDREN = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")


def strip_wrapper_levels(name: str) -> str:
    """Return ``name`` without the levels whose text shows that a wrapper added them.

    Unlike :func:`canonical_name` this keeps ``module.``, which may be a layer of the model.
    """
    return ".".join(piece for piece in name.split(".") if piece not in _WRAPPER_CHILDREN)


def canonical_name(name: str) -> str:
    """Return ``name`` without the levels that wrappers add.

    Leading ``module.`` levels go, and ``_orig_mod.``, ``_fsdp_wrapped_module.`` and
    ``_checkpoint_wrapped_module.`` wherever they stand. Works on the names of layers, parameters
    and buffers and on the keys of state dicts; applying it twice changes nothing more.

    >>> canonical_name("module._orig_mod.blocks.0._orig_mod.fc.weight")
    'blocks.0.fc.weight'
    """
    plain = strip_wrapper_levels(name)
    while plain.startswith(f"{_PARALLEL_CHILD}."):
        plain = plain[len(_PARALLEL_CHILD) + 1 :]
    return plain


def unwrap_module(module: nn.Module, root: bool = False) -> nn.Module:
    """Return the module inside all wrappers around it (itself when there are none).

    :param root: also take a module for a wrapper that owns nothing but one child ``module``, as
        the engines of distributed training libraries do. Only safe for a whole model.
    """
    while True:
        children = module._modules
        engine = list(children) == [_PARALLEL_CHILD] and not (module._parameters or module._buffers)
        parallel = isinstance(module, (DataParallel, DistributedDataParallel)) or (root and engine)
        found = [children.get(name) for name in _WRAPPER_CHILDREN]
        found.append(children.get(_PARALLEL_CHILD) if parallel else None)
        inner = next((child for child in found if child is not None), None)
        if inner is None:
            return module
        module = inner


def canonical_named_modules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield ``(name, layer)`` as ``module.named_modules()`` does, but without wrappers.

    Names are canonical, the model itself comes first under the name ``""``, and a layer that is
    reached under several names comes once, under the first.
    """
    seen: set[int] = set()
    stack = [("", unwrap_module(module, root=True))]
    while stack:
        name, layer = stack.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        yield name, layer
        prefix = f"{name}." if name else ""
        children = [
            (f"{prefix}{key}", child) for key, child in layer._modules.items() if child is not None
        ]
        stack.extend((key, unwrap_module(child)) for key, child in reversed(children))


@lru_cache(maxsize=4096)
def compile_pattern(pattern: str) -> regex.Pattern[str]:
    """Compile the regular expression of an entry, with or without its ``re:`` prefix.

    :raises ValueError: naming the pattern and the position of the mistake
    """
    text = pattern.removeprefix(REGEX_PREFIX)
    try:
        re.compile(text)  # what is allowed, and what is said of a mistake, is that of Python's own
        return regex.compile(text, regex.VERSION0)
    except re.error as error:
        where = "" if error.pos is None else f" at position {error.pos}"
        raise ValueError(
            f"bad regular expression {shortened(text)}{where}: {error.msg} "
            f"(entry {shortened(pattern)})"
        ) from error
    except (OverflowError, RecursionError, regex.error) as limit:
        raise ValueError(f"bad regular expression {shortened(text)}: {limit}") from limit


class NamePatterns:
    """Entries of a recipe that name parameters or layers: full names and ``re:`` patterns.

    Patterns are anchored at the start only (``re.match``): ``re:0`` matches ``0.weight``. Levels
    added by wrappers are ignored on both sides.

    :raises ValueError: for a pattern that is no regular expression
    """

    def __init__(self, entries: Iterable[str]):
        self.entries = list(dict.fromkeys(entries))
        self._names: dict[str, list[str]] = {}
        self._patterns: list[tuple[str, list[regex.Pattern[str]]]] = []
        for entry in self.entries:
            if not entry.startswith(REGEX_PREFIX):
                self._names.setdefault(canonical_name(entry), []).append(entry)
                continue
            variants = [compile_pattern(entry)]
            # one that is written for a wrapped model is also one without the wrapper
            text = entry[len(REGEX_PREFIX) :].removeprefix("^")
            prefix = next((one for one in (r"module\.", "module.") if text.startswith(one)), None)
            if prefix is not None:
                variants.append(compile_pattern(text[len(prefix) :]))
            self._patterns.append((entry, variants))

    def matching(self, name: str) -> list[str]:
        """Return the entries that match ``name``.

        :raises ValueError: naming a pattern that takes longer than a second for it
        """
        plain = canonical_name(name)
        names = {name, plain}
        return self._names.get(plain, []) + [
            entry
            for entry, variants in self._patterns
            if any(_matches(pattern, text) for pattern in variants for text in names)
        ]


def _matches(pattern: regex.Pattern[str], name: str) -> bool:
    try:
        return pattern.match(name, timeout=_MATCH_SECONDS) is not None
    except TimeoutError:
        raise ValueError(
            f"regular expression {shortened(pattern.pattern)} takes more than {_MATCH_SECONDS:g} s "
            f"for {shortened(name)}; do not repeat what can match the same letters in several "
            "ways, as (a|aa)+ does"
        ) from None


def any_str_or_regex_matches_param_name(
    param_name: str, name_or_regex_patterns: Iterable[str]
) -> bool:
    """Whether any entry names ``param_name``, in full or by a ``re:`` pattern.

    See :class:`NamePatterns` for what matches.

    :raises ValueError: for a pattern that is no regular expression
    """
    return bool(NamePatterns(name_or_regex_patterns).matching(param_name))
