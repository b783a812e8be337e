"""Commands of fairseq with the plugin that knows SRP, in this process."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence

from sparseml.fairseq import USER_DIR
from sparseml.fairseq.errors import require_fairseq
from sparseml.run.errors import run_reported


def fairseq(command: str, argv: Sequence[str]) -> int:
    """Run ``fairseq-train`` or another command; return the status of the process.

    :param command: such as ``train``
    :param argv: its flags; an own ``--user-dir`` has to call ``sparseml.fairseq.hooks.install()``
    """

    def run() -> None:
        require_fairseq()
        plugin = [] if "--user-dir" in argv else ["--user-dir", str(USER_DIR)]
        sys.argv = [f"fairseq-{command}", *argv, *plugin]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is old in fairseq
            importlib.import_module(f"fairseq_cli.{command}").cli_main()

    return run_reported(run)
