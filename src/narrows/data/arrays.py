"""Arrays: in memory, .npy and .npz."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from narrows.data import found
from narrows.data.found import Found

__all__ = ["from_array", "from_npy", "from_npz"]

INPUTS = ("x", "data", "images", "features", "inputs")
LABELS = ("y", "label", "labels", "target", "targets")


def from_array(x: Any, label: Any = None) -> Found:
    """An array in memory, and labels or None. Raises TypeError for what is no array."""
    if isinstance(x, Tensor):
        held = x.detach().cpu()
        x = (held.float() if held.dtype == torch.bfloat16 else held).numpy()
    values = np.asarray(x)
    if values.ndim == 0:
        raise TypeError(
            "data are read from a path, the name of a set, an array, a tensor, an (X, y) pair or a dataframe; got "
            f"{type(x).__name__}"
        )
    return Found("array", "array", values, label)


def from_npy(path: Path) -> Found:
    """A .npy file; it stays on disk where it is large."""
    try:
        mapped: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        x = mapped if mapped.nbytes > found.IN_MEMORY else np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(_unreadable(path, error)) from error
    return Found(path.stem, str(path), x)


def from_npz(path: Path, label: str | None = None) -> Found:
    """An .npz file: x and y by their usual names, or x_train, y_train, x_test, y_test with its own test part."""
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays: dict[str, NDArray[Any]] = {name: file[name] for name in file.files}
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(_unreadable(path, error)) from error
    keys = {name.lower(): name for name in arrays}
    if "x_train" in keys:
        return _parted(path, {lower: arrays[name] for lower, name in keys.items()})
    if label is not None and label not in arrays:
        raise ValueError(f"{path} has no array {label!r} for the labels; it holds {', '.join(arrays)}")
    label = label or next((keys[k] for k in LABELS if k in keys), None)
    rest = [name for name in arrays if name != label]
    x = next((keys[k] for k in INPUTS if keys.get(k) in rest), rest[0] if rest else None)
    if x is None:
        raise ValueError(f"{path} holds no array that could be an input; save it with np.savez(path, x=..., y=...)")
    read = Found(path.stem, str(path), arrays[x], arrays[label] if label else None)
    ignored = [name for name in rest if name != x]
    if ignored:
        read.notes.append(f"array {x!r} was read, not {', '.join(map(repr, ignored))}")
    return read


def _parted(path: Path, arrays: dict[str, NDArray[Any]]) -> Found:
    names = [name for name in ("train", "valid", "test") if f"x_{name}" in arrays]
    xs = [arrays[f"x_{name}"] for name in names]
    if len({x.shape[1:] for x in xs}) > 1:
        raise ValueError(f"the parts of {path} differ in shape: {', '.join(str(x.shape) for x in xs)}")
    numbers = {"train": 0, "valid": 1, "test": 2}
    part = np.concatenate([np.full(len(x), numbers[name], np.uint8) for name, x in zip(names, xs, strict=True)])
    labelled = all(f"y_{name}" in arrays for name in names)
    label = np.concatenate([arrays[f"y_{name}"] for name in names]) if labelled else None
    return Found(path.stem, str(path), np.concatenate(xs), label, part=part if len(names) > 1 else None)


def _unreadable(path: Path, error: Exception) -> str:
    # numpy says of a file that it does not know at all that it must be a pickle, and speaks of objects where it is one
    if "object arrays" in str(error).lower() or "Python objects" in str(error):
        return f"{path} holds Python objects, which are never unpickled; save an array of numbers"
    return f"{path} is damaged or cut short and cannot be read; make or copy it again"
