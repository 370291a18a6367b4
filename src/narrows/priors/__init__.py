"""p(z): what a code is priced against, held to, or drawn from.

A prior is a module whose call returns a Distribution: `prior(context)` has batch () or (B,) and event (latent,). It
says in `density` whether that distribution can score a code (else it can only be sampled, which is all that a
discrepancy needs), in `closed` whether the KL from a normal has a closed form, in `discrete` whether it is over classes
and not over numbers, in `bounded` (where it is there) that log p(z) is known by a lower bound only. It may have a
`fit(z)` that takes its parameters from codes (n, latent): see `fit_prior`; and an `attach(model)`, which a model calls
that is built with it, where it is made of more than numbers of its own.

A prior over codewords is built as `prior(grid, codebook)` and its event is the grid of their numbers: see `Codewords`.
"""

from narrows.priors.codes import PixelCNN, Transformer
from narrows.priors.codewords import CodewordRungs, Codewords
from narrows.priors.diffusion import Diffusion
from narrows.priors.fixed import GaussianMixture, MultivariateGaussian, Pinwheel, StandardNormal, SwissRoll, tempered
from narrows.priors.learned import Autoregressive, Categorical, ConditionalNormal, Flow, Mixture, VampPrior, one_hot
from narrows.priors.maps import Maps
from narrows.priors.rungs import Hierarchy, Rungs

__all__ = [
    "Autoregressive",
    "Categorical",
    "CodewordRungs",
    "Codewords",
    "ConditionalNormal",
    "Diffusion",
    "Flow",
    "GaussianMixture",
    "Hierarchy",
    "Maps",
    "Mixture",
    "MultivariateGaussian",
    "Pinwheel",
    "PixelCNN",
    "Rungs",
    "StandardNormal",
    "SwissRoll",
    "Transformer",
    "VampPrior",
    "one_hot",
    "tempered",
]
