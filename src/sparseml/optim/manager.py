"""What managers of every framework know about the modifiers of a recipe."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Generator, Mapping, Sequence
from inspect import signature
from typing import Any, TypeVar

from sparseml.optim.base_modifier import BaseModifier
from sparseml.optim.language.recipe_text import metadata_lines, modifier_lines, recipe_lines
from sparseml.optim.ordering import modifier_key, stage_key
from sparseml.optim.props import BaseObject
from sparseml.optim.scheduled import BaseScheduled
from sparseml.optim.timeline import TimelineMixin
from sparseml.utils.atomic import atomic_path
from sparseml.utils.constants import RECIPE_METADATA_KEY
from sparseml.utils.paths import clean_path
from sparseml.utils.text import few, shown

ModifierList = list[BaseModifier]
Stages = dict[str, ModifierList]
ManagerT = TypeVar("ManagerT", bound="BaseManager")
STRUCTURED_STAGE = "structured_initialize_stage"
SCHEDULE = {
    "start_epoch",
    "end_epoch",
    "update_frequency",
    "start_step",
    "end_step",
    "update_steps",
}
"""Fields that say when a modifier acts."""


def _sorted(modifiers: Any) -> ModifierList | OrderedDict[str, ModifierList]:
    if isinstance(modifiers, Mapping):
        stages = {stage: sorted(members, key=modifier_key) for stage, members in modifiers.items()}
        return OrderedDict(sorted(stages.items(), key=lambda item: stage_key(item[1])))
    if isinstance(modifiers, list):
        return sorted(modifiers, key=modifier_key)
    raise ValueError(
        "modifiers must be a list, or a dict of stage names to lists, "
        f"found {type(modifiers).__name__}"
    )


def with_added(modifiers: Any, more: Any) -> Any:
    """Return ``modifiers`` and ``more``, which without stages of its own joins the last stage.

    :raises ValueError: for a stage that the modifiers do not have
    """
    if not isinstance(modifiers, Mapping):
        if isinstance(more, Mapping):
            stages = sorted(more)
            raise ValueError(
                f"add_modifiers is by stage ({few(stages)}), but the recipe has no stages"
            )
        return [*modifiers, *more]
    if not isinstance(more, Mapping):
        more = {list(modifiers)[-1]: more}
    unknown = sorted(set(more) - set(modifiers))
    if unknown:
        known = list(modifiers)
        raise ValueError(
            f"add_modifiers is for the stages {few(unknown)}, the recipe has {few(known)}"
        )
    return {stage: [*members, *more.get(stage, [])] for stage, members in modifiers.items()}


class BaseManager(TimelineMixin, BaseObject):
    """The modifiers of a recipe, in the order in which they act.

    :param modifiers: the modifiers, or a dict with those of each stage
    :param metadata: what is known about the recipe, ``{"__metadata__": entry}`` or an entry for
        each stage
    :raises ValueError: if ``modifiers`` is neither list nor dict
    :raises TypeError: if JSON cannot express the metadata
    """

    def __init__(
        self,
        modifiers: ModifierList | Mapping[str, ModifierList],
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._modifiers = _sorted(modifiers)
        self._metadata = metadata or None
        if self._metadata is not None:
            json.dumps(self._metadata)

    def __str__(self) -> str:
        return "\n".join(self.to_string_lines())

    def __repr__(self) -> str:
        members = (
            f"  {'' if stage is None else f'{stage}: '}{_brief(modifier)}\n"
            for stage, modifier in self.iter_staged_modifiers()
        )
        return f"{type(self).__name__}(\n{''.join(members)})"

    def __eq__(self, compare: object) -> bool:
        return str(self) == str(compare)

    __hash__ = None  # type: ignore[assignment]

    @classmethod
    def from_yaml(cls: type[ManagerT], file_path: Any, **kwargs: Any) -> ManagerT:
        """Return a manager for a recipe, given by its path or text."""
        raise NotImplementedError(f"{cls.__name__} belongs to no framework and reads no recipes")

    @classmethod
    def compose_staged(
        cls: type[ManagerT],
        base_recipe: str | BaseManager,
        additional_recipe: str | BaseManager,
        keep_original_epochs: bool = False,
        save_path: str | os.PathLike[str] | None = None,
    ) -> ManagerT:
        """Return one recipe that does one recipe's work and then another's, as stages.

        Neither recipe is changed; a manager is read anew from its text.

        :param base_recipe: text, path or manager of what comes first
        :param additional_recipe: text, path or manager of what follows
        :param keep_original_epochs: do not shift the additional recipe to the base's end
        :param save_path: where to write the result, if anywhere
        :raises ValueError: if a stage name occurs in both, or a schedule to shift is in steps
        """
        base, additional = (
            cls.from_yaml(str(recipe) if isinstance(recipe, BaseManager) else recipe)
            for recipe in (base_recipe, additional_recipe)
        )
        stages, metadata = _composed(base, additional, keep_original_epochs)
        manager = cls(stages, metadata)
        if save_path:
            manager.save(save_path)
        return manager

    @property
    def modifiers(self) -> ModifierList | OrderedDict[str, ModifierList]:
        """The modifiers in order, or those of each stage, stages in order."""
        return self._modifiers

    @property
    def metadata(self) -> dict[str, Any] | None:
        """What is known about the recipe."""
        return self._metadata

    @metadata.setter
    def metadata(self, value: dict[str, Any] | None) -> None:
        self._metadata = value or None

    def num_stages(self) -> int:
        """The number of stages; 1 for a recipe without."""
        return len(self._modifiers) if isinstance(self._modifiers, Mapping) else 1

    def iter_modifiers(self) -> Generator[Any, None, None]:
        """Yield all modifiers, stage by stage."""
        for _, modifier in self.iter_staged_modifiers():
            yield modifier

    def iter_staged_modifiers(self) -> Generator[tuple[str | None, Any], None, None]:
        """Yield all modifiers, each with the name of its stage; None in a recipe without stages."""
        own: Any = self._modifiers
        for stage, members in (own if isinstance(own, Mapping) else {None: own}).items():
            for modifier in members:
                yield stage, modifier

    def resolve_steps(self, steps_per_epoch: int) -> None:
        """Compute the epochs of all schedules that are given in steps, and sort by them.

        :param steps_per_epoch: optimizer steps in an epoch
        :raises ValueError: if a schedule does not hold with it
        """
        scheduled = [m for m in self.iter_modifiers() if isinstance(m, BaseScheduled)]
        for modifier in scheduled:
            modifier.resolve_steps(steps_per_epoch)
        if any(modifier.has_steps for modifier in scheduled):
            self._modifiers = _sorted(self._modifiers)

    def save(self, file_path: str | os.PathLike[str], include_metadata: bool = True) -> None:
        """Write the recipe to a file; folders above it are created."""
        self._write(file_path, self.to_string_lines(include_metadata))

    @staticmethod
    def _write(file_path: str | os.PathLike[str], lines: Sequence[str]) -> None:
        with atomic_path(clean_path(file_path)) as part:
            part.write_text("\n".join(lines), encoding="utf-8")

    def finalize_and_save_structured_modifiers(self, file_path: str | os.PathLike[str]) -> None:
        """Write a recipe of only those modifiers that change the model's structure.

        They act at once in it, so that it restores the structure of a model made from scratch
        before trained weights are loaded. Modifiers still in use are finalized first.

        :param file_path: the file; folders above it are created
        """
        if getattr(self, "initialized", False):
            self.finalize()  # type: ignore[attr-defined]
        stages = {STRUCTURED_STAGE: [_immediate(m) for m in self.structured_modifiers]}
        self._write(file_path, recipe_lines(_sorted(stages), None))

    def to_string_lines(self, include_metadata: bool = True) -> list[str]:
        """Return the recipe as lines; the last one is empty."""
        return recipe_lines(self._modifiers, self._metadata if include_metadata else None)

    def metadata_to_string_lines(self, stage: str | None = None) -> list[str]:
        """Return the metadata of the recipe or of one stage as lines."""
        return metadata_lines(self._metadata, stage)

    def modifiers_to_string_lines(
        self, modifiers: ModifierList | Mapping[str, ModifierList]
    ) -> list[str]:
        """Return modifiers as lines, without metadata."""
        # the version and an empty line come first
        return recipe_lines(modifiers, None)[2:]

    def modifiers_list_to_string_lines(self, modifiers: ModifierList) -> list[str]:
        """Return the items of one group as lines."""
        return modifier_lines(modifiers)


def _composed(
    base: BaseManager, additional: BaseManager, keep_original_epochs: bool
) -> tuple[Stages, dict[str, Any]]:
    """Return the stages and metadata of what ``compose_staged`` makes; change both's modifiers.

    Endless modifiers of the base end where the base ends, from where the additional ones start.
    """
    names = ("stage_0", "stage_1")
    if isinstance(base.modifiers, Mapping):
        names = ("", f"stage_{len(base.modifiers) + 1}")
    elif isinstance(additional.modifiers, Mapping):
        names = (f"pre_{next(iter(additional.modifiers))}", "")
    (first, first_metadata), (second, second_metadata) = map(_staged, (base, additional), names)
    shared = sorted(set(first) & set(second))
    if shared:
        raise ValueError(f"both recipes have stages named {shared}; rename those of one of them")
    if not keep_original_epochs:
        epochs = max(base.max_epochs, 0)
        for modifier in _scheduled(first):
            if modifier.end_epoch == -1:
                # Also of modifiers that allow no end but -1: from here on they belong to a stage.
                # Recipe texts of SparseML 1.x show this end as the whole number that it is.
                modifier._end_epoch = modifier._init_end = epochs
        for modifier in _scheduled(second):
            modifier.advance_epochs(ref_start_epoch=epochs)
    metadata = {**first_metadata, **second_metadata}
    return {**first, **second}, metadata if base.metadata or additional.metadata else {}


def _staged(recipe: BaseManager, name: str) -> tuple[Stages, dict[str, Any]]:
    """Return stages and metadata of a recipe, which is one stage of that name if it has none."""
    metadata = dict(recipe.metadata or {})
    if isinstance(recipe.modifiers, Mapping):
        return dict(recipe.modifiers), metadata
    return {name: recipe.modifiers}, {name: metadata.get(RECIPE_METADATA_KEY)}


def _scheduled(stages: Stages) -> list[BaseScheduled]:
    return [m for stage in stages.values() for m in stage if isinstance(m, BaseScheduled)]


def span_of(modifier: Any) -> str:
    """Return where a modifier starts and ends, as far as it says: "epoch 1..4", "step 9..30"."""
    bounds = []
    for bound in ("start", "end"):
        step, epoch = (getattr(modifier, f"{bound}_{unit}", None) for unit in ("step", "epoch"))
        if step is not None:
            bounds.append(f"step {step}")
        else:
            bounds.append("" if epoch in (None, -1) else f"epoch {epoch:g}")
    start, end = bounds
    unit = start.partition(" ")[0]
    return f"{start}..{end.removeprefix(f'{unit} ')}" if start or end else ""


def _brief(modifier: BaseModifier) -> str:
    """Return a modifier in a line: what it says that is not the default, and when it acts."""
    given, defaults = modifier.props(only_serializable=True), signature(type(modifier)).parameters
    fields = [
        f"{name}={shown(given[name])}"
        for name, parameter in defaults.items()
        if name in given and name not in SCHEDULE and given[name] not in (parameter.default, [], {})
    ]
    span = span_of(modifier)
    return f"{type(modifier).__name__}({', '.join(fields)}){f', {span}' if span else ''}"


def _immediate(modifier: BaseModifier) -> BaseModifier:
    fields = modifier.props(only_serializable=True)
    if isinstance(modifier, BaseScheduled):
        for field in ("start_step", "end_step"):
            fields.pop(field, None)
        fields["start_epoch"] = -1.0
        fields["end_epoch"] = 0.0 if modifier._end_comparator == 1 else -1.0
    return type(modifier)(**fields)
