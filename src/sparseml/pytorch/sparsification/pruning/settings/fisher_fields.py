"""What modifiers that estimate Fisher matrices are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sparseml.pytorch.functional.second_order.blocks import LAYOUTS
from sparseml.pytorch.functional.second_order.linalg import require_damp
from sparseml.pytorch.sparsification.fields import (
    as_given,
    as_number,
    between,
    declared_fields,
    field,
    new_field,
    one_of,
    plainly,
)
from sparseml.pytorch.sparsification.pruning.methods.fisher_passes import FisherSettings
from sparseml.pytorch.sparsification.pruning.methods.obs import BlockRule
from sparseml.pytorch.sparsification.pruning.settings.effort import effort_field
from sparseml.pytorch.sparsification.pruning.settings.fields import (
    MaskType,
    as_count,
    as_optional_fraction,
    as_optional_keywords,
    optional,
)
from sparseml.pytorch.sparsification.pruning.settings.memory import as_memory

AUTO = "auto"
"""In place of a dampening: try several, and take the one that is best on batches kept out."""


def as_given_damp(name: str, value: Any) -> float:
    """``value``, maybe a text such as ``1e-7``, as a finite dampening above 0; or a ValueError."""
    number = as_number(name, value)
    try:
        require_damp(float(number))
    except ValueError:
        raise ValueError(f"{name} must be a finite number above 0, found {value!r}") from None
    return number


def as_damp(name: str, value: Any) -> float | str:
    """As :func:`as_given_damp`, or the text ``auto``."""
    if isinstance(value, str) and value.strip() == AUTO:
        return AUTO
    try:
        return as_given_damp(name, value)
    except ValueError as error:
        raise ValueError(f"{error}, or {AUTO}" if isinstance(value, str) else error) from None


as_relative_damp = optional(plainly(as_given_damp))


def dampening(fields: Any) -> dict[str, Any]:
    """Return ``damp``, ``relative`` and ``auto`` as the fields of a modifier say.

    :raises ValueError: for ``relative_damp`` beside ``damp: auto``
    """
    auto, relative = fields.damp == AUTO, getattr(fields, "relative_damp", None)
    if auto and relative is not None:
        raise ValueError(
            f"{type(fields).__name__} has damp: auto and relative_damp: {relative:g}; leave one out"
        )
    number = relative if relative is not None else 1.0 if auto else fields.damp
    return {"damp": float(number), "relative": auto or relative is not None, "auto": auto}


def _device(name: str, value: Any) -> str:
    try:
        return str(torch.device(value))
    except (RuntimeError, TypeError):
        raise ValueError(f"{name} must name a device, as cpu or cuda:0, found {value!r}") from None


as_device = optional(_device)
as_optional_count = optional(as_count)
as_optional_text = optional(lambda name, value: str(value))
as_layout = one_of(LAYOUTS)
as_weight_update = one_of(("simultaneous", "joint"))
as_samples = one_of(("batch", "sample", "auto"))
as_gradients_of = one_of(("loss", "outputs"))
as_fisher_dtype = one_of(("float32", "float64"))


def block_rule(fields: Any, eliminate: bool) -> BlockRule:
    """Return what the fields of a modifier say to do with the blocks of a Fisher matrix."""
    layout, update = fields.fisher_block_layout, fields.weight_update
    return BlockRule(fields.fisher_block_size, layout, eliminate, update)


def fisher_settings(fields: Any) -> FisherSettings:
    """Return how the fields of a modifier say that Fisher matrices are estimated."""
    device = fields.fisher_inv_device
    return FisherSettings(
        num_grads=fields.num_grads,
        **dampening(fields),
        dtype=getattr(torch, fields.fisher_dtype),
        device=None if device is None else torch.device(device),
        memory=getattr(fields, "fisher_memory", None),
        folder=getattr(fields, "traces_backup_dir", None),
        prior=getattr(fields, "input_prior", 0.0),
    )


@declared_fields(synonyms={"update": "weight_update"})
class FisherFields:
    """What OBS and CAP are given, after the fields of all gradual modifiers.

    :param global_sparsity: rank the weights of all parameters together
    :param mask_type: what is pruned together
    :param num_grads: gradients to sample for each estimate, on all ranks together
    :param damp: dampening, absolute; or ``auto``: several, over decades relative to the mean
        diagonal of the Fisher matrix, are tried on the model, and the one is taken whose loss is
        lowest on batches that no gradient comes from; of classifiers, with gradients of the
        outputs, the one whose probabilities of classes are closest to those of before. Data that
        end too soon are gone through again without these; that leaves nothing of too few data,
        which is an error, as nothing would tell a good choice, and it cannot be done where a loader
        shuffles, which is a warning
    :param fisher_block_size: weights per block
    :param grad_sampler_kwargs: for the sampler's ``data_loader_builder``
    :param num_recomputations: steps for each update, each with an estimate of its own
    :param recomputation_inter_func: the curve between them, ``linear`` or ``cubic``
    :param fisher_inv_device: where Fisher matrices live; None: with each weight
    :param weight_update: ``simultaneous``, as SparseML 1.x adds up the updates of single weights,
        or ``joint``, the best one for all that go
    :param fisher_block_layout: ``padded``, ``divisor`` (blocks grow to a divisor of the weight's
        size) or ``row`` (no block straddles two outputs)
    :param fisher_samples: ``batch``, one gradient per batch; ``sample``, one per sample; or
        ``auto``, one per sample where the layers allow it
    :param fisher_memory: how much memory each process may take for Fisher matrices, as ``4GB``;
        they are estimated in as many groups as it takes. None: all at once
    :param fisher_dtype: ``float32`` or ``float64``
    :param input_prior: how much what the layers' inputs tell of a Fisher block counts, against 1
        for the gradients; 1 is good where these are fewer than some thousands, 3 with N:M masks.
        For linear layers and convolutions. Takes forward passes of an eighth as many batches
    :param gradients_of: ``loss``, or ``outputs``: of the sum of the model's outputs with random
        signs, which takes no labels (``damp: auto`` does). Better in one shot where the network
        fits its training data, as gradients of the loss vanish there; ``damp`` is another number
        for it: give ``auto``, or ``relative_damp``
    :param relative_damp: dampening relative to the mean diagonal of the Fisher matrix, in place of
        ``damp``
    :param layer_floor: with global_sparsity, every parameter keeps this share of what it would keep
        if all were equally sparse, so that none is emptied; the weights that are pruned in all stay
        as many
    :param effort: ``fast``, ``balanced`` or ``best``: sets num_grads, fisher_samples, gradients_of,
        fisher_block_size, num_recomputations, damp and layer_floor, whatever is said of them beside
    :param update: another name for ``weight_update``
    """

    global_sparsity: bool = True
    mask_type: MaskType = field(as_given, default="unstructured")
    num_grads: int = field(as_count, default=1024)
    damp: float | str = field(plainly(as_damp), default=1e-7)
    fisher_block_size: int = field(as_count, default=1)
    grad_sampler_kwargs: Mapping[str, Any] | None = field(as_optional_keywords, default=None)
    num_recomputations: int = field(as_count, default=1)
    recomputation_inter_func: str = new_field(one_of(("linear", "cubic")), default="linear")
    fisher_inv_device: str | None = field(as_device, default=None)
    weight_update: str = new_field(as_weight_update, default="simultaneous")
    fisher_block_layout: str = new_field(as_layout, default="padded")
    fisher_samples: str = new_field(as_samples, default="batch")
    fisher_memory: str | None = field(as_memory, default=None)
    fisher_dtype: str = new_field(as_fisher_dtype, default="float32")
    input_prior: float = new_field(plainly(between(0.0)), default=0.0)
    gradients_of: str = new_field(as_gradients_of, default="loss")
    max_sparsity_per_param: float | None = None
    min_sparsity_per_param: float | None = None
    relative_damp: float | None = new_field(as_relative_damp, default=None)
    layer_floor: float | None = new_field(as_optional_fraction, default=None)
    effort: str | None = effort_field()
