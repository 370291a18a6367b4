"""The ladder of noised copies that a diffusion climbs down: its schedule, the price of its steps, ways up and down.

A row v of D numbers and its copies at times u from 0 to 1, each with a given ratio of signal to noise,

    q(z_u|v) = N(alpha_u v, sigma_u^2 I), alpha_u^2 = 1 / (1 + e^gamma), sigma_u^2 = 1 / (1 + e^-gamma)

with gamma(u) = -log(alpha_u^2 / sigma_u^2) a straight line from `first` to `last`. A denoiser is a network called as
`network(z, told)` with told (S, FEATURES + context); it says w, the part of z that a quarter turn away from it holds,

    z = alpha v + sigma e, w = alpha e - sigma v, so e = sigma z + alpha w and v = alpha z - sigma w

(Salimans & Ho 2022, arXiv:2202.00512, appendix D). One that always says 0 is exact for v ~ N(0, I).
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from narrows import draws
from narrows.contract import repeated
from narrows.divergences import kl

__all__ = ["FEATURES", "Noise", "Priced"]

FEATURES = 16  # that tell a denoiser the time

Denoiser = Callable[[Tensor, Tensor], Tensor]


class Priced(NamedTuple):
    """Some steps of the ladder, one for each draw."""

    step: Tensor  # (S,) whole numbers 1..T
    rates: Tensor  # (S, D) nats: T times the KL of that step, an unbiased estimate of the sum over all
    z: Tensor  # (S, D) the copy that the step begins with


class Noise(nn.Module):
    r"""A schedule of T = `steps` steps between `first` and `last`, values of -log(signal / noise).

    .. math:: -\log p(v) \le \underbrace{\mathrm{KL}(q(z_1 \mid v) \,\|\, \mathcal N(0, I))}_\text{top}
              + \sum_{i=1}^T \underbrace{\tfrac12 \big( e^{\gamma_i - \gamma_{i-1}} - 1 \big)
              E \| e - \hat e(z_i, i) \|^2}_\text{price of step i} - E \log p(v \mid z_0)

    Raises: ValueError for fewer than one step, or a schedule that does not lose signal.
    Reference: Variational Diffusion Models (Kingma et al., 2021), arXiv:2107.00630, sections 3 and 4.1.
    """

    def __init__(self, steps: int = 1000, first: float = -13.3, last: float = 7.0) -> None:
        super().__init__()
        if steps != int(steps) or steps < 1:
            raise ValueError(f"a diffusion has a whole number of steps, at least one; got steps={steps}")
        if not -40 <= first < last <= 40:
            raise ValueError(
                "noise grows from the first to the last step: -log(signal / noise) rises, within -40 and 40; got "
                f"first={first}, last={last}"
            )
        self.steps, self.first, self.last = int(steps), float(first), float(last)

    def gamma(self, u: Tensor) -> Tensor:
        """-log(signal / noise) at times u."""
        return self.first + (self.last - self.first) * u

    @staticmethod
    def mixed(v: Tensor, noise: Tensor, gamma: Tensor) -> Tensor:
        """Alpha v + sigma noise."""
        return torch.sigmoid(-gamma).sqrt() * v + torch.sigmoid(gamma).sqrt() * noise

    @property
    def spread(self) -> float:
        """Sigma / alpha of the first copy: the standard deviation of what is known of v once z_0 is."""
        return math.exp(self.first / 2)

    def told(self, u: Tensor, context: Tensor | None = None) -> Tensor:
        """What a denoiser is told at times u (S, 1): cosines of the time, and the context (S, C)."""
        waves = torch.arange(1, FEATURES + 1, dtype=u.dtype, device=u.device)
        features = (math.pi * waves * u).cos()  # (S, FEATURES)
        return features if context is None else torch.cat([features, context], 1)

    def guess(self, network: Denoiser, z: Tensor, u: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What a denoiser makes of copies z (S, D) at times u (S, 1): the row and the noise in them, (S, D) each."""
        gamma, turned = self.gamma(u), network(z, self.told(u, context)).flatten(1)
        return self.mixed(z, -turned, gamma), self.mixed(turned, z, gamma)

    def top(self, v: Tensor, p: Distribution) -> Tensor:
        """KL(q(z_1|v) || p(z_1)) of each value, rows (B, D) -> (B, D) nats."""
        last = torch.full_like(v, self.last)
        q = Normal(self.mixed(v, torch.zeros_like(v), last), torch.sigmoid(last).sqrt(), validate_args=False)
        return kl(Independent(q, 1, validate_args=False), p)

    def start(self, v: Tensor, samples: int = 1, step: int | None = None) -> Tensor:
        """Draws of the copy at a step, the last where none is named, rows (B, D) -> (S, D)."""
        u = (self.steps if step is None else step) / self.steps
        gamma = self.gamma(torch.full_like(v[:1, :1], u))
        return self.mixed(repeated(v, samples), draws.normal(samples, v).flatten(0, 1), gamma)

    def price(self, network: Denoiser, v: Tensor, context: Tensor | None = None, samples: int = 1) -> Priced:
        """Prices of steps that are drawn, `samples` for each of the rows (B, D), context (B, C).

        Steps are spread evenly over the samples of a row, and those over the rows; as many samples as steps are all of
        the steps, each once.
        """
        u = draws.stratified(samples, v).flatten()[:, None]  # (S, 1)
        step = (u * self.steps).floor().clamp(0, self.steps - 1) + 1
        noise = draws.normal(samples, v).flatten(0, 1)  # (S, D)
        return self._priced(network, repeated(v, samples), noise, step, repeated(context, samples))

    def each(self, network: Denoiser, v: Tensor, step: int, context: Tensor | None = None) -> Tensor:
        """Price of one step for every row (B, D), by value: (B, D) nats."""
        which = torch.full_like(v[:, :1], step)
        return self._priced(network, v, draws.normal(1, v)[0], which, context).rates / self.steps

    def _priced(self, network: Denoiser, v: Tensor, noise: Tensor, step: Tensor, context: Tensor | None) -> Priced:
        before, now = self.gamma((step - 1) / self.steps), self.gamma(step / self.steps)  # (S, 1)
        z = self.mixed(v, noise, now)
        _, found = self.guess(network, z, step / self.steps, context)
        rates = 0.5 * self.steps * torch.expm1(now - before) * (noise - found).square()
        return Priced(step[:, 0].long(), rates, z)

    def shares(self, step: Tensor) -> Tensor:
        """What the squared error |e - e^|^2 of a step counts for in T times its price, (S,) -> (S,)."""
        step = step.double()
        gap = self.gamma(step / self.steps) - self.gamma((step - 1) / self.steps)
        return 0.5 * self.steps * torch.expm1(gap)

    def jump(self, network: Denoiser, z: Tensor, jumps: int, context: Tensor | None = None, up: bool = False) -> Tensor:
        r"""From copies at the last time to the first by `jumps` steps without noise, or `up` from first to last.

        .. math:: \frac{dz}{d\phi} = w(z, \phi), \quad \tan \phi = \sigma / \alpha

        With row and noise held, a step is a turn of z towards w (Salimans & Ho 2022, appendix D; DDIM, Song et al.
        2021, arXiv:2010.02502, equation 12 without noise); a second look from its end makes it one of second order, in
        two passes (Karras et al. 2022, arXiv:2206.00364, algorithm 1).
        """
        low, high = (math.atan(math.exp(gamma / 2)) for gamma in (self.first, self.last))
        angles = torch.linspace(low, high, jumps + 1, dtype=z.dtype, device=z.device)
        one = torch.ones_like(z[:, :1])

        def turned(z: Tensor, angle: Tensor) -> Tensor:
            u = (2 * angle.tan().log() - self.first) / (self.last - self.first)
            return network(z, self.told(u.clamp(0, 1) * one, context)).flatten(1)

        for here, there in pairwise(angles if up else angles.flip(0)):
            turn, w = there - here, turned(z, here)
            z, straight = turn.cos() * z + turn.sin() * w, turn.cos() * w - turn.sin() * z
            z = z + turn / 2 * (turned(z, there) - straight)
        return z

    def walk(self, network: Denoiser, z: Tensor, context: Tensor | None = None) -> Tensor:
        r"""From copies at the last time to the first by all steps with their noise: draws from the model itself.

        .. math:: p(z_s \mid z_t) = \mathcal N\Big( \alpha_s \big( (1 - c) \, z_t / \alpha_t + c \, \hat v \big),
                  \sigma_s^2 c \, I \Big), \quad c = 1 - e^{\gamma_s - \gamma_t}

        (Kingma et al. 2021, appendix A, where c is the same).
        """
        one = torch.ones_like(z[:, :1])
        for step in range(self.steps, 0, -1):
            t, s = (self.gamma(one * (k / self.steps)) for k in (step, step - 1))
            row, noise = self.guess(network, z, one * (step / self.steps), context)
            c = -torch.expm1(s - t)
            # of the noise in z_t a part stays, sigma_s e^ sqrt(1 - c), and a new one of variance c comes
            z = self.mixed(row, (1 - c).sqrt() * noise + c.sqrt() * draws.normal(1, z)[0], s)
        return z

    def extra_repr(self) -> str:
        return f"steps={self.steps}, first={self.first:g}, last={self.last:g}"
