"""report.html: one page that opens offline and says first whether the model is any good."""

import json
import math
import shlex
from html import escape
from typing import Any

import torch
from torch import Tensor

from narrows import draws, pictures, recipes
from narrows.data import Data, TableCodec
from narrows.data.found import UNKEPT
from narrows.defaults import arguments, readable
from narrows.evaluate import features
from narrows.evaluate.common import batches
from narrows.likelihoods import cells
from narrows.models import Ladder
from narrows.plots import Pairs, judged, kept_rungs, reconstructions, samples, told
from narrows.posteriors import Discrete, Sparse
from narrows.spec import describe
from narrows.store import Run
from narrows.tasks import traverse
from narrows.training import Training

__all__ = ["STYLE", "command", "page", "summary"]

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1c2530;max-width:60rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2.2rem;border-bottom:1px solid #dde2e8}
.verdict{font-size:1.05rem;background:#eef4fb;border-left:4px solid #2563a8;padding:.7rem 1rem}
.alarm{background:#fdf3e4;border-left:4px solid #d9822b;padding:.5rem 1rem;margin:.5rem 0}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.25rem .8rem;text-align:right}
th{font-weight:600;border-bottom:1px solid #8a8f98}td:first-child,th:first-child{text-align:left}
tr.model td{font-weight:600}td.best{color:#1d6b43}.note{color:#5b6470;font-size:.9rem}
.wide{overflow-x:auto;font-size:.8rem}.wide td,.wide th{padding:.15rem .5rem;white-space:nowrap}
img{max-width:100%}img.pixels{image-rendering:pixelated}pre{background:#f4f6f8;padding:.7rem 1rem;white-space:pre-wrap}
"""


def command(run: Run) -> str:
    """What to type to get this run again, without what would be chosen anyway."""
    spec, data, training = run.config["spec"], run.config["data"], run.config["training"]
    if spec is None or data["source"] in UNKEPT or "(array)" in data["options"].values():
        return "# trained from Python on data or networks that no command line can name: repeat the call of fit"
    words = ["narrows fit", shlex.quote(data["source"]), "--recipe", spec["recipe"]]
    usual = {n: describe(n, v) for n, v in arguments(run.data, spec["recipe"], {"latent": 1}).items()}
    usual |= recipes.defaults(spec["recipe"]) | {
        n: usual[n] for n in ("likelihood", "network", "grid", "codebook") if n in usual
    }
    for name, value in spec["arguments"].items():
        if name == "latent" or (name != "shape" and (name not in usual or usual[name] != value)):
            words += (
                [f"--{name}", str(value)] if name in FLAGS else ["--set", shlex.quote(f"{name}={json.dumps(value)}")]
            )
    for name, value in Training(**training).model_dump(exclude_defaults=True, exclude={"device", "save_every"}).items():
        words += [f"--{name}", str(value)] if name in FLAGS else ["--set", shlex.quote(f"{name}={json.dumps(value)}")]
    for name, value in data["options"].items():
        value = [f"{key}={word}" for key, word in value.items()] if isinstance(value, dict) else value
        for one in value if isinstance(value, list) else [value]:
            words += [f"--{name.replace('_', '-')}", *([] if one is True else [shlex.quote(str(one))])]
    return " ".join(words)


FLAGS = ("latent", "batch", "lr", "epochs", "minutes", "seed")


def page(run: Run) -> str:
    """The whole report as HTML; `run.evaluation` must have been measured."""
    evaluation, data = run.evaluation or {}, run.data
    config = run.config
    recipe = (config["spec"] or {}).get("recipe", "own model")
    sections = [
        f"<h1>{escape(data.name)}: {escape(recipe)}, {run.model.latent} units</h1>"
        f'<p class="verdict">{escape(evaluation["verdict"])}</p>',
        "".join(f'<p class="alarm">{escape(alarm)}</p>' for alarm in run.alarms),
        _data_card(data),
        _comparison(evaluation),
        _classes(evaluation),
        _training(run),
        _reconstructions(run),
        _samples(run),
        _units(run),
        _rungs(run),
        _features(run),
        _latent(run),
        f"<h2>Again</h2><pre>{escape(command(run))}</pre>"
        + f'<p class="note">{escape(", ".join(f"{k} {v}" for k, v in config["versions"].items()))}; '
        f"{config['threads']} threads; {config['steps']:,} steps in {config['seconds']:.0f} s.</p>",
    ]
    body = "\n".join(sections)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(data.name)}: {escape(recipe)}</title>'
        f"<style>{STYLE}</style><body>{body}</body></html>\n"
    )


def summary(run: Run) -> str:
    """What a notebook shows for a run: the verdict where it has been measured, the alarms, the curves."""
    said = run.evaluation["verdict"] if run.evaluation else "not measured yet: run.evaluate()"
    alarms = "".join(f"<li>{escape(alarm)}</li>" for alarm in run.alarms)
    return f"<p><b>{escape(repr(run))}</b><br>{escape(said)}</p><ul>{alarms}</ul>" + _training(run)


def _data_card(data: Data) -> str:
    about = data.description()
    parts = ", ".join(f"{about['rows'][part]:,} {part}" for part in about["rows"])
    rows = [("source", about["source"]), ("rows", parts), ("each row", " x ".join(map(str, data.shape)) + " values")]
    rows += [("scaling", data.scaling.describe())]
    cells = "".join(f"<tr><td>{k}</td><td style='text-align:left'>{escape(str(v))}</td></tr>" for k, v in rows)
    if isinstance(data.scaling, TableCodec):
        cells += (
            f"<tr><td>columns</td><td style='text-align:left'><pre>{escape(data.scaling.listing())}</pre></td></tr>"
        )
    notes = "".join(f"<li>{escape(note)}</li>" for note in data.notes)
    return f"<h2>The data</h2><table>{cells}</table>" + (f"<ul class='note'>{notes}</ul>" if notes else "")


def _pair(value: Any, digits: int = 4) -> str:
    mean, error = value
    if not math.isfinite(error):
        return f"{mean:.{digits}g}"
    places = max(0, 1 - math.floor(math.log10(error))) if error > 0 else 2
    return f"{mean:.{min(places, 6)}f} ± {error:.{min(places, 6)}f}"


def _classes(evaluation: dict[str, Any]) -> str:
    """How often the right class is found, where the model was told of classes."""
    found = evaluation.get("classes")
    if not found:
        return ""
    parts = found["parts"]
    head = "".join(f"<th>{part} ({record['rows']:,})</th>" for part, record in parts.items())
    names = {"model": "this model", "logistic": "logistic regression on the same labels"}
    lines = "".join(
        f"<tr><td>{name}</td>" + "".join(f"<td>{_pair(record[who])}</td>" for record in parts.values()) + "</tr>"
        for who, name in names.items()
        if all(who in record for record in parts.values())
    )
    title = f"share of rows whose class is found ({found['labels']:,} labels)"
    return f"<h2>Classes</h2><table><tr><th>{title}</th>{head}</tr>{lines}</table>"


def _comparison(evaluation: dict[str, Any]) -> str:
    names = {
        "model": "this model",
        "pca": f"PCA, {evaluation['latent']} components",
        "columns": "independent columns",
    }
    out = ["<h2>Beside the cheap alternatives</h2>"]
    quantities = [("reconstruction", "squared error of the reconstruction, per row", min)]
    if evaluation["discrete"] and evaluation["samples"]:
        quantities.append(("bits_per_dimension", "bits per dimension (lower is better)", min))
    if evaluation["samples"]:
        what = "log p(x | what is told), baselines are told nothing" if evaluation.get("told") else "log p(x)"
        quantities.append(("log_likelihood", f"{what}, nats per row (higher is better)", max))
    for key, title, best in quantities:
        parts = evaluation["parts"]
        if not any(record[key] for record in parts.values()):
            continue
        head = "".join(
            f"<th>{part} ({record['bound_rows' if key != 'reconstruction' else 'rows']:,})</th>"
            for part, record in parts.items()
        )
        out.append(f"<table><tr><th>{title}</th>{head}</tr>")
        present = [who for who in names if any(who in record[key] for record in parts.values())]
        for who in present:
            cells = ""
            for record in parts.values():
                won = record[key][who][0] == best(v[0] for v in record[key].values())
                cells += f"<td{' class=best' if won else ''}>{_pair(record[key][who])}</td>"
            out.append(f"<tr{' class=model' if who == 'model' else ''}><td>{names[who]}</td>{cells}</tr>")
        out.append("</table><br>")
    record = list(evaluation["parts"].values())[-1]
    if evaluation["samples"] and evaluation.get("estimator") == "ELBO":
        out.append(
            "<p class=note>± is one standard error over rows. The model's log p(x) is its ELBO, a lower bound: "
            f"-(distortion {_pair(record['distortion'])} + rate {_pair(record['rate'])}) nats, estimated without bias "
            f"from {evaluation['samples']:,} steps or draws a row.</p>"
        )
    elif evaluation["samples"]:
        bound = (
            f"the importance-weighted lower bound with K = {evaluation['samples']:,} (Monte Carlo error "
            f"{record['monte_carlo_error']:.2g} nats, median effective sample size "
            f"{record['effective_sample_size']:.3g})"
        )
        terms = f"-(distortion {_pair(record['distortion'])} + rate {_pair(record['rate'])}) nats"
        out.append(
            f"<p class=note>± is one standard error over rows. The model's log p(x) is {bound}; its ELBO is "
            f"{_pair(record['elbo'])} = {terms}."
            + ("" if evaluation["discrete"] else " Densities are of the scaled values.")
            + "</p>"
        )
    trip = evaluation["round_trip"]
    back = f"; code to x to code {_pair(trip['z'])}" if trip["z"] else ""
    out.append(f'<p class="note">Round trips, squared error: x to code to x {_pair(trip["x"])}{back}.</p>')
    return "".join(out)


def _training(run: Run) -> str:
    return "<h2>Training</h2>" + pictures.inline(run.plot.curves(), "the terms of the loss over the steps")


def _units(run: Run) -> str:
    evaluation = run.evaluation or {}
    found = evaluation.get("codewords")
    if found is None:
        title, note = "What each unit of the code is used for", _active(evaluation["active_units"])
    else:
        title = "How often each codeword is used"
        note = (
            f"{found['used']:.0%} of {found['codebook']:,} codewords used by {found['rows']:,} training rows with "
            f"{found['choices']:,} choices each."
        )
    return f"<h2>{title}</h2>{pictures.inline(run.plot.rates(), title)}<p class='note'>{note}</p>"


def _active(units: dict[str, Any]) -> str:
    rate = "" if units["by_rate"] is None else f", {units['by_rate']} by rate above 0.01 nats"
    return f"{units['by_variance']} of {units['total']} units active by variance of the mean above 0.01{rate}."


def _rungs(run: Run) -> str:
    """Of a ladder: what each rung carries, and what is left of images when fewer and fewer are kept."""
    if not isinstance(run.model, Ladder):
        return ""
    evaluation = run.evaluation or {}
    part = list(evaluation["parts"].values())[-1]
    out = ["<h2>What each rung is used for</h2>", "<table><tr><th>rung, from the top</th><th>units</th>"]
    out.append("<th>active by variance</th><th>active by rate</th><th>rate (KL), nats</th></tr>")
    rungs = zip(evaluation["active_units"]["rungs"], part.get("rungs", []), strict=False)
    for number, (rung, rate) in enumerate(rungs, 1):
        cells = (number, rung["units"], rung["by_variance"], "-" if rung["by_rate"] is None else rung["by_rate"])
        out.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in (*cells, _pair(rate))) + "</tr>")
    out.append("</table>")
    if run.data.image:
        shown, name = judged(run.data)
        few = shown.take(torch.arange(min(len(shown), 12)))
        picture = pictures.grid(kept_rungs(run.model, few), len(few))
        out.append(
            f"<p>First line: {name} rows. Second: all rungs kept. Then one rung fewer from line to line, from the "
            "bottom up, the others drawn anew; in the last line nothing of the row is left.</p>"
        )
        out.append(pictures.inline(picture, "top rungs kept", _scale(run.data, len(few))))
    return "".join(out)


def _pairs(data: Data, pairs: Pairs, alt: str) -> str:
    if data.image:
        return pictures.inline(pictures.paired(pairs.first, pairs.second), alt, _scale(data, 12))
    return pictures.inline(pictures.profiles(*pairs), alt)


def _scale(data: Data, across: int) -> int:
    return max(1, 900 // (across * (data.shape[-1] + 1)))


def _written(data: Data, x: Tensor, nats: Tensor | None = None) -> str:
    """Rows of mixed columns as a table; the more nats a cell costs, the darker."""
    head = "".join(f"<th>{escape(name)}</th>" for name in data.columns or [])
    lines = []
    for number, row in enumerate(data.undo(x).to_pylist()):
        cells = ""
        for place, name in enumerate(data.columns or []):
            shade = 0.0 if nats is None else min(float(nats[number, place]) / 12, 0.7)
            cells += f"<td style='background:rgba(220,60,40,{shade:.2f})'>{escape(str(row[name]))}</td>"
        total = "" if nats is None else f"<td>{float(nats[number].sum()):.1f}</td>"
        lines.append(f"<tr>{cells}{total}</tr>")
    last = "" if nats is None else "<th>nats</th>"
    return f"<div class=wide><table><tr>{head}{last}</tr>{''.join(lines)}</table></div>"


@torch.no_grad()
def _rows(run: Run, few: int = 8) -> str:
    """Rows of mixed columns: the first, and those that the model finds the least likely through their codes."""
    shown, name = judged(run.data)
    held = shown.take(torch.arange(min(len(shown), 5000)))
    found = []
    for batch in batches(run.model, held):
        px: Any = run.model.decode(run.model.encode(batch.x, batch.context).z, batch.context)
        seen = ~batch.target.isnan()
        found.append(torch.where(seen, -cells(px, batch.target.nan_to_num(0.0)), 0.0).cpu())
    nats, x = torch.cat(found), held.x.cpu()
    out = [
        f"<h2>{name.capitalize()} rows through the code</h2><p>The darker a cell, the less likely it is given the code "
        "of its row (-log p in nats); empty cells cost nothing.</p>"
    ]
    for title, order in (
        ("the first", torch.arange(len(x))),
        ("the least likely", nats.sum(1).argsort(descending=True)),
    ):
        out.append(f"<p>{title}:</p>" + _written(run.data, x[order[:few]], nats[order[:few]]))
    return "".join(out)


def _reconstructions(run: Run) -> str:
    if isinstance(run.data.scaling, TableCodec):
        return _rows(run)
    out = [f"<h2>Reconstructions of {judged(run.data)[1]} rows</h2>"]
    where = "above as given, below" if run.data.image else "as given (blue), and (orange)"
    for title in ("random", "worst"):
        pairs = reconstructions(run, title == "worst")
        error = float((pairs.first - pairs.second).square().flatten(1).sum(1).mean())
        out.append(f"<p>{title}: {where} through the code (mean squared error {error:.3g} a row)</p>")
        out.append(_pairs(run.data, pairs, f"{title} reconstructions"))
    return "".join(out)


def _samples(run: Run) -> str:
    if run.model.prior is None:
        return "<h2>Samples</h2><p>A deterministic autoencoder has no prior to sample from.</p>"
    if isinstance(run.data.scaling, TableCodec):
        with draws.seeded(0, 31), torch.no_grad():
            made = run.model.sample(12, told(run, 12)).sample().cpu()
        return "<h2>Samples</h2><p>draws from p(x|z) for z from the prior:</p>" + _written(run.data, made)
    where = ("above", "below") if run.data.image else ("blue", "orange")
    text = f"{where[0]}: the mean of p(x|z) for z from the prior; {where[1]}: its nearest training row (copies show)"
    pairs = samples(run, 24 if run.data.image else 12)
    return f"<h2>Samples</h2><p>{text}</p>" + _pairs(run.data, pairs, "samples from the prior")


def _features(run: Run, most: int = 20, top: int = 6) -> str:
    """Of a sparse code: how often its units fire, and for the most frequent ones which rows, in which direction."""
    if not isinstance(run.model.posterior, Sparse):
        return ""
    shown, name = judged(run.data)
    found = features(run.model, shown.take(torch.arange(min(len(shown), 10_000))), top)
    units = found.rate.argsort(descending=True, stable=True)[:most]
    out = [
        "<h2>What the units of the sparse code stand for</h2>",
        f"<p>{found.active.mean:.3g} of {run.model.latent:,} units fire for a {name} row on average; "
        f"{int(found.dead.sum()):,} fire for none of them.</p>",
        pictures.inline(pictures.firing(found.rate), "histogram of firing rates"),
        f"<p>The {len(units)} most frequent units, each with the {name} rows that it answers most strongly:</p>",
        "<table><tr><th>unit</th><th>fires for</th><th>rows (value)</th></tr>",
    ]
    for unit in units.tolist():
        pairs = zip(found.rows[unit].tolist(), found.values[unit].tolist(), strict=True)
        cells = ", ".join(f"{row} ({value:.3g})" for row, value in pairs)
        out.append(f"<tr><td>{unit}</td><td>{found.rate[unit]:.1%}</td><td>{cells}</td></tr>")
    out.append("</table>")
    if run.data.image:
        directions = found.directions[units]
        size = directions.abs().flatten(1).amax(1).clamp_min(1e-12).view(-1, 1, 1, 1)
        picture = pictures.grid(0.5 + 0.5 * directions / size, 10)
        out.append("<p>What each of them adds to an image, line by line (grey: nothing; white: more; black: less):</p>")
        out.append(pictures.inline(picture, "directions", _scale(run.data, 10)))
    return "".join(out)


def _latent(run: Run) -> str:
    shown, name = judged(run.data)
    figure = pictures.inline(run.plot.latent(), "scatter of the codes")
    codes = f"<h2>The code</h2><p>Codes of {name} rows:</p>{figure}"
    if isinstance(run.model.posterior, Discrete):  # which has no units to be moved one by one
        return codes
    walk = traverse(run.model, shown.take(torch.arange(min(len(shown), readable(run.model, 5000)))))
    text = (
        f"Each line moves one unit of the code from -2.5 to +2.5 standard deviations about the mean of the {name} "
        f"codes; units {', '.join(map(str, walk.units))}, by falling rate."
    )
    if run.data.image:
        across = walk.x.shape[1]
        moved = pictures.inline(pictures.grid(walk.x.flatten(0, 1), across), "traversal", _scale(run.data, across))
    else:
        text += " Blue is the low end, orange the high."
        moved = pictures.inline(
            pictures.profiles(walk.x[:, 0], walk.x[:, -1], [f"unit {u}" for u in walk.units]), "traversal"
        )
    return f"{codes}<h2>Traversal</h2><p>{text}</p>{moved}"
