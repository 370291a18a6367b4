"""narrows fit, check, prior: from data to a run folder, to what one would be, or to one with another prior."""

import json
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from narrows.cli.app import RunFolder, Source, app
from narrows.cli.judge import say

if TYPE_CHECKING:
    from narrows.data import Data
    from narrows.models import Model
    from narrows.objectives import Objective
    from narrows.store import Run
    from narrows.training import Training

__all__ = ["check", "fit", "prior"]


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
    context: Annotated[str | None, typer.Option(help="label, or columns such as age,sex: told to the model")] = None,
    drop: Annotated[list[str] | None, typer.Option(help="column to leave out (repeat for more)")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="NAME=number, category, date, identifier or drop: what a column is")
    ] = None,
    valid: Annotated[float | None, typer.Option(help="share of rows held out for stopping  [default: 0.1]")] = None,
    test: Annotated[float | None, typer.Option(help="share of rows held out for judging  [default: 0.1]")] = None,
    group: Annotated[str | None, typer.Option(help="column whose equal values stay in one part")] = None,
    time: Annotated[str | None, typer.Option(help="column by which the parts follow each other")] = None,
    window: Annotated[int | None, typer.Option(help="steps of a series that make a row", min=1)] = None,
    binarise: Annotated[str | None, typer.Option(help="fixed, dynamic or relaxed: grey values under Bernoulli")] = None,
    size: Annotated[str | None, typer.Option(help="HxW: bring images of unequal size to this one")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave out images that cannot be read")] = False,
    counts: Annotated[bool, typer.Option("--counts", help="whole numbers from 0 up, kept as they are")] = False,
    on_collapse: Annotated[
        str | None, typer.Option(help="stop or warn where no unit of the code carries anything  [default: warn]")
    ] = None,
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
    from narrows.posteriors import Discrete
    from narrows.priors import PixelCNN, Transformer

    run.evaluate()
    report = run.report()
    say(run)
    typer.echo(f"\n{(run.evaluation or {})['verdict']}")
    for alarm in run.alarms:
        typer.echo(f"note: {alarm}")
    typer.echo(f"Report: {report}\nNext:")
    source = shlex.quote(run.config["data"]["source"])
    first = "sample" if run.model.prior is not None else "traverse"
    told = ""
    if run.model.context and first == "sample":
        telling = run.config["data"]["telling"]
        if telling:
            means = ",".join(f"{n}={m:.4g}" for n, m in zip(telling["columns"], telling["mean"], strict=True))
            told = f" --context {shlex.quote(means)}"
        else:
            told = f" --label {shlex.quote(run.data.classes[0])}"  # type: ignore[index]
    posterior, learned = run.model.posterior, (PixelCNN, Transformer)
    counted = isinstance(posterior, Discrete) and not any(isinstance(p, learned) for p in run.model.prior.modules())  # type: ignore[union-attr]
    if counted and len(run.data.train) >= 20:  # neighbours drawn apart do not fit
        kind = "PixelCNN" if len(posterior.parts[-1].grid) > 1 else "Transformer"  # type: ignore[index, union-attr]
        typer.echo(f"  narrows prior {run.folder} --kind {kind}  (for better samples)")
    for words in (f"{first} {run.folder}{told}", f"reconstruct {run.folder} {source}", f"project {run.folder}"):
        typer.echo(f"  narrows {words}")


@app.command()
def check(
    data: Source,
    recipe: Annotated[str, typer.Option(help="narrows recipes lists them")] = "vae",
    label: Annotated[str | None, typer.Option(help="column that holds the label")] = None,
    context: Annotated[str | None, typer.Option(help="label, or columns such as age,sex: told to the model")] = None,
    drop: Annotated[list[str] | None, typer.Option(help="column to leave out (repeat for more)")] = None,
    column: Annotated[
        list[str] | None, typer.Option(help="NAME=number, category, date, identifier or drop: what a column is")
    ] = None,
    group: Annotated[str | None, typer.Option(help="column whose equal values stay in one part")] = None,
    time: Annotated[str | None, typer.Option(help="column by which the parts follow each other")] = None,
    window: Annotated[int | None, typer.Option(help="steps of a series that make a row", min=1)] = None,
    binarise: Annotated[str | None, typer.Option(help="fixed, dynamic or relaxed: grey values under Bernoulli")] = None,
    size: Annotated[str | None, typer.Option(help="HxW: bring images of unequal size to this one")] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="leave out images that cannot be read")] = False,
    counts: Annotated[bool, typer.Option("--counts", help="whole numbers from 0 up, kept as they are")] = False,
) -> None:
    """Read DATA and say what fit would do with it; trains nothing, writes nothing."""
    values = {name: value for name, value in locals().items() if value not in (None, False, [])}
    options = {name: value for name, value in values.items() if name not in ("data", "recipe")}
    plan = _plan(values)
    _introduce(plan)
    for sentence in _foreseen(plan):
        typer.echo(f"note: {sentence}")
    words = ["narrows fit", shlex.quote(data)] + ([] if recipe == "vae" else ["--recipe", recipe])
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            words += [f"--{name.replace('_', '-')}"] + ([] if one is True else [shlex.quote(str(one))])
    typer.echo(" ".join(words))


@app.command()
def prior(
    run: RunFolder,
    kind: Annotated[
        str | None, typer.Option(help="PixelCNN, Transformer, GaussianMixture, Flow ...  [default: the prior of RUN]")
    ] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="name=value of the prior's own")] = None,
    rows: Annotated[int, typer.Option(help="training rows whose codes it learns from, at most", min=1)] = 50_000,
    seed: Annotated[int | None, typer.Option(help="of the fit  [default: that of RUN]")] = None,
    folder: Annotated[Path | None, typer.Option(help="where the new run is kept  [default: RUN-prior-N]")] = None,
) -> None:
    """Fit a prior to the codes of RUN, and keep the model with it, judged anew, in another folder."""
    import narrows as nr
    from narrows import spec, store

    own = _settings(settings or [])
    if own and kind is None:
        raise ValueError(f"--set {next(iter(own))}=... is for a prior that is named: say which by --kind")
    target = folder or store.unused(run.parent, f"{run.name}-prior")
    store.refuse_used(target)
    loaded = nr.load(run)
    data = loaded.data.train
    chosen = None if kind is None else spec.restore("prior", {kind: own})
    typer.echo(f"fitting {kind or type(loaded.model.prior).__name__} to the codes of {min(len(data), rows):,} rows")
    nr.fit_prior(loaded.model, data, chosen, rows, loaded.config["training"]["seed"] if seed is None else seed)
    loaded.save(target)
    loaded.evaluate()
    report = loaded.report()
    say(loaded)
    typer.echo(f"\n{(loaded.evaluation or {})['verdict']}\nReport: {report}\nNext:\n  narrows sample {target}")


class _Plan(NamedTuple):
    """Everything decided, nothing trained."""

    data: "Data"
    recipe: str
    model: "Model"
    objective: "Objective"
    training: "Training"


def _plan(values: dict[str, Any]) -> _Plan:
    import narrows as nr
    from narrows import defaults, spec
    from narrows.pca import Components
    from narrows.training import Training
    from narrows.training.estimate import epochs
    from narrows.training.loop import torch_device

    if "data" not in values:
        raise ValueError("fit needs DATA: a file, a folder or a named set such as digits (narrows data lists them)")
    values = dict(values)
    source, recipe, seed = values.pop("data"), values.pop("recipe", "vae"), values.pop("seed", 0)
    if recipe not in nr.recipes.names():
        raise ValueError(spec.misspelt("recipe", recipe, nr.recipes.names()))
    loading = {name: values.pop(name) for name in _LOADING if name in values}
    if nr.recipes.told(recipe) and "context" not in loading:
        loading["context"] = "label"  # what there is to tell where nothing is said; _introduce says so
    training = Training(seed=seed, **{n: values.pop(n) for n in list(values) if n in Training.model_fields})
    known = nr.recipes.arguments(recipe)
    for name in values:
        if name not in known:
            everything = {*known, *Training.model_fields, *_LOADING, "recipe", "folder"} - {"shape"}
            raise ValueError(spec.misspelt("setting", name, everything))
    chosen = {name: spec.restore(name, value) for name, value in values.items()}
    if defaults.counted(chosen.get("likelihood")):
        loading.setdefault("counts", True)
    data = nr.data.load(source, seed=seed, **loading)
    if "latent" in values and values["latent"] != "auto":
        chosen["latent"] = _whole("latent", values["latent"])
    model, objective = getattr(nr.recipes, recipe)(**defaults.arguments(data, recipe, chosen), seed=seed)
    bounded = training.epochs or training.minutes or isinstance(model.start, Components)
    if not bounded and torch_device(training.device).type == "cpu":
        training.epochs = epochs(model, objective, data.train, training.batch)
    return _Plan(data, recipe, model, objective, training)


_LOADING = (
    *("label", "context", "drop", "column", "valid", "test", "group", "time", "binarise", "size", "skip_bad", "counts"),
    *("labelled", "window"),
)


def _begin(folder: Path | None, values: dict[str, Any], quiet: bool) -> "Run | None":
    import narrows as nr
    from narrows import store

    if folder is not None:
        store.refuse_used(folder)  # before anything is read or timed
    plan = _plan(values)
    first = int(os.environ.get("RANK", "0")) == 0
    folder = folder or store.unused(Path("runs"), f"{plan.data.name}-{plan.recipe}")
    if not quiet and first:
        _introduce(plan)
        typer.echo(f"folder {folder}")
    run = nr.fit(plan.model, plan.objective, plan.data, training=plan.training, folder=folder, quiet=quiet)
    return run if first else None


def _foreseen(plan: _Plan) -> list[str]:
    from narrows.training import alarms

    alarms.check_support(plan.model, plan.data.train)
    alarms.check_discrepancy(plan.model, plan.objective, plan.data.train, plan.training.batch)
    alarms.check_labels(plan.model, plan.data.train)
    return alarms.before(plan.model, plan.objective, plan.data.train, plan.training.batch)


def _introduce(plan: _Plan) -> None:
    from narrows import recipes
    from narrows.data import TableCodec
    from narrows.training.estimate import estimate

    data, model = plan.data, plan.model
    rows = data.description()["rows"]
    parts = ", ".join(f"{count:,} {part}" for part, count in rows.items())
    labels = f", {len(data.classes)} classes" if data.classes else ""
    typer.echo(f"{data.name}: {parts} rows of shape {tuple(data.shape)}{labels}; {data.scaling.describe()}")
    if isinstance(data.scaling, TableCodec):
        typer.echo(data.scaling.listing())
        typer.echo("a column is something else? --column NAME=number, category, date, identifier or drop")
    for note in data.notes:
        typer.echo(f"  {note}")
    parameters = sum(p.numel() for p in model.parameters())
    likelihood = repr(model.likelihood).splitlines()[0]
    typer.echo(f"{plan.recipe}: {model.latent} units, p(x|z) {likelihood}, {parameters:,} parameters")
    if model.context:
        names, what = (data.telling["columns"], "columns") if data.telling else (data.classes or [], "the label")
        typer.echo(f"told {', '.join(names)}: {what} of every row, as context")
    if recipes.labelled(plan.recipe) and data.train.label is not None:
        known = int((data.train.label >= 0).sum())
        typer.echo(f"{known:,} of {rows['train']:,} training rows are labelled, one of {', '.join(data.classes or [])}")
    typer.echo(estimate(data, model.spec, plan.training))


def _resume(folder: Path | None, values: dict[str, Any], quiet: bool) -> "Run | None":
    import narrows as nr
    from narrows.training import Training

    if folder is None:
        raise ValueError("--resume goes on with a run: say which by --folder")
    if not (folder / "config.json").exists():
        raise ValueError(f"{folder} holds no run to resume; leave --resume away to begin one")
    config = json.loads((folder / "config.json").read_text())
    free = ("epochs", "minutes", "patience", "save_every", "on_collapse")
    changed = {name: values.pop(name) for name in free if name in values}
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
