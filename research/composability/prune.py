"""Prune the blocks of the plan into the store.

python research/composability/prune.py
"""

from __future__ import annotations

from argparse import ArgumentParser

from commands import PLAN, STORE, compose

if __name__ == "__main__":
    ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    compose("prune", "--plan", PLAN, "--store", STORE)
