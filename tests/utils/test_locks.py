"""One process at a time writes into a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sparseml.run.files import require_room_for_run
from sparseml.utils.locks import FolderInUseError, FolderLock

HOLD = """
import sys
from sparseml.utils.locks import FolderLock
lock = FolderLock(sys.argv[1])
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_is_free_as_soon_as_its_writer_is_dead(tmp_path: Path) -> None:
    (tmp_path / "deeper").mkdir()
    (tmp_path / "run.json").touch()
    left = tmp_path / "deeper" / ".last.pth.0123.part"
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        left.touch()
        with pytest.raises(FolderInUseError, match="another process is writing into"):
            FolderLock(tmp_path)
        with pytest.raises(FolderInUseError):  # and no advice to replace the run there
            require_room_for_run(tmp_path, overwrite=False)
        assert left.exists()  # it may be the other's
        other.kill()
    FolderLock(tmp_path).release()
    assert not left.exists()
