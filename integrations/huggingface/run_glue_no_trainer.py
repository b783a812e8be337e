"""Fine-tune a classifier on GLUE by accelerate, and prune it meanwhile.

    accelerate launch integrations/huggingface/run_glue_no_trainer.py --task_name mrpc \\
        --model_name_or_path bert-mini-mrpc --do_prune --pruning_pattern 4x1 \\
        --target_sparsity 0.9 --num_train_epochs 15 --sparsity_warm_epochs 1 \\
        --cooldown_epochs 5 --distill_loss_weight 5 --output_dir runs/mrpc_4x1

The flags are those of Intel's example of the same name, with the same defaults; ``--recipe`` takes
any recipe in their place. ``--output_dir`` becomes a run directory: the recipe, metrics, weights
and masks, ``checkpoints/`` of each epoch to resume from, ``model/`` for ``from_pretrained``, and
``report.html``.
"""

from __future__ import annotations

import sys

from no_trainer.outcome import run_script


def main() -> int:
    """Run, and return the exit status: 2 after a mistake of the user."""
    return run_script(sys.argv[1:], "run_glue_no_trainer.py")


if __name__ == "__main__":
    sys.exit(main())
