"""The equation: loss = distortion + beta * rate + weight * discrepancy + penalty.

Here, and nowhere else, the evidence lower bound is computed and the mean over a batch is taken.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from narrows.contract import Batch, Code, Pass, Terms, repeated
from narrows.labels import LabelledGaussian, summed
from narrows.likelihoods import log_prob
from narrows.models import Ladder, Model
from narrows.penalties import listed
from narrows.schedules import Schedule, as_schedule

__all__ = ["Draws", "Objective", "ciwae", "elbo", "iwae", "log_weights", "miwae", "renyi"]

Bound = Callable[[Tensor, Tensor, Tensor | float], Tensor]


def elbo(distortion: Tensor, rate: Tensor, beta: Tensor | float = 1.0) -> Tensor:
    """Evidence lower bound (K, B) -> (B,) nats, averaged over K draws (Kingma & Welling 2013, equations 7 and 8)."""
    return -_average(distortion + beta * rate)


def _average(t: Tensor) -> Tensor:
    """Mean over the draws, (K, B, ...) -> (B, ...)."""
    return t.squeeze(0) if len(t) == 1 else t.mean(0)


def iwae(distortion: Tensor, rate: Tensor, beta: Tensor | float = 1.0) -> Tensor:
    """Importance-weighted bound (K, B) -> (B,) nats, of K draws together (Burda et al. 2015, equation 8)."""
    log_w = -(distortion + beta * rate)
    return log_w.logsumexp(0) - math.log(len(log_w))


def miwae(distortion: Tensor, rate: Tensor, beta: Tensor | float = 1.0, groups: int = 1) -> Tensor:
    """Mean of the importance-weighted bounds of `groups` groups of K / groups draws, (K, B) -> (B,) nats.

    One group is `iwae`, as many groups as draws is `elbo` (Rainforth et al. 2018, arXiv:1802.04537, section 5).

    Raises: ValueError where the draws do not make that many equal groups.

    Example:
        >>> distortion, rate = torch.tensor([[1.0], [2.0], [3.0], [6.0]]), torch.zeros(4, 1)
        >>> bounds = [miwae(distortion, rate, groups=groups) for groups in (1, 2, 4)]
        >>> [round(float(bound), 4) for bound in bounds]  # iwae, two groups, elbo
        [-1.9742, -2.5122, -3.0]
    """
    if groups != int(groups) or groups < 1 or len(distortion) % groups:
        raise ValueError(
            f"miwae takes as many groups as divide its draws; got groups={groups} for {len(distortion)} draws"
        )
    distortion, rate = (t.unflatten(0, (groups, -1)).transpose(0, 1) for t in (distortion, rate))  # (K / M, M, B)
    return _average(iwae(distortion, rate, beta))


def ciwae(distortion: Tensor, rate: Tensor, beta: Tensor | float = 1.0, mix: float = 0.05) -> Tensor:
    """A mixture of two bounds of the same draws, mix `elbo` + (1 - mix) `iwae`, (K, B) -> (B,) nats.

    The share of the ELBO keeps a signal in the encoder's gradient, whatever K (Rainforth et al. 2018,
    arXiv:1802.04537, section 5, with `mix` as its beta).

    Raises: ValueError for a share outside 0 to 1.
    """
    if not 0 <= mix <= 1:
        raise ValueError(f"mix is the share of the ELBO, from 0 (iwae) to 1 (elbo); got mix={mix}")
    return mix * elbo(distortion, rate, beta) + (1 - mix) * iwae(distortion, rate, beta)


def renyi(distortion: Tensor, rate: Tensor, beta: Tensor | float = 1.0, alpha: float = 0.5) -> Tensor:
    r"""Renyi's variational bound (K, B) -> (B,) nats: `elbo` at alpha = 1, `iwae` at alpha = 0.

    .. math:: \frac{1}{1 - \alpha} \log \frac1K \sum_k w_k^{1 - \alpha}, \quad
              w_k = \frac{p(x \mid z_k)\, p(z_k)}{q(z_k \mid x)}

    It falls as alpha grows; the more draws, the closer to the divergence it is named after.

    Raises: ValueError for alpha < 0, which bounds log p(x) from above.
    Reference: Renyi Divergence Variational Inference (Li & Turner, 2016), arXiv:1602.02311, section 4.1.
    """
    if not 0 <= alpha < math.inf:
        raise ValueError(f"alpha is a number of at least 0: below, this is no lower bound; got alpha={alpha}")
    if alpha == 1:
        return elbo(distortion, rate, beta)
    log_w, power = -(distortion + beta * rate), 1 - alpha
    # log mean exp as log1p mean expm1: no digits are lost near alpha = 1, where both sides of a quotient vanish; from
    # the largest term of the sum, so that none overflows
    top = (log_w.detach().amax(0) if power > 0 else log_w.detach().amin(0)).nan_to_num()
    return top + (power * (log_w - top)).expm1().mean(0).log1p() / power


WEIGHTED = (iwae, miwae, ciwae, renyi)  # which weigh single draws


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


class Draws(NamedTuple):
    """The K draws of a batch as a bound sees them: what `gradients` differentiate."""

    px: Distribution  # p(x|z), batch (S,)
    code: Code
    distortion: Tensor  # (K, B)
    rate: Tensor  # (K, B)
    beta: Tensor | float

    @property
    def log_w(self) -> Tensor:
        """Log-weights (K, B), those of importance sampling at beta = 1."""
        return -(self.distortion + self.beta * self.rate)

    @property
    def log_q(self) -> Tensor:
        """Log q(z|x) (K, B), where the code was read with it."""
        return self.code.log_q.view_as(self.rate)  # type: ignore[union-attr]


def _name(bound: Bound) -> str:
    """miwae(groups=3) for partial(miwae, groups=3)."""
    arguments = ", ".join(f"{name}={value}" for name, value in getattr(bound, "keywords", {}).items())
    return getattr(bound, "func", bound).__name__ + (f"({arguments})" if arguments else "")


class Objective(nn.Module):
    r"""What is minimised, and what is claimed.

    .. math:: \text{loss} = \frac1B \sum_x \Big( -\log p(x \mid z) + \beta\, \text{rate}(x) + \text{penalty}(x) \Big)
              + w\, D(q(z), p(z))

    A model with a corruption is shown corrupted rows, and scored on the clean ones.

    Arguments:
        beta: weight of the rate; a number or a schedule.
        bound: `elbo`, or `iwae` for the importance-weighted bound of `samples` draws; `miwae`, `ciwae`, `renyi` with
            arguments of their own, as in `partial(renyi, alpha=0.5)`.
        samples: draws of the code per row, K.
        rate: "closed" for KL in closed form, "sampled" for log q - log p of the draws. Identities between bounds hold
            per draw only for "sampled", and every bound but `elbo` needs it.
        free_bits: each unit's rate, averaged over the batch, costs nothing below this many nats (Kingma et al. 2016,
            arXiv:1606.04934, equation 15 with one group per unit); the total, where only that is known; of a `Ladder`
            each rung's, so that no rung collapses and no unit is paid for being idle.
        capacity: nats, a number or a schedule; the rate's term becomes beta * \|mean rate - capacity\| (Burgess et al.
            2018, arXiv:1804.03599, equation 8, with beta as its gamma).
        discrepancy: D(q(z), p(z)) between the codes of a batch and as many draws from the prior, a module of
            `divergences` with its weight; a critic in it learns in the same step.
        penalty: a module of `penalties`, or several.
        gradient: how the bound is differentiated, a module of `gradients`; None for the reparameterisation trick. The
            value of loss and bound does not depend on it.

    Raises: ValueError for a weight that is negative or combinations that mean nothing.

    Example:
        >>> from narrows.recipes import vae
        >>> model, objective = vae((8,), latent=2)
        >>> objective(model, Batch.of(torch.zeros(3, 8))).bound.shape
        torch.Size([3])
    """

    trim = 0.0  # share of a training batch, its rows of the greatest loss, that teaches nothing: see `Training.trim`

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
        gradient: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if rate not in ("closed", "sampled"):
            raise ValueError(f'rate is "closed" or "sampled"; got {rate!r}')
        if getattr(bound, "func", bound) in WEIGHTED and rate == "closed":
            raise ValueError(f'the bound {_name(bound)} weighs single draws: it needs rate="sampled"')
        if samples != int(samples) or samples < 1 or not 0 <= free_bits < math.inf:
            raise ValueError(
                f"samples is at least 1 and whole, free_bits at least 0 nats; got samples={samples}, "
                f"free_bits={free_bits}"
            )
        self.beta = as_schedule(beta, "beta")
        self.bound, self.samples, self.rate, self.free_bits = bound, int(samples), rate, free_bits
        self.capacity = None if capacity is None else as_schedule(capacity, "capacity")
        self.discrepancy: Any = discrepancy
        self.penalty = nn.ModuleList(listed(penalty))
        self.gradient: Any = gradient
        nothing = torch.zeros(self.samples, 1)
        bound(nothing, nothing, 1.0)  # what its arguments do not admit it says now
        if self.capacity and getattr(bound, "func", bound) in WEIGHTED:
            raise ValueError(
                f"a capacity takes the rate out of the bound, and {_name(bound)} has it inside: use bound=elbo, or "
                "leave the capacity out"
            )
        if gradient is not None:
            gradient.check(self)  # type: ignore[operator]

    @property
    def equation(self) -> str:
        """Its setting of the one equation, in words: what stands before each term at the end of training."""
        text = "distortion" if self.bound is elbo else f"{_name(self.bound)} of {self.samples} draws: distortion"
        beta = self.beta(None)
        if self.capacity:
            text += f" + {beta:g} x |rate - {self.capacity(None):g}|"
        elif beta:
            text += " + rate" if beta == 1 else f" + {beta:g} x rate"
        if self.discrepancy is not None:
            game = getattr(self.discrepancy, "game", self.discrepancy)
            text += f" + {self.discrepancy.weight:g} x {type(game).__name__}"
        text += "".join(f" + {type(part).__name__}" for part in self.penalty)
        if self.gradient is not None:
            text += f", differentiated by {type(self.gradient).__name__}({self.gradient.extra_repr()})"
        return text

    @property
    def settled(self) -> int:
        """The step from which every weight stands at its final value."""
        return max(self.beta.steps, self.capacity.steps if self.capacity else 0)

    def check(self, model: Model) -> None:
        """Raises ValueError where model and objective have no optimum together."""
        if getattr(model.likelihood, "learn", None) and not self.beta(None):
            raise ValueError(
                "with beta = 0 nothing keeps a learned sigma from shrinking to 0 as the reconstructions improve, and "
                f"the likelihood has no optimum. Wrong: {type(model.likelihood).__name__}(shape, learn=...) with "
                "beta=0; right: a sigma that is fixed, learn=None, or beta > 0"
            )
        if self.discrepancy is not None and model.prior is None:
            raise TypeError(
                "a discrepancy compares codes with draws from a prior, and this model has none. Use recipe aae, "
                "wae_mmd or swae, or Deterministic(latent, prior=StandardNormal(latent))"
            )
        learns = any(p.requires_grad for p in getattr(model.prior, "parameters", tuple)())
        if learns and not self.beta(None) and (self.discrepancy is not None or not hasattr(model.prior, "fit")):
            raise TypeError(
                f"nothing teaches {type(model.prior).__name__}: with beta = 0 its codes have no rate, and draws for a "
                "discrepancy carry no gradient. Use a prior that is fixed, such as StandardNormal, or beta > 0"
            )
        if getattr(self.discrepancy, "pair", None) == "permuted" and getattr(model.prior, "discrete", False):
            raise TypeError(
                "columns of a one-hot code that are shuffled one by one make no code: a critic of permuted codes is "
                "for codes of numbers. Use recipe vae or factor_vae with a Gaussian posterior"
            )
        sampled = self.rate == "sampled" or getattr(self.gradient, "scores", False)
        if not model.density and (sampled or self.beta(None) or self.free_bits or self.capacity):
            raise TypeError(
                "a deterministic code has no density, so no rate to weigh or sample. Use beta=0 and the closed "
                "rate (recipe autoencoder), or a posterior with a density (recipes vae, iwae)"
            )
        if model.density and not model.weighed and (sampled or self.gradient is not None):
            raise TypeError(
                "a diffusion prices a row by steps that are drawn: a lower bound, estimated, with which no single draw "
                'can be weighed or differentiated in another way. Wrong: rate="sampled", bound=iwae or a gradient of '
                'its own; right: bound=elbo with rate="closed", as recipe diffusion has it'
            )
        if sampled and getattr(model.posterior, "relaxed", False):
            raise TypeError(
                "a relaxed draw is no draw from q, and through a choice no gradient of log q - log p passes. Wrong: "
                'Concrete codes with rate="sampled" or a score function; right: rate="closed", the KL between '
                "categoricals, or Concrete(prior, temperature=None), whose draws are choices"
            )
        if not getattr(model.posterior, "relaxed", True) and getattr(self.gradient, "slopes", True):
            raise TypeError(
                "a draw that is a choice has no slope, so the encoder would not learn what the decoder makes of it. "
                "Wrong: Concrete(prior, temperature=None) with a gradient along the draws; right: "
                "gradient=ScoreFunction() or Vimco(), or a temperature"
            )
        if (self.free_bits or self.capacity) and not self.beta(None):
            raise ValueError(
                "free_bits and capacity say how much rate is free, and with beta = 0 all of it is: they would change "
                "nothing. Use beta > 0, or leave them out"
            )
        if getattr(model.posterior, "certain", False):
            self._check_certain(sampled)
        self._check_free_bits(model)
        plain = self.bound is elbo and self.rate == "closed" and self.gradient is self.discrepancy is None
        if isinstance(model.posterior, LabelledGaussian) and not plain:
            raise ValueError(
                "a code with a label is summed over its classes, which takes the ELBO with the closed rate, its plain "
                "gradient and no discrepancy: leave bound, rate, gradient and discrepancy at their standard values "
                "(recipe semi_supervised)"
            )

    def _check_certain(self, sampled: bool) -> None:
        """Raises where draws of a code that is one point are weighed, or its rate shaped."""
        if sampled:
            raise TypeError(
                "q(z|x) of codewords is one code: its draws are all the same, and a bound or a gradient that weighs "
                f"them has nothing to weigh. Wrong: {_name(self.bound)} with rate={self.rate!r} and "
                f"gradient={type(self.gradient).__name__}; right: elbo with the closed rate and no gradient of its own "
                "(recipes vqvae, fsq)"
            )
        if self.free_bits or self.capacity:
            raise ValueError(
                "a codeword costs -log p(index) whatever the encoder does: there is no rate that could be made free. "
                "Leave free_bits and capacity out, and take a smaller codebook or grid for a smaller rate"
            )

    def _check_free_bits(self, model: Model) -> None:
        """Raises ValueError where more is free than a unit of the code can cost, or than a row can tell."""
        unit = getattr(model.posterior, "most", math.inf)  # nats that a unit can carry at most: log k for one of k
        if self.free_bits >= unit:
            raise ValueError(
                f"free_bits={self.free_bits:g} nats for each unit of a code whose units carry at most {unit:.4g} frees "
                f"all of the rate, as beta = 0 would; take less than {unit:.4g}, such as free_bits={unit / 10:.2g}"
            )
        two = 2 if model.likelihood.support is constraints.boolean else math.inf
        row = math.prod(model.shape) * math.log(getattr(model.likelihood, "levels", two))  # nats, equally likely values
        units = getattr(model.posterior, "groups", model.latent)  # whose rates are known apart
        units, what = (len(model.rungs), "rungs") if isinstance(model, Ladder) else (units, "units")
        if self.free_bits and self.free_bits * units >= row:
            raise ValueError(
                f"free_bits={self.free_bits:g} nats for each of {units} {what} frees more than a row of x can "
                f"tell, {row:.4g} nats at most, so no rate would ever cost anything; take less than "
                f"{row / units:.4g}"
            )

    def score(self, found: Pass, batch: Batch) -> tuple[Tensor, Tensor]:
        """Distortion and rate of every draw of a pass, (S,) nats each."""
        if self.rate == "sampled":
            return log_weights(*found, batch.target, batch.seen)
        target, seen = repeated(batch.target, self.samples), repeated(batch.seen, self.samples)
        return -log_prob(found.px, target, seen), found.code.rate

    def forward(self, model: Model, batch: Batch) -> Terms:
        """Terms of one batch; x (B, *event) -> bound, distortion, rate, penalty (B,) nats."""
        if model.corruption is not None:
            batch = batch._replace(x=model.corruption(batch.x))
        if isinstance(model.posterior, LabelledGaussian):  # its classes are summed over, not drawn
            found, distortion = summed(model, batch, self.samples)
            rate = found.code.rate  # (S,)
        else:
            if self.gradient is None:
                found = scored = model(batch.x, batch.context, self.samples)
            else:  # the same numbers, scored where an estimator wants another gradient
                found, scored = self.gradient.passes(model, batch, self.samples)
            distortion, rate = self.score(scored, batch)  # (S,) each
        code, penalty = found.code, found.code.penalty
        for part in self.penalty:
            penalty = penalty + part(model, batch, found)  # (S,)
        distortion, rate, penalty = (t.view(self.samples, -1) for t in (distortion, rate, penalty))
        beta = self.beta(batch.step)
        weight = 1.0 if self.capacity else beta
        if self.gradient is None:
            value = self.bound(distortion, rate, weight)  # (B,)
        else:
            value = self.gradient(self, model, batch, Draws(scored.px, scored.code, distortion, rate, weight))
        penalty = _average(penalty)  # (B,)
        each = penalty - value  # (B,)
        if self.trim and self.training:
            each = each.topk(len(each) - int(self.trim * len(each)), largest=False).values
        loss = each.mean()  # the one mean over the batch; two of its neighbours belong to it:
        if self.free_bits:
            # max(r, free) = r + relu(free - r), so the same line serves every bound
            rates = code.rates.mean(0)  # (G,)
            rates = model.by_rung(rates) if isinstance(model, Ladder) else rates
            loss = loss + beta * torch.relu(self.free_bits - rates).sum()
        if self.capacity:  # the bound's own rate gives way to its distance from the capacity
            mean = rate.mean()
            loss = loss - mean + beta * (mean - self.capacity(batch.step)).abs()
        if not (isinstance(weight, float) and weight == 1.0):  # what is claimed stands at beta = 1
            value = self.bound(distortion.detach(), rate.detach(), 1.0)
        gap = loss.new_zeros(())
        # a last held-out batch may be too small to say anything; in training such batches are refused
        if self.discrepancy is not None and len(code.z) >= getattr(self.discrepancy, "least", 1):
            real = code.z
            if getattr(self.discrepancy, "prior_draws", True):
                real = model.draw(len(code.z), repeated(batch.context, self.samples))  # (S, D)
            found_gap = self.discrepancy(code, real, batch)
            gap, loss = found_gap.value, loss + self.discrepancy.weight * found_gap.model + found_gap.critic
        rungs = None
        if isinstance(model, Ladder):
            rungs = _average(model.by_rung(code.rates.detach()).unflatten(0, (self.samples, -1)))  # (B, L)
        return Terms(loss, value.detach(), _average(distortion), _average(rate), penalty, gap, rungs)
