"""Codewords without a codebook: each unit is rounded to a few values."""

import math

import torch
from torch import Tensor, nn

from narrows.posteriors.quantised import OnGrid, _valued

__all__ = ["FSQ"]


class FSQ(OnGrid):
    r"""Finite scalar quantisation: each unit is bounded and rounded to one of a few values.

    .. math:: z_j = \frac{1}{\lfloor L_j / 2 \rfloor}
              \operatorname{round}\Big( \tfrac{L_j - 1}{2} (1 + \epsilon) \tanh(h_j + s_j) - o_j \Big)

    with o_j = 1/2 where L_j is even (else 0), and a shift s_j for which h = 0 is 0. Nothing is learned but the encoder,
    which sees through the rounding (straight-through), and there is no penalty.

    Arguments: `prior` over as many codewords as the product of `levels`, the values of each unit.
    Shapes: h (B, len(levels), *space) -> z (S, latent) in -1 to 1, rates (S, places) nats, index (S, *grid).
    Raises: ValueError for levels below 2, or a prior of another codebook.
    Reference: Finite Scalar Quantization: VQ-VAE Made Simple (Mentzer et al., 2023), arXiv:2309.15505, section 3 and
    appendix A.1.

    Example:
        >>> from narrows.priors import Codewords
        >>> q = FSQ(Codewords((1,), codebook=15), levels=(3, 5))
        >>> q(torch.tensor([[9.0, -9.0], [0.0, 0.0]])).z
        tensor([[ 1., -1.],
                [ 0.,  0.]])
    """

    def __init__(self, prior: nn.Module, levels: tuple[int, ...] = (8, 5, 5, 5)) -> None:
        super().__init__(prior, len(levels))
        self.levels = tuple(int(n) for n in levels)
        if min(self.levels) < 2 or math.prod(self.levels) != self.codebook:
            raise ValueError(
                f"each unit has at least 2 levels, whose product is the codebook; got levels={self.levels} for "
                f"codebook={self.codebook}"
            )
        self.steps: Tensor
        self.values: Tensor
        steps = [math.prod(self.levels[:j]) for j in range(self.width)]
        self.register_buffer("steps", torch.tensor(steps), persistent=False)
        self.register_buffer("values", torch.tensor(self.levels), persistent=False)

    def within(self, v: Tensor) -> Tensor:
        """Vectors (n, width) within what rounding takes to -floor(L / 2), ..., L values in all."""
        half = (self.values - 1).to(v) * (1 + 1e-3) / 2
        offset = 0.5 * (self.values % 2 == 0).to(v)
        return (v + (offset / half).atanh()).tanh() * half - offset

    def quantise(self, v: Tensor, learning: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """Vectors (n, width) -> codewords (n, width) with the encoder's gradient, index (n, 1), no penalty."""
        within, half = self.within(v), self.values // 2
        rounded = within.detach().round()
        index = ((rounded.long() + half) * self.steps).sum(1, keepdim=True)
        if learning:
            self.tally(0, index[:, 0])
        return _valued(rounded / half, within / half), index, None

    def vectors_of(self, index: Tensor) -> Tensor:
        """The vectors (n, width) of choices (n, 1)."""
        half = self.values // 2
        return (index // self.steps % self.values - half).to(self.count.dtype) / half

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, levels={self.levels}"
