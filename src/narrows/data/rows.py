"""Some rows of a data set: the thing that training and evaluation read."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from narrows import draws
from narrows.contract import Batch
from narrows.data.codec import TableCodec
from narrows.data.found import tensor
from narrows.data.scaling import Scaling
from narrows.data.windows import steps

__all__ = ["Rows", "rows"]


class Rows:
    """Rows of an array, scaled when they are asked for.

    In memory: a batch is one gather and one scaling on the device. On disk: the gather is numpy's, in the order of the
    file, and the batch is moved to the device before it is scaled. Whatever is handed out lies in the support of the
    likelihood: with `binarise="dynamic"` every reading draws anew, `draws.uniform(1, x)[0] < x`.

    Arguments: `x` raw, (N, *event), a tensor or an array on disk; `scaling` to model units, None where x is in model
    units; `label` (N,) integers or None; `binarise` None, "fixed", "dynamic" or "relaxed"; `numbers` (n,) which rows
    of x these are, None for all; `context` the number of classes where a model is told the labels (one-hot), or
    (N, c) other features that it is told; else 0; `window`, of how many steps of a series each row is made, where x
    has one for each step that a window begins with.

    Example:
        >>> some = Rows(torch.tensor([[0], [128], [255]], dtype=torch.uint8), Scaling("levels", "uint8", levels=256))
        >>> some.batch(torch.tensor([2, 0])).x
        tensor([[1.],
                [0.]])
    """

    def __init__(
        self,
        x: Tensor | NDArray[Any],
        scaling: Scaling | TableCodec | None = None,
        label: Tensor | None = None,
        binarise: str | None = None,
        numbers: Tensor | None = None,
        device: str | torch.device | None = None,
        context: int | Tensor = 0,
        window: int = 1,
    ) -> None:
        self.raw, self.window = x, window
        self.scaling = scaling
        self.binarise, self.context = binarise, context if isinstance(context, int) else context.shape[1]
        self.device = torch.device(device or (x.device if isinstance(x, Tensor) else "cpu"))
        self.numbers = numbers if numbers is None else numbers.to(self.device)
        self._label = label if label is None else label.to(self.device)
        self._told = None if isinstance(context, int) else context.to(self.device)
        self._target: Tensor | None = None

    def __len__(self) -> int:
        return len(self.raw if self.numbers is None else self.numbers)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the event."""
        return tuple(self.raw.shape[1:])

    @property
    def wanted(self) -> tuple[int, ...]:
        """Shape of what a likelihood scores: that of the event, unless there is a target."""
        return self.shape if self._target is None else tuple(self._target.shape[1:])

    def towards(self, target: Tensor) -> "Rows":
        """The same rows with what is to be said of each, (n, *wanted), as target: supervised learning."""
        other = copy.copy(self)
        other._target = target.to(self.device)
        if self.numbers is not None:
            other._target = other._target.new_zeros(len(self.raw), *target.shape[1:])
            other._target[self.numbers] = target.to(self.device)
        return other

    @property
    def label(self) -> Tensor | None:
        """(n,) integers, -1 where unlabelled; None without labels."""
        return self._label if self._label is None or self.numbers is None else self._label[self.numbers]

    @property
    def told(self) -> int | Tensor:
        """What `context` would be of these rows alone."""
        return self.context if self._told is None else self._told if self.numbers is None else self._told[self.numbers]

    @property
    def x(self) -> Tensor:
        """All rows in model units, (n, *event): for small sets."""
        return self.batch(torch.arange(len(self))).x

    def to(self, device: str | torch.device) -> "Rows":
        """The same rows for batches on `device`; what is in memory moves there as a whole, what is on disk stays."""
        device = torch.device(device)
        if device == self.device:
            return self
        other = copy.copy(self)
        other.device = device
        if isinstance(self.raw, Tensor):  # only the rows that are wanted
            own = self.take(torch.arange(len(self))).numbers
            other.raw, other.numbers, other.window = self.raw[own].to(device), None, 1
            other._label, other._target, other._told = (
                t if t is None else t[own].to(device) for t in (self._label, self._target, self._told)
            )
        else:
            other.numbers, other._label, other._target, other._told = (
                t if t is None else t.to(device) for t in (self.numbers, self._label, self._target, self._told)
            )
        return other

    def take(self, index: Tensor) -> "Rows":
        """Some of these rows, by position; nothing is copied."""
        other = copy.copy(self)
        other.numbers = index.to(self.device) if self.numbers is None else self.numbers[index.to(self.device)]
        return other

    def steps(self, values: Tensor) -> Tensor:
        """What was found of each row, (n, ...), for each step of the series: the mean over the windows that hold it.

        (T,) from (n,); (T, C) from cells (n, window * C). NaN where no window does. As it is where rows are no windows.
        """
        if self.window == 1:
            return values
        numbers = torch.arange(len(self)) if self.numbers is None else self.numbers.cpu()
        values = values if values.ndim == 1 else values.unflatten(1, (self.window, -1))
        return steps(values, numbers, self.window, len(self.raw) + self.window - 1)

    def batch(self, index: Tensor, step: Tensor | None = None) -> Batch:
        """The rows at positions `index` (B,), in that order; they are their own target where they have no other."""
        index = index.to(self.device)
        at = index if self.numbers is None else self.numbers.index_select(0, index)
        x = self._read(at)
        if self.scaling is not None:
            x = self.scaling(x)
        if self.binarise == "dynamic":
            x = (draws.uniform(1, x)[0] < x).to(x.dtype)
        label = None if self._label is None else self._label.index_select(0, at)
        context = None if self._told is None else self._told.index_select(0, at).to(x.dtype)
        if context is None and self.context and label is not None:
            context = one_hot(label, self.context).to(x.dtype)
        target = x if self._target is None else self._target.index_select(0, at)
        seen = None
        if isinstance(self.scaling, TableCodec) and self._target is None:
            seen = ~target.isnan()  # what is missing is not scored
        return Batch(x, target, context, label, seen, row=index, step=step, rows=len(self))

    def batches(self, size: int) -> Iterator[Batch]:
        """All rows in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.batch(torch.arange(start, min(start + size, len(self)), device=self.device))

    def _read(self, at: Tensor) -> Tensor:
        if isinstance(self.raw, Tensor):
            return self.raw.index_select(0, at)
        wanted = at.cpu().numpy()
        order = np.argsort(wanted, kind="stable")  # the disk is read forwards
        found = self.raw[wanted[order]]
        held = np.empty(found.shape, found.dtype)
        held[order] = found
        return tensor(held).to(self.device, non_blocking=True)

    def __repr__(self) -> str:
        where = self.device if isinstance(self.raw, Tensor) else "disk"
        return f"Rows({len(self)} x {self.shape}, {where})"


def rows(x: "Rows | Tensor | NDArray[Any]") -> Rows:
    """Rows as they are; a tensor or array (n, *event), which must be in model units already, as rows.

    Raises: TypeError for anything else.
    """
    if isinstance(x, Rows):
        return x
    if isinstance(x, np.ndarray):
        x = tensor(x)
    if not isinstance(x, Tensor):
        raise TypeError(f"rows are read from Rows, a tensor or an array (n, *event); got {type(x).__name__}")
    return Rows(x if x.is_floating_point() else x.float())
