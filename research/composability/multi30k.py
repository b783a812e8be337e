"""A small translator, English to German, and the sentence pairs of Multi30k that it learns from.

``multi30k:model`` and ``multi30k:data`` are what the scripts beside this file hand to ``sparseml
compose``. The pairs are read from ``$SPARSEML_DATA/multi30k`` (by default ``../shared/data`` beside
the repository); subwords are made once, and kept in ``$COMPOSABILITY_WORK``, by default
``runs/composability``.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[2]
PAD, END, UNKNOWN, SPECIAL = 1, 2, 3, 4
"""Numbers of subwords, as fairseq has them; 0 is not used, and ``END`` begins a sentence, too."""
WORDS, WIDTH, HEADS, INNER, LAYERS, DROPOUT = 2000, 128, 4, 256, 2, 0.1
MOST = 60
"""Subwords of a sentence; more are cut off."""
PARTS = 32
"""Epochs of ``sparseml compose`` that make one of the data, so that there is much to look at."""
SMOOTHING = 0.1
FILES = {"train": "train.tsv.gz", "valid": "val.tsv.gz", "test": "test_2016_flickr.tsv.gz"}

Pair = tuple[list[int], list[int]]


def data_folder() -> Path:
    """Return where the sentence pairs lie."""
    return Path(os.environ.get("SPARSEML_DATA", ROOT.parent / "shared/data")) / "multi30k"


def work_folder() -> Path:
    """Return where subwords and weights are kept."""
    return Path(os.environ.get("COMPOSABILITY_WORK", ROOT / "runs/composability"))


class Translator(nn.Module):
    """``nn.Transformer`` with sinusoidal positions, whose tables and output layer are one matrix.

    :param words: how many subwords there are
    """

    def __init__(self, words: int) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(words, WIDTH), nn.Embedding(words, WIDTH)
        shape: Any = (WIDTH, HEADS, INNER, DROPOUT)
        reading = nn.TransformerEncoderLayer(*shape, batch_first=True)
        writing = nn.TransformerDecoderLayer(*shape, batch_first=True)
        encoder = nn.TransformerEncoder(reading, LAYERS, enable_nested_tensor=False)
        decoder = nn.TransformerDecoder(writing, LAYERS)
        self.transformer = nn.Transformer(
            WIDTH, HEADS, custom_encoder=encoder, custom_decoder=decoder, batch_first=True
        )
        self.generator = nn.Linear(WIDTH, words, bias=False)
        self.dropout = nn.Dropout(DROPOUT)
        self.register_buffer("places", _sinusoids(), persistent=False)
        for param in self.transformer.parameters():
            if param.ndim > 1:
                nn.init.xavier_uniform_(param)
        nn.init.normal_(self.generator.weight, std=WIDTH**-0.5)
        self.source.weight = self.target.weight = self.generator.weight

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Return logits ``[batch, length, words]`` of subwords ``[batch, length]`` (int64)."""
        return self.generator(self.decode(self.encode(source), source, target))

    def encode(self, source: Tensor) -> Tensor:
        """Return what the decoder reads, ``[batch, length, width]``."""
        hidden = self._embedded(self.source, source)
        return self.transformer.encoder(hidden, src_key_padding_mask=source == PAD)

    def decode(self, memory: Tensor, source: Tensor, target: Tensor) -> Tensor:
        """Return what the generator reads, ``[batch, length, width]``."""
        length = target.shape[1]
        later = torch.ones(length, length, dtype=torch.bool, device=target.device).triu(1)
        return self.transformer.decoder(
            self._embedded(self.target, target),
            memory,
            tgt_mask=later,
            tgt_key_padding_mask=target == PAD,
            memory_key_padding_mask=source == PAD,
        )

    def _embedded(self, table: nn.Embedding, words: Tensor) -> Tensor:
        places = self.places[: words.shape[1]]
        return self.dropout(table(words) * math.sqrt(WIDTH) + places)


class Multi30k:
    """The data as ``sparseml compose`` is lent them.

    :param batch_size: in sentence pairs
    :param judged: how many pairs are translated to judge a model; None for all
    :param split: from which these are
    """

    def __init__(
        self, batch_size: int = 64, judged: int | None = None, split: str = "valid"
    ) -> None:
        self.batch_size, self.judged, self.split = batch_size, judged, split
        self.words, self.numbers, self.pairs = prepared()
        self.texts = {number: word for word, number in self.numbers.items()}
        self.fingerprint = f"multi30k, {len(self.numbers)} subwords, {batch_size} pairs a batch"
        self._order: tuple[int, list[list[int]]] = (-1, [])

    def training(self, epoch: int) -> list[tuple[Tensor, Tensor]]:
        """Return the batches of a part of the training pairs."""
        whole, part = divmod(epoch, PARTS)
        if self._order[0] != whole:
            self._order = whole, self._shuffled(whole)
        return [self._batch("train", places) for places in self._order[1][part::PARTS]]

    def held_out(self) -> list[tuple[Tensor, Tensor]]:
        """Return the first 256 validation pairs, by which the best state of a block is chosen."""
        places = list(range(256))
        size = self.batch_size
        return [self._batch("valid", places[at : at + size]) for at in range(0, 256, size)]

    def call(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the logits of each next subword."""
        return model(batch[0], batch[1][:, :-1])

    def loss(self, model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Return the cross-entropy, smoothed."""
        logits = self.call(model, batch).flatten(0, 1)
        wanted = batch[1][:, 1:].flatten()
        return F.cross_entropy(logits, wanted, ignore_index=PAD, label_smoothing=SMOOTHING)

    def masks(self, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        """Return which subwords are real."""
        source, target = batch[0], batch[1][:, :-1]
        return {"transformer.encoder": source != PAD, "transformer.decoder": target != PAD}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return BLEU (sacreBLEU) of greedy translations."""
        import sacrebleu

        sources, references = raw(self.split)
        count = self.judged or len(sources)
        found = self.translations(model, self.split, count)
        return {"bleu": sacrebleu.corpus_bleu(found, [references[:count]]).score}

    @torch.no_grad()
    def translations(self, model: nn.Module, split: str, count: int) -> list[str]:
        """Translate the first pairs of a split, greedily, to at most five subwords more."""
        model.eval()
        order = sorted(range(count), key=lambda place: len(self.pairs[split][place][0]))
        texts = [""] * count
        for at in range(0, count, 100):
            places = order[at : at + 100]
            source = self._batch(split, places)[0]
            memory = model.encode(source)
            target = torch.full((len(places), 1), END)
            ended = torch.zeros(len(places), dtype=torch.bool)
            for _ in range(source.shape[1] + 5):
                last = model.decode(memory, source, target)[:, -1]
                word = model.generator(last).argmax(-1).masked_fill(ended, PAD)
                target = torch.cat([target, word[:, None]], 1)
                ended |= word == END
                if bool(ended.all()):
                    break
            for place, words in zip(places, target.tolist(), strict=True):
                texts[place] = self.words.decode([self.texts[w] for w in words if w in self.texts])
        return texts

    def _shuffled(self, epoch: int) -> list[list[int]]:
        lot = torch.Generator().manual_seed(epoch + 1)
        pairs, size = self.pairs["train"], self.batch_size
        order = torch.randperm(len(pairs), generator=lot).tolist()
        pools = [order[at : at + 20 * size] for at in range(0, len(order), 20 * size)]
        batches = []
        for pool in pools:
            pool.sort(key=lambda place: (len(pairs[place][1]), len(pairs[place][0])))
            batches += [pool[at : at + size] for at in range(0, len(pool), size)]
        return [batches[place] for place in torch.randperm(len(batches), generator=lot).tolist()]

    def _batch(self, split: str, places: Sequence[int]) -> tuple[Tensor, Tensor]:
        pairs = [self.pairs[split][place] for place in places]
        sides = ([torch.tensor(pair[side]) for pair in pairs] for side in (0, 1))
        source, target = (nn.utils.rnn.pad_sequence(s, True, PAD) for s in sides)
        return source, target


def prepared() -> tuple[Any, dict[str, int], dict[str, list[Pair]]]:
    """Return the subwords, their numbers, and the pairs of each split in these."""
    import sentencepiece

    folder = work_folder()
    folder.mkdir(parents=True, exist_ok=True)
    file, numbered = folder / "subwords.model", folder / "subwords.json"
    if not file.exists():
        both = [text for side in raw("train") for text in side]
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(both), model_prefix=str(file.with_suffix("")),
            vocab_size=WORDS, model_type="bpe", character_coverage=1.0, num_threads=1,
            minloglevel=2,
        )  # fmt: skip
    words = sentencepiece.SentencePieceProcessor(model_file=str(file))
    if not numbered.exists():
        known = [words.id_to_piece(place) for place in range(len(words))]
        own = [word for place, word in enumerate(known) if not words.is_control(place)]
        numbers = {word: SPECIAL + place for place, word in enumerate(own)}
        numbered.write_text(json.dumps(numbers), encoding="utf-8")
    numbers = json.loads(numbered.read_text(encoding="utf-8"))

    def coded(text: str) -> list[int]:
        found = words.encode(text, out_type=str)
        return [numbers.get(word, UNKNOWN) for word in found[:MOST]]

    pairs: dict[str, list[Pair]] = {}
    for split in FILES:
        both_sides = zip(*raw(split), strict=True)
        pairs[split] = [([*coded(s), END], [END, *coded(t), END]) for s, t in both_sides]
    return words, numbers, pairs


def raw(split: str) -> tuple[list[str], list[str]]:
    """Return the English and the German sentences of a split."""
    with gzip.open(data_folder() / FILES[split], "rt", encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    return [row[0] for row in rows], [row[1] for row in rows]


def model() -> Translator:
    """Return a translator with new weights, the same every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Translator(-(-(max(prepared()[1].values()) + 1) // 8) * 8)


def data(**given: Any) -> Multi30k:
    """Return the data."""
    return Multi30k(**given)


def train(epochs: int, rate: float = 2e-3, seed: int = 0) -> Translator:
    """Return a translator that has learned for some epochs of the whole data."""
    translator, pairs = model(), Multi30k()
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(translator.parameters(), rate, (0.9, 0.98), 1e-9)
    steps = epochs * PARTS * len(pairs.training(0))
    step = 0
    for epoch in range(epochs * PARTS):
        translator.train()
        total = 0.0
        batches = pairs.training(epoch)
        for batch in batches:
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1.0, (step + 1) / 400) * (1.0 - step / steps)
            optimizer.zero_grad()
            loss = pairs.loss(translator, batch)
            loss.backward()
            nn.utils.clip_grad_norm_(translator.parameters(), 1.0)
            optimizer.step()
            total, step = total + float(loss.detach()), step + 1
        if epoch % PARTS == PARTS - 1:
            print(f"epoch {epoch // PARTS + 1}: loss {total / len(batches):.3f}", flush=True)
    return translator.eval()


def _sinusoids() -> Tensor:
    places = torch.arange(MOST + 8)[:, None] + PAD + 1
    half = WIDTH // 2
    rates = torch.exp(torch.arange(half) * (-math.log(10000.0) / (half - 1)))
    return torch.cat([(places * rates).sin(), (places * rates).cos()], 1)
