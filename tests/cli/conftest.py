"""Running the command within this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from sparseml.cli import main

GRADUAL = """\
num_epochs: 4.0
final: 0.8

training_modifiers:
  - !EpochRangeModifier
    start_epoch: 0.0
    end_epoch: eval(num_epochs)

pruning_modifiers:
  - !MagnitudePruningModifier
    params: ['re:.*weight']
    init_sparsity: 0.2
    final_sparsity: eval(final)
    start_epoch: 1.0
    end_epoch: 3.0
    update_frequency: 0.5
    inter_func: linear
"""

NETWORK = """\
import torch

print("building a network")

class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(4, 8)
        self.second = torch.nn.Linear(8, 2)

ready = Network()
number = 3

def failing():
    return 1 / 0

def not_a_network():
    return "text"
"""

Invoke = Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a recipe and, in ``own_code.py``, networks to try it on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_code", raising=False)
    (tmp_path / "gradual.yaml").write_text(GRADUAL)
    (tmp_path / "own_code.py").write_text(NETWORK)
    return tmp_path


@pytest.fixture
def invoke(folder: Path) -> Invoke:
    """Run ``sparseml recipe`` with arguments; a traceback fails the test."""

    def run(*arguments: str) -> Result:
        result = CliRunner().invoke(main, ["recipe", *arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def invoke_json(invoke: Invoke) -> Callable[..., Any]:
    """As ``invoke``, with ``--json``, which must leave nothing but JSON on stdout."""
    return lambda *arguments: json.loads(invoke(*arguments, "--json").stdout)
