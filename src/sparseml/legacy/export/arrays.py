"""numpy arrays in files and batches."""

from __future__ import annotations

import itertools
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from sparseml.utils.paths import clean_path, create_dirs

if TYPE_CHECKING:
    import numpy as np

Arrays = Any  # an array, or mappings and iterables of arrays, nested at will


def load_numpy(file_path: str | os.PathLike[str]) -> np.ndarray | dict[str, np.ndarray]:
    """Return the array in a ``.npy`` file or those in a ``.npz`` by name; no pickled objects."""
    import numpy as np

    content = np.load(clean_path(file_path), allow_pickle=False)
    if isinstance(content, np.ndarray):
        return content
    with content:
        return OrderedDict((name, content[name]) for name in content.files)


def save_numpy(
    array: Arrays, export_dir: str | os.PathLike[str], name: str, npz: bool = True
) -> str:
    """Write an array, or several with ``npz``, to a file; return its path.

    :param array: an array, a mapping of names to arrays, or an iterable of arrays
    :param export_dir: the folder, created if needed
    :param name: the file's name without extension
    :param npz: write ``.npz``; otherwise ``.npy``, which holds a single array
    """
    import numpy as np

    create_dirs(export_dir)
    path = os.path.join(clean_path(export_dir), f"{name}.{'npz' if npz else 'npy'}")
    if not npz:
        np.save(path, np.asarray(array))
    elif isinstance(array, Mapping):
        np.savez_compressed(path, **array)
    elif isinstance(array, (np.ndarray, np.generic)):
        np.savez_compressed(path, array)
    else:
        np.savez_compressed(path, *array)
    return path


def tensor_export(
    tensor: Arrays, export_dir: str | os.PathLike[str], name: str, npz: bool = True
) -> str:
    """Do what :func:`save_numpy` does."""
    return save_numpy(tensor, export_dir, name, npz)


def tensors_export(
    tensors: Arrays,
    export_dir: str | os.PathLike[str],
    name_prefix: str,
    counter: int = 0,
    break_batch: bool = False,
) -> list[str]:
    """Write each array to a file ``<prefix>-<four digits>.npz``; return the files' paths.

    :param tensors: an array, or mappings and iterables of arrays, nested at will
    :param export_dir: the folder, created if needed
    :param counter: the first number
    :param break_batch: write a file for each element along an array's first dimension
    """
    arrays = [
        part for array in _flat_arrays(tensors) for part in (array if break_batch else [array])
    ]
    return save_numbered(arrays, export_dir, name_prefix, counter)


def save_numbered(
    arrays: Iterable[Arrays], export_dir: str | os.PathLike[str], name_prefix: str, counter: int
) -> list[str]:
    """Call :func:`save_numpy` for each, with names ``<prefix>-<four digits>``; return paths."""
    numbers = itertools.count(counter)
    return [save_numpy(a, export_dir, f"{name_prefix}-{next(numbers):04d}") for a in arrays]


def _flat_arrays(tensors: Arrays) -> Iterable[np.ndarray]:
    import numpy as np

    if isinstance(tensors, np.ndarray):
        yield tensors
    elif isinstance(tensors, Mapping):
        yield from _flat_arrays(list(tensors.values()))
    elif isinstance(tensors, Iterable) and not isinstance(tensors, (str, bytes)):
        for element in tensors:
            yield from _flat_arrays(element)
    else:
        raise ValueError(f"arrays are needed, found {type(tensors).__name__}")


class NumpyArrayBatcher:
    """Collects samples, each a mapping of names to arrays, and stacks them into a batch."""

    def __init__(self) -> None:
        self._items: OrderedDict[str, list[np.ndarray]] = OrderedDict()

    def __len__(self) -> int:
        return len(next(iter(self._items.values()), []))

    def append(self, item: Mapping[str, np.ndarray]) -> None:
        """Add a sample; a ValueError if its names or shapes are not those of the first."""
        if self._items and set(item) != set(self._items):
            raise ValueError(f"names must be {sorted(self._items)}, found {sorted(item)}")
        for name, held in self._items.items():
            wanted, found = held[0].shape, item[name].shape
            if wanted != found:
                raise ValueError(f"{name} must have shape {wanted}, found {found}")
        for name, array in item.items():
            self._items.setdefault(name, []).append(array)

    def stack(self) -> dict[str, np.ndarray]:
        """Return the samples by name, each with a new first dimension of the number of samples."""
        import numpy as np

        return OrderedDict((name, np.stack(arrays)) for name, arrays in self._items.items())
