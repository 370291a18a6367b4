"""A prior that runs down rungs of maps: latent images of several sizes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from narrows.networks.cells import Cell, halved, image, larger, mapped, shrunk
from narrows.priors.fixed import ONE
from narrows.priors.rungs import Hierarchy

__all__ = ["Maps", "sizes"]


def sizes(shape: Sequence[int], rungs: int | Sequence[int], patch: int = 2) -> tuple[tuple[int, int], ...]:
    """Height and width of every rung, top first, for rows of a shape.

    The bottom rungs have a place for every `patch` x `patch` pixels, and each further size is half of the last. A
    sequence says how many rungs there are of each size, top first; a number is shared out among the sizes of more than
    3 places a side and the next, the larger ones first. Rows that are no image have one size, 1 x 1.

    Raises: ValueError for no rungs, more sizes than the image has halves, or a patch whose side is no power of 2.

    Example:
        >>> sizes((1, 28, 28), 4)
        ((4, 4), (7, 7), (14, 14), (14, 14))
        >>> sizes((1, 28, 28), 4, patch=4)
        ((4, 4), (4, 4), (7, 7), (7, 7))
        >>> sizes((3, 32, 45), (1, 2))
        ((8, 12), (16, 23), (16, 23))
        >>> sizes((20,), 2)
        ((1, 1), (1, 1))
    """
    size = image(shape)[1:]
    there = [shrunk(size, patch)]  # bottom first
    while there[-1] != (1, 1):
        there.append(halved(there[-1]))
    if isinstance(rungs, int):
        most = 1 + sum(max(s) > 4 for s in there)
        used = max(min(most, len(there), rungs), 1)
        many = [rungs // used + (i < rungs % used) for i in range(used)]
    else:
        many = list(rungs)[::-1]
    if not many or any(n != int(n) or n < 1 for n in many):
        raise ValueError(
            "rungs is their number, or how many there are of each size, top first, such as rungs=(1, 1, 2); got "
            f"rungs={rungs}"
        )
    if len(many) > len(there):
        raise ValueError(
            f"rungs={tuple(rungs)} are of {len(many)} sizes, and rows of shape {tuple(shape)} have maps of "  # type: ignore[arg-type]
            f"{len(there)} at most: {', '.join(f'{h} x {w}' for h, w in there)}. Take fewer sizes, or rungs={sum(many)}"
        )
    return tuple(s for s, n in zip(there, many, strict=False) for _ in range(n))[::-1]


class Maps(Hierarchy):
    r"""Rungs of maps: every rung is normal given what a deterministic path has gathered of those above.

    .. math:: p(z) = \prod_l \mathcal N\big(z_l; \mu_l(s_l), \operatorname{diag} \sigma_l^2(s_l)\big), \quad
              s_{l+1} = \text{cell}\big( s_l + e_l + W_l z_l \big), \quad (\mu_l, \sigma_l, e_l) = \text{cell}(s_l)

    The state s is a map of `width` channels; it begins as a learned one and doubles in size where the next rung is
    larger. Every rung has `latent` channels on each of its places.

    Arguments:
        latent: channels of each rung. `shape` of a row, `rungs`, `patch`: see `sizes`.
        width: channels of the state; `inner`, of the narrow convolutions in its cells.

    Shapes: () or (B,) with context, x (D,), D = latent x places; a state is (S, width, h, w).
    Raises: ValueError for rungs that the shape does not admit, or a width below 1.
    References: Ladder Variational Autoencoders (Sonderby et al., 2016), arXiv:1602.02282; NVAE (Vahdat & Kautz, 2020),
    arXiv:2007.03898, section 3; Very Deep VAEs (Child, 2021), arXiv:2011.10650, section 3 and figure 3.

    Example:
        >>> prior = Maps(2, shape=(1, 12, 12), rungs=3, width=8)
        >>> prior.rungs, prior.gives, prior().sample((5,)).shape
        ((18, 72, 72), (8, 6, 6), torch.Size([5, 162]))
    """

    def __init__(
        self,
        latent: int,
        shape: tuple[int, ...] = (1, 28, 28),
        rungs: int | Sequence[int] = 4,
        patch: int = 2,
        width: int = 64,
        inner: int | None = None,
        context: int = 0,
    ) -> None:
        if latent < 1:
            raise ValueError(f"a code needs at least one unit; got latent={latent}")
        if width < 1:
            raise ValueError(f"width counts the channels of the way down, at least 1; got width={width}")
        self.sizes = sizes(shape, rungs, patch)
        super().__init__(tuple(latent * h * w for h, w in self.sizes), context)
        self.channels, self.width, self.inner = latent, width, inner
        self.gives = (width, *self.sizes[-1])
        self.start = nn.Parameter(torch.randn(width, *self.sizes[0]))
        self.told = nn.Linear(context, width, bias=False) if context else None
        scale = len(self.rungs) ** -0.5
        self.before = nn.ModuleList(self.cell(width, 2 * latent + width, s, scale=scale) for s in self.sizes)
        taken = [nn.Conv2d(latent, width, 1) for _ in self.sizes]
        self.taken: Any = nn.ModuleList(taken)
        self.after = nn.ModuleList(self.cell(width, width, s, residual=True, scale=scale) for s in self.sizes)
        with torch.no_grad():
            for layer in taken:
                layer.weight.mul_(scale)

    def cell(self, inputs: int, outputs: int, size: tuple[int, int], **more: float) -> Cell:
        """A cell of the kind that stands between rungs: what infers them is built alike."""
        return Cell(inputs, outputs, size, self.inner or max(self.width // 2, 4), **more)  # type: ignore[arg-type]

    def begin(self, like: Tensor) -> Tensor:
        return self.start.repeat(like.shape[0], 1, 1, 1)

    def given(self, rung: int, state: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        if rung == 0 and self.told is not None:
            state = state + self.told(context)[:, :, None, None]
        if rung and self.sizes[rung] != self.sizes[rung - 1]:
            state = larger(state, self.sizes[rung])
        mean, s, more = self.before[rung](state).split([self.channels, self.channels, self.width], 1)
        return mean.flatten(1), softplus(s.flatten(1) + ONE) + 1e-6, state + more

    def join(self, rung: int, z: Tensor, state: Tensor, context: Tensor | None) -> Tensor:
        taken = mapped(self.taken[rung], z.unflatten(1, (self.channels, *self.sizes[rung])))
        return self.after[rung](state + taken)
