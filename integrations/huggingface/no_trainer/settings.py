"""The flags of the GLUE scripts, under the names and with the defaults of Intel's examples.

Flags that those lacked are marked as new. Underscores may be dashes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sparseml.run.settings import CheckpointSettings, Group, RunSettings, Settings, flag
from sparseml.run.settings.flags import harmless

SCHEDULES = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
)
PRUNING_TYPES = ("magnitude", "gradient", "snip", "snip_momentum")
PROGRESSIVE = tuple(f"{name}_progressive" for name in PRUNING_TYPES)


@dataclass
class ModelSettings(Group):
    """Which model, and which teacher."""

    TITLE = "model"

    model_name_or_path: str = flag(help="folder or name on the hub", metavar="MODEL")
    teacher_model_name_or_path: str | None = flag(
        None, "to distil from [--model_name_or_path as it is]", metavar="MODEL"
    )
    use_slow_tokenizer: bool = flag(False, "the one that is written in Python")


@dataclass
class DataSettings(Group):
    """Which task, and where its data are."""

    TITLE = "data"

    task_name: str | None = flag(
        None, "of GLUE: cola, mnli, mrpc, qnli, qqp, rte, sst2, stsb or wnli", metavar="TASK"
    )
    data_dir: str | None = harmless(
        None, "new: a folder with train and dev (.tsv, .csv, .json, .parquet)", metavar="FOLDER"
    )
    train_file: str | None = harmless(None, "texts to train on", metavar="FILE")
    validation_file: str | None = harmless(None, "texts to evaluate on", metavar="FILE")
    max_train_samples: int | None = flag(None, "new: only the first", metavar="N", at_least=1)
    max_eval_samples: int | None = flag(None, "new: only the first", metavar="N", at_least=1)
    max_length: int = flag(128, "tokens after which a text is cut", at_least=4)
    pad_to_max_length: bool = flag(False, "make all texts equally long")
    group_by_length: bool = flag(False, "new: batches of texts of like length, which take less")
    per_device_train_batch_size: int = flag(8, "texts in a batch of a process", at_least=1)
    per_device_eval_batch_size: int = harmless(8, "likewise, to evaluate", at_least=1)


@dataclass
class TrainingGroup(Group):
    """How long to train, and how fast."""

    TITLE = "training"

    learning_rate: float = flag(5e-5, "at the start, or after the warm-up", above=0)
    weight_decay: float = flag(0.0, "not on biases and layer norms", at_least=0)
    num_train_epochs: int = flag(3, "[that of --recipe, with one]", at_least=1)
    max_train_steps: int | None = flag(None, "in place of epochs", metavar="N", at_least=1)
    gradient_accumulation_steps: int = flag(1, "batches per optimizer step", at_least=1)
    lr_scheduler_type: str = flag(
        "linear", "how the rate falls", choices=SCHEDULES, changes="optimizer"
    )
    num_warmup_steps: int = flag(0, "in which the rate rises", at_least=0)


@dataclass
class PruningGroup(Group):
    """What to prune, and when; a --recipe says it in place of these flags."""

    TITLE = "pruning"

    do_prune: bool = flag(False, "prune; without, only train")
    pruning_type: str = flag(
        "snip_momentum", "what ranks weights; in Intel's script it had no effect",
        choices=(*PRUNING_TYPES, *PROGRESSIVE, "block_mask", "pattern_lock"),
    )  # fmt: skip
    pruning_pattern: str = flag(
        "4x1",
        "NxM, 1xchannel, channelx1, mha (heads), or N:M, which here, as with Intel, prunes N of M; "
        "a recipe's N:M keeps N",
    )
    target_sparsity: float = flag(0.8, "fraction of the weights to prune", above=0)
    pruning_frequency: int = flag(-1, "steps between updates [40 updates in all]", at_least=-1)
    sparsity_warm_epochs: float = flag(0, "before pruning begins", at_least=0)
    cooldown_epochs: float = flag(0, "after it has ended", at_least=0)
    distill_loss_weight: float = flag(
        0.0, "of the distance from the teacher's last hidden state, which replaces the loss",
        at_least=0,
    )  # fmt: skip


@dataclass
class HubSettings(Group):
    """Whether the result goes to the hub."""

    TITLE = "hub"

    push_to_hub: bool = harmless(False, "upload the model at the end")
    hub_model_id: str | None = harmless(None, "repository [the name of --output_dir]")
    hub_token: str | None = harmless(None, "[that of `hf auth login`]")


@dataclass(kw_only=True)
class ScriptSettings(Settings):
    """All settings of a script."""

    DEFAULTS = {"sparseml_recipe": "", "checkpoint_freq": 1}

    model: ModelSettings
    data: DataSettings = field(default_factory=DataSettings)
    training: TrainingGroup = field(default_factory=TrainingGroup)
    pruning: PruningGroup = field(default_factory=PruningGroup)
    hub: HubSettings = field(default_factory=HubSettings)
    run: RunSettings
    checkpoints: CheckpointSettings = field(default_factory=CheckpointSettings)
