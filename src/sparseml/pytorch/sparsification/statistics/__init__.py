"""Running statistics of batch norms, which belong to the weights before pruning."""

from sparseml.pytorch.sparsification.statistics.applying import (
    Pairs,
    TunedAround,
    loss_of_logits,
)
from sparseml.pytorch.sparsification.statistics.judging import (
    IMAGES,
    Judged,
    StatisticsTuner,
    Unfit,
    norms_to_tune,
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
    "IMAGES",
    "Judged",
    "Pairs",
    "StatisticsTuner",
    "TunedAround",
    "Unfit",
    "averaged",
    "loss_of_logits",
    "measure_statistics",
    "norms_to_tune",
    "statistics_holders",
    "statistics_of",
    "tunable_norms",
    "write_statistics",
]
