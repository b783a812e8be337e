"""What all tests of fairseq share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _quick_hydra(quick_hydra: None) -> None:
    pass
