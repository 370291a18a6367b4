"""Codes of codewords on several grids, each quantised given those above it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from narrows.contract import Code, repeated
from narrows.networks import Grid, Mlp
from narrows.posteriors.quantised import RECENT, Discrete, OnGrid, Places, Quantised, nearest, vectors
from narrows.priors.codewords import CodewordRungs

__all__ = ["QuantisedRungs"]


def _halves(coarse: tuple[int, ...], fine: tuple[int, ...]) -> bool:
    """Whether a grid is another halved, once or more."""
    times = fine[0] // coarse[0]
    return times > 1 and times & (times - 1) == 0 and all(b == times * a for a, b in zip(coarse, fine, strict=True))


def _between(inputs: tuple[int, ...], outputs: tuple[int, ...]) -> nn.Module:
    """From vectors on one grid to vectors on another: convolutions for images, else a perceptron."""
    return Grid(inputs, outputs) if len(inputs) == 3 else Mlp(inputs, outputs)


class QuantisedRungs(Discrete):
    r"""Vector quantisation on several grids, for `Ladder`: what the coarse codewords leave unsaid the finer ones say.

        h (B, width, *fine) -> up -> h_top        e_top -> down -> s --+--------------------> state
                  |                   |             ^               |  |                        ^
                  |                quantise --------+               v  |                        |
                  +-----------------------------------------> look -> quantise -> e_fine -------+

    .. math:: k_l = \arg\min_k \big| v_l(h_l, e_{<l}) - e_{lk} \big|, \qquad
              \log p(z) = \sum_l \log p(k_l \mid k_{<l})

    Each rung has a codebook of its own (`Quantised`), and its part of the prior, `CodewordRungs`. z holds the rungs'
    maps side by side, top first, flat; the state that a decoder reads is the finest map and what has come down to it.
    Codebooks start with k-means, from the top down.

    Arguments: `width` units of a vector; `commitment`, `decay`, `rotation`, `revive` as in `Quantised`.
    Shapes: h (B, width, *space of the finest) -> z (S, latent), rates (S, choices) nats, index (S, choices).
    Raises: TypeError for a prior without rungs of codewords; ValueError for grids of which one does not lead to the
    next by halvings.
    Reference: Generating Diverse High-Fidelity Images with VQ-VAE-2 (Razavi et al., 2019), arXiv:1906.00446, section 3
    and algorithm 1.

    Example:
        >>> q = QuantisedRungs(CodewordRungs(((2, 2), (4, 4)), codebook=16), width=3).eval()
        >>> code = q(torch.randn(5, 3, 4, 4))
        >>> code.index.shape, [tuple(part.shape) for part in q.split(code.z)]
        (torch.Size([5, 20]), [(5, 12), (5, 48)])
    """

    def __init__(
        self,
        prior: nn.Module,
        width: int,
        commitment: float = 0.25,
        decay: float | None = 0.99,
        rotation: bool = False,
        revive: int | None = RECENT,
    ) -> None:
        super().__init__()
        if not isinstance(prior, CodewordRungs):
            raise TypeError(
                "a code of codewords on several grids takes a prior over all of them. Wrong: QuantisedRungs("
                f"{type(prior).__name__}(...), width); right: QuantisedRungs(CodewordRungs(((7, 7), (14, 14)), 512), "
                "width)"
            )
        self.prior, self.width = prior, width
        self.grid, self.grids, self.codebook = prior.grid, prior.grids, prior.codebook
        self.each = nn.ModuleList(
            Quantised(Places(grid, self.codebook), width, commitment, decay, rotation=rotation, revive=revive)
            for grid in self.grids
        )
        self.rungs = tuple(part.latent for part in self.parts)
        self.latent = sum(self.rungs)
        maps = [(width, *part.space) for part in self.parts]
        self.features = maps[-1]
        for coarse, fine in pairwise(self.grids):
            if len(coarse) != len(fine) or (len(fine) == 2 and not _halves(coarse, fine)):
                raise ValueError(
                    f"each grid of an image is the next one halved, once or more; got {coarse} above {fine}. Take "
                    f"grid={(tuple(-(-side // 2) for side in fine), fine)} where both sides are even, or images padded "
                    "to a multiple of 8 (--size)"
                )
        self.gives = (width * min(len(maps), 2), *maps[-1][1:])
        self.up = nn.ModuleList(_between(fine, coarse) for coarse, fine in pairwise(maps))
        self.down = nn.ModuleList(
            _between((width * min(rung + 1, 2), *coarse[1:]), fine)
            for rung, (coarse, fine) in enumerate(pairwise(maps))
        )
        self.look = nn.ModuleList(nn.Linear(2 * width, width) for _ in maps[1:])

    @property
    def parts(self) -> list[OnGrid]:
        """What quantises each grid, the top first."""
        return list(self.each)  # type: ignore[arg-type]

    @property
    def count(self) -> Tensor:  # type: ignore[override]
        """How often each codeword of every rung is used, (rungs, K)."""
        return torch.cat([part.count for part in self.parts])

    @property
    def idle(self) -> Tensor:  # type: ignore[override]
        """Steps that each codeword of every rung has not been used, (rungs, K)."""
        return torch.cat([part.idle for part in self.parts])

    def split(self, t: Tensor) -> tuple[Tensor, ...]:
        """Codes (..., latent) or rates (..., choices) as one tensor for each rung, top first."""
        return t.split(self.rungs if t.shape[-1] == self.latent else self.prior.places, -1)

    def by_book(self, index: Tensor) -> list[Tensor]:
        """The choices (n,) of every rung in codes (S, choices)."""
        return [part.flatten() for part in index.split(self.prior.places, -1)]

    def embed(self, index: Tensor) -> Tensor:
        """Z (S, latent) of codes (S, choices)."""
        every = index.split(self.prior.places, -1)
        return torch.cat([q.embed(k.reshape(-1, *q.grid)) for q, k in zip(self.parts, every, strict=True)], 1)

    def descend(
        self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True
    ) -> tuple[Code, Any]:
        """The code of h, and the state that quantising it leads to."""
        learning, found = self.training and draw and torch.is_grad_enabled(), []
        state: Tensor | None = None
        for rung, (q, seen) in enumerate(zip(self.parts, self._climb(h), strict=True)):
            v = self._vectors(rung, seen, state)
            e, index, penalty = q.quantise(q.apart(v), learning)
            z = q.joined(e, h.shape[0])
            found.append((z, index.view(h.shape[0], -1), penalty.view(h.shape[0], -1)))  # type: ignore[union-attr]
            state = self._joined(rung, z, state)
        z, index, paid = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        rates = -self.prior(context).each(index).to(z.dtype)  # type: ignore[attr-defined]
        z, rates, paid, index = (repeated(t, samples) for t in (z, rates, paid.sum(1), index))
        code = Code(z, rates, torch.zeros_like(paid), -rates.sum(1), paid, index)
        return code, repeated(state, samples)  # type: ignore[arg-type]

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        return self.descend(h, context, samples, draw)[0]

    def state(self, z: Tensor, context: Tensor | None = None) -> Any:
        """What the decoder reads for codes z (S, latent)."""
        state = None
        for rung, part in enumerate(self.split(z)):
            state = self._joined(rung, part, state)
        return state

    def redrawn(
        self, z: Tensor, keep: int, context: Tensor | None = None, temperature: float | Sequence[float] = 1.0
    ) -> Tensor:
        """Codes (S, latent) whose top `keep` rungs are those of z and whose others are drawn anew, given them.

        Raises: ValueError for more rungs than there are; TypeError for a temperature, which numbers of codewords lack.
        """
        if temperature != 1.0:
            raise TypeError(f"codewords have no width that a temperature could change; got {temperature}")
        some = [
            nearest(q.apart(part), q.vectors[0].detach()).view(len(z), -1)  # type: ignore[union-attr, index]
            for q, part in zip(self.parts, self.split(z), strict=True)
        ]
        if not 0 <= keep <= len(some):
            raise ValueError(f"there are {len(some)} rungs, of which 0 to all can be kept; got keep={keep}")
        return self.embed(self.prior.below(some[:keep], len(z), context))

    @torch.no_grad()
    def start(self, model: Any, rows: Any, train: Any) -> bool:
        """Before the first step: each codebook is what k-means finds, given the codewords above it."""
        for rung, part in enumerate(self.parts):
            if not part.began:

                def read(h: Tensor, rung: int = rung, part: OnGrid = part) -> Tensor:
                    return part.apart(self._seen(h, rung))

                part.begin(vectors(model, rows, part, read))  # type: ignore[operator]
        return False

    def _climb(self, h: Tensor) -> list[Tensor]:
        """What is known at every rung, (B, width, *space), top first."""
        found = [h.view(-1, *self.features)]
        for network in reversed(self.up):
            found.append(network(relu(found[-1])))
        return found[::-1]

    def _vectors(self, rung: int, seen: Tensor, state: Tensor | None) -> Tensor:
        """The vectors of a rung (B, width, *space), before they are quantised, from what has come down to it."""
        if state is None:
            return seen
        both = torch.cat([seen, state], 1).movedim(1, -1)
        return self.look[rung - 1](both).movedim(-1, 1)

    def _joined(self, rung: int, z: Tensor, state: Tensor | None) -> Tensor:
        """What comes down to the next rung, or in the end to the decoder: (S, channels, *space)."""
        own = z.view(-1, self.width, *self.parts[rung].space)
        own = own if state is None else torch.cat([state, own], 1)
        return self.down[rung](own) if rung < len(self.down) else own

    def _seen(self, h: Tensor, rung: int) -> Tensor:
        """The vectors of a rung, given the codewords of those above it."""
        state = None
        for above, (q, seen) in enumerate(zip(self.parts, self._climb(h), strict=True)):
            v = self._vectors(above, seen, state)
            if above == rung:
                return v
            state = self._joined(above, q.joined(q.quantise(q.apart(v), False)[0], len(h)), state)
        raise IndexError(rung)

    def extra_repr(self) -> str:
        return f"grids={self.grids}, width={self.width}"
