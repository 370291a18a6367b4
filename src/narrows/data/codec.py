"""Tables of mixed columns as tensors and back."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from narrows.data.found import named_once
from narrows.data.scaling import FARTHEST, Scaling, too_large
from narrows.likelihoods import Column, Columns
from narrows.spec import misspelt

__all__ = ["TableCodec", "read_scaling"]

KINDS = ("number", "category", "date", "constant", "identifier", "drop")
CLASSES = 1000  # of a category: what is rarer is unknown
ATOM, ATOMS = 0.05, 64  # share of the rows that makes a value an atom, and how many there may be
HEAP, NEAR = 10, 5  # rows that a value needs to be an atom where it stands out of so many neighbours to either side
FINEST = 2.0**-20  # of a column's spread: what float32 can tell apart over a thousand times that spread
WEEK, DAY, YEAR = 604800.0, 86400.0, 31556952.0  # seconds


@dataclass(frozen=True)
class _Kept:
    """What is known of one column. Numbers are in stored units, dates in seconds since 1970."""

    name: str
    kind: str
    type: str  # of Arrow
    missing: int = 0
    labels: tuple[Any, ...] = ()  # of a category; a class more stands for what is none of them
    value: Any = None  # of a constant
    centre: float = 0.0
    scale: float = 1.0
    step: float = 1.0
    exact: bool = True  # whether every value stands on the grid, and comes back as it was
    low: float = 0.0
    high: float = 0.0
    atoms: tuple[float, ...] = ()

    @property
    def used(self) -> bool:
        return self.kind in ("number", "category", "date")

    def column(self) -> Column:
        """In model units."""
        if self.kind == "category":
            return Column(classes=len(self.labels) + 1)
        step, origin = self.step / self.scale, (self.low - self.centre) / self.scale
        atoms = tuple((atom - self.centre) / self.scale for atom in self.atoms)
        periods: tuple[tuple[float, float], ...] = ()
        if self.kind == "date":
            told = [period for period in (DAY, WEEK, YEAR) if 2 * self.step < period < self.high - self.low]
            periods = tuple((period / self.scale, -self.centre / self.scale) for period in told)
        return Column(step=step, origin=origin, atoms=atoms, periods=periods)

    def describe(self) -> str:
        """What it is, in a few words."""
        if self.kind == "category":
            shown = ", ".join(map(str, self.labels[:4])) + (", ..." if len(self.labels) > 4 else "")
            return f"{len(self.labels)} classes: {shown}"
        if self.kind == "constant":
            return f"always {self.value!r}, set aside" if self.value is not None else "never there, set aside"
        if not self.used:
            return "different in every row, set aside" if self.kind == "identifier" else "left out"
        low, high = (_day(v) if self.kind == "date" else f"{v:g}" for v in (self.low, self.high))
        step = f"every {self.step:g}{' s' if self.kind == 'date' else ''}" if self.exact else "continuous"
        shown = ", ".join(f"{v:g}" for v in self.atoms[:4]) + (", ..." if len(self.atoms) > 4 else "")
        often = f"; often {shown}" if self.atoms and self.kind == "number" else ""
        return f"{low} to {high}, {step}{often}"


@dataclass(frozen=True)
class TableCodec:
    """How rows of a table become tensors (n, columns) and tensors rows of the original names, types and labels.

    Categories become their number, with one more for what was never seen; numbers and dates are centred by their
    median and scaled by their quartiles; missing cells are NaN. Columns that never change, or are different in every
    row, are set aside. Nothing of a training row is kept but labels, ranges and frequent values.

    Attributes: `kept`, one record for each column of the table, in its order.

    Example:
        >>> import pyarrow as pa
        >>> table = pa.table({"age": [31, 28, None, 47], "sex": list("fmmf"), "paid": [True, True, False, True]})
        >>> codec = TableCodec.fit(table)
        >>> x = codec.encode(table)
        >>> x.shape, codec.decode(x).equals(table)
        (torch.Size([4, 3]), True)
        >>> codec.likelihood((3,)).reads
        (13,)
    """

    kept: tuple[_Kept, ...] = field(default=())

    @classmethod
    def fit(cls, source: Any, kinds: Mapping[str, str] | None = None) -> "TableCodec":
        """Looks at every column of a table once.

        Arguments: `source` anything with an Arrow stream (pandas, polars, duckdb, pyarrow); `kinds` of columns that
        are not what they look like: "number", "category", "date", "identifier", or "drop" to leave one out.
        Raises: ValueError for a table without rows or without a column to learn from, names that stand twice, kinds
        that a column cannot be.
        """
        table = _table(source)
        columns, kinds = _by_name(table), dict(kinds or {})
        for name, kind in kinds.items():
            if name not in columns:
                raise ValueError(misspelt("column", name, columns))
            if kind not in KINDS:
                raise ValueError(misspelt("kind of column", kind, KINDS))
        if not len(table):
            raise ValueError("the table has no rows to learn its columns from")
        kept = tuple(_look(name, column, kinds.get(name)) for name, column in columns.items())
        if not any(column.used for column in kept):
            raise ValueError(
                "no column is left to learn from: "
                + "; ".join(f"{column.name!r} is {column.describe()}" for column in kept[:10])
            )
        return cls(kept)

    @property
    def used(self) -> list[_Kept]:
        """The columns that a model sees, in their order."""
        return [column for column in self.kept if column.used]

    @property
    def likelihood(self) -> Any:
        """The likelihood of such rows, for a shape: what a recipe takes."""
        return partial(Columns, columns=tuple(column.column() for column in self.used))

    def encode(self, source: Any) -> Tensor:
        """Rows of a table, (n, columns) float32, NaN where a cell is missing; columns that are not known are ignored.

        Raises: ValueError for a column that is not there, or values of another type.
        """
        table = _table(source)
        columns, x = _by_name(table), np.empty((len(table), len(self.used)), np.float32)
        for number, column in enumerate(self.used):
            if column.name not in columns:
                raise ValueError(
                    f"column {column.name!r} is not among those given ({', '.join(columns)}); add it, empty where "
                    "nothing is known"
                )
            x[:, number] = _encoded(column, columns[column.name])
        return torch.from_numpy(x)

    def ask(self, given: Mapping[str, Any]) -> Tensor:
        """Cells of a row by the names of their columns, (columns,) in model units, NaN where nothing is given.

        Text is read as the column's own type, as a command line gives it.

        Raises: ValueError for a column that no model sees, a label or number that the column never had, a number off
        its grid.

        Example:
            >>> import pyarrow as pa
            >>> codec = TableCodec.fit(pa.table({"age": [31, 28, None, 47], "sex": list("fmmf")}))
            >>> codec.ask({"sex": "m"})
            tensor([nan, 1.])
        """
        kept = {column.name: column for column in self.kept}
        x = torch.full((len(self.used),), math.nan)
        for name, value in given.items():
            if name not in kept:
                raise ValueError(misspelt("column", name, kept))
            if not kept[name].used:
                raise ValueError(
                    f"column {name!r} is no part of what was learned ({kept[name].describe()}): leave it out"
                )
            x[self.used.index(kept[name])] = _asked(kept[name], value)
        return x

    def exact(self, table: Any, given: Mapping[str, Any]) -> Any:
        """A decoded table with given numbers to their last digit where a column has no grid to bring them back to."""
        import pyarrow as pa

        for column in self.used:
            if column.name in given and column.kind == "number" and not column.exact:
                cells = pa.array([float(given[column.name])] * len(table)).cast(_type(column.type))
                table = table.set_column(table.column_names.index(column.name), column.name, cells)
        return table

    def decode(self, x: Tensor | NDArray[Any]) -> Any:
        """A pyarrow Table of rows (n, columns) in model units; cells of identifiers, and of unknown labels, are empty.

        Numbers are brought to their grid and within the range that was seen.

        Raises: ValueError for rows of another width.
        """
        import pyarrow as pa

        values = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x, np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.used):
            raise ValueError(f"rows of {len(self.used)} columns are needed, shape (n, {len(self.used)}); got {x.shape}")
        cells = iter(values.T)
        arrays = {}
        for column in self.kept:
            type_ = _type(column.type)
            if column.used:
                arrays[column.name] = _decoded(column, next(cells), type_)
            elif column.kind == "constant":
                arrays[column.name] = pa.array([column.value] * len(values), type_)
            elif column.kind == "identifier":
                arrays[column.name] = pa.nulls(len(values), type_)
        return pa.table(arrays)

    kind = "table"
    dtype = "float32"

    def __call__(self, x: Tensor) -> Tensor:
        """Rows that are encoded already: model units, float32."""
        return x.to(torch.float32)

    def unscale(self, x: Tensor) -> Tensor:
        """Model units as they are: a table is what `decode` makes of them."""
        return x

    def undo(self, x: Tensor | NDArray[Any]) -> Any:
        """`decode`, under the name that scalings of plain numbers have for it."""
        return self.decode(x)

    def fill(self, source: Any, x: Tensor | NDArray[Any], where: Tensor | None = None) -> Any:
        """The same table, as a pyarrow Table, its empty cells, or those `where` (n, columns) says, from rows x
        (n, columns) in model units.
        """
        import pyarrow as pa

        table, made = _table(source), self.decode(x)
        for number, column in enumerate(self.used):
            own = _plain(table.column(column.name))
            lost = own.is_null(nan_is_null=True) if where is None else pa.array(where[:, number].numpy())
            kind = made.column(column.name).type if pa.types.is_null(own.type) else own.type
            new = pa.compute.if_else(lost, _plain(made.column(column.name)).cast(kind), own.cast(kind))
            table = table.set_column(table.column_names.index(column.name), column.name, new)
        return table

    def describe(self) -> str:
        """What columns there are, in a few words."""
        kinds = [column.kind for column in self.kept]
        words = (("number", "numbers"), ("category", "categories"), ("date", "dates"))
        found = [f"{kinds.count(one)} {one if kinds.count(one) == 1 else many}" for one, many in words if one in kinds]
        aside = len(kinds) - len(self.used)
        return ", ".join(found) + (f"; {aside} columns set aside" if aside > 1 else "; 1 column set aside" * aside)

    def listing(self) -> str:
        """A line for each column: name, kind, missing cells, what it holds."""
        rows = [(c.name, c.kind, str(c.missing or ""), c.describe()) for c in self.kept]
        rows = [("column", "kind", "missing", "holds"), *rows]
        wide = [max(len(row[i]) for row in rows) for i in range(3)]
        return "\n".join("  ".join([*(t.ljust(w) for t, w in zip(row, wide, strict=False)), row[3]]) for row in rows)

    def to_json(self) -> dict[str, Any]:
        """What `from_json` reads: of each column what differs from the usual."""
        usual = {name: f.default for name, f in _Kept.__dataclass_fields__.items()}
        columns = [
            {n: list(v) if isinstance(v, tuple) else v for n, v in asdict(column).items() if v != usual[n]}
            for column in self.kept
        ]
        return {"kind": self.kind, "columns": columns}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "TableCodec":
        """The codec of `to_json`."""
        read: list[dict[str, Any]] = [
            {n: tuple(v) if isinstance(v, list) else v for n, v in column.items()} for column in record["columns"]
        ]
        return cls(tuple(_Kept(**column) for column in read))


def read_scaling(record: dict[str, Any]) -> Scaling | TableCodec:
    """What `to_json` of either has written."""
    return TableCodec.from_json(record) if record["kind"] == "table" else Scaling.from_json(record)


def _table(source: Any) -> Any:
    import pyarrow as pa

    if not hasattr(source, "__arrow_c_stream__"):
        raise TypeError(
            "a table is anything with an Arrow stream (a dataframe of pandas, polars or duckdb, a pyarrow Table); got "
            f"{type(source).__name__}"
        )
    table = source if isinstance(source, pa.Table) else pa.table(source)
    named_once(table.column_names, "the table")
    return table


def _by_name(table: Any) -> dict[str, Any]:
    """The columns; asked for one by one, each would be looked for among all."""
    return dict(zip(table.column_names, table.columns, strict=True))


def _type(text: str) -> Any:
    import pyarrow as pa

    return pa.type_for_alias(text)


def _plain(column: Any) -> Any:
    """Without a dictionary, in one piece."""
    import pyarrow as pa

    column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], column.type)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    for odd, plain in ((pa.types.is_large_string, pa.string()), (pa.types.is_decimal, pa.float64())):
        column = column.cast(plain) if odd(column.type) else column
    return column


def _numbers(name: str, column: Any, date: bool) -> NDArray[np.float64]:
    """Numbers or dates as float64, NaN where missing. Raises ValueError for text, and for what is infinite."""
    import pyarrow as pa

    types, what = pa.types, "a date" if date else "a number"
    try:
        if date and not types.is_time(column.type):
            column = column.cast(pa.timestamp("us", getattr(column.type, "tz", None))).cast(pa.int64())
            return np.array(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), np.float64) / 1e6
        values = np.array(column.cast(pa.float64()).to_numpy(zero_copy_only=False), np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        why = f"{str(error).splitlines()[0]}; correct that cell, or empty it"
        raise ValueError(f"column {name!r} holds something that is not {what}: {why}") from None
    if np.isinf(values).any():
        row = int(np.isinf(values).argmax())
        raise ValueError(f"column {name!r} is infinite in row {row}; leave the cell empty if nothing is known")
    return values


def _look(name: str, column: Any, kind: str | None) -> _Kept:
    import pyarrow as pa

    column, types = _plain(column), pa.types
    known = column.drop_null()
    if types.is_floating(column.type):
        known = known.filter(pa.compute.invert(pa.compute.is_nan(known)))
    missing, type_ = len(column) - len(known), str(column.type)
    if kind in ("drop", "identifier"):
        return _Kept(name, kind, type_, missing)
    distinct = pa.compute.count_distinct(known).as_py() if len(known) else 0
    if distinct == 0 or (distinct == 1 and not missing):
        return _Kept(name, "constant", type_, missing, value=known[0].as_py() if distinct else None)
    text, date = types.is_string(column.type), types.is_temporal(column.type)
    whole = types.is_integer(column.type)
    if kind is None:
        if text or types.is_boolean(column.type) or (whole and distinct == 2):
            kind = "category"
        else:
            kind = "date" if date else "number"
        if distinct == len(known) > 20 and (text or (whole and _in_order(known))):
            return _Kept(name, "identifier", type_, missing)
    if kind == "category":
        counts = pa.compute.value_counts(known).to_pylist()
        counts.sort(key=lambda found: (-found["counts"], str(found["values"])))
        labels = sorted((found["values"] for found in counts[:CLASSES]), key=lambda v: (str(type(v)), v))
        return _Kept(name, "category", type_, missing, labels=tuple(labels))
    if kind == "date" and not date:
        raise ValueError(f"column {name!r} is of type {column.type} and no date; convert it first")
    values = _numbers(name, known, kind == "date")
    too_large(float(values.min()), float(values.max()), f"column {name!r}")
    return _Kept(name, kind, type_, missing, **_grid(values))


def _in_order(known: Any) -> bool:
    values = known.to_numpy(zero_copy_only=False)
    return bool((np.diff(values.astype(np.float64)) == 1).all())


def _grid(values: NDArray[np.float64]) -> dict[str, Any]:
    """Centre, spread, resolution, range and frequent values of a column of numbers."""
    distinct, counts = np.unique(values, return_counts=True)
    step = _resolution(distinct)
    often = counts >= ATOM * len(values)
    rest = values[~np.isin(values, distinct[often])]
    rest = rest if len(rest) > 1 else values
    low, centre, high = np.quantile(rest, [0.25, 0.5, 0.75])
    scale = float((high - low) / 1.349) or float(rest.std()) or float(values.std())
    often |= _heaps(distinct, counts, step)
    atoms = distinct[often][np.argsort(-counts[often], kind="stable")[:ATOMS]]
    exact = step >= FINEST * scale and np.abs(distinct - centre).max() < step * 2**22
    return {
        "centre": float(centre),
        "scale": scale,
        "step": step if exact else FINEST * scale,
        "exact": bool(exact),
        "low": float(distinct[0]),
        "high": float(distinct[-1]),
        "atoms": tuple(np.sort(atoms).tolist()),
    }


def _heaps(distinct: NDArray[np.float64], counts: NDArray[np.int64], step: float) -> NDArray[np.bool_]:
    """Which values have twice as many rows as their neighbours lead to expect, and four standard deviations more.

    Expected is the median of the neighbours' counts, less where only some places of the grid are taken.
    """
    found, wide = np.zeros(len(distinct), bool), 2 * NEAR + 1
    many = np.flatnonzero(counts >= HEAP)
    if len(distinct) < wide or not len(many):
        return found
    near = np.clip(many - NEAR, 0, len(distinct) - wide)[:, None] + np.arange(wide)  # (values, neighbours and itself)
    others = near[near != many[:, None]].reshape(len(many), wide - 1)
    span = distinct[near[:, -1]] - distinct[near[:, 0]]
    places = np.maximum(span / step, wide - 1) if step else np.inf
    expected = np.median(counts[others], axis=1) * (wide - 1) / places
    found[many] = counts[many] > 2 * expected + 4 * np.sqrt(expected)
    return found


def _resolution(distinct: NDArray[np.float64]) -> float:
    """The largest step of which all differences are multiples, among decimal ones; 0 where there is none."""
    for decimals in range(7):
        k = distinct * 10.0**decimals
        if np.abs(k).max() > 2**53:
            return 0.0
        whole = np.rint(k)
        if (np.abs(k - whole) <= 1e-6 * np.maximum(1, 1e-6 * np.abs(k))).all():
            step = int(np.gcd.reduce(np.diff(whole).astype(np.int64)))
            return max(step, 1) / 10.0**decimals
    return 0.0


def _encoded(kept: _Kept, column: Any) -> NDArray[np.float64]:
    import pyarrow as pa

    column = _plain(column)
    if kept.kind == "category":
        wanted = _type(kept.type)
        if column.type != wanted:
            column = column.cast(wanted, safe=False) if pa.types.is_null(column.type) else column.cast(pa.string())
        labels = pa.array(kept.labels if column.type == wanted else [str(v) for v in kept.labels], column.type)
        place = pa.compute.index_in(column, labels).fill_null(len(kept.labels)).to_numpy(zero_copy_only=False)
        lost = column.is_null(nan_is_null=True).to_numpy(zero_copy_only=False)
        return np.where(lost, np.nan, place)
    values = (_numbers(kept.name, column, kept.kind == "date") - kept.centre) / kept.scale
    return np.clip(values, -FARTHEST, FARTHEST)


def _asked(kept: _Kept, value: Any) -> float:
    """One cell in model units. Raises ValueError for what the column cannot hold."""
    import pyarrow as pa

    said = f"column {kept.name!r}"
    if kept.kind == "category":
        labels = [str(label) for label in kept.labels]
        if str(value) not in labels:
            raise ValueError(f"{said}: {misspelt('label', str(value), labels)}")
        return float(labels.index(str(value)))
    what = "a date" if kept.kind == "date" else "a number"
    try:
        cell = pa.array([value]).cast(_type(kept.type) if kept.kind == "date" else pa.float64())
        (number,) = _numbers(kept.name, cell, kept.kind == "date")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        number = math.nan
    if math.isnan(number):
        raise ValueError(f"{said} holds {what}; got {value!r}")
    if not kept.low <= number <= kept.high:
        raise ValueError(f"{said} runs over {kept.describe()}, and nothing is known beyond; got {value}")
    places = (number - kept.low) / kept.step
    if kept.exact and abs(places - round(places)) > 1e-6 * max(1.0, places):
        raise ValueError(f"{said} runs over {kept.describe()}; {value} is none of these")
    return float((number - kept.centre) / kept.scale)


def _decoded(kept: _Kept, cells: NDArray[np.float64], type_: Any) -> Any:
    import pyarrow as pa

    lost = np.isnan(cells)
    if kept.kind == "category":
        place = np.where(lost, len(kept.labels), np.rint(np.where(lost, 0, cells))).astype(np.int64)
        return pa.array([*kept.labels, None], type_).take(pa.array(place.clip(0, len(kept.labels))))
    values = kept.centre + kept.scale * np.where(lost, 0.0, cells)
    if kept.exact:
        values = kept.low + kept.step * np.rint((values - kept.low) / kept.step)
        if kept.step < 1:  # k / 10^d is what was stored, where k * 10^-d is off by a rounding
            tens = 10.0 ** math.ceil(-math.log10(kept.step) - 1e-9)
            values = np.rint(values * tens) / tens
    values = values.clip(kept.low, kept.high)
    if kept.kind == "date":
        micros = pa.array(np.rint(values * 1e6).astype(np.int64), mask=lost)
        zone = getattr(type_, "tz", None)
        return micros.cast(pa.timestamp("us", zone)).cast(type_)
    if pa.types.is_integer(type_):
        return pa.array(np.rint(values).astype(np.int64), mask=lost).cast(type_)
    return pa.array(values, mask=lost).cast(type_)


def _day(seconds: float) -> str:
    return str(np.datetime64(round(seconds), "s"))[:10]
