"""The settings that every run has, whoever trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparseml.run.settings.flags import Group, flag, harmless


@dataclass
class RunSettings(Group):
    """Recipe, where results go, and how to compute."""

    TITLE = "run"

    sparseml_recipe: str = harmless(
        help="file, or recipe:NAME of `sparseml recipe list`", also=("--recipe",), metavar="FILE"
    )
    recipe_args: str | None = harmless(
        None, "variables of the recipe: JSON, or name=value,...", metavar="TEXT"
    )
    effort: str | None = flag(
        None,
        "of second-order pruning, in place of the recipe's numbers",
        choices=("fast", "balanced", "best"),
    )
    output: str = harmless("./output", "of all runs", also=("--output-dir",), metavar="FOLDER")
    experiment: str = harmless("", "folder below --output [model, recipe]", metavar="NAME")
    overwrite: bool = harmless(False, "replace the run that is in that folder")
    seed: int = flag(42, "of everything random", at_least=0, at_most=2**32 - 1)
    device: str = harmless("auto", "cpu, cuda, cuda:1 [auto]")
    threads: int | None = flag(None, "of the CPU, per process", metavar="N", at_least=1)
    amp: bool = flag(False, "mixed precision", also=("--native-amp", "--apex-amp"))
    amp_dtype: str | None = flag(
        None, "[float16 on GPUs, else bfloat16]", choices=("float16", "bfloat16")
    )
    bn_retune: int | None = flag(
        None,
        "of training inputs, on which to measure batch norms after pruning; 0 leaves them "
        "[in one shot 1,600 inputs, in training 0]",
        metavar="BATCHES",
        at_least=0,
    )
    bn_retune_batch_size: int | None = flag(
        None, "inputs in each [-b, in one shot -vb]", metavar="N", at_least=1
    )
    timeout: float = harmless(1800.0, "seconds that processes wait for each other", above=0)
    log_wandb: bool = harmless(False, "to Weights & Biases, also offline (WANDB_MODE)")
    log_tensorboard: bool = harmless(False, "below the run's folder")
    project: str = harmless("sparseml", "in Weights & Biases", also=("--wandb-project",))
    report: bool = harmless(True, "write report.html at the end", paired=True)


@dataclass
class SweepSettings(Group):
    """What a one-shot run goes through."""

    TITLE = "one shot"

    sparsities: Sequence[float] = flag(
        [], "fractions to prune, in place of the recipe's", nargs="*", metavar="S"
    )
    save_model: bool = flag(False, "no longer needed: always saved")
    latency_rounds: int = flag(10, "at least, until times settle; 0 takes none", at_least=0)


@dataclass
class CheckpointSettings(Group):
    """What a training run keeps and tells on its way."""

    TITLE = "checkpoints and logs"

    resume: str | None = harmless(
        None,
        "a checkpoint, or the folder of the run to go on with",
        also=("--resume-from-checkpoint",),
        metavar="PATH",
    )
    initial_masks: str | None = harmless(
        None,
        "begin with the masks of another run: its folder, masks.safetensors or checkpoint",
        metavar="PATH",
    )
    no_resume_opt: bool = harmless(False, "resume without the optimizer's state")
    checkpoint_freq: int = harmless(-1, "also keep every K-th epoch's", metavar="K")
    save_last: bool = harmless(True, "keep a checkpoint to resume from", paired=True)
    log_interval: int = harmless(50, "between entries in the logs", metavar="STEPS", at_least=1)
    log_sparsity: bool = harmless(False, "sparsity of each layer when masks changed")
    log_param_histogram: bool = harmless(False, "of weights that are not zero")
