"""Descriptions of a model's layers: sizes, sparsity, cost."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from sparseml.legacy.helpers.json_text import read_json_text, write_json_text
from sparseml.utils.plain import plain_data

__all__ = ["AnalyzedLayerDesc"]

Shape = tuple[int, ...]
_Plain = dict[str, Any]
_SUMMED = ("params", "zeroed_params", "prunable_params", "flops", "total_flops")


@dataclasses.dataclass
class AnalyzedLayerDesc:
    """A layer of a model, or a part of a model made of layers.

    :param name: name in the model, empty for the model itself
    :param type_: name of the layer's class
    :param params: number of parameters
    :param zeroed_params: how many of them are zero, biases left out
    :param prunable_params: how many of them pruning usually acts on
    :param params_dims: shape of each parameter by its name; None for a part made of layers
    :param prunable_params_dims: shapes of those that pruning usually acts on
    :param execution_order: number of the call in a forward pass, the whole model's being 0; -1 if
        there was none
    :param input_shape: shape of each input, batch included
    :param output_shape: shape of each output
    :param flops: floating-point operations of the last call
    :param total_flops: those of all calls
    :param stride: stride of a convolution or pooling layer
    """

    name: str
    type_: str
    params: int = 0
    zeroed_params: int = 0
    prunable_params: int = 0
    params_dims: dict[str, Shape] | None = None
    prunable_params_dims: dict[str, Shape] | None = None
    execution_order: int = -1
    input_shape: tuple[Shape, ...] | None = None
    output_shape: tuple[Shape, ...] | None = None
    flops: int = 0
    total_flops: int = 0
    stride: int | Shape | None = None

    @property
    def terminal(self) -> bool:
        """Whether this is a layer, not a part made of layers."""
        return self.params_dims is not None

    @property
    def prunable(self) -> bool:
        """Whether there is anything that pruning usually acts on."""
        return self.prunable_params > 0

    def dict(self) -> _Plain:
        """Return the fields as plain data; ``type_`` is called ``type``."""
        fields = dataclasses.asdict(self)
        return plain_data({name.rstrip("_"): value for name, value in fields.items()})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AnalyzedLayerDesc:
        """Undo :meth:`dict`; a ValueError names fields that are unknown or missing."""
        given = {"type_" if name == "type" else name: value for name, value in values.items()}
        known = {field.name for field in dataclasses.fields(cls)}
        wrong = sorted((given.keys() - known) | ({"name", "type_"} - given.keys()))
        if wrong:
            raise ValueError(f"no description of a layer: unknown or missing fields {wrong}")
        return cls(**_with_tuples(given))

    @staticmethod
    def save_descs(descs: Iterable[AnalyzedLayerDesc], path: str | os.PathLike[str]) -> None:
        """Write descriptions as JSON; folders are made as needed."""
        content = {"layers": [desc.dict() for desc in descs]}
        write_json_text(json.dumps(content, indent=2), path)

    @staticmethod
    def load_descs(path: str) -> list[AnalyzedLayerDesc]:
        """Read what :meth:`save_descs` has written."""
        layers = json.loads(read_json_text(path))["layers"]
        return [AnalyzedLayerDesc.from_dict(values) for values in layers]

    @staticmethod
    def merge_descs(
        orig: AnalyzedLayerDesc, descs: Iterable[AnalyzedLayerDesc]
    ) -> AnalyzedLayerDesc:
        """Return ``orig`` with the counts and operations of ``descs`` added to its own."""
        parts = [orig, *descs]
        sums = {name: sum(getattr(part, name) for part in parts) for name in _SUMMED}
        return dataclasses.replace(orig, **sums)


def _with_tuples(value: Any) -> Any:
    """Return plain data with its lists, which are all shapes, as tuples."""
    if isinstance(value, dict):
        return {name: _with_tuples(item) for name, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
