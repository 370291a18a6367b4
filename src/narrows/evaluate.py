"""What a trained model is worth, in numbers that say how they were got.

Every function takes rows (`Rows`, or a tensor in model units) and draws under a seed of its own: the same call gives
the same number, and torch's generator is left as found.
"""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor

from narrows import defaults, draws
from narrows.baselines import Columns, Pca, fit_columns, fit_pca
from narrows.contract import Batch, repeated
from narrows.data import Data, Rows
from narrows.data import rows as as_rows
from narrows.likelihoods import log_prob
from narrows.memory import keep_freed
from narrows.models import Autoencoder
from narrows.objectives import log_weights
from narrows.posteriors import Sparse

__all__ = [
    "ActiveUnits",
    "Features",
    "Likelihood",
    "Mean",
    "RoundTrip",
    "active_units",
    "bits_per_dimension",
    "codes",
    "distortion_rate",
    "evaluate",
    "features",
    "frechet_distance",
    "inputs",
    "log_likelihood",
    "reconstruct",
    "round_trip",
    "score_samples",
    "verdict",
]

BUDGET = 2_000_000  # numbers that the decoder may hold at once: fits the caches better than memory, and is flat in K


class Mean(NamedTuple):
    """A mean over rows and its standard error (of the rows as a sample of all rows there could be)."""

    mean: float
    standard_error: float

    @classmethod
    def of(cls, values: Tensor) -> "Mean":
        """Of (n,) values."""
        values = values.double()
        error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(float(values.mean()), error)

    def __str__(self) -> str:
        return f"{self.mean:.4g} ± {self.standard_error:.2g}"


class Likelihood(NamedTuple):
    """What `log_likelihood` found, in nats."""

    values: Tensor  # (n,) estimate of log p(x) of each row; a lower bound in expectation
    mean: float
    standard_error: float  # of the mean, rows as a sample
    monte_carlo_error: float  # of the mean, from the finite number of draws
    effective_sample_size: Tensor  # (n,) in 1..K; near 1 the estimate hangs on one draw and is too low
    samples: int

    def __str__(self) -> str:
        return (
            f"log p(x) >= {self.mean:.4g} ± {self.standard_error:.2g} nats (importance-weighted, K = {self.samples}, "
            f"Monte Carlo error {self.monte_carlo_error:.2g}, median effective sample size "
            f"{float(self.effective_sample_size.median()):.3g})"
        )


class ActiveUnits(NamedTuple):
    """Which units of the code carry something, by both definitions in use."""

    by_variance: Tensor  # (D,) bool: variance over x of the posterior mean > 0.01 (Burda et al. 2015, section 5.2)
    by_rate: Tensor | None  # (D,) bool: mean KL > 0.01 nats (Sonderby et al. 2016); None for a deterministic code
    variance: Tensor  # (D,)
    rate: Tensor | None  # (D,) nats


class Features(NamedTuple):
    """What the units of a sparse code stand for."""

    rate: Tensor  # (D,) share of the rows for which the unit fires
    dead: Tensor  # (D,) bool: it fires for none
    active: Mean  # units that fire for a row: the mean L0
    rows: Tensor  # (D, top) positions of the rows with the largest values, largest first
    values: Tensor  # (D, top) those values
    directions: Tensor  # (D, *event) what one of the unit adds to x, model units


class RoundTrip(NamedTuple):
    """Errors of going there and back, on means; squared, summed over the event or the units."""

    x: Tensor  # (n,) |x - E[x | z(x)]|^2, model units (pixels in 0..1)
    z: Tensor | None  # (n,) |z - z(E[x|z])|^2 for z from the prior; None without one


def bits_per_dimension(nats: float, shape: tuple[int, ...]) -> float:
    """-nats / (log 2 * values of a row): meaningful only where p(x|z) is a probability of the stored values."""
    return -nats / (math.log(2) * math.prod(shape))


def _device(model: Autoencoder) -> torch.device:
    return next(model.parameters()).device


def _batches(model: Autoencoder, data: Rows | Tensor, size: int = 1024) -> Iterator[Batch]:
    rows = as_rows(data)
    if rows.wanted != model.shape:
        raise ValueError(f"the model is for rows of shape {model.shape}; these have {rows.wanted}")
    model.eval()
    keep_freed()
    rows = rows.to(_device(model))
    for start in range(0, len(rows), size):
        # rows that are binarised anew at every reading are read alike by every function here
        with draws.seeded(0, 11, start) if rows.binarise == "dynamic" else nullcontext():
            batch = rows.batch(torch.arange(start, min(start + size, len(rows)), device=rows.device))
        yield batch


def inputs(model: Autoencoder, data: Rows | Tensor) -> Tensor:
    """The rows as the other functions see them, (n, *event) in model units, on the CPU."""
    x = torch.empty(0)
    done = 0
    for batch in _batches(model, data):
        if not done:  # filled in place: a list of parts and their sum would lie in memory together
            x = torch.empty(len(as_rows(data)), *model.shape, dtype=batch.target.dtype)
        x[done : done + len(batch.target)] = batch.target
        done += len(batch.target)
    return x


def _log_weights(model: Autoencoder, batch: Batch, samples: int, piece: int) -> Iterator[Tensor]:
    """Log p(x|z) + log p(z) - log q(z|x) of `samples` draws a row, (k, B) at a time, k <= piece."""
    h = model.hidden(batch.x, batch.context)
    piece = min(piece, samples)
    x, seen = repeated(batch.target, piece), repeated(batch.seen, piece)  # once, not for every piece
    for done in range(0, samples, piece):
        k = min(piece, samples - done)
        rows = k * len(batch.x)
        code = model.posterior(h, batch.context, k)
        px = model.decode(code.z, batch.context)
        distortion, rate = log_weights(px, code, x[:rows], None if seen is None else seen[:rows])
        yield -(distortion + rate).unflatten(0, (k, -1)).double()


@torch.no_grad()
def log_likelihood(model: Autoencoder, data: Rows | Tensor, samples: int = 5000, seed: int = 0) -> Likelihood:
    r"""Importance-weighted estimate of log p(x), a lower bound in expectation that rises to it with K = `samples`.

    .. math:: \log \hat p(x) = \log \frac1K \sum_k \frac{p(x \mid z_k)\, p(z_k)}{q(z_k \mid x)}, \ z_k \sim q(z \mid x)

    The encoder runs once a row; draws come in pieces of constant memory, whatever K. The Monte Carlo error is the delta
    method's, var(log mean w) = (K / ESS - 1) / K with ESS = (sum w)^2 / sum w^2; it is blind to draws that never came.

    Raises: TypeError for a deterministic code, ValueError for samples < 1 or rows of another shape.
    Reference: Importance Weighted Autoencoders (Burda et al., 2015), arXiv:1509.00519, equation 8.
    """
    if samples < 1:
        raise ValueError(f"log_likelihood takes at least one sample; got samples={samples}")
    values, sizes = [], []
    width = math.prod(model.likelihood.wants)
    with draws.seeded(seed, 4, 0):
        for batch in _batches(model, data, max(1, min(256, BUDGET // width))):
            total = squares = torch.full((len(batch.x),), -math.inf, dtype=torch.float64, device=batch.x.device)
            for log_w in _log_weights(model, batch, samples, max(1, BUDGET // (width * len(batch.x)))):
                total = torch.logaddexp(total, log_w.logsumexp(0))
                squares = torch.logaddexp(squares, (2 * log_w).logsumexp(0))
            values.append((total - math.log(samples)).cpu())
            sizes.append((2 * total - squares).exp().cpu())
    value, size = torch.cat(values), torch.cat(sizes)
    variance = (samples / size - 1).clamp_min(0) / samples
    return Likelihood(value, *Mean.of(value), math.sqrt(float(variance.sum())) / len(value), size, samples)


@torch.no_grad()
def score_samples(model: Autoencoder, data: Rows | Tensor, samples: int = 64, seed: int = 0) -> Tensor:
    """A deterministic estimate of log p(x) of each row, (n,) nats: higher is more normal.

    The same draws for every row, so that a row scores alike whatever stands beside it. For a deterministic code it is
    log p(x|z) at the code.
    """
    values = []
    width, piece = math.prod(model.likelihood.wants), min(samples, 16)
    for batch in _batches(model, data, max(1, min(1024, BUDGET // (width * piece)))):
        if not model.density:
            px, _ = model(batch.x, batch.context)
            values.append(log_prob(px, batch.target, batch.seen).double().cpu())
            continue
        with draws.seeded(seed, 10, 0), draws.common():
            log_w = torch.cat(list(_log_weights(model, batch, samples, piece)))
        values.append((log_w.logsumexp(0) - math.log(samples)).cpu())
    return torch.cat(values)


@torch.no_grad()
def distortion_rate(model: Autoencoder, data: Rows | Tensor, samples: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Distortion (reconstruction) and rate (KL in closed form) of each row, (n,) nats; -(their sum) is the ELBO."""
    distortions, rates = [], []
    with draws.seeded(seed, 5, 0):
        for batch in _batches(model, data):
            distortion = torch.zeros(len(batch.x), device=batch.x.device)
            h = model.hidden(batch.x, batch.context)
            for _ in range(samples):
                code = model.posterior(h, batch.context)
                distortion -= log_prob(model.decode(code.z, batch.context), batch.target, batch.seen) / samples
            distortions.append(distortion.cpu())
            rates.append(code.rate.cpu())
    return torch.cat(distortions), torch.cat(rates)


@torch.no_grad()
def codes(model: Autoencoder, data: Rows | Tensor, draw: bool = False) -> Tensor:
    """The point code (posterior mean) of each row, or a draw from q(z|x), (n, D), on the CPU."""
    return torch.cat([model.encode(batch.x, batch.context, draw=draw).z.cpu() for batch in _batches(model, data)])


@torch.no_grad()
def reconstruct(model: Autoencoder, data: Rows | Tensor) -> Tensor:
    """E[x | z] at the point code of each row, (n, *event) in model units, on the CPU."""
    batches = _batches(model, data)
    return torch.cat([model.decode(model.encode(b.x, b.context).z, b.context).mean.cpu() for b in batches])


@torch.no_grad()
def active_units(model: Autoencoder, data: Rows | Tensor) -> ActiveUnits:
    """Which units are active, by the variance of the posterior mean and by the rate."""
    means, rates = [], []
    for batch in _batches(model, data):
        code = model.encode(batch.x, batch.context)
        means.append(code.z.double().cpu())
        rates.append(code.rates.double().cpu())
    variance = torch.cat(means).var(0, correction=0)
    rate = torch.cat(rates).mean(0) if model.density and rates[0].shape[-1] == model.latent else None
    return ActiveUnits(variance > 0.01, None if rate is None else rate > 0.01, variance, rate)


@torch.no_grad()
def features(model: Autoencoder, data: Rows | Tensor, top: int = 10) -> Features:
    """Which rows make each unit of the code fire, how often, and what the unit adds to a row.

    A direction is E[x | e_j] - E[x | 0] for the unit vector e_j: the dictionary's own row where the decoder is affine.
    Units of codes that are not sparse fire where they are not 0. Memory grows with units and `top`, not with rows.

    Raises: ValueError for top < 1, TypeError for a model that is told context.

    Example:
        >>> from narrows.recipes import sparse
        >>> model, _ = sparse((8,), latent=16, active=2)
        >>> found = features(model, torch.rand(50, 8), top=3)
        >>> found.rows.shape, found.directions.shape, found.active.mean <= 2
        (torch.Size([16, 3]), torch.Size([16, 8]), True)
    """
    rows = as_rows(data)
    if top < 1:
        raise ValueError(f"features shows at least one row a unit; got top={top}")
    top, start = min(top, len(rows)), 0
    fires = getattr(model.posterior, "fires", lambda z: z != 0)
    values, places, counts = torch.empty(0, model.latent), torch.empty(0, model.latent, dtype=torch.int64), []
    times = torch.zeros(model.latent, dtype=torch.int64)
    for batch in _batches(model, rows):
        z = model.encode(batch.x, batch.context).z
        fired = fires(z)
        counts.append(fired.sum(1).cpu())
        times += fired.sum(0).cpu()
        here = torch.arange(start, start + len(z))[:, None].expand(-1, model.latent)
        start += len(z)
        values, places = torch.cat([values.to(z.dtype), z.cpu()]), torch.cat([places, here])
        values, index = values.topk(min(top, len(values)), 0)  # (top, D), and so on with the next rows
        places = places.gather(0, index)
    one = torch.eye(model.latent, device=_device(model), dtype=values.dtype)
    nothing = model.decode(torch.zeros_like(one[:1])).mean
    directions = torch.cat([(model.decode(part).mean - nothing).cpu() for part in one.split(1024)])
    return Features(times / len(rows), times == 0, Mean.of(torch.cat(counts)), places.T, values.T, directions)


@torch.no_grad()
def round_trip(model: Autoencoder, data: Rows | Tensor, seed: int = 0) -> RoundTrip:
    """Errors of x to z to x on the rows, and of z to x to z on as many draws from the prior."""
    errors, back = [], []
    with draws.seeded(seed, 6, 0):
        for batch in _batches(model, data):
            mean = model.decode(model.encode(batch.x, batch.context).z, batch.context).mean
            errors.append((mean - batch.target).square().flatten(1).sum(1).cpu())
            if model.prior is not None:
                z = model.draw(len(batch.x), batch.context)
                again = model.encode(model.decode(z, batch.context).mean, batch.context).z
                back.append((again - z).square().flatten(1).sum(1).cpu())
    return RoundTrip(torch.cat(errors), torch.cat(back) if back else None)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    r"""How far two sets of features lie apart, were each of them normal: their squared Wasserstein-2 distance.

    .. math:: |m_a - m_b|^2 + \operatorname{tr}\big( S_a + S_b - 2 (S_a S_b)^{1/2} \big)

    With features of images and of samples it judges a generative model; figures compare only for the same features and
    numbers of rows, since the estimate is biased upwards for few. Covariances divide by n - 1, as is usual.

    Shapes: a (n, d), b (m, d); computed in float64. Raises: ValueError for other shapes or fewer than 2 rows.
    References: The Fréchet distance between multivariate normal distributions (Dowson & Landau, 1982); GANs Trained by
    a Two Time-Scale Update Rule (Heusel et al., 2017), arXiv:1706.08500, equation 6.

    Example:
        >>> a = torch.randn(100, 3)
        >>> round(frechet_distance(a, a + torch.tensor([2.0, 0.0, 0.0])), 3)
        4.0
    """
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            "a Fréchet distance compares features (n, d) and (m, d) of at least 2 rows each; got "
            f"{tuple(a.shape)} and {tuple(b.shape)}. Flatten what has more axes"
        )
    a, b = a.double(), b.double()
    squares, roots = [], []
    for rows in (a, b):
        values, axes = torch.linalg.eigh(torch.cov(rows.T).reshape(rows.shape[1], -1))
        squares.append(values.sum())
        roots.append(axes * values.clamp_min(0).sqrt() @ axes.T)
    # tr (S_a S_b)^(1/2) is the nuclear norm of S_a^(1/2) S_b^(1/2): no root of a product that is not symmetric
    shared = torch.linalg.svdvals(roots[0] @ roots[1]).sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + squares[0] + squares[1] - 2 * shared)


# ---- all of it on one data set, beside the baselines: what the report and `narrows evaluate` show ----


def evaluate(
    model: Autoencoder, data: Data, samples: int | None = None, rows: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Measures a model on train, valid and test beside PCA and independent columns, as a record for JSON.

    Bounds with K = `samples` are taken on at most `rows` rows of each part (the first), everything else on at most
    10,000; where nothing is said, 1000 each, or what the size of the decoder allows (`defaults.bound`). A pair [mean,
    standard error] stands for each figure; nats per row, squared errors in model units.
    """
    one = next(_batches(model, data.train.take(torch.arange(1))))
    affordable = defaults.bound(lambda: model(one.x, one.context), 3)
    samples, rows = samples or affordable[0], rows or affordable[1]
    density = model.density
    discrete = model.likelihood.discrete
    fitted = inputs(model, data.train.take(torch.arange(min(len(data.train), 50_000)))).flatten(1)
    levels = getattr(model.likelihood, "levels", 2 if discrete else None)
    train = data.train.take(torch.arange(min(len(data.train), 10_000)))
    spent = model.latent  # numbers that a row's code consists of
    if isinstance(model.posterior, Sparse):
        spent = max(1, round(features(model, train, top=1).active.mean))
    pca, columns = fit_pca(fitted, spent), fit_columns(fitted, levels)
    parts = {}
    for name, part in (("train", data.train), ("valid", data.valid), ("test", data.test)):
        if len(part):
            parts[name] = _part(model, part, (pca, columns), samples if density else 0, rows, seed)
    units = active_units(model, train)
    trip = round_trip(model, data.train.take(torch.arange(min(len(data.train), 1000))))
    judged = parts[list(parts)[-1]]
    result = {
        "samples": samples if density else None,
        "seed": seed,
        "discrete": discrete,
        "latent": spent,
        "parts": parts,
        "active_units": {
            "total": model.latent,
            "by_variance": int(units.by_variance.sum()),
            "by_rate": None if units.by_rate is None else int(units.by_rate.sum()),
            "variance": units.variance.tolist(),
            "rate": None if units.rate is None else units.rate.tolist(),
        },
        "round_trip": {"x": Mean.of(trip.x), "z": None if trip.z is None else Mean.of(trip.z)},
    }
    return result | {"verdict": verdict(judged, list(parts)[-1], spent, discrete)}


def _part(
    model: Autoencoder, part: Rows, baselines: tuple[Pca, Columns], samples: int, rows: int, seed: int
) -> dict[str, Any]:
    part = part.take(torch.arange(min(len(part), 10_000)))
    held = inputs(model, part)  # read once: rows may be binarised anew at every reading
    part = Rows(held, label=part.label, context=part.context)
    few, x = part.take(torch.arange(min(len(part), rows))), held.flatten(1)
    ours = reconstruct(model, part).flatten(1)
    errors = {"model": (ours - x).square().sum(1).double()}
    pca, columns = baselines
    errors["pca"] = (pca.reconstruct(x) - x).square().sum(1)
    errors["columns"] = (columns.reconstruct(x) - x).square().sum(1)
    likelihoods = {}
    if not getattr(model.likelihood, "relaxed", False):  # which is no likelihood, so there is nothing to compare
        likelihoods["columns"] = columns.log_prob(x[: len(few)])
        if not model.likelihood.discrete:
            likelihoods["pca"] = pca.log_prob(x[: len(few)])
    record: dict[str, Any] = {"rows": len(part), "bound_rows": len(few)}
    if samples:
        distortion, rate = distortion_rate(model, part, seed=seed)
        found = log_likelihood(model, few, samples, seed)
        likelihoods["model"] = found.values
        record |= {
            "distortion": Mean.of(distortion),
            "rate": Mean.of(rate),
            "elbo": Mean.of(-distortion - rate),
            "monte_carlo_error": found.monte_carlo_error,
            "effective_sample_size": float(found.effective_sample_size.median()),
        }
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
        if name != "model" and "model" in values
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
