"""Divergences between distributions: of single codes in closed form, of the aggregated posterior from a batch of codes.

`kl` gives nats per row. A *discrepancy* D(q(z), p(z)) compares all codes of a batch with as many draws from the prior,
or with one another: a module called as `discrepancy(code, real, batch) -> Gap`, whose `weight` stands in the equation.
`least` is how many codes it takes; where `prior_draws` is False it asks for no draws, and `real` is the codes. Where a
critic plays against the model both players' losses come out of one graph, and neither's gradient reaches the other.
"""

from narrows.divergences.closed import kl
from narrows.divergences.common import Gap
from narrows.divergences.correlation import Covariance, TotalCorrelation, total_correlation
from narrows.divergences.critics import (
    KL,
    Adversarial,
    Game,
    JensenShannon,
    LogRatio,
    PearsonChiSquared,
    ReverseKL,
    SquaredHellinger,
    Wasserstein,
)
from narrows.divergences.samples import MMD, SlicedWasserstein, mmd, sliced_wasserstein

__all__ = [
    "KL",
    "MMD",
    "Adversarial",
    "Covariance",
    "Game",
    "Gap",
    "JensenShannon",
    "LogRatio",
    "PearsonChiSquared",
    "ReverseKL",
    "SlicedWasserstein",
    "SquaredHellinger",
    "TotalCorrelation",
    "Wasserstein",
    "kl",
    "mmd",
    "sliced_wasserstein",
    "total_correlation",
]
