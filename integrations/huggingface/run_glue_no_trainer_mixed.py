"""Fine-tune a classifier on GLUE by accelerate, and prune it to two patterns at once.

    accelerate launch integrations/huggingface/run_glue_no_trainer_mixed.py --task_name mrpc \\
        --model_name_or_path bert-mini-mrpc --do_prune --target_sparsity 0.9 \\
        --num_train_epochs 15 --sparsity_warm_epochs 1 --cooldown_epochs 5 --output_dir runs/mixed

Feed-forward layers and the output of attention are pruned weight by weight, each to the same
sparsity; query, key and value in blocks of 4x1, ranked together, each to half at least. All else is
as in ``run_glue_no_trainer.py``.
"""

from __future__ import annotations

import sys

from no_trainer.outcome import run_script


def main() -> int:
    """Run, and return the exit status: 2 after a mistake of the user."""
    return run_script(sys.argv[1:], "run_glue_no_trainer_mixed.py", mixed=True)


if __name__ == "__main__":
    sys.exit(main())
