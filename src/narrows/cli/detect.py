"""The command that finds odd rows: from a table, or a folder of them, to the same with a score and a reason."""

import math
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast

import typer

from narrows.cli.app import RunFolder, Source, app
from narrows.cli.use import beside, mixed

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    import torch

    from narrows.store import Run
    from narrows.tasks import Detector

__all__ = ["detect"]

PIECE = 65_536  # rows at a time
SHOWN = 20  # rows on the page
HELD = 20_000  # rows that calibrate, at most
BETTER = "the forest is BETTER here"


@app.command()
def detect(
    run: RunFolder,
    data: Source,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help=".csv or .parquet; a folder for a folder of .parquet files")
    ] = None,
    by: Annotated[
        str, typer.Option(help="combined, neighbours, mahalanobis, likelihood, reconstruction, error")
    ] = "combined",
    false_alarms: Annotated[
        float | None, typer.Option(help="share of rows like the held-out ones to flag  [default: 0.01]")
    ] = None,
    share: Annotated[float | None, typer.Option(help="expected share of anomalies in DATA, instead")] = None,
    fdr: Annotated[float | None, typer.Option(help="share of flagged rows that may be normal, instead")] = None,
    label: Annotated[
        str | None, typer.Option(help="column that is 1 for known anomalies: sets the threshold, and judges")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the draws")] = 0,
) -> None:
    """Score how odd every row of DATA is, flag rows by a threshold, and say which columns are to blame."""
    import pyarrow as pa

    import narrows as nr
    from narrows import store

    loaded, source = nr.load(run), Path(data)
    if sum(value is not None for value in (false_alarms, share, fdr)) > 1:
        raise ValueError("one threshold at a time: --false-alarms, --share or --fdr")
    detector = _detector(loaded, Path(run), by, seed)
    if source.is_dir() and any(source.glob("*.parquet")):
        if _series(loaded):
            raise ValueError("a series is scored as a whole: give one file, in the order of time")
        if share is not None or fdr is not None or label is not None:
            raise ValueError("a folder is scored piece by piece: --share, --fdr and --label need all rows at once")
        _folder(loaded, detector, source, out or source.with_name(f"{source.name}-scored"), false_alarms)
        return
    out = out or beside(run, source, "scored")
    if out.suffix not in (".csv", ".parquet"):
        raise ValueError(f"--out ends in .csv or .parquet; got {out}")
    table = nr.data.whole(data if not source.exists() else source)
    series = _series(loaded)
    scores, p = _scored(loaded, detector, table)
    truth = None if label is None else _truth(table, label)
    if fdr is not None:
        flagged = nr.tasks.benjamini_hochberg(p, fdr)
        told = f"a false discovery rate of {fdr:g}"
    else:
        if truth is not None and false_alarms is None and share is None:
            threshold = detector.threshold(scores=scores, label=truth)
        else:
            threshold = detector.threshold(false_alarms, share, scores)
        flagged, told = scores >= threshold.value, threshold.why
    channels = _channels(loaded, detector, table) if series else None
    why = _why(loaded, table, flagged) if channels is None else channels.why(flagged)
    columns = {"score": _known(scores), "p_value": _known(p), "flagged": flagged.numpy(), "why": pa.array(why)}
    if channels is not None:
        columns |= {f"nats.{name}": _known(part) for name, part in zip(channels.names, channels.nats.T, strict=True)}
    for name, column in columns.items():
        table = _with(table, name, column)
    mixed(table, out)
    typer.echo(f"flagged {int(flagged.sum()):,} of {len(table):,} rows by {told}")
    order = _strangest(scores, flagged, series)
    for first, last, row in order[:5]:
        if why[row]:
            where = f"row {row}" if first == last else f"steps {first} to {last}, most at {row}"
            typer.echo(f"{where}: score {scores[row]:.3g}, p = {p[row]:.2g}: {why[row]}")
    for line in _beside(loaded, table, scores, flagged, truth):
        typer.echo(line)
    page, title = out.with_suffix(".html"), f"{data}: {int(flagged.sum()):,} of {len(table):,} rows, by {told}"
    picture = "" if channels is None else channels.picture(scores, flagged, truth)
    store.write(page, _page(table, [row for *_, row in order], title, picture).encode())
    what = f"the series, and the {len(order)} strangest stretches" if series else f"the {len(order)} strangest rows"
    typer.echo(f"wrote {page}: {what}")


def _series(loaded: "Run") -> bool:
    """Whether its rows are windows of a series."""
    return bool(loaded.config["data"]["options"].get("window", 1) > 1)


def _strangest(scores: "torch.Tensor", flagged: "torch.Tensor", series: bool) -> list[tuple[int, int, int]]:
    """Begin, end and strangest row, strangest first: of each row, or of each flagged stretch of a series."""
    order = scores.nan_to_num(-math.inf).argsort(descending=True).tolist()
    if not series:
        return [(row, row, row) for row in order[:SHOWN]]
    inside = flagged.tolist()
    found: list[tuple[int, int, int]] = []
    seen: set[int] = set()
    for row in order:
        if not inside[row] or len(found) == SHOWN:
            break
        if row not in seen:
            first = last = row
            while first and inside[first - 1]:
                first -= 1
            while last + 1 < len(inside) and inside[last + 1]:
                last += 1
            seen.update(range(first, last + 1))
            found.append((first, last, row))
    return found


def _detector(loaded: "Run", folder: Path, by: str, seed: int) -> "Detector":
    """The run's detector, read from its folder where it was made of these weights, else made and written there."""
    import torch

    from narrows import store
    from narrows.tasks import Detector

    path = folder / f"detector-{by}.safetensors"
    stamp = {"by": by, "seed": seed, "weights": store.digest(folder / "weights.safetensors")}
    if path.exists():
        tensors, about = store.read_tensors(path)
        if about == stamp:
            return Detector.of(loaded.model, by, tensors, seed)
    known = loaded.data
    held, name = (known.valid, "validation") if len(known.valid) else (known.test, "test")
    if not len(held):
        raise ValueError(
            f"{folder} held no rows out that could calibrate a threshold: fit with --valid or --test above 0"
        )
    held = held.take(torch.arange(min(len(held), HELD)))
    made = Detector(loaded.model, known.train, held, by, seed)
    store.write_tensors(path, made.state, stamp)
    typer.echo(f"calibrated on {len(held):,} {name} rows; wrote {path}")
    return made


def _scored(loaded: "Run", detector: "Detector", table: "pa.Table") -> tuple["torch.Tensor", "torch.Tensor"]:
    """Score and p-value of each row of a table."""
    import torch

    import narrows as nr

    parts, whole = [], _series(loaded)  # no window ends where a piece does
    for start in range(0, 1 if whole else max(len(table), 1), PIECE):
        rows = nr.data.like(loaded.config["data"], table if whole else table.slice(start, PIECE))
        parts.append(detector.score(rows))
    scores = torch.cat(parts)
    return scores, detector.p_values(scores)


def _folder(loaded: "Run", detector: "Detector", source: Path, out: Path, false_alarms: float | None) -> None:
    """Each .parquet file of a folder to one of the same name with score, p-value and flag; those there are kept."""
    import hashlib

    import narrows as nr

    threshold = detector.threshold(false_alarms)
    stamp = hashlib.sha256(b"".join(t.contiguous().numpy().tobytes() for _, t in sorted(detector.state.items())))
    stamp.update(f"{detector.by} {threshold.value}".encode())
    out.mkdir(parents=True, exist_ok=True)
    files, done, flagged, rows = sorted(source.glob("*.parquet")), 0, 0, 0
    for number, file in enumerate(files):
        mark = f"{stamp.hexdigest()} {file.stat().st_size} {file.stat().st_mtime_ns}"
        target = out / file.name
        if target.exists() and _mark(target) == mark:
            done += 1
            continue
        part = target.with_suffix(".parquet.part")
        found = _stream(loaded, detector, nr.data.pieces(file, PIECE), part, threshold.value, mark)
        part.replace(target)
        rows, flagged = rows + found[0], flagged + found[1]
        typer.echo(f"{number + 1} of {len(files)}: {file.name}, {found[0]:,} rows, {found[1]:,} flagged")
    kept = f"; {done} of {len(files)} files were there already" if done else ""
    typer.echo(f"flagged {flagged:,} of {rows:,} rows by {threshold.why}{kept}; wrote {out}")


def _stream(
    loaded: "Run", detector: "Detector", pieces: Iterator["pa.Table"], part: Path, threshold: float, mark: str
) -> tuple[int, int]:
    from pyarrow import parquet

    writer, rows, flagged = None, 0, 0
    try:
        for table in pieces:
            scores, p = _scored(loaded, detector, table)
            for name, column in (("score", scores), ("p_value", p), ("flagged", scores >= threshold)):
                table = _with(table, name, column.numpy())
            if writer is None:
                table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"narrows": mark.encode()})
                writer = parquet.ParquetWriter(part, table.schema)
            writer.write_table(table.cast(writer.schema))
            rows, flagged = rows + len(table), flagged + int((scores >= threshold).sum())
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    finally:
        if writer is not None:
            writer.close()
    return rows, flagged


def _mark(file: Path) -> str:
    from pyarrow import ArrowInvalid, parquet

    try:
        return (parquet.read_schema(file).metadata or {}).get(b"narrows", b"").decode()
    except (ArrowInvalid, OSError):
        return ""


def _truth(table: "pa.Table", label: str) -> "torch.Tensor":
    import torch

    from narrows.spec import misspelt

    if label not in table.column_names:
        raise ValueError(misspelt("column", label, table.column_names))
    cells = table.column(label).to_pylist()
    if not set(cells) <= {0, 1, "0", "1"}:
        raise ValueError(f"--label is a column of 1 for anomalies and 0 for others; {label} has others too")
    return torch.tensor([str(int(cell)) == "1" for cell in cells])


def _why(loaded: "Run", table: "pa.Table", flagged: "torch.Tensor") -> list[str]:
    """A sentence for each flagged row, "" for the others; none where cells cannot be blamed."""
    import narrows as nr

    said, model = [""] * len(table), loaded.model
    rows = flagged.nonzero().flatten().tolist()
    if not rows or len(model.shape) != 1 or not (model.density and model.weighed):
        return said
    some = nr.data.like(loaded.config["data"], table.take(rows))
    names = loaded.config["data"]["columns"] or [f"x{i}" for i in range(model.shape[0])]
    scaling: Any = loaded.scaling
    if isinstance(scaling, nr.data.TableCodec):
        names, undo = [column.name for column in scaling.used], scaling.decode
    else:
        undo = scaling.undo
    found = nr.tasks.blame(model, some)
    texts = nr.tasks.reasons(found.evidence, undo(found.values), undo(found.expected), names)
    for row, text in zip(rows, texts, strict=True):
        said[row] = text
    return said


class _Channels(NamedTuple):
    """What a series is step by step, and by how many nats each channel is off."""

    names: list[str]
    seen: "np.ndarray[Any, Any]"  # (T, C), units of the data
    nats: "torch.Tensor"
    expected: "np.ndarray[Any, Any]"

    def why(self, flagged: "torch.Tensor") -> list[str]:
        import narrows as nr

        said, at = [""] * len(flagged), flagged.nonzero().flatten()
        texts = nr.tasks.reasons(self.nats[at], self.seen[at.numpy()], self.expected[at.numpy()], self.names)
        for row, text in zip(at.tolist(), texts, strict=True):
            said[row] = text
        return said

    def picture(self, scores: "torch.Tensor", flagged: "torch.Tensor", truth: "torch.Tensor | None") -> str:
        """The score and the channels that are furthest off where it is flagged, or anywhere, as HTML."""
        from narrows import pictures

        off = self.nats[flagged] if flagged.any() else self.nats
        few = off.nan_to_num(0.0).mean(0).argsort(descending=True)[:4].tolist()
        lines = {self.names[c]: (self.seen[:, c], self.expected[:, c]) for c in few}
        return pictures.inline(pictures.series(scores, flagged, truth, lines), "score and channels over time")


def _channels(loaded: "Run", detector: "Detector", table: "pa.Table") -> _Channels:
    import numpy as np

    import narrows as nr
    from narrows.data.windows import unnamed

    known, scaling = loaded.config["data"], cast("nr.data.Scaling", loaded.scaling)
    names = unnamed(known["columns"], known["options"]["window"])
    nats, expected = detector.channels(nr.data.like(known, table), scaling.undo)
    seen = np.stack([table.column(name).to_numpy() for name in names], 1)
    return _Channels(names, seen, nats, expected.numpy())


def _known(values: "torch.Tensor") -> "pa.Array":
    """Numbers, null where there are none."""
    import pyarrow as pa

    return pa.array(values.numpy(), from_pandas=True)


def _beside(
    loaded: "Run", table: "pa.Table", scores: "torch.Tensor", flagged: "torch.Tensor", truth: "torch.Tensor | None"
) -> list[str]:
    """An isolation forest of the same training rows on the same table: who ranks better, or how far they agree."""
    import torch

    import narrows as nr
    from narrows.baselines import isolation_forest

    learned = loaded.data.train
    reads = loaded.model.likelihood.shown
    train = learned.take(torch.randperm(len(learned), generator=torch.Generator().manual_seed(0))[:10_000])
    table, truth = table.slice(0, 200_000), None if truth is None else truth[:200_000]
    rows = nr.data.like(loaded.config["data"], table)
    seen, new = (reads(nr.evaluate.inputs(loaded.model, part)).flatten(1) for part in (train, rows))
    other = rows.steps(isolation_forest(seen, new))
    if truth is None:
        few, strangest = int(flagged.sum()), other.nan_to_num(-math.inf).argsort(descending=True)
        same = set(strangest[:few].tolist()) & set(flagged.nonzero().flatten().tolist())
        return [f"an isolation forest of the same rows has {len(same):,} of these {few:,} among its strangest {few:,}"]
    known = ~other.isnan()
    ours, theirs, truth = scores[: len(other)][known], other[known], truth[known]
    if truth.all() or not truth.any():
        return ["no areas under curves: the labels are all alike"]
    if rows.window > 1:
        return _areas(ours, theirs, truth)
    a, b = (nr.evaluate.auc(s[truth], s[~truth]) for s in (ours, theirs))
    return [f"area under the ROC curve on the labelled rows {a} (isolation forest: {b}{a.against(b, BETTER)})"]


def _areas(ours: "torch.Tensor", theirs: "torch.Tensor", truth: "torch.Tensor", blocks: int = 20) -> list[str]:
    """Areas of steps without and with point adjustment; errors by leaving out a twentieth of the series in turn.

    Reference: The Jackknife and the Bootstrap for General Stationary Observations (Kuensch, 1989), section 2.
    """
    import torch

    import narrows as nr

    def areas(kept: "torch.Tensor") -> list[float]:
        found = []
        for scores in (ours, theirs):
            for adjust in (lambda s, _: s, nr.tasks.point_adjusted):
                s, t = adjust(scores[kept], truth[kept]), truth[kept]
                found.append(nr.evaluate.auc(s[t], s[~t]).mean if t.any() and not t.all() else math.nan)
        return [*found, found[0] - found[2]]

    block = torch.arange(len(truth)) * blocks // len(truth)
    left = torch.tensor([areas(block != one) for one in range(blocks)], dtype=torch.float64)
    error = ((blocks - 1) * left.var(0, correction=0)).sqrt().nan_to_num(math.inf)  # all anomalies in one block
    full = areas(torch.ones_like(truth))
    a, plain_a, b, plain_b = (nr.evaluate.Mean(m, float(e)) for m, e in zip(full[:4], error[:4], strict=True))
    word = nr.evaluate.Mean(full[4], float(error[4])).against(nr.evaluate.Mean(0.0, 0.0), BETTER)
    return [
        f"area under the ROC curve of steps {a} (isolation forest of windows: {b}{word})",
        f"the same where a stretch counts as found by its best step {plain_a} (isolation forest: {plain_b})",
    ]


def _with(table: "pa.Table", name: str, column: Any) -> "pa.Table":
    """The table with a column more, or a new one in its place."""
    import pyarrow as pa

    made = column if isinstance(column, pa.Array) else pa.array(column)
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, made)
    return table.append_column(name, made)


def _page(table: "pa.Table", order: list[int], title: str, picture: str = "") -> str:
    """The strangest rows as a page that opens offline."""
    from narrows.report import STYLE

    first = ["score", "p_value", "flagged", "why"]
    names = first + [name for name in table.column_names if name not in first]
    some = table.take(order).select(names).to_pylist()

    def cell(value: Any) -> str:
        return escape(f"{value:.4g}" if isinstance(value, float) else str(value))

    head = "".join(f"<th>{escape(name)}</th>" for name in ["row", *names])
    body = "".join(
        f"<tr><td>{row}</td>{''.join(f'<td>{cell(line[name])}</td>' for name in names)}</tr>"
        for row, line in zip(order, some, strict=True)
    )
    return (
        f"<!doctype html><meta charset='utf-8'><title>{escape(title)}</title><style>{STYLE}</style>"
        f"<h1>The strangest rows</h1><p class='verdict'>{escape(title)}</p>{picture}"
        f"<div class='wide'><table><tr>{head}</tr>{body}</table></div>"
    )
