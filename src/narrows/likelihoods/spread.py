"""Values with a density: a location from the decoder, and a spread that is fixed or learned."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal
from torch.distributions import Laplace as LaplaceDistribution

from narrows.likelihoods.common import Likelihood

__all__ = ["Gaussian", "Laplace"]


class _Spread(Likelihood):
    """A spread in model units, under whichever name its kind has for it."""

    floor = 1e-3

    def __init__(self, shape: tuple[int, ...], spread: float, learn: str | None, what: str) -> None:
        super().__init__(shape)
        if not spread > 0:
            raise ValueError(f"{what} and must be positive; got {spread}")
        if learn not in (None, "shared", "each"):
            raise ValueError(f'learn is None, "shared" or "each"; got {learn!r}')
        self.learn = learn
        log_sigma = torch.full(self.shape if learn == "each" else (), math.log(spread))
        if learn is None:
            self.register_buffer("log_sigma", log_sigma)
        else:
            self.log_sigma = nn.Parameter(log_sigma)

    @property
    def sigma(self) -> Tensor:
        """The spread in model units (standard deviation, or scale), a scalar or (*event)."""
        sigma = self.log_sigma.exp()
        return sigma if self.learn is None else sigma.clamp_min(self.floor)

    def seen_through(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Locations; how near x is, the likelihood's own spread says."""
        return x.unsqueeze(1)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, learn={self.learn!r}"


class Gaussian(_Spread):
    r"""A normal about what the decoder says, with a standard deviation that is fixed or learned.

    .. math:: \log p(x \mid z) = -\sum_d \frac{(x_d - \mu_d)^2}{2\sigma_d^2} + \log \sigma_d + \tfrac12 \log 2\pi

    With `sigma` fixed, the negative ELBO is |x - mu|^2 + lambda KL up to a factor and a constant, lambda = 2 sigma^2
    (Lucas et al. 2019, arXiv:1911.02469, section 4). `learn="shared"` makes sigma one parameter, `learn="each"` one
    per value, starting at `sigma`; both are kept above `floor`, since a value that is reproduced exactly has no best
    sigma.

    Shapes: means (S, 1, *event) -> p(x|z) over (S,) x event. Density in model units.
    Raises: ValueError where sigma is not positive or `learn` is none of None, "shared", "each".

    Example:
        >>> Gaussian((2,), sigma=1.0)(torch.zeros(1, 1, 2)).log_prob(torch.zeros(1, 2))  # -log 2 pi
        tensor([-1.8379])
    """

    def __init__(self, shape: tuple[int, ...], sigma: float = 1.0, learn: str | None = None) -> None:
        super().__init__(shape, sigma, learn, "sigma is a standard deviation")

    def usual(self, x: Tensor) -> Tensor:
        """The mean."""
        return x.nanmean(0, keepdim=True)

    def values(self, parameters: Tensor, context: Tensor | None = None) -> Distribution:
        mean = parameters.squeeze(1)
        return Normal(mean, self.sigma.expand_as(mean), validate_args=False)


class Laplace(_Spread):
    r"""A double exponential about what the decoder says: absolute errors, which forgive outliers.

    .. math:: \log p(x \mid z) = -\sum_d \frac{|x_d - \mu_d|}{b_d} + \log 2 b_d

    The scale b is fixed, or learned as a Gaussian's sigma is (`learn="shared"` or "each"), above `floor`.

    Shapes: medians (S, 1, *event) -> p(x|z) over (S,) x event. Density in model units.
    Raises: ValueError where scale is not positive or `learn` is none of None, "shared", "each".

    Example:
        >>> Laplace((2,))(torch.zeros(1, 1, 2)).log_prob(torch.ones(1, 2))  # -2 - 2 log 2
        tensor([-3.3863])
    """

    def __init__(self, shape: tuple[int, ...], scale: float = 1.0, learn: str | None = None) -> None:
        super().__init__(shape, scale, learn, "scale is a mean absolute deviation")

    def usual(self, x: Tensor) -> Tensor:
        """The median."""
        return x.nanmedian(0, keepdim=True).values

    def values(self, parameters: Tensor, context: Tensor | None = None) -> Distribution:
        median = parameters.squeeze(1)
        return LaplaceDistribution(median, self.sigma.expand_as(median), validate_args=False)
