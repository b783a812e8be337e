"""Selectively regularized pruning of Transformers that really get smaller."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn import Module
from torch.optim import Optimizer

from sparseml.optim.schedule import is_one_shot
from sparseml.pytorch.functional.shrinking.rates import DECREASING, gate_value, require_rate
from sparseml.pytorch.sparsification.fields import (
    as_flag,
    as_number,
    declared_fields,
    field,
    fixed,
    of_types,
    one_of,
)
from sparseml.pytorch.sparsification.modifier import Loggers, PyTorchModifierYAML, ScheduledModifier
from sparseml.pytorch.sparsification.pruning.sampling.given import call_builder, parts_of
from sparseml.pytorch.sparsification.pruning.sampling.gradient_sampling import (
    GradientSampler,
    SamplingData,
)
from sparseml.pytorch.sparsification.pruning.settings.fields import as_count, as_optional_keywords
from sparseml.pytorch.sparsification.pruning.shrinking.choosing import (
    STAGES,
    kept_units,
    model_keep_ratio,
    unit_scores,
)
from sparseml.pytorch.units.attributes import sizes_of
from sparseml.pytorch.units.gated import GatedGroups, GatedUnits, Gates, gated_units, remove_gated
from sparseml.pytorch.units.gated.frozen import FrozenSlices
from sparseml.pytorch.units.slim_attention import SlimAttention, make_slim
from sparseml.pytorch.utils.names import canonical_named_modules, unwrap_module
from sparseml.pytorch.utils.thinning import take_shapes
from sparseml.sparsification.types import SparsificationTypes

_LOGGER = logging.getLogger(__name__)


def _as_rate(name: str, value: Any) -> float:
    rate = as_number(name, value)
    require_rate(rate, name)
    return rate


def _as_stage(name: str, value: Any) -> int:
    if isinstance(value, bool) or value not in STAGES:
        raise ValueError(f"{name} must be one of {', '.join(map(str, STAGES))}, found {value!r}")
    return int(value)


@PyTorchModifierYAML()
@declared_fields()
class SRPPruningModifier(ScheduledModifier):
    """Lets whole units of a Transformer fade away, and removes them: SRP.

    At the start the gradients of gates on all units (dimensions of the residual stream, channels of
    queries and keys and of values, neurons) say which ones the loss needs least. Their gates fall
    to 0 while their weights stand still and all others adapt; then they are removed, and an
    ordinary smaller model is left. What can go is found in the model itself.

    | Sample yaml:
    |   !SRPPruningModifier
    |       compression_rate: 0.2
    |       start_epoch: 0.0
    |       end_epoch: 20.0
    |       stage: 0
    |       decreasing: sa

    :param compression_rate: share of the parameters to keep, above 0 and at most 1
    :param start_epoch: when to choose; the gates begin to fall
    :param end_epoch: when the gates are 0 and the units are removed, right after the last step
    :param stage: 0 for all units, 1 for the stream alone, 2 for all others. Stages 1 and 2, one
        after the other in a recipe, lead to the widths of stage 0
    :param decreasing: ``s`` for every step or ``e`` for every epoch; ``a`` arithmetically or ``g``
        geometrically
    :param pruning_iter: how many times to choose, let fade and remove, in equal parts of the time
    :param num_scoring_batches: batches of the ``grad_sampler`` to sum gradients over
    :param ffn_ranking: ``global``, neurons of all layers together; ``per_layer``, as many of each
    :param min_keep: how many channels of every head and neurons of every layer stay in any case
    :param keep_ratio: the share of units to keep, instead of what follows from the rate: for a
        stage 2 in a run of its own, the one that the run of stage 1 logged
    :param reference_schedule: let gates fall as in the first implementation, to below 0
    :param grad_sampler_kwargs: for the sampler's ``data_loader_builder``
    :raises ValueError: for a field out of its range
    """

    compression_rate: float = field(_as_rate)
    start_epoch: float
    end_epoch: float
    stage: int = field(_as_stage, default=0)
    decreasing: str = field(one_of(DECREASING), default="sa")
    pruning_iter: int = field(as_count, default=1)
    num_scoring_batches: int = field(as_count, default=1)
    ffn_ranking: str = field(one_of(("global", "per_layer")), default="global")
    min_keep: int = field(as_count, default=1)
    keep_ratio: float | None = field(
        lambda name, value: None if value is None else _as_rate(name, value), default=None
    )
    reference_schedule: bool = field(as_flag, default=False)
    grad_sampler_kwargs: Mapping[str, Any] | None = field(as_optional_keywords, default=None)
    end_comparator: int = fixed(1)

    _progress: ClassVar[tuple[str, ...]] = (
        *("_keep", "_originals", "_removals", "_chosen", "_gate", "_sampler"),
    )
    _order_dependence = "it trains the gates that decide what goes"

    def _set_up(self) -> None:
        self._model: Module | None = None
        self._sampler: GradientSampler | None = None
        self._inputs: Any = None
        self._keep: float | None = None
        self._originals: dict[str, int] = {}  # units before anything went
        self._removals = 0  # iterations that are over
        self._chosen: dict[str, Tensor] = {}  # key -> what is kept, while the others fade
        self._gate = 1.0
        self._gates: Gates | None = None
        self._frozen: FrozenSlices | None = None

    sparsification_types = of_types(SparsificationTypes.pruning)

    def needs(self) -> dict[str, str]:
        """Return the extras of :meth:`initialize` that are asked for → what happens without."""
        return {"grad_sampler": "it refuses to prune"}

    def initialize(
        self, module: Module, epoch: float = 0, loggers: Loggers = None, **kwargs: Any
    ) -> None:
        """Take the sampler and see what can go; at an infinite epoch also remove it, in one shot.

        :raises RuntimeError: without a ``grad_sampler``
        :raises ValueError: for a model in which nothing of the stage can go
        """
        self._drop_gates()
        given, owner = kwargs.get("grad_sampler"), type(self).__name__
        builder, _ = parts_of(given, owner)
        keywords = dict(self.grad_sampler_kwargs or {})
        self._sampler = GradientSampler(given, keywords, owner)
        data = SamplingData(lambda: call_builder(builder, keywords), owner)
        with data.random_numbers.drawing():
            args, named, _ = data.next_batch()
        self._inputs = dict(named) if named and not args else (tuple(args) if not named else None)
        if self._inputs is None:
            raise ValueError(
                f"the grad_sampler of {owner} must give positional or keyword arguments for the "
                "model, not both"
            )
        super().initialize(module, epoch, loggers, **kwargs)
        self._model = unwrap_module(module, root=True)
        # at once, so that a second stage knows the model as it was before the first
        groups = gated_units(self._model, self._inputs)
        self._wanted(groups)
        self._keep = self.keep_ratio or model_keep_ratio(
            self._model, groups, float(self.compression_rate)
        )
        self._originals = {units.key: units.group.size for units in groups.found}
        self._removals, self._chosen, self._gate = 0, {}, 1.0
        _LOGGER.info("%s keeps %.6f of the units", owner, self._keep)
        if is_one_shot(epoch):
            for _ in range(int(self.pruning_iter)):
                self._choose()
                self._remove(None)

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Choose what fades away, at the start."""
        super().update(module, optimizer, epoch, steps_per_epoch)
        if self.start_pending(epoch, steps_per_epoch) and not self._chosen:
            self._choose()
        if self.end_pending(epoch, steps_per_epoch) and self._chosen:
            self._remove(optimizer)

    def optimizer_pre_step(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Zero the gradients of what fades away, and what the optimizer remembers of it."""
        super().optimizer_pre_step(module, optimizer, epoch, steps_per_epoch)
        if self._frozen is not None:
            self._frozen.before_step(optimizer)

    def optimizer_post_step(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Put back what fades away, and lower its gates; remove it after the last step."""
        super().optimizer_post_step(module, optimizer, epoch, steps_per_epoch)
        if self._frozen is None:
            return
        self._frozen.after_step()
        following = round((epoch - max(float(self._start_epoch), 0.0)) * steps_per_epoch) + 1
        begin, end = (self._boundary(self._removals + i, steps_per_epoch) for i in (0, 1))
        if following < end:
            step = (following - begin, end - begin, steps_per_epoch)
            self._lower(gate_value(self.decreasing, *step, reference=bool(self.reference_schedule)))
            return
        self._remove(optimizer)
        if self._removals < self.pruning_iter:
            self._choose()

    def finalize(
        self, module: Module | None = None, reset_loggers: bool = True, **kwargs: Any
    ) -> None:
        """Take the gates away. What has not faded before the end of the run stays."""
        super().finalize(module, reset_loggers, **kwargs)
        if self._chosen:
            _LOGGER.warning(
                "%s: the run is over before end_epoch, nothing more is removed", type(self).__name__
            )
        self._drop_gates()
        self._model = self._sampler = self._inputs = None

    def progress_state(self) -> dict[str, Any]:
        """Return how far this has come, with the sizes of the model if units are gone."""
        state = super().progress_state()
        if self._removals and self._model is not None:
            modules = list(canonical_named_modules(self._model))
            state["slim"] = [name for name, one in modules if isinstance(one, SlimAttention)]
            state["attributes"] = {name: dict(sizes_of(one)) for name, one in modules}
            tensors = self._model.state_dict()
            state["shapes"] = {name: list(tensor.shape) for name, tensor in tensors.items()}
        return state

    def load_structure_state(self, module: Module, state: Mapping[str, Any]) -> None:
        """Give the model the sizes that it had; the weights of its layers bring their own."""
        super().load_structure_state(module, state)
        model = unwrap_module(module, root=True)
        for name in state.get("slim", ()):
            layer = model.get_submodule(name)
            if isinstance(layer, nn.MultiheadAttention) and not isinstance(layer, SlimAttention):
                make_slim(model, layer)
        for name, sizes in state.get("attributes", {}).items():
            for key, value in sizes.items():
                setattr(model.get_submodule(name), key, value)
        take_shapes(model, state.get("shapes", {}))

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restore how far this had come, with the gates of what was fading."""
        self._drop_gates()
        super().load_progress_state(state)
        if self._chosen:
            self._fade(self._discovered())
            self._lower(self._gate)

    def _boundary(self, iteration: int, steps_per_epoch: int) -> int:
        """The step, counted from the start, at which an iteration begins."""
        lasts = float(self._end_epoch) - max(float(self._start_epoch), 0.0)
        steps = max(round(lasts * steps_per_epoch), 1)
        return round(steps * iteration / int(self.pruning_iter))

    def _wanted(self, groups: GatedGroups) -> tuple[GatedUnits, ...]:
        kinds = STAGES[int(self.stage)]
        if not (wanted := groups.of(*kinds)):
            why = "; ".join(f"{key}: {reason}" for key, reason in groups.skipped.items())
            raise ValueError(
                f"{type(self).__name__} finds nothing to remove in stage {self.stage} "
                f"({', '.join(kinds)}){': ' + why if why else ''}"
            )
        return wanted

    def _discovered(self) -> tuple[GatedUnits, ...]:
        assert self._model is not None
        return self._wanted(gated_units(self._model, self._inputs))

    def _choose(self) -> None:
        """Score all units, choose those that go, and freeze them."""
        assert self._model is not None and self._sampler is not None and self._keep is not None
        units = self._discovered()
        gates = Gates(self._model, units)
        try:
            batches = int(self.num_scoring_batches)
            scores = unit_scores(self._model, gates, self._sampler, batches)
        finally:
            gates.detach()
        originals = {one.key: self._originals.get(one.key, one.group.size) for one in units}
        self._chosen = kept_units(
            units,
            scores,
            originals,
            self._keep,
            (self._removals + 1, int(self.pruning_iter)),
            self.ffn_ranking == "per_layer",
            int(self.min_keep),
        )
        self._fade(units)
        self._lower(1.0)

    def _fade(self, units: tuple[GatedUnits, ...]) -> None:
        assert self._model is not None
        self._gates = Gates(self._model, units)
        keeps = {one: self._chosen[one.key] for one in units}
        self._frozen = FrozenSlices(self._model, keeps)

    def _lower(self, value: float) -> None:
        assert self._gates is not None
        self._gate = value
        for key, keep in self._chosen.items():
            self._gates.lower(key, keep, value)

    def _remove(self, optimizer: Any) -> None:
        """Take out what has faded."""
        assert self._model is not None and self._gates is not None
        keeps = {one: self._chosen[one.key] for one in self._gates.units}
        self._drop_gates()
        removed = remove_gated(self._model, keeps, optimizer)
        self._chosen, self._gate = {}, 1.0
        self._removals += 1
        _LOGGER.info("%s removed %d parameters", type(self).__name__, removed)

    def _drop_gates(self) -> None:
        if self._gates is not None:
            self._gates.detach()
        self._gates = self._frozen = None
