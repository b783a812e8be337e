"""Whether a run that is killed at any moment and resumed ends as if it had not been.

    python benchmarks/kill_resume.py [--kills 20] [--modifiers NAME ...] [--seed 0]

For every modifier a short run, which saves a checkpoint after each step, is killed by SIGKILL at
random moments, often while it is saving, and started again, until it ends. Every third time the
last checkpoint is damaged as well: cut short, or one bit flipped. Weights, optimizer and the
manager's whole state must then be those of the undisturbed run, bit by bit; exit code 1 says that
some are not. Runs are forked from a process that has loaded everything, so that most of their time
is training and saving. Needs a system that can fork.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from _timing import write_result
from sparseml.pytorch.optim import ScheduledModifierManager
from sparseml.pytorch.utils import CheckpointError, load_checkpoint, save_checkpoint
from sparseml.pytorch.utils.saving.files import read_torch_file, write_torch_file

TABLE = Path(__file__).parents[1] / "tests/pytorch/sparsification/test_every_modifier.py"
STEPS, PER_EPOCH = 15, 4
CHECKPOINT, OUTCOME = "last.ckpt", "outcome.pt"
CHANGES: dict[str, dict[str, Any]] = {
    "DistillationModifier": {
        "distill_output_keys": None,
        "teacher_input_keys": None,
        "mask_padding": False,
    },
    "LayerThinningModifier": {"update_epochs": [1.5, 2.5], "strict": False},
    "PerLayerDistillationModifier": {
        "student_layer_names": ["0", "2"],
        "teacher_layer_names": ["0", "2"],
        "project_features": True,
    },
    "SetParamModifier": {"start_epoch": 1.0},
}
"""Where this run needs other fields than the tests that the table is taken from."""
OTHER_MODELS = ("AssembleModifier", "BlockTuningModifier", "HiddenStateDistillationModifier")
"""Modifiers that the small network of this run is not for, or that need a store of blocks."""


def main() -> None:
    """Kill and resume every modifier; write down how it went."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20, help="kills per modifier, at least")
    parser.add_argument("--modifiers", nargs="+", help="by default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-result", action="store_true", help="write no file of results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for slow in ("torch._dynamo", "numba"):  # else imported by every process anew
        with suppress(ImportError):
            importlib.import_module(slow)
    table = load_table()
    found = {}
    for name in options.modifiers or [one for one in table.NAMES if one not in OTHER_MODELS]:
        found[name] = try_modifier(name, table, options.kills, random.Random(options.seed))
        print(f"{name:32} {found[name]}", flush=True)
    if not options.no_result:
        print(f"written to {write_result('kill_resume', {**vars(options), 'found': found})}")
    bad = [name for name, counts in found.items() if counts["different"]]
    if bad:
        sys.exit(f"resumed runs differ: {', '.join(bad)}")


def load_table() -> Any:
    """The fields of every modifier, as the tests have them."""
    spec = importlib.util.spec_from_file_location("every_modifier", TABLE)
    assert spec is not None and spec.loader is not None
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    return table


def try_modifier(name: str, table: Any, kills: int, rng: random.Random) -> dict[str, Any]:
    """What became of runs with one modifier, until so many kills have hit one."""
    counts = {"runs": 0, "kills": 0, "damaged": 0, "different": 0}
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        expected, seconds = undisturbed(name, table, Path(place) / "undisturbed")
        for number in range(5 * kills + 5):
            if counts["kills"] >= kills:
                break
            folder = Path(place) / str(number)
            hit = disturbed(name, table, folder, seconds, number % 3 == 2, rng)
            if not hit["kills"]:  # it was quicker this time
                continue
            counts["runs"] += 1
            counts["kills"] += hit["kills"]
            counts["damaged"] += hit["damaged"]
            counts["different"] += not same(read_torch_file(folder / OUTCOME), expected)
    return {**counts, "seconds": round(time.monotonic() - begun, 1)}


def undisturbed(name: str, table: Any, folder: Path) -> tuple[Any, float]:
    """How a run ends, and the seconds it takes (the lesser of two)."""
    times = []
    for number in range(2):
        begun = time.monotonic()
        place = folder / str(number)
        wait(fork(lambda place=place: train(name, table, place)))
        times.append(time.monotonic() - begun)
    first, second = (read_torch_file(folder / str(number) / OUTCOME) for number in range(2))
    if not same(first, second):
        sys.exit(f"{name}: two undisturbed runs differ, so there is nothing to compare with")
    return first, min(times)


def disturbed(
    name: str, table: Any, folder: Path, seconds: float, harmed: bool, rng: random.Random
) -> dict[str, int]:
    """Kill a run once or more often at random moments, then let it end.

    :param harmed: also damage the last checkpoint after each kill
    """
    hit = {"kills": 0, "damaged": 0}
    again = True
    while again:
        child = fork(lambda: train(name, table, folder))
        time.sleep(rng.uniform(0.0, seconds))
        os.kill(child, signal.SIGKILL)
        if not wait(child):
            return hit  # it had ended
        hit["kills"] += 1
        if harmed:
            hit["damaged"] += damage(folder / CHECKPOINT, rng)
        again = rng.random() < 0.4
    wait(fork(lambda: train(name, table, folder)))
    return hit


def train(name: str, table: Any, folder: Path) -> None:
    """One run from its last checkpoint, or from the beginning, to its end."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    teacher = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    sgd = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    manager = ScheduledModifierManager([table.make(name, **CHANGES.get(name, {}))])
    optimizer = manager.modify(
        model,
        sgd,
        steps_per_epoch=PER_EPOCH,
        grad_sampler=table.SAMPLER,
        distillation_teacher=teacher.eval(),
    )
    parts = {"optimizer": optimizer, "manager": manager}
    done = resume(folder / CHECKPOINT, model, parts)
    for step in range(done, STEPS):
        inputs = torch.randn(6, 4)
        outputs = model(inputs)
        optimizer.zero_grad()
        loss = manager.loss_update(
            (outputs - 1.0).pow(2).mean(),
            model,
            sgd,
            optimizer.wrapped_epoch,
            PER_EPOCH,
            student_outputs=outputs,
            student_inputs=inputs,
        )
        loss.backward()
        optimizer.step()
        save_checkpoint(folder / CHECKPOINT, model, **parts, extra={"step": step + 1})
    states = [part.state_dict() for part in (model, sgd, manager)]
    write_torch_file(folder / OUTCOME, states)


def resume(path: Path, model: nn.Module, parts: dict[str, Any]) -> int:
    """The steps done at the last whole checkpoint, 0 if there is none."""
    try:
        return int(load_checkpoint(path, model, **parts).extra["step"])
    except FileNotFoundError:
        return 0
    except CheckpointError:
        if path.with_name(f"{path.name}.previous").exists():
            raise
        return 0  # the very first one was damaged


def damage(path: Path, rng: random.Random) -> int:
    """Cut a file short or flip one of its bits; how many files that were (1, or 0 without one)."""
    if not path.exists():
        return 0
    data = bytearray(path.read_bytes())
    if rng.random() < 0.5:
        data = data[: rng.randrange(len(data))]
    else:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.unlink()  # it may be one file with the one before it
    path.write_bytes(data)
    return 1


def fork(work: Callable[[], None]) -> int:
    """Do ``work`` in a process of its own; its number."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(child: int) -> bool:
    """Wait for a process; whether it was killed."""
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status not in (0, -signal.SIGKILL):
        sys.exit(f"a run failed with exit code {status}, see above")
    return status != 0


def same(one: Any, other: Any) -> bool:
    """Whether two nested states are equal to the last bit."""
    if isinstance(one, Tensor):
        alike = isinstance(other, Tensor) and (one.dtype, one.shape) == (other.dtype, other.shape)
        return alike and one.numpy().tobytes() == other.numpy().tobytes()
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) or (one != one and other != other)


if __name__ == "__main__":
    main()
