from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparseml.pytorch.utils.saving.files import (
    CheckpointError,
    atomic_path,
    is_safetensors,
    previous_path,
    read_safetensors,
    read_torch_file,
    write_safetensors,
    write_torch_file,
)


def test_atomic_path_replaces_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.txt"
    with atomic_path(path) as part:
        part.write_text("one")
        assert part.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_files_have_the_usual_permissions(tmp_path: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.touch()
    write_safetensors(tmp_path / "x.safetensors", {"w": torch.ones(2)}, {})
    write_torch_file(tmp_path / "x.pt", {"w": torch.ones(2)})
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), atomic_path(path) as part:
        part.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("links", [True, False])
def test_the_file_before_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError("not on this file system")

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    path = tmp_path / "x.txt"
    for number in range(4):
        with atomic_path(path, keep_previous=True) as part:
            part.write_text(str(number))
        assert path.read_text() == str(number)
        assert previous_path(path).exists() == (number > 0)
        assert not number or previous_path(path).read_text() == str(number - 1)
    assert sorted(tmp_path.iterdir()) == [path, previous_path(path)]


def test_a_crash_while_the_file_before_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("3")
    previous_path(path).hardlink_to(path)
    with atomic_path(path, keep_previous=True) as part:
        part.write_text("4")
    assert (path.read_text(), previous_path(path).read_text()) == ("4", "3")
    assert sorted(tmp_path.iterdir()) == [path, previous_path(path)]


def test_what_killed_processes_left_is_removed_when_old(tmp_path: Path) -> None:
    path = tmp_path / "x[1].txt"
    old, new = tmp_path / ".x[1].txt.0123.part", tmp_path / ".x[1].txt.4567.part"
    other = tmp_path / ".y.txt.0123.part"
    for part in (old, new, other):
        part.touch()
    for part in (old, other):
        os.utime(part, (0, 0))
    with atomic_path(path) as part:
        part.write_text("1")
    assert sorted(tmp_path.iterdir()) == sorted([path, new, other])


def test_data_are_synced_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("sync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("rename"), replace(a, b)))
    write_torch_file(tmp_path / "x.pth", {"a": torch.ones(2)})
    assert events[:2] == ["sync", "rename"]


def test_file_mode_follows_the_umask(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("")
    write_torch_file(tmp_path / "x.pth", {})
    assert (tmp_path / "x.pth").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("zipped", [True, False])
def test_torch_round_trip(tmp_path: Path, zipped: bool) -> None:
    content = {"a": torch.arange(3, dtype=torch.bfloat16), "b": [1, (2.5, "x", None)]}
    write_torch_file(tmp_path / "x.pth", content, zipped=zipped)
    back = read_torch_file(tmp_path / "x.pth", check=zipped)
    assert torch.equal(back["a"], content["a"])
    assert back["b"] == content["b"]


def test_pickled_classes_are_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(1, 1), tmp_path / "m.pth")
    with pytest.raises(CheckpointError, match=r"m\.pth holds pickled classes"):
        read_torch_file(tmp_path / "m.pth")


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_torch_file(tmp_path / "none.pth")
    with pytest.raises(FileNotFoundError):
        read_torch_file(tmp_path / "none.pth", check=True)
    with pytest.raises(FileNotFoundError):
        read_safetensors(tmp_path / "none.safetensors")


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"PK\x03\x04rest", b"some text\n" * 20])
@pytest.mark.parametrize("check", [True, False])
def test_other_files_are_named(tmp_path: Path, content: bytes, check: bool) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"other\.pth"):
        read_torch_file(path, check=check)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_recognised(tmp_path: Path, share: float) -> None:
    path = tmp_path / "x.pth"
    write_torch_file(path, {"a": torch.randn(500)})
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    for check in (True, False):
        with pytest.raises(CheckpointError, match="damaged or cut short"):
            read_torch_file(path, check=check)


@pytest.mark.parametrize("check", [True, False])
def test_flipped_bits_are_recognised(tmp_path: Path, check: bool) -> None:
    path = tmp_path / "x.pth"
    write_torch_file(path, {"a": torch.arange(4000.0)})
    data = bytearray(path.read_bytes())
    middle = data.index(torch.arange(2000.0, 2010.0).numpy().tobytes())
    data[middle] ^= 4
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"x\.pth is damaged: the checksum"):
        read_torch_file(path, check=check)


def test_safetensors_round_trip(tmp_path: Path) -> None:
    weight = torch.randn(3, 4)
    tensors = {
        "a": weight,
        "tied": weight,
        "view": weight.t(),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "empty": torch.empty(0, 3),
        "flag": torch.tensor(True),
    }
    path = tmp_path / "x.safetensors"
    write_safetensors(path, tensors, {"recipe": "text\n# ü"})
    back, header = read_safetensors(path)
    assert header == {"recipe": "text\n# ü"}
    assert back.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert back[key].dtype == tensor.dtype
        assert torch.equal(back[key], tensor)


def test_damaged_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": torch.ones(100)}, {})
    data = path.read_bytes()
    for broken in (data[:-10], data[:20], b"", b"\xff" * 64):
        path.write_bytes(broken)
        with pytest.raises(CheckpointError, match=r"x\.safetensors is not a safetensors file"):
            read_safetensors(path)


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"a": torch.arange(9), "b": torch.zeros(0)}, {"recipe": "0" * 64 + "ü"})
    whole = path.read_bytes()
    for place in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"x\.safetensors .*damaged"):
            read_safetensors(path)


def test_equal_content_gives_equal_bytes_that_others_read(tmp_path: Path) -> None:
    texts = {f"key{number}": '\x01\t"\\/\u2028 ü' * number for number in range(20)}
    files = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for file in files:
        write_safetensors(file, {"w": torch.ones(3), "half": torch.ones(1).bfloat16()}, texts)
    assert len({file.read_bytes() for file in files}) == 1
    assert read_safetensors(files[0])[1] == texts
    assert list(load_file(files[0])["w"]) == [1.0, 1.0, 1.0]


def test_files_of_others_have_no_digest(tmp_path: Path) -> None:
    save_file({"w": torch.ones(2)}, tmp_path / "x.safetensors", {"sha256": "of something else"})
    tensors, header = read_safetensors(tmp_path / "x.safetensors")
    assert tensors["w"].tolist() == [1.0, 1.0] and header == {"sha256": "of something else"}


def test_is_safetensors() -> None:
    assert is_safetensors(Path("a/B.SafeTensors"))
    assert not is_safetensors("a.safetensors.pth")
