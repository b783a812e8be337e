"""Saving and restoring the state of every random generator that training draws from."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_LOGGER = logging.getLogger(__name__)


def get_rng_state() -> dict[str, Any]:
    """Return the states of Python's, numpy's and torch's global generators, CUDA's included.

    Tensors and plain data only, so ``torch.load(weights_only=True)`` reads it back. In a
    distributed run every process has its own.
    """
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "python": random.getstate(),
        "numpy": {
            "name": str(name),
            "keys": torch.from_numpy(np.asarray(keys).astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Put the generators back into a state of :func:`get_rng_state`.

    A warning is logged where there were more or fewer GPUs; those there are get their states.
    """
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    saved = state["numpy"]
    keys = saved["keys"].cpu().numpy().astype(np.uint32)
    rest = (saved["position"], saved["has_gauss"], saved["cached"])
    np.random.set_state((saved["name"], keys, *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if len(state["cuda"]) != devices:
        text = "the random state was taken with %d GPUs, here are %d"
        _LOGGER.warning(text, len(state["cuda"]), devices)
    for index, device_state in enumerate(state["cuda"][:devices]):
        torch.cuda.set_rng_state(device_state.cpu(), index)


class OwnRandomNumbers:
    """Random numbers apart from those that the global generators draw elsewhere."""

    def __init__(self) -> None:
        self._state: dict[str, Any] | None = None

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Within the block the global generators draw these numbers, going on where they were."""
        before = get_rng_state()
        if self._state is not None:
            set_rng_state(self._state)
        try:
            yield
        finally:
            self._state = get_rng_state()
            set_rng_state(before)

    def begin(self, *entropy: int) -> None:
        """Begin the numbers of these seeds; to be called within :meth:`drawing`."""
        first, second, third = (int(n) for n in np.random.SeedSequence(entropy).generate_state(3))
        random.seed(first)
        np.random.seed(second)  # noqa: NPY002  data pipelines draw from the global generator
        torch.manual_seed(third)
