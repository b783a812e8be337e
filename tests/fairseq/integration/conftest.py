"""The scripts of ``integrations/fairseq`` as modules, and a tiny corpus."""

from __future__ import annotations

import argparse
import importlib
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn import Module

ROOT = Path(__file__).resolve().parents[3]
SCRIPTS = ROOT / "integrations/fairseq"
WORDS = {
    "a": "ein", "big": "großer", "small": "kleiner", "black": "schwarzer", "white": "weißer",
    "dog": "Hund", "bird": "Vogel", "tree": "Baum", "sees": "sieht", "likes": "mag",
}  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def fairseq() -> ModuleType:
    """Import fairseq, or skip; what is old in it warns as it is imported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("sacrebleu")
        return pytest.importorskip("fairseq")  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def parsed() -> Callable[..., argparse.Namespace]:
    """Give what fairseq's own parser makes of a file of arguments, and of further ones."""

    def parse(config: str, *further: str) -> argparse.Namespace:
        from fairseq import options

        words = (ROOT / "configs/fairseq" / f"{config}.args").read_text().split()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parser = options.get_training_parser()
        given = ["data", *words, *further]
        return options.parse_args_and_arch(parser, input_args=given)  # type: ignore[no-any-return]

    return parse


@pytest.fixture(scope="session")
def transformer(parsed: Callable[..., argparse.Namespace]) -> Callable[[str, int], Module]:
    """Give the model of a file of arguments, on the meta device: names and shapes."""
    built: dict[str, Module] = {}

    def build(config: str, words: int = 100) -> Module:
        from fairseq.data import Dictionary
        from fairseq.models.transformer import TransformerModel

        if config in built:
            return built[config]
        dictionary: Any = Dictionary()
        for number in range(words - len(dictionary)):
            dictionary.add_symbol(f"w{number}")
        task = SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)
        with torch.device("meta"):
            built[config] = TransformerModel.build_model(parsed(config), task)
        return built[config]

    return build


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Give a script, or a module of the package beside it, by its name."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield importlib.import_module
    for name in [name for name in sys.modules if name.partition(".")[0] in _OWN]:
        del sys.modules[name]


_OWN = {"translation", *(path.stem for path in SCRIPTS.glob("*.py"))}


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """Return made-up sentences, each with its translation."""
    lot, found = random.Random(seed), []
    adjectives, nouns = list(WORDS)[1:5], list(WORDS)[5:8]
    for _ in range(count):
        words = ["a", lot.choice(adjectives), lot.choice(nouns), lot.choice(list(WORDS)[8:])]
        words += ["a", lot.choice(adjectives), lot.choice(nouns)]
        found.append((" ".join(words), " ".join(WORDS[word] for word in words)))
    return found


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Return a folder with ``train``, ``valid`` and ``test``, each as ``.tsv`` and as two texts."""
    folder = tmp_path / "texts"
    folder.mkdir()
    for seed, (split, count) in enumerate({"train": 60, "valid": 8, "test": 10}.items()):
        pairs = sentences(count, seed)
        rows = ["en\tde", *(f"{source}\t{target}" for source, target in pairs), ""]
        (folder / f"{split}.tsv").write_text("\n".join(rows), encoding="utf-8")
        for place, language in enumerate(("en", "de")):
            text = "".join(f"{pair[place]}\n" for pair in pairs)
            (folder / f"{split}.{language}").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def flags(texts: Path) -> Callable[..., list[str]]:
    """Give the flags of ``prepare.py`` for those of the files that have such endings."""

    def words(*endings: str) -> list[str]:
        found = ["--source-lang", "en", "--target-lang", "de"]
        for split in ("train", "valid", "test"):
            found += [f"--{split}", *(str(texts / f"{split}.{ending}") for ending in endings)]
        return found

    return words
