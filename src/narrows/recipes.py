"""The members of the family as settings of the one equation: each recipe gives (model, objective).

Every recipe takes, besides its own arguments,

    shape       of one row of x, e.g. (1, 28, 28) or (20,)
    latent      units of the code
    likelihood  p(x|z) for a shape: a class of `likelihoods`, or `partial(Gaussian, learn="each")`
    network     from one shape to another: `Mlp`, `partial(Mlp, hidden=(512, 512))`, `Conv`
    context     features that both sides are told, 0 for none
    seed        of the initial weights, which are drawn here and not in `fit`; torch's own generator is left as found

and hands the rest on to `Objective`. A model built here carries its description in `model.spec`.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from torch import nn

from narrows import draws
from narrows.likelihoods import Bernoulli, Gaussian, Likelihood
from narrows.models import Autoencoder
from narrows.networks import Mlp
from narrows.objectives import Objective
from narrows.objectives import iwae as importance_weighted
from narrows.posteriors import Deterministic
from narrows.posteriors import Gaussian as GaussianPosterior
from narrows.priors import StandardNormal
from narrows.schedules import Schedule
from narrows.spec import describe, misspelt, restore

__all__ = ["arguments", "autoencoder", "beta_vae", "build", "defaults", "iwae", "names", "vae"]

Parts = tuple[Autoencoder, Objective]
Shape = tuple[int, ...]
MakesLikelihood = Callable[[Shape], Likelihood]
MakesNetwork = Callable[[Shape, Shape, int], nn.Module]


_PASSED = set(inspect.signature(Objective).parameters) - {"bound"}


def _recipe(make: Callable[..., Parts]) -> Callable[..., Parts]:
    """Adds `seed`, refuses misspelt arguments, stamps the description on the model."""
    own = inspect.signature(make)
    known = {name for name in own.parameters if name != "objective"} | _PASSED

    @wraps(make)
    def recipe(*args: Any, seed: int = 0, **kwargs: Any) -> Parts:
        for name in kwargs:
            if name not in known:
                raise TypeError(f"{make.__name__}: {misspelt('argument', name, {*known, 'seed'})}")
        arguments = own.bind(*args, **kwargs)
        arguments.apply_defaults()
        with draws.seeded(seed):
            model, objective = make(*arguments.args, **arguments.kwargs)
        objective.check(model)
        given = {**arguments.arguments, **arguments.arguments.get("objective", {})}
        given.pop("objective", None)
        try:
            described = {name: describe(name, value) for name, value in given.items()}
            model.spec = {"recipe": make.__name__, "arguments": described, "seed": seed}
        except TypeError:
            model.spec = None  # own parts: a run folder keeps the weights, and `load` asks for the model
        return model, objective

    keyword = inspect.Parameter("seed", inspect.Parameter.KEYWORD_ONLY, default=0, annotation=int)
    parameters = list(own.parameters.values())
    recipe.__signature__ = own.replace(parameters=[*parameters[:-1], keyword, parameters[-1]])  # type: ignore[attr-defined]
    return recipe


def _join(shape: Shape, posterior: nn.Module, p: Likelihood, network: MakesNetwork, context: int) -> Autoencoder:
    if context < 0:
        raise ValueError(f"context is a number of features, 0 for none; got {context}")
    features, latent = int(posterior.features), int(posterior.latent)  # type: ignore[arg-type]
    return Autoencoder(network(shape, (features,), context), posterior, network((latent,), p.wants, context), p)


@_recipe
def autoencoder(
    shape: Shape,
    latent: int = 16,
    likelihood: MakesLikelihood = Gaussian,
    network: MakesNetwork = Mlp,
    context: int = 0,
    beta: float | Schedule = 0.0,
    **objective: Any,
) -> Parts:
    """Autoencoder: distortion alone, beta = 0 (Hinton & Salakhutdinov 2006, doi:10.1126/science.1127647)."""
    model = _join(shape, Deterministic(latent), likelihood(shape), network, context)
    return model, Objective(beta, **objective)


@_recipe
def vae(
    shape: Shape,
    latent: int = 16,
    likelihood: MakesLikelihood = Bernoulli,
    network: MakesNetwork = Mlp,
    context: int = 0,
    **objective: Any,
) -> Parts:
    """Variational autoencoder: distortion + rate (Kingma & Welling 2013, arXiv:1312.6114)."""
    model = _join(shape, GaussianPosterior(StandardNormal(latent)), likelihood(shape), network, context)
    return model, Objective(**objective)


@_recipe
def beta_vae(
    shape: Shape,
    latent: int = 16,
    likelihood: MakesLikelihood = Bernoulli,
    network: MakesNetwork = Mlp,
    context: int = 0,
    beta: float | Schedule = 4.0,
    **objective: Any,
) -> Parts:
    """beta-VAE: distortion + beta * rate, beta = 4 (Higgins et al. 2017, ICLR, equation 4)."""
    model = _join(shape, GaussianPosterior(StandardNormal(latent)), likelihood(shape), network, context)
    return model, Objective(beta, **objective)


@_recipe
def iwae(
    shape: Shape,
    latent: int = 16,
    likelihood: MakesLikelihood = Bernoulli,
    network: MakesNetwork = Mlp,
    context: int = 0,
    samples: int = 5,
    rate: str = "sampled",
    **objective: Any,
) -> Parts:
    """Importance-weighted autoencoder: the bound of 5 draws together (Burda et al. 2015, arXiv:1509.00519)."""
    model = _join(shape, GaussianPosterior(StandardNormal(latent)), likelihood(shape), network, context)
    return model, Objective(bound=importance_weighted, samples=samples, rate=rate, **objective)


def names() -> dict[str, str]:
    """Every recipe with its line."""
    return {
        name: (globals()[name].__doc__ or "").strip()
        for name in __all__
        if name not in ("arguments", "build", "defaults", "names")
    }


def arguments(recipe: str) -> set[str]:
    """The names that a recipe takes, those it hands on to `Objective` among them, without `shape` and `seed`."""
    return set(inspect.signature(globals()[recipe]).parameters) - {"shape", "seed", "objective"} | _PASSED


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
