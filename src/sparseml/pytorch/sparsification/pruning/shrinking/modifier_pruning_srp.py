"""Selectively regularized pruning of Transformers that really get smaller."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from sparseml.optim.schedule import is_one_shot
from sparseml.pytorch.functional.shrinking.rates import DECREASING, gate_value
from sparseml.pytorch.sparsification.fields import (
    as_flag,
    between,
    declared_fields,
    field,
    fixed,
    new_field,
    one_of,
)
from sparseml.pytorch.sparsification.modifier import Loggers, PyTorchModifierYAML, ScheduledModifier
from sparseml.pytorch.sparsification.pruning.sampling.given import LOSSES, parts_of
from sparseml.pytorch.sparsification.pruning.sampling.gradient_sampling import GradientSampler
from sparseml.pytorch.sparsification.pruning.sampling.sampling_data import first_inputs
from sparseml.pytorch.sparsification.pruning.settings.fields import (
    as_count,
    as_optional_keywords,
    optional,
)
from sparseml.pytorch.sparsification.pruning.shrinking.choosing import (
    STAGES,
    as_rate,
    as_stage,
    kept_units,
    model_keep_ratio,
    unit_scores,
    wanted_units,
)
from sparseml.pytorch.sparsification.pruning.shrinking.fading import Fading
from sparseml.pytorch.sparsification.pruning.shrinking.teaching import Teaching
from sparseml.pytorch.units.gated import GatedGroups, GatedUnits, Gates, gated_units
from sparseml.pytorch.units.origins import original_size
from sparseml.pytorch.units.saved import restore_structure, structure_of
from sparseml.pytorch.utils.distributed import is_distributed
from sparseml.pytorch.utils.names import unwrap_module
from sparseml.sparsification.types import SparsificationTypes

_LOGGER = logging.getLogger(__name__)


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
    :param keep_ratio: the share of units to keep, instead of what follows from the rate
    :param reference_schedule: let gates fall as in the first implementation, to below 0
    :param grad_sampler_kwargs: for the sampler's ``data_loader_builder``
    :param kd_weight: of the teacher in the loss, from the start to the end of the run: the model
        as it was when training began, or the ``distillation_teacher`` that is given; 0 for none.
        Of several in a recipe the parts add up, so give it to the first
    :param kd_temperature: what the logits of both are divided by; above 0
    :param remove: take the units out in the end. Otherwise their weights become and stay 0, in a
        model of the old sizes that computes the same; for stage 2 alone
    :raises ValueError: for a field out of its range, and to remove nothing in another stage than 2
    """

    compression_rate: float = field(as_rate)
    start_epoch: float
    end_epoch: float
    stage: int = field(as_stage, default=0)
    decreasing: str = field(one_of(DECREASING), default="sa")
    pruning_iter: int = field(as_count, default=1)
    num_scoring_batches: int = field(as_count, default=1)
    ffn_ranking: str = field(one_of(("global", "per_layer")), default="global")
    min_keep: int = field(as_count, default=1)
    keep_ratio: float | None = field(optional(as_rate), default=None)
    reference_schedule: bool = field(as_flag, default=False)
    grad_sampler_kwargs: Mapping[str, Any] | None = field(as_optional_keywords, default=None)
    kd_weight: float = new_field(between(0.0), default=0.0)
    kd_temperature: float = new_field(between(above=0.0), default=10.0)
    remove: bool = new_field(as_flag, default=True)
    end_comparator: int = fixed(1)

    _progress: ClassVar[tuple[str, ...]] = (
        *("_keep", "_originals", "_removals", "_chosen", "_gate", "_zeroed", "_sampler"),
    )
    _order_dependence = "it trains the gates that decide what goes"

    def _set_up(self) -> None:
        if not self.remove and int(self.stage) != 2:
            raise ValueError(
                f"remove: false needs stage 2, found {self.stage}: where the stream stays as wide "
                "as it was, norms would count its zeros"
            )
        self._model: Module | None = None
        self._sampler: GradientSampler | None = None
        self._inputs: Any = None
        self._keep: float | None = None
        self._originals: dict[str, int] = {}  # units before anything went
        self._removals = 0  # iterations that are over
        self._chosen: dict[str, Tensor] = {}  # key -> what is kept, while the others fade
        self._gate = 1.0
        self._zeroed = False  # whether what was chosen is 0 for good, without gates
        self._fading: Fading | None = None
        self._teaching: Teaching | None = None

    @property
    def sparsification_types(self) -> list[SparsificationTypes]:
        """Return what this is about: pruning, and with a ``kd_weight`` also distillation."""
        distils = [SparsificationTypes.distillation] if self.changes_loss else []
        return [SparsificationTypes.pruning, *distils]

    @property
    def changes_loss(self) -> bool:
        """Return whether a teacher has a part in the loss."""
        return float(self.kd_weight) > 0

    @property
    def resizes(self) -> bool:
        """Return whether parameters get smaller in the middle of training."""
        return bool(self.remove)

    def needs(self) -> dict[str, str]:
        """Return the extras of :meth:`initialize` that are asked for → what happens without."""
        return {"grad_sampler": "it refuses to prune"}

    def initialize(
        self, module: Module, epoch: float = 0, loggers: Loggers = None, **kwargs: Any
    ) -> None:
        """Take the sampler and see what can go; at an infinite epoch also remove it, in one shot.

        :param kwargs: ``grad_sampler``, and perhaps ``distillation_teacher``: a module or another
            callable, ``"self"``, or ``"disable"`` for none whatever the recipe says
        :raises RuntimeError: without a ``grad_sampler``, and in training by several processes
        :raises ValueError: for a model in which nothing of the stage can go
        """
        self._drop_gates()
        if self.resizes and is_distributed() and not is_one_shot(epoch):
            raise RuntimeError(
                f"{type(self).__name__} takes units out of the model while it trains, which "
                "several processes cannot do together: train in one, or stage 2 with remove: false"
            )
        given: Any = kwargs.get("grad_sampler")
        owner = type(self).__name__
        _, loss = parts_of(given, owner)
        keywords = dict(self.grad_sampler_kwargs or {})
        self._inputs = first_inputs(given, keywords, owner)
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
        self._originals, self._keep = self._whole(self._model, groups)
        self._removals, self._chosen, self._gate, self._zeroed = 0, {}, 1.0, False
        teacher, self._teaching = kwargs.get("distillation_teacher"), None
        if self.changes_loss and not (isinstance(teacher, str) and teacher == "disable"):
            weight, temperature = float(self.kd_weight), float(self.kd_temperature)
            self._teaching = Teaching(self._model, teacher, weight, temperature)
            loss = self._teaching.around(loss, self._model)
        own = {**given, **dict.fromkeys(LOSSES, loss)}
        self._sampler = GradientSampler(own, keywords, owner)
        _LOGGER.info("%s keeps %.6f of the units", owner, self._keep)
        if is_one_shot(epoch):
            for _ in range(int(self.pruning_iter)):
                self._choose()
                self._end_fading(None)

    def update(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Choose what fades away, at the start."""
        super().update(module, optimizer, epoch, steps_per_epoch)
        if self.start_pending(epoch, steps_per_epoch) and not self._chosen:
            self._choose()
        if self.end_pending(epoch, steps_per_epoch) and self._is_fading:
            self._end_fading(optimizer)

    def optimizer_pre_step(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Zero the gradients of what fades away, and what the optimizer remembers of it."""
        super().optimizer_pre_step(module, optimizer, epoch, steps_per_epoch)
        if self._fading is not None:
            self._fading.before_step(optimizer)

    def optimizer_post_step(
        self, module: Module, optimizer: Optimizer, epoch: float, steps_per_epoch: int
    ) -> None:
        """Put back what fades away, and lower its gates; remove it after the last step."""
        super().optimizer_post_step(module, optimizer, epoch, steps_per_epoch)
        if self._fading is not None:
            self._fading.after_step()
        if not self._is_fading:
            return
        following = round((epoch - max(float(self._start_epoch), 0.0)) * steps_per_epoch) + 1
        begin, end = (self._boundary(self._removals + i, steps_per_epoch) for i in (0, 1))
        if following < end:
            step = (following - begin, end - begin, steps_per_epoch)
            self._lower(gate_value(self.decreasing, *step, reference=bool(self.reference_schedule)))
            return
        self._end_fading(optimizer)
        if self._removals < self.pruning_iter:
            self._choose()

    def finalize(
        self, module: Module | None = None, reset_loggers: bool = True, **kwargs: Any
    ) -> None:
        """Take the gates away. What has not faded before the end of the run stays."""
        super().finalize(module, reset_loggers, **kwargs)
        if self._is_fading:
            _LOGGER.warning(
                "%s: the run is over before end_epoch, nothing more is removed", type(self).__name__
            )
        self._drop_gates()
        self._model = self._sampler = self._inputs = self._teaching = None

    def progress_state(self) -> dict[str, Any]:
        """Return how far this has come, with the sizes of the model and weights of its teacher."""
        state = super().progress_state()
        if self._removals and self._model is not None:
            state |= structure_of(self._model)
        if self._teaching is not None:
            state["teacher"] = self._teaching.state()
        return state

    def load_structure_state(self, module: Module, state: Mapping[str, Any]) -> None:
        """Give the model the sizes that it had; the weights of its layers bring their own.

        :raises ValueError: for the state of another model
        """
        super().load_structure_state(module, state)
        for key, size in state["originals"].items():
            if self._originals.get(key) != size:
                raise ValueError(
                    f"the state of {type(self).__name__} is of another model: it had {size} units "
                    f"in {key!r}, this one has {self._originals.get(key, 'none')}"
                )
        restore_structure(module, state)

    def load_progress_state(self, state: Mapping[str, Any]) -> None:
        """Restore how far this had come, with the gates of what was fading."""
        self._drop_gates()
        super().load_progress_state(state)
        if self._teaching is not None:
            self._teaching.load_state(state.get("teacher"))
        if self._chosen:
            self._fade(self._discovered(), self._gate)

    def loss_update(
        self,
        loss: Tensor,
        module: Module,
        optimizer: Optimizer,
        epoch: float,
        steps_per_epoch: int,
        **kwargs: Any,
    ) -> Tensor:
        """Return the loss, from the start on with the teacher's part in it.

        :param kwargs: ``student_inputs``, ``student_outputs`` and perhaps ``student_labels``
        :raises ValueError: with a ``kd_weight``, and without the first two
        """
        loss = super().loss_update(loss, module, optimizer, epoch, steps_per_epoch, **kwargs)
        if self._teaching is None or epoch < float(self._start_epoch):
            return loss
        inputs, outputs, labels = (
            kwargs.get(f"student_{what}") for what in ("inputs", "outputs", "labels")
        )
        return self._teaching.added_to(loss, module, inputs, outputs, labels)

    def would_keep(
        self, module: Module, example_inputs: Any = None
    ) -> tuple[dict[GatedUnits, Tensor], Mapping[str, str]]:
        """Return as many units of a model as will stay, whichever those are; changes nothing.

        :param example_inputs: of the model; None where it says itself what it takes
        :return: for each of the units bool ``[size]``, and those that cannot go with the reason
        :raises ValueError: for a model in which nothing of the stage can go
        """
        model = unwrap_module(module, root=True)
        groups = gated_units(model, example_inputs)
        wanted = self._wanted(groups)
        originals, keep = self._whole(model, groups)
        none = {one.key: torch.zeros(one.group.size) for one in wanted}
        kept = kept_units(wanted, none, originals, keep, least=int(self.min_keep))
        kinds = STAGES[int(self.stage)]
        skipped = {k: why for k, why in groups.skipped.items() if k.partition(" ")[0] in kinds}
        return {one: kept[one.key] for one in wanted}, skipped

    def _boundary(self, iteration: int, steps_per_epoch: int) -> int:
        """The step, counted from the start, at which an iteration begins."""
        lasts = float(self._end_epoch) - max(float(self._start_epoch), 0.0)
        steps = max(round(lasts * steps_per_epoch), 1)
        return round(steps * iteration / int(self.pruning_iter))

    def _wanted(self, groups: GatedGroups) -> tuple[GatedUnits, ...]:
        return wanted_units(groups, int(self.stage), type(self).__name__)

    def _whole(self, model: Module, groups: GatedGroups) -> tuple[dict[str, int], float]:
        """How many units there were before any went, by key, and the share of them to keep."""
        originals = {one.key: original_size(model, one.key, one.group.size) for one in groups.found}
        rate = float(self.compression_rate)
        return originals, self.keep_ratio or model_keep_ratio(model, groups, rate, originals)

    def _discovered(self) -> tuple[GatedUnits, ...]:
        assert self._model is not None
        return self._wanted(gated_units(self._model, self._inputs))

    def _choose(self) -> None:
        """Score all units, choose those that go, and freeze them."""
        assert self._model is not None and self._sampler is not None and self._keep is not None
        units = self._discovered()
        gates, batches = Gates(self._model, units), int(self.num_scoring_batches)
        teaching = self._teaching.in_scores(self._model) if self._teaching else nullcontext()
        try:
            with teaching:
                scores = unit_scores(self._model, gates, self._sampler, batches)
        finally:
            gates.detach()
        for key, keep in self._chosen.items():  # of an iteration before, and still there
            scores[key] = scores[key].masked_fill(~keep, -torch.inf)
        originals = {one.key: self._originals.get(one.key, one.group.size) for one in units}
        now = (self._removals + 1, int(self.pruning_iter))
        per_layer, least = self.ffn_ranking == "per_layer", int(self.min_keep)
        self._chosen = kept_units(units, scores, originals, self._keep, now, per_layer, least)
        self._zeroed = False
        self._fade(units, 1.0)

    @property
    def _is_fading(self) -> bool:
        return self._fading is not None and not self._zeroed

    def _fade(self, units: tuple[GatedUnits, ...], gate: float) -> None:
        assert self._model is not None
        self._fading = Fading(self._model, units, self._chosen, self._zeroed)
        if not self._zeroed:
            self._lower(gate)

    def _lower(self, value: float) -> None:
        assert self._fading is not None
        self._gate = value
        self._fading.lower(value)

    def _end_fading(self, optimizer: Any) -> None:
        """Take out what has faded, or set it to 0."""
        assert self._fading is not None
        self._removals += 1
        if not self.remove:
            self._fading.zero()
            self._zeroed = True
            return
        removed = self._fading.remove(optimizer)
        self._fading, self._chosen, self._gate = None, {}, 1.0
        _LOGGER.info("%s removed %d parameters", type(self).__name__, removed)

    def _drop_gates(self) -> None:
        if self._fading is not None:
            self._fading.detach()
        self._fading = None
