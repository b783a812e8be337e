"""``python -m sparseml.fairseq``: print the folder for fairseq's ``--user-dir``."""

from __future__ import annotations

from sparseml.fairseq import USER_DIR
from sparseml.fairseq.errors import require_fairseq
from sparseml.run.errors import run_reported


def main() -> None:
    """Print the folder; a RunError where there is no fairseq."""
    require_fairseq()
    print(USER_DIR)


if __name__ == "__main__":
    raise SystemExit(run_reported(main))
