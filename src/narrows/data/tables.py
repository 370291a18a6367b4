"""Tables: .csv, .parquet and dataframes. Numbers alone are read as an array, all else as the table that it is."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from narrows.data import found as reading
from narrows.data.cache import cache, key, made
from narrows.data.dataset import Options
from narrows.data.found import Found, named_once
from narrows.data.survey import broken
from narrows.spec import misspelt

__all__ = ["from_csv", "from_parquet", "from_table", "whole"]

EMPTY = ["", "NA", "N/A", "NaN", "nan", "null", "?"]  # what a .csv has where nothing is known


def from_table(source: Any, options: Options, columns: list[str] | None = None) -> Found:
    """Anything with an Arrow stream: a dataframe of pandas, polars or duckdb, a pyarrow Table."""
    import pyarrow as pa

    table = pa.table(source)
    found = Found("table", "table", np.empty(0))
    return _collect(found, table.schema, len(table), lambda names: [table.select(names)], options, columns)


def whole(source: Any) -> Any:
    """All columns of a .csv, .tsv or .parquet file, or of anything with an Arrow stream, as a pyarrow Table.

    Raises: ValueError for what is no table, FileNotFoundError for a path that is not there.
    """
    import pyarrow as pa
    from pyarrow import parquet

    if hasattr(source, "__arrow_c_stream__"):
        return pa.table(source)
    path = Path(source).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"there is no file {source}")
    if path.suffix.lower() in (".csv", ".tsv"):
        return _csv(path)[0]
    if path.suffix.lower() == ".parquet":
        named_once(_metadata(path).schema.names, path)
        return parquet.read_table(path)
    raise ValueError(f"a table is a .csv, .tsv or .parquet file, or a dataframe; got {source}")


def pieces(path: Path, rows: int) -> Iterator[Any]:
    """All columns of a .parquet file as pyarrow Tables of at most `rows` rows, one after the other."""
    import pyarrow as pa

    for batch in _batches(path, None, rows):
        yield pa.Table.from_batches([batch])


def from_csv(path: Path, options: Options, columns: list[str] | None = None) -> Found:
    """A .csv or .tsv file with a header line; the separator is the one that its first line has most of."""
    table, notes = _csv(path)
    found = Found(path.stem, str(path), np.empty(0), notes=notes)
    return _collect(found, table.schema, len(table), lambda names: [table.select(names)], options, columns)


def _csv(path: Path) -> tuple[Any, list[str]]:
    """The table, and what is to be said about it."""
    import pyarrow as pa
    from pyarrow import csv

    with open(path, encoding="utf-8-sig", errors="replace") as file:
        first = file.readline().strip()
    if not first:
        raise ValueError(f"{path} is empty; a table needs a line of column names and rows under it")
    separator = max(",;\t", key=first.count)
    nameless = all(_is_number(name) for name in first.split(separator))

    def read(encoding: str) -> Any:
        return csv.read_csv(
            path,
            read_options=csv.ReadOptions(autogenerate_column_names=nameless, encoding=encoding),
            parse_options=csv.ParseOptions(delimiter=separator),
            convert_options=csv.ConvertOptions(null_values=EMPTY, strings_can_be_null=True),
        )

    try:
        table = read("utf8")
        if odd := any(pa.types.is_binary(kind) for kind in table.schema.types):
            table = read("cp1252")
    except pa.ArrowInvalid as error:
        raise ValueError(f"{path} is no table that can be read: {' '.join(str(error).split())}") from error
    table = _trimmed(table.rename_columns([name.strip() for name in table.column_names]))
    notes = ["its text is not UTF-8 and was read as Windows-1252"] if odd else []
    if nameless:
        notes.append("the first line holds numbers and was read as a row; the columns are called f0, f1, ...")
    return table, notes


def _trimmed(table: Any) -> Any:
    """Texts without the spaces that some write after a separator, and empty where nothing else is left."""
    import pyarrow as pa
    from pyarrow import compute

    for place, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        if pa.types.is_string(column.type):
            text = compute.utf8_trim_whitespace(column)
            lost = compute.is_in(text, pa.array(EMPTY))
            table = table.set_column(place, name, compute.if_else(lost, pa.scalar(None, pa.string()), text))
    return table


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


def _batches(file: Path, names: list[str] | None, rows: int = 65_536) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file, pre_buffer=False) as opened:  # else it holds all that it has read
            yield from opened.iter_batches(rows, columns=names)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(_damaged(file)) from error


def _damaged(file: Path) -> str:
    return f"{file} is damaged or cut short and cannot be read; make or copy it again"


class _Wanted(NamedTuple):
    inputs: list[str]
    others: list[str]  # label, group or time
    dtype: np.dtype[Any] | None  # None where some are no numbers


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
    if not rows:
        raise ValueError(f"{found.source} has no rows")
    found.columns = wanted.inputs
    shape, dtype = (rows, len(wanted.inputs)), wanted.dtype
    small = files is None or rows * len(wanted.inputs) * (dtype.itemsize if dtype else 8) <= reading.IN_MEMORY
    table = _mixed(list(read(wanted.inputs)), wanted, options) if small or dtype is None else None
    if table is not None or dtype is None:
        found.table, found.x = table, np.empty(shape, np.float32)
    elif files is None or small:
        found.x = np.empty(shape, dtype)
        _fill(found.x, read(wanted.inputs), found)
    else:
        path = cache() / "tables" / f"{key(files, columns=wanted.inputs)}.npy"
        found.x = made(path, dtype, shape, lambda x: _fill(x, read(wanted.inputs), found))
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


def _mixed(pieces: list[Any], wanted: _Wanted, options: Options) -> Any:
    """The inputs as one table, where they are not numbers in every cell; else None."""
    import pyarrow as pa
    from pyarrow import compute

    def holes(column: Any) -> bool:
        if column.null_count:
            return True
        return pa.types.is_floating(column.type) and bool(compute.any(compute.is_nan(column)).as_py())

    plain = wanted.dtype is not None and options.column is None
    if plain and not any(holes(piece.column(name)) for piece in pieces for name in wanted.inputs):
        return None
    whole = [piece if isinstance(piece, pa.Table) else pa.Table.from_batches([piece]) for piece in pieces]
    return pa.concat_tables(whole).select(wanted.inputs)


def _wanted(schema: Any, found: Found, options: Options, columns: list[str] | None) -> _Wanted:
    names = list(schema.names)
    named_once(names, found.source)
    others = [value for value in (options.label, options.group, options.time) if isinstance(value, str)]
    others += options.context if isinstance(options.context, tuple) else ()
    known = set(names)
    for name in (*options.drop, *others, *(columns or [])):
        if name not in known:
            raise ValueError(f"{found.source}: {misspelt('column', name, names)}")
    index = [name for name in names if name.startswith("__index_level_")]  # pandas' own
    inputs = columns or [name for name in names if name not in (*options.drop, *others, *index)]
    if not inputs:
        raise ValueError(f"{found.source} has no column left that could be an input; it has {', '.join(names)}")
    dtypes = [_dtype(schema.field(name).type) for name in inputs]
    numbers = [dtype for dtype in dtypes if dtype is not None]
    return _Wanted(inputs, others, np.result_type(*numbers) if len(numbers) == len(dtypes) else None)


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
