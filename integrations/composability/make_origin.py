"""Train a small Transformer to sort digits: the origin of the README's walk. Takes seconds.

python make_origin.py
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser

from sparseml.compose import sorting
from sparseml.pytorch.utils.saving.files import write_safetensors
from sparseml.run.errors import run_reported


def main() -> None:
    """Write ``origin.safetensors``, and say how good it is."""
    ArgumentParser(description=(__doc__ or "").partition("\n")[0]).parse_args()
    trained = sorting.train(steps=600)
    write_safetensors("origin.safetensors", trained.state_dict(), {"format": "pt"})
    found = sorting.SortingData().evaluate(trained)
    print(f"origin.safetensors: accuracy {found['accuracy']:.4f}, loss {found['loss']:.4f}")


if __name__ == "__main__":
    sys.exit(run_reported(main))
