"""What a denoising autoencoder is shown in place of x: a corruption takes rows (B, *event) to rows of the same shape.

Any callable will do in their place. The noise comes from `draws`, so that a resumed run and several processes see
that of an undisturbed one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from narrows import draws

__all__ = ["Dropout", "GaussianNoise", "Masking", "Missing", "SaltAndPepper"]


@dataclass(frozen=True)
class GaussianNoise:
    """Adds a normal of standard deviation `sigma`, in model units (pixels in 0..1).

    Example:
        >>> GaussianNoise(0.5)(torch.zeros(2, 3)).shape
        torch.Size([2, 3])
    """

    sigma: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.sigma < float("inf"):
            raise ValueError(f"sigma is a standard deviation above 0; got sigma={self.sigma}")

    def __call__(self, x: Tensor) -> Tensor:
        return x + self.sigma * draws.normal(1, x)[0]


@dataclass(frozen=True)
class Masking:
    """Sets a share of the values to 0 (Vincent et al. 2010, section 3.3).

    What is left is darker than a clean row, so that a member that learned from it answers clean rows too brightly:
    right for features, while `Dropout`, which keeps the mean, and `GaussianNoise` suit reconstruction better.

    Example:
        >>> Masking(0.5)(torch.ones(2, 3)).shape
        torch.Size([2, 3])
    """

    share: float = 0.25

    def __post_init__(self) -> None:
        _share(self.share)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.where(draws.uniform(1, x)[0] < self.share, 0.0, x)


@dataclass(frozen=True)
class Missing:
    """Takes a share of the cells away, NaN, as where a table is empty: for rows of mixed columns (`Columns`), whose
    encoder is shown that they are missing, and which are scored all the same.

    Example:
        >>> bool(Missing(0.5)(torch.ones(9, 3)).isnan().any())
        True
    """

    share: float = 0.25

    def __post_init__(self) -> None:
        _share(self.share)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.where(draws.uniform(1, x)[0] < self.share, torch.nan, x)


@dataclass(frozen=True)
class SaltAndPepper:
    """Sets a share of the values to the least or the largest in the batch, by the toss of a coin."""

    share: float = 0.25

    def __post_init__(self) -> None:
        _share(self.share)

    def __call__(self, x: Tensor) -> Tensor:
        u = draws.uniform(1, x)[0]
        return torch.where(u < self.share / 2, x.amin(), torch.where(u < self.share, x.amax(), x))


@dataclass(frozen=True)
class Dropout:
    """Sets a share of the values to 0 and scales the others up, so that the mean stays (Srivastava et al. 2014)."""

    share: float = 0.25

    def __post_init__(self) -> None:
        _share(self.share)

    def __call__(self, x: Tensor) -> Tensor:
        return draws.dropout(x, self.share)


def _share(share: float) -> None:
    if not 0 < share < 1:
        raise ValueError(f"a corruption touches a share of the values between 0 and 1; got share={share}")
