"""p(z): what a code is priced against.

A prior is a module whose call returns a Distribution: `prior(context)` has batch () or (B,) and event (latent,).
"""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

__all__ = ["StandardNormal"]


class StandardNormal(nn.Module):
    r"""The fixed prior of the variational autoencoder.

    .. math:: p(z) = \mathcal N(z; 0, I)

    Shapes: () x (latent,).

    Example:
        >>> StandardNormal(2)().log_prob(torch.zeros(2))  # -log 2 pi
        tensor(-1.8379)
    """

    def __init__(self, latent: int) -> None:
        super().__init__()
        if latent < 1:
            raise ValueError(f"a code needs at least one unit; got latent={latent}")
        self.latent = latent
        self.mean: Tensor
        self.sigma: Tensor
        self.register_buffer("mean", torch.zeros(latent), persistent=False)
        self.register_buffer("sigma", torch.ones(latent), persistent=False)

    def forward(self, context: Tensor | None = None) -> Distribution:
        return Independent(Normal(self.mean, self.sigma, validate_args=False), 1, validate_args=False)

    def extra_repr(self) -> str:
        return f"latent={self.latent}"
