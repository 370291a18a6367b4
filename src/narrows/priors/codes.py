"""Priors over grids of codewords, each of which reads those before it; fitted to codes of a trained model."""

import math
from abc import ABC, abstractmethod
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from narrows.networks.masked import CausalTransformer, GatedConvolutions, Told
from narrows.priors.codewords import OverCodewords
from narrows.priors.fitting import climb

__all__ = ["PixelCNN", "Transformer"]

LOGITS = 2**25  # scored at a time: 128 MiB
ROWS = 1_000  # drawn at a time


class _InTurn(Distribution):
    """Whole numbers on a grid, one after the other; batch () or that of the context, (B,)."""

    def __init__(self, prior: "_Learned", context: Tensor | None) -> None:
        batch = torch.Size() if context is None else context.shape[:-1]
        super().__init__(batch, torch.Size(prior.grid), validate_args=False)
        self.prior, self.context = prior, context

    def expand(self, batch_shape: Any, _instance: Any = None) -> "_InTurn":
        if self.context is None:
            raise TypeError("codes that are told nothing are drawn by sample((n,)), without a batch")
        return _InTurn(self.prior, self.context.expand(*batch_shape, -1))

    def log_prob(self, index: Tensor) -> Tensor:  # type: ignore[override]
        return self.each(index).flatten(-len(self.event_shape)).sum(-1)

    def each(self, index: Tensor) -> Tensor:
        """The terms whose sum is `log_prob`, log p(index_i | those before it, context), (..., *grid) nats."""
        lead = torch.broadcast_shapes(index.shape[: -len(self.event_shape)], self.batch_shape)
        index = index.expand(*lead, *self.event_shape)
        if not self.prior.fitted:
            return self.prior.known.new_full(index.shape, -math.log(self.prior.codebook))
        size = max(1, LOGITS // (self.event_shape.numel() * self.prior.codebook))
        parts = index.reshape(-1, *self.event_shape).split(size)
        told = self._told(lead)
        found = [
            self.prior.network(part, c).log_softmax(-1).gather(-1, part.unsqueeze(-1)).squeeze(-1)
            for part, c in zip(parts, repeat(None) if told is None else told.split(size), strict=False)
        ]
        return torch.cat(found).view(index.shape)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:  # type: ignore[override]
        """Each slot by its own uniform draw u, the first index whose cumulated probability is above u."""
        lead, like = torch.Size((*sample_shape, *self.batch_shape)), self.prior.known
        u = torch.rand(lead.numel(), self.event_shape.numel(), dtype=like.dtype, device=like.device)
        if not self.prior.fitted:
            return (u * self.prior.codebook).long().clamp_max(self.prior.codebook - 1).view(*lead, *self.event_shape)
        index = torch.zeros(u.shape, dtype=torch.long, device=like.device)
        told = self._told(lead)
        for start in range(0, len(index), ROWS):
            part, c = index[start : start + ROWS], None if told is None else told[start : start + ROWS]
            slots = self.prior.network.walk(part.view(-1, *self.event_shape), c)
            for slot, logits in enumerate(slots):
                heaped = logits.softmax(-1).cumsum(-1)  # (S, codebook)
                at = u[start : start + ROWS, slot, None] * heaped[:, -1:]
                part[:, slot] = torch.searchsorted(heaped, at, right=True)[:, 0].clamp_max(self.prior.codebook - 1)
        return index.view(*lead, *self.event_shape)

    def _told(self, lead: torch.Size) -> Tensor | None:
        """The context of every grid, (S, C)."""
        return None if self.context is None else self.context.expand(*lead, -1).reshape(-1, self.context.shape[-1])


class _Learned(OverCodewords, ABC):
    """What both networks have in common: equal probabilities until they are fitted, a network from then on."""

    axes: tuple[int, ...] = (1, 2, 3)  # of the grids that it reads
    width: int

    def __init__(
        self,
        grid: tuple[int, ...],
        codebook: int,
        context: int,
        sizes: dict[str, int],
        steps: int,
        above: tuple[tuple[int, ...], ...],
    ) -> None:
        super().__init__(grid, codebook)
        name = type(self).__name__
        if len(grid) not in self.axes:
            other = ". Take Transformer, which reads any sequence" if 1 not in self.axes and len(grid) == 1 else ""
            raise ValueError(f"{name} is over grids of {' or '.join(map(str, self.axes))} axes; got grid={grid}{other}")
        if min(*sizes.values(), steps) < 1 or context < 0:
            given = ", ".join(f"{n}={v}" for n, v in {**sizes, "steps": steps}.items())
            raise ValueError(f"the network of {name} has sizes of at least 1; got {given}, context={context}")
        self.context, self.steps, self.above = context, steps, above
        self.told = context + sum(math.prod(each) for each in above)
        self.network: GatedConvolutions | CausalTransformer
        self.fitted = False  # in plain Python too, since training must not wait for a device to tell
        self.learned: Tensor
        self.register_buffer("learned", torch.tensor(False))

    def given(self) -> Told:
        """What a new network is told with."""
        return Told(self.context, self.above, self.codebook, self.width, self.grid[:2])

    @abstractmethod
    def build(self) -> GatedConvolutions | CausalTransformer:
        """The network, its weights drawn anew."""

    def begin(self) -> None:
        """Back to equal probabilities, with weights drawn anew."""
        super().begin()
        self.network = self.build().to(self.known).requires_grad_(False)
        self.fitted = False
        self.learned.fill_(False)

    def forward(self, context: Tensor | None = None) -> Distribution:
        if self.told and context is None:
            raise TypeError(f"this prior is p(index|c) and needs {self.told} features of context; got none")
        return _InTurn(self, context if self.told else None)

    def enough(self, n: int) -> None:
        """Raises ValueError for fewer codes than `fit` learns from."""
        if n < 20:
            raise ValueError(
                f"{type(self).__name__} learns from at least 20 codes; got {n}. Take more rows, or Codewords"
            )

    def fit(self, index: Tensor, context: Tensor | None = None) -> None:
        """Maximum likelihood for codes (n, *grid) with context (n, context), from weights drawn anew.

        A tenth of the codes says when to stop. Adam on 128 codes a time for at most `steps` steps, whose size falls
        from 0.002 along a cosine; it ends early when four looks, one every 100 steps, have brought nothing.

        Raises: ValueError for fewer than 20 codes, for others than it is built for, or without their context.
        """
        self.enough(len(index))
        if tuple(index.shape[1:]) != self.grid or int(index.min()) < 0 or int(index.max()) >= self.codebook:
            raise ValueError(
                f"this prior is for grids {self.grid} of numbers below {self.codebook}; got {tuple(index.shape[1:])} "
                f"with numbers from {int(index.min())} to {int(index.max())}"
            )
        if self.told and (context is None or context.shape != (len(index), self.told)):
            got = "none" if context is None else str(tuple(context.shape))
            raise ValueError(f"this prior reads context, ({len(index)}, {self.told}) here; got {got}")
        self.begin()
        told = (context.to(self.known),) if self.told and context is not None else ()
        self.fitted = True
        self.learned.fill_(True)
        self.network.requires_grad_(True)
        codes = (index.to(self.known.device), *told)
        climb(self, self._score, *codes, steps=self.steps, size=128, rate=2e-3, every=100, patience=4)
        self.network.requires_grad_(False)

    def _score(self, index: Tensor, context: Tensor | None = None) -> Tensor:
        return self(context).log_prob(index)

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        super()._load_from_state_dict(*arguments, **options)
        self.fitted = bool(self.learned)


class PixelCNN(_Learned):
    r"""One codeword after the other, line by line, by gated convolutions that read the image above and to the left.

    .. math:: p(k \mid c) = \prod_i p(k_i \mid k_1, \ldots, k_{i-1}, c), \quad
              y = \tanh(W_f * x + V_f^\top c) \odot \sigma(W_g * x + V_g^\top c)

    All codes are equally likely until `fit` has seen some: it takes no part in training. Codes are scored in one pass,
    and drawn at the price of about one. A third axis, as of residual or product codes, is read as colours are: the
    numbers of one place after each other.

    Arguments: `grid` (H, W) or (H, W, G); `codebook` numbers to choose from; `context` features that it is told;
        `above` grids of other codewords that it is told as well, their numbers after the context, such as ((4, 4),);
        `width` channels; `layers`, of which each adds 1 to a reach of 2 slots at first; `steps` of a fit at most.
    Shapes: () x grid, or context (B, context) -> (B,) x grid; of whole numbers from 0 to codebook - 1.
    Raises: ValueError for a grid without two axes and sizes below 1; TypeError where a call brings no context.
    Reference: Conditional Image Generation with PixelCNN Decoders (van den Oord et al., 2016), arXiv:1606.05328,
    equation 2; as the prior of codes, van den Oord et al. 2017, arXiv:1711.00937, section 3.3.

    Example:
        >>> p = PixelCNN((7, 7), codebook=512)()
        >>> p.sample((5,)).shape, p.each(p.sample((5,))).shape
        (torch.Size([5, 7, 7]), torch.Size([5, 7, 7]))
    """

    axes = (2, 3)

    def __init__(
        self,
        grid: tuple[int, ...],
        codebook: int,
        context: int = 0,
        width: int = 64,
        layers: int = 5,
        steps: int = 1_000,
        above: tuple[tuple[int, ...], ...] = (),
    ) -> None:
        super().__init__(grid, codebook, context, {"width": width, "layers": layers}, steps, above)
        self.width, self.layers = width, layers
        self.begin()

    def build(self) -> GatedConvolutions | CausalTransformer:
        """The network, its weights drawn anew."""
        return GatedConvolutions(self.grid, self.codebook, self.given(), self.width, self.layers)


class Transformer(_Learned):
    r"""One codeword after the other, by a transformer that attends to all before it.

    .. math:: p(k \mid c) = \prod_i p(k_i \mid k_1, \ldots, k_{i-1}, c)

    All codes are equally likely until `fit` has seen some: it takes no part in training. Codes are scored in one pass,
    and drawn with keys and values kept, at the price of about one.

    Arguments: `grid` of one to three axes, read in their order; `codebook` numbers to choose from; `context` features
        that it is told, `above` as in `PixelCNN`; `width`, `layers` and `heads` of the network; `steps` of a fit at
        most.
    Shapes: () x grid, or context (B, context) -> (B,) x grid; of whole numbers from 0 to codebook - 1.
    Raises: ValueError for heads that do not divide the width, and sizes below 1; TypeError where a call brings no
        context.
    References: Attention Is All You Need (Vaswani et al., 2017), arXiv:1706.03762; as the prior of codes, Esser et al.
    2021, arXiv:2012.09841, section 3.2.

    Example:
        >>> p = Transformer((8,), codebook=16, context=3)(torch.eye(3))
        >>> p.sample().shape, p.log_prob(p.sample((5,))).shape
        (torch.Size([3, 8]), torch.Size([5, 3]))
    """

    def __init__(
        self,
        grid: tuple[int, ...],
        codebook: int,
        context: int = 0,
        width: int = 64,
        layers: int = 4,
        heads: int = 4,
        steps: int = 1_000,
        above: tuple[tuple[int, ...], ...] = (),
    ) -> None:
        super().__init__(grid, codebook, context, {"width": width, "layers": layers, "heads": heads}, steps, above)
        if width % heads:
            raise ValueError(f"every head has an equal part of the width; got width={width}, heads={heads}")
        self.width, self.layers, self.heads = width, layers, heads
        self.begin()

    def build(self) -> GatedConvolutions | CausalTransformer:
        """The network, its weights drawn anew."""
        return CausalTransformer(self.grid, self.codebook, self.given(), self.width, self.layers, self.heads)
