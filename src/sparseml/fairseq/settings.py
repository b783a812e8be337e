"""The settings of a one-shot run of models of fairseq."""

from __future__ import annotations

from dataclasses import dataclass, field

from sparseml.run.settings.flags import Group, Settings, flag, harmless
from sparseml.run.settings.groups import RunSettings, SweepSettings


@dataclass
class ModelSettings(Group):
    """The checkpoint, and code of the user's own that it needs."""

    TITLE = "model"

    model: str = flag(
        help="fairseq: and a checkpoint, as fairseq-train writes it", metavar="fairseq:FILE.pt"
    )
    user_dir: str | None = flag(
        None, "code of your own with tasks or models, as of fairseq-train", metavar="DIR"
    )


@dataclass
class CorpusSettings(Group):
    """Where the binarised corpus is, and what of it is used."""

    TITLE = "data"
    DESCRIPTION = "as fairseq-preprocess writes it"

    data_dir: str = harmless(
        help="folder with dictionaries and splits; also without the flag's name",
        also=("--data",),
        metavar="DATA_BIN",
        alone=True,
    )
    source_lang: str | None = flag(None, "[the checkpoint's]", also=("-s",), metavar="LANG")
    target_lang: str | None = flag(None, "likewise", also=("-t",), metavar="LANG")
    train_subset: str = flag("train", "to sample gradients on", metavar="SPLIT")
    valid_subset: str = harmless("valid", "to evaluate on", also=("--gen-subset",), metavar="SPLIT")
    max_tokens: int = flag(4000, "of a batch, at most, with padding", metavar="N", at_least=1)
    val_batch_size: int | None = harmless(
        None,
        "sentences of a batch, at most [as many as tokens]",
        also=("-vb", "--validation-batch-size"),
        at_least=1,
    )
    max_train_samples: int | None = flag(None, "use only the first", metavar="N", at_least=1)
    max_val_samples: int | None = harmless(None, "likewise", metavar="N", at_least=1)


@dataclass
class TranslatingSettings(Group):
    """How translations are searched for, and made into text to compare."""

    TITLE = "BLEU"
    DESCRIPTION = "of a translation model, beside its loss; by sacrebleu"

    bleu: bool = harmless(False, "translate --valid-subset by beam search, which takes a while")
    beam: int = harmless(5, "hypotheses at a time", at_least=1)
    lenpen: float = harmless(1.0, "above 1 favours longer, below 1 shorter translations")
    max_len_a: float = harmless(0.0, "a translation has at most A * source + B tokens", at_least=0)
    max_len_b: int = harmless(200, "likewise", at_least=1)
    remove_bpe: str = harmless(
        "auto",
        "what joins pieces to words; auto tells by the dictionary",
        also=("--post-process", "--bpe"),
        choices=("auto", "sentencepiece", "subword_nmt", "none"),
    )
    sacrebleu_tokenizer: str = harmless(
        "13a", "of sacrebleu", choices=("13a", "intl", "zh", "char", "none")
    )


@dataclass
class SamplerSettings(Group):
    """Batches that gradients are sampled on."""

    TITLE = "gradient sampler"
    DESCRIPTION = "for recipes whose pruners need gradients; by the checkpoint's criterion"

    gs_batch_size: int = flag(
        16,
        "sentences, or blocks of a language model, a gradient, at most",
        also=("-gb", "--grad-sampler-batch-size"),
        metavar="N",
        at_least=1,
    )
    gs_distributed: bool = flag(False, "each process samples its own share")


@dataclass(kw_only=True)
class OneShotSettings(Settings):
    """All settings of a one-shot run."""

    DEFAULTS = {"output": "./output/one-shot"}

    model: ModelSettings
    data: CorpusSettings
    translating: TranslatingSettings = field(default_factory=TranslatingSettings)
    sampler: SamplerSettings = field(default_factory=SamplerSettings)
    run: RunSettings
    sweep: SweepSettings = field(default_factory=SweepSettings)
