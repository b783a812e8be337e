"""Recipes in fairseq: a folder for its ``--user-dir``, and nothing of fairseq copied.

.. code-block:: console

    $ fairseq-train DATA --user-dir "$(python -m sparseml.fairseq)" --sparseml-recipe FILE ...

Nothing is imported before it is used, and fairseq may come from any distribution that has it.
"""

from __future__ import annotations

from pathlib import Path

USER_DIR = Path(__file__).parent / "user_dir" / "sparseml_plugin"
"""What to give to ``--user-dir``."""
