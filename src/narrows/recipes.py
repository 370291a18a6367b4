"""The members of the family as settings of the one equation: each recipe gives (model, objective).

Every recipe takes, besides its own arguments,

    shape       of one row of x, e.g. (1, 28, 28) or (20,)
    latent      units of the code
    likelihood  p(x|z) for a shape: a class of `likelihoods`, or `partial(Gaussian, learn="each")`
    network     from one shape to another: `Mlp`, `partial(Mlp, hidden=(512, 512))`, `Conv`
    context     features that both sides are told, 0 for none
    prior       p(z) for a number of units: a class of `priors`, or `partial(GaussianMixture, components=10)`; where
                training does not use it, `fit` fits it to the codes afterwards; None for none
    seed        of the initial weights, which are drawn here and not in `fit`; torch's own generator is left as found

and hands the rest on to `Objective`. A model built here carries its description in `model.spec`.
"""

import inspect
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn

from narrows import draws
from narrows.activations import BatchTopK, TopK
from narrows.corruptions import GaussianNoise
from narrows.divergences import MMD, Adversarial, Game, JensenShannon, SlicedWasserstein
from narrows.likelihoods import Bernoulli, Gaussian, Likelihood
from narrows.models import Autoencoder
from narrows.networks import Dictionary, Mlp, mirrored
from narrows.objectives import Objective
from narrows.objectives import iwae as importance_weighted
from narrows.pca import Components
from narrows.penalties import AuxK, Contraction, DecoderSlope, Energy, Resampling, Weights, listed
from narrows.posteriors import Deterministic, Sparse
from narrows.posteriors import Gaussian as GaussianPosterior
from narrows.pretraining import Greedy
from narrows.priors import GaussianMixture, StandardNormal
from narrows.spec import describe, misspelt, restore

__all__ = [
    "aae",
    "arguments",
    "autoencoder",
    "beta_vae",
    "build",
    "contractive",
    "defaults",
    "denoising",
    "deterministic",
    "dropout",
    "iwae",
    "linear",
    "names",
    "overcomplete",
    "regularised",
    "sparse",
    "stacked",
    "swae",
    "vae",
    "wae_mmd",
]

Parts = tuple[Autoencoder, Objective]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class _Common:
    """What every recipe takes."""

    shape: Shape
    latent: int = 16
    likelihood: Callable[[Shape], Likelihood] = Gaussian
    network: Callable[..., nn.Module] = Mlp
    context: int = 0
    prior: Callable[[int], nn.Module] | None = None

    @property
    def values(self) -> int:
        """Values in a row of x: distortions grow with their number, and so do weights beside them."""
        return math.prod(self.shape)

    def deterministic(self) -> nn.Module:
        """A point code, with the prior where there is one."""
        return Deterministic(self.latent, None if self.prior is None else self.prior(self.latent))

    def sparse(self, activation: Callable[..., nn.Module], active: int | None) -> Sparse:
        """Many units of which few fire: `active`, or where nothing is said 32, or fewer for few values or units."""
        part = getattr(activation, "func", activation)
        if part in (TopK, BatchTopK) and "active" not in getattr(activation, "keywords", {}):
            few = min(32, self.values // 4, self.latent // 4)
            activation = partial(activation, active=max(1, few) if active is None else active)
        elif active is not None:
            raise ValueError(
                f"active={active} counts the units of TopK and BatchTopK; how many fire with {part.__name__} is up to "
                "the weight of its penalty"
            )
        return Sparse(activation(self.latent), None if self.prior is None else self.prior(self.latent))

    def gaussian(self) -> nn.Module:
        """A diagonal normal, priced against the prior."""
        if self.prior is None:
            raise ValueError("this recipe compares codes with a prior: give one, such as prior=StandardNormal")
        return GaussianPosterior(self.prior(self.latent))

    def model(
        self,
        posterior: nn.Module,
        corruption: Callable[..., Any] | None = None,
        back: Callable[..., nn.Module] | None = None,
    ) -> Autoencoder:
        """Encoder, posterior, decoder (the network `back` where there is one of its own) and likelihood joined."""
        if self.context < 0:
            raise ValueError(f"context is a number of features, 0 for none; got {self.context}")
        p = self.likelihood(self.shape)
        encoder = self.network(self.shape, (int(posterior.features),), self.context)  # type: ignore[arg-type]
        decoder = (back or self.network)((self.latent,), p.wants, self.context)
        return Autoencoder(encoder, posterior, decoder, p, corruption, self.context)


_COMMON = [field.name for field in fields(_Common)]
_PASSED = set(inspect.signature(Objective).parameters) - {"bound"}


def _recipe(**standard: Any) -> Callable[[Callable[..., Parts]], Callable[..., Parts]]:
    """Gives a recipe what all take, with standard values of its own; refuses misspelt arguments, stamps `spec`."""

    def decorate(make: Callable[..., Parts]) -> Callable[..., Parts]:
        shared = [
            inspect.Parameter(
                f.name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=inspect.Parameter.empty if f.name == "shape" else standard.get(f.name, f.default),
                annotation=f.type,
            )
            for f in fields(_Common)
        ]
        if "beta" in standard:
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            shared.append(inspect.Parameter("beta", kind, default=standard["beta"], annotation="float | Schedule"))
        _, *own, objective = inspect.signature(make).parameters.values()
        signature = inspect.Signature([*shared, *own, objective])
        known = {name for name in signature.parameters if name != "objective"} | _PASSED

        @wraps(make)
        def recipe(*args: Any, seed: int = 0, **kwargs: Any) -> Parts:
            for name in kwargs:
                if name not in known:
                    raise TypeError(f"{make.__name__}: {misspelt('argument', name, {*known, 'seed'})}")
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = {**bound.arguments, **bound.arguments.get("objective", {})}
            given.pop("objective", None)
            common = _Common(**{name: given[name] for name in _COMMON})
            with draws.seeded(seed):
                model, objective = make(common, **{n: v for n, v in given.items() if n not in _COMMON})
            objective.check(model)
            try:
                described = {name: describe(name, value) for name, value in given.items()}
                model.spec = {"recipe": make.__name__, "arguments": described, "seed": seed}
            except TypeError:
                model.spec = None  # own parts: a run folder keeps the weights, and `load` asks for the model
            return model, objective

        keyword = inspect.Parameter("seed", inspect.Parameter.KEYWORD_ONLY, default=0, annotation=int)
        recipe.__signature__ = signature.replace(parameters=[*shared, *own, keyword, objective])  # type: ignore[attr-defined]
        return recipe

    return decorate


# ---- a point for every row --------------------------------------------------------------------------------------


@_recipe(beta=0.0)
def autoencoder(common: _Common, **objective: Any) -> Parts:
    """Autoencoder: distortion alone (Hinton & Salakhutdinov 2006, doi:10.1126/science.1127647)."""
    return common.model(common.deterministic()), Objective(**objective)


@_recipe(beta=0.0, network=partial(Mlp, hidden=()), likelihood=partial(Gaussian, sigma=1.0))
def linear(common: _Common, solver: str = "covariance", **objective: Any) -> Parts:
    """Linear autoencoder: principal components, in closed form (Baldi & Hornik 1989, Neural Networks 2:53)."""
    model = common.model(common.deterministic())
    if solver != "gradient":
        model.start = Components(solver)
        for name in ("penalty", "discrepancy"):
            if objective.get(name):
                raise ValueError(f"solver={solver!r} minimises the distortion alone; with a {name}, solver='gradient'")
    return model, Objective(**objective)


@_recipe(beta=0.0)
def denoising(
    common: _Common,
    corruption: Callable[[Tensor], Tensor] = GaussianNoise(0.3),  # noqa: B008 (frozen)
    **objective: Any,
) -> Parts:
    """Denoising autoencoder: corrupted rows in, clean rows out (Vincent et al. 2010, JMLR 11:3371)."""
    return common.model(common.deterministic(), corruption), Objective(**objective)


@_recipe(beta=0.0)
def dropout(common: _Common, share: float = 0.2, **objective: Any) -> Parts:
    """Dropout autoencoder: hidden units left out at random in training (Srivastava et al. 2014, JMLR 15:1929)."""
    common = replace(common, network=partial(common.network, dropout=share))
    return common.model(common.deterministic()), Objective(**objective)


@_recipe(beta=0.0)
def contractive(common: _Common, weight: float = 0.1, probes: int = 1, **objective: Any) -> Parts:
    """Contractive autoencoder: a penalty on the encoder's slope (Rifai et al. 2011, ICML)."""
    return common.model(common.deterministic()), Objective(penalty=Contraction(weight, probes), **objective)


def _perceptron(network: Callable[..., nn.Module], hidden: Shape) -> Callable[..., nn.Module]:
    """A perceptron's network with other hidden widths."""
    if getattr(network, "func", network) is not Mlp:
        raise ValueError("hidden are the widths of a perceptron: give them with network=Mlp, or leave them away")
    if any(width != int(width) or width < 1 for width in hidden):
        raise ValueError(f"hidden widths are whole numbers of at least 1, such as hidden=(512, 256); got {hidden}")
    return partial(network, hidden=tuple(int(width) for width in hidden))


@_recipe(beta=0.0)
def stacked(
    common: _Common,
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


@_recipe(beta=0.0, prior=GaussianMixture)
def regularised(
    common: _Common, energy: float = 0.01, decoder: str = "weights", weight: float = 1e-4, **objective: Any
) -> Parts:
    """Regularised autoencoder: short codes, a smooth decoder, a density fitted afterwards (Ghosh et al. 2020)."""
    if decoder not in ("weights", "slope"):
        raise ValueError(f'decoder is "weights" (RAE-L2) or "slope" (RAE-GP); got {decoder!r}')
    smooth = Weights(weight, "decoder") if decoder == "weights" else DecoderSlope(weight)
    return common.model(common.deterministic()), Objective(penalty=[Energy(energy), smooth], **objective)


# ---- many units, few at a time ----------------------------------------------------------------------------------


_SPARSE = "penalty=L1(0.1) for ReLU, TargetActivity(1.0, 0.05) for Sigmoid, L0(0.1) for JumpReLU"


@torch.no_grad()
def _tied(model: Autoencoder) -> Autoencoder:
    """The encoder begins as the decoder transposed, which leaves few units dead (Gao et al. 2024, appendix A.1)."""
    encoder, decoder = model.encoder, model.decoder
    if isinstance(encoder, Dictionary) and isinstance(decoder, Dictionary):
        width = encoder.centre.numel()
        if decoder.weight.shape[1] == width:  # a likelihood with one number a value
            encoder.weight[:, :width] = decoder.directions
    model.start = _centred
    return model


@torch.no_grad()
def _centred(model: Autoencoder, rows: Any, _: Callable[..., Any]) -> bool:
    """Before the first step: the training rows' mean is where the encoder's origin and an empty code lie."""
    if isinstance(model.posterior.activation, BatchTopK):  # type: ignore[union-attr]
        model.posterior.activation.batches.zero_()  # type: ignore[union-attr]  # what was seen before is forgotten
    if isinstance(model.encoder, Dictionary) and not model.encoder.centre.any():
        mean = sum(b.x.flatten(1).sum(0, dtype=torch.float64) for b in rows.batches(4096)) / len(rows)
        model.encoder.centre.copy_(mean)
        if isinstance(model.decoder, Dictionary) and isinstance(model.likelihood, Gaussian):
            model.decoder.bias.copy_(mean)
    return False


@_recipe(beta=0.0, network=Dictionary)
def sparse(
    common: _Common,
    activation: Callable[..., nn.Module] = TopK,
    active: int | None = None,
    revive: str = "auxk",
    penalty: nn.Module | Iterable[nn.Module] | None = None,
    **objective: Any,
) -> Parts:
    """Sparse autoencoder: many units, of which few fire for a row (Gao et al. 2024, arXiv:2406.04093)."""
    posterior, parts = common.sparse(activation, active), listed(penalty)
    model = common.model(posterior)
    if not parts and not hasattr(posterior.activation, "active"):
        raise ValueError(f"{type(posterior.activation).__name__} codes are sparse only under a penalty: {_SPARSE}")
    if revive not in ("auxk", "resampling", "none"):
        raise ValueError(f'revive is "auxk", "resampling" or "none"; got {revive!r}')
    if revive != "none" and not posterior.activation.floor:  # a sigmoid never rests, so no unit of it dies
        units = max(1, min(512, common.latent, common.values // 2))
        parts.append(AuxK(common.latent, units) if revive == "auxk" else Resampling(common.latent))
    return _tied(model), Objective(penalty=parts, **objective)


# ---- codes that together follow the prior -----------------------------------------------------------------------


def _held(common: _Common, discrepancy: nn.Module, encoder: str, objective: dict[str, Any]) -> Parts:
    """A model whose codes are held to the prior, by a deterministic or a Gaussian encoder."""
    if encoder not in ("deterministic", "gaussian"):
        raise ValueError(f'encoder is "deterministic" or "gaussian"; got {encoder!r}')
    posterior = common.deterministic() if encoder == "deterministic" else common.gaussian()
    return common.model(posterior), Objective(discrepancy=discrepancy, **objective)


@_recipe(beta=0.0, prior=StandardNormal)
def aae(
    common: _Common,
    game: Game = JensenShannon(),  # noqa: B008 (frozen)
    weight: float | None = None,  # 0.004 for each value of a row, over the game's curvature
    encoder: str = "deterministic",
    **objective: Any,
) -> Parts:
    """Adversarial autoencoder: a critic holds the codes to the prior (Makhzani et al. 2015, arXiv:1511.05644)."""
    weight = 0.004 * common.values / game.curvature if weight is None else weight
    critic = Adversarial(common.latent, game, weight, context=common.context)
    return _held(common, critic, encoder, objective)


@_recipe(beta=0.0, prior=StandardNormal)
def wae_mmd(
    common: _Common,
    weight: float | None = None,  # 0.13 for each value of a row
    kernel: str = "imq",
    encoder: str = "deterministic",
    **objective: Any,
) -> Parts:
    """Wasserstein autoencoder: a kernel distance holds them (Tolstikhin et al. 2018, arXiv:1711.01558)."""
    weight = 0.13 * common.values if weight is None else weight
    return _held(common, MMD(weight, kernel), encoder, objective)


@_recipe(beta=0.0, prior=StandardNormal)
def swae(
    common: _Common,
    weight: float | None = None,  # 0.02 for each value of a row
    directions: int = 64,
    encoder: str = "deterministic",
    **objective: Any,
) -> Parts:
    """Sliced Wasserstein autoencoder: distances along random directions (Kolouri et al. 2018, arXiv:1804.01947)."""
    weight = 0.02 * common.values if weight is None else weight
    return _held(common, SlicedWasserstein(weight, directions), encoder, objective)


# ---- a density for every row ------------------------------------------------------------------------------------


@_recipe(likelihood=Bernoulli, prior=StandardNormal)
def vae(common: _Common, **objective: Any) -> Parts:
    """Variational autoencoder: distortion + rate (Kingma & Welling 2013, arXiv:1312.6114)."""
    return common.model(common.gaussian()), Objective(**objective)


@_recipe(beta=4.0, likelihood=Bernoulli, prior=StandardNormal)
def beta_vae(common: _Common, **objective: Any) -> Parts:
    """beta-VAE: distortion + beta * rate, beta = 4 (Higgins et al. 2017, ICLR, equation 4)."""
    return common.model(common.gaussian()), Objective(**objective)


@_recipe(likelihood=Bernoulli, prior=StandardNormal)
def iwae(common: _Common, samples: int = 5, rate: str = "sampled", **objective: Any) -> Parts:
    """Importance-weighted autoencoder: the bound of 5 draws together (Burda et al. 2015, arXiv:1509.00519)."""
    own = Objective(bound=importance_weighted, samples=samples, rate=rate, **objective)
    return common.model(common.gaussian()), own


def names() -> dict[str, str]:
    """Every recipe with its line."""
    return {
        name: (globals()[name].__doc__ or "").strip()
        for name in __all__
        if hasattr(globals()[name], "__wrapped__")  # made by `_recipe`
    }


def overcomplete(recipe: str) -> bool:
    """Whether a recipe's code is sparse, so that it has more units than a row has values."""
    return isinstance(globals()[recipe]((2,), latent=2)[0].posterior, Sparse)


def deterministic(recipe: str) -> bool:
    """Whether a recipe leaves the rate out where nothing is said, beta = 0."""
    objective = globals()[recipe]((2,), latent=2)[1]
    return not objective.beta(None)


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
