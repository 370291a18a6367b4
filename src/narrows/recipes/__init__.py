"""The members of the family as settings of the one equation: each recipe gives (model, objective).

Every recipe takes, besides its own arguments,

    shape       of one row of x, e.g. (1, 28, 28) or (20,)
    latent      units of the code
    likelihood  p(x|z) for a shape: a class of `likelihoods`, or `partial(Gaussian, learn="each")`
    network     from one shape to another: `Mlp`, `partial(Mlp, hidden=(512, 512))`, `Conv`
    context     features that both sides are told, 0 for none
    prior       p(z) for a number of units: a class of `priors`, or `partial(GaussianMixture, components=10)`; where
                training does not use it, `fit` fits it to the codes afterwards; None for none.
                A code of codewords takes a prior over codewords, such as `Codewords`
    posterior   q(z|x) for a prior, where the code has a density: a class of `posteriors`, or a `partial` of one
    rungs       of a hierarchy, units of each from the top down, such as (4, 8, 16): they count, and latent does not;
                where they are not given, a third of latent is the upper of two rungs. Of conv_ladder, how many rungs of
                maps, or how many of each size from the top down; latent counts the channels of each map, and the
                largest have a place for every patch x patch pixels
    seed        of the initial weights, which are drawn here and not in `fit`; torch's own generator is left as found

and hands the rest on to `Objective`. A model built here carries its description in `model.spec`.
"""

import inspect
from typing import Any

from narrows.objectives import Objective
from narrows.posteriors import Concrete, Discrete, ResidualNormal, Sparse
from narrows.priors import ConditionalNormal
from narrows.recipes.codewords import fsq, vqvae, vqvae2
from narrows.recipes.common import PASSED, Parts
from narrows.recipes.dictionaries import sparse
from narrows.recipes.disentangling import annealed_vae, beta_tc_vae, dip_vae, factor_vae, infovae
from narrows.recipes.hierarchies import conv_ladder, hvae, ladder
from narrows.recipes.labelled import conditional, semi_supervised, semi_supervised_aae
from narrows.recipes.matched import aae, swae, wae_mmd
from narrows.recipes.noised import diffusion
from narrows.recipes.points import autoencoder, contractive, denoising, dropout, linear, regularised, stacked
from narrows.recipes.variational import (
    beta_vae,
    ciwae,
    concrete,
    flow_vae,
    iwae,
    miwae,
    piwae,
    renyi,
    vae,
    vampprior,
)
from narrows.spec import describe, misspelt, restore

__all__ = [
    "Parts",
    "aae",
    "annealed_vae",
    "arguments",
    "autoencoder",
    "beta_tc_vae",
    "beta_vae",
    "build",
    "choices",
    "ciwae",
    "coded",
    "concrete",
    "conditional",
    "contractive",
    "conv_ladder",
    "defaults",
    "denoising",
    "deterministic",
    "diffusion",
    "dip_vae",
    "dropout",
    "factor_vae",
    "flow_vae",
    "fsq",
    "hvae",
    "infovae",
    "iwae",
    "labelled",
    "ladder",
    "linear",
    "mapped",
    "miwae",
    "names",
    "overcomplete",
    "piwae",
    "regularised",
    "renyi",
    "semi_supervised",
    "semi_supervised_aae",
    "sparse",
    "stacked",
    "swae",
    "told",
    "vae",
    "vampprior",
    "vqvae",
    "vqvae2",
    "wae_mmd",
]


def names() -> dict[str, str]:
    """Every recipe with its line."""
    return {
        name: (globals()[name].__doc__ or "").strip()
        for name in __all__
        if hasattr(globals()[name], "__wrapped__")  # made by `recipe`
    }


def _example(recipe: str) -> Parts:
    """A small one, told something, as some recipes must be."""
    parts: Parts = globals()[recipe]((2,), latent=2, context=1)
    return parts


def overcomplete(recipe: str) -> bool:
    """Whether a recipe's code is sparse, so that it has more units than a row has values."""
    return isinstance(_example(recipe)[0].posterior, Sparse)


def choices(recipe: str) -> bool:
    """Whether a recipe's code is choices among classes, each of which takes as many units."""
    return isinstance(_example(recipe)[0].posterior, Concrete)


def coded(recipe: str) -> bool:
    """Whether a recipe's code is codewords in a grid."""
    return isinstance(_example(recipe)[0].posterior, Discrete)


def deterministic(recipe: str) -> bool:
    """Whether a recipe leaves the rate out where nothing is said, beta = 0."""
    return not _example(recipe)[1].beta(None)


def told(recipe: str) -> bool:
    """Whether a recipe tells its model something of every row: it is nothing without context."""
    prior = inspect.signature(globals()[recipe]).parameters["prior"].default
    return getattr(prior, "func", prior) is ConditionalNormal


def mapped(recipe: str) -> bool:
    """Whether a recipe's code is rungs of maps, whose channels latent counts."""
    return isinstance(_example(recipe)[0].posterior, ResidualNormal)


def labelled(recipe: str) -> bool:
    """Whether a recipe's code has a label, which some rows should bring."""
    return "classes" in inspect.signature(globals()[recipe]).parameters


def arguments(recipe: str) -> set[str]:
    """The names that a recipe takes, those it hands on to `Objective` among them, without `shape` and `seed`."""
    return set(inspect.signature(globals()[recipe]).parameters) - {"shape", "seed", "objective"} | PASSED


def defaults(recipe: str) -> dict[str, Any]:
    """What a recipe takes where nothing is said, in JSON form, its own arguments and those of `Objective`."""
    given = {**inspect.signature(Objective).parameters, **inspect.signature(globals()[recipe]).parameters}
    return {
        name: describe(name, p.default)
        for name, p in given.items()
        if p.default is not inspect.Parameter.empty and name not in ("bound", "seed")
    }


def build(spec: dict[str, Any]) -> Parts:
    """Model and objective, freshly initialised, from a `model.spec`.

    Raises: ValueError for a recipe that is not there, TypeError for an argument that is not.

    Example:
        >>> build({"recipe": "vae", "arguments": {"shape": [8], "latent": 2}, "seed": 0})[0].latent
        2
    """
    if spec["recipe"] not in names():
        raise ValueError(misspelt("recipe", spec["recipe"], names()))
    arguments = {name: restore(name, value) for name, value in spec["arguments"].items()}
    parts: Parts = globals()[spec["recipe"]](**arguments, seed=spec.get("seed", 0))
    return parts
