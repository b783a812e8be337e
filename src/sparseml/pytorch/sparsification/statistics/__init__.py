"""Running statistics of batch norms, which belong to the weights before pruning."""

from sparseml.pytorch.sparsification.statistics.applying import (
    Pairs,
    TunedAround,
    loss_of_logits,
)
from sparseml.pytorch.sparsification.statistics.judging import (
    UNLIKE,
    Judged,
    StatisticsTuner,
    Unfit,
    norms_to_tune,
    slight,
)
from sparseml.pytorch.sparsification.statistics.measuring import (
    averaged,
    measure_statistics,
    statistics_holders,
    statistics_of,
    tunable_norms,
    write_statistics,
)

__all__ = [
    "UNLIKE",
    "Judged",
    "Pairs",
    "StatisticsTuner",
    "TunedAround",
    "Unfit",
    "averaged",
    "loss_of_logits",
    "measure_statistics",
    "norms_to_tune",
    "slight",
    "statistics_holders",
    "statistics_of",
    "tunable_norms",
    "write_statistics",
]
