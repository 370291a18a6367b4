"""The model whose inference is fixed: a ladder of noised copies, and a network that takes the noise away."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from narrows.contract import Pass, repeated
from narrows.likelihoods import Likelihood
from narrows.models import Model
from narrows.posteriors import Noised

__all__ = ["Diffusion", "Scaled"]


class Scaled(nn.Module):
    """Rows on the scale of one: (x - centre) / width, flat; and back.

    Values within 0..1 begin at -1..1 and stay there. Others are standardised when training starts: columns each by
    itself, the values of an image all together.

    Shapes: (S, *event) -> (S, D); `back` the other way.
    """

    def __init__(self, shape: tuple[int, ...], bounded: bool) -> None:
        super().__init__()
        self.shape, self.bounded = tuple(shape), bounded
        size = self.shape if len(self.shape) == 1 and not bounded else ()
        self.centre: Tensor
        self.width: Tensor
        self.register_buffer("centre", torch.full(size, 0.5 if bounded else 0.0))
        self.register_buffer("width", torch.full(size, 0.5 if bounded else 1.0))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return ((x - self.centre) / self.width).flatten(1)

    def back(self, v: Tensor) -> Tensor:
        """Rows of the event's shape again."""
        return self.centre + self.width * v.view(-1, *self.shape)

    @torch.no_grad()
    def standardise(self, x: Tensor) -> None:
        """Takes centre and width from rows (n, *event)."""
        x = x.double() if self.centre.dim() else x.double().reshape(-1)
        spread = x.std(0, correction=0)
        self.centre.copy_(x.mean(0))
        self.width.copy_(spread.clamp_min(1e-3 * float(spread.amax().clamp_min(1e-3))))

    def extra_repr(self) -> str:
        return f"shape={self.shape}, bounded={self.bounded}"


class Diffusion(Model):
    """x with ever more noise, and back step by step: a ladder whose rungs are noised copies of x.

        x -> encoder: on the scale of one -> v -> posterior: alpha v + sigma e ... -> z (S, D), noise
        p(x|z_0) <- likelihood, which needs no network <- z_0 <- ... decoder, told the time and the context

    `encoder` is a `Scaled`, `posterior` a `Noised`, `decoder` any network from (S, *event) and told (S, features) to
    (S, *event), as `noise.Noise` reads it, and the likelihood says what is known of x once z_0 is (`seen_through`). A
    pass prices one step a draw, so that a loss is an unbiased estimate of the ELBO; `evaluate.distortion_rate` with as
    many samples as steps sums all of them. `encode` and `decode` go from x to its code and back without noise.

    Raises: TypeError for other parts.
    References: Deep Unsupervised Learning using Nonequilibrium Thermodynamics (Sohl-Dickstein et al., 2015),
    arXiv:1503.03585; Ho et al. 2020, arXiv:2006.11239; Kingma et al. 2021, arXiv:2107.00630.

    Example:
        >>> from narrows.likelihoods import Gaussian
        >>> from narrows.networks import Mlp
        >>> from narrows.noise import FEATURES
        >>> from narrows.priors import StandardNormal
        >>> denoiser = Mlp((8,), (8,), context=FEATURES)
        >>> model = Diffusion(Scaled((8,), False), Noised(StandardNormal(8)), denoiser, Gaussian((8,), sigma=0.01))
        >>> model.sample(3).mean.shape
        torch.Size([3, 8])
    """

    def __init__(
        self, encoder: Scaled, posterior: Noised, decoder: nn.Module, likelihood: Likelihood, context: int = 0
    ) -> None:
        super().__init__(encoder, posterior, decoder, likelihood, None, context)
        if not isinstance(encoder, Scaled) or not isinstance(posterior, Noised):
            raise TypeError(
                "a diffusion brings rows to one scale and adds noise. Wrong: Diffusion(Mlp(...), Gaussian(...), ...); "
                "right: Diffusion(Scaled(shape, bounded), Noised(StandardNormal(latent)), denoiser, likelihood); got "
                f"{type(encoder).__name__}, {type(posterior).__name__}"
            )
        posterior.attach(self.denoise)
        self.start: Callable[..., bool] = _standardise

    def denoise(self, z: Tensor, told: Tensor) -> Tensor:
        """What the decoder says of copies (S, D), flat again."""
        return self.decoder(z.view(-1, *self.shape), told).flatten(1)

    def _begin_usual(self, rows: Any) -> None:
        """What ends the decoder is noise, not a row."""

    def forward(self, x: Tensor, context: Tensor | None = None, samples: int = 1) -> Pass:
        v = self.hidden(x, context)
        code = self.posterior.priced(v, context, samples)  # type: ignore[operator, union-attr]
        first = self.posterior.noise.start(v, samples, step=0)  # type: ignore[operator, union-attr]
        return Pass(self._seen(first, repeated(context, samples)), code)

    def decode(self, z: Tensor, context: Tensor | None = None) -> Distribution:
        """p(x|z_0) at the end of the way down from codes (S, D) without noise. Raises: as `hidden`."""
        self._check_told(context)
        context = None if context is None else repeated(context, len(z) // len(context))
        posterior: Any = self.posterior
        return self._seen(posterior.noise.jump(self.denoise, z, posterior.jumps, context), context)

    @torch.no_grad()
    def ancestral(self, n: int, context: Tensor | None = None) -> Distribution:
        """p(x|z_0) at the end of n ways down by all steps with their noise: draws from the model that the ELBO is of.

        `sample` takes `jumps` steps without noise. Raises: as `sample`.
        """
        z = self.posterior.noise.walk(self.denoise, self.draw(n, context), context)  # type: ignore[operator, union-attr]
        return self._seen(z, context)

    def _seen(self, first: Tensor, context: Tensor | None) -> Distribution:
        """p(x|z_0) from copies z_0 (S, D): x is z_0 / alpha_0, but for noise of width sigma_0 / alpha_0."""
        encoder, noise = self.encoder, self.posterior.noise  # type: ignore[union-attr]
        rise = (1 + noise.spread**2) ** 0.5  # type: ignore[union-attr, operator]
        x = encoder.back(rise * first)  # type: ignore[operator, union-attr]
        sigma = encoder.width * noise.spread  # type: ignore[union-attr, operator]
        return self.likelihood(self.likelihood.seen_through(x, sigma), context)

    def steps(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Rates of each step, the top first, (B, 1 + T) nats: one draw of every copy of every row."""
        posterior, v = self.posterior, self.hidden(x, context)
        noise: Any = posterior.noise
        top = noise.top(v, posterior.prior()).sum(1)  # type: ignore[operator]
        below = [noise.each(self.denoise, v, step, context).sum(1) for step in range(noise.steps, 0, -1)]
        return torch.stack([top, *below], 1)


def _standardise(model: Any, rows: Any, train: Callable[..., Any]) -> bool:  # noqa: ARG001
    """Before the first step: rows on the scale of one, and a learned sigma at what the first copy's noise leaves."""
    if not model.encoder.bounded:
        few = rows.batch(torch.arange(min(len(rows), 10_000), device=rows.device)).x
        model.encoder.standardise(model.likelihood.shown(few))
    if getattr(model.likelihood, "learn", None):
        sigma = model.encoder.width * model.posterior.noise.spread
        with torch.no_grad():
            model.likelihood.log_sigma.copy_((sigma if model.likelihood.learn == "each" else sigma.amax()).log())
    return False


def bounded(likelihood: Likelihood) -> bool:
    """Whether a likelihood is of values within 0..1."""
    return hasattr(likelihood, "levels") or likelihood.support in (constraints.boolean, constraints.unit_interval)
