"""How runs end before their end: signals, errors of others, streams that nobody reads."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = "sparse_training.py"
STEPS, LAST = 6, "out/run/checkpoints/small_last.pth"
MOST_LINES = 10
"""That an error takes which is not ours."""
MORE_CODE = """
import os
import shutil
import torch


class Ending(Small):
    def __init__(self, num_classes=3):
        super().__init__(num_classes)
        self.calls = 0

    def forward(self, images):
        self.calls += self.training
        if self.training and self.calls == int(os.environ.get("ENDS_AT", 0)):
            what = os.environ["ENDS_BY"]
            if what.isdigit() and os.environ.get("RANK", "1") == "1":
                os.kill(os.getpid(), int(what))
            elif what == "group":
                os.killpg(0, 15)
            elif what == "rmtree":
                shutil.rmtree("out")
            elif not what.isdigit():
                raise ZeroDivisionError(what)
        return super().forward(images)


def small(**kwargs):
    return Ending(**kwargs)


class Unused(Small):
    def __init__(self, num_classes=3):
        super().__init__(num_classes)
        self.spare = torch.nn.Linear(8, 8)


def unused(**kwargs):
    return Unused(**kwargs)


class Whole(Small):
    def forward(self, images):
        return super().forward(images).long()


def whole(**kwargs):
    return Whole(**kwargs)
"""
CAP = """
pruning_modifiers:
  - !CAPruningModifier
      params: ['re:.*weight']
      init_sparsity: 0.5
      final_sparsity: 0.5
      start_epoch: 0
      end_epoch: 1
      update_frequency: 1
      num_grads: 4
      fisher_block_size: 8
"""


@pytest.fixture(autouse=True)
def _ctrl_c_counts() -> Iterator[None]:
    """Let Ctrl-C do what it does, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def given(flags: list[Any], workplace: Path) -> list[Any]:
    """Flags of a training of four epochs of six steps, whose model ends it when it is told to."""
    with (workplace / "own_code.py").open("a") as file:
        file.write(MORE_CODE)
    (workplace / "cap.yaml").write_text(CAP)
    more = ["--sparseml-recipe", "gradual.yaml", "-b", 8, "--lr", 0.1, "--opt", "adamw"]
    return [*flags, *more, "--epochs", 4, "--log-interval", 1, "--mixup", 0.2]


def _lines(folder: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "metrics.jsonl").read_text().splitlines()]


def _plain(line: dict[str, Any]) -> dict[str, Any]:
    """Return what a line of metrics says, without what the clock does."""
    values = {k: v for k, v in line.get("values", {}).items() if "per_second" not in k}
    return {**{k: v for k, v in line.items() if "time" not in k}, "values": values}


@pytest.mark.parametrize(("number", "at"), [(signal.SIGTERM, 10), (signal.SIGINT, 12)])
def test_a_signal_saves_after_the_step_and_resuming_gives_the_same(
    given: list[Any], call: Any, monkeypatch: pytest.MonkeyPatch, number: int, at: int
) -> None:
    call(SCRIPT, *given)
    whole, told = torch.load(LAST, weights_only=True), _lines("out/run")
    monkeypatch.setenv("ENDS_AT", str(at))
    monkeypatch.setenv("ENDS_BY", str(int(number)))
    done = call(SCRIPT, *given, "--overwrite", fails=True)
    where = f"epoch 2, step {at - STEPS + 1}"
    end = f"stopped by {number.name}; --resume {Path('out/run')} goes on from {where}"
    assert done.status == 128 + number and done.error.splitlines()[-1] == end
    assert json.loads(Path("out/run/run.json").read_text())["status"] == "interrupted"
    monkeypatch.delenv("ENDS_AT")
    assert call(SCRIPT, *given, "--resume", "out/run").status == 0
    resumed = torch.load(LAST, weights_only=True)
    assert whole["state_dict"].keys() == resumed["state_dict"].keys()
    for name, value in whole["state_dict"].items():
        assert torch.equal(value, resumed["state_dict"][name]), name
    found = _lines("out/run")
    assert [line.get("step") for line in found] == [line.get("step") for line in told]
    assert [_plain(line) for line in found] == [_plain(line) for line in told]


def test_an_error_of_the_model_takes_two_lines(
    given: list[Any], call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDS_AT", "10")
    monkeypatch.setenv("ENDS_BY", "of mine")
    done = call(SCRIPT, *given, fails=True)
    told = [line for line in done.error.splitlines() if "epoch" not in line[:6]]
    assert done.status == 1 and "Traceback" not in done.error
    assert "error: ZeroDivisionError: of mine (own_code.py:" in told[-2]
    assert told[-1].endswith("error.txt; --resume out/run goes on from epoch 2")
    assert "in forward" in Path("out/run/error.txt").read_text()
    assert json.loads(Path("out/run/run.json").read_text())["status"] == "failed"


def test_before_the_first_checkpoint_messages_do_not_point_at_each_other(
    given: list[Any], call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDS_AT", "2")
    monkeypatch.setenv("ENDS_BY", "early")
    assert "no checkpoint was written yet" in call(SCRIPT, *given, fails=True).error
    monkeypatch.delenv("ENDS_AT")
    again = call(SCRIPT, *given, fails=True)
    assert again.status == 2 and "--resume" not in again.error and "--overwrite" in again.error
    resumed = call(SCRIPT, *given, "--resume", "out/run", fails=True)
    assert resumed.status == 2 and "before its first checkpoint" in resumed.error
    assert call(SCRIPT, *given, "--overwrite").status == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is full")
@pytest.mark.parametrize("broken", ["pipe", "full"])
def test_a_run_goes_on_when_nobody_reads_what_it_tells(
    given: list[Any], warmly: Any, broken: str
) -> None:
    script = Path(__file__).resolve().parents[2] / "research" / SCRIPT
    words = [sys.executable, script, *given, "--epochs", 1, "--recipe-args", "epochs=1"]
    words = list(map(str, words))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd(), *sys.path])}
    if broken == "full":
        with open("/dev/full", "w") as full:
            done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, env=environment)
            status, error = done.returncode, done.stderr
    else:
        with warmly():
            process = subprocess.Popen(
                words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
            )
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        error, status = process.stderr.read(), process.wait()
        process.stderr.close()
    assert status == 0, error.decode()
    assert Path("out/run/result.json").exists() and Path("out/run/masks.safetensors").exists()


def test_names_that_lead_elsewhere_or_are_no_text(given: list[Any], call: Any) -> None:
    done = call(SCRIPT, *given, "--experiment", "../../elsewhere", fails=True)
    assert done.status == 2 and "--experiment must be a name below --output" in done.error
    done = call(SCRIPT, *given, "--output", b"o\xff".decode("utf-8", "surrogateescape"), fails=True)
    assert done.status == 2 and r"--output must be UTF-8, found 'o\udcff'" in done.error


def test_what_belongs_to_a_checkpoint_is_written_before_it(
    given: list[Any], call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a run that goes on from it, and does not tell of its epochs again, lacks nothing."""
    written, told, replace = [], [], os.replace

    def replaced(source: Any, target: Any) -> None:
        if Path(target).name == "small_last.pth":
            told.append(sum(line["tag"] == "epoch" for line in _lines("out/run")))
        replace(source, target)
        written.append(Path(target).name)

    monkeypatch.setattr(os, "replace", replaced)
    call(SCRIPT, *given, "--checkpoint-freq", 1, "--log-sparsity")
    commits = [at for at, name in enumerate(written) if name == "small_last.pth"]
    assert told == [1, 2, 3, 4]
    for epoch, (begin, end) in enumerate(zip([0, *commits], commits, strict=False)):
        names = written[begin:end]
        assert "summary.csv" in names and f"small_epoch={epoch}.pth" in names
        assert epoch > 2 or f"sparsity_distribution_epoch={epoch}.json" in names
    assert not [name for name in written[commits[-1] :] if "epoch=" in name or "best" in name]


def _told(done: Any) -> list[str]:
    """Return the lines on stderr, without those of progress."""
    return [line for line in done.error.splitlines() if line and line[:6] != "epoch "]


def test_a_folder_that_is_deleted_takes_a_line_or_goes_on(
    given: list[Any], call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDS_AT", "10")
    monkeypatch.setenv("ENDS_BY", "rmtree")
    done = call(SCRIPT, *given, fails=None)
    assert "Traceback" not in done.error and len(_told(done)) <= 3, done.error
    assert done.status or Path("out/run/model.safetensors").exists()


LONG = "\n".join(f"line {number}" for number in range(200))


@pytest.mark.parametrize(
    ("more", "by"),
    [
        (["--sparseml-recipe", "gradual.yaml"], LONG),
        (["--sparseml-recipe", "cap.yaml", "--model", "own_code:unused"], ""),
        (["--sparseml-recipe", "cap.yaml", "--model", "own_code:whole"], ""),
        (["--sparseml-recipe", "gradual.yaml", "--model", "own_code:not_a_model"], ""),
        (["--sparseml-recipe", "gradual.yaml", "--data-dir", "own_code.py"], ""),
        (["--sparseml-recipe", "gradual.yaml", "--checkpoint", "own_code.py"], ""),
        (["--sparseml-recipe", "gradual.yaml", "--initial-masks", "own_code.py"], ""),
        (["--sparseml-recipe", "own_code.py"], ""),
        (["--sparseml-recipe", "gradual.yaml", "-b", 10**12], ""),
        (["--sparseml-recipe", "gradual.yaml", "--output", "own_code.py"], ""),
        (["--sparseml-recipe", "gradual.yaml", "--resume", "own_code.py"], ""),
    ],
)
def test_no_error_takes_more_than_ten_lines(
    given: list[Any], call: Any, monkeypatch: pytest.MonkeyPatch, more: list[Any], by: str
) -> None:
    monkeypatch.setenv("ENDS_BY", by)
    monkeypatch.setenv("ENDS_AT", "3" if by else "0")
    done = call(SCRIPT, *given, *more, fails=True)
    assert "Traceback" not in done.error and len(_told(done)) <= MOST_LINES, done.error
    assert all(len(line) < 1000 for line in _told(done)), done.error


@pytest.fixture
def train_in_two(in_two: Any, call: Any) -> Any:
    """Gives how two processes of one run end, each with flags of its own."""

    def train(flags: list[list[Any]]) -> list[Any]:
        return in_two(lambda rank: sys.exit(call(SCRIPT, *flags[rank], fails=None).status))

    return train


def test_what_is_not_the_same_in_two_processes_is_told(given: list[Any], train_in_two: Any) -> None:
    """Also unequal numbers of batches, for which a process would wait until it times out."""
    Path("other.yaml").write_text(
        Path("gradual.yaml").read_text().replace("init_sparsity: 0.2", "init_sparsity: 0.3")
    )
    shutil.copytree(given[given.index("--data-dir") + 1], "fewer")
    for file in Path("fewer/train").glob("*/*0.*"):
        file.unlink()
    for more, told in (
        (["--sparseml-recipe", "other.yaml"], "the recipe differs between processes: 'init_spars"),
        (
            ["--seed", 9],
            "seed differs between processes: 42 in that of rank 0, 9 in that of rank 1",
        ),
        (["-b", 4], "batch_size differs between processes: 8 in that of rank 0, 4 in that of rank"),
        (["--data-dir", "fewer"], "the number of training data differs between processes: 48 in"),
    ):
        for ended in train_in_two([given, [*given, *more]]):
            assert ended.status == 2 and "Traceback" not in ended.error, ended.error
            assert told in ended.error, ended.error


def test_a_parameter_that_the_loss_does_not_use_is_named_in_two_processes(
    given: list[Any], train_in_two: Any
) -> None:
    """Torch tells its number, in eight lines, a step later."""
    flags = [*given, "--model", "own_code:unused"]
    for ended in train_in_two([flags, flags]):
        lines = [line for line in ended.error.splitlines() if "error: " in line]
        assert ended.status == 2 and len(lines) == 1, ended.error
        assert "error: the loss does not use spare.weight, spare.bias: several" in lines[0]


def test_a_signal_to_all_processes_that_load_data_saves(
    given: list[Any], in_two: Any, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Ctrl-C, which a terminal sends to all: the run ends as if it had got it alone."""
    monkeypatch.setenv("ENDS_AT", "9")
    monkeypatch.setenv("ENDS_BY", "group")

    def train(rank: int) -> None:
        os.setsid()
        for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
            del os.environ[name]
        out = ["--experiment", f"run{rank}", "--workers", 2]
        sys.exit(call(SCRIPT, *given, *out, fails=None).status)

    for rank, ended in enumerate(in_two(train)):
        assert ended.status == 128 + signal.SIGTERM, ended.error
        last = f"stopped by SIGTERM; --resume out/run{rank} goes on from epoch 2, step 4"
        assert ended.error.splitlines()[-1].endswith(last), ended.error
        told = [one for one in ended.error.splitlines() if one and one[:6] != "epoch "]
        assert "Traceback" not in ended.error and len(told) <= MOST_LINES, ended.error
    monkeypatch.delenv("ENDS_AT")
    assert call(SCRIPT, *given, "--experiment", "run0", "--resume", "out/run0").status == 0


def test_a_process_whose_other_one_is_killed_ends_with_a_line(
    given: list[Any], train_in_two: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENDS_AT", "10")
    monkeypatch.setenv("ENDS_BY", str(int(signal.SIGKILL)))
    flags = [*given, "--timeout", 60]
    (status, error), (other, _) = train_in_two([flags, flags])
    assert other == -signal.SIGKILL and status == 1, error
    told = [line for line in error.splitlines() if line.startswith(("error:", "the traceback"))]
    assert len(told) == 2 and "--resume out/run goes on from epoch 4" in told[1], error
