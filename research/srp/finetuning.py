"""Train a shrunk Transformer on.

    python research/srp/finetuning.py DATA --task SRPtranslation --arch srp_iwslt_de_en \\
        --criterion srp --optimizer srp_adam --lr 5e-4 --max-tokens 4096 --max-epoch 20 \\
        --save-dir output/tuned \\
        --pretrained-model output/stage2/checkpoint_last.pt

All flags are those of ``fairseq-train``; the widths are those of the checkpoint.
"""

from __future__ import annotations

import sys

from launch import fairseq

if __name__ == "__main__":
    raise SystemExit(fairseq("train", sys.argv[1:]))
