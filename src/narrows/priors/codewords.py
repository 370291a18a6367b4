"""Priors over codewords: how likely an arrangement of whole numbers is."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

__all__ = ["Codewords"]


class _Independent(Distribution):
    """Every place of the grid by itself."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__(torch.Size(), logits.shape[:-1], validate_args=False)
        self.log_p = logits.log_softmax(-1)  # (*grid, K)

    def each(self, index: Tensor) -> Tensor:
        """Log-probability of every place, (..., *grid) nats, whose sum is `log_prob`."""
        log_p = self.log_p.flatten(0, -2)  # (places, K)
        places = torch.arange(len(log_p), device=log_p.device)
        return log_p[places, index.reshape(-1, len(log_p))].view(index.shape)

    def log_prob(self, index: Tensor) -> Tensor:  # type: ignore[override]
        return self.each(index).flatten(index.dim() - len(self.event_shape)).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:  # type: ignore[override]
        p = self.log_p.exp().flatten(0, -2)
        drawn = torch.multinomial(p, max(1, math.prod(sample_shape)), replacement=True)  # (places, n)
        return drawn.T.reshape(*sample_shape, *self.event_shape)


class Codewords(nn.Module):
    r"""Independent codewords, the prior of a `posteriors.Quantised` or `FSQ` code: equally likely until `fit` counts.

    .. math:: \log p(k) = \sum_i \log \pi_{i k_i}, \quad \pi_{ik} = \frac1K \text{ at first}

    So the rate of a code is log K nats for each place at first. Priors that know of neighbours are fitted afterwards
    (`fit_prior`).

    Arguments: `grid` the places of a code, such as (7, 7) or (8,); `codebook` K, the codewords to choose from.
    Shapes: () x grid, of whole numbers from 0 to K - 1.
    Raises: ValueError for an empty grid, or fewer than 2 codewords.
    Reference: Neural Discrete Representation Learning (van den Oord et al., 2017), arXiv:1711.00937, section 3.1.

    Example:
        >>> p = Codewords((7, 7), codebook=512)()
        >>> p.log_prob(p.sample((3,))) / 49  # -log 512
        tensor([-6.2383, -6.2383, -6.2383])
    """

    density = closed = discrete = True

    def __init__(self, grid: tuple[int, ...], codebook: int) -> None:
        super().__init__()
        self.grid, self.codebook = tuple(int(side) for side in grid), int(codebook)
        if not self.grid or min(self.grid) < 1 or self.codebook < 2:
            raise ValueError(
                "codewords stand in a grid, such as (7, 7) or (8,), and there are at least 2 to choose from; got "
                f"grid={tuple(grid)}, codebook={codebook}"
            )
        self.logits: Tensor
        self.register_buffer("logits", torch.zeros(*self.grid, self.codebook))

    def forward(self, context: Tensor | None = None) -> Distribution:
        return _Independent(self.logits)

    def fit(self, index: Tensor, context: Tensor | None = None) -> None:
        """The codewords' frequencies at each place in codes (n, *grid), each counted once more than seen."""
        places, seen = math.prod(self.grid), index.reshape(len(index), -1)
        counts = torch.stack([torch.bincount(seen[:, i], minlength=self.codebook) for i in range(places)]) + 1
        self.logits.copy_((counts / counts.sum(-1, keepdim=True)).log().view_as(self.logits))

    def extra_repr(self) -> str:
        return f"grid={self.grid}, codebook={self.codebook}"
