"""The parts of a report: summaries, pruning of each parameter, quantization of each operation."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, Field
from torch import nn

from sparseml.pytorch.utils.names import canonical_name, canonical_named_modules
from sparseml.pytorch.utils.params import distinct_params
from sparseml.pytorch.utils.tensors.stats import count_zeros, tensor_sparsity

__all__ = [
    "CountAndPercent",
    "SparsificationInfo",
    "SparsificationPruning",
    "SparsificationQuantization",
    "SparsificationSummaries",
]

#: A parameter counts as pruned when its sparsity lies strictly between these: below, zeros are
#: chance; at 1 the parameter is one that starts as zeros, like the bias of a norm.
PRUNING_THRESHOLDS = (0.05, 1 - 1e-9)


class CountAndPercent(BaseModel):
    """How many of something, and which fraction of all, from 0 to 1."""

    count: int
    percent: float

    @classmethod
    def of(cls, count: int, total: int) -> CountAndPercent:
        """``count`` out of ``total``; the fraction is 0 when there is nothing to count."""
        return cls(count=count, percent=count / total if total else 0.0)

    def items(
        self, tag: str, percentages_only: bool, non_zero_only: bool
    ) -> Iterator[tuple[str, float]]:
        """Yield ``<tag>/count`` and ``<tag>/percent`` as far as they are asked for."""
        if non_zero_only and not self.count:
            return
        if not percentages_only:
            yield f"{tag}/count", self.count
        yield f"{tag}/percent", self.percent


class SparsificationInfo(BaseModel, ABC):
    """A part of a report on a module; items are tagged ``<class name>/...``."""

    @classmethod
    @abstractmethod
    def from_module(cls, module: nn.Module) -> SparsificationInfo:
        """Look at ``module``."""

    @abstractmethod
    def loggable_items(
        self, percentages_only: bool = False, non_zero_only: bool = False
    ) -> Iterator[tuple[str, Any]]:
        """Yield ``(tag, value)``; a value that is a dict belongs to ``log_scalars``.

        :param percentages_only: leave out counts that come with a percentage
        :param non_zero_only: leave out what is zero
        """

    @classmethod
    def _tag(cls, name: str) -> str:
        return f"{cls.__name__}/{name}"


def _operations(module: nn.Module) -> Iterator[nn.Module]:
    """Return the leaf modules; a QuantWrapper stands for what it wraps, Identity for nothing."""
    stack = [module]
    while stack:
        layer = stack.pop()
        if type(layer).__name__ == "QuantWrapper" and isinstance(layer.module, nn.Module):
            stack.append(layer.module)
            continue
        children = list(layer.children())
        stack.extend(reversed(children))
        if not children and all(base.__name__ != "Identity" for base in type(layer).__mro__):
            yield layer


def _root(module: nn.Module) -> nn.Module:
    return next(canonical_named_modules(module))[1]


class SparsificationSummaries(SparsificationInfo):
    """Counts over the whole model.

    ``pruned`` counts parameters (tensors), ``quantized`` operations; ``parameter_counts`` is
    name → number of elements, ``operation_counts`` class name → number of leaf modules.
    """

    quantized: CountAndPercent
    pruned: CountAndPercent
    parameter_counts: dict[str, int] = Field(default_factory=dict)
    operation_counts: dict[str, int] = Field(default_factory=dict)

    @classmethod
    def from_module(
        cls, module: nn.Module, pruning_thresholds: tuple[float, float] = PRUNING_THRESHOLDS
    ) -> SparsificationSummaries:
        """Count; a parameter is pruned when its sparsity lies strictly between the thresholds."""
        low, high = pruning_thresholds
        operations = list(_operations(_root(module)))
        params = distinct_params(module)
        pruned = [low < float(tensor_sparsity(found.param)) < high for found in params]
        quantized = [hasattr(layer, "quantization_scheme") for layer in operations]
        return cls(
            quantized=CountAndPercent.of(sum(quantized), len(quantized)),
            pruned=CountAndPercent.of(sum(pruned), len(pruned)),
            parameter_counts={canonical_name(found.name): found.param.numel() for found in params},
            operation_counts=dict(Counter(type(layer).__name__ for layer in operations)),
        )

    def loggable_items(
        self, percentages_only: bool = True, non_zero_only: bool = False
    ) -> Iterator[tuple[str, Any]]:
        counted = {
            "OperationCounts": self.operation_counts,
            "ParameterCounts": self.parameter_counts,
        }
        for name, counts in counted.items():
            shown = {key: value for key, value in counts.items() if value or not non_zero_only}
            yield self._tag(name), shown
        parts = {"QuantizedOperations": self.quantized, "PrunedParameters": self.pruned}
        for name, part in parts.items():
            yield from part.items(self._tag(name), percentages_only, non_zero_only)


class SparsificationPruning(SparsificationInfo):
    """Zeros of every parameter: name → count and fraction."""

    sparse_parameters: dict[str, CountAndPercent]

    @classmethod
    def from_module(cls, module: nn.Module) -> SparsificationPruning:
        """Count the zeros; a tied parameter is listed once, under its first name."""
        params = {canonical_name(found.name): found.param for found in distinct_params(module)}
        of = CountAndPercent.of
        return cls(sparse_parameters={n: of(count_zeros(p), p.numel()) for n, p in params.items()})

    def loggable_items(
        self, percentages_only: bool = False, non_zero_only: bool = False
    ) -> Iterator[tuple[str, Any]]:
        for name, part in self.sparse_parameters.items():
            tag = self._tag(f"SparseParameters/{name}")
            yield from part.items(tag, percentages_only, non_zero_only)


class SparsificationQuantization(SparsificationInfo):
    """Quantization of every operation, by class name (with ``_1``, ``_2``, ... for repeats).

    ``precision`` holds None for an operation that is not quantized, an int for the bits of its
    weights, or a dict ``{"weights": bits, "input_activations": bits}``.
    """

    enabled: dict[str, bool]
    precision: dict[str, dict[str, int | None] | int | None]

    @classmethod
    def from_module(cls, module: nn.Module) -> SparsificationQuantization:
        """Read the attribute ``quantization_scheme`` of every leaf module."""
        enabled: dict[str, bool] = {}
        precision: dict[str, dict[str, int | None] | int | None] = {}
        repeats: Counter[str] = Counter()
        for layer in _operations(_root(module)):
            kind = type(layer).__name__
            name = f"{kind}_{repeats[kind]}" if repeats[kind] else kind
            repeats[kind] += 1
            enabled[name] = hasattr(layer, "quantization_scheme")
            precision[name] = _precision(getattr(layer, "quantization_scheme", None))
        return cls(enabled=enabled, precision=precision)

    def loggable_items(
        self, percentages_only: bool = False, non_zero_only: bool = False
    ) -> Iterator[tuple[str, Any]]:
        for name, enabled in self.enabled.items():
            if non_zero_only and not enabled:
                continue
            tag, precision = self._tag(name), self.precision[name]
            yield f"{tag}/enabled", enabled
            if precision is None:
                yield f"{tag}/precision", None
            elif isinstance(precision, int):
                yield f"{tag}/precision.weights/num_bits", precision
            else:
                for part, bits in precision.items():
                    yield f"{tag}/precision/{part}/num_bits", bits


def _precision(scheme: Any) -> dict[str, int | None] | int | None:
    parts = {part: getattr(scheme, part, None) for part in ("weights", "input_activations")}
    bits = {part: getattr(args, "num_bits", None) for part, args in parts.items()}
    return bits["weights"] if bits["input_activations"] is None else bits
