"""Tables: .csv, .parquet and dataframes, numeric columns."""

import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from narrows.data import found as reading
from narrows.data.cache import cache, key, made
from narrows.data.dataset import Options
from narrows.data.found import Found
from narrows.data.survey import broken
from narrows.spec import misspelt

__all__ = ["from_csv", "from_parquet", "from_table"]


def from_table(source: Any, options: Options, columns: list[str] | None = None) -> Found:
    """Anything with an Arrow stream: a dataframe of pandas, polars or duckdb, a pyarrow Table."""
    import pyarrow as pa

    table = pa.table(source)
    found = Found("array", "array", np.empty(0))
    return _collect(found, table.schema, len(table), lambda names: [table.select(names)], options, columns)


def from_csv(path: Path, options: Options, columns: list[str] | None = None) -> Found:
    """A .csv or .tsv file with a header line; the separator is the one that its first line has most of."""
    import pyarrow as pa
    from pyarrow import csv

    with open(path, encoding="utf-8-sig", errors="replace") as file:
        first = file.readline().strip()
    if not first:
        raise ValueError(f"{path} is empty; a table needs a line of column names and rows under it")
    separator = max(",;\t", key=first.count)
    nameless = all(_is_number(name) for name in first.split(separator))
    try:
        table = csv.read_csv(
            path,
            read_options=csv.ReadOptions(autogenerate_column_names=nameless),
            parse_options=csv.ParseOptions(delimiter=separator),
            convert_options=csv.ConvertOptions(null_values=["", "NA", "N/A", "NaN", "nan", "null", "?"]),
        )
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no table that can be read: {' '.join(str(error).split())}") from error
    table = table.rename_columns([name.strip() for name in table.column_names])
    found = Found(path.stem, str(path), np.empty(0))
    if nameless:
        found.notes.append("the first line holds numbers and was read as a row; the columns are called f0, f1, ...")
    return _collect(found, table.schema, len(table), lambda names: [table.select(names)], options, columns)


def from_parquet(path: Path, options: Options, columns: list[str] | None = None) -> Found:
    """A .parquet file, or a folder of them in the order of their names; copied to the cache where it is large."""
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    metadata = [_metadata(file) for file in files]
    schema = metadata[0].schema.to_arrow_schema()
    for file, other in zip(files, metadata, strict=True):
        if not other.schema.to_arrow_schema().equals(schema):
            raise ValueError(f"{file} has other columns than {files[0].name}; the files of one table have the same")
    rows = sum(record.num_rows for record in metadata)

    def read(names: list[str]) -> Iterator[Any]:
        return (batch for file in files for batch in _batches(file, names))

    return _collect(Found(path.stem, str(path), np.empty(0)), schema, rows, read, options, columns, files)


def _metadata(file: Path) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_metadata(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(_damaged(file)) from error


def _batches(file: Path, names: list[str]) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file, pre_buffer=False) as opened:  # else it holds all that it has read
            yield from opened.iter_batches(columns=names)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(_damaged(file)) from error


def _damaged(file: Path) -> str:
    return f"{file} is damaged or cut short and cannot be read; make or copy it again"


class _Wanted(NamedTuple):
    inputs: list[str]
    others: list[str]  # label, group or time
    dtype: np.dtype[Any]


def _collect(
    found: Found,
    schema: Any,
    rows: int,
    read: Callable[[list[str]], Iterable[Any]],
    options: Options,
    columns: list[str] | None,
    files: list[Path] | None = None,
) -> Found:
    """Fills `found` from the pieces that `read(names)` gives in order."""
    wanted = _wanted(schema, found, options, columns)
    found.columns = wanted.inputs
    shape = (rows, len(wanted.inputs))
    if files is None or rows * len(wanted.inputs) * wanted.dtype.itemsize <= reading.IN_MEMORY:
        found.x = np.empty(shape, wanted.dtype)
        _fill(found.x, read(wanted.inputs), found)
    else:
        path = cache() / "tables" / f"{key(files, columns=wanted.inputs)}.npy"
        found.x = made(path, wanted.dtype, shape, lambda x: _fill(x, read(wanted.inputs), found))
    if wanted.others:
        pieces = list(read(wanted.others))
        for name in ("label", "group", "time"):
            if isinstance(getattr(options, name), str):
                setattr(
                    found, name, np.concatenate([_values(piece.column(getattr(options, name))) for piece in pieces])
                )
        if isinstance(options.context, tuple):
            told = [np.concatenate([_values(piece.column(name)) for piece in pieces]) for name in options.context]
            for name, values in zip(options.context, told, strict=True):
                if values.dtype.kind not in "buif" or not np.isfinite(values).all():
                    raise ValueError(
                        f"{found.source}: a column that is told as context holds a number in every row, and {name!r} "
                        "does not; fill it in, or take it as the label: --label and --context label"
                    )
            found.told = np.stack(told, 1).astype(np.float64)
    return found


def _wanted(schema: Any, found: Found, options: Options, columns: list[str] | None) -> _Wanted:
    names = list(schema.names)
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{found.source} has {names.count(name)} columns called {name!r}; rename them")
    others = [value for value in (options.label, options.group, options.time) if isinstance(value, str)]
    others += options.context if isinstance(options.context, tuple) else ()
    for name in (*options.drop, *others, *(columns or [])):
        if name not in names:
            raise ValueError(f"{found.source}: {misspelt('column', name, names)}")
    index = [name for name in names if name.startswith("__index_level_")]  # pandas' own
    inputs = columns or [name for name in names if name not in (*options.drop, *others, *index)]
    if not inputs:
        raise ValueError(f"{found.source} has no column left that could be an input; it has {', '.join(names)}")
    dtypes = [_dtype(schema.field(name).type) for name in inputs]
    text = [name for name, dtype in zip(inputs, dtypes, strict=True) if dtype is None]
    if text:
        listed = ", ".join(map(repr, text))
        flags = " ".join(f"--drop {shlex.quote(name)}" for name in text)
        raise ValueError(
            f"{found.source}: {listed} hold text or dates, and inputs are numbers: make one the label by --label "
            f"(label=...), leave the others out by {flags} (drop=[...])"
        )
    return _Wanted(inputs, others, np.result_type(*[dtype for dtype in dtypes if dtype is not None]))


def _dtype(kind: Any) -> np.dtype[Any] | None:
    """The numpy type of a column; None for what is no number."""
    from pyarrow import types

    if types.is_boolean(kind):
        return np.dtype(np.uint8)
    if types.is_integer(kind) or types.is_floating(kind):
        return np.dtype(str(kind.to_pandas_dtype().__name__))
    return np.dtype(np.float64) if types.is_decimal(kind) or types.is_null(kind) else None


def _fill(x: NDArray[Any], pieces: Iterable[Any], found: Found) -> None:
    """Writes the columns into x (rows, columns). Raises ValueError for missing values, all of them counted."""
    import pyarrow as pa
    from pyarrow import compute

    names = found.columns or []
    bad, start = np.zeros(len(names), np.int64), 0
    first = np.full_like(bad, len(x))
    for piece in pieces:
        stop = start + len(piece)
        for number, name in enumerate(names):
            column = piece.column(name)
            if column.null_count:
                missing = compute.is_null(column).to_numpy(zero_copy_only=False)
                bad[number] += column.null_count
                first[number] = min(first[number], start + int(missing.argmax()))
                continue
            if pa.types.is_decimal(column.type):
                column = column.cast(pa.float64())
            x[start:stop, number] = column.to_numpy(zero_copy_only=False)
        start = stop
    if bad.any():
        raise ValueError(broken(bad, first, found.source, names))


def _values(column: Any) -> NDArray[Any]:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    return values


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
