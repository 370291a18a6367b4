"""A point for every row: autoencoders proper."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from narrows.corruptions import GaussianNoise
from narrows.likelihoods import Gaussian
from narrows.networks import Mlp, mirrored
from narrows.objectives import Objective
from narrows.pca import Components
from narrows.penalties import Contraction, DecoderSlope, Energy, Weights
from narrows.pretraining import Greedy
from narrows.priors import GaussianMixture
from narrows.recipes.common import Common, Parts, Shape, recipe

__all__ = ["autoencoder", "contractive", "denoising", "dropout", "linear", "regularised", "stacked"]


@recipe(beta=0.0)
def autoencoder(common: Common, **objective: Any) -> Parts:
    """Autoencoder: distortion alone (Hinton & Salakhutdinov 2006, doi:10.1126/science.1127647)."""
    return common.model(common.deterministic()), Objective(**objective)


@recipe(beta=0.0, network=partial(Mlp, hidden=()), likelihood=partial(Gaussian, sigma=1.0))
def linear(common: Common, solver: str = "covariance", **objective: Any) -> Parts:
    """Linear autoencoder: principal components, in closed form (Baldi & Hornik 1989, Neural Networks 2:53)."""
    model = common.model(common.deterministic())
    if solver != "gradient":
        model.start = Components(solver)
        for name in ("penalty", "discrepancy"):
            if objective.get(name):
                raise ValueError(f"solver={solver!r} minimises the distortion alone; with a {name}, solver='gradient'")
    return model, Objective(**objective)


@recipe(beta=0.0)
def denoising(
    common: Common,
    corruption: Callable[[Tensor], Tensor] = GaussianNoise(0.3),  # noqa: B008 (frozen)
    **objective: Any,
) -> Parts:
    """Denoising autoencoder: corrupted rows in, clean rows out (Vincent et al. 2010, JMLR 11:3371)."""
    return common.model(common.deterministic(), corruption), Objective(**objective)


@recipe(beta=0.0)
def dropout(common: Common, share: float = 0.2, **objective: Any) -> Parts:
    """Dropout autoencoder: hidden units left out at random in training (Srivastava et al. 2014, JMLR 15:1929)."""
    common = replace(common, network=partial(common.network, dropout=share))
    return common.model(common.deterministic()), Objective(**objective)


@recipe(beta=0.0)
def contractive(common: Common, weight: float = 0.1, probes: int = 1, **objective: Any) -> Parts:
    """Contractive autoencoder: a penalty on the encoder's slope (Rifai et al. 2011, ICML)."""
    return common.model(common.deterministic()), Objective(penalty=Contraction(weight, probes), **objective)


def _perceptron(network: Callable[..., nn.Module], hidden: Shape) -> Callable[..., nn.Module]:
    """A perceptron's network with other hidden widths."""
    if getattr(network, "func", network) is not Mlp:
        raise ValueError("hidden are the widths of a perceptron: give them with network=Mlp, or leave them away")
    if any(width != int(width) or width < 1 for width in hidden):
        raise ValueError(f"hidden widths are whole numbers of at least 1, such as hidden=(512, 256); got {hidden}")
    return partial(network, hidden=tuple(int(width) for width in hidden))


@recipe(beta=0.0)
def stacked(
    common: Common,
    hidden: Shape | None = None,
    corruption: Callable[[Tensor], Tensor] | None = None,
    throughout: bool = False,
    pretraining: int | None = None,
    **objective: Any,
) -> Parts:
    """Stacked autoencoder: layer by layer, then end to end (Hinton & Salakhutdinov 2006; Vincent et al. 2010)."""
    if throughout and corruption is None:
        raise ValueError("throughout=True corrupts the training end to end too: say how, corruption=Masking(0.25)")
    if hidden is None and common.network is Mlp:
        hidden = (512, 256, 128)
    network = common.network if hidden is None else _perceptron(common.network, hidden)
    posterior, corrupted = common.deterministic(), corruption if throughout else None
    model = replace(common, network=network).model(posterior, corrupted, mirrored(network))
    model.start = Greedy(corruption, pretraining)
    model.start.stages(model)
    return model, Objective(**objective)


@recipe(beta=0.0, prior=GaussianMixture)
def regularised(
    common: Common, energy: float = 0.01, decoder: str = "weights", weight: float = 1e-4, **objective: Any
) -> Parts:
    """Regularised autoencoder: short codes, a smooth decoder, a density fitted afterwards (Ghosh et al. 2020)."""
    if decoder not in ("weights", "slope"):
        raise ValueError(f'decoder is "weights" (RAE-L2) or "slope" (RAE-GP); got {decoder!r}')
    smooth = Weights(weight, "decoder") if decoder == "weights" else DecoderSlope(weight)
    return common.model(common.deterministic()), Objective(penalty=[Energy(energy), smooth], **objective)
