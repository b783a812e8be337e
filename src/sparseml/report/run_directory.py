"""Writing a run directory: all that one run leaves behind, and what it ran on, in one folder."""

from __future__ import annotations

import json
import logging
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from sparseml.report.schema import FORMAT
from sparseml.utils.atomic import atomic_path
from sparseml.utils.locks import FolderLock
from sparseml.utils.plain import plain_data

if TYPE_CHECKING:
    from sparseml.pytorch.utils.logger import JSONLinesLogger

#: Names of a run directory's files, by what they hold.
RUN_FILES = {
    "run": "run.json",
    "config": "config.json",
    "environment": "environment.json",
    "recipe": "recipe.yaml",
    "schedule": "schedule.json",
    "metrics": "metrics.jsonl",
    "result": "result.json",
}
CHECKPOINTS = "checkpoints"
SHRUNK_FOLDER = "shrunk"
"""What ``sparseml.load_shrunk`` reads, where something could be removed."""
MODEL_FILE = "model.safetensors"
_MODELS = (MODEL_FILE, "model_*.safetensors")
#: Names of what ``sparseml report`` writes beside them.
REPORT_FILES = ("report.html", "report.json", "report.md")

_LOGGER = logging.getLogger(__name__)
_PathLike = str | os.PathLike[str]

_ALWAYS = ("sparseml-next", "torch", "numpy")
# named only where the run has imported them
_IF_USED = ("timm", "torchvision", "transformers", "fairseq", "scikit-learn", "numba", "triton")


class NotARunError(FileNotFoundError):
    """A folder that is missing or holds no run."""


def is_run(path: _PathLike) -> bool:
    """Whether a folder holds a run: whether there is a ``run.json`` in it."""
    return (Path(path).expanduser() / RUN_FILES["run"]).is_file()


class RunDirectory:
    """The folder of one run, for writing.

    Begin a run with :meth:`start` (or continue one with :meth:`resume`) and hand over what is
    known as soon as it is known; each file is replaced as a whole, so that a run killed at any
    moment leaves readable files. In a distributed run only the first process may write; no other
    run can write into the folder at that time.

        with RunDirectory.start("runs/first", config={"lr": 0.1}, seed=0) as run:
            optimizer = manager.modify(model, sgd, steps_per_epoch=n, loggers=[run.metrics()])
            run.write_recipe(manager, steps_per_epoch=n)
            ...                                     # train
            run.save_model(model, recipe=manager)
            run.write_result({"sparse": describe_model(model, {"accuracy": 0.97}, images)})

    Leaving the block marks the run as finished, or as failed with the error that ended it.

    :param path: the folder of a run that was started before
    :raises NotARunError: if it holds none
    """

    def __init__(self, path: _PathLike) -> None:
        self.path = Path(path).expanduser().absolute()
        self._lock: FolderLock | None = None
        if not is_run(self.path):
            raise NotARunError(not_a_run(self.path))

    @classmethod
    def start(
        cls,
        path: _PathLike,
        name: str | None = None,
        group: str | None = None,
        *,
        config: Mapping[str, Any] | None = None,
        seed: int | None = None,
        overwrite: bool = False,
    ) -> Self:
        """Make the folder of a new run, with its ``run.json``, settings and environment.

        :param path: the folder; those above it are made too
        :param name: what reports call the run, the folder's name if None
        :param group: what the run has in common with others, such as the method
        :param config: any settings, as plain data
        :param seed: of the run's random choices
        :param overwrite: remove what an earlier run left in the folder, checkpoints included
        :raises FileExistsError: if the folder holds a run and ``overwrite`` is not given
        :raises FolderInUseError: if another process is writing into it
        """
        folder = Path(path).expanduser().absolute()
        if is_run(folder) and not overwrite:
            raise FileExistsError(
                f"{folder} holds a run; give overwrite=True to replace it, or continue it "
                "with RunDirectory(path)"
            )
        lock = FolderLock(folder)
        _remove_run(folder)
        info = {"format": FORMAT, "name": name or folder.name, "group": group, "status": "running"}
        _write_json(folder / RUN_FILES["run"], {**info, "created": utc_now()})
        run = cls(folder)
        run._lock = lock
        run.write_config(config or {}, seed)
        run.write_environment()
        return run

    @classmethod
    def resume(cls, path: _PathLike) -> Self | None:
        """Return the run to go on with in a folder, which may have lost its ``run.json``.

        :return: None if nothing is there that a run has written
        :raises FolderInUseError: if another process is writing into it
        """
        folder = Path(path).expanduser().absolute()
        if not any((folder / name).exists() for name in (*RUN_FILES.values(), CHECKPOINTS)):
            return None
        lock = FolderLock(folder)
        if not is_run(folder):
            file = folder / RUN_FILES["run"]
            _LOGGER.warning("%s is missing and begun anew", file)
            _write_json(file, {"format": FORMAT, "name": folder.name, "created": utc_now()})
        run = cls(folder)
        run._lock = lock
        return run

    def __enter__(self) -> Self:
        if self._lock is None:
            self._lock = FolderLock(self.path)
        self._note(status="running", error=None)  # also where it goes on after a failure
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            if error is None:
                self.finish()
                return
            status = "failed" if isinstance(error, Exception) else "interrupted"
            with suppress(OSError):  # a full disk, say: what ended the run is what is to be told
                self._note(
                    status=status, error=f"{type(error).__name__}: {error}", finished=utc_now()
                )
        finally:
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints go; the folder is made by whoever writes one."""
        return self.path / CHECKPOINTS

    def write_config(self, settings: Mapping[str, Any], seed: int | None = None) -> None:
        """Write the settings of the run; ``seed`` becomes the key ``seed``."""
        seeded = {} if seed is None else {"seed": seed}
        self._write("config", {**settings, **seeded})

    def write_environment(self, packages: Iterable[str] = ()) -> None:
        """Write what the run runs on and with.

        :param packages: distributions to name the versions of, besides the usual ones
        """
        self._write("environment", describe_environment(packages))

    def write_recipe(self, recipe: Any, steps_per_epoch: int | None = None) -> None:
        """Write the recipe as it was resolved and, for a manager, when it prunes how much.

        :param recipe: a manager, or a recipe's text
        :param steps_per_epoch: optimizer steps in an epoch; without, no schedule is written
        """
        with atomic_path(self.path / RUN_FILES["recipe"]) as part:
            part.write_text(str(recipe), encoding="utf-8")
        if steps_per_epoch and not isinstance(recipe, str):
            from sparseml.report.schedule import asked_schedule

            self._write("schedule", asked_schedule(recipe, steps_per_epoch).model_dump())

    def metrics(self, resume_step: int | None = None) -> JSONLinesLogger:
        """Return a logger of the run's metrics, for the manager and the trainer.

        :param resume_step: the step a resumed run starts from; what was logged from there on is
            dropped, to be logged again
        """
        from sparseml.pytorch.utils.logger import JSONLinesLogger

        return JSONLinesLogger(self.path / RUN_FILES["metrics"], resume_step)

    def save_model(self, model: Any, recipe: Any = None, variant: str = "sparse") -> Path:
        """Write the weights as ``model.safetensors``, or ``model_<variant>.safetensors``.

        :param variant: ``"sparse"`` for the model that the run ends with, any other name for other
            forms of it, such as ``"shrunk"``
        :return: the file
        """
        from sparseml.pytorch.utils.model import save_model

        name = MODEL_FILE if variant == "sparse" else f"model_{variant}.safetensors"
        save_model(self.path / name, model, recipe=recipe)
        return self.path / name

    def write_result(
        self,
        variants: Mapping[str, Any] | None = None,
        layers: Iterable[Any] | None = None,
        notes: Iterable[str] | None = None,
    ) -> None:
        """Write what the run ended with, beside what earlier calls wrote.

        :param variants: ``"dense"``, ``"sparse"`` and ``"shrunk"``, as far as there are such
            models, to what is known of each (see ``describe_model`` and ``measure_latency``)
        :param layers: zeros of each layer (see ``layer_sparsities``)
        :param notes: sentences that the report is to show, beside those of earlier calls
        """
        result = self._read("result")
        known = result.setdefault("variants", {})
        for variant, found in (variants or {}).items():
            known[variant] = {**known.get(variant, {}), **plain_data(found)}
        if layers is not None:
            result["layers"] = list(layers)
        if notes is not None:
            result["notes"] = list(dict.fromkeys([*result.get("notes", []), *notes]))
        self._write("result", result)

    def finish(self) -> None:
        """Mark the run as finished."""
        self._note(status="finished", error=None, finished=utc_now())

    def _note(self, **entries: Any) -> None:
        known = {"format": FORMAT, "name": self.path.name, **self._read("run")}
        self._write("run", {**known, **entries})

    def _read(self, what: str) -> dict[str, Any]:
        """Return what a file holds; one that is damaged is put aside, and what it held is lost."""
        file = self.path / RUN_FILES[what]
        if not file.exists():
            return {}
        try:
            found = json.loads(file.read_bytes())
            if isinstance(found, dict):
                return found
            reason = f"it holds {type(found).__name__}, not a mapping"
        except (ValueError, RecursionError) as error:
            reason = str(error) or type(error).__name__
        aside = file.with_name(f"{file.name}.damaged")
        os.replace(file, aside)
        _LOGGER.warning("%s is damaged (%s); it is now %s and begun anew", file, reason, aside.name)
        return {}

    def _write(self, what: str, content: Any) -> None:
        _write_json(self.path / RUN_FILES[what], content)


def not_a_run(folder: Path) -> str:
    """Why a folder is no run, in words."""
    if not folder.exists():
        return f"no such folder: {folder}"
    if not folder.is_dir():
        return f"{folder} is a file; a run is a folder"
    return f"{folder} holds no run: there is no {RUN_FILES['run']} in it, nor below it"


def _remove_run(folder: Path) -> None:
    for pattern in (*RUN_FILES.values(), *_MODELS, *REPORT_FILES):
        for file in folder.glob(pattern):
            file.unlink()
    for name in (CHECKPOINTS, SHRUNK_FOLDER):
        shutil.rmtree(folder / name, ignore_errors=True)


def _write_json(path: Path, content: Any) -> None:
    with atomic_path(path) as part:
        text = json.dumps(plain_data(content), indent=2, ensure_ascii=False, allow_nan=False)
        part.write_text(text + "\n", encoding="utf-8")


def utc_now() -> str:
    """Return date and time, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def describe_environment(packages: Iterable[str] = ()) -> dict[str, Any]:
    """Return machine, interpreter, command line and versions, as plain data.

    Neither the machine's nor the user's name is among it, so that a report can be passed on.

    :param packages: distributions to name the versions of, besides the usual ones
    """
    used = [name for name in _IF_USED if name.replace("scikit-", "sk") in sys.modules]
    named = dict.fromkeys([*_ALWAYS, *used, *packages])
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        **_torch_settings(),
        "command": shlex.join(sys.argv),
        "packages": {name: found for name in named if (found := _version(name))},
    }


def _processor() -> str:
    """The processor's model name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(filter(None, names), "") or platform.processor() or platform.machine()


def _torch_settings() -> dict[str, Any]:
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    found = {"threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        count = torch.cuda.device_count()
        found["gpus"] = [torch.cuda.get_device_name(index) for index in range(count)]
        found["cuda"] = torch.version.cuda
    return found


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
