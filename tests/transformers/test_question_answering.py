"""Reading SQuAD files, windows over long texts, answers from logits, and their scores."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy
import pytest
from tokenizers import BertWordPieceTokenizer
from transformers import BertTokenizerFast, DataCollatorWithPadding

from sparseml.run import RunError
from sparseml.transformers.question_answering import (
    AnswerRules,
    Question,
    Windows,
    best_answers,
    exact_match,
    normalized_answer,
    overlap_f1,
    read_squad,
    squad_scores,
)

CONTEXT = (
    "The Normans (Norman: Nourmands) were the people who gave their name to Normandy, in France."
)
FAR = " ".join(f"word{number}" for number in range(40)) + f" {CONTEXT}"


def _question(
    answer: str | None = "in France", context: str = CONTEXT, name: str = "q"
) -> Question:
    answers = () if answer is None else ((answer, context.index(answer)),)
    return Question(name, "Where is Normandy?", context, answers)


@pytest.fixture(scope="module")
def tokenizer() -> BertTokenizerFast:
    words = BertWordPieceTokenizer(lowercase=True)
    words.train_from_iterator(
        [CONTEXT, "where is normandy?", FAR], vocab_size=200, show_progress=False
    )
    return BertTokenizerFast(vocab=words.get_vocab())


def _file(folder: Path, entry: dict[str, Any], context: Any = CONTEXT) -> Path:
    content = {"data": [{"paragraphs": [{"context": context, "qas": [entry]}]}]}
    path = folder / "squad.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


ENTRY = {"id": "1", "question": " Where?", "answers": [{"text": "France", "answer_start": 85 - 1}]}


def test_both_versions_are_read(tmp_path: Path) -> None:
    start = CONTEXT.index("France")
    entry = {**ENTRY, "answers": [{"text": "France", "answer_start": start}]}
    (found,) = read_squad(_file(tmp_path, entry))
    assert found == Question("1", "Where?", CONTEXT, (("France", start),))
    no_answer = {**entry, "answers": [], "is_impossible": True, "plausible_answers": []}
    path = _file(tmp_path, no_answer)
    assert [one.is_impossible for one in read_squad(path)] == [True]
    zipped = tmp_path / "squad.json.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert read_squad(zipped) == read_squad(path)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"id": "1", "question": "?", "answers": []}, "has no answer and is not marked"),
        ({"id": "1", "answers": []}, "has no answer and is not marked"),
        ({"id": 1, "question": "?", "is_impossible": True}, "'id' must be a str, found a int"),
        ({"id": "1", "is_impossible": True}, "has 'question' here, found 'id', 'is_impossible'"),
        (
            {**ENTRY, "answers": [{"text": "France", "answer_start": 0}]},
            "has 'The No' at answer_st",
        ),
        ({**ENTRY, "answers": [{"text": "x", "answer_start": -1}]}, "has '' at answer_start -1"),
        ({**ENTRY, "answers": [{"text": "x"}]}, "has 'answer_start' here, found 'text'"),
        ("text", "has a mapping with 'is_impossible' here, found a str"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    entry: dict[str, Any], told: str, tmp_path: Path
) -> None:
    path = _file(tmp_path, entry)
    with pytest.raises(RunError) as caught:
        read_squad(path)
    assert told in str(caught.value)
    assert str(caught.value).startswith(f"{path}: data[0].paragraphs[0].qas[0]")


def test_other_files_are_told(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    for content, told in (
        ("{", "is no JSON"),
        ("[]", "has a mapping with 'data' here, found a list"),
        ('{"train": []}', "has 'data' here, found 'train'"),
        ('{"data": []}', "has no questions"),
    ):
        path.write_text(content)
        with pytest.raises(RunError, match=told.replace("[", r"\[")):
            read_squad(path)
    with pytest.raises(RunError, match="No such file"):
        read_squad(tmp_path / "none.json")
    twice = {"is_impossible": True, "id": "a", "question": "?"}
    content = {"data": [{"paragraphs": [{"context": CONTEXT, "qas": [twice, twice]}]}]}
    path.write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"qas\[1\]: a second question has the id 'a'"):
        read_squad(path)


# by hand, after the rules of SQuAD: case, punctuation, articles and blanks do not count
@pytest.mark.parametrize(
    ("answer", "expected", "exact", "f1"),
    [
        ("Denver Broncos", "The Denver  Broncos!", 1.0, 1.0),
        ("the Broncos", "Denver Broncos", 0.0, 2 / 3),
        ("in Denver, Colorado", "Denver", 0.0, 0.5),
        ("10th-century", "10thcentury", 1.0, 1.0),
        ("cat cat dog", "cat dog dog", 0.0, 2 / 3),
        ("", "", 1.0, 1.0),
        ("the", "", 1.0, 1.0),
        ("France", "", 0.0, 0.0),
        ("", "France", 0.0, 0.0),
    ],
)
def test_scores_of_known_pairs(answer: str, expected: str, exact: float, f1: float) -> None:
    assert exact_match(answer, expected) == exact
    assert overlap_f1(answer, expected) == pytest.approx(f1)


def test_normalization() -> None:
    assert normalized_answer(" A  theatre, an   other (the End).") == "theatre other end"


def test_scores_take_the_best_expected_answer_and_tell_kinds_apart() -> None:
    one = Question("a", "?", "x y z", (("x", 0), ("y z", 2)))
    none = Question("b", "?", "x y z", ())
    assert squad_scores({"a": "y"}, [one]) == {"f1": pytest.approx(2 / 3), "exact_match": 0.0}
    assert squad_scores({"a": "x", "b": "z"}, [one, none]) == {
        "f1": 0.5,
        "exact_match": 0.5,
        "HasAns_f1": 1.0,
        "HasAns_exact": 1.0,
        "NoAns_f1": 0.0,
        "NoAns_exact": 0.0,
    }
    with pytest.raises(RunError, match="1 of 2 questions were not answered"):
        squad_scores({"a": "x"}, [one, none])


def test_scores_are_those_of_torchmetrics() -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    generator = numpy.random.default_rng(0)
    words = ["The", "a", "norman", "Duke,", "of", "France", "911", "an", "-"]

    def text() -> str:
        return " ".join(generator.choice(words, generator.integers(1, 5)))

    metric, answers, questions = torchmetrics.text.SQuAD(), {}, []
    for number in range(200):
        expected = [f"duke {text()}" for _ in range(3)]  # articles alone count otherwise there
        given = text()
        name = str(number)
        answers[name] = given
        questions.append(Question(name, "?", "", tuple((one, 0) for one in expected)))
        target = {"answers": {"text": expected, "answer_start": [0] * 3}, "id": name}
        metric.update([{"prediction_text": given, "id": name}], [target])
    found, theirs = squad_scores(answers, questions), metric.compute()
    assert 100 * found["f1"] == pytest.approx(float(theirs["f1"]), abs=1e-3)
    assert 100 * found["exact_match"] == pytest.approx(float(theirs["exact_match"]), abs=1e-3)
    assert 0 < found["exact_match"] < found["f1"] < 1


def test_windows_overlap_and_hold_the_answer_where_it_is(tokenizer: BertTokenizerFast) -> None:
    question = _question(context=FAR)
    windows = Windows([_question(), question], tokenizer, max_length=32, stride=8)
    assert [window.question for window in windows.windows][:1] == [0] and len(windows) > 3
    seen, held = set(), 0
    for window in (one for one in windows.windows if one.question == 1):
        spans = window.spans[window.spans[:, 0] >= 0]
        seen |= {position for begin, end in spans for position in range(begin, end)}
        assert len(window.spans) <= 32
        if window.start != window.null:
            begin, end = window.spans[window.start, 0], window.spans[window.end, 1]
            assert FAR[begin:end] == "in France"
            held += 1
        else:
            shown = FAR[spans[0, 0] : spans[-1, 1]]
            assert "in France" not in shown
    assert held >= 1
    assert seen >= {at for at, letter in enumerate(FAR) if not letter.isspace()}
    overlaps = [
        (one.spans[:, 1].max() - other.spans[other.spans[:, 0] >= 0][0, 0])
        for one, other in zip(windows.windows[1:], windows.windows[2:], strict=False)
    ]
    assert all(overlap > 0 for overlap in overlaps)


def test_windows_make_batches(tokenizer: BertTokenizerFast) -> None:
    windows = Windows([_question(), _question(None, FAR, "r")], tokenizer, max_length=64, stride=8)
    batch = DataCollatorWithPadding(tokenizer)([windows[0], windows[1]])
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 64)
    assert batch["start_positions"].tolist()[1] == 0, "without an answer it is the first token"
    assert not batch["input_ids"].is_floating_point() and "token_type_ids" in batch


def test_windows_without_room_are_told(tokenizer: BertTokenizerFast) -> None:
    with pytest.raises(
        RunError, match=r"windows of 16 tokens leave \d+ to the text .* stride of 12"
    ):
        Windows([_question()], tokenizer, max_length=16, stride=12)
    slow = type("SlowTokenizer", (), {"is_fast": False})()
    with pytest.raises(RunError, match="SlowTokenizer does not tell where its tokens come from"):
        Windows([_question()], slow)


def _logits(windows: Windows, value: float = 9.0) -> tuple[Any, Any]:
    """Give what a model that knows all labels would, padded as a Trainer pads."""
    shape = len(windows), max(len(window.spans) for window in windows.windows) + 3
    starts, ends = numpy.full(shape, -100.0, "float32"), numpy.full(shape, -100.0, "float32")
    for row, window in enumerate(windows.windows):
        starts[row, : len(window.spans)] = ends[row, : len(window.spans)] = 0.0
        starts[row, window.start], ends[row, window.end] = value, value
    return starts, ends


def test_answers_come_from_the_window_that_is_sure(tokenizer: BertTokenizerFast) -> None:
    questions = [_question(name="near"), _question(context=FAR, name="far")]
    windows = Windows(questions, tokenizer, max_length=32, stride=8)
    answers, ranked = best_answers(windows, *_logits(windows), AnswerRules())
    assert answers == {"near": "in France", "far": "in France"}
    assert squad_scores(answers, questions) == {"f1": 1.0, "exact_match": 1.0}
    for one in ranked.values():
        assert one[0]["text"] == "in France" and one[0]["start_logit"] == 9.0 and len(one) <= 20
        assert sum(entry["probability"] for entry in one) == pytest.approx(1.0)


def test_no_answer_has_to_be_likelier_than_the_best_by_the_threshold(
    tokenizer: BertTokenizerFast,
) -> None:
    questions = [_question(None, name="none"), _question(name="some")]
    windows = Windows(questions, tokenizer, max_length=48, stride=8)
    logits = _logits(windows, 4.0)
    assert best_answers(windows, *logits, AnswerRules())[0]["none"] != ""
    rules = AnswerRules(may_be_null=True)
    answers, ranked = best_answers(windows, *logits, rules)
    assert answers == {"none": "", "some": "in France"} and ranked["none"][0]["text"] == ""
    answers, _ = best_answers(windows, *logits, AnswerRules(may_be_null=True, null_threshold=9.0))
    assert answers["none"] != ""


def test_answers_keep_order_and_length(tokenizer: BertTokenizerFast) -> None:
    windows = Windows([_question()], tokenizer, max_length=48, stride=8)
    starts, ends = _logits(windows, 0.0)
    (places,) = numpy.nonzero(windows.windows[0].spans[:, 0] >= 0)
    starts[0, places[5]], ends[0, places[2]], ends[0, places[7]] = 9.0, 9.0, 5.0
    _, ranked = best_answers(windows, starts, ends, AnswerRules(n_best=5, max_tokens=3))
    begin, end = windows.windows[0].spans[places[5], 0], windows.windows[0].spans[places[7], 1]
    assert ranked["q"][0]["text"] == CONTEXT[begin:end], "an end before the start is no answer"
    answers, _ = best_answers(windows, starts, ends, AnswerRules(n_best=1, max_tokens=3))
    assert answers == {"q": ""}, "nothing fits"
    with pytest.raises(ValueError, match="1 windows need as many rows"):
        best_answers(windows, starts[:0], ends, AnswerRules())
