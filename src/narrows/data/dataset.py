"""A data set: rows, their parts, and everything that was decided about them."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from narrows.data.codec import TableCodec
from narrows.data.found import chunks, dtype_of
from narrows.data.rows import Rows
from narrows.data.scaling import Scaling
from narrows.data.split import TEST, TRAIN, VALID
from narrows.likelihoods import Likelihood
from narrows.spec import describe

__all__ = ["Data", "Options"]


@dataclass(frozen=True)
class Options:
    """What was asked of `load`; its arguments are explained there.

    Raises: ValueError for shares that leave no rows to train on, and for words and pairs that have no meaning.
    """

    label: Any = None
    valid: float = 0.1
    test: float = 0.1
    seed: int = 0
    binarise: str | None = None
    group: Any = None
    time: Any = None
    drop: tuple[str, ...] = ()
    size: Any = None
    skip_bad: bool = False
    context: Any = None
    counts: bool = False
    labelled: int | None = None
    column: Any = None
    window: int = 1

    def __post_init__(self) -> None:
        if self.column is not None:
            object.__setattr__(self, "column", _kinds(self.column))
        if self.context not in (None, "label"):
            names = self.context.split(",") if isinstance(self.context, str) else self.context
            if not (
                isinstance(names, (list, tuple)) and names and all(isinstance(n, str) and n.strip() for n in names)
            ):
                raise ValueError(
                    f'context is "label", names of columns such as "age,sex", or None; got {self.context!r}'
                )
            object.__setattr__(self, "context", tuple(name.strip() for name in names))
        if self.labelled is not None and (self.labelled != int(self.labelled) or self.labelled < 1 or self.context):
            raise ValueError(
                "labelled is how many training rows keep their label, at least 1, and goes without context='label', "
                f"which tells every row's; got labelled={self.labelled}, context={self.context!r}"
            )
        if self.window != int(self.window) or self.window < 1:
            raise ValueError(f"window is a number of steps, at least 1; got {self.window}")
        if not (self.valid >= 0 and self.test >= 0 and self.valid + self.test < 1):
            raise ValueError(
                f"valid and test are shares of the rows that leave some to train on; got valid={self.valid}, "
                f"test={self.test}"
            )
        if self.binarise not in (None, "fixed", "dynamic", "relaxed"):
            raise ValueError(f'binarise is None, "fixed", "dynamic" or "relaxed"; got {self.binarise!r}')
        if self.binarise and self.counts:
            raise ValueError("binarise draws grey values as black or white, and counts are kept: give only one")
        if self.group is not None and self.time is not None:
            raise ValueError("group and time are two ways to split, and one set is split by one of them: give only one")
        # one name is as good as a list of one
        object.__setattr__(self, "drop", (self.drop,) if isinstance(self.drop, str) else tuple(self.drop))

    def to_json(self) -> dict[str, Any]:
        """What is not at its default, but for the seed; arrays as the marker "(array)"."""
        out: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "seed" or (isinstance(value, type(f.default)) and value == f.default):
                continue
            plain = isinstance(value, (str, int, float)) or f.name in ("drop", "size", "context", "column")
            out[f.name] = (list(value) if isinstance(value, tuple) else value) if plain else "(array)"
        return out


def _kinds(asked: Any) -> dict[str, str]:
    """What "age=number,sex=category", a list of such, or a mapping says of columns."""
    if not isinstance(asked, Mapping):
        pairs = [part for text in ([asked] if isinstance(asked, str) else asked) for part in str(text).split(",")]
        if not all("=" in pair for pair in pairs):
            raise ValueError(f'column says what columns are, such as "age=number,sex=category"; got {asked!r}')
        asked = dict(pair.split("=", 1) for pair in pairs)
    return {str(name).strip(): str(kind).strip() for name, kind in asked.items()}


@dataclass(frozen=True, eq=False, repr=False)
class Data:
    """A data set as `load` leaves it: nothing about it is undecided.

    Attributes: `name`, short, for folder names; `source`, a path, a set's name, "array" or "table"; `x` (n, *event) as
    stored, a tensor, or an array on disk; `label` (n,) int64, -1 unlabelled, or None; `classes` names of the labels 0,
    1, ...; `columns` names of the inputs of a table; `part` (n,) uint8, 0 train, 1 valid, 2 test, 3 none of them;
    `scaling` to model units; `likelihood(shape)` that suits the values; `binarise`; `notes`, sentences on what was
    found, changed and dropped; `options` of `load`; `told` (n, c), columns that a model is told, standardised by the
    training rows, or None, and `telling` their names, means and standard deviations.
    """

    name: str
    source: str
    x: Tensor | NDArray[Any]
    label: Tensor | None
    classes: list[str] | None
    columns: list[str] | None
    part: Tensor
    scaling: Scaling | TableCodec
    likelihood: Callable[..., Likelihood]
    binarise: str | None = None
    notes: list[str] = field(default_factory=list)
    options: Options = field(default_factory=Options)
    told: Tensor | None = None
    telling: dict[str, list[Any]] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the event; images are (channels, height, width)."""
        return tuple(self.x.shape[1:])

    @property
    def image(self) -> bool:
        """Whether the rows are images."""
        return len(self.shape) == 3

    @property
    def context(self) -> int:
        """Features that a model is told of every row: those columns, or one for each class where labels are told."""
        if self.telling is not None:
            return len(self.telling["columns"])
        return len(self.classes or []) if self.options.context else 0

    @cached_property
    def train(self) -> Rows:
        """The rows to train on."""
        return self._rows(TRAIN)

    @cached_property
    def valid(self) -> Rows:
        """The rows that decide when to stop."""
        return self._rows(VALID)

    @cached_property
    def test(self) -> Rows:
        """The rows that judge."""
        return self._rows(TEST)

    def undo(self, x: Tensor | NDArray[Any]) -> Any:
        """Model units to values as they are stored: an array, or of a table of mixed columns a pyarrow Table."""
        return self.scaling.undo(x)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of values, type, shape, labels and parts: data of the same fingerprint train the same model."""
        digest = hashlib.sha256(json.dumps([dtype_of(self.x).str, list(self.x.shape)]).encode())
        for _, values in chunks(self.x):
            digest.update(values.reshape(-1).view(np.uint8).data)
        if self.label is not None:
            digest.update(self.label.numpy().tobytes())
        if self.told is not None:
            digest.update(self.told.numpy().tobytes())
        digest.update(self.part.numpy().tobytes())
        return digest.hexdigest()

    def description(self) -> dict[str, Any]:
        """All that is known of the set but its values, as JSON; `reload` and `like` read it."""
        return {
            "name": self.name,
            "source": self.source,
            "rows": {name: len(rows) for name, rows in self._named_parts()},
            "shape": list(self.shape),
            "dtype": str(dtype_of(self.x)),
            "scaling": self.scaling.to_json(),
            "likelihood": describe("likelihood", self.likelihood),
            "binarise": self.binarise,
            "classes": self.classes,
            "columns": self.columns,
            "telling": self.telling,
            "notes": self.notes,
            "split": {"valid": self.options.valid, "test": self.options.test, "seed": self.options.seed},
            "options": self.options.to_json(),
            "fingerprint": self.fingerprint,
        }

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(rows)} {name}" for name, rows in self._named_parts())
        return f"Data({self.name}: {counts} rows of {self.shape}; {self.scaling.describe()})"

    def _named_parts(self) -> list[tuple[str, Rows]]:
        return [("train", self.train), ("valid", self.valid), ("test", self.test)]

    def _rows(self, part: int) -> Rows:
        numbers = torch.nonzero(self.part == part)[:, 0]
        told = self.context if self.told is None else self.told
        return Rows(self.x, self.scaling, self.label, self.binarise, numbers, context=told, window=self.options.window)
