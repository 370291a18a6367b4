"""Codes of several rungs."""

from typing import Any

from narrows.likelihoods import Bernoulli, LogisticMixture
from narrows.networks import Cells
from narrows.objectives import Objective
from narrows.posteriors import BottomUp, PrecisionWeighted, ResidualNormal
from narrows.priors import Maps, Rungs
from narrows.recipes.common import Common, Parts, recipe
from narrows.schedules import WarmUp

__all__ = ["conv_ladder", "hvae", "ladder"]


@recipe(beta=WarmUp(500), latent=4, likelihood=LogisticMixture, network=Cells, prior=Maps, posterior=ResidualNormal)
def conv_ladder(
    common: Common,
    rungs: int | tuple[int, ...] = 4,
    patch: int = 2,
    width: int = 32,
    free_bits: float = 0.001,
    **objective: Any,
) -> Parts:
    """Ladder of maps for images: residual cells, a code at several sizes (Child 2021, arXiv:2011.10650)."""
    common = common.maps(rungs, patch, width)
    return common.model(common.density()), Objective(free_bits=free_bits, **objective)


@recipe(beta=WarmUp(2000), likelihood=Bernoulli, prior=Rungs, posterior=BottomUp)
def hvae(common: Common, rungs: tuple[int, ...] | None = None, free_bits: float = 0.25, **objective: Any) -> Parts:
    """VAE of rungs, inferred from the bottom up (Burda et al. 2015, arXiv:1509.00519; rungs=(50, 100), top first)."""
    common = common.rungs(rungs)
    return common.model(common.density()), Objective(free_bits=free_bits, **objective)


@recipe(beta=WarmUp(2000), likelihood=Bernoulli, prior=Rungs, posterior=PrecisionWeighted)
def ladder(common: Common, rungs: tuple[int, ...] | None = None, free_bits: float = 0.25, **objective: Any) -> Parts:
    """Ladder VAE: rungs inferred from the top down, as they generate (Sonderby et al. 2016, arXiv:1602.02282)."""
    common = common.rungs(rungs)
    return common.model(common.density()), Objective(free_bits=free_bits, **objective)
