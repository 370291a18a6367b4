"""The command line. Nothing heavy is imported before the arguments are parsed."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import torch

    from narrows.data import Data
    from narrows.store import Run

__all__ = ["app", "main"]

app = typer.Typer(
    name="narrows",
    help="The whole autoencoder family: train, judge in nats, put to work.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

RunFolder = Annotated[Path, typer.Argument(help="folder of a finished run", metavar="RUN")]
Source = Annotated[str, typer.Argument(help="a file, a folder or a named set (narrows data lists them)", metavar="DATA")]
Out = Annotated[Path | None, typer.Option("--out", help="where to write: .png for images, .npy, .csv")]


@app.command()
def fit(
    data: Annotated[str | None, typer.Argument(help="a file, a folder or a named set", metavar="DATA")] = None,
    recipe: Annotated[str | None, typer.Option(help="narrows recipes lists them  [default: vae]")] = None,
    latent: Annotated[str | None, typer.Option(help="units of the code, or auto  [default: auto]")] = None,
    beta: Annotated[float | None, typer.Option(help="weight of the rate")] = None,
    batch: Annotated[int | None, typer.Option(help="rows a step  [default: 128]")] = None,
    lr: Annotated[float | None, typer.Option(help="learning rate  [default: 0.001]")] = None,
    epochs: Annotated[int | None, typer.Option(help="passes over the rows at most")] = None,
    minutes: Annotated[float | None, typer.Option(help="wall time at most")] = None,
    label: Annotated[str | None, typer.Option(help="column that holds the label")] = None,
    drop: Annotated[list[str] | None, typer.Option(help="column to leave out (repeat for more)")] = None,
    valid: Annotated[float | None, typer.Option(help="share of rows held out for stopping  [default: 0.1]")] = None,
    test: Annotated[float | None, typer.Option(help="share of rows held out for judging  [default: 0.1]")] = None,
    group: Annotated[str | None, typer.Option(help="column whose equal values stay in one part")] = None,
    time: Annotated[str | None, typer.Option(help="column by which the parts follow each other")] = None,
    binarise: Annotated[str | None, typer.Option(help="fixed, dynamic or relaxed: grey values under Bernoulli")] = None,
    size: Annotated[str | None, typer.Option(help="HxW: bring images of unequal size to this one")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave out images that cannot be read")] = False,
    seed: Annotated[int | None, typer.Option(help="of weights, order, noise and split  [default: 0]")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, mps  [default: auto]")] = None,
    folder: Annotated[Path | None, typer.Option(help="where the run is kept  [default: runs/DATA-RECIPE-N]")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with --folder")] = False,
    settings: Annotated[list[str] | None, typer.Option("--set", help="name=value for anything else")] = None,
    config: Annotated[Path | None, typer.Option(help="a YAML file with any of these names")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="only the result")] = False,
) -> None:
    """Train on DATA, judge the result beside the cheap alternatives, write a report."""
    given = {k: v for k, v in locals().items() if k not in ("config", "settings", "quiet", "resume", "folder")}
    given = {name: value for name, value in given.items() if value not in (None, False, [])}
    named = _read(config) if config else {}
    named |= {"data": given.pop("data")} if "data" in given else {}
    values = named | _settings(settings or []) | given
    folder = folder or (Path(values.pop("folder")) if "folder" in values else None)
    try:
        run = _resume(folder, values, quiet) if resume else _begin(folder, values, quiet)
    except KeyboardInterrupt as stop:
        typer.echo(f"narrows: {stop or 'stopped'}", err=True)
        raise typer.Exit(128 + getattr(stop, "number", 2)) from None
    if run is None:
        return  # another process of this run tells the rest
    run.evaluate()
    report = run.report()
    _say(run)
    typer.echo(f"\n{(run.evaluation or {})['verdict']}")
    for alarm in run.alarms:
        typer.echo(f"note: {alarm}")
    typer.echo(f"Report: {report}\nNext:")
    verbs = ["sample", "reconstruct", "evaluate"] if run.model.posterior.prior is not None else ["reconstruct", "evaluate"]
    for verb in verbs:
        extra = " DATA" if verb == "reconstruct" else ""
        typer.echo(f"  narrows {verb} {run.folder}{extra}")


def _begin(folder: Path | None, values: dict[str, Any], quiet: bool) -> "Run | None":
    import narrows as nr
    from narrows import defaults, spec, store
    from narrows.training import Training

    if "data" not in values:
        raise ValueError("fit needs DATA: a file, a folder or a named set such as digits (narrows data lists them)")
    source, recipe, seed = values.pop("data"), values.pop("recipe", "vae"), values.pop("seed", 0)
    if recipe not in nr.recipes.names():
        raise ValueError(spec.misspelt("recipe", recipe, nr.recipes.names()))
    loading = {name: values.pop(name) for name in _LOADING if name in values}
    training = Training(seed=seed, **{n: values.pop(n) for n in list(values) if n in Training.model_fields})
    known = nr.recipes.arguments(recipe)
    for name in values:
        if name not in known:
            everything = {*known, *Training.model_fields, *_LOADING, "recipe", "folder"} - {"shape"}
            raise ValueError(spec.misspelt("setting", name, everything))
    data = nr.data.load(source, seed=seed, **loading)
    if "latent" in values and values["latent"] != "auto":
        values["latent"] = _whole("latent", values["latent"])
    chosen = {name: spec.restore(name, value) for name, value in values.items()}
    chosen = defaults.arguments(data, recipe, chosen)
    model, objective = getattr(nr.recipes, recipe)(**chosen, seed=seed)
    first = int(os.environ.get("RANK", "0")) == 0
    folder = folder or store.unused(Path("runs"), f"{data.name}-{recipe}")
    if not quiet and first:
        _introduce(data, model, recipe, training, folder)
    run = nr.fit(model, objective, data, training=training, folder=folder, quiet=quiet)
    return run if first else None


_LOADING = ("label", "drop", "valid", "test", "group", "time", "binarise", "size", "skip_bad")


def _introduce(data: "Data", model: Any, recipe: str, training: Any, folder: Path) -> None:
    rows = data.description()["rows"]
    parts = ", ".join(f"{count:,} {part}" for part, count in rows.items())
    typer.echo(f"{data.name}: {parts} rows of shape {tuple(data.shape)}; {data.scaling.describe()}")
    for note in data.notes:
        typer.echo(f"  {note}")
    parameters = sum(p.numel() for p in model.parameters())
    likelihood = repr(model.likelihood).splitlines()[0]
    typer.echo(f"{recipe}: {model.latent} units, p(x|z) {likelihood}, {parameters:,} parameters, seed {training.seed}")
    from narrows.training.estimate import estimate

    typer.echo(f"{estimate(data, model.spec, training)}; folder {folder}")


def _resume(folder: Path | None, values: dict[str, Any], quiet: bool) -> "Run | None":
    import narrows as nr
    from narrows.training import Training

    if folder is None:
        raise ValueError("--resume goes on with a run: say which by --folder")
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} holds no run to resume; leave --resume away to begin one")
    config = json.loads((folder / "config.json").read_text())
    changed = {name: values.pop(name) for name in ("epochs", "minutes", "patience", "save_every") if name in values}
    values.pop("device", None)
    if values:
        raise ValueError(
            f"--resume takes everything from {folder} but --epochs, --minutes and --set patience=...; leave away "
            + ", ".join(sorted(values))
        )
    if config["spec"] is None:
        raise ValueError(f"{folder} was trained on parts of your own: resume it from Python, fit(..., resume=True)")
    data = nr.data.reload(config["data"])
    model, objective = nr.recipes.build(config["spec"])
    training = Training(**{**config["training"], **changed})
    run = nr.fit(model, objective, data, training=training, folder=folder, resume=True, quiet=quiet)
    return run if int(os.environ.get("RANK", "0")) == 0 else None


def _settings(pairs: list[str]) -> dict[str, Any]:
    values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"--set takes name=value, such as free_bits=0.1; got {pair!r}")
        try:
            values[name] = json.loads(value)
        except json.JSONDecodeError:
            values[name] = value
    return values


def _read(path: Path) -> dict[str, Any]:
    import yaml

    if not path.exists():
        raise FileNotFoundError(f"there is no configuration {path}")
    try:
        values = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} should hold name: value pairs; it holds {type(values).__name__}")
    return values


def _whole(name: str, value: Any) -> int:
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"--{name} is a whole number or auto; got {value!r}") from None


def _say(run: "Run") -> None:
    """The evaluation as plain lines."""
    found = run.evaluation or {}
    for part, record in found["parts"].items():
        typer.echo(f"{part} ({record['rows']:,} rows)")
        if found["samples"]:
            typer.echo(
                f"  ELBO {_pair(record['elbo'])} nats = -(distortion (reconstruction) {_pair(record['distortion'])} + rate "
                f"(KL) {_pair(record['rate'])})"
            )
            typer.echo(
                f"  log p(x) >= {_pair(record['log_likelihood']['model'])} nats (K = {found['samples']:,}, "
                f"{record['bound_rows']:,} rows, Monte Carlo error {record['monte_carlo_error']:.2g}, median effective sample "
                f"size {record['effective_sample_size']:.3g})"
            )
        for key, title in (("bits_per_dimension", "bits/dim"), ("log_likelihood", "nats"), ("reconstruction", "squared error")):
            if key in record and (key != "log_likelihood" or not found["discrete"]):
                if found["samples"] or key == "reconstruction":
                    others = ", ".join(f"{_NAMES[w]} {_pair(v)}" for w, v in record[key].items() if w != "model")
                    typer.echo(f"  {title}: model {_pair(record[key]['model'])}; {others}")
    units = found["active_units"]
    by_rate = "" if units["by_rate"] is None else f", {units['by_rate']} by rate"
    typer.echo(f"active units: {units['by_variance']} of {units['total']} by variance{by_rate}")


_NAMES = {"columns": "independent columns", "pca": "PCA"}


def _pair(value: Any) -> str:
    return f"{value[0]:.4g} ± {value[1]:.2g}"


@app.command()
def evaluate(
    run: RunFolder,
    samples: Annotated[int, typer.Option(help="K, draws a row of the importance-weighted bound")] = 1000,
    rows: Annotated[int, typer.Option(help="rows of each part that the bound is taken on")] = 1000,
) -> None:
    """Measure RUN on its stored train, valid and test rows, beside the cheap alternatives."""
    import narrows as nr

    loaded = nr.load(run)
    data = loaded.data
    loaded.evaluation = nr.evaluate.evaluate(loaded.model, loaded.objective, data, samples, rows)
    typer.echo(f"{data.name}: the rows stored as train, valid and test when {run} was trained")
    _say(loaded)
    typer.echo(loaded.evaluation["verdict"])


@app.command()
def sample(
    run: RunFolder,
    n: Annotated[int, typer.Option("--n", "-n", help="how many")] = 64,
    seed: Annotated[int, typer.Option(help="of the draws")] = 0,
    mean: Annotated[bool, typer.Option("--mean/--draw", help="the mean of p(x|z), or a draw from it")] = True,
    out: Out = None,
) -> None:
    """Draw new rows from RUN."""
    import torch

    import narrows as nr

    loaded = nr.load(run)
    with nr.draws.seeded(seed), torch.no_grad():
        px = loaded.model.sample(n)
        made = px.mean if mean else px.sample()
    _write(made, loaded, out or Path(run) / f"samples.{_suffix(loaded)}")


@app.command()
def reconstruct(run: RunFolder, data: Source, out: Out = None) -> None:
    """Pass DATA through the code of RUN and back; the input is trusted."""
    import narrows as nr

    loaded = nr.load(run)
    rows = nr.data.like(loaded.config["data"], data)
    made = nr.evaluate.reconstruct(loaded.model, rows)
    error = float((made - rows.x).square().flatten(1).sum(1).mean())
    typer.echo(f"{len(made):,} rows, mean squared error {error:.4g} a row (scaled values)")
    _write(made, loaded, out or Path(run) / f"reconstructions.{_suffix(loaded)}")


def _suffix(run: "Run") -> str:
    return "png" if len(run.model.shape) == 3 else "csv"


def _write(x: "torch.Tensor", run: "Run", out: Path) -> None:
    """Rows in model units to a file of the data's own units."""
    import io

    import numpy as np

    from narrows import data, pictures, store

    scaling = data.Scaling.from_json(run.config["data"]["scaling"])
    if out.suffix == ".png":
        if x.dim() != 4:
            raise ValueError(f"a .png holds images, and these rows have shape {tuple(x.shape[1:])}; write .npy or .csv")
        across = max(1, round(len(x) ** 0.5))
        store.write(out, pictures.png(pictures.grid(x, across), max(1, 640 // (across * x.shape[-1]))))
    elif out.suffix in (".npy", ".csv"):
        values = scaling.undo(x)
        buffer = io.BytesIO()
        if out.suffix == ".npy":
            np.save(buffer, values)
        else:
            columns = run.config["data"].get("columns")
            header = ",".join(columns) if columns else ""
            np.savetxt(buffer, values.reshape(len(values), -1), "%.9g", ",", header=header, comments="")
        store.write(out, buffer.getvalue())
    else:
        raise ValueError(f"--out ends in .png, .npy or .csv; got {out}")
    typer.echo(f"wrote {out}")


@app.command()
def recipes() -> None:
    """List the recipes."""
    import narrows as nr

    for name, line in nr.recipes.names().items():
        typer.echo(f"{name:12} {line}")


@app.command()
def data() -> None:
    """List the named data sets."""
    import narrows as nr

    for name, line in nr.data.names().items():
        typer.echo(f"{name:14} {line}")


def main() -> None:
    """Runs the command line; a fault of the user's ends in one plain sentence, not a traceback."""
    try:
        app()
    except (ValueError, TypeError, OSError, ArithmeticError) as error:
        print(f"narrows: {error}", file=sys.stderr)
        sys.exit(1)
