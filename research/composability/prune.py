"""Prune the blocks of the plan into the store.

python research/composability/prune.py
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser

from commands import PLAN, STORE, compose

from sparseml.run.errors import run_reported


def main() -> None:
    """Prune them."""
    ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    compose("prune", "--plan", PLAN, "--store", STORE)


if __name__ == "__main__":
    sys.exit(run_reported(main))
