"""A density for every row."""

from functools import partial
from typing import Any

from narrows.flows import IAF
from narrows.likelihoods import Bernoulli
from narrows.objectives import Objective
from narrows.objectives import iwae as importance_weighted
from narrows.posteriors import Concrete, Flow, Gaussian
from narrows.priors import Categorical, StandardNormal, VampPrior
from narrows.recipes.common import Common, Parts, recipe

__all__ = ["beta_vae", "concrete", "flow_vae", "iwae", "vae", "vampprior"]


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
