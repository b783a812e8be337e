"""Fine-tune a classifier of texts by ``transformers.Trainer``, while a recipe prunes it.

    python integrations/huggingface/run_glue.py --model_name_or_path FOLDER --task_name mrpc \\
        --do_train --do_eval --recipe recipe:transformers/gradual/snip_momentum/bert_4x1 \\
        --output_dir output/mrpc

All flags of ``transformers.TrainingArguments`` are there as well.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy
from transformers import TrainingArguments, set_seed

from sparseml.transformers.data import (
    batches_of,
    encode,
    load_classifier,
    metrics_of,
    open_texts,
    score,
)
from sparseml.transformers.scripts import (
    DataArguments,
    ModelArguments,
    TrainerTask,
    parsed,
    reported,
    run_script,
)


@dataclass
class TextArguments(DataArguments):
    """What is trained and evaluated on: a task of GLUE, or files of one's own."""

    task_name: str | None = field(default=None, metadata={"help": "of GLUE, such as mrpc"})
    data_dir: str | None = field(
        default=None, metadata={"help": "its folder with train and dev as .tsv, .csv, .json, ..."}
    )
    use_slow_tokenizer: bool = field(default=False, metadata={"help": "the one without Rust"})


def prepare(data: TextArguments, model: ModelArguments, args: TrainingArguments) -> TrainerTask:
    """Load the model and its texts."""
    set_seed(args.seed)
    texts = open_texts(data.task_name, data.data_dir, data.train_file, data.validation_file)
    texts = texts.shortened(data.max_train_samples, data.max_eval_samples)
    task, fast = texts.task, not data.use_slow_tokenizer
    name = model.model_name_or_path
    loaded = load_classifier(name, task, "--model_name_or_path", fast)
    order = loaded.order
    tokens = partial(
        encode,
        task=task,
        tokenizer=loaded.tokenizer,
        max_length=data.max_seq_length,
        pad_to_max_length=data.pad_to_max_length,
        order=order,
    )

    def judge(found: Any) -> dict[str, float]:
        outputs, labels = found.predictions, found.label_ids
        outputs = outputs[0] if isinstance(outputs, tuple) else outputs
        if order is None:
            return score(task, outputs, labels)
        return score(task, outputs[:, order], numpy.argsort(order)[labels])

    return TrainerTask(
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        train=tokens(texts.train),
        validation={
            split: tokens(texts.splits[split]) for split in task.validation if split in texts.splits
        },
        collate=batches_of(loaded.tokenizer, args.fp16 or args.bf16),
        judge=judge,
        metrics=metrics_of(task),
        samples=len(texts.validation),
        fresh=loaded.fresh,
        load_teacher=lambda other: load_classifier(other, task, "--distill_teacher", fast).model,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script."""

    def run() -> None:
        model, data, args = parsed(argv, TextArguments, (__doc__ or "").partition("\n")[0])
        run_script(model, data, args, prepare)

    return reported(run)


if __name__ == "__main__":
    sys.exit(main())
