"""The settings of a one-shot run and of a training run of models of Transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sparseml.run.settings.flags import Group, Settings, flag, harmless
from sparseml.run.settings.groups import CheckpointSettings, RunSettings, SweepSettings


@dataclass
class ModelSettings(Group):
    """The model and its tokenizer."""

    TITLE = "model"

    model: str = flag(
        help="hf: and its folder, or a name that the cache of the hub has", metavar="hf:DIR"
    )


@dataclass
class TextSettings(Group):
    """Where the texts are, and how they become tokens."""

    TITLE = "data"
    DESCRIPTION = (
        "a causal model takes plain text (.txt), a classifier tables of texts with labels (.tsv,\n"
        "  .csv, .json, .jsonl, .parquet), all also packed (.gz)"
    )

    data_dir: str | None = harmless(
        None,
        "folder with a file train and one validation (or dev, ...), or a single plain text; also "
        "without the flag's name",
        also=("--data",),
        metavar="PATH",
        alone=True,
    )
    train_file: str | None = harmless(None, "in place of the folder", metavar="FILE")
    validation_file: str | None = harmless(None, "likewise", metavar="FILE")
    task_name: str | None = flag(
        None, "of GLUE: what columns and labels mean [what the file has]", also=("--task",)
    )
    max_length: int | None = flag(None, "tokens of a labelled text [128]", at_least=1)
    window: int | None = flag(
        None, "tokens of a piece of plain text [512, or what the model takes]", at_least=2
    )
    held_out: float = flag(
        0.25, "part of a single plain text, its end, to evaluate on", at_least=0.01, at_most=0.99
    )
    max_train_samples: int | None = flag(None, "use only the first", metavar="N", at_least=1)
    max_val_samples: int | None = harmless(None, "likewise", metavar="N", at_least=1)
    val_batch_size: int | None = harmless(
        None,
        "of each process [32, of plain text 8]",
        also=("-vb", "--validation-batch-size"),
        at_least=1,
    )


@dataclass
class SamplerSettings(Group):
    """Batches that gradients are sampled on."""

    TITLE = "gradient sampler"
    DESCRIPTION = "for recipes whose pruners need gradients; without dropout and distillation"

    gs_batch_size: int | None = flag(
        None,
        "texts a gradient [16, of plain text 4, training --batch-size]",
        also=("-gb", "--grad-sampler-batch-size"),
        metavar="N",
        at_least=1,
    )
    gs_window: int | None = flag(
        None, "tokens of a piece of plain text, a part of --window [--window]", at_least=2
    )
    gs_distributed: bool = flag(False, "each process samples its own share")


@dataclass
class OptimizerSettings(Group):
    """Batches, and AdamW."""

    TITLE = "optimisation"
    DESCRIPTION = "by AdamW"

    batch_size: int = flag(16, "of each process", also=("-b",), at_least=1)
    grad_accum_steps: int = flag(1, "batches per optimizer step", metavar="N", at_least=1)
    opt_eps: float = flag(1e-8, "epsilon", above=0)
    opt_betas: Sequence[float] = flag((0.9, 0.999), "betas", nargs=2, at_least=0, below=1)
    weight_decay: float = flag(0.0, "not on biases and norms", at_least=0)
    clip_grad: float = flag(1.0, "clip the norm of gradients to this, 0 does not", at_least=0)


@dataclass
class ScheduleSettings(Group):
    """How long to train, and at what learning rate."""

    TITLE = "learning rate"
    DESCRIPTION = "not used when the recipe has a modifier for it"

    epochs: int | None = flag(None, "[the recipe's, or 3]")
    sched: str = flag(
        "linear",
        "after the warm-up",
        choices=("linear", "cosine", "constant"),
        changes="optimizer",
    )
    lr: float = flag(5e-5, "after the warm-up", at_least=0)
    warmup_epochs: float = flag(0.0, "in which the rate rises from 0 to --lr", at_least=0)


@dataclass
class TeacherSettings(Group):
    """Whom to learn from."""

    TITLE = "teacher"

    teacher: str | None = flag(
        None,
        "for the recipe's distillation: a model for the same data, or self, as the model is then",
        metavar="hf:DIR",
    )


@dataclass(kw_only=True)
class OneShotSettings(Settings):
    """All settings of a one-shot run."""

    DEFAULTS = {"output": "./output/one-shot"}

    model: ModelSettings
    data: TextSettings = field(default_factory=TextSettings)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    run: RunSettings
    sweep: SweepSettings = field(default_factory=SweepSettings)


@dataclass(kw_only=True)
class TrainingSettings(Settings):
    """All settings of a training run."""

    DEFAULTS = {"output": "./output/train"}

    model: ModelSettings
    data: TextSettings = field(default_factory=TextSettings)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    run: RunSettings
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
