"""A prior that learns to take noise off codes."""

import copy
import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from narrows import draws
from narrows.networks import Residual
from narrows.noise import FEATURES, Noise
from narrows.priors.learned import _Standardised

__all__ = ["Diffusion"]

STEPS = 2_000  # of a fit at most
FINE = 32  # steps of the ladder that price a code in evaluation, spread over all


class _Denoised(Distribution):
    """What a denoiser makes of noise: it can be sampled, and scored by a lower bound."""

    arg_constraints = {}  # noqa: RUF012 (torch's own declaration)

    def __init__(self, prior: "Diffusion") -> None:
        super().__init__(torch.Size(), torch.Size((prior.latent,)), validate_args=False)
        self.prior = prior

    def log_prob(self, z: Tensor) -> Tensor:  # type: ignore[override]
        """An unbiased estimate of the ELBO of log p(z), (..., D) -> (...) nats."""
        return self.prior.bound(z.reshape(-1, self.prior.latent)).view(z.shape[:-1])

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:  # type: ignore[override]
        prior, shape = self.prior, (*sample_shape, self.prior.latent)
        like = prior.centre.new_empty(torch.Size(shape).numel() // prior.latent, prior.latent)
        z = prior.noise.walk(prior.network, draws.normal(1, like)[0])
        return (prior.centre + prior.width * ((1 + prior.noise.spread**2) ** 0.5) * z).view(shape)


class Diffusion(_Standardised):
    r"""A small diffusion over codes, which learns with the model or from its codes (`fit`).

    .. math:: \log p(z) \ge E \log \mathcal N(v; z_0 / \alpha_0, s_0^2) - \sum_i \mathrm{KL}_i
              - \mathrm{KL}(q(z_1 \mid v) \,\|\, \mathcal N(0, I)) - \sum_d \log w_d, \quad v = (z - c) / w

    Codes are drawn in `steps` passes. Their density is known by a lower bound only, estimated without bias from one
    step in training and from 32 in evaluation: rates under it, and so the ELBO, are true bounds in expectation, but
    single draws cannot be weighed, and whatever weighs them says so.

    Arguments: `steps` of the ladder; `hidden` units and `blocks` of the denoiser, a `networks.Residual`.
    Shapes: () x (latent,).
    Raises: ValueError for sizes below 1.
    References: Kingma et al. 2021, arXiv:2107.00630; as the prior of a code, Score-based Generative Modeling in Latent
    Space (Vahdat et al., 2021), arXiv:2106.05931, and High-Resolution Image Synthesis with Latent Diffusion Models
    (Rombach et al., 2022), arXiv:2112.10752, where it is fitted afterwards.

    Example:
        >>> Diffusion(2)().sample((5,)).shape
        torch.Size([5, 2])
    """

    bounded = True

    def __init__(self, latent: int, steps: int = 200, hidden: int = 128, blocks: int = 2) -> None:
        super().__init__(latent)
        self.steps, self.hidden, self.blocks = steps, hidden, blocks
        self.noise = Noise(steps, first=-8.0, last=6.0)
        self.begin()

    def begin(self) -> None:
        """Draws weights anew."""
        shape = (self.latent,)
        self.network: nn.Module = Residual(shape, shape, FEATURES, self.hidden, self.blocks).to(self.centre)

    def forward(self, context: Tensor | None = None) -> Distribution:
        return _Denoised(self)

    def bound(self, z: Tensor) -> Tensor:
        """An unbiased estimate of a lower bound on log p(z), codes (n, latent) -> (n,) nats."""
        v, noise = (z - self.centre) / self.width, self.noise
        samples = 1 if self.training else min(FINE, self.steps)
        priced = noise.price(self.network, v, samples=samples).rates.sum(1).view(samples, -1).mean(0)
        first = ((1 + noise.spread**2) ** 0.5) * noise.start(v, step=0)  # v with noise of width s_0
        seen = Normal(first, noise.spread, validate_args=False).log_prob(v).sum(1)
        one = Independent(Normal(torch.zeros_like(self.centre), torch.ones_like(self.width), validate_args=False), 1)
        return seen - priced - noise.top(v, one).sum(1) - self.width.log().sum()

    def fit(self, z: Tensor) -> None:
        """The ELBO's best for codes (n, latent), from weights drawn anew; a tenth of the codes says when to stop.

        Adam on 256 codes a time for 2,000 steps, whose size falls from 0.002 along a cosine; the weights kept are the
        best of 20 looks, each at the same noise. Units that never change keep a little width.

        Raises: ValueError for fewer than 20 codes.
        """
        if len(z) < 20:
            raise ValueError(
                f"Diffusion learns from at least 20 codes; got {len(z)}. Take more rows, or MultivariateGaussian"
            )
        z = z.detach().to(self.centre)
        spread = z.std(0, correction=0)
        self.centre.copy_(z.mean(0))
        self.width.copy_(spread.clamp_min(1e-3 * float(spread.max().clamp_min(1e-3))))
        self.begin()
        was, seed = self.training, int(torch.randint(2**31, ()))
        z = z[torch.randperm(len(z), device=z.device)]
        held, z = z[: len(z) // 10], z[len(z) // 10 :]
        optimiser = torch.optim.Adam(self.parameters(), lr=2e-3)
        decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
        least, best = math.inf, copy.deepcopy(self.state_dict())
        for step in range(STEPS):
            self.train()
            with torch.enable_grad():
                optimiser.zero_grad()
                some = z[torch.randint(len(z), (min(256, len(z)),), device=z.device)]
                (-self.bound(some).mean(0)).backward()
                optimiser.step()
                decay.step()
            if step % (STEPS // 20) == STEPS // 20 - 1:
                self.eval()
                with torch.no_grad(), draws.seeded(seed):
                    loss = -float(self.bound(held).mean(0))
                if loss < least:
                    least, best = loss, copy.deepcopy(self.state_dict())
        self.load_state_dict(best)
        optimiser.zero_grad()
        self.train(was)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, steps={self.steps}, hidden={self.hidden}, blocks={self.blocks}"
