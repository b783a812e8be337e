"""The model that blocks are of, and the data that they learn from, as their user lends them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from sparseml.pytorch.functional.composing.targets import hash_of, tensor_hash
from sparseml.pytorch.utils.saving.files import (
    is_safetensors,
    read_safetensors,
    read_torch_file,
)
from sparseml.run.errors import RunError
from sparseml.utils.references import described, resolve_reference

Batch = Any
"""A mapping of keyword arguments of the model, or a tuple of positional ones."""
Masks = Mapping[str, Tensor]


class Batches(Iterable[Batch], Sized, Protocol):
    """Batches of which it is known how many there are: a list, a ``DataLoader``..."""


@runtime_checkable
class Data(Protocol):
    """What is lent to tune, fine-tune and judge models.

    It may also have ``call(model, batch)``, by default with the batch as the model's arguments;
    ``loss(model, batch)``, by default the ``loss`` of what that returns; ``masks(batch)``, name →
    which positions are no padding (bool, ``[batch, positions]``), by default the attention masks
    among the batch; and ``fingerprint``, a text that tells these data from others.
    """

    def training(self, epoch: int) -> Batches:
        """Return the batches of an epoch, the same whenever it is asked."""

    def held_out(self) -> Iterable[Batch]:
        """Return the batches by which the best state of a block is chosen."""

    def evaluate(self, model: nn.Module) -> Mapping[str, float]:
        """Return how good a model is, the most telling number first."""


class Lent:
    """Data with what they leave out filled in.

    :param data: what the user has
    :param device: where batches go
    """

    def __init__(self, data: Any, device: str = "cpu") -> None:
        if not isinstance(data, Data):
            need = "training(epoch), held_out() and evaluate(model)"
            raise RunError(f"--data gave a {type(data).__name__}, which must have {need}")
        self.data, self.device = data, device

    def training(self, epoch: int) -> Iterator[Batch]:
        """Yield the batches of an epoch."""
        return (moved(batch, self.device) for batch in self.data.training(epoch))

    def held_out(self) -> Iterator[Batch]:
        """Yield the held-out batches."""
        return (moved(batch, self.device) for batch in self.data.held_out())

    def steps(self) -> int:
        """Return how many batches an epoch has."""
        try:
            return len(self.data.training(0))
        except TypeError as error:
            raise RunError("--data: training(epoch) must give batches that have a len()") from error

    def call(self, model: nn.Module, batch: Batch) -> Any:
        """Return what the model makes of a batch."""
        if hasattr(self.data, "call"):
            return self.data.call(model, batch)
        return model(**batch) if isinstance(batch, Mapping) else model(*batch)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Return the loss of a model, to be differentiated."""
        if hasattr(self.data, "loss"):
            return cast(Tensor, self.data.loss(model, batch))
        output = self.call(model, batch)
        loss = output.get("loss") if isinstance(output, Mapping) else None
        if loss is None:
            raise RunError("--data has no loss(model, batch), and the model returns no loss")
        return cast(Tensor, loss)

    def masks(self, batch: Batch) -> Masks:
        """Return which positions are no padding."""
        if hasattr(self.data, "masks"):
            return cast(Masks, self.data.masks(batch))
        if not isinstance(batch, Mapping):
            return {}
        found = {"": batch.get("attention_mask"), "decoder": batch.get("decoder_attention_mask")}
        labels = batch.get("labels")
        decodes = "decoder_input_ids" in batch or (labels is not None and labels.ndim == 2)
        if found["decoder"] is None and decodes and labels is not None:
            found["decoder"] = labels != -100
        return {name: mask.bool() for name, mask in found.items() if mask is not None}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return what an evaluation has found."""
        was = model.training
        with torch.no_grad():
            found = {n: float(v) for n, v in self.data.evaluate(model.eval()).items()}
        model.train(was)
        return found

    def fingerprint(self) -> str:
        """Return what tells these data from others."""
        given = getattr(self.data, "fingerprint", None)
        if given is not None:
            return str(given)
        first = next(iter(self.data.training(0)), None)
        return hash_of([_hashes(one) for one in (first, *self.data.held_out())])

    def grad_sampler(self) -> dict[str, Any]:
        """Return where pruners that need gradients sample them from: the first epoch."""

        def batches(**_: Any) -> Iterator[tuple[Any, Any, Any]]:
            for batch in self.training(0):
                named = isinstance(batch, Mapping)
                yield [] if named else list(batch), dict(batch) if named else {}, batch

        def loss(output: Any, _: Any) -> Tensor:
            return cast(Tensor, output["loss"])

        own = getattr(self.data, "grad_sampler", None)
        return own() if own else {"data_loader_builder": batches, "loss_fn": loss}


def load_origin(reference: str, weights: str | None = None) -> nn.Module:
    """Return the trained model that a reference names.

    :param reference: ``hf:DIR``, or ``module.path:callable`` of the user's own code
    :param weights: file of a state dict to load into it
    :raises RunError: if there is no such model, or the weights do not fit
    """
    kind, _, rest = reference.partition(":")
    model = _hugging_face(rest) if kind == "hf" else _called(reference, "--model", {})
    if not isinstance(model, nn.Module):
        raise RunError(f"--model {reference} gave a {type(model).__name__}, not a torch module")
    if weights is not None:
        file = Path(weights)
        if not file.exists():
            raise RunError(f"--weights {weights}: no such file")
        state = read_safetensors(file)[0] if is_safetensors(file) else read_torch_file(file)
        try:
            model.load_state_dict(state)
        except (RuntimeError, TypeError) as error:
            raise RunError(f"--weights {weights} does not fit the model: {error}") from error
    return model.eval()


def load_data(reference: str, batch_size: int | None = None, device: str = "cpu") -> Lent:
    """Return the data that ``module.path:callable`` gives.

    :param batch_size: handed to the callable, if it is given
    """
    sized = {} if batch_size is None else {"batch_size": batch_size}
    return Lent(_called(reference, "--data", sized), device)


def moved(value: Any, device: str) -> Any:
    """Return nested data with all tensors on a device."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: moved(one, device) for key, one in value.items()}
    return type(value)(moved(v, device) for v in value) if type(value) in (list, tuple) else value


def _hugging_face(folder: str) -> nn.Module:
    what = f"--model hf:{folder}"
    if not (Path(folder) / "config.json").is_file():
        raise RunError(f"{what}: no file config.json in that folder; models are not downloaded")
    from sparseml.transformers.lent import teacher_of

    return cast(nn.Module, teacher_of(folder))


def _called(reference: str, flag: str, given: Mapping[str, Any]) -> Any:
    try:
        found: Callable[..., Any] = resolve_reference(reference)
    except ValueError as error:
        raise RunError(f"{flag} {error}") from error
    if not callable(found) or isinstance(found, nn.Module):
        return found
    try:
        return found(**given)
    except RunError:
        raise
    except Exception as error:  # the user's code may raise anything
        raise RunError(f"{flag} {reference}: calling it failed: {described(error)}") from error


def _hashes(batch: Batch) -> list[str]:
    found: list[str] = []
    with contextlib.suppress(AttributeError):
        values = batch.values() if isinstance(batch, Mapping) else batch
        found = [tensor_hash(one) for one in values if isinstance(one, Tensor)]
    return found
