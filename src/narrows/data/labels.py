"""Labels of any kind as integers."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from narrows import draws

__all__ = ["code", "few"]


def code(values: Any, rows: int, source: str) -> tuple[Tensor, list[str], list[str]]:
    """Labels (n,) as int64 0, 1, ... in the order of their values, the classes' names, and notes.

    What is missing (-1, NaN, None or empty text) becomes -1, unlabelled.

    Raises: ValueError where there is not one label a row, or labels are fractions.
    """
    given = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
    given = given[:, 0] if given.ndim == 2 and given.shape[1] == 1 else given
    if given.shape != (rows,):
        raise ValueError(f"one label a row is needed; {source} has {rows} rows and labels of shape {given.shape}")
    if given.dtype.kind == "f":
        known = ~np.isnan(given)
        if not (np.isfinite(given[known]) & (given[known] == np.rint(given[known]))).all():
            raise ValueError(
                f"labels are classes, and those of {source} are fractions such as "
                f"{given[known][given[known] != np.rint(given[known])][0]:g}; leave them out or bin them first"
            )
        given = np.where(known, given, -1).astype(np.int64)
    if given.dtype.kind in "bui":
        given = given.astype(np.int64)
        known = given != -1
    else:
        text = ["" if v is None or v != v else str(v).strip() for v in given.tolist()]
        given = np.array(text)
        known = given != ""
    classes, place = np.unique(given[known], return_inverse=True)
    coded = np.full(rows, -1, np.int64)
    coded[known] = place
    missing = int((~known).sum())
    notes = [f"{missing} of {rows} rows have no label"] if missing else []
    return torch.from_numpy(coded), [str(c) for c in classes.tolist()], notes


def few(label: Tensor, train: Tensor, test: Tensor, n: int, seed: int) -> Tensor:
    """Labels of which n training rows keep theirs, as many of each class as can be; so do the rows that judge.

    For trying out how far few labels go. Raises: ValueError for more labels than there are.
    """
    known = (label >= 0) & train
    if n > int(known.sum()):
        raise ValueError(f"there are {int(known.sum())} training rows with a label; got labelled={n}")
    order = torch.randperm(len(label), generator=torch.Generator().manual_seed(draws.mix(seed, 16)))
    order = order[known[order]]
    of_class = label[order][:, None] == torch.arange(int(label.max()) + 1)  # (known, classes)
    rank = (of_class.cumsum(0) * of_class).sum(1)  # the first of each class, then the second of each
    kept = torch.zeros_like(known)
    kept[order[rank.argsort(stable=True)[:n]]] = True
    return torch.where(kept | test, label, -1)
