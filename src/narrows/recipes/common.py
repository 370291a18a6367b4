"""What all recipes take, and what makes a function one."""

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial, wraps
from typing import Any

from torch import nn

from narrows import draws
from narrows.activations import BatchTopK, TopK
from narrows.likelihoods import Gaussian, Likelihood
from narrows.models import Autoencoder, Ladder, Model
from narrows.networks import Mlp, ending
from narrows.objectives import Objective
from narrows.posteriors import Deterministic, Sparse
from narrows.posteriors import Gaussian as GaussianPosterior
from narrows.priors.codewords import over
from narrows.spec import describe, misspelt

__all__ = ["PASSED", "Common", "Parts", "Shape", "recipe"]

Parts = tuple[Model, Objective]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Common:
    """What every recipe takes; `posterior` where it names a standard one, for there q(z|x) is a choice."""

    shape: Shape
    latent: int = 16
    likelihood: Callable[[Shape], Likelihood] = Gaussian
    network: Callable[..., nn.Module] = Mlp
    context: int = 0
    prior: Callable[..., nn.Module] | None = None
    posterior: Callable[[nn.Module], nn.Module] = GaussianPosterior

    def __post_init__(self) -> None:
        if self.context < 0:
            raise ValueError(f"context is a number of features, 0 for none; got {self.context}")

    @property
    def values(self) -> int:
        """Values in a row of x: distortions grow with their number, and so do weights beside them."""
        return math.prod(self.shape)

    def deterministic(self) -> nn.Module:
        """A point code, with the prior where there is one."""
        return Deterministic(self.latent, None if self.prior is None else self.p())

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
        return Sparse(activation(self.latent), None if self.prior is None else self.p())

    def density(self) -> nn.Module:
        """A density for every row, priced against the prior."""
        return self.posterior(self.p())

    def rungs(self, rungs: Sequence[int] | None) -> "Common":
        """The same with rungs of so many units, top first, which then are all the units that there are."""
        if rungs is None:
            return self
        if self.prior is None or "rungs" not in inspect.signature(self.prior).parameters:
            raise TypeError(
                f"rungs={rungs} are units of a prior that has rungs. Wrong: prior=StandardNormal; right: prior=Rungs"
            )
        if not isinstance(rungs, Sequence):
            raise TypeError(f"rungs are units of each rung, top first, such as rungs=(4, 8, 16); got {rungs!r}")
        return replace(self, latent=max(sum(rungs), 1), prior=partial(self.prior, rungs=tuple(rungs)))

    def maps(self, rungs: int | Sequence[int], patch: int, width: int) -> "Common":
        """The same with rungs of maps for rows of this shape, `latent` channels each."""
        if self.prior is None or "shape" not in inspect.signature(self.prior).parameters:
            name = getattr(self.prior, "__name__", repr(self.prior))
            raise TypeError(f"rungs of maps are a prior of their own. Wrong: prior={name}; right: prior=Maps")
        prior = partial(self.prior, shape=tuple(self.shape), rungs=rungs, patch=patch, width=width)
        cut = {"patch": patch} if "patch" in inspect.signature(self.network).parameters else {}
        return replace(self, prior=prior, network=partial(self.network, **cut))

    def p(self) -> nn.Module:
        """The prior; one that reads context is built for as many features as the model is told."""
        if self.prior is None:
            raise ValueError("this recipe compares codes with a prior: give one, such as prior=StandardNormal")
        asks = self._asks(codebook=False)
        return self.prior(self.latent, **({"context": self.context} if "context" in asks else {}))

    def codewords(self, grid: tuple[Any, ...], codebook: int) -> nn.Module:
        """The prior over codewords in a grid, or in several."""
        self._asks(codebook=True)
        return over(self.prior, grid, codebook, self.context)  # type: ignore[arg-type]

    def _asks(self, codebook: bool) -> Any:
        """What the prior is built from. Raises TypeError for one of another kind of code."""
        asks = inspect.signature(self.prior).parameters  # type: ignore[arg-type]
        if ("codebook" in asks) != codebook:
            name = getattr(getattr(self.prior, "func", self.prior), "__name__", self.prior)
            raise TypeError(
                f"{name} cannot be the prior here: codes of codewords (recipes vqvae, vqvae2, fsq) take a prior over "
                "them, such as Codewords, all others a prior over units, such as StandardNormal"
            )
        return asks

    def model(
        self,
        posterior: nn.Module,
        corruption: Callable[..., Any] | None = None,
        back: Callable[..., nn.Module] | None = None,
    ) -> Model:
        """Encoder, posterior, decoder (the network `back` where there is one of its own) and likelihood joined."""
        p = self.likelihood(self.shape)
        said: Any = posterior.features  # a number, or the shape of a map that is read as one
        inner: Any = said if isinstance(said, tuple) else (self.latent,)
        said = said if isinstance(said, tuple) else (int(said),)
        kind, inner = (Ladder, posterior.gives) if hasattr(posterior, "rungs") else (Autoencoder, inner)
        encoder = self.network(p.reads, said, self.context)
        decoder = (back or self.network)(inner, p.wants, self.context)  # type: ignore[arg-type]
        bias = ending(decoder)
        if bias is not None:
            nn.init.zeros_(bias)  # for `Model.begin`
        return kind(encoder, posterior, decoder, p, corruption, self.context)


_COMMON = [field.name for field in fields(Common)]
PASSED = set(inspect.signature(Objective).parameters) - {"bound"}


def recipe(**standard: Any) -> Callable[[Callable[..., Parts]], Callable[..., Parts]]:
    """Gives a recipe what all take, with standard values of its own; refuses misspelt arguments, stamps `spec`."""

    def decorate(make: Callable[..., Parts]) -> Callable[..., Parts]:
        shared = [
            inspect.Parameter(
                f.name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=inspect.Parameter.empty if f.name == "shape" else standard.get(f.name, f.default),
                annotation=f.type,
            )
            for f in fields(Common)
            if f.name != "posterior" or f.name in standard
        ]
        if "beta" in standard:
            kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
            shared.append(inspect.Parameter("beta", kind, default=standard["beta"], annotation="float | Schedule"))
        _, *own, objective = inspect.signature(make).parameters.values()
        signature = inspect.Signature([*shared, *own, objective])
        known = {name for name in signature.parameters if name != "objective"} | PASSED

        @wraps(make)
        def made(*args: Any, seed: int = 0, **kwargs: Any) -> Parts:
            for name in kwargs:
                if name not in known:
                    raise TypeError(f"{make.__name__}: {misspelt('argument', name, {*known, 'seed'})}")
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            given = {**bound.arguments, **bound.arguments.get("objective", {})}
            given.pop("objective", None)
            common = Common(**{name: given[name] for name in _COMMON if name in given})
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
        made.__signature__ = signature.replace(parameters=[*shared, *own, keyword, objective])  # type: ignore[attr-defined]
        return made

    return decorate
