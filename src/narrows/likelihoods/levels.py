"""Values on a grid: black and white, grey levels, classes."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli as BernoulliDistribution
from torch.distributions import Categorical as CategoricalDistribution
from torch.distributions import Distribution, MixtureSameFamily, constraints
from torch.nn.functional import logsigmoid, softplus

from narrows.likelihoods.common import Likelihood

__all__ = ["Bernoulli", "Categorical", "DiscretisedLogistic", "LogisticMixture"]


class _Coins(BernoulliDistribution):
    """torch's Bernoulli with a log-probability in fewer passes over memory: x l - log(1 + e^l)."""

    def log_prob(self, value: Tensor) -> Tensor:
        # beyond the threshold log(1 + e^l) is l to the last bit of a double
        return -torch.addcmul(softplus(self.logits, threshold=40), value, self.logits, value=-1)


class Bernoulli(Likelihood):
    r"""Black or white: each value is 1 with probability sigmoid(logit).

    .. math:: \log p(x \mid z) = \sum_d x_d l_d - \log(1 + e^{l_d})

    `relaxed` admits grey values in [0, 1]. The sum is then no likelihood of anything (it lacks the constant of the
    continuous Bernoulli, Loaiza-Ganem & Cunningham 2019, arXiv:1907.06845) and only serves comparison with peers.

    Shapes: logits (S, 1, *event) -> p(x|z) over (S,) x event.

    Example:
        >>> Bernoulli((2,))(torch.zeros(3, 1, 2)).log_prob(torch.ones(3, 2))  # 2 log 1/2
        tensor([-1.3863, -1.3863, -1.3863])
    """

    def __init__(self, shape: tuple[int, ...], relaxed: bool = False) -> None:
        super().__init__(shape)
        self.relaxed = relaxed
        self.discrete = not relaxed
        self.support = constraints.unit_interval if relaxed else constraints.boolean

    def usual(self, x: Tensor) -> Tensor:
        """Log-odds of the mean, of at least 1 in 1,000 (Burda et al. 2015, arXiv:1509.00519, took them too)."""
        return x.nanmean(0, keepdim=True).clamp(1e-3, 1 - 1e-3).logit()

    def seen_through(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The logarithm of the ratio of the two normal densities of x, about 1 and about 0."""
        return ((x - 0.5) / sigma.square()).unsqueeze(1)

    def values(self, parameters: Tensor, context: Tensor | None = None) -> Distribution:
        return _Coins(logits=parameters.squeeze(1), validate_args=False)


class _Levels(constraints.Constraint):
    """k / (levels - 1) for k = 0 ... levels - 1."""

    is_discrete = True

    def __init__(self, levels: int) -> None:
        self.levels = levels
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        k = value * (self.levels - 1)
        return (k > -0.5) & (k < self.levels - 0.5) & ((k - k.round()).abs() < 1e-3 * max(1.0, self.levels / 256))

    def __repr__(self) -> str:
        return f"k / {self.levels - 1} for k = 0 ... {self.levels - 1}"


def _log_shares(x: Tensor, classes: int) -> Tensor:
    """Log-shares (classes, *event) of rows (n, *event), whose values are numbers of classes, NaN for none; one row
    more is spread evenly over the classes.
    """
    flat, width = x.flatten(1), x[0].numel()
    place = flat.nan_to_num(classes).round().long() * width + torch.arange(width, device=x.device)
    counts = torch.bincount(place.flatten(), minlength=(classes + 1) * width).view(classes + 1, width)[:classes]
    return (counts + 1 / classes).log().sub(math.log(len(x) + 1)).to(x.dtype).view(classes, *x.shape[1:])


class _Discrete(Likelihood):
    """A probability for each of `levels` evenly spaced values."""

    discrete = True

    def __init__(self, shape: tuple[int, ...], levels: int = 256) -> None:
        if levels < 2:
            raise ValueError(f"{type(self).__name__} needs at least 2 levels; got {levels}")
        super().__init__(shape)
        self.levels = levels
        self.support = _Levels(levels)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, levels={self.levels}"


class LevelsDistribution(Distribution):
    """A categorical over k / (levels - 1): the values are on the grid of the data, not indices.

    Shapes: logits (..., levels) -> batch (...), event ().
    """

    arg_constraints = {"logits": constraints.real_vector}  # noqa: RUF012 (torch's own declaration)

    def __init__(self, logits: Tensor) -> None:
        self.base = CategoricalDistribution(logits=logits, validate_args=False)
        self.levels = logits.shape[-1]
        super().__init__(self.base.batch_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        grid = torch.linspace(0, 1, self.levels, device=self.base.logits.device, dtype=self.base.logits.dtype)
        return self.base.probs @ grid

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own)
        return self.base.sample(sample_shape).to(self.base.logits.dtype) / (self.levels - 1)

    def log_prob(self, value: Tensor) -> Tensor:
        return self.base.log_prob((value * (self.levels - 1)).round())


class Categorical(_Discrete):
    r"""One free probability for each level of each value; knows nothing of their order.

    .. math:: \log p(x \mid z) = \sum_d l_{d, k_d} - \log \sum_k e^{l_{d, k}}, \quad k_d = (L - 1) x_d

    Shapes: logits (S, levels, *event) -> p(x|z) over (S,) x event.

    Example:
        >>> Categorical((2,), levels=4)(torch.zeros(1, 4, 2)).log_prob(torch.ones(1, 2))  # 2 log 1/4
        tensor([-2.7726])
    """

    def __init__(self, shape: tuple[int, ...], levels: int = 256) -> None:
        super().__init__(shape, levels)
        self.channels = levels

    def usual(self, x: Tensor) -> Tensor:
        """Logarithms of the levels' shares."""
        return _log_shares(x * (self.levels - 1), self.levels)

    def seen_through(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Logarithms of the normal densities of x about each level (Kingma et al. 2021, arXiv:2107.00630, sec. 3.3)."""
        levels = torch.linspace(0, 1, self.levels, dtype=x.dtype, device=x.device)
        levels = levels.view(-1, *[1] * len(self.shape))
        return -((x.unsqueeze(1) - levels) / sigma).square() / 2

    def values(self, parameters: Tensor, context: Tensor | None = None) -> Distribution:
        return LevelsDistribution(parameters.movedim(1, -1))


class LogisticDistribution(Distribution):
    r"""A logistic with location m and scale s, rounded to the grid k / (levels - 1); the outer bins take the tails.

    With a, b the upper and lower edge of a bin in units of s, an inner bin has the probability

    .. math:: \sigma(a) - \sigma(b) = \sigma(a)\,\sigma(-b)\,(1 - e^{b - a}),

    whose logarithm is a sum of three that never cancel; an outer bin has only the first or the second factor.

    Shapes: location, scale (...) -> batch (...), event ().
    Reference: PixelCNN++ (Salimans et al., 2017), arXiv:1701.05517, equation 2, for the discretisation.
    """

    arg_constraints = {"location": constraints.real, "scale": constraints.positive}  # noqa: RUF012

    def __init__(self, location: Tensor, log_scale: Tensor, levels: int) -> None:
        self.location, self.log_scale, self.levels = location, log_scale, levels
        super().__init__(location.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        half = 0.5 / (self.levels - 1)
        inverse = (-self.log_scale).exp()
        centred = value - self.location
        upper, lower = (centred + half) * inverse, (centred - half) * inverse
        first, last = value < half, value > 1 - half
        inner = torch.log(-torch.expm1(-2 * half * inverse))
        return (
            torch.where(last, 0.0, logsigmoid(upper))
            + torch.where(first, 0.0, logsigmoid(-lower))
            + torch.where(first | last, 0.0, inner)
        )

    @property
    def mean(self) -> Tensor:
        # E[k] = sum over k >= 1 of P(value >= k); one level at a time, so that memory does not grow with the levels
        inverse = (-self.log_scale).exp()
        scaled, total = self.location * inverse, torch.zeros_like(self.location)
        for k in range(1, self.levels):
            total += torch.add(scaled, inverse, alpha=-(k - 0.5) / (self.levels - 1)).sigmoid_()
        return total / (self.levels - 1)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own)
        with torch.no_grad():
            u = torch.rand(self._extended_shape(sample_shape), device=self.location.device, dtype=self.location.dtype)
            value = self.location + self.log_scale.exp() * torch.logit(u, eps=1e-7)
            return (value * (self.levels - 1)).round().clamp(0, self.levels - 1) / (self.levels - 1)


class DiscretisedLogistic(_Discrete):
    r"""Whole numbers with an order (grey levels, counts up to a bound): location and scale for each value.

    Shapes: (S, 2, *event), location in model units and log-scale, -> p(x|z) over (S,) x event.
    Reference: PixelCNN++ (Salimans et al., 2017), arXiv:1701.05517, section 2.1, with one component.

    Example:
        >>> px = DiscretisedLogistic((1,), levels=3)(torch.zeros(1, 2, 1))
        >>> float(sum(px.log_prob(torch.full((1, 1), k / 2)).exp() for k in range(3)))
        1.0
    """

    channels = 2

    def usual(self, x: Tensor) -> Tensor:
        """Locations at the mean, and scales as wide as they are where nothing is said."""
        location = x.nanmean(0) - 0.5
        return torch.stack([location, torch.zeros_like(location)])

    def seen_through(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Location x and scale sigma^2 / d, d between levels: the odds of two neighbours are then those of the normal
        densities of x about each of them, and so are the probabilities, but for those of levels further away.
        """
        return torch.stack([x - 0.5, _said(sigma.square() * (self.levels - 1), self.levels).expand_as(x)], 1)

    def values(self, parameters: Tensor, context: Tensor | None = None) -> Distribution:
        location, log_scale = parameters.unbind(1)
        return LogisticDistribution(location + 0.5, _log_scale(log_scale, self.levels), self.levels)


def _log_scale(said: Tensor, levels: int) -> Tensor:
    """Within a hundredth of a level, below which a bin's probability is 0 or 1, and e^3 times the range, above which
    only the outer bins are left; about e^-2 of the range where the decoder says 0.
    """
    floor = math.log(0.01 / (levels - 1))
    return (floor + softplus(said - 2.0 - floor)).clamp_max(3.0)


def _said(scale: Tensor, levels: int) -> Tensor:
    """What a decoder would say for a scale: `_log_scale` the other way, and next to its floor for less."""
    floor = math.log(0.01 / (levels - 1))
    above = (scale.log() - floor).clamp_min(1e-4)
    return above + torch.log(-torch.expm1(-above)) + 2.0 + floor


class LogisticMixture(_Discrete):
    r"""Grey levels with several likely places: a mixture of discretised logistics for each value.

    .. math:: p(x_d \mid z) = \sum_c \pi_{dc} \, (\sigma(a_{dc}) - \sigma(b_{dc}))

    with a, b the edges of the value's bin in units of the component's scale, counted from its location; the outer bins
    take the tails. Each value has its own mixture, and the channels of a pixel are not coupled. The locations begin
    spread evenly over the range, so that components have something to share out.

    Shapes: (S, 3 components, *event), first the logits of pi, then locations in model units, then log-scales -> p(x|z)
    over (S,) x event.
    Raises: ValueError for fewer than one component or two levels.
    Reference: PixelCNN++ (Salimans et al., 2017), arXiv:1701.05517, section 2.1, equations 1 and 2.

    Example:
        >>> px = LogisticMixture((1,), levels=3, components=2)(torch.zeros(1, 6, 1))
        >>> round(float(sum(px.log_prob(torch.full((1, 1), k / 2)).exp() for k in range(3))), 6)
        1.0
    """

    def __init__(self, shape: tuple[int, ...], levels: int = 256, components: int = 5) -> None:
        super().__init__(shape, levels)
        if components < 1:
            raise ValueError(f"a mixture has at least one component; got components={components}")
        self.components, self.channels = components, 3 * components
        self.start: Tensor
        self.register_buffer("start", (torch.arange(components) + 0.5) / components, persistent=False)

    def usual(self, x: Tensor) -> Tensor:
        """Weights by the shares of the values that begin next to each component; locations and scales stay."""
        logits = _log_shares((x * self.components - 0.5).clamp(0, self.components - 1), self.components)
        return torch.cat([logits, torch.zeros_like(logits), torch.zeros_like(logits)])

    def seen_through(self, x: Tensor, sigma: Tensor) -> Tensor:
        """All components in one place, as `DiscretisedLogistic`."""
        starts = self.start.view(-1, *[1] * len(self.shape))
        location = x.unsqueeze(1) - starts  # (S, components, *event)
        scale = _said(sigma.square() * (self.levels - 1), self.levels).expand_as(location)
        return torch.cat([torch.zeros_like(location), location, scale], 1)

    def values(self, parameters: Tensor, context: Tensor | None = None) -> Distribution:
        logits, location, log_scale = parameters.unflatten(1, (3, -1)).movedim(2, -1).unbind(1)  # (S, *event, C) each
        parts = LogisticDistribution(location + self.start, _log_scale(log_scale, self.levels), self.levels)
        weights = CategoricalDistribution(logits=logits, validate_args=False)
        return MixtureSameFamily(weights, parts, validate_args=False)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, components={self.components}"
