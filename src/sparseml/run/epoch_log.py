"""What a training run tells after each epoch: a line, a row of a table, and entries in logs."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparseml.pytorch.utils import ModuleSparsificationInfo
from sparseml.pytorch.utils.logger import BaseLogger, WANDBLogger
from sparseml.run.files import atomic_text
from sparseml.run.progress import say
from sparseml.run.service_logs import log_histograms
from sparseml.run.session import Found, Session, Training
from sparseml.run.settings.groups import CheckpointSettings

__all__ = ["EpochLog"]


@dataclass
class EpochLog:
    """The epochs so far, and where they are told.

    :param rows: one for each epoch
    """

    session: Session
    training: Training
    settings: CheckpointSettings
    folder: Path
    loggers: list[BaseLogger]
    rows: list[dict[str, Any]] = field(default_factory=list)

    def row(self, epoch: int, trained: Found, found: Found) -> dict[str, Any]:
        """Add a row.

        :param trained: by :meth:`~sparseml.run.session.Training.epoch`
        :param found: by evaluating the model then
        """
        info = ModuleSparsificationInfo(self.session.model)
        row = {
            "epoch": epoch,
            "train/loss": trained["loss"],
            **{f"eval/{key}": value for key, value in found.items()},
            **{key: value for key, value in trained.items() if key != "loss"},
            "total": info.params_total,
            "sparse": info.params_sparse,
            "sparsity_percent": info.params_sparse_percent,
            "prunable": info.params_prunable_total,
            "prunable_sparse": info.params_prunable_sparse,
            "prunable_sparsity_percent": info.params_prunable_sparse_percent,
        }
        self.rows.append(row)
        return row

    def last_found(self) -> Found:
        """Return what evaluating the model after the last epoch has found."""
        return {
            metric.name: self.rows[-1][f"eval/{metric.name}"] for metric in self.session.metrics
        }

    def tell(self, row: dict[str, Any], changed: bool) -> None:
        """Print a line, write the table, and log the row.

        :param changed: whether masks did
        """
        telling = self.session.metrics[0].text(self.last_found())
        say(
            f"epoch {row['epoch'] + 1}/{self.training.epochs}  train loss {row['train/loss']:.4f}  "
            f"{telling}  sparsity {row['sparsity']:.2%}  lr {row['lr']:.3g}"
        )
        step = max(0, self.training.steps - 1)
        numbers = {key: value for key, value in row.items() if key != "epoch"}
        for logger in self.loggers:
            content = row if isinstance(logger, WANDBLogger) else numbers
            logger.log_scalars("epoch", content, step=step)
        with atomic_text(self.folder / "summary.csv") as file:
            writer = csv.DictWriter(file, list(self.rows[-1]), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.rows)
        if self.settings.log_sparsity and changed:
            self._write_distribution(row["epoch"])
        if self.settings.log_param_histogram:
            log_histograms(self.loggers, self.session.model, row["epoch"], step)

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write the settings of the run as YAML."""
        import yaml

        plain = {key: list(v) if isinstance(v, tuple) else v for key, v in settings.items()}
        with atomic_text(self.folder / "args.yaml") as file:
            yaml.safe_dump(plain, file)

    def _write_distribution(self, epoch: int) -> None:
        info = ModuleSparsificationInfo(self.session.model)
        summary = {key: value for key, value in self.rows[-1].items() if "/" not in key}
        content = {"params_summary": summary, "params_info": info.params_info}
        with atomic_text(self.folder / f"sparsity_distribution_epoch={epoch}.json") as file:
            json.dump(content, file, indent=2)
