"""q(z|x) over rungs of maps, for `Ladder`: each rung as a change of its prior."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from narrows.networks.cells import smaller
from narrows.posteriors.rungs import TopDown
from narrows.priors.fixed import ONE
from narrows.priors.maps import Maps

__all__ = ["ResidualNormal"]


class ResidualNormal(TopDown):
    r"""Every rung of maps as its prior, moved and scaled by what x and the rungs above say together.

    .. math:: q(z_l \mid z_{<l}, x) = \mathcal N\big(\mu_l + \sigma_l\, \Delta\mu_l(x, s_l),\
              \operatorname{diag}\, (\sigma_l\, \Delta\sigma_l(x, s_l))^2 \big)

    with mu, sigma of the prior and its state s. Where x says nothing, Delta mu = 0 and Delta sigma = 1, q is the prior,
    however that moves; so it nearly is at first, and the rate is small from the first step on. h is a map of
    the size of the bottom rungs, from which `depth` cells for each size climb to the top.

    Shapes: h (B, width, h, w) or flat -> z (S, D), rates (S, D) nats.
    Raises: TypeError for a prior other than `Maps`.
    References: NVAE (Vahdat & Kautz, 2020), arXiv:2007.03898, section 3.2 and equation 2; the path from Very Deep VAEs
    (Child, 2021), arXiv:2011.10650, figure 3.

    Example:
        >>> q = ResidualNormal(Maps(2, shape=(1, 12, 12), rungs=3, width=8))
        >>> code = q(torch.zeros(3, q.features), samples=5)
        >>> code.z.shape, [tuple(part.shape) for part in q.split(code.rates)]
        (torch.Size([15, 162]), [(15, 18), (15, 72), (15, 72)])
    """

    prior: Maps

    def __init__(self, prior: nn.Module, depth: int = 1) -> None:
        super().__init__(prior, Maps)
        self.depth, width, every = depth, self.prior.width, self.prior.sizes
        self.features = width * every[-1][0] * every[-1][1]
        own = list(dict.fromkeys(reversed(every)))  # bottom first
        scale = (depth * len(own)) ** -0.5
        self.up = nn.ModuleList(
            nn.Sequential(*(self.prior.cell(width, width, s, residual=True, scale=scale) for _ in range(depth)))
            for s in own
        )
        self.heads = nn.ModuleList(self.prior.cell(2 * width, 2 * self.prior.channels, s, scale=0.1) for s in every)

    @property
    def place(self) -> tuple[int, int]:
        """Height and width of the largest rungs."""
        return self.prior.sizes[-1]

    def read(self, h: Tensor) -> Sequence[Tensor]:
        x, found, every = h.reshape(-1, *self.prior.gives), [], self.prior.sizes[::-1]
        climb = iter(self.up)
        for below, own in pairwise((None, *every)):
            if own != below:
                x = next(climb)(x if below is None else smaller(x))
            found.append(x)
        return found[::-1]

    def merge(self, rung: int, known: Any, mean: Tensor, sigma: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        move, s = self.heads[rung](torch.cat([state, known], 1)).flatten(1).chunk(2, 1)
        return mean + sigma * move, sigma * (softplus(s + ONE) + 1e-6)
