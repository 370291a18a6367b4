"""New rows of a table, drawn given some of their cells."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from narrows import draws
from narrows.contract import repeated
from narrows.evaluate.common import device_of
from narrows.evaluate.likelihood import BUDGET
from narrows.likelihoods import Columns, log_prob
from narrows.models import Model

__all__ = ["Sampled", "sample"]


class Sampled(NamedTuple):
    """Rows that were drawn given some of their cells."""

    x: Tensor  # (n, columns) in model units
    effective_sample_size: float  # of the codes that they were drawn from, at most `codes`
    codes: int

    def __str__(self) -> str:
        text = f"{len(self.x):,} rows from {self.codes:,} codes, {self.effective_sample_size:,.0f} of them effective"
        if self.effective_sample_size < min(len(self.x), 100):
            text += ": the model hardly knows such rows, and these are less varied than they should be; ask for less"
        return text


@torch.no_grad()
def sample(
    model: Model,
    n: int,
    given: Tensor,
    context: Tensor | None = None,
    codes: int | None = None,
    seed: int = 0,
) -> Sampled:
    r"""Rows of mixed columns drawn from p(x | given cells), which stand in them as they were given.

    .. math:: p(x_b \mid x_a) = \int p(x_b \mid z)\, p(z \mid x_a)\, dz, \quad w_k \propto
              \frac{p(x_a \mid z_k)\, p(z_k)}{\frac12 q(z_k \mid x_a) + \frac12 p(z_k)}

    Codes are drawn half from the encoder's q(z|x_a) and half from the prior, so that no weight is larger than
    2 p(x_a|z) however poorly the encoder knows such rows; n of them are taken by their weights (sampling-importance
    resampling, systematic), and each is decoded once. Where q has no density that can be asked, all come from the
    prior.

    Arguments: `given` (columns,) in model units, NaN where nothing is asked, as `TableCodec.ask` makes it; `context`
    (1, context) for a model that is told some; `codes` to choose from, ten times n and at least 10,000 where nothing
    is said.
    Raises: TypeError for a likelihood that is not of mixed columns, or a model without a prior to draw from; ValueError
    for n below 1 or given cells of another shape.
    References: Using the SIR algorithm to simulate posterior distributions (Rubin, 1988); for the mixture, Safe and
    effective importance sampling (Owen & Zhou, 2000), section 3.

    Example:
        >>> from functools import partial
        >>> from narrows.likelihoods import Column
        >>> from narrows.recipes import vae
        >>> model, _ = vae((2,), latent=1, likelihood=partial(Columns, columns=(Column(classes=3), Column())))
        >>> found = sample(model, 4, torch.tensor([2.0, math.nan]))
        >>> found.x[:, 0]
        tensor([2., 2., 2., 2.])
    """
    likelihood = model.likelihood
    if not isinstance(likelihood, Columns):
        raise TypeError(
            "rows are drawn given cells where columns are mixed, each with a probability of its own; this model's "
            f"likelihood is {type(likelihood).__name__}. Load the table with column= (--column NAME=KIND), or draw "
            "from model.sample(n)"
        )
    if n < 1 or given.shape != model.shape:
        raise ValueError(
            f"sample draws at least one row given cells {model.shape}, NaN where nothing is asked; got n={n}, cells "
            f"{tuple(given.shape)}"
        )
    codes = max(10_000, 10 * n) if codes is None else codes
    asked = given.to(device_of(model), next(model.parameters()).dtype)[None]
    seen = ~asked.isnan()
    model.eval()
    with draws.seeded(seed, 37, 0):
        z, mixed = _proposed(model, asked, context, codes)
        fits = torch.cat([_fit(model, part, asked, seen, context) for part in z.split(_piece(likelihood))])
        weights = (fits - mixed).double().softmax(0)
        places = (torch.rand((), dtype=torch.float64) + torch.arange(n, dtype=torch.float64)) / n
        taken = torch.searchsorted(weights.cumsum(0).cpu(), places).clamp_max(codes - 1)[torch.randperm(n)]
        made = []
        for part in z[taken.to(z.device)].split(_piece(likelihood)):
            x = model.decode(part, _told(context, len(part))).sample()
            made.append(torch.where(seen, asked, x).cpu())
    return Sampled(torch.cat(made), float(1 / weights.square().sum()), codes)


def _piece(likelihood: Columns) -> int:
    return max(1, BUDGET // math.prod(likelihood.wants))


def _told(context: Tensor | None, rows: int) -> Tensor | None:
    return None if context is None else repeated(context, rows)


def _proposed(model: Model, asked: Tensor, context: Tensor | None, codes: int) -> tuple[Tensor, Tensor]:
    """Codes (K, D), and log (mixture / p) of each (K,): 0 where all come from the prior."""
    z = model.draw(codes, _told(context, codes))
    code = model.encode(asked, context, draw=True) if model.weighed else None
    if code is None or code.q is None or code.p is None:
        return z, z.new_zeros(codes)
    half = codes // 2
    z = torch.cat([code.q.sample((half,)).flatten(0, 1), z[half:]])
    log_q, log_p = code.q.log_prob(z[:, None]).flatten(), code.p.log_prob(z[:, None]).flatten()
    shares = torch.tensor([max(half, 1e-9), codes - half], device=z.device, dtype=z.dtype).div(codes).log()
    return z, torch.logaddexp(shares[0] + log_q, shares[1] + log_p) - log_p


def _fit(model: Model, z: Tensor, asked: Tensor, seen: Tensor, context: Tensor | None) -> Tensor:
    """Log p(given cells | z), (S,)."""
    px = model.decode(z, _told(context, len(z)))
    return log_prob(px, asked.expand(len(z), -1), seen.expand(len(z), -1))
