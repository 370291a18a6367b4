"""From a path, a name or an array to a data set in which nothing is undecided."""

import difflib
import re
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from narrows import draws
from narrows.data.arrays import from_array, from_npy, from_npz
from narrows.data.codec import TableCodec, read_scaling
from narrows.data.dataset import Data, Options
from narrows.data.found import IN_MEMORY, UNKEPT, Found, chunks, dtype_of, tensor
from narrows.data.idx import from_idx, from_idx_folder, is_idx
from narrows.data.images import SUFFIXES, from_folder
from narrows.data.labels import code, few
from narrows.data.named import NAMED, from_name
from narrows.data.rows import Rows
from narrows.data.scaling import Scaling, too_large
from narrows.data.split import LEFT, TEST, TRAIN, VALID, digests, parts
from narrows.data.survey import Survey, check, grid, moments, survey
from narrows.data.tables import from_csv, from_parquet, from_table
from narrows.data.windows import named, unnamed, windows, within
from narrows.likelihoods import Bernoulli, DiscretisedLogistic, Gaussian, Likelihood, NegativeBinomial
from narrows.spec import misspelt

__all__ = ["like", "load", "reload"]


class More(TypedDict, total=False):
    """What `load` takes besides.

    `drop`, columns of a table to leave out; `column`, what columns are that are not what they look like, such as
    "zip=category,when=date" (number, category, date, identifier or drop; see `TableCodec`). For folders of images
    `size`, "HxW" to crop and resize to, and `skip_bad`, to leave out files that cannot be read. `context="label"` tells
    a model the labels, one-hot; `context="age,sex"`, or a list of names, tells it columns of a table, which then are no
    inputs. `labelled` is how many training rows keep their label, to try out what few labels do: rows for stopping keep
    none, those that judge all. `counts=True` keeps whole numbers from 0 up as they are, for a likelihood of counts.
    `window` makes a row of that many consecutive steps of a series, whose rows stand in the order of time: the oldest
    steps train and the newest are the test, and with `group` each group is a series of its own.
    """

    drop: Any
    size: Any
    skip_bad: bool
    column: Any
    context: Any
    counts: bool
    labelled: int | None
    window: int


def load(
    source: Any,
    *,
    label: Any = None,
    valid: float = 0.1,
    test: float = 0.1,
    seed: int = 0,
    binarise: str | None = None,
    group: Any = None,
    time: Any = None,
    **more: Unpack[More],
) -> Data:
    """Reads data, looks at all of it once, and decides what was not said: scaling, likelihood, parts.

    Arguments:
        source: the name of a set (`names()`); a file (.npy, .npz, .csv, .parquet, IDX) or a folder (of images, of
            Parquet files, of IDX files); an array or tensor (n, *event), a pair (X, y), or any dataframe.
        label: column, or key of an .npz, or (n,) array, that holds the labels; never an input.
        valid, test: shares of the rows; a set with its own test part keeps it.
        seed: of the split.
        binarise: "fixed" draws each grey value once as black or white, "dynamic" in every batch, "relaxed" leaves it
            grey under a Bernoulli likelihood, which is then no likelihood.
        group: column or (n,) array whose equal values stay in one part.
        time: column or (n,) array; the oldest rows train, the newest are the test.
        more: see `More`.

    Raises: ValueError or TypeError for data that cannot be used, FileNotFoundError for a path that is not there.
    Example:
        >>> load("digits")
        Data(digits: 1437 train, 180 valid, 180 test rows of (1, 8, 8); integers 0..16 scaled to 0..1 (17 levels))
    """
    for name in more:
        if name not in More.__annotations__:
            raise TypeError(f"load: {misspelt('argument', name, [f.name for f in fields(Options)])}")
    options = Options(label, valid, test, seed, binarise, group, time, **more)
    found = _read(source, options)
    if (options.size or options.skip_bad) and not Path(found.source).is_dir():
        raise ValueError(f"size and skip_bad are for folders of images; {found.source} is none")
    return _decide(found, options)


def reload(description: dict[str, Any], source: Any = None, **arrays: Any) -> Data:
    """The data set of a `Data.description()`, read again.

    `source` is needed where it came from memory or has moved; `arrays` are the labels, groups or times that did.

    Raises: ValueError where the data are not the same any more, or came from memory and are not given.
    """
    given = {**description["options"], "seed": description["split"]["seed"], **arrays}
    lost = [name for name, value in given.items() if isinstance(value, str) and value == "(array)"]
    if source is None and description["source"] in UNKEPT:
        raise ValueError(
            "these data came from memory and are not kept with a run: hand them over, reload(description, X)"
        )
    if lost:
        raise ValueError(f"{lost[0]} was an array in memory and is not kept with a run: hand it over as {lost[0]}=...")
    data = load(description["source"] if source is None else source, **given)
    if data.fingerprint != description["fingerprint"]:
        raise ValueError(
            f"{data.source} is not what it was: now {len(data.x)} rows of {data.shape}, then "
            f"{sum(description['rows'].values())} rows of {tuple(description['shape'])}, and the fingerprints differ; "
            "restore it, or train anew on what it is now"
        )
    return data


def like(description: dict[str, Any], source: Any) -> Rows:
    """Other rows, scaled as those of a `Data.description()`: what a trained model is put to work on.

    Columns are found by name, and images brought to the same size and channels where a size was asked for.

    Raises: ValueError for rows of another shape, without a column, or with values that the scaling does not know.
    """
    shape, scaling = tuple(description["shape"]), read_scaling(description["scaling"])
    asked = description["options"]
    size = "x".join(map(str, shape[1:])) if asked.get("size") else None
    told = asked.get("context")
    own = asked.get("label") if told == "label" else None
    column = asked.get("column") or ({} if scaling.kind == "table" else None)
    window, columns = asked.get("window", 1), description["columns"]
    options = Options(
        own,
        size=size,
        skip_bad=asked.get("skip_bad", False),
        context=told,
        column=column,
        window=window,
        group=asked.get("group") if window > 1 and columns else None,
    )
    columns = unnamed(columns, window) if window > 1 and columns else columns
    found = _read(source, options, columns, shape[0] if len(shape) == 3 else None)
    binarise = description["binarise"]
    features: Any = 0
    if found.told is not None:
        telling = description["telling"]
        features = torch.from_numpy((found.told - np.array(telling["mean"])) / np.array(telling["std"])).float()
    check(found.x, found.source, 1)
    whole = None if window == 1 else _one_each([0] * len(found.x) if found.group is None else found.group, found)
    numbers = None if whole is None else torch.from_numpy(_windowed(found, whole, window).nonzero()[0])
    x = _hold(_lay_out(found))
    if isinstance(scaling, TableCodec):
        if found.table is None:
            raise ValueError(
                f"a table with the columns {', '.join(description['columns'])} is needed; {found.source} is none"
            )
        x = scaling.encode(found.table)
    else:
        if tuple(x.shape[1:]) != shape:
            raise ValueError(
                f"rows of shape {shape} are needed; those of {found.source} have shape {tuple(x.shape[1:])}"
            )
        looked = survey(x, found.source, found.columns, None)
        if binarise == "fixed" and not looked.binary:
            grey: Any = _scaling(x, looked, np.ones(len(x), bool), binarise, found.source).scaling
            return Rows(_draw(x, grey, found.source), scaling)
        _check_grid(x, looked, scaling, found.source, binarise)
    if told != "label":
        return Rows(x, scaling, None, binarise, numbers, context=features, window=window)
    if found.label is None:
        raise ValueError(f"the model was told the label of every row, and {found.source} has none; add them")
    coded, classes, _ = code(found.label, len(x), found.source)
    classes = found.classes or classes
    known = description["classes"]
    strange = [name for name in classes if name not in known]
    if strange or bool((coded < 0).any()):
        what = f"label {strange[0]!r}" if strange else "rows without a label"
        raise ValueError(f"{found.source} has {what}, and the model knows {', '.join(known)}")
    label = torch.tensor([known.index(name) for name in classes])[coded]
    return Rows(x, scaling, label, binarise, numbers, context=len(known), window=window)


# ---- reading ----


def _read(source: Any, options: Options, columns: list[str] | None = None, channels: int | None = None) -> Found:
    label = None
    if isinstance(source, str) and source in NAMED:
        found = from_name(source)
    elif isinstance(source, (str, Path)):
        found = _read_path(Path(source).expanduser(), str(source), options, columns, channels)
    else:
        x, label = source if isinstance(source, tuple) and len(source) == 2 else (source, None)
        found = from_table(x, options, columns) if hasattr(x, "__arrow_c_stream__") else from_array(x)
        if label is not None:
            found.label = label
    for name in ("label", "group", "time"):
        value = getattr(options, name)
        if value is None:
            continue
        if name == "label" and label is not None:
            raise ValueError("labels were given twice, as y of (X, y) and as label=; leave one of them away")
        if isinstance(value, str):
            if found.columns is not None or (name == "label" and found.source.endswith(".npz")):
                continue  # its reader has seen to it
            raise ValueError(
                f"{name}={value!r} names a column, and {found.source} has none: give an array with a value a row"
            )
        if getattr(found, name) is not None:
            raise ValueError(f"{found.source} brings its own {name}; leave {name}= away")
        setattr(found, name, value)
    if isinstance(options.context, tuple) and found.columns is None:
        raise ValueError(
            f'context is "label", or names columns of a table, and {found.source} has none; got '
            f"{', '.join(map(repr, options.context))}"
        )
    if options.drop and found.columns is None:
        raise ValueError(f"drop leaves out columns by name, and those of {found.source} have no names")
    if options.column and found.columns is None:
        raise ValueError(f"column says what columns are by name, and those of {found.source} have no names")
    return found


def _read_path(path: Path, text: str, options: Options, columns: list[str] | None, channels: int | None) -> Found:
    if not path.exists():
        raise FileNotFoundError(_missing(path, text))
    path = path.resolve()
    suffix = path.suffix.lower()
    if path.is_dir():
        files = [file for file in path.iterdir() if file.is_file()]
        if any(is_idx(file) for file in files):
            return from_idx_folder(path)
        if any(file.suffix == ".parquet" for file in files):
            return from_parquet(path, options, columns)
        return from_folder(path, options, channels)
    if is_idx(path):
        return from_idx(path)
    if suffix == ".npy":
        return from_npy(path)
    if suffix == ".npz":
        return from_npz(path, options.label if isinstance(options.label, str) else None)
    if suffix in (".csv", ".tsv", ".parquet"):
        return (from_parquet if suffix == ".parquet" else from_csv)(path, options, columns)
    if suffix in SUFFIXES:
        raise ValueError(f"{path} is a single image; give the folder that holds the images, {path.parent}")
    raise ValueError(
        f"{path} is of no kind that is read: .npy, .npz, .csv, .tsv, .parquet, an IDX file, a folder of images, or the "
        f"name of a set ({', '.join(NAMED)})"
    )


def _missing(path: Path, text: str) -> str:
    beside = [file.name for file in path.parent.iterdir()] if path.parent.is_dir() else []
    near = difflib.get_close_matches(text, NAMED, 1, 0.6) or [
        str(path.parent / name) for name in difflib.get_close_matches(path.name, beside, 1, 0.8)
    ]
    hint = f"did you mean {near[0]}?" if near else f"named sets are {', '.join(NAMED)}"
    return f"there is no file or folder {text}, and no named set of that name; {hint}"


# ---- deciding ----


def _decide(found: Found, options: Options) -> Data:
    check(found.x, found.source)
    part = _series(found, options) if options.window > 1 else None
    whole = None if found.table is None else TableCodec.fit(found.table, options.column)
    x = _hold(_lay_out(found)) if whole is None else whole.encode(found.table)
    label, classes = None, None
    if found.label is not None:
        label, classes, notes = code(found.label, len(x), found.source)
        found.notes += notes
        classes = found.classes or classes
    if options.context == "label" and (label is None or bool((label < 0).any())):
        raise ValueError(
            f'context="label" tells a model every row\'s label, and '
            f"{found.source} has {'none' if label is None else 'rows without one'}; name the column by label, or leave "
            "context away"
        )
    looked = survey(x, found.source, found.columns, options.seed, found.table is not None)
    if (looked.low == looked.high).all():
        raise ValueError(f"all {len(x)} rows of {found.source} are the same; there is nothing to learn from them")
    part = _split(found, looked.keys, options) if part is None else part
    if options.labelled is not None:
        if label is None:
            raise ValueError(
                f"labelled keeps some of the labels, and {found.source} has none; name the column by label"
            )
        train, test = (torch.from_numpy(part == which) for which in (TRAIN, TEST))
        label = few(label, train, test, options.labelled, options.seed)
        found.notes.append(f"{options.labelled} training rows keep their label; those of the test part are for judging")
    if whole is not None:
        x, chosen = _columns(found, whole, part == TRAIN, options)
    elif options.counts:
        chosen = _counts(x, looked, found.source)
    else:
        chosen = _scaling(x, looked, part == TRAIN, options.binarise, found.source)
    notes = found.notes + looked.notes + _shared(looked.keys, part) + ([chosen.note] if chosen.note else [])
    scaling = chosen.scaling
    if chosen.binarise == "fixed":
        x, scaling = _draw(x, scaling, found.source), Scaling("identity", "uint8")  # type: ignore[arg-type]
    name = re.sub(r"[^\w.-]+", "-", found.name).strip("-.") or "data"
    held = torch.from_numpy(part)
    return Data(
        name,
        found.source,
        x,
        label,
        classes,
        found.columns,
        held,
        scaling,
        chosen.likelihood,
        chosen.binarise,
        notes,
        options,
        *_told(found, part == TRAIN, options.context),
    )


def _told(found: Found, train: NDArray[np.bool_], columns: Any) -> tuple[Tensor | None, dict[str, list[Any]] | None]:
    """The columns of context, standardised by the training rows, and what undoes that."""
    if found.told is None:
        return None, None
    mean, std = found.told[train].mean(0), found.told[train].std(0)
    std[std == 0] = 1.0
    telling: dict[str, list[Any]] = {"columns": list(columns), "mean": mean.tolist(), "std": std.tolist()}
    return torch.from_numpy((found.told - mean) / std).float(), telling


def _lay_out(found: Found) -> NDArray[Any]:
    """Images as (n, channels, height, width), everything else as it is."""
    x = found.x
    if x.ndim == 3:
        return x[:, None]
    if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[3] in (1, 3, 4):
        return np.moveaxis(x, 3, 1)
    return x


def _hold(x: NDArray[Any]) -> Tensor | NDArray[Any]:
    """In memory as a tensor; as it is where it lies on disk, or is a view of windows that would be large."""
    large = not x.flags.contiguous and x.nbytes > IN_MEMORY
    return x if isinstance(x, np.memmap) or large else tensor(x)


def _series(found: Found, options: Options) -> NDArray[np.uint8]:
    """Makes windows of the rows, in the order of time; the part of each, LEFT where it lies in two."""
    rows, length = len(found.x), options.window
    if found.table is not None or found.x.ndim != 2:
        raise ValueError(
            f"windows are of a series of numbers in every cell, (steps, channels); {found.source} is something else: "
            "fill in what is missing, and leave out text (--drop)"
        )
    alone = found.group is None
    if found.time is not None:
        when = _one_each(found.time, found)
        if len(when) > 1 and not bool((when[1:] >= when[:-1]).all()):
            raise ValueError(f"the rows of a series stand in the order of time; sort {found.source} by it first")
    elif alone:
        found.time = np.arange(rows)
    group = np.zeros(rows) if alone else _one_each(found.group, found)
    if not alone and len(np.unique(group)) != 1 + int((group[1:] != group[:-1]).sum()):
        raise ValueError(
            f"the rows of a group stand together in a series; sort {found.source} by group, then by time, first"
        )
    part = _split(found, np.arange(rows), options)
    places = np.unique(group, return_inverse=True)[1] * 4 + part
    inside = _windowed(found, places, length)
    lost = int((~inside).sum())
    found.notes.append(f"{len(inside) - lost:,} windows of {length} steps" + (f"; {lost} across parts" if lost else ""))
    part = np.where(inside, part[: len(inside)], LEFT).astype(np.uint8)
    if not (part == TRAIN).any():
        raise ValueError(f"no part of {found.source} is as long as a window of {length} steps; ask for a shorter one")
    return part


def _windowed(found: Found, keys: NDArray[Any], length: int) -> NDArray[np.bool_]:
    """Puts windows in the place of rows, and the last step's in that of labels; which have equal keys throughout."""
    names = found.columns or [f"x{i}" for i in range(found.x.shape[1])]
    found.x, found.columns = windows(found.x, length), named(names, length)
    found.label = None if found.label is None else np.asarray(found.label)[length - 1 :]
    found.told = None if found.told is None else found.told[length - 1 :]
    found.group = found.time = None
    return within(keys, length)


def _split(found: Found, rows: NDArray[Any], options: Options) -> NDArray[np.uint8]:
    keys = rows
    if found.group is not None:
        groups = _one_each(found.group, found)
        keys = digests([repr(value).encode() for value in groups.tolist()], options.seed)
    elif found.time is not None:
        keys = _one_each(found.time, found)
        if any(value is None or value != value for value in keys.tolist()):
            raise ValueError(f"time has missing values in {found.source}, so its rows have no order; fill them in")
        keys = keys.astype(str) if keys.dtype.kind == "O" else keys
    ordered = found.time is not None
    if found.part is None:
        part = parts(keys, options.valid, options.test, ordered)
    else:
        part = found.part.copy()
        free = part == TRAIN
        kept = int((part == TEST).sum())
        found.notes += [f"its own test part of {kept} rows is kept"] if kept else []
        if not (part == VALID).any():
            part[free] = parts(keys[free], options.valid, 0.0, ordered)
    wanted = {"valid": (VALID, options.valid), "test": (TEST, 0.0 if found.part is not None else options.test)}
    for name, (number, share) in wanted.items():
        if share and not (part == number).any():
            found.notes.append(f"no row is left for {name}: there are too few different ones")
    return part


def _one_each(values: Any, found: Found) -> NDArray[Any]:
    held, rows = np.asarray(values), len(found.x)
    if held.shape != (rows,):
        name = "time" if values is found.time else "group"
        raise ValueError(f"{name} needs one value a row; {found.source} has {rows} rows and {name} shape {held.shape}")
    return held


def _shared(keys: NDArray[Any], part: NDArray[np.uint8]) -> list[str]:
    both = int(np.isin(keys[part == TEST], keys[part == TRAIN]).sum())
    return [f"{both} test rows also stand among the training rows"] if both else []


class _Chosen(NamedTuple):
    scaling: Scaling | TableCodec
    likelihood: Callable[..., Likelihood]
    binarise: str | None = None
    note: str | None = None


def _scaling(
    x: Tensor | NDArray[Any], looked: Survey, train: NDArray[np.bool_], binarise: str | None, source: str
) -> _Chosen:
    """Scaling and likelihood that suit the values."""
    dtype = str(dtype_of(x))
    if looked.binary:
        note = "the values are 0 and 1 already; binarise has nothing to do" if binarise else None
        return _Chosen(Scaling("identity", dtype), Bernoulli, None, note)
    image = x.ndim == 4
    found = grid(x, looked) if image or binarise else None
    if found is not None:
        low, step, levels = found
        scaling = Scaling("levels", dtype, low, step, levels)
        if levels == 2:
            return _Chosen(
                scaling, Bernoulli, None, f"there are two values only, {low:g} and {low + step:g}: black and white"
            )
        if binarise is None:
            return _Chosen(scaling, partial(DiscretisedLogistic, levels=levels))
    elif binarise is not None:
        low, high = float(looked.low.min()), float(looked.high.max())
        if low < 0 or high > 1:
            raise ValueError(
                f"binarise reads values as probabilities of 0..1, and those of {source} run from {low:g} to {high:g}; "
                "leave binarise away"
            )
        scaling = Scaling("identity", dtype)
    else:
        too_large(float(looked.low.min()), float(looked.high.max()), source)
        mean, std = moments(x, train, each=x.ndim == 2)
        return _Chosen(Scaling("standard", dtype, mean=mean, std=std), partial(Gaussian, sigma=1.0, learn="shared"))
    if binarise == "relaxed":
        note = "grey values under a Bernoulli have no likelihood: the numbers only compare with others of this kind"
        return _Chosen(scaling, partial(Bernoulli, relaxed=True), binarise, note)
    when = "once, with a fixed seed" if binarise == "fixed" else "anew in every batch"
    return _Chosen(scaling, Bernoulli, binarise, f"each grey value is drawn as black or white {when}")


def _columns(found: Found, whole: TableCodec, train: NDArray[np.bool_], options: Options) -> tuple[Tensor, "_Chosen"]:
    """A table of mixed columns: what they are all rows say, what they hold the training rows."""
    if options.counts or options.binarise:
        what = "counts" if options.counts else f"binarise={options.binarise!r}"
        raise ValueError(
            f"{what} is for numbers in every cell, and {found.source} has text, dates or missing cells: leave it away, "
            "or leave those columns out (--drop)"
        )
    kinds = {column.name: column.kind for column in whole.kept if column.kind != "constant"}
    codec = TableCodec.fit(found.table.filter(train), kinds)
    found.columns = [column.name for column in codec.used]
    found.notes += [f"column {c.name!r} is set aside: {c.describe()}" for c in codec.kept if not c.used]
    lost = [f"{column.name!r} {column.missing}" for column in codec.used if column.missing]
    found.notes += [f"missing cells are not scored; of the training rows: {', '.join(lost)}"] if lost else []
    return codec.encode(found.table), _Chosen(codec, codec.likelihood)


def _counts(x: Tensor | NDArray[Any], looked: Survey, source: str) -> _Chosen:
    """Counts as they are."""
    if not looked.whole or looked.low.min() < 0:
        what = "fractions" if not looked.whole else "values below 0"
        raise ValueError(
            f"counts are whole numbers from 0 up, and {source} holds {what}; leave counts away, and with it a "
            "likelihood of counts (Gaussian takes any number)"
        )
    return _Chosen(Scaling("counts", str(dtype_of(x))), NegativeBinomial)


def _draw(x: Tensor | NDArray[Any], scaling: Scaling, source: str) -> Tensor:
    """Every value of the scaled rows drawn once, (n, *event) uint8 of 0 and 1; the same for every seed of `load`."""
    if not isinstance(x, Tensor):
        raise ValueError(
            f"{source} is too large to be drawn once and kept; use binarise='dynamic' (--binarise dynamic)"
        )
    drawn = torch.empty(x.shape, dtype=torch.uint8)
    for number, start in enumerate(range(0, len(x), 4096)):
        grey = scaling(x[start : start + 4096])
        generator = torch.Generator().manual_seed(draws.mix(0, number))
        drawn[start : start + 4096] = torch.rand(grey.shape, generator=generator) < grey
    return drawn


def _check_grid(x: Tensor | NDArray[Any], looked: Survey, scaling: Scaling, source: str, binarise: str | None) -> None:
    """Raises ValueError for values that the scaling does not bring into the support of the likelihood."""
    low, high = float(looked.low.min()), float(looked.high.max())
    if scaling.kind == "identity":
        right = looked.binary or (binarise is not None and low >= 0 and high <= 1)
        known = "0..1" if binarise else "0 and 1"
    elif scaling.kind == "levels":
        top = scaling.low + scaling.step * (scaling.levels - 1)
        on_grid = looked.bytes_ if scaling.step < 1 else looked.whole
        if scaling.step > 1:
            k = ((values.astype(np.float64) - scaling.low) / scaling.step for _, values in chunks(x))
            on_grid = on_grid and all((part == np.rint(part)).all() for part in k)
        right, known = on_grid and low >= scaling.low and high <= top + 1e-6, scaling.describe()
    elif scaling.kind == "counts":
        right, known = looked.whole and low >= 0, "whole numbers from 0 up"
    else:
        return
    if not right:
        raise ValueError(
            f"the values of {source} run from {low:g} to {high:g}, and the model knows {known}; scale them alike"
        )
