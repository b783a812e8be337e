"""Make the origin: the translator whose parts are pruned. Writes ``origin.safetensors``.

    python research/composability/train_origin.py --epochs 18
    python research/composability/train_origin.py --fairseq checkpoint_last.pt \\
        --subwords bpe.model --dictionary dict.en.txt

It is trained, or read from a checkpoint of ``fairseq-train --arch transformer
--share-all-embeddings`` of the same shape, such as the dense one of ``translation_study.py``.
"""

from __future__ import annotations

import json
import shutil
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import multi30k
import torch
from torch import Tensor

from sparseml.pytorch.utils.saving.files import write_safetensors
from sparseml.run.errors import run_reported

RENAMED = {
    "self_attn_layer_norm": "norm1",
    "encoder_attn_layer_norm": "norm2",
    "encoder_attn.": "multihead_attn.",
    "fc1": "linear1",
    "fc2": "linear2",
}
TABLES = ("source.weight", "target.weight", "generator.weight")


def main() -> None:
    """Make it, and say how good it is."""
    parser = ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--epochs", type=int, default=18, help="[18]")
    add("--fairseq", type=Path, metavar="FILE", help="read it from this checkpoint")
    add("--subwords", type=Path, metavar="FILE", help="the checkpoint's, of sentencepiece")
    add("--dictionary", type=Path, metavar="FILE", help="the checkpoint's")
    add("--output", type=Path, default=multi30k.work_folder() / "origin.safetensors")
    args = parser.parse_args()
    if args.fairseq is None:
        state = multi30k.train(args.epochs).state_dict()
    else:
        _take_subwords(args)
        state = from_fairseq(args.fairseq)
    write_safetensors(args.output, state, {"format": "pt"})
    print(f"written: {args.output}")
    translator = multi30k.model()
    translator.load_state_dict(state)
    print(multi30k.Multi30k(split="valid").evaluate(translator.eval()))


def _take_subwords(args: Namespace) -> None:
    folder = multi30k.work_folder()
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(args.subwords, folder / "subwords.model")
    words = [line.rsplit(" ", 1)[0] for line in args.dictionary.read_text("utf-8").splitlines()]
    own = {w: multi30k.SPECIAL + n for n, w in enumerate(words) if "madeupword" not in w}
    (folder / "subwords.json").write_text(json.dumps(own), encoding="utf-8")


def from_fairseq(file: Path) -> dict[str, Tensor]:
    """Return the weights of a checkpoint under the names of the translator."""
    with torch.serialization.safe_globals([Namespace]):  # fairseq keeps its arguments so
        given = torch.load(file, map_location="cpu", weights_only=True)["model"]
    state = dict.fromkeys(TABLES, given["encoder.embed_tokens.weight"])
    for name, value in given.items():
        if ".layers." not in name or any(f".{part}_proj" in name for part in "kv"):
            continue
        new = f"transformer.{name}"
        if ".q_proj" in name:  # one matrix for queries, keys and values
            parts = [given[name.replace(".q_proj", f".{part}_proj")] for part in "qkv"]
            new, value = new.replace(".q_proj.", ".in_proj_"), torch.cat(parts)
        last = "norm3" if name.startswith("decoder") else "norm2"
        for old, other in {**RENAMED, "final_layer_norm": last}.items():
            new = new.replace(f".{old}", f".{other}")
        state[new] = value
    return state


if __name__ == "__main__":
    sys.exit(run_reported(main))
