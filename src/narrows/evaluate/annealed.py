"""log p(x) without q(z|x): from the prior to the posterior in small steps."""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from narrows import draws
from narrows.contract import Batch, repeated
from narrows.data import Rows
from narrows.evaluate.common import batches
from narrows.evaluate.likelihood import BUDGET, Likelihood, refuse_unpriced
from narrows.likelihoods import log_prob
from narrows.models import Model

__all__ = ["annealed_importance_sampling"]

ACCEPTED = 0.65  # share of accepted moves that step sizes are adapted to, as in Wu et al. 2017
SHARPNESS = 4.0  # of the sigmoidal schedule, as there


def annealed_importance_sampling(
    model: Model, data: Rows | Tensor, steps: int = 500, chains: int = 16, leapfrog: int = 10, seed: int = 0
) -> Likelihood:
    r"""Estimate of log p(x) by chains that walk from the prior to the posterior; q(z|x) takes no part in it.

    .. math:: f_t(z) = p(z)\, p(x \mid z)^{b_t}, \quad
              \log w = \sum_{t=1}^{T} (b_t - b_{t-1}) \log p(x \mid z_{t-1}), \quad E\, w = p(x)

    with 0 = b_0 < ... < b_T = 1 sigmoidal, z_0 from the prior, and z_t from z_{t-1} by Hamiltonian dynamics of
    `leapfrog` steps that leave f_t as it is. Step sizes are adapted to each row and each t on chains of their own
    before, since a step that follows its chain would spoil E w = p(x). Like `log_likelihood` it is a lower bound in
    expectation; unlike it, it does not hang on how well q fits.

    Arguments: `steps` T, `chains` for each row. Time grows with steps * chains * leapfrog gradients of the decoder.
    Returns: values (n,) nats with their errors; `samples` counts the chains.
    Raises: TypeError for a code without density or within bounds, ValueError for a number below 1.
    References: Annealed importance sampling (Neal, 2001), equations 10 and 11; On the Quantitative Analysis of
    Decoder-Based Generative Models (Wu et al., 2017), arXiv:1611.04273, section 4 and appendix.

    Example:
        >>> from narrows.recipes import vae
        >>> model, _ = vae((8,), latent=2)
        >>> annealed_importance_sampling(model, torch.ones(3, 8), steps=10, chains=4).values.shape
        torch.Size([3])
    """
    if min(steps, chains, leapfrog) < 1:
        raise ValueError(
            f"annealing takes at least one step, chain and leapfrog step; got steps={steps}, chains={chains}, "
            f"leapfrog={leapfrog}"
        )
    width = math.prod(model.likelihood.wants)
    found = []
    with draws.seeded(seed, 14, 0):
        for batch in batches(model, data, max(1, min(256, BUDGET // (width * chains)))):
            refuse_unpriced(model, batch, "annealed importance sampling")
            bridge = _Bridge(model, batch, leapfrog)
            few, pilot = min(chains, 8), -(-steps // 4)
            _, sizes = bridge.walk(_schedule(pilot), few, None)
            every = torch.arange(1, steps + 1) * pilot // (steps + 1)  # the pilot's step nearest to each of the walk's
            log_w, _ = bridge.walk(_schedule(steps), chains, sizes[every])
            found.append(torch.stack([log_w.logsumexp(0), (2 * log_w).logsumexp(0)]).cpu())
    return Likelihood.of(torch.cat(found, 1), chains, f"annealed importance sampling, {steps} steps")


def _schedule(steps: int) -> list[float]:
    """b_0 ... b_T."""
    curve = torch.linspace(-SHARPNESS, SHARPNESS, steps + 1, dtype=torch.float64).sigmoid()
    return ((curve - curve[0]) / (curve[-1] - curve[0])).tolist()


class _Point(NamedTuple):
    """Where chains stand, and how steep it is there."""

    z: Tensor  # (C, B, D)
    prior: Tensor  # (C, B) log p(z)
    likelihood: Tensor  # (C, B) log p(x|z)
    prior_slope: Tensor  # (C, B, D)
    likelihood_slope: Tensor  # (C, B, D)

    def slope(self, b: float) -> Tensor:
        return self.prior_slope + b * self.likelihood_slope


class _Bridge:
    """Chains of one batch of rows between p(z) and p(z) p(x|z)."""

    def __init__(self, model: Model, batch: Batch, leapfrog: int) -> None:
        self.model, self.batch, self.leapfrog = model, batch, leapfrog

    def walk(self, schedule: list[float], chains: int, sizes: Tensor | None) -> tuple[Tensor, Tensor]:
        """Log weights (C, B) and step sizes (T, B): those given, or as they were adapted on the way."""
        context, rows = self.batch.context, len(self.batch.x)
        with torch.no_grad():
            start = self.model.draw(chains * rows, repeated(context, chains)).unflatten(0, (chains, rows))
            # the prior's own width in each unit is the unit of length
            spread = self.model.draw(256 * rows, repeated(context, 256)).unflatten(0, (256, rows)).std(0)
        scale = spread if context is not None else spread.mean(0, keepdim=True)  # (B or 1, D)
        at = self.at(start)
        log_w = torch.zeros_like(at.prior, dtype=torch.float64)
        size, used = torch.full_like(at.prior[0], 0.25), []  # (B,)
        for t, (before, b) in enumerate(pairwise(schedule)):
            log_w += (b - before) * at.likelihood.double()
            size = size if sizes is None else sizes[t]
            used.append(size)
            if sizes is None or t < len(sizes) - 1:  # where the last walk ends nobody asks
                at, accepted = self.move(at, b, size, scale)
                if sizes is None:
                    size = size * (0.5 * (accepted.mean(0) - ACCEPTED)).exp()
        return log_w, torch.stack(used)

    def move(self, at: _Point, b: float, size: Tensor, scale: Tensor) -> tuple[_Point, Tensor]:
        """One Hamiltonian transition at temperature 1/b, and the probability (C, B) with which it was accepted."""
        step = size[:, None] * scale  # (B, D)
        first = draws.normal(len(at.z), at.z[0])  # (C, B, D)
        new, momentum = at, first
        for _ in range(self.leapfrog):
            momentum = momentum + 0.5 * step * new.slope(b)
            new = self.at(new.z + step * momentum)
            momentum = momentum + 0.5 * step * new.slope(b)
        gain = new.prior - at.prior + b * (new.likelihood - at.likelihood)
        gain = gain + 0.5 * (first.square() - momentum.square()).sum(-1)
        accepted = torch.nan_to_num(gain, nan=-math.inf).clamp_max(0).exp()  # what left the numbers is refused
        moved = draws.uniform(len(at.z), at.prior[0]) < accepted
        both = zip(new, at, strict=True)
        return _Point(*(torch.where(moved if a.dim() == 2 else moved[..., None], a, o) for a, o in both)), accepted

    def at(self, z: Tensor) -> _Point:
        """Both log densities at z (C, B, D), and their slopes."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            prior = self.model.prior(self.batch.context).log_prob(z)  # type: ignore[misc]
            px = self.model.decode(z.flatten(0, 1), self.batch.context)
            target, seen = repeated(self.batch.target, len(z)), repeated(self.batch.seen, len(z))
            likelihood = log_prob(px, target, seen).unflatten(0, z.shape[:2])
            slopes = [torch.autograd.grad(t.sum(), z)[0] for t in (prior, likelihood)]
        return _Point(z.detach(), prior.detach(), likelihood.detach(), *slopes)
