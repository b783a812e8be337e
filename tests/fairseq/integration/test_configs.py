"""The files of arguments, read by fairseq's own parser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
CONFIGS = sorted(path.stem for path in (ROOT / "configs/fairseq").glob("*.args"))


@pytest.mark.filterwarnings("ignore")  # of hydra's old ways, which fairseq takes
@pytest.mark.parametrize("name", CONFIGS)
def test_fairseq_takes_it(parsed: Callable[..., Any], name: str) -> None:
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    args = parsed(name, "--max-epoch", "3")
    configuration = convert_namespace_to_omegaconf(args)
    assert configuration.optimization.max_epoch == 3
    assert configuration.lr_scheduler._name == "inverse_sqrt"
    # what a word of the file is not known would have ended the process; none is left over
    assert args.label_smoothing == 0.1 and args.criterion == "label_smoothed_cross_entropy"


def test_the_big_one_trains_as_the_reference(parsed: Callable[..., Any]) -> None:
    args = parsed("wmt14_en_de_big")
    assert (args.encoder_embed_dim, args.encoder_ffn_embed_dim) == (1024, 4096)
    assert (args.encoder_attention_heads, args.encoder_normalize_before) == (16, True)
    assert (args.lr, args.warmup_updates, args.warmup_init_lr) == ([8.46e-4], 4000, 0.0)
    assert (args.adam_betas, args.adam_eps, args.max_tokens) == ("(0.9,0.997)", 1e-9, 5120)
    assert (args.dropout, args.clip_norm, args.weight_decay) == (0.1, 0.0, 0.0)
    assert args.share_all_embeddings and args.fp16
