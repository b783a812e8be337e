"""Train a Transformer to be shrunk later.

    python research/srp/train.py DATA --task SRPtranslation --arch srp_iwslt_de_en \\
        --criterion srp --optimizer srp_adam --lr 5e-4 --max-tokens 4096 --max-epoch 30 \\
        --save-dir output/dense

All flags are those of ``fairseq-train``.
"""

from __future__ import annotations

import sys

from launch import fairseq

if __name__ == "__main__":
    raise SystemExit(fairseq("train", sys.argv[1:]))
