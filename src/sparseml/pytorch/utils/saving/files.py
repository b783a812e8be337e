"""Files that are whole or absent: atomic writing, and reading that notices damage.

Safetensors files that are written here carry the SHA-256 of their own bytes in the header, so that
flipped bits are found; the same content gives the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sparseml.utils.atomic import atomic_path as atomic_path
from sparseml.utils.atomic import previous_path as previous_path
from sparseml.utils.plain import json_of

SAFETENSORS_SUFFIX = ".safetensors"
# two entries, so that no single damage makes a file look like one that never had a digest
_DIGEST, _ZEROS = "sparseml.sha256", "0" * 64
_SEAL = {_DIGEST: _ZEROS, "sparseml.sha256.of": "this file, with zeros in place of the digest"}
_CHUNK = 1 << 22
_PathLike = str | os.PathLike[str]


class CheckpointError(RuntimeError):
    """A file of weights that is damaged, unsafe to read, or lacks what was asked for."""


def is_safetensors(path: _PathLike) -> bool:
    """Whether ``path`` names a safetensors file, by its ending."""
    return Path(path).suffix.lower() == SAFETENSORS_SUFFIX


def write_torch_file(
    path: _PathLike, content: Any, zipped: bool = True, keep_previous: bool = False
) -> None:
    """Write ``content`` with ``torch.save``, atomically.

    :param zipped: False for torch's format before 1.6
    :param keep_previous: keep the file that is replaced at ``previous_path(path)``
    """
    with atomic_path(path, keep_previous) as part:
        torch.save(content, part, _use_new_zipfile_serialization=zipped)


def read_torch_file(path: _PathLike, map_location: Any = "cpu", check: bool = False) -> Any:
    """Read a file of ``torch.save``, tensors and plain data only (``weights_only=True``).

    The checksums in the file are compared first, which finds flipped bits at the price of reading
    the file twice.

    :param check: take no file without checksums; only those in torch's zip format have them
    :raises FileNotFoundError: if there is no such file
    :raises CheckpointError: naming the file, if it is damaged or cut short, or can only be read
        by running code in it (whole pickled modules and other pickled classes)
    """
    file = Path(path).expanduser()
    compare_checksums(file, check)
    try:
        return torch.load(file, map_location=map_location, weights_only=True)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # bytes at random make an unpickler raise anything
        raise _unreadable(file, error) from error


def _unreadable(file: Path, error: Exception) -> CheckpointError:
    first = (str(error).splitlines() or ["no details"])[0]
    if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error).upper():
        return CheckpointError(
            f"{file} holds pickled classes, and unpickling those can run any code; it is not read. "
            "Save state dicts instead of whole objects (model.state_dict(), save_model). "
            f"torch says: {first}"
        )
    sentence = first.partition(". ")[0]  # torch goes on with advice
    return CheckpointError(
        f"{file} is not a file of torch.save, or is damaged or cut short "
        f"({type(error).__name__}: {sentence})"
    )


def compare_checksums(file: Path, check: bool = False) -> None:
    """Compare the checksums in a file of ``torch.save``, which torch itself does not.

    :param check: take no file without checksums
    :raises CheckpointError: naming the file, if it is damaged
    """
    if not (check or zipfile.is_zipfile(file)):
        return
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
            # torch writes none where it was told so: set_crc32_options(False)
            checked = any(part.CRC for part in parts) or not any(part.file_size for part in parts)
            broken = archive.testzip() if checked else None
    except OSError:
        raise
    except Exception as error:  # as for unpickling: the bytes may be anything
        raise CheckpointError(f"{file} is damaged or cut short ({error})") from error
    if broken is not None:
        raise CheckpointError(f"{file} is damaged: the checksum of its part {broken!r} is wrong")


def write_safetensors(
    path: _PathLike, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write tensors with texts in the header, and the digest of both, atomically.

    Tensors that share memory (tied weights) are written once under each of their names.
    """
    # the format knows no sharing and no strides
    plain = {
        key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, tensor in tensors.items()
    }
    with atomic_path(path) as part:
        save_file(plain, str(part), metadata={**metadata, **_SEAL})
        _seal(part)


def read_safetensors(
    path: _PathLike, map_location: Any = "cpu"
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file and the texts of its header.

    :raises FileNotFoundError: if there is no such file
    :raises CheckpointError: naming the file, if it is damaged or cut short; of files by others,
        which carry no digest, only damage to the form is found
    """
    file = Path(path).expanduser()
    if not file.exists():
        raise FileNotFoundError(f"no such file: {file}")
    try:
        with safe_open(str(file), framework="pt", device=str(map_location)) as opened:
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
            metadata = opened.metadata() or {}
    except SafetensorError as error:
        raise CheckpointError(
            f"{file} is not a safetensors file, or is damaged or cut short ({error})"
        ) from error
    held = {key: metadata.pop(key, None) for key in _SEAL}
    if any(held.values()) and held != {**_SEAL, _DIGEST: _digest(file, str(held[_DIGEST]))}:
        raise CheckpointError(f"{file} is damaged: its bytes are not those that were written")
    return tensors, metadata


def _seal(file: Path) -> None:
    """Bring the texts in the header into a fixed order, and put the digest of the file there."""
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(size))
    texts = header["__metadata__"]
    header["__metadata__"] = {key: texts[key] for key in sorted(texts)}
    for digest in (_ZEROS, None):
        header["__metadata__"][_DIGEST] = digest or _digest(file)
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        with file.open("r+b") as opened:
            opened.seek(8)
            opened.write(text.ljust(size))


def _digest(file: Path, digest: str = _ZEROS) -> str:
    """Return the SHA-256 of a safetensors file with zeros where its digest stands."""
    found = hashlib.sha256()
    with file.open("rb") as opened:
        begin = opened.read(8)
        header = opened.read(int.from_bytes(begin, "little"))
        found.update(begin + header.replace(digest.encode(), _ZEROS.encode()))
        while chunk := opened.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def files_of_index(index: Path) -> list[str]:
    """Return the names of the files that a model of Transformers is shared out over.

    :raises CheckpointError: if the index is damaged
    """
    try:
        return sorted({*map(str, json_of(index.read_bytes())["weight_map"].values())})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{index} is damaged: {error}") from error
