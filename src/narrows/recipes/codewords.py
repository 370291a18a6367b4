"""Codes of codewords."""

import math
from typing import Any

from narrows.likelihoods import Bernoulli
from narrows.objectives import Objective
from narrows.posteriors import FSQ, Quantised, QuantisedRungs
from narrows.priors import Codewords
from narrows.recipes.common import Common, Parts, Shape, recipe

__all__ = ["fsq", "vqvae", "vqvae2"]


@recipe(latent=64, likelihood=Bernoulli, prior=Codewords, posterior=Quantised)
def vqvae(
    common: Common,
    grid: Shape | None = None,
    codebook: int | None = None,
    commitment: float = 0.25,
    decay: float | None = 0.99,
    levels: int = 1,
    groups: int = 1,
    **objective: Any,
) -> Parts:
    """VQ-VAE: each vector of the code is one of a codebook of 512 (van den Oord et al. 2017, arXiv:1711.00937)."""
    several = () if levels * groups == 1 else (levels * groups,)
    prior = common.codewords((*(grid or (1,)), *several), 512 if codebook is None else codebook)
    posterior: Any = common.posterior
    return common.model(posterior(prior, common.latent, commitment, decay, levels, groups)), Objective(**objective)


@recipe(latent=64, likelihood=Bernoulli, prior=Codewords, posterior=QuantisedRungs)
def vqvae2(
    common: Common,
    grid: tuple[Shape, ...] | None = None,
    codebook: int | None = None,
    commitment: float = 0.25,
    decay: float | None = 0.99,
    **objective: Any,
) -> Parts:
    """VQ-VAE-2: codewords on several grids, the coarse told to the fine (Razavi et al. 2019, arXiv:1906.00446)."""
    prior = common.codewords(grid or ((1,), (2,)), 512 if codebook is None else codebook)
    posterior: Any = common.posterior
    return common.model(posterior(prior, common.latent, commitment, decay)), Objective(**objective)


@recipe(latent=4, likelihood=Bernoulli, prior=Codewords)
def fsq(common: Common, grid: Shape | None = None, levels: Shape | int | None = None, **objective: Any) -> Parts:
    """Finite scalar quantisation: units rounded to 8, 5, 5, ... values (Mentzer et al. 2023, arXiv:2309.15505)."""
    standard = (8, *[5] * (common.latent - 1)) if levels is None else levels
    levels = (standard,) * common.latent if isinstance(standard, int) else tuple(standard)
    if common.latent < 1 or len(levels) != common.latent:
        raise ValueError(f"a code needs at least one unit; got latent={common.latent}, for levels={standard} of units")
    posterior = FSQ(common.codewords(grid or (1,), math.prod(levels)), levels)
    return common.model(posterior), Objective(**objective)
