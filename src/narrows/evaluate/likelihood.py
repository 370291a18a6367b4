"""What the rows are worth to a model, in nats."""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from narrows import draws
from narrows.contract import Batch, repeated
from narrows.data import Rows
from narrows.evaluate.common import Mean, batches
from narrows.labels import labels_of
from narrows.likelihoods import log_prob
from narrows.models import Ladder, Model
from narrows.objectives import log_weights

__all__ = [
    "BUDGET",
    "Likelihood",
    "bits_per_dimension",
    "different",
    "distortion_rate",
    "importance",
    "log_likelihood",
    "rate_by_rung",
    "refuse_unpriced",
    "refuse_unweighed",
    "score_samples",
]

BUDGET = 2_000_000  # numbers that the decoder may hold at once: fits the caches better than memory, and is flat in K


class Likelihood(NamedTuple):
    """What `log_likelihood` or `annealed_importance_sampling` found, in nats."""

    values: Tensor  # (n,) estimate of log p(x) of each row; a lower bound in expectation
    mean: float
    standard_error: float  # of the mean, rows as a sample
    monte_carlo_error: float  # of the mean, from the finite number of draws
    effective_sample_size: Tensor  # (n,) in 1..K; near 1 the estimate hangs on one draw and is too low
    samples: int
    estimator: str = "importance-weighted"

    @classmethod
    def of(cls, sums: Tensor, samples: int, estimator: str = "importance-weighted") -> "Likelihood":
        """From log sum w and log sum w^2 of the `samples` weights of each row, (2, n)."""
        total, squares = sums
        value, size = total - math.log(samples), (2 * total - squares).exp()
        variance = (samples / size - 1).clamp_min(0) / samples
        error = math.sqrt(float(variance.sum())) / len(value)
        return cls(value, *Mean.of(value), error, size, samples, estimator)

    def __str__(self) -> str:
        return (
            f"log p(x) >= {self.mean:.4g} ± {self.standard_error:.2g} nats ({self.estimator}, K = {self.samples}, "
            f"Monte Carlo error {self.monte_carlo_error:.2g}, median effective sample size "
            f"{float(self.effective_sample_size.median()):.3g})"
        )


def bits_per_dimension(nats: float, shape: tuple[int, ...]) -> float:
    """-nats / (log 2 * values of a row): meaningful only where p(x|z) is a probability of the stored values."""
    return -nats / (math.log(2) * math.prod(shape))


def different(model: Model, samples: int) -> int:
    """How many of `samples` draws can differ: of codewords, whose draws are all the same, one."""
    return min(samples, 1) if getattr(model.posterior, "certain", False) else samples


def _log_weights(model: Model, batch: Batch, samples: int, piece: int, wide: bool = False) -> Iterator[Tensor]:
    """Log p(x|z) + log p(z) - log q(z|x) of `samples` draws a row, some of them wider, (k, B) at a time, k <= piece."""
    h = model.hidden(batch.x, batch.context)
    piece = min(piece, samples)
    x, seen = repeated(batch.target, piece), repeated(batch.seen, piece)  # once, not for every piece
    for done in range(0, samples, piece):
        k = min(piece, samples - done)
        rows = k * len(batch.x)
        with draws.widened() if wide else nullcontext() as wider:
            code = model.posterior(h, batch.context, k)
        px = model.decode(code.z, batch.context)
        distortion, rate = log_weights(px, code, x[:rows], None if seen is None else seen[:rows])
        log_w = -(distortion + rate).unflatten(0, (k, -1)).double()
        yield log_w if wider is None else log_w + wider.correction()


def refuse_unweighed(model: Model, what: str) -> None:
    """Raises TypeError where log q or log p of a draw is known by a lower bound only: for a diffusion."""
    if model.density and not model.weighed:
        raise TypeError(
            f"{what} weighs single draws of the code, and a diffusion, as model or as prior, scores them by a lower "
            "bound only. Use distortion_rate(model, rows, samples), whose ELBO -(distortion + rate) is a true bound, "
            "or evaluate(model, data)"
        )


def refuse_unpriced(model: Model, batch: Batch, what: str) -> None:
    """Raises TypeError where p(z) cannot be integrated over all of space: no density, or codes within bounds."""
    refuse_unweighed(model, what)
    p = model.prior(batch.context) if model.density and model.prior is not None else None
    if p is None:
        raise TypeError(
            f"{what} needs the density p(z) of a code, and this model's code has none. Use a model that prices its "
            "code, such as recipe vae or iwae"
        )
    if labels_of(model) or getattr(model.prior, "discrete", False):
        raise TypeError(
            f"{what} moves through all of space, and part of this code is a choice among classes. Use log_likelihood, "
            "which draws from q(z|x)"
        )
    try:
        free = bool(p.support.check(1e3 * torch.ones_like(p.sample())).all())  # type: ignore[union-attr]
    except NotImplementedError:
        free = True  # a distribution that does not say
    if not free:
        raise TypeError(
            f"{what} moves through all of space, and codes of {type(model.prior).__name__} lie within bounds. Use "
            "log_likelihood, which draws from q(z|x)"
        )


@torch.no_grad()
def log_likelihood(model: Model, data: Rows | Tensor, samples: int = 5000, seed: int = 0) -> Likelihood:
    r"""Importance-weighted estimate of log p(x), a lower bound in expectation that rises to it with K = `samples`.

    .. math:: \log \hat p(x) = \log \frac1K \sum_k \frac{p(x \mid z_k)\, p(z_k)}{q(z_k \mid x)}, \ z_k \sim q(z \mid x)

    A fifth of the normal noise behind the draws is spread wider and weighed for it (`draws.Widened`), since q, trained
    to lie within the posterior, misses modes of it. The encoder runs once a row; draws come in pieces of constant
    memory, whatever K. Of a code of codewords there is one draw, and this is the ELBO, as it is with one sample. The
    Monte Carlo error is the delta method's, var(log mean w) = (K / ESS - 1) / K with ESS = (sum w)^2 / sum w^2; it is
    blind to draws that never came.

    Raises: TypeError for a deterministic code, or a diffusion; ValueError for samples < 1 or rows of another shape.
    Reference: Importance Weighted Autoencoders (Burda et al., 2015), arXiv:1509.00519, equation 8.
    """
    if samples < 1:
        raise ValueError(f"log_likelihood takes at least one sample; got samples={samples}")
    refuse_unweighed(model, "log_likelihood")
    found, samples = [], different(model, samples)
    width = math.prod(model.likelihood.wants)
    with draws.seeded(seed, 4, 0):
        for batch in batches(model, data, max(1, min(256, BUDGET // width))):
            found.append(importance(model, batch, samples))
    return Likelihood.of(torch.cat(found, 1), samples)


def importance(model: Model, batch: Batch, samples: int) -> Tensor:
    """Log sum w and log sum w^2 of `samples` importance weights of each row, (2, B), on the CPU."""
    width = math.prod(model.likelihood.wants)
    total = squares = torch.full((len(batch.x),), -math.inf, dtype=torch.float64, device=batch.x.device)
    for log_w in _log_weights(model, batch, samples, max(1, BUDGET // (width * len(batch.x))), wide=samples > 1):
        total = torch.logaddexp(total, log_w.logsumexp(0))
        squares = torch.logaddexp(squares, (2 * log_w).logsumexp(0))
    return torch.stack([total, squares]).cpu()


@torch.no_grad()
def score_samples(model: Model, data: Rows | Tensor, samples: int = 64, seed: int = 0) -> Tensor:
    """A deterministic estimate of log p(x) of each row, (n,) nats: higher is more normal.

    The same draws for every row, so that a row scores alike whatever stands beside it. For a deterministic code it is
    log p(x|z) at the code, and for a diffusion the ELBO, from `samples` steps.
    """
    values, samples = [], different(model, samples)
    width, piece = math.prod(model.likelihood.wants), min(samples, 16 if model.weighed else samples)
    for batch in batches(model, data, max(1, min(1024, BUDGET // (width * piece)))):
        if not model.density:
            px, _ = model(batch.x, batch.context)
            values.append(log_prob(px, batch.target, batch.seen).double().cpu())
            continue
        with draws.seeded(seed, 10, 0), draws.common():
            if not model.weighed:
                distortion, rate = _terms(model, batch, samples)
                values.append(-(distortion + rate).double().cpu())
                continue
            log_w = torch.cat(list(_log_weights(model, batch, samples, piece)))
        values.append((log_w.logsumexp(0) - math.log(samples)).cpu())
    return torch.cat(values)


@torch.no_grad()
def distortion_rate(model: Model, data: Rows | Tensor, samples: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Distortion (reconstruction) and rate (KL) of each row, (n,) nats; -(their sum) is the ELBO.

    The rate is in closed form where there is one, else the mean over the same draws. A diffusion's is estimated from
    `samples` steps a row, spread evenly: as many samples as steps is the sum over all of them.
    """
    found = []
    size = 1024 if samples == 1 else max(1, min(1024, BUDGET // (math.prod(model.likelihood.wants) * samples)))
    with draws.seeded(seed, 5, 0):
        for batch in batches(model, data, size):
            found.append([t.cpu() for t in _terms(model, batch, samples)])
    distortions, rates = (torch.cat(parts) for parts in zip(*found, strict=True))
    return distortions, rates


@torch.no_grad()
def rate_by_rung(model: Ladder, data: Rows | Tensor, samples: int = 1, seed: int = 0) -> Tensor:
    """The rate (KL) of each rung of each row, (n, rungs) nats, top first; their sum is that of `distortion_rate`.

    Example:
        >>> from narrows.recipes import ladder
        >>> model, _ = ladder((8,), rungs=(1, 2, 3))
        >>> x = torch.ones(5, 8)
        >>> found = rate_by_rung(model, x)
        >>> found.shape, torch.allclose(found.sum(1), distortion_rate(model, x)[1])
        (torch.Size([5, 3]), True)
    """
    found = []
    with draws.seeded(seed, 5, 0):
        for batch in batches(model, data):
            h = model.hidden(batch.x, batch.context)
            rates = [model.by_rung(model.posterior(h, batch.context).rates) for _ in range(samples)]
            found.append(torch.stack(rates).mean(0).cpu())
    return torch.cat(found)


def _terms(model: Model, batch: Batch, samples: int) -> tuple[Tensor, Tensor]:
    """Distortion and rate of each row, (B,): means over draws that are made together, so that steps can be spread."""
    px, code = model(batch.x, batch.context, samples)
    distortion = -log_prob(px, repeated(batch.target, samples), repeated(batch.seen, samples))
    distortion, rate = (t.unflatten(0, (samples, -1)).mean(0) for t in (distortion, code.rate))
    return distortion, rate
