"""A tiny corpus, and trainings of it by fairseq itself, under a recipe."""

from __future__ import annotations

import logging
import random
import sys
import warnings
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the library warns of as it is imported
    pytest.importorskip("fairseq", reason="fairseq is not installed: Python 3.11 or 3.12 has it")
    from fairseq import checkpoint_utils, options
    from fairseq_cli import preprocess, train

from sparseml.fairseq import USER_DIR, hooks

SIZES = "--encoder-layers 1 --decoder-layers 1 --encoder-embed-dim 16 --decoder-embed-dim 16 "
SIZES += "--encoder-ffn-embed-dim 24 --decoder-ffn-embed-dim 24 --encoder-attention-heads 2 "
SIZES += "--decoder-attention-heads 2"
MODEL = f"--arch transformer {SIZES} --share-all-embeddings --dropout 0.1"
LEARNING = "--optimizer adam --lr 0.01 --lr-scheduler inverse_sqrt --warmup-updates 4"
PLACE = "--cpu --max-tokens 150 --no-progress-bar --num-workers 0 --log-interval 1 --seed 1"
LAYERS = r"'re:(en|de)coder\.layers.*(proj|fc[12])\.weight'"
GAP = f"""
modifiers:
  - !GaPPruningModifier
      params: [{LAYERS}]
      final_sparsity: 0.75
      num_steps: 3
      update_frequency: 1.0
      num_partitions: 3
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let fairseq warn of what is old in it."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for kind in ("FutureWarning", "DeprecationWarning", "UserWarning"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{kind}"))


@contextmanager
def as_by_itself() -> Iterator[None]:
    """Let fairseq set up logging as it likes, and forget it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts of two languages, in files as fairseq-preprocess takes them."""
    folder = tmp_path_factory.mktemp("texts")
    draw = random.Random(0)
    for split, count in {"train": 120, "valid": 16, "test": 4}.items():
        lines = [
            [f"w{draw.randrange(12)}" for _ in range(draw.randint(2, 7))] for _ in range(count)
        ]
        sides = {"de": lines, "en": [line[::-1] for line in lines]}
        for language, texts in sides.items():
            text = "".join(" ".join(words) + "\n" for words in texts)
            (folder / f"{split}.{language}").write_text(text)
            (folder / split).write_text(text)
    return folder


@pytest.fixture(scope="session")
def data(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The corpus for translation, and one side of it for a language model, binarised."""
    root = tmp_path_factory.mktemp("data")
    given = {
        "pairs": ["-s", "de", "-t", "en", "--joined-dictionary"],
        "text": ["--only-source"],
    }
    for name, flags in given.items():
        prefs = [f"--{split}pref={corpus / split}" for split in ("train", "valid")]
        parser = options.get_preprocessing_parser()
        with as_by_itself():
            preprocess.main(parser.parse_args([*prefs, "--destdir", str(root / name), *flags]))
    return {name: root / name for name in given}


class Trainings:
    """Trains as ``fairseq-train`` does, in a folder, and reads what is left there."""

    model, learning, gap, layers = MODEL, LEARNING, GAP, LAYERS

    def __init__(self, data: dict[str, Path], folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.data, self.folder, self.patch = data, folder, patch
        self.runs: list[Any] = []  # each as it was when it ended
        self.write("gap.yaml", GAP)
        finish = hooks.RecipeRun.finish

        def keep(run: hooks.RecipeRun) -> None:
            position = run.driver.position
            finish(run)
            self.runs.append((run, position))

        patch.setattr(hooks.RecipeRun, "finish", keep)

    def write(self, name: str, text: str) -> str:
        """Write a file, and return its name."""
        (self.folder / name).write_text(text)
        return name

    def words(self, save: str, flags: str, recipe: str | None, corpus: str = "pairs") -> list[str]:
        """Return the arguments of ``fairseq-train``, without those of model and optimizer."""
        words = f"--save-dir {save} --user-dir {USER_DIR} {PLACE} {flags}"
        words += f" --sparseml-recipe {recipe}" if recipe else ""
        return [str(self.data[corpus]), *words.split()]

    def train(
        self,
        save: str,
        flags: str = "",
        recipe: str | None = "gap.yaml",
        *,
        corpus: str = "pairs",
        model: str = MODEL,
        learning: str = LEARNING,
    ) -> Path:
        """Train, and return the folder of checkpoints."""
        vars(checkpoint_utils.save_checkpoint).pop("best", None)
        vars(train.should_stop_early).pop("best", None)
        argv = self.words(save, f"{flags} {model} {learning}", recipe, corpus)
        self.patch.setattr(sys, "argv", ["fairseq-train", *argv])
        with as_by_itself():
            train.cli_main()
        return self.folder / save

    def read(self, path: Path) -> dict[str, Any]:
        """Return the content of a checkpoint."""
        with torch.serialization.safe_globals([Namespace]):
            content: dict[str, Any] = torch.load(path, weights_only=True)
        return content

    def zeros(self, path: Path) -> dict[str, int]:
        """Return how many zeros each weight has in a checkpoint."""
        weights = self.read(path)["model"].items()
        return {name: int((value == 0).sum()) for name, value in weights if value.ndim == 2}

    def sparse(self, path: Path) -> bool:
        """Return whether a checkpoint has just what the recipe wants at its end."""
        shapes = {name: value.numel() for name, value in self.read(path)["model"].items()}
        zeros = self.zeros(path)
        layers = [name for name in zeros if ".layers." in name]
        assert layers
        return all(zeros[name] == round(0.75 * shapes[name]) for name in layers)

    def equal(self, one: Path, other: Path) -> bool:
        """Return whether two checkpoints have the very same weights."""
        first, second = self.read(one)["model"], self.read(other)["model"]
        return first.keys() == second.keys() and all(
            torch.equal(value, second[name]) for name, value in first.items()
        )


@pytest.fixture
def fairseq(data: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainings:
    """Trainings in an empty folder, with ``gap.yaml``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(USER_DIR.parent))  # undone, as fairseq does not
    return Trainings(data, tmp_path, monkeypatch)
