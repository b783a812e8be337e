"""``python -m sparseml``, the same as the command ``sparseml``."""

from __future__ import annotations

from sparseml.cli import main

if __name__ == "__main__":
    main(prog_name="sparseml")
