"""Damaged files, and what reads them."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple, cast

from _attack_outcome import outcome, unlike
from _attacked_runs import Attacked, Fairseq, Glue, Loop, Training, script

NESTED = 100_000
_WEIGHTS = (".pth", ".pt", ".safetensors")
_READABLE = (".json", ".jsonl", ".yaml", ".csv")


class Damage(NamedTuple):
    """One way to damage a file."""

    name: str
    do: Callable[[Path, random.Random], None]


def _put(path: Path, data: bytes) -> None:
    path.unlink()  # it may be one file with the one before it
    path.write_bytes(data)


def cut(path: Path, rng: random.Random) -> None:
    """Cut a file short."""
    data = path.read_bytes()
    _put(path, data[: rng.randrange(max(1, len(data)))])


def flip(path: Path, rng: random.Random) -> None:
    """Flip one bit."""
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    _put(path, bytes(data))


def empty(path: Path, rng: random.Random) -> None:
    """Leave nothing of a file but its name."""
    _put(path, b"")


def scramble(path: Path, rng: random.Random) -> None:
    """Put random bytes in the place of a file, or of 16 bytes in it."""
    data = bytearray(path.read_bytes())
    if rng.random() < 0.5:
        _put(path, rng.randbytes(max(1, min(len(data), 4096))))
        return
    at = rng.randrange(max(1, len(data) - 16))
    data[at : at + 16] = rng.randbytes(16)
    _put(path, bytes(data))


def nest(path: Path, rng: random.Random) -> None:
    """Put brackets that are nested deeply into a text."""
    text = path.read_bytes()
    at = text.rfind(b"\n", 0, rng.randrange(max(1, len(text)))) + 1
    _put(path, text[:at] + b"[" * NESTED + b"\n" + text[at:])


def remove(path: Path, rng: random.Random) -> None:
    """Remove a file."""
    path.unlink()


def damages(file: Path, times: int) -> list[Damage]:
    """Return how to damage a file, what depends on chance so many times."""
    by_chance = [flip, flip, cut, scramble] * times
    others = [empty, remove, *([nest] if file.suffix in _READABLE else [])]
    return [Damage(do.__name__, do) for do in [*by_chance, *others]]


@dataclass
class Reader:
    """What reads some files.

    :param place: the workplace that has the whole files
    :param patterns: of the files, below it
    :param read: to be called in a workplace, in a process that has read others; returns the exit
        status
    :param left: what it writes that can be compared, below the workplace; None for nothing
    :param expected: returns what it writes there after reading the whole files
    :param times: how often to damage each file by chance
    """

    name: str
    place: Path
    patterns: tuple[str, ...]
    read: Callable[[], int]
    left: str | None = None
    expected: Callable[[], dict[str, Any]] = dict
    times: int = 1

    @property
    def weights(self) -> bool:
        """Return whether weights are read, which must never be wrong without a word."""
        return self.left is not None

    def files(self) -> list[Path]:
        """Return the files to damage, sorted."""
        found = (path for pattern in self.patterns for path in self.place.glob(pattern))
        return sorted({path for path in found if path.is_file() and path.stat().st_size})

    def kind(self, file: Path) -> str:
        """Return what kind of file one is: which numbers in its name do not tell."""
        return re.sub(r"\d+", "N", file.name)

    def speaks(self, ended: Any) -> bool:
        """Return whether something was said of damage."""
        return any("damaged" in line or "cannot be read" in line for line in ended.told)

    def differs(self, place: Path, unread: Path | None = None) -> list[str]:
        """Return the files with weights in which a reading differs from that of whole files.

        :param unread: a file that is as it was damaged, so that nobody has gone on from it
        """
        assert self.left is not None
        found, expected = outcome(place / self.left, parts=False, only=_WEIGHTS), self.expected()
        weights = [name for name in expected if name.endswith(_WEIGHTS)]
        places = {name: unlike(found.get(name), expected[name]) for name in weights}
        return [
            f"silently other {name}{' '.join(at.split())[:200]}"
            for name, at in places.items()
            if at != "=" and Path(self.left, name) != unread
        ]


def _compared(arena: Any, reader: Reader) -> Reader:
    """Give a reader what it finds in whole files, once that is asked for."""

    @cache
    def expected() -> dict[str, Any]:
        place = arena.new_place(reader.place)
        ended = arena.process(place, reader.read)
        if ended.status:
            sys.exit(f"{reader.name} fails with whole files:\n{ended.error}")
        return outcome(place / str(reader.left), only=_WEIGHTS)

    reader.expected = expected
    return reader


def readers(arena: Any, halfway: Path) -> Iterator[Reader]:
    """Yield what reads the files of a run.

    :param arena: with the undisturbed run
    :param halfway: a workplace with a run that was killed in its middle
    """
    attacked: Attacked = arena.attacked
    compared = partial(_compared, arena)

    def resume() -> int:
        return attacked.run(resume=True)

    def undisturbed() -> dict[str, Any]:
        return cast("dict[str, Any]", arena.expected)

    if isinstance(attacked, Loop):
        yield Reader("resume", halfway, ("out/last.pth",), resume, "out", undisturbed, 130)
        model = ("out/model.safetensors",)
        yield compared(Reader("model", arena.place, model, _read_model, "read", times=130))
        place = arena.new_place()
        arena.process(place, _make_shrunk)
        yield compared(Reader("shrunk", place, ("shrunk/*",), _read_shrunk, "read", times=130))
        return
    if attacked.RESUMES:
        weights = ("out/**/*last*.p*", "out/checkpoint-*/*")
        yield Reader("resume", halfway, weights, resume, "out", undisturbed)
        texts = ("out/run/*.json*", "out/run/*.yaml", "out/run/*.csv")
        yield Reader("resume", halfway, texts, resume, "out", undisturbed)
    if isinstance(attacked, (Training, Glue)):
        texts = ("out/**/*.json*", "out/**/*.yaml", "out/**/*.csv", "out/**/*.safetensors")
        often = 110 if type(attacked) is Training else 3  # of each text that runs write
        yield Reader("report", arena.place, texts, _report, times=often)
        yield Reader("recipe check", arena.place, ("out/**/recipe.yaml",), _check, times=20)
    if isinstance(attacked, Glue):
        files = ("out/checkpoint-*/*.pt", "out/checkpoint-*/*.safetensors")
        yield compared(Reader("checkpoint", halfway, files, _read_glue, "read", times=40))
    if isinstance(attacked, Fairseq):
        files = ("out/checkpoints/checkpoint_last.pt",)
        yield compared(Reader("checkpoint", arena.place, files, _read_fairseq, "read", times=130))
    if isinstance(attacked, Training):
        files = ("out/**/masks.safetensors",)
        yield compared(Reader("masks", arena.place, files, _read_masks, "read", times=65))
    if type(attacked) is Training:
        flags = [*attacked.flags(), "--experiment", "second", "--no-report"]

        def masks() -> int:
            return script(attacked.SCRIPT, *flags, "--initial-masks", "out/run")

        files = ("out/run/masks.safetensors",)
        yield compared(Reader("initial masks", arena.place, files, masks, "out/second", times=2))
        for name in ("out/run/model.safetensors", "out/run/checkpoints/small_last.pth"):

            def start(name: str = name) -> int:
                return script(attacked.SCRIPT, *flags, "--checkpoint", name)

            yield compared(Reader("checkpoint", arena.place, (name,), start, "out/second", times=2))


def _report() -> int:
    return _sparseml("report", "out")


def _check() -> int:
    found = sorted(Path("out").glob("**/recipe.yaml")) or [Path("out/run/recipe.yaml")]
    return max(_sparseml("recipe", "check", str(path)) for path in found)


def _sparseml(*words: str) -> int:
    from sparseml.cli import main

    try:
        main(list(words), prog_name="sparseml")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _layers() -> Any:
    from torch import nn

    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))


def _make_shrunk() -> int:
    import torch

    from sparseml.pytorch.units.saved import save_shrunk
    from sparseml.report.shrinking import shrunk_copy

    torch.manual_seed(0)
    model = _layers()
    with torch.no_grad():
        model[0].weight[:3] = 0
        model[0].bias[:3] = 0
    found = shrunk_copy(model, torch.ones(1, 3, 8, 8))
    assert found is not None
    save_shrunk(found, "shrunk")
    return 0


def _read_shrunk() -> int:
    from sparseml.pytorch.units.saved import fill_shrunk

    def read() -> Any:
        model = _layers()
        fill_shrunk(model, "shrunk")
        return model.state_dict()

    return _told(read)


def _read_model() -> int:
    from sparseml.pytorch.utils.model import read_model_file

    return _told(lambda: read_model_file("out/model.safetensors")["state_dict"])


def _read_masks() -> int:
    from sparseml.run.masks import read_masks

    runs = sorted(Path("out").glob("**/run.json"))
    return _told(lambda: [read_masks(run.with_name("masks.safetensors")) for run in runs])


def _read_glue() -> int:
    """Read a checkpoint as a run does that looks for the last whole one."""
    import torch
    from safetensors.torch import load_file

    from sparseml.run.errors import RunError
    from sparseml.transformers.checkpoints import checkpoints_in, problem_of

    def read() -> Any:
        folder = checkpoints_in(Path("out"))[0]
        if problem := problem_of(folder, True):
            raise RunError(problem)
        files = sorted(path for path in folder.iterdir() if path.suffix in (".pt", ".safetensors"))
        load = {".pt": lambda path: torch.load(path, weights_only=True), ".safetensors": load_file}
        return {path.name: load[path.suffix](path) for path in files}

    return _told(read)


def _read_fairseq() -> int:
    from sparseml.fairseq.reading import read_checkpoint

    path = Path("out/checkpoints/checkpoint_last.pt")
    return _told(lambda: read_checkpoint(path, "--model")["model"])


def _told(read: Callable[[], Any]) -> int:
    """Read something, and keep it; return the exit status that a script would have."""
    import torch

    from sparseml.run.errors import run_reported

    def main() -> None:
        found = read()
        Path("read").mkdir()
        torch.save(found, "read/weights.pt")

    return run_reported(main)
