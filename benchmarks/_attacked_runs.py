"""The runs that are attacked, each tiny."""

from __future__ import annotations

import importlib.util
import logging
import os
import pickle
import random
import runpy
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import numpy
import torch

from _attack_points import Points

ROOT = Path(__file__).resolve().parents[1]
GRADUAL = """
training_modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 3}
pruning_modifiers:
  - !MagnitudePruningModifier
      params: [PARAMS]
      init_sparsity: 0.2
      final_sparsity: 0.7
      start_epoch: 0
      end_epoch: 2
      update_frequency: 0.5
"""
ONE_SHOT = """
pruning_modifiers:
  - !CAPruningModifier
      params: ['re:body.*weight']
      init_sparsity: 0.3
      final_sparsity: 0.3
      start_epoch: 0
      end_epoch: 1
      update_frequency: 1
      num_grads: 4
      fisher_block_size: 8
      fisher_memory: 6kB
      traces_backup_dir: traces
      grad_sampler_kwargs: {batch_size: 4}
"""


class Attacked(ABC):
    """A run that can be begun and gone on with, in the folder ``out`` of a workplace.

    :cvar NAME: of its kind
    :cvar NEEDS: modules that are imported before
    :cvar RESUMES: whether it can be gone on with; else it is begun anew
    :cvar REPLACES: whether it has a flag to begin anew where a run is; else its folder is removed
    :cvar CLEANS: whether it removes what a killed process was about to write at once, as nobody
        else can write there
    :cvar UNLIKE: parts of the names of what it records otherwise when it goes on
    :param place: the workplace, with what it reads
    """

    NAME: ClassVar[str]
    NEEDS: ClassVar[tuple[str, ...]] = ("sparseml.run", "sparseml.report.rendering", "sparseml.cli")
    RESUMES: ClassVar[bool] = True
    REPLACES: ClassVar[bool] = True
    CLEANS: ClassVar[bool] = True
    UNLIKE: ClassVar[tuple[str, ...]] = ()

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(parents=True)

    @abstractmethod
    def prepare(self) -> None:
        """Write what the run reads; in a process of its own."""

    @abstractmethod
    def run(self, resume: bool = False, anew: bool = False) -> int:
        """Run in this process, in a workplace; return the exit status.

        :param resume: go on with what is there
        :param anew: replace what is there
        """

    def watch(self, points: Points) -> None:  # noqa: B027
        """Count further moments."""

    def checkpoint(self) -> Path | None:
        """Return the file to resume from; None where there is none, or several."""
        return None


def script(path: str, *flags: Any) -> int:
    """Run a script of the repository as its command line does; return its exit status."""
    sys.argv = [path, *map(str, flags)]
    try:
        runpy.run_path(str(ROOT / path), run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


class Training(Attacked):
    """``research/sparse_training.py``."""

    NAME = "sparse_training"
    NEEDS = (*Attacked.NEEDS, "sparseml.run.training", "sparseml.timm.training")
    SCRIPT: ClassVar[str] = "research/sparse_training.py"
    RECIPE: ClassVar[str] = GRADUAL.replace("PARAMS", "'re:body.*weight'")
    FLAGS: ClassVar[str] = (
        "-b 6 --lr 0.05 --opt adamw --epochs 3 --log-interval 2 --mixup 0.2 --checkpoint-freq 1 "
        "--log-sparsity --model-ema --model-ema-decay 0.9 --no-report"
    )

    def prepare(self) -> None:
        made = _module(ROOT / "tests/timm/conftest.py")
        made.PER_CLASS = {"train": 6, "val": 3}
        made.make_images(self.place / "images")
        (self.place / "own_code.py").write_text(made.OWN_CODE)
        (self.place / "recipe.yaml").write_text(self.RECIPE)

    def flags(self) -> list[Any]:
        flags = "--model own_code:small --data-dir images --val-split val --device cpu --workers 0 "
        flags += "--threads 1 --output out --experiment run --sparseml-recipe recipe.yaml "
        return [*flags.split(), *self.FLAGS.split()]

    def run(self, resume: bool = False, anew: bool = False) -> int:
        more = ["--resume", "out/run"] if resume else []
        return script(self.SCRIPT, *self.flags(), *more, *(["--overwrite"] if anew else []))

    def watch(self, points: Points) -> None:
        from sparseml.timm.session import ImageSession

        points.evaluates(ImageSession, "evaluate")

    def checkpoint(self) -> Path | None:
        return Path("out/run/checkpoints/small_last.pth")


class OneShot(Training):
    """``research/one_shot_pruning.py``, with CAP that puts matrices aside."""

    NAME, RESUMES = "one_shot_pruning", False
    NEEDS = (*Training.NEEDS, "sparseml.run.one_shot")
    SCRIPT, RECIPE = "research/one_shot_pruning.py", ONE_SHOT
    FLAGS = "-vb 9 -gb 4 --sparsities 0.5 0.75 --latency-rounds 2 --no-report"

    def checkpoint(self) -> Path | None:
        return None


class Loop(Attacked):
    """A loop of one's own, with a manager and checkpoints."""

    NAME, CLEANS = "plain loop", False

    def prepare(self) -> None:
        (self.place / "recipe.yaml").write_text(GRADUAL.replace("PARAMS", "'0.weight', '2.weight'"))

    def run(self, resume: bool = False, anew: bool = False) -> int:
        return _as_interpreter(self._train)

    def _train(self) -> None:
        from sparseml.pytorch.optim import ScheduledModifierManager
        from sparseml.pytorch.utils import load_checkpoint, save_checkpoint, save_model

        for seed in (random.seed, numpy.random.seed, torch.manual_seed):
            seed(0)
        data = torch.randn(5, 12, 6)
        model = torch.nn.Sequential(
            torch.nn.Linear(6, 16), torch.nn.Dropout(0.2), torch.nn.Linear(16, 3)
        )
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
        manager = ScheduledModifierManager.from_yaml("recipe.yaml")
        stepping = manager.modify(model, optimizer, steps_per_epoch=len(data))
        parts, last, done = {"optimizer": stepping, "manager": manager}, self.checkpoint(), 0
        with suppress(FileNotFoundError):  # it begins
            done = int(load_checkpoint(last, model, **parts).epoch or 0)
        for epoch in range(done, 3):
            for batch in data:
                stepping.zero_grad()
                (model(batch) - 1).pow(2).mean().backward()
                stepping.step()
            save_checkpoint(last, model, **parts, epoch=epoch + 1, keep_previous=True)
        manager.finalize(model)
        save_model("out/model.safetensors", model, recipe=manager)

    def checkpoint(self) -> Path:
        return Path("out/last.pth")


class Glue(Attacked):
    """``integrations/huggingface/run_glue.py``, a Trainer with ``SparseMLCallback``."""

    NAME = "Transformers Trainer"
    # means over the steps since the Trainer began, if it began in the middle of an interval
    UNLIKE = (".loss",)
    NEEDS = (*Attacked.NEEDS, "sparseml.transformers.scripts.training")

    def prepare(self) -> None:
        source, texts = random.Random(0), self.place / "sst2"
        texts.mkdir()
        for split, count in (("train", 48), ("dev", 16)):
            rows = ["sentence\tlabel"]
            for number in range(count):
                word = (("bad", "dull"), ("good", "fine"))[number % 2][source.randrange(2)]
                rows.append(f"a {word} {source.choice(['film', 'plot', 'song'])}\t{number % 2}")
            (texts / f"{split}.tsv").write_text("\n".join(rows) + "\n")
        (self.place / "recipe.yaml").write_text(
            GRADUAL.replace("PARAMS", "'re:.*attention.*weight'")
        )
        sizes = ["--words", "60", "--width", "64", "--layers", "1", "--positions", "32"]
        maker = _module(ROOT / "integrations/huggingface/make_model.py")
        maker.main([str(self.place / "model"), str(texts / "train.tsv"), *sizes])

    def run(self, resume: bool = False, anew: bool = False) -> int:
        flags = "--model_name_or_path model --data_dir sst2 --task_name sst2 --recipe recipe.yaml "
        flags += "--output_dir out --do_train --do_eval --use_cpu --latency_rounds 2 "
        flags += "--per_device_train_batch_size 16 --learning_rate 1e-2 --save_strategy epoch "
        flags += "--eval_strategy epoch --logging_steps 3 --seed 3 --report_to none"
        more = ["--resume_from_checkpoint", "true"] if resume else []
        more += ["--overwrite_output_dir"] if anew else []
        return script("integrations/huggingface/run_glue.py", *flags.split(), *more)

    def watch(self, points: Points) -> None:
        from transformers import Trainer, TrainerState, modeling_utils

        points.evaluates(Trainer, "evaluate")
        points.writes(torch, "save", 1)
        points.writes(modeling_utils, "safe_save_file", 1)
        points.writes(TrainerState, "save_to_json", 1)


class Fairseq(Attacked):
    """``fairseq-train`` with ``--user-dir`` of the package."""

    NAME, REPLACES = "fairseq", False
    NEEDS = (*Attacked.NEEDS, "fairseq_cli.preprocess", "fairseq_cli.train")

    def prepare(self) -> None:
        from fairseq import options
        from fairseq_cli import preprocess

        draw, prefs = random.Random(0), []
        for split, count in {"train": 40, "valid": 8}.items():
            lines = [
                [f"w{draw.randrange(8)}" for _ in range(draw.randint(2, 6))] for _ in range(count)
            ]
            for language, texts in {"de": lines, "en": [one[::-1] for one in lines]}.items():
                text = "".join(" ".join(words) + "\n" for words in texts)
                (self.place / f"{split}.{language}").write_text(text)
            prefs.append(f"--{split}pref={self.place / split}")
        words = [*prefs, "--destdir", str(self.place / "data")]
        words += ["-s", "de", "-t", "en", "--joined-dictionary"]
        preprocess.main(options.get_preprocessing_parser().parse_args(words))
        recipe = GRADUAL.replace("PARAMS", r"'re:(en|de)coder\.layers.*(proj|fc[12])\.weight'")
        (self.place / "recipe.yaml").write_text(recipe)

    def run(self, resume: bool = False, anew: bool = False) -> int:
        from fairseq import checkpoint_utils
        from fairseq_cli import train

        from sparseml.fairseq import USER_DIR

        logging.basicConfig(level=logging.INFO, stream=sys.stdout, force=True)
        size = "layers 1 --{0}-embed-dim 8 --{0}-ffn-embed-dim 16 --{0}-attention-heads 2 "
        words = "data --save-dir out/checkpoints --sparseml-recipe recipe.yaml --arch transformer "
        words += f"--user-dir {USER_DIR} --sparseml-output out/run --cpu --max-tokens 100 --seed 1 "
        words += "".join(f"--{side}-{size.format(side)}" for side in ("encoder", "decoder"))
        words += "--share-all-embeddings --dropout 0.1 --no-progress-bar --num-workers 0 "
        words += "--optimizer adam --lr 0.01 --lr-scheduler inverse_sqrt --warmup-updates 4 "
        words += "--max-epoch 3 --log-interval 2"
        if anew:
            shutil.rmtree("out", ignore_errors=True)
        sys.argv = ["fairseq-train", *words.split()]
        saves: Any = checkpoint_utils.save_checkpoint
        while saves is not None:  # fairseq keeps the best result in its own function
            vars(saves).pop("best", None)
            saves = getattr(saves, "__wrapped__", None)
        with self._settings_kept(train):
            return _as_interpreter(train.cli_main)

    @contextmanager
    def _settings_kept(self, train: Any) -> Iterator[None]:
        """Make the settings of fairseq once for all runs, as that takes half of the time of one."""
        file, convert = self.place / "settings.pickle", train.convert_namespace_to_omegaconf

        def kept(args: Any) -> Any:
            if not file.exists():
                file.write_bytes(pickle.dumps(convert(args)))
            return pickle.loads(file.read_bytes())  # noqa: S301  which these runs have written

        train.convert_namespace_to_omegaconf = kept
        try:
            yield
        finally:
            train.convert_namespace_to_omegaconf = convert

    def watch(self, points: Points) -> None:
        from fairseq.file_io import PathManager
        from fairseq.trainer import Trainer

        points.evaluates(Trainer, "valid_step")
        points.renames(PathManager, "rename")
        points.writes(PathManager, "copy", 1)


KINDS: tuple[type[Attacked], ...] = (Training, OneShot, Loop, Glue, Fairseq)


def _module(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"of_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _as_interpreter(main: Callable[[], Any]) -> int:
    """Return the status that Python would end with; a traceback is printed as it would be."""
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def free_of_others() -> None:
    """Forget, in this process, the logging that imported libraries have set up."""
    root = logging.getLogger()
    root.handlers.clear()
    root.setLevel(logging.WARNING)
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")
