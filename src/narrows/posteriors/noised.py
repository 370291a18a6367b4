"""Inference that learns nothing: noise, step by step, until nothing else is left."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from narrows.contract import Code, repeated
from narrows.noise import Denoiser, Noise
from narrows.priors import StandardNormal

__all__ = ["Noised"]


class Noised(nn.Module):
    r"""Copies of x with ever more noise, the last of which is the code: the fixed inference of a diffusion.

    .. math:: q(z_u \mid x) = \mathcal N(\alpha_u x, \sigma_u^2 I)

    What the encoder hands over is x itself, on the scale of one, row by row. A model built with this posterior hands
    over its denoiser (`attach`). The code is z_1, the last copy: draws are those of q(z_1|x), which have all but
    forgotten x; the point code is what x becomes without any draw, on the way that `Noise.jump` takes, and from it x
    comes back. Either is priced as what it is, KL(q(z_1|x) || N(0, I)). What the steps below cost is in the `Pass` of
    the model: `priced` gives it.

    Arguments: `prior` the standard normal of as many units as a row has values; `steps`, `first`, `last` as `Noise`;
        `jumps` steps without noise from x to its code and back, of two passes each.
    Shapes: h (B, latent) -> z (S, latent), rates (S, latent) nats; log_q, log_p None: sums over steps, never of a draw.
    Raises: TypeError for another prior, or without a model; ValueError for fewer than one jump.
    References: Denoising Diffusion Probabilistic Models (Ho et al., 2020), arXiv:2006.11239; Variational Diffusion
    Models (Kingma et al., 2021), arXiv:2107.00630; Denoising Diffusion Implicit Models (Song et al., 2021),
    arXiv:2010.02502, section 4.3, for the point code.
    """

    density = closed = bounded = True

    def __init__(
        self, prior: nn.Module, steps: int = 1000, first: float = -13.3, last: float = 7.0, jumps: int = 12
    ) -> None:
        super().__init__()
        if not isinstance(prior, StandardNormal):
            raise TypeError(
                "the last step of a diffusion leaves nothing but noise, so its prior is the standard normal: "
                f"prior=StandardNormal; got {type(prior).__name__}"
            )
        if jumps != int(jumps) or jumps < 1:
            raise ValueError(f"jumps is a whole number of steps, at least one; got jumps={jumps}")
        self.prior, self.jumps = prior, int(jumps)
        self.noise = Noise(steps, first, last)
        self.latent = self.features = prior.latent
        self.denoiser: Denoiser | None = None

    def attach(self, denoiser: Callable[..., Tensor]) -> None:
        """Keeps what reads copies: a bound method, which copies follow (a module kept here would be a part of it)."""
        self.denoiser = denoiser

    @property
    def network(self) -> Denoiser:
        """The denoiser. Raises TypeError where no model brought one."""
        if self.denoiser is None:
            raise TypeError(
                "a Noised code comes from a denoiser, which a model of its own joins to it: Diffusion(encoder, "
                "Noised(StandardNormal(latent)), denoiser, likelihood), or recipe diffusion"
            )
        return self.denoiser

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        h = h.flatten(1)
        if draw:
            z = self.noise.start(h, samples)
        else:
            first = self.noise.mixed(h, torch.zeros_like(h), self.noise.gamma(torch.zeros_like(h[:, :1])))
            z = repeated(self.noise.jump(self.network, first, self.jumps, context, up=True), samples)
        rates = repeated(self.noise.top(h, self.prior()), samples)
        return Code(z, rates, None, None, z.new_zeros(z.shape[0]))

    def priced(self, h: Tensor, context: Tensor | None = None, samples: int = 1) -> Code:
        """The last copies with the price of all steps, each row's from `samples` steps that are drawn.

        Rates (S, latent) nats are unbiased estimates of the whole, exact sums where `samples` is the number of steps;
        index (S, 1) says which step each row was priced by.
        """
        h = h.flatten(1)
        found = self.noise.price(self.network, h, context, samples)
        rates = found.rates + repeated(self.noise.top(h, self.prior()), samples)
        return Code(found.z, rates, None, None, rates.new_zeros(len(rates)), found.step[:, None])

    def extra_repr(self) -> str:
        return f"latent={self.latent}, jumps={self.jumps}"
