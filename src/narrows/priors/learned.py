"""Priors that learn by gradients: in training with the model, or afterwards from its codes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Categorical as Choice
from torch.distributions import (
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    OneHotCategorical,
    TransformedDistribution,
)
from torch.distributions.transforms import ReshapeTransform
from torch.nn.functional import softplus

from narrows.flows import NSF, Flowed, Masked
from narrows.networks import Mlp
from narrows.priors.fitting import climb
from narrows.priors.fixed import ONE, Prior, expectation_maximisation

__all__ = ["Autoregressive", "Categorical", "ConditionalNormal", "Flow", "Mixture", "VampPrior", "one_hot"]

STEPS = 1_000  # of a fit by gradients at most


class _Mixed(MixtureSameFamily):
    """A mixture of many components.

    Diagonal ones are scored by two products, z^2 against 1 / sigma^2 and z against mu / sigma^2, in float64 since their
    difference cancels: no number is held for each draw, component and unit. Others go a few million numbers at a time.
    """

    def log_prob(self, z: Tensor) -> Tensor:  # type: ignore[override]
        parts: Any = self._component_distribution
        if isinstance(parts, Independent) and z.device.type != "mps":  # which has no float64
            mean, sigma = parts.base_dist.loc.double(), parts.base_dist.scale.double()
            precision, flat = sigma.reciprocal().square(), z.reshape(-1, z.shape[-1]).double()
            logits = self._mixture_distribution.logits.log_softmax(-1).double()
            own = logits - ((mean * mean * precision).sum(-1) + 2 * sigma.log().sum(-1)) / 2
            far = torch.addmm(own, flat.square(), precision.T, alpha=-0.5)
            log_p = torch.addmm(far, flat, (mean * precision).T).logsumexp(-1)
            return (log_p - z.shape[-1] * math.log(2 * math.pi) / 2).to(z.dtype).view(z.shape[:-1])
        size = max(1, 4_000_000 // (self._num_component * z.shape[-1]))
        score: Callable[[Tensor], Tensor] = super().log_prob
        scored = [score(part) for part in z.reshape(-1, z.shape[-1]).split(size)]
        return (scored[0] if len(scored) == 1 else torch.cat(scored)).view(z.shape[:-1])


class Mixture(Prior):
    r"""Several normals whose weights, means and scales learn with the model, or by expectation maximisation (`fit`).

    .. math:: p(z) = \sum_c \pi_c \, \mathcal N(z; m_c, L_c L_c^\top)

    Means begin as draws from N(0, I), scales at 1. The rate under it is estimated from draws.

    Arguments: `components`; `full` for any covariances, else they are diagonal.
    Shapes: () x (latent,).
    Raises: ValueError for fewer than one component.
    Reference: Deep Unsupervised Clustering with Gaussian Mixture Variational Autoencoders (Dilokthanakul et al., 2016),
    arXiv:1611.02648, has such priors; the name for it in Tomczak & Welling 2018 is MoG, section 4.

    Example:
        >>> Mixture(2, components=3)().log_prob(torch.zeros(5, 2)).shape
        torch.Size([5])
    """

    def __init__(self, latent: int, components: int = 10, full: bool = False) -> None:
        super().__init__(latent)
        if components < 1:
            raise ValueError(f"a mixture has at least one component; got components={components}")
        self.components, self.full = components, full
        self.logits = nn.Parameter(torch.zeros(components))
        self.mean = nn.Parameter(torch.randn(components, latent))
        one = torch.full((latent,), math.log(math.e - 1))  # softplus of it is 1
        self.raw = nn.Parameter((one.diag() if full else one).repeat(components, *[1] * (1 + full)))

    def forward(self, context: Tensor | None = None) -> Distribution:
        parts: Distribution
        if self.full:
            scale = self.raw.tril(-1) + softplus(self.raw.diagonal(dim1=-2, dim2=-1)).diag_embed()
            parts = MultivariateNormal(self.mean, scale_tril=scale, validate_args=False)
        else:
            parts = Independent(Normal(self.mean, softplus(self.raw), validate_args=False), 1, validate_args=False)
        return _Mixed(Choice(logits=self.logits, validate_args=False), parts, validate_args=False)

    @torch.no_grad()
    def fit(self, z: Tensor) -> None:
        """Maximum likelihood for codes (n, latent). Raises ValueError for fewer codes than components."""
        weights, means, spread = expectation_maximisation(z, self.components, "full" if self.full else "diag")
        scale = torch.linalg.cholesky(spread) if self.full else spread.sqrt()
        width = scale.diagonal(dim1=-2, dim2=-1) if self.full else scale
        raw = width + (-(-width).expm1()).log()  # the inverse of softplus
        self.logits.copy_(weights.log())
        self.mean.copy_(means)
        self.raw.copy_(scale.tril(-1) + raw.diag_embed() if self.full else raw)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, components={self.components}, full={self.full}"


class VampPrior(Prior):
    r"""The mixture of what the encoder makes of learned pseudo-inputs: an aggregated posterior of as many rows.

    .. math:: p(z) = \frac1K \sum_k q(z \mid u_k)

    A model built with it hands over its shape and its encoder (`attach`), which stay the model's: the prior owns the
    pseudo-inputs u (pseudo, *event) alone, in model units. `fit` sets them to random training rows before the first
    step. A model that is told context learns the pseudo-inputs' context with them. The rate is estimated from draws.

    Arguments: `pseudo` pseudo-inputs, K: the paper's 500; on small data a tenth of the rows is plenty.
    Shapes: () x (latent,).
    Raises: ValueError for fewer than one, TypeError for a posterior that is no normal, or without a model.
    Reference: VAE with a VampPrior (Tomczak & Welling, 2018), arXiv:1705.07120, equation 9.

    Example:
        >>> from functools import partial
        >>> from narrows.recipes import vae
        >>> model, _ = vae((8,), latent=2, prior=partial(VampPrior, pseudo=5))
        >>> model.prior().sample((3,)).shape
        torch.Size([3, 2])
    """

    def __init__(self, latent: int, pseudo: int = 500) -> None:
        super().__init__(latent)
        if pseudo < 1:
            raise ValueError(f"a VampPrior has at least one pseudo-input; got pseudo={pseudo}")
        self.pseudo = pseudo
        self.inputs: nn.Parameter | None
        self.told: nn.Parameter | None
        self.register_parameter("inputs", None)
        self.register_parameter("told", None)
        self.hidden: Callable[..., Tensor] | None = None
        self.given: Callable[[Tensor], Distribution] | None = None

    def attach(self, model: Any) -> None:
        """Makes the pseudo-inputs of the model's shape, and keeps what reads them: bound methods, which copies follow.

        (A module kept here would be a part of itself.)
        """
        if not hasattr(model.posterior, "given"):
            raise TypeError(
                "a VampPrior mixes the normals q(z|u) of its pseudo-inputs, and "
                f"{type(model.posterior).__name__} gives none. Take posterior Gaussian or FullGaussian"
            )
        if self.inputs is None or self.inputs.shape[1:] != model.shape:
            self.inputs = nn.Parameter(torch.rand(self.pseudo, *model.shape))
            self.told = nn.Parameter(torch.zeros(self.pseudo, model.context)) if model.context else None
        self.hidden, self.given, model.start = model.hidden, model.posterior.given, self.start

    @torch.no_grad()
    def start(self, model: Any, rows: Any, train: Callable[..., Any]) -> bool:
        """Before the first step: the pseudo-inputs are training rows, all different where there are as many."""
        again = torch.randint(len(rows), (max(0, self.pseudo - len(rows)),))
        batch = rows.batch(torch.cat([torch.randperm(len(rows))[: self.pseudo], again]))
        x = batch.x.clone()
        x[len(rows) :] += 0.1 * torch.randn_like(x[len(rows) :])  # two that are equal would stay so
        self.inputs.copy_(x)  # type: ignore[union-attr]
        if self.told is not None:
            self.told.copy_(batch.context)
        return False

    def forward(self, context: Tensor | None = None) -> Distribution:
        if self.hidden is None or self.given is None or self.inputs is None:
            raise TypeError(
                "a VampPrior reads its pseudo-inputs through the encoder of a model: build the Autoencoder with it, "
                "Autoencoder(encoder, Gaussian(VampPrior(latent)), decoder, likelihood)"
            )
        equal = Choice(logits=self.inputs.new_zeros(self.pseudo), validate_args=False)
        return _Mixed(equal, self.given(self.hidden(self.inputs, self.told)), validate_args=False)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, pseudo={self.pseudo}"


class _Standardised(Prior, ABC):
    """A density of codes that are first brought to mean 0 and deviation 1; what `fit` finds by gradients."""

    def __init__(self, latent: int) -> None:
        super().__init__(latent)
        self.centre: Tensor
        self.width: Tensor
        self.register_buffer("centre", torch.zeros(latent))
        self.register_buffer("width", torch.ones(latent))

    @abstractmethod
    def begin(self) -> None:
        """Draws weights anew."""

    def fit(self, z: Tensor) -> None:
        """Maximum likelihood for codes (n, latent), from weights drawn anew; a tenth of the codes says when to stop.

        Adam on 256 codes a time for 1,000 steps, whose size falls from 0.005 along a cosine; it ends early when ten
        looks, one every 50 steps, have brought nothing. Units that never change keep a little width.

        Raises: ValueError for fewer than 20 codes.
        """
        if len(z) < 20:
            raise ValueError(
                f"{type(self).__name__} learns from at least 20 codes; got {len(z)}. Take more rows, or "
                "MultivariateGaussian"
            )
        z = z.detach().to(self.centre)
        spread = z.std(0, correction=0)
        self.centre.copy_(z.mean(0))
        self.width.copy_(spread.clamp_min(1e-3 * float(spread.max().clamp_min(1e-3))))
        self.begin()
        climb(self, lambda z: self().log_prob(z), z, steps=STEPS)


class Flow(_Standardised):
    r"""A normal seen through an invertible map, which learns with the model or from its codes (`fit`).

    .. math:: \log p(z) = \log \mathcal N(f(z); 0, I) + \log |\det f'(z)|

    Codes are scored in one pass and drawn in `latent`.

    Arguments: `flow` of module `flows` that has an inverse, MAF or NSF: a class or a `partial`.
    Shapes: () x (latent,).
    Raises: TypeError for a flow without an inverse.
    References: Papamakarios et al. 2017, arXiv:1705.07057; as the prior of a code, Variational Lossy Autoencoder (Chen
    et al., 2017), arXiv:1611.02731, section 3.2.

    Example:
        >>> Flow(2)().sample((5,)).shape
        torch.Size([5, 2])
    """

    def __init__(self, latent: int, flow: Callable[..., nn.Module] = NSF) -> None:
        super().__init__(latent)
        if not getattr(getattr(flow, "func", flow), "invertible", False):
            raise TypeError(
                "the flow of a prior scores codes one way and draws them the other, so it needs an inverse: take "
                f"flow=MAF or flow=NSF; got {getattr(flow, '__name__', flow)}"
            )
        self.flow = flow
        self.begin()

    def begin(self) -> None:
        """Draws weights anew."""
        self.map = self.flow(self.latent, features=0).to(self.centre)

    def forward(self, context: Tensor | None = None) -> Distribution:
        zero, one = torch.zeros_like(self.centre), torch.ones_like(self.width)
        base = Independent(Normal(zero, one, validate_args=False), 1, validate_args=False)
        return Flowed(base, self._back, self._there)

    def _back(self, z: Tensor) -> tuple[Tensor, Tensor]:
        e, log_det = self.map((z - self.centre) / self.width)
        return e, log_det - self.width.log().sum()

    def _there(self, e: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = self.map.inverse(e)  # type: ignore[operator, union-attr]
        return self.centre + self.width * z, log_det + self.width.log().sum()


class _Chain(Distribution):
    """One unit after the other, each a mixture of normals."""

    def __init__(self, prior: "Autoregressive") -> None:
        super().__init__(torch.Size(), torch.Size((prior.latent,)), validate_args=False)
        self.prior = prior

    def _parts(self, x: Tensor) -> MixtureSameFamily:
        """p(x_i | x_<i) for all i, batch (..., latent), of standardised codes."""
        logits, mean, s = self.prior.network(x).chunk(3, -1)  # (..., latent, components) each
        spread = torch.linspace(-1.5, 1.5, self.prior.components, dtype=x.dtype, device=x.device)  # apart at first
        parts = Normal(mean + spread, softplus(s) + 1e-3, validate_args=False)
        return MixtureSameFamily(Choice(logits=logits, validate_args=False), parts, validate_args=False)

    def log_prob(self, z: Tensor) -> Tensor:  # type: ignore[override]
        x = (z - self.prior.centre) / self.prior.width
        return self._parts(x).log_prob(x).sum(-1) - self.prior.width.log().sum()

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:  # type: ignore[override]
        x = self.prior.centre.new_zeros(*sample_shape, self.prior.latent)
        for unit in range(self.prior.latent):
            x[..., unit] = self._parts(x).sample()[..., unit]
        return self.prior.centre + self.prior.width * x


class Autoregressive(_Standardised):
    r"""One unit after the other, each a mixture of normals that the units before it shape.

    .. math:: p(z) = \prod_i \sum_c \pi_c(z_{<i}) \, \mathcal N\big(z_i; m_c(z_{<i}), s_c^2(z_{<i})\big)

    It learns with the model or from its codes (`fit`). Codes are scored in one pass and drawn in `latent`.

    Arguments: `components` of each mixture; `hidden` widths of the masked network.
    Shapes: () x (latent,).
    Reference: MADE (Germain et al., 2015), arXiv:1502.03509; with mixtures of normals, RNADE (Uria et al., 2013),
    arXiv:1306.0186, equations 1 and 2.

    Example:
        >>> Autoregressive(2)().sample((5,)).shape
        torch.Size([5, 2])
    """

    def __init__(self, latent: int, components: int = 10, hidden: tuple[int, ...] = (64, 64)) -> None:
        super().__init__(latent)
        if components < 1:
            raise ValueError(f"a mixture has at least one component; got components={components}")
        self.components, self.hidden = components, tuple(hidden)
        self.begin()

    def begin(self) -> None:
        """Draws weights anew."""
        self.network = Masked(self.latent, 3 * self.components, hidden=self.hidden).to(self.centre)

    def forward(self, context: Tensor | None = None) -> Distribution:
        return _Chain(self)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, components={self.components}, hidden={self.hidden}"


class _OneHot(OneHotCategorical):
    """Torch's own, less its look at the values, which waits for a device and cannot be exported or compiled."""

    def __init__(self, logits: Tensor) -> None:
        self._categorical = Choice(logits=logits, validate_args=False)
        Distribution.__init__(self, logits.shape[:-1], logits.shape[-1:], validate_args=False)

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_OneHot":
        return _OneHot(self._categorical.logits.expand(*batch_shape, -1))


def one_hot(logits: Tensor) -> TransformedDistribution:
    """Independent choices with logits (..., V, k), each one-hot and laid side by side: event (V k,)."""
    choices = Independent(_OneHot(logits), 1, validate_args=False)
    flat = ReshapeTransform(logits.shape[-2:], torch.Size((logits.shape[-2:].numel(),)))
    return TransformedDistribution(choices, [flat], validate_args=False)


class Categorical(Prior):
    r"""Independent choices among `classes`, one-hot and side by side: the prior of a `posteriors.Concrete` code.

    .. math:: p(z) = \prod_v \prod_c \pi_{vc}^{z_{vc}}

    All classes are equally likely, unless `fit` takes their frequencies from codes.

    Arguments: `latent` units, as many choices as classes go into it; `classes` of each, None for the largest divisor of
        `latent` up to 10, or one choice among all units where there is none.
    Shapes: () x (latent,).
    Raises: ValueError for classes that do not divide the units, or fewer than 2.

    Example:
        >>> Categorical(6, classes=3)().sample().view(2, 3).sum(1)
        tensor([1., 1.])
    """

    discrete = True

    def __init__(self, latent: int, classes: int | None = None) -> None:
        super().__init__(latent)
        if classes is None:
            classes = next((c for c in range(min(10, latent), 1, -1) if latent % c == 0), latent)
        if classes < 2 or latent % classes:
            raise ValueError(
                f"a code of choices has at least 2 classes for each, and as many units as choices times classes; got "
                f"latent={latent}, classes={classes}"
            )
        self.classes, self.variables = classes, latent // classes
        self.logits: Tensor
        self.register_buffer("logits", torch.zeros(self.variables, classes))

    def forward(self, context: Tensor | None = None) -> Distribution:
        return one_hot(self.logits)

    def fit(self, z: Tensor) -> None:
        """The classes' frequencies in codes (n, latent), each counted once more than seen: none is impossible."""
        chosen = z.unflatten(-1, (self.variables, self.classes)).argmax(-1)  # (n, V)
        counts = torch.nn.functional.one_hot(chosen, self.classes).sum(0) + 1
        self.logits.copy_((counts / counts.sum(-1, keepdim=True)).log())

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, classes={self.classes}"


class ConditionalNormal(Prior):
    r"""A normal whose mean and spread are learned from the context: what codes are like, given what a row is.

    .. math:: p(z \mid c) = \mathcal N(z; \mu(c), \operatorname{diag} \sigma^2(c))

    `context` is the number of features that it reads, `hidden` the widths of the perceptron that reads them. A
    perceptron that says nothing but zeros gives the standard normal.

    Shapes: context (B, context) -> (B,) x (latent,).
    Raises: ValueError without features to read, TypeError where a call brings none.
    Reference: Learning Structured Output Representation using Deep Conditional Generative Models (Sohn et al., 2015),
    NeurIPS 28, equation 4: the prior network.

    Example:
        >>> ConditionalNormal(2, context=3)(torch.eye(3)).batch_shape
        torch.Size([3])
    """

    closed = True

    def __init__(self, latent: int, context: int, hidden: tuple[int, ...] = (64,)) -> None:
        super().__init__(latent)
        if context < 1:
            raise ValueError(
                f"a conditional prior reads the context, features that a model is told of every row; got "
                f"context={context}. Give context=10, for ten classes, or take prior=StandardNormal"
            )
        self.context, self.hidden = context, tuple(hidden)
        self.network = Mlp((context,), (2 * latent,), hidden=self.hidden)

    def forward(self, context: Tensor | None = None) -> Distribution:
        if context is None:
            raise TypeError(f"this prior is p(z|c) and needs {self.context} features of context; got none")
        mean, s = self.network(context).chunk(2, -1)  # (B, latent) each
        sigma = softplus(s + ONE) + 1e-6
        return Independent(Normal(mean, sigma, validate_args=False), 1, validate_args=False)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, context={self.context}, hidden={self.hidden}"
