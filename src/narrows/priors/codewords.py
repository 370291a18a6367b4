"""Priors over codewords: how likely an arrangement of whole numbers is."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

__all__ = ["Codewords", "OverCodewords"]

KNOWN = 64  # codewords by which a codebook is known again


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


class OverCodewords(nn.Module):
    """What priors over codewords have in common: where the codewords stand, and of which codebook they are.

    `known` are a few numbers of the codebook whose codes it is fitted to, 0 before that: what `check` compares.
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
        self.known: Tensor
        self.register_buffer("known", torch.zeros(min(self.codebook, KNOWN)))

    def begin(self) -> None:
        """Back to equal probabilities: what it was before `fit`."""
        self.known.zero_()

    def enough(self, n: int) -> None:
        """Raises ValueError for fewer codes than `fit` learns from."""

    def sign(self, posterior: Any) -> None:
        """Keeps of which codebook the codes are that it has been fitted to."""
        self.known.copy_(self._told_by(posterior))

    def check(self, posterior: Any) -> None:
        """Raises ValueError where a posterior's codes are none that it could score, or of another codebook."""
        theirs = tuple(posterior.grid), int(posterior.codebook)
        if (self.grid, self.codebook) != theirs:
            raise ValueError(
                f"the model's codes are {theirs[0]} with a codebook of {theirs[1]}; this {type(self).__name__} is for "
                f"{self.grid} with {self.codebook}. Build it as {type(self).__name__}{theirs}"
            )
        if self.known.any() and not torch.allclose(
            self._told_by(posterior), self.known, 0, 1e-3 * float(self.known.abs().max())
        ):
            raise ValueError(
                f"this {type(self).__name__} was fitted to the codes of another codebook, and says nothing of this "
                "model's: give it the model it was fitted to, or fit it anew, fit_prior(model, data)"
            )

    @torch.no_grad()
    def _told_by(self, posterior: Any) -> Tensor:
        """For each of some codewords a number, of the code that has it everywhere."""
        some = torch.linspace(0, self.codebook - 1, len(self.known), device=self.known.device).long()
        z = posterior.embed(some.view(-1, *[1] * len(self.grid)).expand(-1, *self.grid)).to(self.known)
        return (z * torch.arange(1, z.shape[1] + 1, device=z.device).to(z).cos()).sum(1)


class Codewords(OverCodewords):
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

    def __init__(self, grid: tuple[int, ...], codebook: int) -> None:
        super().__init__(grid, codebook)
        self.logits: Tensor
        self.register_buffer("logits", torch.zeros(*self.grid, self.codebook))

    def begin(self) -> None:
        """Back to equal probabilities: what it was before `fit`."""
        super().begin()
        self.logits.zero_()

    def forward(self, context: Tensor | None = None) -> Distribution:
        return _Independent(self.logits)

    def fit(self, index: Tensor, context: Tensor | None = None) -> None:
        """The codewords' frequencies at each place in codes (n, *grid), each counted once more than seen."""
        places, seen = math.prod(self.grid), index.reshape(len(index), -1)
        counts = torch.stack([torch.bincount(seen[:, i], minlength=self.codebook) for i in range(places)]) + 1
        self.logits.copy_((counts / counts.sum(-1, keepdim=True)).log().view_as(self.logits))

    def extra_repr(self) -> str:
        return f"grid={self.grid}, codebook={self.codebook}"
