"""Counts: whole numbers from 0 up, without a bound, scored as they are stored."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Gamma, constraints
from torch.nn.functional import softplus

from narrows.likelihoods.common import Likelihood

__all__ = ["NegativeBinomial", "Poisson"]

HIGHEST = 30.0  # logarithm of the largest rate: e^30 events, far beyond what float32 counts


def _wide(*tensors: Tensor) -> list[Tensor]:
    """In float64 where the device has it: log x! of a count of 10^6 has no decimals left in float32."""
    return [t if t.device.type == "mps" else t.double() for t in tensors]


class _Counts(Distribution):
    """What distributions of counts share: the logarithm of their mean, (...) -> batch (...), event ()."""

    arg_constraints = {"log_mean": constraints.real}  # noqa: RUF012 (torch's own declaration)
    support = constraints.nonnegative_integer

    def __init__(self, log_mean: Tensor) -> None:
        self.log_mean = log_mean
        super().__init__(log_mean.shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp()

    def _rates(self, sample_shape: Any) -> Tensor:
        return self.mean.expand(self._extended_shape(sample_shape))

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 (torch's own)
        with torch.no_grad():
            return torch.poisson(self._rates(sample_shape))


class PoissonDistribution(_Counts):
    """x log mean - mean - log x!."""

    @property
    def variance(self) -> Tensor:
        return self.mean

    def log_prob(self, value: Tensor) -> Tensor:
        x, log_mean = _wide(value, self.log_mean)
        return (x * log_mean - log_mean.exp() - torch.lgamma(x + 1)).to(self.log_mean.dtype)


class NegativeBinomialDistribution(_Counts):
    r"""A Poisson whose rate is itself Gamma distributed, of shape theta: variance mean + mean^2 / theta.

    .. math:: \log p(x) = \log \frac{\Gamma(x + \theta)}{\Gamma(\theta)\, x!}
              + \theta \log \frac{\theta}{\theta + \mu} + x \log \frac{\mu}{\theta + \mu}
    """

    def __init__(self, log_mean: Tensor, log_dispersion: Tensor) -> None:
        super().__init__(log_mean)
        self.log_dispersion = log_dispersion.expand_as(log_mean)

    @property
    def variance(self) -> Tensor:
        return self.mean + (2 * self.log_mean - self.log_dispersion).exp()

    def _rates(self, sample_shape: Any) -> Tensor:
        theta = self.log_dispersion.exp()
        return Gamma(theta, theta / self.mean, validate_args=False).sample(sample_shape)

    def log_prob(self, value: Tensor) -> Tensor:
        x, log_mean, log_theta = _wide(value, self.log_mean, self.log_dispersion)
        theta, odds = log_theta.exp(), log_mean - log_theta
        ways = torch.lgamma(x + theta) - torch.lgamma(theta) - torch.lgamma(x + 1)
        return (ways - theta * softplus(odds) - x * softplus(-odds)).to(self.log_mean.dtype)


class _Count(Likelihood):
    r"""A mean for each value, from its logarithm.

    With `library`, the row's total is an offset: the decoder says how it is shared out among the values,

    .. math:: \mu_d = e^t \operatorname{softmax}(l)_d

    and t, the logarithm of the total, is the last feature of the row's context, where encoder and decoder see it too.
    """

    discrete = counts = True
    support = constraints.nonnegative_integer

    def __init__(self, shape: tuple[int, ...], library: bool = False) -> None:
        super().__init__(shape)
        self.library = library

    def log_mean(self, parameters: Tensor, context: Tensor | None) -> Tensor:
        """Of each value, (S, *event). Raises TypeError where a total is wanted and no context is given."""
        said = parameters.squeeze(1)
        if self.library:
            if context is None:
                raise TypeError(
                    f"{type(self).__name__}(library=True) shares out the total of a row, and reads its logarithm from "
                    "the last feature of the row's context; there is none. Wrong: Batch(x, x); right: Batch(x, x, "
                    "context=x.sum(1, keepdim=True).log()) and a recipe with context=1, or library=False"
                )
            total = context[:, -1].view(-1, *[1] * len(self.shape))
            said = total + said.flatten(1).log_softmax(1).view_as(said)
        return said.clamp_max(HIGHEST)

    def usual(self, x: Tensor) -> Tensor:
        """The mean's logarithm, of at least 1 in 1,000; with `library` what it shares out is the same."""
        return x.nanmean(0, keepdim=True).clamp_min(1e-3).log()

    def seen_through(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Logarithms of means, where x is log(1 + value); how near it is, the likelihood's own spread says."""
        return x.clamp_min(1e-3).expm1().log().unsqueeze(1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, library={self.library}"


class Poisson(_Count):
    r"""Counts of independent events: variance and mean are the same.

    .. math:: \log p(x \mid z) = \sum_d x_d \log \mu_d - \mu_d - \log x_d!, \quad \mu_d = e^{l_d}

    With `library=True` the means share out the row's total, whose logarithm is the last feature of the context.

    Shapes: log-rates (S, 1, *event) -> p(x|z) over (S,) x event. The encoder reads log(1 + x).

    Example:
        >>> Poisson((2,))(torch.zeros(1, 1, 2)).log_prob(torch.zeros(1, 2))  # -2 at a rate of 1 each
        tensor([-2.])
    """

    def values(self, parameters: Tensor, context: Tensor | None = None) -> Distribution:
        return PoissonDistribution(self.log_mean(parameters, context))


class NegativeBinomial(_Count):
    r"""Counts that vary more than independent events do, by a dispersion theta learned for each value.

    .. math:: \log p(x \mid z) = \sum_d \log \frac{\Gamma(x_d + \theta_d)}{\Gamma(\theta_d)\, x_d!}
              + \theta_d \log \frac{\theta_d}{\theta_d + \mu_d} + x_d \log \frac{\mu_d}{\theta_d + \mu_d}

    of mean mu and variance mu + mu^2 / theta; theta begins at `dispersion`, and a large one is a Poisson. With
    `library=True` the means share out the row's total, whose logarithm is the last feature of the context.

    Shapes: log-rates (S, 1, *event) -> p(x|z) over (S,) x event. The encoder reads log(1 + x).
    Raises: ValueError for a dispersion that is not positive.
    Reference: Deep generative modeling for single-cell transcriptomics (Lopez et al., 2018), Nature Methods 15:1053,
    methods, "the scVI probabilistic model", without its zero inflation; dispersion per gene.

    Example:
        >>> NegativeBinomial((2,))(torch.zeros(1, 1, 2)).log_prob(torch.zeros(1, 2))  # 2 log 1/2
        tensor([-1.3863], grad_fn=<SumBackward1>)
    """

    def __init__(self, shape: tuple[int, ...], dispersion: float = 1.0, library: bool = False) -> None:
        super().__init__(shape, library)
        if not math.exp(-10) < dispersion < math.exp(15):
            raise ValueError(f"dispersion is a positive number from e^-10 to e^15; got {dispersion}")
        self.log_dispersion = nn.Parameter(torch.full(self.shape, math.log(dispersion)))

    @property
    def dispersion(self) -> Tensor:
        """Theta of each value, (*event), within e^-10 and e^15, beyond which counts are all 0 or a Poisson's."""
        return self.log_dispersion.clamp(-10, 15).exp()

    def values(self, parameters: Tensor, context: Tensor | None = None) -> Distribution:
        return NegativeBinomialDistribution(self.log_mean(parameters, context), self.log_dispersion.clamp(-10, 15))
