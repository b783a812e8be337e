"""Translate with a Transformer, whole or shrunk.

    python research/srp/generate.py DATA --path output/tuned/checkpoint_last.pt --beam 5 \\
        --batch-size 128 --remove-bpe

All flags are those of ``fairseq-generate``.
"""

from __future__ import annotations

import sys

from launch import fairseq

if __name__ == "__main__":
    raise SystemExit(fairseq("generate", sys.argv[1:]))
