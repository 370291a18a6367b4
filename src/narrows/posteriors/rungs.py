"""q(z|x) over rungs, for `Ladder`: inferred from the bottom up, or from the top down along the prior's own way."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.nn.functional import softplus

from narrows import draws
from narrows.contract import Code, repeated
from narrows.divergences import kl
from narrows.priors.rungs import Chain, Hierarchy, Rungs, log_normal

__all__ = ["BottomUp", "Hierarchical", "PrecisionWeighted", "TopDown"]


class Found(NamedTuple):
    """One run through the rungs of q and p, rung beside rung, top first."""

    z: Tensor  # (S, D)
    mean: Tensor  # (S, D) of q, given the rungs that were drawn before
    sigma: Tensor  # (S, D)
    prior_mean: Tensor  # (S, D) of p, given the rungs above
    prior_sigma: Tensor  # (S, D)
    state: Any  # what the decoder reads


class Hierarchical(nn.Module, ABC):
    r"""What posteriors over rungs have in common.

    `rungs` are the units of each, top first, side by side in z; `gives` is the shape of the state that the decoder
    reads; `descend` draws a code and comes by that state on the way, `state` has it for any code. The point code is
    made of the means, each given the means before it. q and p score any code, by another run.

    Shapes: h (B, features) -> z (S, D), rates (S, D) nats; log_q, log_p (S,).
    Raises: TypeError for a prior without rungs.
    """

    density = True
    closed: bool
    features: int
    prior: Hierarchy

    def __init__(self, prior: nn.Module, kind: type[Hierarchy] = Hierarchy) -> None:
        super().__init__()
        if not isinstance(prior, kind):
            raise TypeError(
                f"a posterior over rungs shares the way down with its prior. Wrong: {type(self).__name__}"
                f"(StandardNormal(latent)); right: {type(self).__name__}(Rungs(latent)); got {type(prior).__name__}"
            )
        self.prior, self.rungs, self.latent, self.gives = prior, prior.rungs, prior.latent, prior.gives

    @property
    def groups(self) -> int:
        """Columns of the rates: units."""
        return self.latent

    def split(self, t: Tensor) -> tuple[Tensor, ...]:
        """Codes or rates (..., D) as one tensor for each rung, top first."""
        return t.split(self.rungs, -1)

    def state(self, z: Tensor, context: Tensor | None = None) -> Any:
        """What the decoder reads for codes z (S, D); S is a multiple of the rows of context."""
        return self.prior.at(z, context).state

    def redrawn(
        self, z: Tensor, keep: int, context: Tensor | None = None, temperature: float | Sequence[float] = 1.0
    ) -> Tensor:
        """Codes (S, D) whose top `keep` rungs are those of z and whose others are drawn anew. Raises: as the prior."""
        return self.prior.redrawn(z, keep, context, temperature)

    @abstractmethod
    def run(self, h: Tensor, context: Tensor | None, t: Tensor, known: bool) -> Found:
        """Runs through the rungs for codes t (S, D) where they are known, else with t as standard normal noise."""

    def descend(
        self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True
    ) -> tuple[Code, Any]:
        """The code of h (B, features), and the state that drawing it leads to."""
        like = h.new_zeros(h.shape[0], self.latent)
        found = self.run(h, context, draws.normal(samples, like).flatten(0, 1) if draw else like, False)
        if not draw:  # all draws are this one
            found = Found(*_repeated(found, samples))
        each_q, each_p = (
            log_normal(found.z, mean, sigma)
            for mean, sigma in ((found.mean, found.sigma), (found.prior_mean, found.prior_sigma))
        )
        q = Chain(lambda t, known: self.run(h, context, t, known)[:3], self.rungs, h, (h.shape[0],))
        code = Code(
            found.z, self.rates(found, each_q - each_p), each_q.sum(1), each_p.sum(1), torch.zeros_like(each_q[:, 0])
        )
        return code._replace(q=q, p=self.prior(context)), found.state

    @abstractmethod
    def rates(self, found: Found, sampled: Tensor) -> Tensor:
        """The rate of every unit (S, D), where log q - log p of the draws are (S, D)."""

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        return self.descend(h, context, samples, draw)[0]


def _repeated(t: Any, samples: int) -> Any:
    """A tensor, or a tuple of them, once for every draw."""
    return tuple(_repeated(part, samples) for part in t) if isinstance(t, tuple) else repeated(t, samples)


def _closed(found: Found, units: slice = slice(None)) -> Tensor:
    """KL(q_l || p_l) of every unit, given the rungs that were drawn before, (S, units) nats."""
    q, p = (
        Independent(Normal(mean[:, units], sigma[:, units], validate_args=False), 1, validate_args=False)
        for mean, sigma in ((found.mean, found.sigma), (found.prior_mean, found.prior_sigma))
    )
    return kl(q, p)


class TopDown(Hierarchical):
    r"""Inference along the generative way: each rung is inferred from x and from what was drawn above it.

    .. math:: q(z \mid x) = \prod_l q(z_l \mid z_{<l}, x), \quad
              \text{rate} = \sum_l E \, KL\big( q(z_l \mid z_{<l}, x) \,\|\, p(z_l \mid z_{<l}) \big)

    Every rung's KL is in closed form given the rungs above, since q and p are told the same ones. A final class says
    what it reads off h for each rung (`read`), and how that goes together with the state (`merge`).
    """

    closed = True

    @abstractmethod
    def read(self, h: Tensor) -> Sequence[Any]:
        """What is known of every rung from h (B, features), top first: tensors (B, ...), or tuples of them."""

    @abstractmethod
    def merge(self, rung: int, known: Any, mean: Tensor, sigma: Tensor, state: Any) -> tuple[Tensor, Tensor]:
        """Mean and sigma (S, units) of q, from what is known of the rung, its prior's (S, units), and the state."""

    def run(self, h: Tensor, context: Tensor | None, t: Tensor, known: bool) -> Found:
        given, said, found = t.split(self.rungs, 1), self.read(h), []

        def choose(rung: int, mean: Tensor, sigma: Tensor, state: Any) -> Tensor:
            own = _repeated(said[rung], t.shape[0] // h.shape[0])
            mean, sigma = self.merge(rung, own, mean, sigma, state)
            found.append((mean, sigma))
            return given[rung] if known else torch.addcmul(mean, sigma, given[rung])

        p = self.prior.descend(choose, t, context)
        mean, sigma = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        return Found(p.z, mean, sigma, *p[1:])

    def rates(self, found: Found, sampled: Tensor) -> Tensor:
        return _closed(found)


class PrecisionWeighted(TopDown):
    r"""The ladder: what x says of a rung and what the rungs above say, each counted by its precision.

    .. math:: \sigma_q^{-2} = \hat\sigma^{-2} + \sigma_p^{-2}, \quad
              \mu_q = \sigma_q^2 \big( \hat\mu \, \hat\sigma^{-2} + \mu_p \, \sigma_p^{-2} \big)

    the normal that is proportional to the product of both; on top it is x alone, N(mu-hat, sigma-hat). h are the
    features of the bottom rung, from which perceptrons climb to the others, as wide as those of the prior; at every
    rung an affine map reads mu-hat and s with sigma-hat = softplus(s).

    Shapes: h (B, features) -> z (S, latent), rates (S, latent) nats.
    Raises: TypeError for a prior other than `Rungs`.
    Reference: Ladder Variational Autoencoders (Sonderby et al., 2016), arXiv:1602.02282, section 2.

    Example:
        >>> q = PrecisionWeighted(Rungs(12, rungs=(4, 8)))
        >>> code = q(torch.zeros(3, q.features), samples=5)
        >>> code.z.shape, [tuple(part.shape) for part in q.split(code.rates)]
        (torch.Size([15, 12]), [(15, 4), (15, 8)])
    """

    prior: Rungs

    def __init__(self, prior: nn.Module) -> None:
        super().__init__(prior, Rungs)
        prior = self.prior
        units = self.rungs[::-1]  # bottom first, as one climbs
        wide = [prior.hidden(n) for n in units]
        self.features = wide[0]
        self.up = nn.ModuleList(
            prior.between(below, above, (above,) * (prior.depth - 1), 0) for below, above in pairwise(wide)
        )
        self.bends = nn.ModuleList(prior.bent(w) for w in wide)
        self.heads = nn.ModuleList(nn.Linear(w, 2 * n) for w, n in zip(wide, units, strict=True))

    def read(self, h: Tensor) -> Sequence[tuple[Tensor, Tensor]]:
        d, found = h.flatten(1), []
        for climb, bent, head in zip([nn.Identity(), *self.up], self.bends, self.heads, strict=True):
            d = bent(climb(d))
            mean, s = head(d).chunk(2, 1)
            found.append((mean, softplus(s) + 1e-6))
        return found[::-1]

    def merge(
        self, rung: int, known: tuple[Tensor, Tensor], mean: Tensor, sigma: Tensor, state: Any
    ) -> tuple[Tensor, Tensor]:
        said, width = known
        if rung == 0:
            return said, width
        ours, theirs = width**-2, sigma**-2  # precisions
        total = ours + theirs
        return (said * ours + mean * theirs) / total, total**-0.5


class BottomUp(Hierarchical):
    r"""Inference against the generative way: the bottom rung from x, every other from the rung below it.

    .. math:: q(z \mid x) = q(z_L \mid x) \prod_{l < L} q(z_l \mid z_{l+1}), \quad l = 1 \text{ on top}

    h holds mu, then s with sigma = softplus(s), of the bottom rung; perceptrons as wide as those of the prior climb
    from rung to rung. On top p stands still while the rung is drawn, so given the rung below the rate is a KL in closed
    form. Of a lower rung l it is not: p(z_l | z_{l-1}) hangs on a rung that is drawn after z_l and from it, and
    perceptrons stand between; there it is log q - log p of the draw, unit by unit. (The entropy of q alone would have
    a closed form; with log p of the draw it would no longer vanish where q and p agree.)

    Shapes: h (B, 2 units of the bottom rung) -> z (S, latent), rates (S, latent) nats.
    Raises: TypeError for a prior other than `Rungs`.
    References: Stochastic Backpropagation (Rezende et al., 2014), arXiv:1401.4082, section 4; Importance Weighted
    Autoencoders (Burda et al., 2015), arXiv:1509.00519, equation 3.

    Example:
        >>> q = BottomUp(Rungs(12, rungs=(4, 8)))
        >>> q(torch.zeros(3, q.features), samples=5).rates.shape
        torch.Size([15, 12])
    """

    closed = False
    prior: Rungs

    def __init__(self, prior: nn.Module) -> None:
        super().__init__(prior, Rungs)
        prior = self.prior
        self.features = 2 * self.rungs[-1]
        self.up = nn.ModuleList(  # bottom first
            prior.between(below, 2 * above, (prior.hidden(above),) * prior.depth)
            for below, above in zip(self.rungs[:0:-1], self.rungs[-2::-1], strict=True)
        )

    def run(self, h: Tensor, context: Tensor | None, t: Tensor, known: bool) -> Found:
        samples, found = t.shape[0] // h.shape[0], []
        given, said, told = t.split(self.rungs, 1)[::-1], repeated(h.flatten(1), samples), repeated(context, samples)
        for climb, own in zip([*self.up, None], given, strict=True):
            mean, s = said.chunk(2, 1)
            sigma = softplus(s) + 1e-6
            z = own if known else torch.addcmul(mean, sigma, own)
            found.append((z, mean, sigma))
            said = said if climb is None else climb(z, told)
        z, mean, sigma = (torch.cat(parts[::-1], 1) for parts in zip(*found, strict=True))
        return Found(z, mean, sigma, *self.prior.at(z, context)[1:])

    def rates(self, found: Found, sampled: Tensor) -> Tensor:
        top = self.rungs[0]
        return torch.cat([_closed(found, slice(top)), sampled[:, top:]], 1)
