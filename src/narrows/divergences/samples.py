"""Distances between two samples, codes and draws from the prior, without a critic."""

import torch
from torch import Tensor, nn

from narrows.contract import Batch, Code
from narrows.divergences.common import Gap, positive

__all__ = ["MMD", "SlicedWasserstein", "mmd", "sliced_wasserstein"]


def mmd(z: Tensor, real: Tensor, kernel: str = "imq") -> Tensor:
    r"""Squared maximum mean discrepancy between two samples, unbiased, so it may be negative.

    .. math:: \frac{1}{n(n-1)} \sum_{i \ne j} k(z_i, z_j) + \frac{1}{m(m-1)} \sum_{i \ne j} k(y_i, y_j)
              - \frac{2}{nm} \sum_{ij} k(z_i, y_j)

    with k(z, y) = C / (C + |z - y|^2), C = 2 D ("imq", the kernel of WAE for a prior of unit variance), or
    k = exp(-|z - y|^2 / 2 D) ("rbf").

    Shapes: z (n, D), real (m, D) -> scalar. A sample of fewer than two rows has no pairs, and adds nothing.
    References: A Kernel Two-Sample Test (Gretton et al., 2012), equation 3; Wasserstein Auto-Encoders (Tolstikhin et
    al., 2018), arXiv:1711.01558, section 4.
    """
    width = z.shape[1]

    def k(a: Tensor, b: Tensor) -> Tensor:
        square = (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp_min(0)
        return 2 * width / (2 * width + square) if kernel == "imq" else (-square / (2 * width)).exp()

    def within(a: Tensor) -> Tensor:
        return (k(a, a).sum() - len(a)) / max(len(a) * (len(a) - 1), 1)

    return within(z) + within(real) - 2 * k(z, real).sum() / (len(z) * len(real))


class MMD(nn.Module):
    """Kernel distance between codes and prior: `mmd` as a discrepancy (WAE-MMD, InfoVAE).

    Raises: ValueError for a kernel that is neither "imq" nor "rbf", or a negative weight.
    """

    least = 2  # rows a batch

    def __init__(self, weight: float = 1.0, kernel: str = "imq") -> None:
        super().__init__()
        if kernel not in ("imq", "rbf"):
            raise ValueError(f'kernel is "imq" or "rbf"; got {kernel!r}')
        self.weight, self.kernel = positive(weight), kernel

    def forward(self, code: Code, real: Tensor, batch: Batch) -> Gap:
        value = mmd(code.z, real, self.kernel)
        return Gap(value, value, value.new_zeros(()))

    def extra_repr(self) -> str:
        return f"weight={self.weight:g}, kernel={self.kernel!r}"


def sliced_wasserstein(z: Tensor, real: Tensor, directions: Tensor) -> Tensor:
    r"""Squared Wasserstein-2 distance of two samples of one size, seen along directions and averaged over them.

    .. math:: \frac1L \sum_l \frac1n \sum_i
              \big( \langle \theta_l, z \rangle_{(i)} - \langle \theta_l, y \rangle_{(i)} \big)^2

    Over D orthonormal directions a shift by m gives |m|^2 / D exactly.

    Shapes: z, real (n, D), directions (L, D) of length 1 -> scalar.
    Reference: Sliced-Wasserstein Autoencoder (Kolouri et al., 2018), arXiv:1804.01947, equation 12.
    """
    ordered = [(a @ directions.T).sort(0).values for a in (z, real)]
    return (ordered[0] - ordered[1]).square().mean((0, 1))


class SlicedWasserstein(nn.Module):
    """Sliced Wasserstein distance between codes and prior, along random orthonormal frames (SWAE)."""

    least = 2

    def __init__(self, weight: float = 1.0, directions: int = 64) -> None:
        super().__init__()
        if directions < 1:
            raise ValueError(f"a sliced distance looks along at least one direction; got directions={directions}")
        self.weight, self.directions = positive(weight), directions

    def forward(self, code: Code, real: Tensor, batch: Batch) -> Gap:
        z, width = code.z, code.z.shape[1]
        frames = torch.randn(-(-self.directions // width), width, width, device=z.device)
        frames = torch.linalg.qr(frames).Q.flatten(0, 1)[: self.directions].to(z.dtype)
        value = sliced_wasserstein(z, real, frames)
        return Gap(value, value, value.new_zeros(()))

    def extra_repr(self) -> str:
        return f"weight={self.weight:g}, directions={self.directions}"
