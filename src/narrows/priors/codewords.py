"""Priors over codewords: how likely an arrangement of whole numbers is."""

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

__all__ = ["CodewordRungs", "Codewords", "OverCodewords", "over"]

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


class _InRungs(Distribution):
    """Numbers of codewords on several grids, (places,) in all; batch () or that of the context, (B,)."""

    def __init__(self, prior: "CodewordRungs", context: Tensor | None) -> None:
        batch = torch.Size() if context is None else context.shape[:-1]
        super().__init__(batch, torch.Size(prior.grid), validate_args=False)
        self.prior, self.context = prior, context

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_InRungs":
        return self if self.context is None else _InRungs(self.prior, self.context.expand(*batch_shape, -1))

    def each(self, index: Tensor) -> Tensor:
        """The terms whose sum is `log_prob`, (..., places) nats."""
        lead = torch.broadcast_shapes(index.shape[:-1], self.batch_shape)
        flat = index.expand(*lead, -1).reshape(-1, index.shape[-1])
        parts, context, found = flat.split(self.prior.places, 1), self._told(lead), []
        for rung, (part, grid) in enumerate(zip(parts, self.prior.grids, strict=True)):
            px: Any = self.prior.given(rung, parts[:rung], context)
            found.append(px.each(part.unflatten(1, grid)).flatten(1))
        return torch.cat(found, 1).view(*lead, -1)

    def log_prob(self, index: Tensor) -> Tensor:  # type: ignore[override]
        return self.each(index).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:  # type: ignore[override]
        lead = torch.Size((*sample_shape, *self.batch_shape))
        return self.prior.below([], lead.numel(), self._told(lead)).view(*lead, -1)

    def _told(self, lead: torch.Size) -> Tensor | None:
        return None if self.context is None else self.context.expand(*lead, -1).reshape(-1, self.context.shape[-1])


def over(
    prior: Callable[..., nn.Module], grid: tuple[Any, ...], codebook: int, context: int = 0, **more: Any
) -> nn.Module:
    """A prior of some class over codewords in a grid, or over several grids, top first, with one of that class each."""
    asks = inspect.signature(prior).parameters
    if isinstance(grid[0], tuple) and "grids" not in asks:
        return CodewordRungs(grid, codebook, context, prior)
    told = {"context": context, **more}
    return prior(grid, codebook, **{name: value for name, value in told.items() if name in asks})


class CodewordRungs(OverCodewords):
    r"""Codewords on several grids, each given those above it: the prior of `posteriors.QuantisedRungs`.

    .. math:: \log p(k \mid c) = \sum_l \log p(k_l \mid k_{<l}, c)

    Every grid has a prior of its own, of one class: `Codewords`, which counts and reads nothing, or one that `fit`
    teaches what the grids above it have to do with it (`PixelCNN`, `Transformer`). A code is the numbers of all grids
    in a line, top first.

    Arguments: `grids`, the top first, such as ((7, 7), (14, 14)); `codebook` K of each; `context` features that it is
        told; `prior` the class of each part, or a `partial` of it.
    Shapes: () x (places,), or context (B, context) -> (B,) x (places,); of whole numbers from 0 to K - 1.
    Raises: ValueError for no grids, or as the parts do.
    Reference: Generating Diverse High-Fidelity Images with VQ-VAE-2 (Razavi et al., 2019), arXiv:1906.00446, section
    3.2.

    Example:
        >>> p = CodewordRungs(((2, 2), (4, 4)), codebook=16)()
        >>> p.sample((3,)).shape, p.log_prob(p.sample((3,))) / 20  # -log 16
        (torch.Size([3, 20]), tensor([-2.7726, -2.7726, -2.7726]))
    """

    def __init__(
        self,
        grids: tuple[tuple[int, ...], ...],
        codebook: int,
        context: int = 0,
        prior: Callable[..., nn.Module] = Codewords,
    ) -> None:
        if not grids or not all(isinstance(grid, (tuple, list)) for grid in grids):
            raise ValueError(
                f"rungs of codewords stand in grids, the top first, such as grid=((7, 7), (14, 14)); got {grids}"
            )
        self.grids = tuple(tuple(int(side) for side in grid) for grid in grids)
        self.places = [math.prod(grid) for grid in self.grids]
        super().__init__((sum(self.places),), codebook)
        self.context, self.prior = context, prior
        self.each = nn.ModuleList(
            over(prior, grid, codebook, context, above=self.grids[:rung]) for rung, grid in enumerate(self.grids)
        )

    @property
    def parts(self) -> list[OverCodewords]:
        """The prior of each grid, the top first."""
        return list(self.each)  # type: ignore[arg-type]

    def given(self, rung: int, above: Any, context: Tensor | None) -> Distribution:
        """p(k_l | k_<l, c) of a rung, from the numbers (S, places) of each grid above it."""
        return self.parts[rung](self._told(rung, above, context))  # type: ignore[no-any-return]

    def below(self, above: list[Tensor], n: int, context: Tensor | None = None) -> Tensor:
        """Codes (n, places) whose top rungs are given, (n, places) each, and whose others are drawn."""
        found = list(above)
        for rung in range(len(found), len(self.grids)):
            px = self.given(rung, found, context)
            found.append(px.sample((n,) if not px.batch_shape else ()).flatten(1))
        return torch.cat(found, 1)

    def _told(self, rung: int, above: Any, context: Tensor | None) -> Tensor | None:
        """Context and the numbers of the grids above side by side (S, features), where a part reads them."""
        if not getattr(self.parts[rung], "told", 0):
            return None
        told = [] if context is None else [context]
        told += [part.to(self.known) for part in above]  # whole numbers below 2^24 are themselves
        return torch.cat(told, 1)

    def forward(self, context: Tensor | None = None) -> Distribution:
        return _InRungs(self, context if self.context else None)

    def begin(self) -> None:
        """Back to equal probabilities."""
        super().begin()
        for part in self.parts:
            part.begin()

    def enough(self, n: int) -> None:
        """Raises ValueError for fewer codes than `fit` learns from."""
        for part in self.parts:
            part.enough(n)

    def check(self, posterior: Any) -> None:
        """Raises ValueError where a posterior's codes are on other grids, or of another codebook."""
        theirs = getattr(posterior, "grids", posterior.grid)
        if self.grids != theirs:
            raise ValueError(f"the model's codewords stand in {theirs}; this CodewordRungs is for {self.grids}")
        super().check(posterior)

    def fit(self, index: Tensor, context: Tensor | None = None) -> None:
        """Fits the prior of every grid to codes (n, places), given those above it. Raises: as the parts do."""
        parts = index.split(self.places, 1)
        for rung, (part, grid) in enumerate(zip(self.parts, self.grids, strict=True)):
            told = self._told(rung, parts[:rung], context if self.context else None)
            part.fit(parts[rung].unflatten(1, grid), told)  # type: ignore[operator]

    def extra_repr(self) -> str:
        return f"grids={self.grids}, codebook={self.codebook}"
