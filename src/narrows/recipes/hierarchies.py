"""Codes of several rungs."""

from typing import Any

from narrows.likelihoods import Bernoulli
from narrows.objectives import Objective
from narrows.posteriors import BottomUp, PrecisionWeighted
from narrows.priors import Rungs
from narrows.recipes.common import Common, Parts, recipe
from narrows.schedules import WarmUp

__all__ = ["hvae", "ladder"]


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
