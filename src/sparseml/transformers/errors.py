"""What is wrong with a training by a Trainer, or with the folder of a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from sparseml.run.errors import RunError, one_line
from sparseml.utils.references import described


class CallbackError(RunError, ValueError):
    """A recipe, model, checkpoint or setting that a Trainer's run cannot work with."""


@contextmanager
def loading(what: str, kind: type[RunError] = RunError) -> Iterator[None]:
    """Tell in one line whatever keeps a model, its tokenizer or its configuration from being read.

    :param what: flag and model, for the error
    :param kind: of error to raise
    :raises RunError: of that kind
    """
    try:
        yield
    except RunError:
        raise
    except SafetensorError as error:
        raise kind(f"{what}: the weights are damaged: {one_line(error)}") from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise kind(f"{what} cannot be loaded: {one_line(error)}") from error
        raise kind(f"{what}: the weights have other shapes than config.json says") from error
    except (OSError, ValueError, ImportError) as error:  # the library's own words for the user
        raise kind(f"{what} cannot be loaded: {one_line(error)}") from error
    except Exception as error:  # a model's code, and readers of files, may raise anything
        raise kind(f"{what} cannot be loaded: {described(error)}") from error
