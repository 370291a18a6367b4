"""All of it on one data set, beside the baselines: what the report and `narrows evaluate` show."""

import math
from typing import Any

import torch

from narrows import defaults
from narrows.baselines import fit_cells, fit_columns, fit_pca
from narrows.data import Data, Rows, TableCodec
from narrows.diffusion import Diffusion
from narrows.evaluate.classes import accuracy
from narrows.evaluate.common import Mean, batches, inputs, reconstruct
from narrows.evaluate.latent import active_units, features, round_trip, usage
from narrows.evaluate.likelihood import different, distortion_rate, log_likelihood, rate_by_rung
from narrows.likelihoods import Columns as CellLikelihood
from narrows.models import Ladder, Model
from narrows.posteriors import Discrete, Sparse

__all__ = ["evaluate", "verdict"]


def evaluate(
    model: Model, data: Data, samples: int | None = None, rows: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Measures a model on train, valid and test beside PCA and independent columns, as a record for JSON.

    Bounds with K = `samples` are taken on at most `rows` rows of each part (the first), everything else on at most
    10,000; where nothing is said, 1000 each, or what the size of the decoder allows (`defaults.bound`). Of a diffusion
    the bound is the ELBO, from K steps a row, 50 where nothing is said and at most all, whose sum it then is; and fewer
    rows are read where its many passes take too long (`defaults.readable`). A pair [mean, standard error] stands for
    each figure; nats per row, squared errors in model units.
    """
    one = next(batches(model, data.train.take(torch.arange(1))))
    affordable = defaults.bound(lambda: model(one.x, one.context), 3)
    if isinstance(model, Diffusion):
        affordable = (min(50, int(model.posterior.noise.steps)), 1000)  # type: ignore[union-attr, arg-type]
    samples, rows = different(model, samples or affordable[0]), rows or affordable[1]
    if isinstance(model, Diffusion):
        samples = min(samples, int(model.posterior.noise.steps))  # type: ignore[union-attr, arg-type]
    most = defaults.readable(model)
    density = model.density
    discrete = model.likelihood.discrete
    fitted = inputs(model, data.train.take(torch.arange(min(len(data.train), 50_000)))).flatten(1)
    counts = model.likelihood.counts
    levels = getattr(model.likelihood, "levels", 2 if discrete and not counts else None)
    train = data.train.take(torch.arange(min(len(data.train), most)))
    spent = int(getattr(model.posterior, "variables", model.latent))  # numbers that a row's code consists of
    if isinstance(model.posterior, Sparse):
        spent = max(1, round(features(model, train, top=1).active.mean))
    if isinstance(model, Diffusion):
        spent = max(1, spent - 1)  # PCA keeps a variance for what is left
    cheap: dict[str, Any] = {}
    if isinstance(model.likelihood, CellLikelihood):  # whose cells have no common scale on which to be off
        cheap["columns"] = fit_cells(fitted, model.likelihood)
    else:
        cheap = {"pca": fit_pca(fitted, spent), "columns": fit_columns(fitted, levels, counts)}
    parts = {}
    for name, part in (("train", data.train), ("valid", data.valid), ("test", data.test)):
        if len(part):
            some = part.take(torch.arange(min(len(part), most)))
            parts[name] = _part(model, some, cheap, samples if density else 0, rows, seed)
    units = active_units(model, train)
    trip = round_trip(model, train.take(torch.arange(min(len(train), 1000))))
    judged = parts[list(parts)[-1]]
    result: dict[str, Any] = {
        "samples": samples if density else None,
        "seed": seed,
        "estimator": None if not density else "importance-weighted" if model.weighed else "ELBO",
        "discrete": discrete,
        "told": bool(model.context),  # then log p(x) is that of x given what the model was told
        "latent": spent,
        "parts": parts,
        "active_units": {
            "total": model.latent,
            "by_variance": int(units.by_variance.sum()),
            "by_rate": None if units.by_rate is None else int(units.by_rate.sum()),
            "variance": units.variance.tolist(),
            "rate": None if units.rate is None else units.rate.tolist(),
            "rungs": [
                {
                    "units": len(rung.variance),
                    "by_variance": int(rung.by_variance.sum()),
                    "by_rate": None if rung.by_rate is None else int(rung.by_rate.sum()),
                }
                for rung in units.each()
                if units.rungs
            ],
        },
        "round_trip": {"x": Mean.of(trip.x), "z": None if trip.z is None else Mean.of(trip.z)},
    }
    if isinstance(model.posterior, Discrete):
        used = usage(model, train)
        result["codewords"] = {
            "codebook": used.counts.numel(),
            "choices": model.posterior.variables,
            "perplexity": used.perplexity,
            "used": used.used,
            "rows": len(train),
        }
    judged_labels = accuracy(model, data, rows, seed=seed)
    if judged_labels is not None:
        result["classes"] = judged_labels
    return result | {"verdict": verdict(judged, list(parts)[-1], spent, discrete)}


def _part(model: Model, part: Rows, cheap: dict[str, Any], samples: int, rows: int, seed: int) -> dict[str, Any]:
    held = inputs(model, part)  # read once: rows may be binarised anew at every reading
    scaling = part.scaling if isinstance(part.scaling, TableCodec) else None
    part = Rows(held, scaling, label=part.label, context=part.told)
    few, x = part.take(torch.arange(min(len(part), rows))), held.flatten(1)
    errors = {}
    if scaling is None:
        ours = reconstruct(model, part).flatten(1)
        errors = {"model": (ours - x).square().sum(1).double()}
        errors |= {name: (one.reconstruct(x) - x).square().sum(1) for name, one in cheap.items()}
    likelihoods = {}
    if not getattr(model.likelihood, "relaxed", False):  # which is no likelihood, so there is nothing to compare
        likelihoods["columns"] = cheap["columns"].log_prob(x[: len(few)])
        if not model.likelihood.discrete:
            likelihoods["pca"] = cheap["pca"].log_prob(x[: len(few)])
    record: dict[str, Any] = {"rows": len(part), "bound_rows": len(few)}
    if samples:
        terms = distortion_rate(model, part, seed=seed) if model.weighed else distortion_rate(model, few, samples, seed)
        record |= {"distortion": Mean.of(terms[0]), "rate": Mean.of(terms[1]), "elbo": Mean.of(-terms[0] - terms[1])}
        if model.weighed:
            found = log_likelihood(model, few, samples, seed)
            likelihoods["model"] = found.values
            record["monte_carlo_error"] = found.monte_carlo_error
            record["effective_sample_size"] = float(found.effective_sample_size.median())
        else:
            likelihoods["model"] = -(terms[0] + terms[1]).double()
    if samples and isinstance(model, Ladder):
        record["rungs"] = [Mean.of(rate) for rate in rate_by_rung(model, part, seed=seed).T]
    record["reconstruction"] = {name: Mean.of(values) for name, values in errors.items()}
    record["log_likelihood"] = {name: Mean.of(values) for name, values in likelihoods.items()}
    if model.likelihood.discrete:
        d = math.prod(part.shape)
        record["bits_per_dimension"] = {
            n: tuple(v / math.log(2) / d for v in (-m.mean, m.standard_error))
            for n, m in record["log_likelihood"].items()
        }
    record["gain"] = {
        f"{kind} over {name}": Mean.of(sign * (values["model"] - values[name]))
        for kind, sign, values in (("likelihood", 1, likelihoods), ("reconstruction", -1, errors))
        for name in values
        if name != "model" and "model" in values and not (kind == "likelihood" and model.context)  # no fair comparison
        if not (kind == "reconstruction" and isinstance(model, Diffusion))  # whose code is as large as the row
    }
    return record


def verdict(part: dict[str, Any], name: str, latent: int, discrete: bool) -> str:
    """One sentence on whether the model earns its keep, against each baseline on the same rows."""
    words = {"columns": "independent columns", "pca": f"PCA with {latent} components"}
    won: list[str] = []
    lost: list[str] = []
    level: list[str] = []
    for what, (gain, error) in part["gain"].items():
        kind, baseline = what.split(" over ")
        if kind == "likelihood":
            key, unit = ("bits_per_dimension", " bits/dim") if discrete else ("log_likelihood", " nats")
            label = "likelihood"
        else:
            key, unit, label = "reconstruction", "", "reconstruction error"
        ours, theirs = (part[key][who][0] for who in ("model", baseline))
        text = f"{label} {ours:.4g} against {theirs:.4g}{unit} for {words[baseline]}"
        edge = max(2 * error, 1e-6 * abs(theirs))  # what two roundings of the same map differ by is no gain
        (won if gain > edge else lost if gain < -edge else level).append(text)
    out = []
    if won:
        out.append("better: " + ", ".join(won))
    if level:
        out.append("no clear difference: " + ", ".join(level))
    if lost:
        out.append("WORSE, take the baseline for this: " + ", ".join(lost))
    return f"On {name} rows, " + "; ".join(out) + "."
