"""The equation: loss = distortion + beta * rate + weight * discrepancy + penalty.

Here, and nowhere else, the evidence lower bound is computed and the mean over a batch is taken.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from narrows.contract import Batch, Code, Terms, repeated
from narrows.likelihoods import log_prob
from narrows.models import Autoencoder
from narrows.penalties import listed
from narrows.schedules import Schedule, as_schedule

__all__ = ["Objective", "elbo", "iwae", "log_weights"]

Bound = Callable[[Tensor, Tensor, Tensor | float], Tensor]


def elbo(distortion: Tensor, rate: Tensor, beta: Tensor | float = 1.0) -> Tensor:
    """Evidence lower bound (K, B) -> (B,) nats, averaged over K draws (Kingma & Welling 2013, equations 7 and 8)."""
    return -_average(distortion + beta * rate)


def _average(t: Tensor) -> Tensor:
    """Mean over the draws, (K, B) -> (B,)."""
    return t.squeeze(0) if len(t) == 1 else t.mean(0)


def iwae(distortion: Tensor, rate: Tensor, beta: Tensor | float = 1.0) -> Tensor:
    """Importance-weighted bound (K, B) -> (B,) nats, of K draws together (Burda et al. 2015, equation 8)."""
    log_w = -(distortion + beta * rate)
    return log_w.logsumexp(0) - math.log(len(log_w))


def log_weights(px: Distribution, code: Code, x: Tensor, seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Distortion -log p(x|z) and sampled rate log q(z|x) - log p(z) of every draw, each (S,) nats.

    Raises: TypeError where the code has no density.
    """
    scored = code.densities()
    if scored is None:
        raise TypeError(
            "importance weights and sampled rates need the density q(z|x), and a deterministic code has none. "
            "Use recipe vae or iwae, or a posterior such as Gaussian(StandardNormal(latent))"
        )
    samples = len(code.z) // len(x)
    return -log_prob(px, repeated(x, samples), repeated(seen, samples)), scored[0] - scored[1]


class Objective(nn.Module):
    r"""What is minimised, and what is claimed.

    .. math:: \text{loss} = \frac1B \sum_x \Big( -\log p(x \mid z) + \beta\, \text{rate}(x) + \text{penalty}(x) \Big)
              + w\, D(q(z), p(z))

    A model with a corruption is shown corrupted rows, and scored on the clean ones.

    Arguments:
        beta: weight of the rate; a number or a schedule.
        bound: `elbo`, or `iwae` for the importance-weighted bound of `samples` draws.
        samples: draws of the code per row, K.
        rate: "closed" for KL in closed form, "sampled" for log q - log p of the draws. Identities between bounds hold
            per draw only for "sampled", and `iwae` needs it.
        free_bits: each unit's rate, averaged over the batch, costs nothing below this many nats (Kingma et al. 2016,
            arXiv:1606.04934, equation 15 with one group per unit).
        capacity: nats, a number or a schedule; the rate's term becomes beta * \|mean rate - capacity\| (Burgess et al.
            2018, arXiv:1804.03599, equation 8, with beta as its gamma).
        discrepancy: D(q(z), p(z)) between the codes of a batch and as many draws from the prior, a module of
            `divergences` with its weight; a critic in it learns in the same step.
        penalty: a module of `penalties`, or several.

    Raises: ValueError for a weight that is negative or combinations that mean nothing.

    Example:
        >>> from narrows.recipes import vae
        >>> model, objective = vae((8,), latent=2)
        >>> objective(model, Batch.of(torch.zeros(3, 8))).bound.shape
        torch.Size([3])
    """

    def __init__(
        self,
        beta: float | Schedule = 1.0,
        bound: Bound = elbo,
        samples: int = 1,
        rate: str = "closed",
        free_bits: float = 0.0,
        capacity: float | Schedule | None = None,
        discrepancy: nn.Module | None = None,
        penalty: nn.Module | Iterable[nn.Module] | None = None,
    ) -> None:
        super().__init__()
        if rate not in ("closed", "sampled"):
            raise ValueError(f'rate is "closed" or "sampled"; got {rate!r}')
        if bound is iwae and rate == "closed":
            raise ValueError('the importance-weighted bound weighs single draws: it needs rate="sampled"')
        if samples != int(samples) or samples < 1 or not 0 <= free_bits < math.inf:
            raise ValueError(
                f"samples is at least 1 and whole, free_bits at least 0 nats; got samples={samples}, "
                f"free_bits={free_bits}"
            )
        self.beta = as_schedule(beta, "beta")
        self.bound, self.samples, self.rate, self.free_bits = bound, samples, rate, free_bits
        self.capacity = None if capacity is None else as_schedule(capacity, "capacity")
        self.discrepancy: Any = discrepancy
        self.penalty = nn.ModuleList(listed(penalty))

    @property
    def equation(self) -> str:
        """Its setting of the one equation, in words: what stands before each term at the end of training."""
        text = "distortion" if self.bound is elbo else f"{self.bound.__name__} of {self.samples} draws: distortion"
        beta = self.beta(None)
        if self.capacity:
            text += f" + {beta:g} x |rate - {self.capacity(None):g}|"
        elif beta:
            text += " + rate" if beta == 1 else f" + {beta:g} x rate"
        if self.discrepancy is not None:
            game = getattr(self.discrepancy, "game", self.discrepancy)
            text += f" + {self.discrepancy.weight:g} x {type(game).__name__}"
        return text + "".join(f" + {type(part).__name__}" for part in self.penalty)

    @property
    def settled(self) -> int:
        """The step from which every weight stands at its final value."""
        return max(self.beta.steps, self.capacity.steps if self.capacity else 0)

    def check(self, model: Autoencoder) -> None:
        """Raises ValueError where model and objective have no optimum together."""
        if getattr(model.likelihood, "learn", None) and not self.beta(None):
            raise ValueError(
                "with beta = 0 nothing keeps a learned sigma from shrinking to 0 as the reconstructions improve, and "
                "the likelihood has no optimum. Wrong: Gaussian(shape, learn=...) with beta=0; right: Gaussian(shape, "
                "sigma=1.0) with a fixed sigma, or beta > 0"
            )
        if self.discrepancy is not None and model.prior is None:
            raise TypeError(
                "a discrepancy compares codes with draws from a prior, and this model has none. Use recipe aae, "
                "wae_mmd or swae, or Deterministic(latent, prior=StandardNormal(latent))"
            )
        if not model.density and (self.rate == "sampled" or self.beta(None) or self.free_bits or self.capacity):
            raise TypeError(
                "a deterministic code has no density, so no rate to weigh or sample. Use beta=0 and the closed "
                "rate (recipe autoencoder), or a posterior with a density (recipes vae, iwae)"
            )

        if self.rate == "sampled" and getattr(model.posterior, "relaxed", False):
            raise TypeError(
                "a relaxed draw is no draw from q, and through a choice no gradient of log q - log p passes. Wrong: "
                'Concrete codes with rate="sampled"; right: rate="closed", the KL between categoricals'
            )

    def forward(self, model: Autoencoder, batch: Batch) -> Terms:
        """Terms of one batch; x (B, *event) -> bound, distortion, rate, penalty (B,) nats."""
        if model.corruption is not None:
            batch = batch._replace(x=model.corruption(batch.x))
        found = px, code = model(batch.x, batch.context, self.samples)
        if self.rate == "sampled":
            distortion, rate = log_weights(px, code, batch.target, batch.seen)  # (S,) each
        else:
            target, seen = repeated(batch.target, self.samples), repeated(batch.seen, self.samples)
            distortion, rate = -log_prob(px, target, seen), code.rate  # (S,) each
        penalty = code.penalty
        for part in self.penalty:
            penalty = penalty + part(model, batch, found)  # (S,)
        distortion, rate, penalty = (t.view(self.samples, -1) for t in (distortion, rate, penalty))
        beta = self.beta(batch.step)
        weight = 1.0 if self.capacity else beta
        value, penalty = self.bound(distortion, rate, weight), _average(penalty)  # (B,) each
        loss = (penalty - value).mean()  # the one mean over the batch; two of its neighbours belong to it:
        if self.free_bits:
            # max(r, free) = r + relu(free - r), so the same line serves every bound
            loss = loss + beta * torch.relu(self.free_bits - code.rates.mean(0)).sum()
        if self.capacity:  # the bound's own rate gives way to its distance from the capacity
            mean = rate.mean()
            loss = loss - mean + beta * (mean - self.capacity(batch.step)).abs()
        if not (isinstance(weight, float) and weight == 1.0):  # what is claimed stands at beta = 1
            value = self.bound(distortion.detach(), rate.detach(), 1.0)
        gap = loss.new_zeros(())
        # a last held-out batch may be too small to say anything; in training such batches are refused
        if self.discrepancy is not None and len(code.z) >= getattr(self.discrepancy, "least", 1):
            real = model.draw(len(code.z), repeated(batch.context, self.samples))  # (S, D)
            found_gap = self.discrepancy(code, real, batch)
            gap, loss = found_gap.value, loss + self.discrepancy.weight * found_gap.model + found_gap.critic
        return Terms(loss, value.detach(), _average(distortion), _average(rate), penalty, gap)
