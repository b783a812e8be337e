"""What can be told to be wrong with a run's settings before models and data are loaded."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from sparseml.run.errors import RunError
from sparseml.run.files import require_room_for_run
from sparseml.run.processes import Processes
from sparseml.run.results import experiment_folder
from sparseml.timm.data import DataSource
from sparseml.timm.models import require_model, short_name
from sparseml.timm.settings import OneShotSettings, TrainingSettings

__all__ = ["check_settings"]


def check_settings(settings: OneShotSettings | TrainingSettings, where: Processes) -> None:
    """Check the names of models and data, and that files are there and folders can be written.

    :raises RunError: naming the flag
    """
    model, data, run = settings.model, settings.data, settings.run
    names = [("--model", model.model)]
    files = [("--checkpoint", model.checkpoint), ("--class-map", data.class_map)]
    resumes = False
    if isinstance(settings, TrainingSettings):
        names.append(("--teacher", settings.extras.teacher or ""))
        taught = settings.extras.teacher_checkpoint
        if taught and not settings.extras.teacher:
            raise RunError(f"--teacher-checkpoint {taught} needs --teacher MODEL")
        files.append(("--teacher-checkpoint", taught))
        resumes = bool(settings.checkpoints.resume)
    for flag, name in names:
        if name:
            require_model(name, flag)
    for flag, file in files:
        if file and not Path(file).is_file():
            reason = os.strerror(errno.EISDIR) if Path(file).is_dir() else "no such file"
            raise RunError(f"{flag} {file}: {reason}")
    options = {"download": data.dataset_download}
    for split in (data.train_split, data.val_split):
        DataSource(data.dataset, data.data_dir, {}, options=options).require(split)
    if where.is_first and not resumes:  # the others may come when it has begun to write
        require_room_for_run(experiment_folder(run, short_name(model.model)), run.overwrite)
