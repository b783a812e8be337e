"""Write questions about made-up people, as files in the format of SQuAD.

    python integrations/huggingface/make_questions.py data/questions

They stand in for SQuAD, and say nothing about how well a model answers real questions: each text
tells where a person lives, when they were born and what they do, in any order.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from pathlib import Path
from typing import Any

from sparseml.run.errors import run_reported

NAMES = "Anna Bela Carla David Elif Farid Greta Hugo Ines Jonas Kofi Lena Mika Nora Omar".split()  # noqa: SIM905
TOWNS = "Bergen Lagos Quito Hanoi Turin Oslo Lima Perth Cork Basel Porto Accra Kyoto Delhi".split()  # noqa: SIM905
WORK = "baker pilot nurse farmer painter teacher lawyer sailor miner tailor writer cook".split()  # noqa: SIM905
FACTS = (
    ("{name} lives in {town} .", "Where does {name} live ?", "town"),
    ("{name} was born in {year} .", "When was {name} born ?", "year"),
    ("{name} works as a {work} .", "What does {name} work as ?", "work"),
)


def main(argv: list[str] | None = None) -> None:
    """Write ``train.json`` and ``validation.json``."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where the files go")
    parser.add_argument("--train", type=int, default=1500, help="texts to train on")
    parser.add_argument("--validation", type=int, default=150, help="texts to evaluate on")
    parser.add_argument("--people", type=int, default=1, help="people that a text is about")
    parser.add_argument(
        "--impossible", type=float, default=0.0, help="share of facts that a text leaves out"
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    options.folder.mkdir(parents=True, exist_ok=True)
    source = random.Random(options.seed)
    for split, count in (("train", options.train), ("validation", options.validation)):
        texts = [
            paragraph(source, f"{split}-{number}", options.people, options.impossible)
            for number in range(count)
        ]
        version = "v2.0" if options.impossible else "1.1"
        content = {"version": version, "data": [{"title": "People", "paragraphs": texts}]}
        (options.folder / f"{split}.json").write_text(json.dumps(content, indent=1) + "\n")
    print(f"{options.train} and {options.validation} texts in {options.folder}")


def paragraph(source: random.Random, name: str, people: int, impossible: float) -> dict[str, Any]:
    """Return a text with its questions."""
    told, asked = [], []
    for person in source.sample(NAMES, people):
        facts = {"name": person, "town": source.choice(TOWNS), "work": source.choice(WORK)}
        facts["year"] = str(source.randrange(1900, 2000))
        for sentence, question, key in FACTS:
            fact, answer = sentence.format(**facts), facts[key]
            asked.append((question.format(**facts), fact, answer))
            if source.random() >= impossible:
                told.append(fact)
    source.shuffle(told)
    context = " ".join(told) or "Nothing is known ."
    questions = []
    for number, (text, fact, answer) in enumerate(asked):
        start = context.find(fact)
        answers = [{"text": answer, "answer_start": start + fact.index(answer)}]
        entry = {"id": f"{name}-{number}", "question": text, "is_impossible": start < 0}
        questions.append({**entry, "answers": answers if start >= 0 else []})
    return {"context": context, "qas": questions}


if __name__ == "__main__":
    sys.exit(run_reported(main))
