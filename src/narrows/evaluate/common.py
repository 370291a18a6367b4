"""Rows through a model, and means over them with their errors."""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from narrows import draws
from narrows.contract import Batch
from narrows.data import Rows
from narrows.data import rows as as_rows
from narrows.memory import keep_freed
from narrows.models import Model

__all__ = ["Mean", "batches", "codes", "device_of", "inputs", "reconstruct"]


class Mean(NamedTuple):
    """A mean over rows and its standard error (of the rows as a sample of all rows there could be)."""

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: Tensor) -> "Mean":
        """Of (n,) values."""
        values = values.double()
        error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(float(values.mean()), error)

    def against(self, other: "Mean", worse: str, sign: int = 1) -> str:
        """What is said after a baseline: nothing where this is better by two of their errors, else "; " and a word.

        `worse` where it is worse by as much; `sign` is 1 where more is better, -1 where less.

        Example:
            >>> Mean(0.7, 0.01).against(Mean(0.6, 0.01), "WORSE"), Mean(0.7, 0.1).against(Mean(0.6, 0.1), "WORSE")
            ('', '; no clear difference')
        """
        errors = [one.standard_error for one in (self, other) if not math.isnan(one.standard_error)]  # inf: unknown
        gain, edge = sign * (self.mean - other.mean), 2 * math.hypot(*errors)
        return "" if gain > edge else f"; {worse}" if gain < -edge else "; no clear difference"

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.standard_error:.2g}"


def device_of(model: Model) -> torch.device:
    """Where its weights lie."""
    return next(model.parameters()).device


def batches(model: Model, data: Rows | Tensor, size: int = 1024) -> Iterator[Batch]:
    """The rows on the model's device, `size` at a time.

    Raises: ValueError for rows of another shape, or a prior of another codebook.
    """
    rows = as_rows(data)
    if rows.wanted != model.shape:
        raise ValueError(f"the model is for rows of shape {model.shape}; these have {rows.wanted}")
    model.check()
    model.eval()
    keep_freed()
    rows = rows.to(device_of(model))
    for start in range(0, len(rows), size):
        # rows that are binarised anew at every reading are read alike by every function here
        with draws.seeded(0, 11, start) if rows.binarise == "dynamic" else nullcontext():
            batch = rows.batch(torch.arange(start, min(start + size, len(rows)), device=rows.device))
        yield batch


def inputs(model: Model, data: Rows | Tensor) -> Tensor:
    """The rows as the other functions see them, (n, *event) in model units, on the CPU."""
    x = torch.empty(0)
    done = 0
    for batch in batches(model, data):
        if not done:  # filled in place: a list of parts and their sum would lie in memory together
            x = torch.empty(len(as_rows(data)), *model.shape, dtype=batch.target.dtype)
        x[done : done + len(batch.target)] = batch.target
        done += len(batch.target)
    return x


@torch.no_grad()
def codes(model: Model, data: Rows | Tensor, draw: bool = False) -> Tensor:
    """The point code (posterior mean) of each row, or a draw from q(z|x), (n, D), on the CPU."""
    return torch.cat([model.encode(batch.x, batch.context, draw=draw).z.cpu() for batch in batches(model, data)])


@torch.no_grad()
def reconstruct(model: Model, data: Rows | Tensor) -> Tensor:
    """E[x | z] at the point code of each row, (n, *event) in model units, on the CPU."""
    parts = batches(model, data)
    return torch.cat([model.decode(model.encode(b.x, b.context).z, b.context).mean.cpu() for b in parts])
