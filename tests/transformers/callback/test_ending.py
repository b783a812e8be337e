"""Trainings that a signal ends, and checkpoints that are not whole."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers
from accelerate.state import AcceleratorState
from torch.utils.data import DataLoader

from sparseml.pytorch.utils import CheckpointError
from sparseml.transformers.checkpoints import STATE_NAME, checkpoints_in, problem_of
from sparseml.transformers.scripts.arguments import last_whole

RECIPE = """
modifiers:
  - !MagnitudePruningModifier
      params: ['re:.*encoder.*(query|dense).weight']
      init_sparsity: 0.25
      final_sparsity: 0.75
      start_epoch: 0.5
      end_epoch: 2.0
      update_frequency: 0.5
"""


class Sending(transformers.TrainerCallback):
    """Sends a signal to this process in the middle of a step, or of an evaluation."""

    def __init__(self, number: int, step: int) -> None:
        self.number, self.step = number, step

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step + 1 == self.step:
            os.kill(os.getpid(), self.number)


@pytest.fixture(autouse=True)
def _ctrl_c_counts() -> Iterator[None]:
    """Let Ctrl-C do what it does, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "step", "saved"), [(signal.SIGTERM, 8, 8), (signal.SIGINT, 6, 7)]
)
def test_a_signal_saves_and_going_on_gives_the_same(
    trainer_of: Any, same: Any, tmp_path: Path, capsys: Any, number: int, step: int, saved: int
) -> None:
    """After the last step of an epoch, the sixth, the Trainer first does what is due then."""
    whole = trainer_of(RECIPE, out="whole")
    whole.train()
    stopped, before = trainer_of(RECIPE), signal.getsignal(number)
    stopped.add_callback(Sending(number, step))
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        stopped.train()
    assert end.value.code == 128 + number
    assert signal.getsignal(number) is before
    told = f"stopped by {number.name}; resume_from_checkpoint=True goes on from step {saved + 1}"
    assert told in capsys.readouterr().err
    assert [path.name for path in checkpoints_in(tmp_path / "out")] == [f"checkpoint-{saved}"]
    again = trainer_of(RECIPE)
    again.train(resume_from_checkpoint=True)
    same(again.model, whole.model)


def test_outside_of_training_signals_do_what_they_did(trainer_of: Any) -> None:
    """Also after an error has ended training, of which no callback is told."""

    class Fails(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise ZeroDivisionError

    trainer = trainer_of(RECIPE)
    trainer.add_callback(Fails())
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", STATE_NAME])
def test_a_flipped_bit_in_a_checkpoint_is_found(
    trainer_of: Any, tmp_path: Path, caplog: Any, name: str
) -> None:
    trainer_of(RECIPE, save_strategy="steps", save_steps=7).train()
    last, middle, first = checkpoints_in(tmp_path / "out")
    assert [problem_of(folder, True) for folder in (last, middle, first)] == [None] * 3
    data = bytearray((last / name).read_bytes())
    data[-len(data) // 3] ^= 1
    (last / name).write_bytes(data)
    (middle / STATE_NAME).unlink()  # as if the run had been killed then
    with caplog.at_level(logging.WARNING):
        assert last_whole(tmp_path / "out", True) == first
    told = [text for text in caplog.messages if "passed over" in text]
    assert "damaged" in told[0] and name.split(".")[0] in told[0]
    assert f"it has no {STATE_NAME}" in told[1]
    if name == "model.safetensors":  # which the Trainer itself reads without a word
        with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged"):
            trainer_of(RECIPE).train(resume_from_checkpoint=str(last))


RECIPES = {"recipe": RECIPE.replace("0.25", "0.3"), "seed": RECIPE, "data": RECIPE}


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ("recipe", "the recipe differs between processes: 'init_sparsity: 0.25' in that of rank 0"),
        ("seed", "seed differs between processes: 42 in that of rank 0, 7 in that of rank 1"),
        ("data", "steps_per_epoch differs between processes: 3 in that of rank 0, 2 in that of"),
    ],
)
def test_processes_that_were_given_other_things_are_told(
    trainer_of: Any, data_of: Any, in_two: Any, other: str, told: str
) -> None:
    """Also of data of unequal length, for which a process would wait until it times out."""

    def train(rank: int) -> None:
        AcceleratorState._reset_state(True)  # what this process has known alone
        settings = {"seed": 7} if rank and other == "seed" else {}
        trainer = trainer_of(RECIPES[other] if rank else RECIPE, ddp_backend="gloo", **settings)
        data = data_of(count=16 if rank and other == "data" else 24)
        trainer.get_train_dataloader = lambda: DataLoader(data, 8, collate_fn=trainer.data_collator)
        trainer.train()

    for ended in in_two(train):
        assert ended.status == 1 and f"CallbackError: {told}" in ended.error, ended.error


def test_another_process_cannot_write_into_the_folder(
    trainer_of: Any, in_two: Any, tmp_path: Path
) -> None:
    """Until the run there ends."""
    tried = tmp_path / "tried"

    class Waits(transformers.TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 0:
                (tmp_path / "begun").touch()
                _await(tried)

    def train(rank: int) -> None:
        for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):  # each of them alone
            del os.environ[name]
        trainer = trainer_of(RECIPE)
        if rank == 0:
            trainer.add_callback(Waits())
        else:
            _await(tmp_path / "begun")
        try:
            trainer.train()
        finally:
            tried.touch()

    first, second = in_two(train)
    assert first.status == 0, first.error
    assert second.status == 1 and "another process is writing into" in second.error, second.error
    trainer_of(RECIPE).train()


def _await(file: Path) -> None:
    end = time.monotonic() + 60
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.02)
