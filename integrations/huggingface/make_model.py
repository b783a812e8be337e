"""Make a small BERT with random weights, and a tokenizer that knows the words of some texts.

    python integrations/huggingface/make_model.py models/small data/sst2/train.tsv.gz

It stands in for a pretrained model where there is no network to download one from.
"""

from __future__ import annotations

import argparse
import gzip
import sys
from collections.abc import Iterator
from pathlib import Path

from tokenizers import BertWordPieceTokenizer
from transformers import BertConfig, BertForMaskedLM, BertTokenizerFast, set_seed

from sparseml.run.errors import RunError, run_reported


def main(argv: list[str] | None = None) -> None:
    """Write the model's folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the model goes")
    parser.add_argument("texts", type=Path, nargs="+", help="files to take words from")
    parser.add_argument("--words", type=int, default=4000, help="size of the vocabulary")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--width", type=int, default=128, help="64 for each head")
    parser.add_argument("--positions", type=int, default=512, help="tokens of the longest text")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    if missing := [str(path) for path in options.texts if not path.is_file()]:
        parser.error(f"no such file: {', '.join(missing)}")

    words = BertWordPieceTokenizer(lowercase=True)
    words.train_from_iterator(
        (line for path in options.texts for line in lines(path)),
        vocab_size=options.words,
        show_progress=False,
    )
    tokenizer = BertTokenizerFast(vocab=words.get_vocab(), model_max_length=options.positions)
    set_seed(options.seed)
    config = BertConfig(
        vocab_size=words.get_vocab_size(),
        hidden_size=options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=max(1, options.width // 64),
        intermediate_size=4 * options.width,
        max_position_embeddings=options.positions,
    )
    model = BertForMaskedLM(config)
    model.save_pretrained(options.folder)
    tokenizer.save_pretrained(options.folder)
    print(f"{model.num_parameters():,} parameters, {config.vocab_size:,} words: {options.folder}")


def lines(path: Path) -> Iterator[str]:
    """Give the lines of a text file, gzipped or not."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8") as file:
        try:
            yield from file
        except (OSError, UnicodeDecodeError) as error:  # as of one that is not gzipped
            raise RunError(f"{path} is no text in UTF-8: {error}") from error


if __name__ == "__main__":
    sys.exit(run_reported(main))
