"""Models that find answers in texts, from a folder or the hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from sparseml.transformers.data.classifier import require_model_folder
from sparseml.transformers.errors import loading


@dataclass(frozen=True)
class Reader:
    """A model that gives, for each token, how likely an answer starts and ends there.

    :param fresh: names of parameters that no file had, so that they are random
    """

    model: nn.Module
    tokenizer: Any
    fresh: tuple[str, ...] = ()


def load_reader(name: str, flag: str = "--model_name_or_path") -> Reader:
    """Load model and tokenizer; a head that is lacking is random.

    :param flag: that gave the name, for errors
    :raises RunError: if there is no model for text
    """
    require_model_folder(name, flag)
    with loading(f"{flag} {name}"):
        # windows are padded behind their tokens, whatever the model was trained with
        tokenizer = AutoTokenizer.from_pretrained(name, padding_side="right")
        model, found = AutoModelForQuestionAnswering.from_pretrained(name, output_loading_info=True)
    return Reader(model, tokenizer, tuple(sorted(found["missing_keys"])))
