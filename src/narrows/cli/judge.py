"""narrows evaluate, narrows verify: what a run is worth, and whether it is what it says."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from narrows.cli.app import RunFolder, app, pair

if TYPE_CHECKING:
    from narrows.evaluate import Synthetic
    from narrows.store import Run

__all__ = ["evaluate", "say", "verify"]


def say(run: "Run") -> None:
    """The evaluation as plain lines."""
    found = run.evaluation or {}
    for part, record in found["parts"].items():
        typer.echo(f"{part} ({record['rows']:,} rows)")
        if found["samples"]:
            typer.echo(
                f"  ELBO {pair(record['elbo'])} nats = -(distortion (reconstruction) {pair(record['distortion'])} "
                f"+ rate (KL) {pair(record['rate'])})"
            )
            if "rungs" in record:
                each = ", ".join(pair(rate) for rate in record["rungs"])
                typer.echo(f"  rate (KL) of each rung, from the top down: {each} nats")
        if found["samples"] and found.get("estimator") != "ELBO":
            typer.echo(
                f"  log p(x{' | told' if found.get('told') else ''}) >= {pair(record['log_likelihood']['model'])} nats "
                f"(K = {found['samples']:,}, "
                f"{record['bound_rows']:,} rows, Monte Carlo error {record['monte_carlo_error']:.2g}, median effective "
                f"sample size {record['effective_sample_size']:.3g})"
            )
        elif found["samples"]:
            typer.echo(
                f"  estimated from {found['samples']:,} steps or draws for each of {record['bound_rows']:,} rows"
            )
        for key, title in (
            ("bits_per_dimension", "bits/dim"),
            ("log_likelihood", "nats"),
            ("reconstruction", "squared error"),
        ):
            if "model" in record.get(key, {}) and (key != "log_likelihood" or not found["discrete"]):
                others = ", ".join(f"{_NAMES[w]} {pair(v)}" for w, v in record[key].items() if w != "model")
                typer.echo(f"  {title}: model {pair(record[key]['model'])}; {others}")
    if found.get("classes"):
        for part, record in found["classes"]["parts"].items():
            other = f"; logistic regression {pair(record['logistic'])}" if "logistic" in record else ""
            typer.echo(
                f"right class on {record['rows']:,} {part} rows: model {pair(record['model'])}{other} "
                f"({found['classes']['labels']:,} labels)"
            )
    if "codewords" in found:
        typer.echo(codewords(found["codewords"]))
        return
    units = found["active_units"]
    by_rate = "" if units["by_rate"] is None else f", {units['by_rate']} by rate"
    typer.echo(f"active units: {units['by_variance']} of {units['total']} by variance{by_rate}")
    for number, rung in enumerate(units.get("rungs", []), 1):
        by_rate = "" if rung["by_rate"] is None else f", {rung['by_rate']} by rate"
        typer.echo(f"  rung {number}: {rung['by_variance']} of {rung['units']} by variance{by_rate}")


def codewords(found: dict[str, Any]) -> str:
    """How much of a codebook is used, in a sentence."""
    return (
        f"codewords: {found['used']:.0%} of {found['codebook']:,} used by {found['rows']:,} training rows with "
        f"{found['choices']:,} choices each, perplexity {found['perplexity']:.4g}"
    )


_NAMES = {"columns": "independent columns", "pca": "PCA"}


@app.command()
def evaluate(
    run: RunFolder,
    samples: Annotated[
        int | None, typer.Option(help="K, draws a row of the bound  [default: up to 1000]", min=1)
    ] = None,
    rows: Annotated[int | None, typer.Option(help="rows of each part for it  [default: up to 1000]", min=1)] = None,
    estimator: Annotated[
        str, typer.Option(help="importance; or besides, on 100 test rows or --rows: annealed, quadrature")
    ] = "importance",
    gaps: Annotated[
        bool, typer.Option("--gaps", help="split log p(x) - ELBO, on as many rows, into approximation and amortisation")
    ] = False,
    synthetic: Annotated[
        bool, typer.Option("--synthetic", help="judge rows drawn from a model of a table: alike, useful, private?")
    ] = False,
    target: Annotated[str | None, typer.Option(help="with --synthetic: the column to be predicted from others")] = None,
) -> None:
    """Measure RUN on its stored train, valid and test rows, beside the cheap alternatives."""
    import torch

    import narrows as nr
    from narrows import pictures, store
    from narrows.plots import judged

    others: dict[str, Any] = {
        "annealed": nr.evaluate.annealed_importance_sampling,
        "quadrature": nr.evaluate.quadrature,
    }
    if estimator not in ("importance", *others):
        raise ValueError(f"there is no estimator {estimator!r}; there is importance, {', '.join(others)}")

    loaded = nr.load(run)
    data = loaded.data
    if synthetic or target is not None:
        typer.echo(f"{data.name}: {len(data.train):,} rows drawn from {run}")
        typer.echo(str(_synthetic(loaded, target, rows or 2000)))
        return
    loaded.evaluation = nr.evaluate.evaluate(loaded.model, data, samples, rows)
    typer.echo(f"{data.name}: the rows stored as train, valid and test when {run} was trained")
    say(loaded)
    typer.echo(loaded.evaluation["verdict"])
    part, name = judged(data)
    few = part.take(torch.arange(min(len(part), rows or 100)))
    if estimator != "importance":
        typer.echo(f"On {len(few):,} {name} rows {others[estimator](loaded.model, few)}")
        typer.echo(f"On the same rows {nr.evaluate.log_likelihood(loaded.model, few, samples or 1000)}")
    if gaps:
        found = nr.evaluate.inference_gap(loaded.model, few)
        typer.echo(f"On {len(few):,} {name} rows {found}")
        picture = run / "gaps.png"
        store.write(picture, pictures.png(pictures.gaps(found.log_p, found.after, found.before)))
        typer.echo(f"wrote {picture}: the two gaps of each row")


def _synthetic(run: "Run", target: str | None, rows: int) -> "Synthetic":
    import torch

    import narrows as nr
    from narrows.plots import judged

    data, codec = run.data, run.scaling
    if not isinstance(codec, nr.data.TableCodec):
        raise ValueError("--synthetic judges rows of mixed columns, and this run learned from numbers alone or images")
    if run.model.context:
        raise ValueError("--synthetic draws rows of their own, and this model is told something of each")
    with nr.draws.seeded(0), torch.no_grad():
        parts = torch.arange(len(data.train)).split(4096)
        made = torch.cat([run.model.sample(len(part)).sample() for part in parts])
    return nr.evaluate.synthetic(made, data.train, judged(data)[0], codec, target, rows)


@app.command()
def verify(
    run: RunFolder,
    rerun: Annotated[bool, typer.Option("--rerun", help="train again and compare the weights bit for bit")] = False,
) -> None:
    """Check that RUN is what it says: its files, its data, its figures; with --rerun its weights too."""
    from narrows.verify import verify as check

    faults = 0
    for said, held in check(run, rerun):
        typer.echo(f"{'ok' if held else 'DIFFERS'}  {said}")
        faults += not held
    if faults:
        raise typer.Exit(1)
