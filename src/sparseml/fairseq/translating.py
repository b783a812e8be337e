"""Translations by beam search, compared with those of the corpus by sacrebleu."""

from __future__ import annotations

import importlib
from itertools import chain
from typing import Any

from fairseq import utils
from fairseq.dataclass.configs import GenerationConfig
from fairseq.tasks.translation import TranslationTask
from torch import nn

from sparseml.fairseq.settings import TranslatingSettings
from sparseml.run.errors import RunError
from sparseml.run.processes import Processes

_JOINS = {"sentencepiece": "sentencepiece", "subword_nmt": "@@ ", "none": None}


class Translations:
    """Translates batch by batch, as ``fairseq-generate`` does, and keeps the texts.

    :param settings: of the search
    """

    def __init__(self, task: Any, model: nn.Module, settings: TranslatingSettings) -> None:
        self._task, self._model, self._settings = task, model, settings
        self._join = _JOINS[joining(task.target_dictionary, settings.remove_bpe)]
        self._generator = generator_of(
            task,
            model,
            beam=settings.beam,
            lenpen=settings.lenpen,
            max_len_a=settings.max_len_a,
            max_len_b=settings.max_len_b,
        )
        self._texts: list[str] = []
        self._references: list[str] = []

    def add(self, batch: dict[str, Any]) -> None:
        """Translate a batch of fairseq's."""
        words = self._task.target_dictionary
        found = self._task.inference_step(self._generator, [self._model], batch)
        for target, best in zip(batch["target"], found, strict=True):
            tokens = utils.strip_pad(target, words.pad())
            self._references.append(self._text(tokens, escape_unk=True))
            self._texts.append(self._text(best[0]["tokens"]))

    def bleu(self, where: Processes) -> float:
        """Return BLEU of what all processes together have translated, from 0 to 100."""
        import sacrebleu

        parts = where.gather((self._texts, self._references))
        texts, references = (list(chain(*part)) for part in zip(*parts, strict=True))
        tokenizer = self._settings.sacrebleu_tokenizer
        return float(sacrebleu.corpus_bleu(texts, [references], tokenize=tokenizer).score)

    def _text(self, tokens: Any, **more: Any) -> str:
        words, generator = self._task.target_dictionary, self._generator
        ignored = getattr(generator, "symbols_to_strip_from_output", {generator.eos})
        text: str = words.string(
            tokens.int().cpu(), self._join, extra_symbols_to_ignore=ignored, **more
        )
        return text


def generator_of(task: Any, model: nn.Module, **search: Any) -> Any:
    """Return what a task translates with, for its ``inference_step``.

    :param search: of fairseq's ``GenerationConfig``, as ``beam``
    """
    return task.build_generator([model], GenerationConfig(**search))


def joining(words: Any, asked: str) -> str:
    """Return how pieces become words: as asked for or, if that is auto, by the dictionary."""
    if asked != "auto":
        return asked
    symbols = [words[index] for index in range(words.nspecial, len(words))]
    if any(symbol.startswith("\u2581") for symbol in symbols):
        return "sentencepiece"
    return "subword_nmt" if any(symbol.endswith("@@") for symbol in symbols) else "none"


def require_translating(task: Any) -> None:
    """Check that ``--bleu`` can be had.

    :raises RunError: for a language model, and without sacrebleu
    """
    if not isinstance(task, TranslationTask):
        raise RunError("--bleu: a language model does not translate")
    try:
        importlib.import_module("sacrebleu")
    except ImportError as error:
        raise RunError(f"--bleu needs sacrebleu ({error}): pip install sacrebleu") from error
