"""Pruned blocks of a model, the plan that names them, and the model that a plan is of."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import Module

from sparseml.pytorch.functional.composing.targets import hash_of, tensor_hash
from sparseml.pytorch.utils.saving.files import CheckpointError
from sparseml.utils.atomic import atomic_path
from sparseml.utils.plain import json_of
from sparseml.utils.text import did_you_mean, few, one_line

SCHEMA = 1


class DigestError(CheckpointError):
    """A file or a model that is not the one that a plan or a ledger tells of."""


@dataclass(frozen=True)
class Block:
    """A part of a model, pruned in one way.

    :param block_id: hash of modules, origin and spec
    :param modules: one module, or several that hand on one tensor from one to the next
    :param origin: hash of the tensors that it has in the origin
    :param spec: how it is pruned: ``method``, ``granularity``, ``criterion``, and as ``target`` the
        number of weights (or heads) that are kept of each tensor
    :param mask_id: hash of masks, and of the weights that a method gives anew
    :param cost_estimate: of a forward pass, in multiply-adds of a token
    :param used_by: names of configurations
    """

    block_id: str
    modules: tuple[str, ...]
    origin: str
    spec: Mapping[str, Any]
    mask_id: str
    cost_estimate: float = 0.0
    used_by: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Return the modules in few words."""
        first, last = self.modules[0], self.modules[-1]
        return first if first == last else f"{first} to {last}"


def block_id(modules: Sequence[str], origin: str, spec: Mapping[str, Any]) -> str:
    """Return the hash by which a block is known."""
    return hash_of({"modules": list(modules), "origin": origin, "spec": dict(spec)})


def block_tensors(model: Module, modules: Iterable[str]) -> dict[str, Tensor]:
    """Return the parameters and buffers of modules by their full names in the model, detached."""
    found = {}
    for name in modules:
        for key, value in model.get_submodule(name).state_dict().items():
            found[f"{name}.{key}" if name else key] = value
    return found


def model_hashes(model: Module) -> dict[str, str]:
    """Return a hash of each tensor in the state of a model, by name."""
    return {name: tensor_hash(value) for name, value in model.state_dict().items()}


@dataclass(frozen=True)
class Plan:
    """Which blocks there are, and which of them each configuration is put together from.

    :param base: ``model`` and ``weights``, where the origin is from, ``digest`` and ``tensors``,
        the hashes of what it has
    :param configurations: ``name``, ``blocks`` (ids), ``residual`` (modules that are left to the
        fine-tuning), ``kept_params``, ``flops``, and how it was described: ``recipe`` or ``rates``
    :param reuse: ``requests``, ``distinct`` and ``factor``
    """

    base: Mapping[str, Any]
    blocks: tuple[Block, ...]
    configurations: tuple[Mapping[str, Any], ...]
    reuse: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Return the names of the configurations."""
        return [str(one["name"]) for one in self.configurations]

    def configuration(self, name: str) -> Mapping[str, Any]:
        """Return a configuration; a ValueError for a name that there is not."""
        for one in self.configurations:
            if one["name"] == name:
                return one
        raise ValueError(
            f"the plan has no configuration {name!r}, only {few(self.names, 8)}"
            f"{did_you_mean(name, self.names)}"
        )

    def blocks_of(self, name: str) -> list[Block]:
        """Return the blocks of a configuration, in the model's order."""
        wanted = set(self.configuration(name)["blocks"])
        return [block for block in self.blocks if block.block_id in wanted]

    def check_model(self, model: Module, also: Mapping[str, str] | None = None) -> None:
        """Check that a model is the one that the plan is of.

        :param also: hashes of tensors that may stand in the place of the origin's
        :raises DigestError: naming the first tensors that differ
        """
        found, known, other = model_hashes(model), self.base["tensors"], also or {}
        fits = {n for n, h in found.items() if h in (known.get(n), other.get(n))}
        off = sorted({*found, *known} - fits)
        if off:
            raise DigestError(
                f"the plan was made for another model: {few(off)} differ from "
                f"those of {self.base['model']}, or are in one of both only"
            )

    def content(self) -> dict[str, Any]:
        """Return the plan as plain data, with its own ``digest``."""
        plain = {
            "schema_version": SCHEMA,
            "base": dict(self.base),
            "settings": dict(self.settings),
            "blocks": [asdict(block) for block in self.blocks],
            "configurations": [dict(one) for one in self.configurations],
            "reuse": dict(self.reuse),
        }
        plain = json.loads(json.dumps(plain))  # as it is read back
        return {**plain, "digest": hash_of(plain)}

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as JSON, atomically."""
        with atomic_path(path) as part:
            part.write_text(json.dumps(self.content(), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Plan:
        """Read a plan.

        :raises FileNotFoundError: if there is none
        :raises CheckpointError: for what is no plan, or one of another version
        :raises DigestError: for a plan that was edited
        """
        file = Path(path)
        if not file.exists():
            raise FileNotFoundError(f"no such plan: {file}")
        try:
            content = json_of(file.read_text(encoding="utf-8"))
            digest, version = content.pop("digest"), content["schema_version"]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(f"{file} is not a plan of compose ({one_line(error)})") from error
        if version != SCHEMA:
            raise CheckpointError(f"{file} has schema_version {version}, allowed is {SCHEMA}")
        if hash_of(content) != digest:
            raise DigestError(f"{file} was edited: its digest does not fit; make the plan anew")
        blocks = [
            Block(**{**one, "modules": tuple(one["modules"]), "used_by": tuple(one["used_by"])})
            for one in content["blocks"]
        ]
        configurations = tuple(content["configurations"])
        rest = content["reuse"], content["settings"]
        return cls(content["base"], tuple(blocks), configurations, *rest)
