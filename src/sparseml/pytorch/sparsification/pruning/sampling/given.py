"""What users give as ``grad_sampler``, and how the data in it are asked for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from sparseml.utils.text import did_you_mean

_BUILDER = "data_loader_builder"
LOSSES = ("loss_function", "loss_fn")
"""The keys of a loss."""
_OPTIONS = ("autocast", "progress_bar", "after_batch")


def parts_of(given: Any, owner: str) -> tuple[Callable[..., Any], Callable[[Any, Any], Tensor]]:
    """Return the builder of the data and the loss of a ``grad_sampler``.

    :param owner: the modifier, for messages
    :raises RuntimeError: for none, and for one that lacks a key or has an unknown one
    """
    need = f"{owner} prunes by gradients: give grad_sampler={{'{_BUILDER}': ..., '{LOSSES[0]}': "
    need += "...} to the manager's modify(), initialize() or apply()"
    if not isinstance(given, Mapping):
        raise RuntimeError(f"{need}, found {given!r}")
    known = (_BUILDER, *LOSSES, *_OPTIONS)
    unknown = [str(key) for key in given if key not in known]
    if unknown:
        hint = did_you_mean(unknown[0], known)
        raise RuntimeError(f"grad_sampler of {owner} has the unknown key {unknown[0]!r}{hint}")
    loss = next((given[key] for key in LOSSES if key in given), None)
    for what, value in ((_BUILDER, given.get(_BUILDER)), (LOSSES[0], loss)):
        if not callable(value):
            raise RuntimeError(f"{need}; its {what} must be callable, found {value!r}")
    assert loss is not None
    return given[_BUILDER], loss


def call_builder(builder: Callable[..., Any], kwargs: Mapping[str, Any]) -> Any:
    """Call a ``data_loader_builder`` in the way that its signature asks for.

    SparseML 1.x hands the OBS and M-FAC builders their ``grad_sampler_kwargs`` as one dict, the
    CAP scripts hand them over as keywords. A builder with ``**kwargs``, or with parameters of just
    these names, gets keywords; one that needs a single argument (of another name) gets the dict;
    one that takes none is called without.
    """
    try:
        parameters = list(inspect.signature(builder).parameters.values())
    except (TypeError, ValueError):  # some callables written in C have no signature
        return builder(**kwargs)
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    single = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    needed = {p.name for p in single if p.default is p.empty}
    by_keywords = any(p.kind is p.VAR_KEYWORD for p in parameters) or set(kwargs) <= names
    if by_keywords and needed <= set(kwargs):
        return builder(**kwargs)
    return builder(dict(kwargs))
