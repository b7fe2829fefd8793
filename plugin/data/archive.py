"""Data sets in one file of numpy arrays, `.npz`. Nothing in it is ever unpickled: that could run code."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from newrelax.errors import UserError, one_line
from plugin.data.arrays import KEYS, from_arrays
from plugin.data.dataset import Dataset


def read_archive(path: Path) -> Dataset:
    """The data set in an archive with the arrays of KEYS; other arrays in it are left alone.

    Raises:
        UserError: a file that is no such archive, and says what it holds; arrays that cannot be trained with.
    """
    try:
        with path.open("rb") as file, _opened(path, np.load(file, allow_pickle=False)) as archive:
            missing = [key for key in KEYS if key not in archive.files]
            if missing:
                raise _refusal(path, f"it holds {', '.join(archive.files) or 'nothing'}")
            arrays = [_array(path, key, archive) for key in KEYS]
    except UserError:
        raise
    except Exception as problem:  # a damaged file fails wherever its reader happens to be
        # numpy takes whatever it does not know for a pickle.
        foreign = isinstance(problem, ValueError) and "pickle" in str(problem)
        what = "it is no archive (pickled data is never loaded)" if foreign else f"it is damaged ({one_line(problem)})"
        raise _refusal(path, what) from problem
    return from_arrays(path.stem, *arrays)


def _opened(path: Path, loaded: object) -> np.lib.npyio.NpzFile:
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise _refusal(path, f"it holds a single array, {_kind(loaded)}")
    return loaded


def _array(path: Path, key: str, archive: np.lib.npyio.NpzFile) -> np.ndarray:
    try:
        array = archive[key]
    except ValueError as problem:
        if "pickle" in str(problem):
            raise _refusal(path, f"its {key} holds Python objects, which are never unpickled") from problem
        raise
    if not isinstance(array, np.ndarray):
        raise _refusal(path, f"its {key} is {_kind(array)}")
    return array


def _kind(value: object) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else f"no array but {type(value).__name__}"


def _refusal(path: Path, problem: str) -> UserError:
    return UserError(f"{path}: expected an .npz archive with the arrays {', '.join(KEYS)}, but {problem}")
