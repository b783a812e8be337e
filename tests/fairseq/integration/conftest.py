"""The scripts of ``integrations/fairseq`` as modules, and a tiny corpus."""

from __future__ import annotations

import importlib
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "integrations/fairseq"
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


def as_flags(folder: Path, *endings: str) -> list[str]:
    """Return the flags of ``prepare.py`` for the files of a folder that have such endings."""
    found = ["--source-lang", "en", "--target-lang", "de"]
    for split in ("train", "valid", "test"):
        found += [f"--{split}", *(str(folder / f"{split}.{ending}") for ending in endings)]
    return found
