"""q(z|x): from what an encoder says to a code and its price.

A posterior is a module called as `posterior(h, context, samples=1, draw=True) -> Code`. It asks the encoder for
`features` numbers a row. `draw=False` gives the point code (the mean), which is what `transform` and reconstructions
use. The encoder runs once whatever `samples` is. `prior` is p(z) or None; `density` says whether q can score its draws.
"""

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.nn.functional import softplus

from narrows import draws
from narrows.contract import Code
from narrows.divergences import kl

__all__ = ["Deterministic", "Gaussian", "Sparse"]


class Deterministic(nn.Module):
    """The code is what the encoder says: an autoencoder proper, which has a code but no density over codes.

    A prior, where there is one, is what codes are held to (`Objective(discrepancy=...)`) or what was fitted to them
    (`fit_prior`): codes can then be sampled, but not priced.

    Shapes: h (B, latent) -> z (S, latent), rates (S, 1) of zeros; log_q, log_p, q, p None.

    Example:
        >>> Deterministic(2)(torch.ones(3, 2)).z.shape
        torch.Size([3, 2])
    """

    density = False

    def __init__(self, latent: int, prior: nn.Module | None = None) -> None:
        super().__init__()
        if latent < 1:
            raise ValueError(f"a code needs at least one unit; got latent={latent}")
        self.latent = self.features = latent
        self.prior = prior

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        z = h.flatten(1).repeat(samples, 1)
        return Code(z, z.new_zeros(z.shape[0], 1), None, None, z.new_zeros(z.shape[0]))

    def extra_repr(self) -> str:
        return f"latent={self.latent}"


class Gaussian(nn.Module):
    r"""A normal with a diagonal covariance, drawn by the reparameterisation trick.

    .. math:: q(z \mid x) = \mathcal N(\mu(x), \operatorname{diag} \sigma^2(x)), \quad z = \mu + \sigma \varepsilon

    h holds mu, then s with sigma = softplus(s), which neither overflows nor vanishes as exp(s) does. The rates are the
    KL of each unit where it has a closed form, the total log q - log p of the draw where it has none, and zero under a
    prior that can only be sampled.

    Shapes: h (B, 2 latent) -> z (S, latent), rates (S, latent) or (S, 1) nats; q and p score the draws.
    Reference: Auto-Encoding Variational Bayes (Kingma & Welling, 2013), arXiv:1312.6114, equations 9 and 10.

    Example:
        >>> from narrows.priors import StandardNormal
        >>> Gaussian(StandardNormal(2))(torch.zeros(3, 4), samples=5).rate.shape
        torch.Size([15])
    """

    density = True

    def __init__(self, prior: nn.Module) -> None:
        super().__init__()
        self.prior = prior
        self.latent = int(prior.latent)  # type: ignore[arg-type]
        self.features = 2 * self.latent

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        mean, s = h.flatten(1).chunk(2, -1)  # (B, latent) each
        sigma = softplus(s) + 1e-6
        q = Independent(Normal(mean, sigma, validate_args=False), 1, validate_args=False)
        if draw:  # one draw is not broadcast: its gradient would be summed over an axis of one
            z = torch.addcmul(mean, sigma, draws.normal(samples, mean).squeeze(0)).view(-1, self.latent)  # (S, latent)
        else:
            z = mean if samples == 1 else mean.repeat(samples, 1)
        penalty = z.new_zeros(z.shape[0])
        if not getattr(self.prior, "density", True):
            return Code(z, z.new_zeros(z.shape[0], 1), None, None, penalty, q=q)
        p = self.prior(context)
        if not getattr(self.prior, "closed", False):
            code = Code(z, z.new_zeros(z.shape[0], 1), None, None, penalty, q=q, p=p)
            log_q, log_p = code.densities()  # type: ignore[misc]
            return code._replace(rates=(log_q - log_p)[:, None], log_q=log_q, log_p=log_p)
        rates = kl(q, p)  # (B, latent)
        rates = rates if samples == 1 else rates.repeat(samples, 1)  # (S, latent)
        return Code(z, rates, None, None, penalty, q=q, p=p)


class Sparse(nn.Module):
    """The code is what an activation leaves of the encoder's numbers: many units, of which few fire for a row.

    Arguments: `activation`, a module of `activations`; `prior` as in `Deterministic`.
    Shapes: h (B, latent) -> z (S, latent), rates (S, 1) of zeros; log_q, log_p, q, p None.

    Example:
        >>> from narrows.activations import TopK
        >>> Sparse(TopK(8, active=2))(torch.rand(3, 8)).z.count_nonzero(1)
        tensor([2, 2, 2])
    """

    density = False

    def __init__(self, activation: nn.Module, prior: nn.Module | None = None) -> None:
        super().__init__()
        self.latent = self.features = int(activation.latent)  # type: ignore[arg-type]
        self.activation, self.prior = activation, prior

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        h = h.flatten(1)
        z = self.activation(h).repeat(samples, 1)  # (S, latent)
        nothing = z.new_zeros(z.shape[0])
        return Code(z, nothing[:, None], None, None, nothing, h=h.repeat(samples, 1))

    def fires(self, z: Tensor) -> Tensor:
        """Which units fire, (S, latent) bool."""
        return z.abs() > self.activation.floor  # type: ignore[operator]

    def extra_repr(self) -> str:
        return f"latent={self.latent}"
