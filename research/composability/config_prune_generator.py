"""Find the distinct blocks of configurations: writes ``conf_prune.json`` and the plan.

python research/composability/config_prune_generator.py -i conf.json
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser

from commands import MODEL, ORIGIN, PLAN, compose

from sparseml.run.errors import run_reported


def main() -> None:
    """Make the plan."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-i", "--conf_file", required=True, help="the configurations")
    args = parser.parse_args()
    words = ["plan", "--model", MODEL, "--weights", ORIGIN, "--legacy-conf", args.conf_file]
    compose(*words, "--out", PLAN, "--legacy-plan", "conf_prune.json")


if __name__ == "__main__":
    sys.exit(run_reported(main))
