"""Fine-tune a model that finds answers by ``transformers.Trainer``, while a recipe prunes it.

    python integrations/huggingface/run_qa.py --model_name_or_path FOLDER \\
        --train_file train-v1.1.json --validation_file dev-v1.1.json --do_train --do_eval \\
        --recipe recipe:transformers/gradual/snip_momentum/bert_squad_4x1 --output_dir output/squad

The files are in the format of SQuAD, version 1.1 or 2. All flags of
``transformers.TrainingArguments`` are there as well.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import DataCollatorWithPadding, TrainingArguments, set_seed

from sparseml.run import Metric, RunError
from sparseml.transformers.question_answering import (
    AnswerRules,
    Windows,
    best_answers,
    load_reader,
    read_squad,
    squad_scores,
)
from sparseml.transformers.scripts import (
    DataArguments,
    ModelArguments,
    TrainerTask,
    parsed,
    reported,
    run_script,
)

METRICS = (
    Metric("f1", "val/f1"),
    Metric("exact_match", "val/exact_match"),
    Metric("loss", "val/loss", percent=False),
)


@dataclass
class QuestionArguments(DataArguments):
    """What is trained and evaluated on, and what counts as an answer."""

    max_seq_length: int = field(
        default=384,
        metadata={"help": "tokens of question and text; longer texts are cut in windows"},
    )
    doc_stride: int = field(default=128, metadata={"help": "tokens by which windows overlap"})
    n_best_size: int = field(default=20, metadata={"help": "answers to look at and to write"})
    max_answer_length: int = field(default=30, metadata={"help": "of an answer, in tokens"})
    version_2_with_negative: bool = field(
        default=False,
        metadata={"help": "questions may have no answer; found out if some have none"},
    )
    null_score_diff_threshold: float = field(
        default=0.0, metadata={"help": "how much likelier that must be than the best answer"}
    )


def prepare(data: QuestionArguments, model: ModelArguments, args: TrainingArguments) -> TrainerTask:
    """Load the model, the questions and their texts."""
    set_seed(args.seed)
    if not (data.train_file and data.validation_file):
        raise RunError("give --train_file and --validation_file, both in the format of SQuAD")
    train = read_squad(data.train_file)[: data.max_train_samples]
    validation = read_squad(data.validation_file)[: data.max_eval_samples]
    loaded = load_reader(model.model_name_or_path, "--model_name_or_path")
    rules = AnswerRules(
        data.n_best_size,
        data.max_answer_length,
        data.version_2_with_negative or any(one.is_impossible for one in train + validation),
        data.null_score_diff_threshold,
    )
    cut = loaded.tokenizer, data.max_seq_length, data.doc_stride
    windows = Windows(validation, *cut)
    output = Path(args.output_dir)

    def judge(found: Any) -> dict[str, float]:
        answers, ranked = best_answers(windows, *found.predictions[:2], rules)
        if args.process_index == 0:
            output.mkdir(parents=True, exist_ok=True)
            for name, content in (("predictions", answers), ("nbest_predictions", ranked)):
                (output / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
        return squad_scores(answers, validation)

    length = data.max_seq_length if data.pad_to_max_length else None
    padding = "max_length" if length else True
    return TrainerTask(
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        train=Windows(train, *cut),
        validation={"validation": windows},
        collate=DataCollatorWithPadding(loaded.tokenizer, padding, length),
        judge=judge,
        metrics=METRICS,
        samples=len(validation),
        fresh=loaded.fresh,
        load_teacher=lambda other: load_reader(other, "--distill_teacher").model,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the script."""

    def run() -> None:
        model, data, args = parsed(argv, QuestionArguments, (__doc__ or "").partition("\n")[0])
        run_script(model, data, args, prepare)

    return reported(run)


if __name__ == "__main__":
    sys.exit(main())
