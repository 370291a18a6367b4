"""One look at all values: can they be used, what grid are they on, which rows are copies."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from narrows.data.found import chunks, dtype_of
from narrows.data.split import digests

__all__ = ["Survey", "broken", "check", "grid", "moments", "survey"]

LEVELS = 65536  # a wider range of whole numbers is treated as continuous


@dataclass
class Survey:
    """What one look found.

    Attributes: `low`, `high` (D,) of each value of the event; `whole`, all are integers; `bytes_`, all are k / 255;
    `keys` (n,) a hash of each row; `notes`.
    """

    low: NDArray[Any]
    high: NDArray[Any]
    whole: bool
    bytes_: bool
    keys: NDArray[np.uint64]
    notes: list[str]

    @property
    def binary(self) -> bool:
        """Whether there are no values but 0 and 1."""
        return self.whole and self.low.min() >= 0 and self.high.max() <= 1


def check(x: NDArray[Any], source: str, least: int = 2) -> None:
    """Raises ValueError for what is no array of numbers (n, *event) with `least` rows or more."""
    if x.dtype.kind == "c":
        raise ValueError(f"{source} holds complex numbers; split them into real and imaginary columns first")
    if x.dtype.kind not in "buif":
        what = "text" if x.dtype.kind in "US" else f"values of type {x.dtype}"
        raise ValueError(f"{source} holds {what} where numbers are needed; convert it with astype(float) or code it")
    if x.ndim < 2:
        raise ValueError(
            f"rows of an array of shape (rows, columns) or (rows, height, width) are needed; {source} has shape "
            f"{x.shape}; reshape(-1, 1) makes a column of it"
        )
    if len(x) == 0:
        raise ValueError(f"{source} has no rows")
    if x[0].size == 0:
        raise ValueError(f"{source} has no columns that could be an input (shape {x.shape})")
    if len(x) < least:
        raise ValueError(f"{source} has one row; a model needs two at least, and better hundreds")


def survey(
    x: Tensor | NDArray[Any], source: str, columns: list[str] | None, seed: int | None, missing: bool = False
) -> Survey:
    """Reads every value once; without a `seed` rows are not hashed, so copies are not found.

    Raises: ValueError for values that are NaN or infinite, unless they may be missing.
    """
    shape = tuple(x.shape)
    bad = np.zeros(int(np.prod(shape[1:])), np.int64)  # how many, and in which row first
    first = np.full_like(bad, shape[0])
    low: Any = None
    high: Any = None
    whole = bytes_ = True
    keys = []
    for place, values in chunks(x):
        flat = values.reshape(len(values), -1)
        if flat.dtype.kind == "f":
            flat = flat + flat.dtype.type(0)  # -0.0 is 0.0 to everyone but a hash
            lost = ~np.isfinite(flat)
            if missing:
                keys += [] if seed is None else [digests(flat.view(np.uint8), seed)]
                flat = np.where(lost, -1e30, flat)  # a column with holes is not one that never changes
            elif lost.any():
                bad += lost.sum(0)
                first = np.minimum(first, np.where(lost.any(0), place.start + lost.argmax(0), shape[0]))
                continue
            whole = whole and bool((flat == np.rint(flat)).all())
            bytes_ = bytes_ and _are_bytes(flat)
        low = flat.min(0) if low is None else np.minimum(low, flat.min(0))
        high = flat.max(0) if high is None else np.maximum(high, flat.max(0))
        if not missing and seed is not None:
            keys.append(digests(flat.view(np.uint8), seed))
    if bad.any():
        raise ValueError(broken(bad, first, source, columns, len(shape) == 2))
    found = Survey(low, high, whole, bytes_, np.concatenate(keys) if keys else np.empty(0, np.uint64), [])
    found.notes += _constant(low == high, shape, columns)
    copies = len(found.keys) - len(np.unique(found.keys))
    if copies:
        found.notes.append(f"{copies} of {shape[0]} rows are copies of another row")
    return found


def grid(x: Tensor | NDArray[Any], found: Survey) -> tuple[float, float, int] | None:
    """(low, step, levels) of values that are whole numbers or k / 255; None where they are neither, or too many."""
    low, high = float(found.low.min()), float(found.high.max())
    if not found.whole:
        return (0.0, 1 / 255, 256) if found.bytes_ else None
    if high - low >= LEVELS:
        return None
    present = np.zeros(int(high - low) + 1, bool)
    for _, values in chunks(x):
        # a difference of small integers may not fit their type
        present[(values.astype(np.float64 if values.dtype.kind == "f" else np.int64) - low).astype(np.intp)] = True
    where = np.flatnonzero(present)
    step = int(np.gcd.reduce(where))
    levels = int(where[-1]) // step + 1
    if levels > 2 and dtype_of(x) == np.uint8 and high > 127:
        return (0.0, 1.0, 256)
    return (low, float(step), levels)


def moments(
    x: Tensor | NDArray[Any], chosen: NDArray[np.bool_], each: bool
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the chosen rows in float64: of each column, or one of each for all values.

    Chunks are merged after Chan, Golub & LeVeque (1983), doi:10.1080/00031305.1983.10483115, equation 2.1.
    """
    count, mean, squares = 0, np.zeros(1), np.zeros(1)
    shift: Any = None
    for place, values in chunks(x):
        flat = values[chosen[place]].astype(np.float64)
        flat = flat.reshape(len(flat), -1) if each else flat.reshape(-1, 1)
        if not len(flat):
            continue
        shift = flat[0].copy() if shift is None else shift
        flat -= shift  # a constant column is then exactly 0, and its std has no rounding errors to be blown up
        total = count + len(flat)
        own = flat.mean(0)
        squares = squares + np.square(flat - own).sum(0) + (own - mean) ** 2 * count * len(flat) / total
        mean = mean + (own - mean) * len(flat) / total
        count = total
    std = np.sqrt(squares / count)
    std[std == 0] = 1.0
    return tuple((mean + shift).tolist()), tuple(std.tolist())


def _are_bytes(flat: NDArray[Any]) -> bool:
    if not len(flat) or np.abs(flat).max() > 2:
        return False
    k = flat.astype(np.float64) * 255
    error = max(1e-4, 255 * float(np.finfo(flat.dtype).eps))
    return bool(((k > -0.5) & (k < 255.5) & (np.abs(k - np.rint(k)) <= error)).all())


def broken(bad: NDArray[Any], first: NDArray[Any], source: str, columns: list[str] | None, table: bool = True) -> str:
    """What is said of `bad` (D,) values that are no numbers, from row `first` (D,) on."""
    worst = np.flatnonzero(bad)
    if table:
        where = f"{bad[worst[0]]} values of {_column(worst[0], columns)}"
        row = first[worst[0]]
    else:
        where, row = f"{bad.sum()} values", first.min()
    others = f"; {len(worst) - 1} more columns have some" if table and len(worst) > 1 else ""
    lost = f"{source}: {where} are missing, NaN or infinite (the first in row {row})"
    return f"{lost}{others}; fill them in or leave them out"


def _column(number: int, columns: list[str] | None) -> str:
    return f"column {columns[number]!r}" if columns else f"column {number}"


def _constant(same: NDArray[np.bool_], shape: tuple[int, ...], columns: list[str] | None) -> list[str]:
    if not same.any():
        return []
    if len(shape) > 2:
        return [f"{same.sum()} of {same.size} values are the same in every row"]
    named = [columns[i] if columns else str(i) for i in np.flatnonzero(same)[:5]]
    more = ", ..." if same.sum() > 5 else ""
    return [f"{same.sum()} of {same.size} columns are constant ({', '.join(named)}{more})"]
