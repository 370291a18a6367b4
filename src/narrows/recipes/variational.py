"""A density for every row."""

import math
from functools import partial
from typing import Any

from narrows import objectives
from narrows.flows import IAF
from narrows.gradients import Piwae
from narrows.likelihoods import Bernoulli
from narrows.objectives import Objective
from narrows.objectives import iwae as importance_weighted
from narrows.posteriors import Concrete, Flow, Gaussian
from narrows.priors import Categorical, StandardNormal, VampPrior
from narrows.recipes.common import Common, Parts, recipe

__all__ = ["beta_vae", "ciwae", "concrete", "flow_vae", "iwae", "miwae", "piwae", "renyi", "vae", "vampprior"]


@recipe(likelihood=Bernoulli, prior=StandardNormal, posterior=Gaussian)
def vae(common: Common, **objective: Any) -> Parts:
    """Variational autoencoder: distortion + rate (Kingma & Welling 2013, arXiv:1312.6114)."""
    return common.model(common.density()), Objective(**objective)


@recipe(beta=4.0, likelihood=Bernoulli, prior=StandardNormal, posterior=Gaussian)
def beta_vae(common: Common, **objective: Any) -> Parts:
    """beta-VAE: distortion + beta * rate, beta = 4 (Higgins et al. 2017, ICLR, equation 4)."""
    return common.model(common.density()), Objective(**objective)


@recipe(likelihood=Bernoulli, prior=StandardNormal, posterior=Gaussian)
def iwae(common: Common, samples: int = 5, rate: str = "sampled", **objective: Any) -> Parts:
    """Importance-weighted autoencoder: the bound of 5 draws together (Burda et al. 2015, arXiv:1509.00519)."""
    own = Objective(bound=importance_weighted, samples=samples, rate=rate, **objective)
    return common.model(common.density()), own


def _groups(samples: int, groups: int | None) -> int:
    """Where nothing is said, the largest divisor up to the square root: 64 draws are 8 groups of 8."""
    most = math.isqrt(max(int(samples), 1))
    return next((m for m in range(most, 0, -1) if samples % m == 0), 1) if groups is None else groups


@recipe(likelihood=Bernoulli, prior=StandardNormal, posterior=Gaussian)
def miwae(
    common: Common, samples: int = 16, groups: int | None = None, rate: str = "sampled", **objective: Any
) -> Parts:
    """Mean of importance-weighted bounds: 4 groups of 4 draws (Rainforth et al. 2018, arXiv:1802.04537)."""
    bound = partial(objectives.miwae, groups=_groups(samples, groups))
    return common.model(common.density()), Objective(bound=bound, samples=samples, rate=rate, **objective)


@recipe(likelihood=Bernoulli, prior=StandardNormal, posterior=Gaussian)
def ciwae(common: Common, samples: int = 5, mix: float = 0.05, rate: str = "sampled", **objective: Any) -> Parts:
    """Combined bounds: 0.05 of the ELBO, the rest importance-weighted (Rainforth et al. 2018, arXiv:1802.04537)."""
    bound = partial(objectives.ciwae, mix=mix)
    return common.model(common.density()), Objective(bound=bound, samples=samples, rate=rate, **objective)


@recipe(likelihood=Bernoulli, prior=StandardNormal, posterior=Gaussian)
def piwae(
    common: Common, samples: int = 16, groups: int | None = None, rate: str = "sampled", **objective: Any
) -> Parts:
    """Partially importance-weighted: the encoder learns from miwae, the rest from iwae (Rainforth et al. 2018)."""
    gradient = Piwae(_groups(samples, groups))
    own = Objective(bound=importance_weighted, samples=samples, rate=rate, gradient=gradient, **objective)
    return common.model(common.density()), own


@recipe(likelihood=Bernoulli, prior=StandardNormal, posterior=Gaussian)
def renyi(common: Common, samples: int = 5, alpha: float = 0.5, rate: str = "sampled", **objective: Any) -> Parts:
    """Renyi's bound: between the ELBO (alpha = 1) and iwae (0) (Li & Turner 2016, arXiv:1602.02311)."""
    bound = partial(objectives.renyi, alpha=alpha)
    return common.model(common.density()), Objective(bound=bound, samples=samples, rate=rate, **objective)


@recipe(likelihood=Bernoulli, prior=StandardNormal, posterior=partial(Flow, flow=IAF))
def flow_vae(common: Common, **objective: Any) -> Parts:
    """VAE whose posterior is bent by an inverse autoregressive flow (Kingma et al. 2016, arXiv:1606.04934)."""
    return common.model(common.density()), Objective(**objective)


@recipe(likelihood=Bernoulli, prior=VampPrior, posterior=Gaussian)
def vampprior(common: Common, **objective: Any) -> Parts:
    """VAE whose prior mixes the posteriors of learned pseudo-inputs (Tomczak & Welling 2018, arXiv:1705.07120)."""
    return common.model(common.density()), Objective(**objective)


@recipe(likelihood=Bernoulli, prior=Categorical, posterior=Concrete)
def concrete(common: Common, **objective: Any) -> Parts:
    """VAE whose code is choices among classes, by Gumbel-softmax (Maddison et al. 2017, arXiv:1611.00712)."""
    return common.model(common.density()), Objective(**objective)
