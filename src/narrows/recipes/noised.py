"""Inference that is fixed: noise, and a network that takes it away."""

import math
from typing import Any

from narrows.diffusion import Diffusion, Scaled, bounded
from narrows.likelihoods import DiscretisedLogistic, Likelihood
from narrows.networks import Residual
from narrows.noise import FEATURES
from narrows.objectives import Objective
from narrows.penalties import Denoising
from narrows.posteriors import Noised
from narrows.priors import StandardNormal
from narrows.recipes.common import Common, Parts, recipe

__all__ = ["diffusion"]


def _first(likelihood: Likelihood) -> float:
    """-log(signal / noise) of the first copy: levels one standard deviation from where they are mistaken, two three.

    Copies that tell levels apart are paid for by a network that has learned which values there are, a third of a bit a
    value on digits (2.55 against 2.23 bits/dim after 60 epochs); the likelihood knows them from the start.
    """
    levels = getattr(likelihood, "levels", 2)
    return -2 * math.log((3 if levels == 2 else 1) * (levels - 1)) if bounded(likelihood) else -10.0


def _row(common: Common) -> int:
    """Units of the code, which is as large as a row. Raises ValueError where another number is asked for."""
    latent = common.values if common.latent is None else common.latent
    if latent != common.values and latent > 0:
        raise ValueError(
            f"the code of a diffusion is a noised row, with a unit for each of its {common.values} values: leave "
            f"latent away; got latent={latent}"
        )
    return latent


@recipe(latent=None, likelihood=DiscretisedLogistic, network=Residual, prior=StandardNormal)
def diffusion(common: Common, steps: int = 1000, jumps: int = 12, simple: float = 1.0, **objective: Any) -> Parts:
    """Diffusion: noise taken away step by step (Ho et al. 2020, arXiv:2006.11239; Kingma et al. 2021)."""
    p, shape = common.likelihood(common.shape), common.shape
    posterior = Noised((common.prior or StandardNormal)(_row(common)), steps, _first(p), jumps=jumps)
    denoiser = common.network(shape, shape, FEATURES + common.context)
    penalty = Denoising(simple) if simple else None
    model = Diffusion(Scaled(shape, bounded(p)), posterior, denoiser, p, common.context)
    return model, Objective(penalty=penalty, **objective)
