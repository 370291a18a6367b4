"""Codes without a density: what the encoder says, all of it or the few units that fire."""

from torch import Tensor, nn

from narrows.contract import Code

__all__ = ["Deterministic", "Sparse"]


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
