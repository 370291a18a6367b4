"""Series: windows of consecutive rows as rows of their own, and what is said of windows brought back to their steps."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["named", "steps", "unnamed", "windows", "within"]


def windows(x: NDArray[np.generic], length: int) -> NDArray[np.generic]:
    """Every stretch of `length` rows of a series (T, C) as one row, (T - length + 1, length * C), oldest first: a view.

    Raises: ValueError for a series that is no longer than one window.

    Example:
        >>> windows(np.array([[1, 10], [2, 20], [3, 30]]), 2).tolist()
        [[1, 10, 2, 20], [2, 20, 3, 30]]
    """
    if not 1 <= length < max(len(x), 2):
        raise ValueError(f"windows of {length} steps need a series of more; this one has {len(x)}")
    flat = np.ascontiguousarray(x)
    view: NDArray[np.generic] = np.lib.stride_tricks.sliding_window_view(flat.reshape(-1), length * x.shape[1])
    return view[:: x.shape[1]]


def named(channels: Sequence[str], length: int) -> list[str]:
    """The columns of a window: flow[-2], flow[-1], flow[0] are what flow was two steps ago, one ago, and last."""
    return [f"{name}[{lag}]" for lag in range(1 - length, 1) for name in channels]


def unnamed(columns: Sequence[str], length: int) -> list[str]:
    """The channels that `named` made columns of."""
    return [name.removesuffix("[0]") for name in columns[len(columns) // length * (length - 1) :]]


def within(keys: NDArray[np.generic], length: int) -> NDArray[np.bool_]:
    """Which windows lie in one stretch of equal keys (T,), (T - length + 1,)."""
    stretch = np.concatenate([[0], np.cumsum(keys[1:] != keys[:-1])])
    inside: NDArray[np.bool_] = stretch[: len(stretch) - length + 1] == stretch[length - 1 :]
    return inside


def steps(values: Tensor, numbers: Tensor, length: int, count: int) -> Tensor:
    """The mean at each of `count` steps over the windows that hold it; NaN where none does.

    Arguments: `values` of windows, (n,), or (n, length, ...) where they differ from step to step; `numbers` (n,), the
    step that each window begins with.

    Example:
        >>> steps(torch.tensor([1.0, 3.0]), torch.tensor([0, 1]), 2, 4)
        tensor([1., 2., 3., nan])
    """
    total, found = values.new_zeros(count, *values.shape[2:]), values.new_zeros(count)
    for lag in range(length):
        total.index_add_(0, numbers + lag, values if values.ndim == 1 else values[:, lag])
        found.index_add_(0, numbers + lag, torch.ones_like(numbers, dtype=values.dtype))
    return total / found.view(-1, *[1] * (total.ndim - 1))
