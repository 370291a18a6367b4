"""Codes that together follow the prior."""

from typing import Any

from torch import nn

from narrows.divergences import MMD, Adversarial, Game, JensenShannon, SlicedWasserstein
from narrows.objectives import Objective
from narrows.priors import StandardNormal
from narrows.recipes.common import Common, Parts, recipe

__all__ = ["aae", "swae", "wae_mmd"]


def _held(common: Common, discrepancy: nn.Module, encoder: str, objective: dict[str, Any]) -> Parts:
    """A model whose codes are held to the prior, by a deterministic or a Gaussian encoder."""
    if encoder not in ("deterministic", "gaussian"):
        raise ValueError(f'encoder is "deterministic" or "gaussian"; got {encoder!r}')
    posterior = common.deterministic() if encoder == "deterministic" else common.density()
    return common.model(posterior), Objective(discrepancy=discrepancy, **objective)


@recipe(beta=0.0, prior=StandardNormal)
def aae(
    common: Common,
    game: Game = JensenShannon(),  # noqa: B008 (frozen)
    weight: float | None = None,  # 0.004 for each value of a row, over the game's curvature
    encoder: str = "deterministic",
    **objective: Any,
) -> Parts:
    """Adversarial autoencoder: a critic holds the codes to the prior (Makhzani et al. 2015, arXiv:1511.05644)."""
    weight = 0.004 * common.values / game.curvature if weight is None else weight
    critic = Adversarial(common.latent, game, weight, context=common.context)
    return _held(common, critic, encoder, objective)


@recipe(beta=0.0, prior=StandardNormal)
def wae_mmd(
    common: Common,
    weight: float | None = None,  # 0.13 for each value of a row
    kernel: str = "imq",
    encoder: str = "deterministic",
    **objective: Any,
) -> Parts:
    """Wasserstein autoencoder: a kernel distance holds them (Tolstikhin et al. 2018, arXiv:1711.01558)."""
    weight = 0.13 * common.values if weight is None else weight
    return _held(common, MMD(weight, kernel), encoder, objective)


@recipe(beta=0.0, prior=StandardNormal)
def swae(
    common: Common,
    weight: float | None = None,  # 0.02 for each value of a row
    directions: int = 64,
    encoder: str = "deterministic",
    **objective: Any,
) -> Parts:
    """Sliced Wasserstein autoencoder: distances along random directions (Kolouri et al. 2018, arXiv:1804.01947)."""
    weight = 0.02 * common.values if weight is None else weight
    return _held(common, SlicedWasserstein(weight, directions), encoder, objective)
