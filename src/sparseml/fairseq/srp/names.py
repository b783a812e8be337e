"""Models, task, criterion and optimizer under the names of SRP; importing this registers them.

All are fairseq's own: what SRP does to a model is the recipe's, see
:mod:`sparseml.fairseq.srp.flags`.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from fairseq.criterions import register_criterion
from fairseq.criterions.label_smoothed_cross_entropy import (
    LabelSmoothedCrossEntropyCriterion,
    LabelSmoothedCrossEntropyCriterionConfig,
)
from fairseq.models import register_model, register_model_architecture
from fairseq.models.transformer import (
    TransformerModel,
    base_architecture,
    transformer_iwslt_de_en,
    transformer_vaswani_wmt_en_de_big,
)
from fairseq.optim import register_optimizer
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask

from sparseml.fairseq.srp.flags import add_flags


@register_model("srp")
class SRPTransformer(TransformerModel):
    """fairseq's Transformer, with the flags of SRP."""

    @classmethod
    def add_args(cls, parser: argparse.ArgumentParser) -> None:
        """Add fairseq's flags, and those of SRP."""
        super().add_args(parser)
        add_flags(parser)


def _small(args: Any) -> None:
    args.encoder_layers = getattr(args, "encoder_layers", 3)
    args.decoder_layers = getattr(args, "decoder_layers", 3)
    transformer_iwslt_de_en(args)


for _name, _sizes in {
    "srp": base_architecture,
    "srp_wmt_en_de": base_architecture,
    "srp_iwslt_de_en": transformer_iwslt_de_en,
    "srp_iwslt_de_en_small": _small,
    "srp_vaswani_wmt_en_de_big": transformer_vaswani_wmt_en_de_big,
}.items():
    register_model_architecture("srp", _name)(_sizes)


@dataclass
class SRPTranslationConfig(TranslationConfig):
    """The settings of a translation, which are fairseq's."""


@register_task("SRPtranslation", dataclass=SRPTranslationConfig)
class SRPTranslationTask(TranslationTask):
    """fairseq's translation."""


@dataclass
class SRPCriterionConfig(LabelSmoothedCrossEntropyCriterionConfig):
    """The settings of the criterion, which are those of label smoothing."""


@register_criterion("srp", dataclass=SRPCriterionConfig)
class SRPCriterion(LabelSmoothedCrossEntropyCriterion):
    """Label-smoothed cross entropy; a teacher's part in the loss is the recipe's."""


@dataclass
class SRPAdamConfig(FairseqAdamConfig):
    """The settings of the optimizer, which are Adam's."""


@register_optimizer("srp_adam", dataclass=SRPAdamConfig)
class SRPAdam(FairseqAdam):
    """fairseq's Adam; freezing and removing are the recipe's, whatever the optimizer."""
