"""A tiny corpus, models that fairseq has trained on it, and runs as functions."""

from __future__ import annotations

import io
import logging
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what the library warns of as it is imported
    pytest.importorskip("fairseq")
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf
    from fairseq_cli import preprocess
    from fairseq_cli import train as fairseq_train

from sparseml.fairseq.glue import GLUE
from sparseml.run import prune

ROWS = {"train": 120, "valid": 24, "test": 9}
WORDS = 6
SMALL = ["--cpu", "--seed", "1", "--optimizer", "adam", "--lr", "0.02", "--no-progress-bar"]
SMALL += ["--num-workers", "0", "--no-last-checkpoints", "--log-interval", "20"]
SIZES = ["embed-dim", "ffn-embed-dim", "attention-heads", "layers"]
LAYERS = r"re:(encoder|decoder)\.layers\..*(proj|fc\d)\.weight"
MAGNITUDE = """
pruning_modifiers:
  - !GlobalMagnitudePruningModifier
      params: ['PARAMS']
      init_sparsity: 0.3
      final_sparsity: 0.3
      start_epoch: 0
      end_epoch: 1
      update_frequency: 1
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let fairseq warn of what is old in it."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore::FutureWarning"))
            item.add_marker(pytest.mark.filterwarnings("ignore::DeprecationWarning"))


@contextmanager
def as_by_itself() -> Iterator[None]:
    """Let fairseq set up logging and warn as it likes, and forget it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)
        root.handlers[:] = handlers
        root.setLevel(level)


def _sentences(count: int, draw: random.Random) -> Iterator[tuple[str, str]]:
    """Yield words, and pieces of words: each source word is two target pieces."""
    for _ in range(count):
        words = [draw.randrange(WORDS) for _ in range(draw.randint(4, 7))]
        yield " ".join(f"s{word}" for word in words), " ".join(f"\u2581t{n} x" for n in words)


def write_texts(folder: Path, seed: int = 0) -> Path:
    """Write the two languages of each split."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(seed)
    for split, count in ROWS.items():
        pairs = list(_sentences(count, draw))
        for language, lines in zip(("src", "tgt"), zip(*pairs, strict=True), strict=True):
            (folder / f"{split}.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def binarised(texts: Path, folder: Path, *flags: str) -> Path:
    """Return what fairseq-preprocess makes of texts."""
    prefs = [flag for split in ROWS for flag in (f"--{split}pref", str(texts / split))]
    parser = options.get_preprocessing_parser()
    with as_by_itself():
        preprocess.main(parser.parse_args([*prefs, "--destdir", str(folder), *flags]))
    return folder


def trained(data: Path, folder: Path, *flags: str) -> Path:
    """Return the checkpoint that fairseq-train leaves."""
    argv = [str(data), "--save-dir", str(folder), *SMALL, *flags]
    with as_by_itself():
        args = options.parse_args_and_arch(options.get_training_parser(), argv)
        fairseq_train.main(convert_namespace_to_omegaconf(args))
    return folder / "checkpoint_best.pt"


@pytest.fixture(scope="session")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name → folder of a binarised corpus: pairs, other (more words), and text, for a model."""
    root = tmp_path_factory.mktemp("corpora")
    texts = write_texts(root / "texts")
    more = write_texts(root / "more")
    for language in ("src", "tgt"):
        with (more / f"train.{language}").open("a", encoding="utf-8") as file:
            file.write(" ".join(f"new{number}" for number in range(9)) + "\n")
    pair = ["-s", "src", "-t", "tgt"]
    for split in ROWS:
        (root / split).write_text((texts / f"{split}.tgt").read_text(encoding="utf-8"))
    return {
        "pairs": binarised(texts, root / "pairs", *pair),
        "other": binarised(more, root / "other", *pair),
        "text": binarised(root, root / "text", "--only-source"),
    }


@pytest.fixture(scope="session")
def checkpoints(
    corpora: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Name → checkpoint: of a translation model, and of a language model."""
    root = tmp_path_factory.mktemp("checkpoints")
    sides = [f"--{side}-{size}" for side in ("encoder", "decoder") for size in SIZES]
    sizes = list(chain(*zip(sides, ["16", "32", "2", "1"] * 2, strict=True)))
    both = ["--max-update", "70", "--save-interval", "99", "--validate-interval", "99"]
    pairs = ["--arch", "transformer", *sizes, "--criterion", "label_smoothed_cross_entropy"]
    pairs += ["--label-smoothing", "0.1", "--max-tokens", "200", "--dropout", "0.1"]
    text = ["--task", "language_modeling", "--arch", "transformer_lm", *sizes[8:]]
    text += ["--decoder-output-dim", "16", "--tokens-per-sample", "16", "--batch-size", "16"]
    return {
        "pairs": trained(corpora["pairs"], root / "pairs", *pairs, *both),
        "text": trained(corpora["text"], root / "text", *text, *both),
    }


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a recipe."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(MAGNITUDE.replace("PARAMS", LAYERS))
    return tmp_path


@pytest.fixture
def call(workplace: Path, call_run: Callable[..., Any]) -> Callable[..., Any]:
    """Call a run of one shot; its results go to ``out/run``."""

    def called(*given: Any, fails: bool = False, run: Any = prune) -> Any:
        return call_run(run, GLUE, "--latency-rounds", 0, *given, fails=fails)

    return called


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Call a command of fairseq as on the command line, and return what it prints."""

    def called(main: Callable[[], None], *given: Any) -> str:
        out = io.StringIO()
        monkeypatch.setattr(sys, "argv", ["fairseq", *map(str, given)])
        with as_by_itself(), redirect_stdout(out):
            main()
        return out.getvalue()

    return called
