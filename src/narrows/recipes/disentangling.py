"""Codes whose units are to mean one thing each: the rate, and more of one part of it."""

from typing import Any

from narrows.divergences import MMD, Adversarial, Covariance, LogRatio, TotalCorrelation
from narrows.likelihoods import Bernoulli
from narrows.objectives import Objective
from narrows.posteriors import Gaussian
from narrows.priors import StandardNormal
from narrows.recipes.common import Common, Parts, recipe
from narrows.schedules import Schedule, WarmUp

__all__ = ["annealed_vae", "beta_tc_vae", "dip_vae", "factor_vae", "infovae"]


# the paper's 1000 outweighs the distortion so far that the rate is spent on a mean which all rows share
@recipe(beta=30.0, likelihood=Bernoulli, prior=StandardNormal, posterior=Gaussian)
def annealed_vae(
    common: Common,
    capacity: float | Schedule | None = None,  # to 2.5 nats a unit (25 for ten, as in the paper) over 2,000 steps
    **objective: Any,
) -> Parts:
    """Annealed VAE: the rate is held to a capacity that grows (Burgess et al. 2018, arXiv:1804.03599)."""
    capacity = WarmUp(2000, final=2.5 * common.latent) if capacity is None else capacity
    return common.model(common.density()), Objective(capacity=capacity, **objective)


@recipe(likelihood=Bernoulli, prior=StandardNormal, posterior=Gaussian)
def beta_tc_vae(common: Common, weight: float = 5.0, **objective: Any) -> Parts:
    """beta-TC-VAE: the rate and more of its total correlation, beta - 1 = 5 (Chen et al. 2018, arXiv:1802.04942)."""
    return common.model(common.density()), Objective(discrepancy=TotalCorrelation(weight), **objective)


@recipe(likelihood=Bernoulli, prior=StandardNormal, posterior=Gaussian)
def dip_vae(
    common: Common,
    variant: int = 1,
    lambda_od: float = 10.0,
    lambda_d: float | None = None,  # 10 lambda_od for variant 1, lambda_od for 2, as in the paper
    **objective: Any,
) -> Parts:
    """DIP-VAE I and II: the covariance of the codes is held to the prior's (Kumar et al. 2018, arXiv:1711.00848)."""
    if variant not in (1, 2) or not lambda_od > 0:
        raise ValueError(f"variant is 1 or 2, lambda_od positive; got variant={variant}, lambda_od={lambda_od}")
    usual = 10.0 if variant == 1 else 1.0
    diagonal = usual if lambda_d is None else lambda_d / lambda_od
    gap = Covariance(lambda_od, diagonal, "means" if variant == 1 else "codes")
    return common.model(common.density()), Objective(discrepancy=gap, **objective)


@recipe(likelihood=Bernoulli, prior=StandardNormal, posterior=Gaussian)
def factor_vae(common: Common, weight: float = 10.0, **objective: Any) -> Parts:
    """FactorVAE: a critic tells codes from codes with shuffled columns (Kim & Mnih 2018, arXiv:1802.05983)."""
    critic = Adversarial(common.latent, LogRatio(), weight, pair="permuted")
    return common.model(common.density()), Objective(discrepancy=critic, **objective)


@recipe(likelihood=Bernoulli, prior=StandardNormal, posterior=Gaussian)
def infovae(
    common: Common,
    alpha: float = 0.0,
    lambda_: float | None = None,  # so much that the distance weighs 0.13 for each value of a row, as in wae_mmd
    kernel: str = "imq",
    **objective: Any,
) -> Parts:
    """InfoVAE: (1 - alpha) rate + (alpha + lambda - 1) MMD of the codes (Zhao et al. 2017, arXiv:1706.02262)."""
    if "beta" in objective and alpha:
        raise ValueError("infovae's rate weighs 1 - alpha: give alpha or beta, not both")
    weight = 0.13 * common.values if lambda_ is None else alpha + lambda_ - 1
    if not alpha <= 1 or not weight >= 0:
        raise ValueError(
            f"rate and distance weigh 1 - alpha and alpha + lambda - 1, both at least 0; got alpha={alpha}, "
            f"lambda_={lambda_}. Take alpha of at most 1 and lambda_ of at least 1 - alpha"
        )
    return common.model(common.density()), Objective(discrepancy=MMD(weight, kernel), **{"beta": 1 - alpha} | objective)
