"""The models: what joins an encoder to a decoder through a code. `Model` is what all share, the others are final."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from narrows.contract import Code, Pass
from narrows.likelihoods import Likelihood
from narrows.networks import ending
from narrows.priors import tempered

__all__ = ["Autoencoder", "Ladder", "Model"]


class Model(nn.Module, ABC):
    """What the rest of the library knows of a model: its parts, and rows to codes and back.

    `encoder`, `posterior`, `decoder` and `likelihood` are its parts; `forward` and `decode` of a final class join them.
    `corruption` is what the encoder learns to undo: an objective shows it corrupted rows and scores the clean ones; use
    never corrupts. `context` is the number of features that all parts are told. `begin(rows, train)` is what `fit`
    calls before the first step (`train(model, objective, rows)` fits a part), `start(model, rows, train)` what a part
    adds to that; both tell whether all is done.
    `spec` is how a recipe built the model, None where hands did.

    Raises: TypeError where a part is missing its half of the contract (`posterior.features`, a `Likelihood`).
    """

    def __init__(
        self,
        encoder: nn.Module,
        posterior: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        corruption: Callable[[Tensor], Tensor] | None = None,
        context: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(likelihood, Likelihood):
            raise TypeError(
                f"the last part of a model is a likelihood such as Bernoulli(shape); got {type(likelihood).__name__}"
            )
        self.encoder, self.posterior, self.decoder, self.likelihood = encoder, posterior, decoder, likelihood
        self.corruption, self.context = corruption, context
        self.start: Callable[..., bool] | None = None
        self.spec: dict[str, Any] | None = None
        if hasattr(posterior, "start"):  # a codebook that begins as the encoder's own vectors
            self.start = posterior.start  # type: ignore[assignment]
        if hasattr(posterior.prior, "attach"):  # made of what this model says of rows
            posterior.prior.attach(self)  # type: ignore[operator, union-attr]
        self.check()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of x, without the batch."""
        return self.likelihood.shape

    @property
    def latent(self) -> int:
        """Number of units of the code."""
        return int(self.posterior.latent)  # type: ignore[arg-type]

    @property
    def prior(self) -> Callable[[Tensor | None], Distribution] | None:
        """p(z), None where nothing says how codes are distributed: then there is nothing to sample from."""
        return self.posterior.prior  # type: ignore[return-value]

    @property
    def density(self) -> bool:
        """Whether q(z|x) and p(z) can both score a code: then there is a rate, and a bound on log p(x)."""
        return bool(self.posterior.density) and self.prior is not None and getattr(self.prior, "density", True)

    @property
    def weighed(self) -> bool:
        """Whether q(z|x) and p(z) score every single draw, and neither is known by a lower bound only."""
        return self.density and not any(getattr(part, "bounded", False) for part in (self.posterior, self.prior))

    def check(self) -> None:
        """Raises ValueError where the prior was fitted to the codes of another codebook than this model's."""
        if hasattr(self.prior, "check"):
            self.prior.check(self.posterior)  # type: ignore[union-attr]

    def begin(self, rows: Any, train: Callable[..., Any]) -> bool:
        """Before the first step: the bias that ends a decoder, where it is 0, becomes the usual row; then `start`."""
        self._begin_usual(rows)
        return self.start is not None and self.start(self, rows, train)

    @torch.no_grad()
    def _begin_usual(self, rows: Any) -> None:
        """Without it every unit first learns what all rows have in common, and those of a tanh may never learn more
        (Burda et al. 2015, arXiv:1509.00519, section 5). A bias for each channel begins at what all its places ask for.
        """
        bias = ending(self.decoder)
        if bias is None or bias.any():
            return
        few = torch.linspace(0, len(rows) - 1, min(len(rows), 10_000), device=rows.device).round().long()
        x, wants = rows.batch(few).x, self.likelihood.wants
        size = x.nan_to_num(0.0).abs().flatten(1).amax(1)
        x = x[~(size > 1000 * size[size > 0].median())]  # a cell gone wrong would be all of the mean
        if bias.numel() < math.prod(wants) and len(wants) > 3:  # (channels, C, H, W), of which it has no H, W
            x = x.flatten(2).transpose(1, 2).flatten(0, 1)
        said = self.likelihood.usual(x)
        if said is not None and bias.numel() % said.numel() == 0:
            bias.view(said.numel(), -1).copy_(said.nan_to_num(0.0).view(-1, 1))

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None, samples: int = 1) -> Pass:
        """Rows (B, *event) through a code and back, `samples` draws a row."""

    def read_by(self, encoder: nn.Module) -> Self:
        """The same model, its weights shared, with another encoder; nothing is corrupted on the way in."""
        twin = copy.copy(self)
        twin._modules = {**self._modules, "encoder": encoder}
        twin.corruption = twin.start = None
        return twin

    def hidden(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """What the posterior reads, (B, F). Raises ValueError for context of another width than the model's."""
        self._check_told(context)
        x = self.likelihood.shown(x)
        return self.encoder(x) if context is None else self.encoder(x, context)

    def encode(self, x: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = False) -> Code:
        """The code of x: its mean, or `samples` draws a row."""
        return self.posterior(self.hidden(x, context), context, samples, draw)

    @abstractmethod
    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        """p(x|z) for codes (S, D); S is a multiple of the rows of context. Raises: as `hidden`."""

    def _decoded(self, state: Any, rows: int, context: Tensor | None) -> Distribution:
        """p(x|z) from what the decoder reads, of S rows."""
        if context is None:
            return self.likelihood(self.decoder(state))
        context = context.repeat(rows // len(context), 1)
        return self.likelihood(self.decoder(state, context), context)

    def _check_told(self, context: Tensor | None) -> None:
        got = 0 if context is None else context.shape[1]
        if got != self.context:
            raise ValueError(f"this model is told {self.context} features of every row (its context); got {got}")

    def sample(self, n: int, context: Tensor | None = None, temperature: float | Sequence[float] = 1.0) -> Distribution:
        """p(x|z) for n draws of z from the prior; its `.mean` and `.sample()` are pictures, rows, words.

        `context` (n, context) is needed where the model was trained with it: what the rows are to be. `temperature`
        is what the prior's standard deviations are multiplied by (`priors.tempered`): below 1 samples are more typical
        and less varied. Of a `Ladder` it may be one for each rung, top first.

        Raises: TypeError where there is no prior to draw from, no context for a model that was trained with it, or a
            temperature for a prior that is not made of normals. ValueError for a prior of another codebook.
        """
        return self.decode(self.draw(n, context, temperature), context)

    def draw(self, n: int, context: Tensor | None = None, temperature: float | Sequence[float] = 1.0) -> Tensor:
        """N codes from the prior, (n, D). Raises: as `sample`."""
        if self.context and context is None:
            raise TypeError(
                f"this model was told {self.context} features of every row, so sampling needs them too. Wrong: "
                "sample(n); right: sample(n, context) with (n, context) features, for labels one_hot(labels, classes), "
                "or `narrows sample RUN --label NAME`"
            )
        if self.prior is None:
            raise TypeError(
                "this model has no prior p(z) to draw from. Wrong: autoencoder(...) then sample; right: "
                "fit_prior(model, data) first, or train recipe vae, or decode codes of your own with model.decode(z)"
            )
        self.check()
        p = self.prior(context) if temperature == 1 else tempered(self.prior(context), temperature)
        z = p.expand((n,)).sample() if p.batch_shape else p.sample((n,))
        return self.posterior.embed(z) if hasattr(self.posterior, "embed") else z  # type: ignore[operator]


class Autoencoder(Model):
    """x through a narrow code and back.

        x (B, *event) -> encoder -> h (B, F) -> posterior -> z (S, D) -> decoder -> (S, C, *event) -> likelihood
          |                                         |                                                     |
      corruption, in training            q(z|x), p(z): the rate                          p(x|z): the distortion

    Every member of the family whose code is drawn in one piece is this class with other parts. `encoder` and `decoder`
    are any modules; one that reads context is called with it as second argument.

    Example:
        >>> from narrows.networks import Mlp
        >>> from narrows.posteriors import Gaussian
        >>> from narrows.priors import StandardNormal
        >>> from narrows.likelihoods import Bernoulli
        >>> q, p = Gaussian(StandardNormal(2)), Bernoulli((8,))
        >>> model = Autoencoder(Mlp((8,), (q.features,)), q, Mlp((2,), p.wants), p)
        >>> model(torch.zeros(3, 8), samples=5).px.batch_shape
        torch.Size([15])
    """

    def forward(self, x: Tensor, context: Tensor | None = None, samples: int = 1) -> Pass:
        code = self.posterior(self.hidden(x, context), context, samples)
        return Pass(self.decode(code.z, context), code)

    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        """p(x|z) for codes (S, D); S is a multiple of the rows of context. Raises: as `hidden`."""
        self._check_told(context)
        return self._decoded(z, z.shape[0], context)


class Ladder(Model):
    """x through a code of several rungs, whose posterior goes down the same way as the prior.

        x (B, *event) -> encoder -> h (B, F) -> posterior -> state (S, ...) -> decoder -> (S, C, *event) -> likelihood
                                                 |    |
                  q(z|x), p(z): a rate for each rung  z (S, D), rung beside rung, top first

    h is flat and holds what is known of all rungs; how it is read, as vectors or as maps of several sizes, is the
    posterior's matter. The state is what has become of the rungs from the top to the bottom: drawing a code leads to
    it, so `forward` runs down once; `decode` runs down through any z.

    The posterior has `rungs` (units of each, top first), `gives` (the shape of a row's state), `split(t)` (codes or
    rates rung by rung), `descend(h, context, samples) -> (Code, state)` and `state(z, context)`, and its prior has
    `redrawn` (see `posteriors.Hierarchical`, `priors.Hierarchy`). Everything is told the context.

    Raises: TypeError for a posterior without rungs.

    Example:
        >>> from narrows.networks import Mlp
        >>> from narrows.posteriors import PrecisionWeighted
        >>> from narrows.priors import Rungs
        >>> from narrows.likelihoods import Bernoulli
        >>> q, p = PrecisionWeighted(Rungs(6, rungs=(2, 4))), Bernoulli((8,))
        >>> model = Ladder(Mlp((8,), (q.features,)), q, Mlp(q.gives, p.wants), p)
        >>> model(torch.zeros(3, 8), samples=5).code.z.shape
        torch.Size([15, 6])
    """

    def __init__(
        self,
        encoder: nn.Module,
        posterior: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        corruption: Callable[[Tensor], Tensor] | None = None,
        context: int = 0,
    ) -> None:
        if not hasattr(posterior, "descend") or not hasattr(posterior, "rungs"):
            raise TypeError(
                "a ladder has a posterior with rungs. Wrong: Ladder(encoder, Gaussian(StandardNormal(latent)), ...); "
                f"right: Ladder(encoder, PrecisionWeighted(Rungs(latent)), ...); got {type(posterior).__name__}"
            )
        super().__init__(encoder, posterior, decoder, likelihood, corruption, context)

    @property
    def rungs(self) -> tuple[int, ...]:
        """Units of each rung, top first."""
        return tuple(self.posterior.rungs)  # type: ignore[arg-type]

    def by_rung(self, rates: Tensor) -> Tensor:
        """The rate of each rung (..., L) from those of its units (..., G), nats."""
        return torch.stack([part.sum(-1) for part in self.posterior.split(rates)], -1)  # type: ignore[operator]

    def forward(self, x: Tensor, context: Tensor | None = None, samples: int = 1) -> Pass:
        code, state = self.posterior.descend(self.hidden(x, context), context, samples)  # type: ignore[operator]
        return Pass(self._decoded(state, code.z.shape[0], context), code)

    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        """p(x|z) for codes (S, D); S is a multiple of the rows of context. Raises: as `hidden`."""
        self._check_told(context)
        return self._decoded(self.posterior.state(z, context), z.shape[0], context)  # type: ignore[operator]
