"""What a reader hands over: values as they are stored, and whatever came with them."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["IN_MEMORY", "UNKEPT", "Found", "chunks", "dtype_of", "named_once", "tensor"]

IN_MEMORY = 1 << 30  # bytes; what is larger stays on disk
UNKEPT = (None, "array", "table")  # sources that were in memory alone and cannot be read again
CHUNK = 1 << 22  # bytes read at a time when a whole array is looked at


@dataclass
class Found:
    """Values (n, *event) and their company, before anything is checked.

    `label`, `group`, `time` are (n,) of any type, or None; `told` (n, c) the columns of context. `part` (n,) is 0
    train, 1 valid, 2 test where the source brings its own parts. `table` are the inputs of a table of mixed columns,
    which x is only the shape of.
    """

    name: str
    source: str
    x: NDArray[Any]
    label: Any = None
    columns: list[str] | None = None
    part: NDArray[np.uint8] | None = None
    group: Any = None
    time: Any = None
    classes: list[str] | None = None
    told: NDArray[Any] | None = None
    table: Any = None
    notes: list[str] = field(default_factory=list)


def dtype_of(x: Tensor | NDArray[Any]) -> np.dtype[Any]:
    """The numpy dtype that torch holds such values in, without loss."""
    dtype = np.dtype(str(x.dtype).removeprefix("torch."))
    wider = {"b": {1: "u1"}, "u": {2: "i4", 4: "i8", 8: "i8"}, "f": {16: "f8", 12: "f8"}}
    return np.dtype(wider.get(dtype.kind, {}).get(dtype.itemsize, dtype.newbyteorder("=")))


def named_once(names: Sequence[str], source: Any) -> None:
    """Raises ValueError where two columns have one name."""
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise ValueError(f"{source} has {count} columns called {name!r}; rename them")


def tensor(x: NDArray[Any]) -> Tensor:
    """An array as a tensor; shares memory where it can."""
    held = np.ascontiguousarray(x, dtype_of(x))
    return torch.from_numpy(held if held.flags.writeable else held.copy())


def chunks(x: Tensor | NDArray[Any]) -> Iterator[tuple[slice, NDArray[Any]]]:
    """The array a few rows at a time, (r, *event) contiguous in its native dtype, each with its place."""
    values = x.numpy() if isinstance(x, Tensor) else x
    size = max(1, CHUNK // max(1, values[:1].nbytes))
    for start in range(0, len(values), size):
        place = slice(start, min(start + size, len(values)))
        yield place, np.ascontiguousarray(values[place], dtype_of(values))
