"""Say the BLEU of a model on the test sentences: sacreBLEU, and that of old experiments.

python research/composability/evaluate.py origin.safetensors
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser

import sacrebleu
from multi30k import Multi30k, raw

from sparseml.compose.origin import load_origin
from sparseml.pytorch.functional.composing.bleu import bleu_legacy
from sparseml.run.errors import run_reported


def main() -> None:
    """Translate, and count."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="file of weights")
    parser.add_argument("--split", choices=["valid", "test"], default="test", help="[test]")
    parser.add_argument("--count", type=int, help="only the first sentences")
    args = parser.parse_args()
    translator, references = load_origin("multi30k:model", args.model), raw(args.split)[1]
    count = args.count or len(references)
    found = Multi30k(split=args.split).translations(translator, args.split, count)
    wanted = references[:count]
    print(f"BLEU {sacrebleu.corpus_bleu(found, [wanted]).score:.2f}")
    print(f"bleu_legacy {bleu_legacy(found, list(map(spaced, wanted))):.2f}")


def spaced(text: str) -> str:
    """Return a sentence as old experiments split it: with a blank before its full stop."""
    for mark in ".!?":
        text = text.replace(mark, f" {mark}")
    return text


if __name__ == "__main__":
    sys.exit(run_reported(main))
