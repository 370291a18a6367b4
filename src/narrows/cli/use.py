"""Commands that put a run to work: from rows to codes, from codes to rows, to files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from narrows.cli.app import Out, RunFolder, Source, app

if TYPE_CHECKING:
    import numpy as np
    import torch

    from narrows.data import Rows, TableCodec
    from narrows.store import Run

__all__ = [
    "beside",
    "denoise",
    "encode",
    "export",
    "features",
    "impute",
    "interpolate",
    "mixed",
    "project",
    "reconstruct",
    "redraw",
    "sample",
    "traverse",
]


_TEMPERATURE = "multiplies the standard deviations of the prior; 1,0.7,... for each rung, top first"


def _numbers(text: str) -> float | list[float]:
    """A number, or several with commas between them."""
    try:
        many = [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--temperature is a number, or one for each rung such as 1,0.7; got {text!r}") from None
    return many[0] if len(many) == 1 else many


@app.command()
def sample(
    run: RunFolder,
    n: Annotated[int, typer.Option("--n", "-n", "--rows", help="how many", min=1)] = 64,
    seed: Annotated[int, typer.Option(help="of the draws")] = 0,
    given: Annotated[
        list[str] | None, typer.Option(help="COLUMN=VALUE that all rows are to have (repeat for more)")
    ] = None,
    label: Annotated[str | None, typer.Option(help="which class, for a model that knows of labels")] = None,
    told: Annotated[
        str | None, typer.Option("--context", help="name=value,...: for a model that was told these")
    ] = None,
    mean: Annotated[
        bool | None, typer.Option("--mean/--draw", help="the mean of p(x|z), or a draw from it, as for mixed columns")
    ] = None,
    temperature: Annotated[str, typer.Option(help=_TEMPERATURE)] = "1",
    out: Out = None,
) -> None:
    """Draw new rows from RUN."""
    import torch

    import narrows as nr
    from narrows.labels import labels_of

    loaded = nr.load(run)
    context = None
    classes, one = labels_of(loaded.model), torch.empty(0)
    telling = loaded.config["data"].get("telling")
    if telling is not None:
        context = _features(telling, told).repeat(n, 1)
    elif label is not None or loaded.model.context:
        known = loaded.config["data"].get("classes") or []
        if not loaded.model.context and not classes:
            raise ValueError(f"--label is for models that were told the labels; {run} was not (fit --context label)")
        if label not in known:
            raise ValueError(f"{run} was told the labels: say which by --label, one of {', '.join(known)}; got {label}")
        one = torch.eye(len(known))[[known.index(label)]].repeat(n, 1)
        context = one if loaded.model.context else None
    table = isinstance(loaded.scaling, nr.data.TableCodec)  # whose expected number need be none that there is
    if given:
        codec, asked = _given(loaded, given)
        found = nr.tasks.sample(loaded.model, n, codec.ask(asked), None if context is None else context[:1], seed=seed)
        typer.echo(str(found))
        mixed(codec.exact(codec.decode(found.x), asked), out or Path(run) / "samples.csv")
        _trust(run)
        return
    with nr.draws.seeded(seed), torch.no_grad():
        z = loaded.model.draw(n, context, _numbers(temperature))
        if classes and label is not None:
            z[:, :classes] = one  # the label is part of the code
        px = loaded.model.decode(z, context)
        made = px.mean if mean or (mean is None and not table) else px.sample()
    _write(made, loaded, out or Path(run) / f"samples.{_suffix(loaded)}")
    if table:
        _trust(run)


@app.command()
def redraw(
    run: RunFolder,
    keep: Annotated[
        int | None, typer.Option(help="top rungs that are kept  [default: all, then fewer and fewer]")
    ] = None,
    rows: Annotated[int, typer.Option(help="how many test rows", min=1)] = 12,
    n: Annotated[int, typer.Option("--n", "-n", help="draws of each row, with --keep", min=1)] = 4,
    seed: Annotated[int, typer.Option(help="of the draws")] = 0,
    temperature: Annotated[str, typer.Option(help=_TEMPERATURE)] = "1",
    out: Out = None,
) -> None:
    """Keep the top rungs of test rows of RUN and draw the others anew: what each rung holds."""
    import torch

    import narrows as nr
    from narrows.models import Ladder
    from narrows.plots import judged, kept_rungs

    loaded = nr.load(run)
    shown, name = judged(loaded.data)
    few, width = shown.take(torch.arange(min(len(shown), rows))), _numbers(temperature)
    if keep is None and isinstance(loaded.model, Ladder):
        made = kept_rungs(loaded.model, few, width, seed)
        typer.echo(f"{len(few)} {name} rows; with all {len(loaded.model.rungs)} rungs; with one fewer each time")
    else:
        made = nr.tasks.redraw(loaded.model, few, keep or 0, n, width, seed)
        made = torch.cat([nr.evaluate.inputs(loaded.model, few), made.flatten(0, 1)])
        typer.echo(f"{len(few)} {name} rows; then {n} times the same with {keep} of their rungs kept")
    _write(made, loaded, out or Path(run) / f"redrawn.{_suffix(loaded)}", across=len(few))


@app.command()
def reconstruct(run: RunFolder, data: Source, out: Out = None) -> None:
    """Pass DATA through the code of RUN and back; the input is trusted."""
    import narrows as nr

    loaded = nr.load(run)
    rows = nr.data.like(loaded.config["data"], data)
    made = nr.evaluate.reconstruct(loaded.model, rows)
    if isinstance(rows.scaling, nr.data.TableCodec):  # whose cells have no common scale
        nats = float(nr.evaluate.distortion_rate(loaded.model, rows)[0].mean())
        typer.echo(f"{len(made):,} rows, {nats:.4g} nats a row through the code")
    else:
        error = float((made - rows.x).square().flatten(1).sum(1).mean())
        typer.echo(f"{len(made):,} rows, mean squared error {error:.4g} a row (scaled values)")
    _write(made, loaded, out or Path(run) / f"reconstructions.{_suffix(loaded)}")


@app.command()
def impute(
    run: RunFolder,
    data: Source,
    samples: Annotated[int, typer.Option(help="draws of the code for each row")] = 200,
    several: Annotated[int, typer.Option("--draws", help="also as many tables filled at random, OUT-1, ...")] = 0,
    seed: Annotated[int, typer.Option(help="of the draws")] = 0,
    out: Out = None,
) -> None:
    """Fill the empty cells of the table DATA, given what is known of each row; list them with how sure they are."""
    import pyarrow
    import torch

    import narrows as nr
    from narrows.data.found import UNKEPT

    loaded, source = nr.load(run), Path(data)
    codec, table, rows = _cells(loaded, run, source, "none of them missing: train on a table that has empty cells")
    found = nr.impute(loaded.model, rows, samples, max(several, 1), seed)
    out = out or beside(run, source, "imputed")
    mixed(codec.fill(table, found.values), out)
    for number in range(several):
        mixed(codec.fill(table, found.draws[number]), out.with_stem(f"{out.stem}-{number + 1}"))
    row, place = rows.x.isnan().nonzero().unbind(1)
    names = [column.name for column in codec.used]
    listed: dict[str, Any] = {"row": row.numpy(), "column": [names[c] for c in place.tolist()]}
    for what, part in (("value", found.values), ("low", found.low), ("high", found.high)):
        made = codec.decode(part[row])  # a row for each cell
        columns = [made.column(name).to_pylist() for name in names]
        listed[what] = [str(columns[c][cell]) for cell, c in enumerate(place.tolist())]
    listed["sure"] = found.sure[row, place].numpy()
    mixed(pyarrow.table(listed), out.with_stem(f"{out.stem}-cells"))
    typer.echo(f"filled {len(row):,} cells of {len(torch.unique(place))} columns in {len(torch.unique(row)):,} rows")
    if loaded.config["data"]["source"] in UNKEPT:
        return  # what it learned from is not kept
    known = loaded.data
    typer.echo(str(nr.tasks.rehearse(loaded.model, known.train, known.test if len(known.test) else known.train)))


@app.command()
def denoise(
    run: RunFolder,
    data: Source,
    rate: Annotated[float, typer.Option(help="share of sound cells that may be replaced")] = 0.001,
    samples: Annotated[int, typer.Option(help="draws of the code for each row")] = 256,
    seed: Annotated[int, typer.Option(help="of the draws")] = 0,
    out: Out = None,
) -> None:
    """Replace improbable cells of the table DATA by what the others of their row make one expect; list the changes."""
    import pyarrow
    import torch

    import narrows as nr
    from narrows.data.found import UNKEPT
    from narrows.plots import judged

    loaded, source = nr.load(run), Path(data)
    codec, table, rows = _cells(loaded, run, source, "and denoise replaces cells of a table of mixed columns")
    if loaded.config["data"]["source"] in UNKEPT:
        raise ValueError(
            f"{run} learned from rows that are not kept, and held-out rows tell what is odd: train on a file, or call "
            "nr.tasks.denoise(model, rows, held)"
        )
    known, held = loaded.data, judged(loaded.data)[0]
    found = nr.tasks.denoise(loaded.model, rows, held, rate, samples, seed)
    where = torch.zeros(found.values.shape, dtype=torch.bool)
    where[found.row, found.column] = True
    out = out or beside(run, source, "denoised")
    made = codec.fill(table, found.values, where)
    names = [codec.used[c].name for c in found.column.tolist()]
    listed: dict[str, Any] = {"row": found.row.numpy(), "column": names}
    for what, part in (("seen", table), ("expected", made)):
        cells = zip(found.row.tolist(), names, strict=True)
        listed[what] = pyarrow.array([str(part.column(name)[row].as_py()) for row, name in cells], pyarrow.string())
    listed |= {"nats": found.nats.numpy(), "evidence": found.evidence.numpy()}
    mixed(made, out)
    mixed(pyarrow.table(listed), out.with_stem(f"{out.stem}-cells"))
    typer.echo(
        f"replaced {len(names):,} cells of {len(set(names))} columns in {len(found.row.unique()):,} of {len(table):,} "
        f"rows: those with evidence above {found.threshold:.3g} nats, as {rate:.2g} of held-out cells have"
    )
    typer.echo(str(nr.tasks.rehearse_denoising(loaded.model, known.train, held, rate, samples=samples, seed=seed)))


@app.command()
def interpolate(
    run: RunFolder,
    between: Annotated[tuple[int, int], typer.Option(help="two test rows, by number")] = (0, 1),
    steps: Annotated[int, typer.Option(help="pictures on the way, both ends among them")] = 9,
    path: Annotated[str, typer.Option(help="linear, spherical, density: through likely codes")] = "linear",
    out: Out = None,
) -> None:
    """Walk from one test row of RUN to another through the code."""
    import torch

    import narrows as nr
    from narrows.plots import judged

    loaded = nr.load(run)
    rows, name = judged(loaded.data)
    for number in between:
        if not 0 <= number < len(rows):
            raise ValueError(f"there are {name} rows 0 to {len(rows) - 1}; got {number}")
    made = nr.tasks.interpolate(loaded.model, rows.take(torch.tensor(between)), steps, path)
    _write(made, loaded, out or Path(run) / f"interpolation.{_suffix(loaded)}", across=steps)


@app.command()
def traverse(
    run: RunFolder,
    unit: Annotated[
        list[int] | None, typer.Option(help="unit of the code (repeat for more)  [default: the 8 used most]")
    ] = None,
    steps: Annotated[int, typer.Option(help="pictures a unit")] = 12,
    width: Annotated[float, typer.Option(help="standard deviations to either side")] = 2.5,
    out: Out = None,
) -> None:
    """Move single units of the code of RUN, one line a unit."""
    import torch

    import narrows as nr
    from narrows.plots import judged

    loaded = nr.load(run)
    rows, _ = judged(loaded.data)
    walk = nr.tasks.traverse(loaded.model, rows.take(torch.arange(min(len(rows), 5000))), unit, steps, width)
    typer.echo(f"units {', '.join(map(str, walk.units))}, one line each")
    _write(walk.x.flatten(0, 1), loaded, out or Path(run) / f"traversal.{_suffix(loaded)}", across=steps)


@app.command()
def encode(
    run: RunFolder,
    data: Source,
    spread: Annotated[
        bool, typer.Option("--spread", help="also how sure the model is: sigma of each unit, entropy in nats")
    ] = False,
    out: Out = None,
) -> None:
    """Write the full code of every row of DATA as a table."""
    import torch

    import narrows as nr

    loaded = nr.load(run)
    rows = nr.data.like(loaded.config["data"], data)
    z = nr.evaluate.codes(loaded.model, rows)
    names = [f"z{i}" for i in range(z.shape[1])]
    if spread:
        found = nr.evaluate.spread(loaded.model, rows)
        z = torch.cat([z, found.code, found.entropy[:, None]], 1)
        names += [f"sigma{i}" for i in range(found.code.shape[1])] + ["entropy"]
    _table(z.numpy(), names, out or Path(run) / "codes.csv")


@app.command()
def features(
    run: RunFolder,
    data: Annotated[
        str | None, typer.Argument(help="other rows  [default: the test rows of RUN]", metavar="[DATA]")
    ] = None,
    top: Annotated[int, typer.Option(help="rows a unit")] = 10,
    out: Out = None,
) -> None:
    """Say what each unit of the code of RUN answers: how often it fires, and for which rows most strongly."""
    import torch

    import narrows as nr
    from narrows.plots import judged

    loaded = nr.load(run)
    rows: Rows = judged(loaded.data)[0] if data is None else nr.data.like(loaded.config["data"], data)
    found = nr.evaluate.features(loaded.model, rows, top)
    typer.echo(
        f"{len(rows):,} rows: {found.active.mean:.4g} of {loaded.model.latent:,} units fire for a row, "
        f"{int(found.dead.sum()):,} units for none"
    )
    table = torch.cat([found.rate[:, None].double(), found.rows.double(), found.values.double()], 1)
    shown = range(found.rows.shape[1])
    names = ["rate", *(f"row{i}" for i in shown), *(f"value{i}" for i in shown)]
    _table(table.numpy(), names, out or Path(run) / "features.csv")


@app.command()
def project(
    run: RunFolder,
    data: Annotated[
        str | None, typer.Argument(help="other rows  [default: the test rows of RUN]", metavar="[DATA]")
    ] = None,
    method: Annotated[str, typer.Option(help="auto, latent, pca, umap")] = "auto",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help=".png for a picture, .csv or .npy for coordinates")
    ] = None,
) -> None:
    """Show codes in two dimensions: a picture, and the coordinates."""
    import narrows as nr
    from narrows import pictures, store
    from narrows.plots import judged

    loaded = nr.load(run)
    rows: Rows = judged(loaded.data)[0] if data is None else nr.data.like(loaded.config["data"], data)
    found = nr.tasks.project(nr.evaluate.codes(loaded.model, rows), method)
    targets = [out] if out else [Path(run) / "projection.png", Path(run) / "projection.csv"]
    for target in targets:
        if target.suffix == ".png":
            store.write(
                target, pictures.png(pictures.scatter(*found, rows.label, loaded.config["data"].get("classes")))
            )
            typer.echo(f"wrote {target}: {found.title}")
        else:
            _table(found.points.numpy(), ["x", "y"], target)


@app.command()
def export(
    run: RunFolder,
    form: Annotated[str, typer.Option("--format", help="onnx or pt2")] = "onnx",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="folder for the files  [default: RUN]")] = None,
) -> None:
    """Write encoder (stored values to code) and decoder (code to stored values) for use without Narrows."""
    import narrows as nr
    from narrows.export import export as write

    for path in write(nr.load(run), out or run, form):
        typer.echo(f"wrote {path}")


def _trust(run: Path) -> None:
    typer.echo(f"are they alike, useful, private? narrows evaluate {run} --synthetic --target COLUMN")


def _given(run: "Run", given: list[str]) -> "tuple[TableCodec, dict[str, str]]":
    """What is asked of which columns, from COLUMN=VALUE."""
    from narrows.data import TableCodec

    codec = run.scaling
    asked: dict[str, str] = {}
    if not isinstance(codec, TableCodec):
        raise ValueError(
            f"--given is for tables of mixed columns, each with a probability of its own, and {run.folder} learned "
            "from numbers alone: train with --column NAME=KIND, or leave --given out"
        )
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--given takes COLUMN=VALUE, such as {codec.used[0].name}=...; got {pair!r}")
        if asked.setdefault(name, value) != value:
            raise ValueError(f"--given asks two values of column {name!r}: {asked[name]} and {value}")
    return codec, asked


def _features(telling: dict[str, list[Any]], told: str | None) -> "torch.Tensor":
    """One row of context from "name=value,..." in the units of the data."""
    import torch

    from narrows.spec import misspelt

    given = dict(pair.split("=", 1) for pair in (told or "").split(",") if "=" in pair)
    for name in given:
        if name not in telling["columns"]:
            raise ValueError(misspelt("column that this model is told", name, telling["columns"]))
    try:
        values = [float(given[name]) for name in telling["columns"]]
    except (KeyError, ValueError):
        wanted = ",".join(f"{n}={m:.4g}" for n, m in zip(telling["columns"], telling["mean"], strict=True))
        raise ValueError(
            f"this model was told columns of every row: say of what, --context {wanted}; got {told}"
        ) from None
    mean, std = torch.tensor(telling["mean"]), torch.tensor(telling["std"])
    return ((torch.tensor(values) - mean) / std)[None]


def _cells(loaded: "Run", run: Path, source: Path, why: str) -> "tuple[TableCodec, Any, Rows]":
    """The codec of a run of mixed columns, and a table read by it, as it stands and in model units."""
    import narrows as nr

    codec = loaded.scaling
    if not isinstance(codec, nr.data.TableCodec):
        raise ValueError(f"{run} learned from numbers alone, {why}")
    table = nr.data.whole(source)
    return codec, table, nr.data.like(loaded.config["data"], table)


def beside(run: Path, source: Path, what: str) -> Path:
    """Where what is made of a table goes if nothing is said: into the run, in the table's own form."""
    return Path(run) / f"{source.stem}-{what}{source.suffix if source.suffix == '.parquet' else '.csv'}"


def mixed(table: Any, out: Path) -> None:
    """A pyarrow Table to a file."""
    import io

    from pyarrow import csv, parquet

    from narrows import store

    if out.suffix not in (".csv", ".parquet"):
        raise ValueError(f"--out ends in .csv or .parquet for a table of mixed columns; got {out}")
    buffer = io.BytesIO()
    (csv.write_csv if out.suffix == ".csv" else parquet.write_table)(table, buffer)
    store.write(out, buffer.getvalue())
    typer.echo(f"wrote {out}: {len(table):,} rows")


def _table(values: "np.ndarray[Any, Any]", columns: list[str], out: Path) -> None:
    import io

    import numpy as np

    from narrows import store

    buffer = io.BytesIO()
    if out.suffix == ".csv":
        np.savetxt(buffer, values, "%.9g", ",", header=",".join(columns), comments="")
    elif out.suffix == ".npy":
        np.save(buffer, values)
    elif out.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table(list(values.T), names=columns), buffer)
    else:
        raise ValueError(f"--out ends in .csv, .npy or .parquet; got {out}")
    store.write(out, buffer.getvalue())
    typer.echo(f"wrote {out}: {len(values):,} rows")


def _suffix(run: "Run") -> str:
    return "png" if len(run.model.shape) == 3 else "csv"


def _write(x: "torch.Tensor", run: "Run", out: Path, across: int | None = None) -> None:
    """Rows in model units to a file of the data's own units."""
    import io

    import numpy as np

    from narrows import pictures, store
    from narrows.data import TableCodec, read_scaling

    if out.suffix == ".png":
        if x.dim() != 4:
            raise ValueError(f"a .png holds images, and these rows have shape {tuple(x.shape[1:])}; write .npy or .csv")
        across = across or max(1, round(len(x) ** 0.5))
        store.write(out, pictures.png(pictures.grid(x, across), max(1, 640 // (across * x.shape[-1]))))
        typer.echo(f"wrote {out}: {len(x):,} images")
        return
    scaling = read_scaling(run.config["data"]["scaling"])
    values: Any = scaling.undo(x)
    if isinstance(scaling, TableCodec):
        mixed(values, out)
        return
    if out.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, values)
        store.write(out, buffer.getvalue())
        typer.echo(f"wrote {out}: {len(values):,} rows")
        return
    flat = values.reshape(len(values), -1)
    _table(flat, run.config["data"].get("columns") or [f"x{i}" for i in range(flat.shape[1])], out)
