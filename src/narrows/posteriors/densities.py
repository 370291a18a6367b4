"""Densities over numbers: normals, and what flows make of them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal
from torch.nn.functional import softplus

from narrows import draws
from narrows.contract import Code
from narrows.divergences import kl
from narrows.flows import IAF, Flowed

__all__ = ["Flow", "FullGaussian", "Gaussian"]


def _of_numbers(prior: nn.Module) -> nn.Module:
    """The prior. Raises TypeError for one over classes, which says nothing of codes in between."""
    if getattr(prior, "discrete", False):
        raise TypeError(
            f"{type(prior).__name__} is a prior over classes, and this code is made of numbers. Wrong: "
            "vae(shape, prior=Categorical); right: concrete(shape), whose posterior is Concrete"
        )
    return prior


class Gaussian(nn.Module):
    r"""A normal with a diagonal covariance, drawn by the reparameterisation trick.

    .. math:: q(z \mid x) = \mathcal N(\mu(x), \operatorname{diag} \sigma^2(x)), \quad z = \mu + \sigma \varepsilon

    h holds mu, then s with sigma = softplus(s), which neither overflows nor vanishes as exp(s) does. The rates are the
    KL of each unit where it has a closed form, the total log q - log p of the draw where it has none, and zero under a
    prior that can only be sampled.

    Shapes: h (B, 2 latent) -> z (S, latent), rates (S, latent) or (S, 1) nats; q and p score the draws.
    Reference: Auto-Encoding Variational Bayes (Kingma & Welling, 2013), arXiv:1312.6114, equations 9 and 10.

    Example:
        >>> from narrows.priors import StandardNormal
        >>> Gaussian(StandardNormal(2))(torch.zeros(3, 4), samples=5).rate.shape
        torch.Size([15])
    """

    density = True

    def __init__(self, prior: nn.Module) -> None:
        super().__init__()
        self.prior = _of_numbers(prior)
        self.latent = int(prior.latent)  # type: ignore[arg-type]
        self.features = 2 * self.latent

    @property
    def closed(self) -> bool:
        """Whether the rate is a KL in closed form."""
        return bool(getattr(self.prior, "closed", False))

    @property
    def groups(self) -> int:
        """Columns of the rates: units, or 1 where only the total is known."""
        return self.latent if self.closed and getattr(self.prior, "factorised", True) else 1

    def given(self, h: Tensor) -> Distribution:
        """q(z|x) from what the encoder said, batch (B,), event (latent,)."""
        mean, s = h.flatten(1).chunk(2, -1)  # (B, latent) each
        return Independent(Normal(mean, softplus(s) + 1e-6, validate_args=False), 1, validate_args=False)

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        q = self.given(h)
        mean, sigma = q.base_dist.loc, q.base_dist.scale  # type: ignore[attr-defined]
        if draw:  # one draw is not broadcast: its gradient would be summed over an axis of one
            z = torch.addcmul(mean, sigma, draws.normal(samples, mean).squeeze(0)).view(-1, self.latent)  # (S, latent)
        else:
            z = mean if samples == 1 else mean.repeat(samples, 1)
        return _priced(self.prior, z, q, context, samples)


def _priced(prior: nn.Module, z: Tensor, q: Distribution, context: Tensor | None, samples: int) -> Code:
    """Draws (S, latent) from normals q, with their rates."""
    nothing = z.new_zeros(z.shape[0])
    if not getattr(prior, "density", True):
        return Code(z, nothing[:, None], None, None, nothing, q=q)
    p = prior(context)
    if not getattr(prior, "closed", False):
        code = Code(z, nothing[:, None], None, None, nothing, q=q, p=p)
        log_q, log_p = code.densities()  # type: ignore[misc]
        if getattr(prior, "bounded", False):  # an estimate of a bound prices a row; it weighs no single draw
            return code._replace(rates=(log_q - log_p)[:, None], p=None)
        return code._replace(rates=(log_q - log_p)[:, None], log_q=log_q, log_p=log_p)
    rates = kl(q, p)  # (B, latent), or (B, 1) where only the total is known
    rates = rates if samples == 1 else rates.repeat(samples, 1)  # (S, latent)
    return Code(z, rates, None, None, nothing, q=q, p=p)


class FullGaussian(nn.Module):
    r"""A normal with any covariance, by its Cholesky factor.

    .. math:: q(z \mid x) = \mathcal N(\mu(x), L(x) L(x)^\top), \quad z = \mu + L \varepsilon

    h holds mu, then s with diag L = softplus(s), then L below the diagonal, row by row. The rate is the total KL where
    the prior is a normal, log q - log p of the draw where it is not.

    Shapes: h (B, latent (latent + 3) / 2) -> z (S, latent), rates (S, 1) nats; q and p score the draws.
    Reference: Auto-Encoding Variational Bayes (Kingma & Welling, 2013), arXiv:1312.6114, section 2.4, and An
    Introduction to Variational Autoencoders (Kingma & Welling, 2019), arXiv:1906.02691, algorithm 2.

    Example:
        >>> from narrows.priors import StandardNormal
        >>> FullGaussian(StandardNormal(2))(torch.zeros(3, 5), samples=5).rate.shape
        torch.Size([15])
    """

    density, groups = True, 1

    def __init__(self, prior: nn.Module) -> None:
        super().__init__()
        self.prior = _of_numbers(prior)
        self.latent = int(prior.latent)  # type: ignore[arg-type]
        self.features = self.latent * (self.latent + 3) // 2

    @property
    def closed(self) -> bool:
        """Whether the rate is a KL in closed form."""
        return bool(getattr(self.prior, "closed", False))

    def given(self, h: Tensor) -> Distribution:
        """q(z|x) from what the encoder said, batch (B,), event (latent,)."""
        d, h = self.latent, h.flatten(1)
        mean, s, below = h.split([d, d, d * (d - 1) // 2], -1)
        rows, columns = torch.tril_indices(d, d, -1, device=h.device)
        scale = (softplus(s) + 1e-6).diag_embed()  # L
        scale[:, rows, columns] = below
        return MultivariateNormal(mean, scale_tril=scale, validate_args=False)

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        q = self.given(h)
        mean, scale = q.loc, q.scale_tril  # type: ignore[attr-defined]
        z = mean.expand(samples, -1, -1)  # (samples, B, latent)
        if draw:
            z = z + torch.einsum("bij,kbj->kbi", scale, draws.normal(samples, mean))
        return _priced(self.prior, z.flatten(0, 1), q, context, samples)


class Flow(nn.Module):
    r"""A normal that an invertible map bends into other shapes; both are told of the row.

    .. math:: e \sim \mathcal N(\mu(x), \operatorname{diag} \sigma^2(x)), \quad z = f(e; h), \quad
              \log q(z \mid x) = \log q(e \mid x) - \log |\det f'(e)|

    h holds mu, s with sigma = softplus(s), and what the flow is told. Drawing takes one pass. The rate is log q - log p
    of the draws. Under IAF and Planar only a code's own draws can be scored, and `q` is None; MAF and NSF score any
    point through their inverse, in `latent` passes. The point code is f(mu), which is no mean of q.

    Arguments: `flow` of module `flows`, a class or a `partial`.
    Shapes: h (B, 2 latent + features of the flow) -> z (S, latent), rates (S, 1) nats; log_q, log_p (S,).
    References: Variational Inference with Normalizing Flows (Rezende & Mohamed, 2015), arXiv:1505.05770, equation 15;
    Kingma et al. 2016, arXiv:1606.04934, equations 9 to 11.

    Example:
        >>> from narrows.priors import StandardNormal
        >>> q = Flow(StandardNormal(2))
        >>> q(torch.zeros(3, q.features), samples=5).rate.shape
        torch.Size([15])
    """

    density = True
    closed, groups = False, 1

    def __init__(self, prior: nn.Module, flow: Callable[..., nn.Module] = IAF) -> None:
        super().__init__()
        self.prior, self.flow = _of_numbers(prior), flow
        self.latent = int(prior.latent)  # type: ignore[arg-type]
        self.bend = flow(self.latent)
        self.features = 2 * self.latent + int(self.bend.features)  # type: ignore[arg-type]

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        mean, s, told = h.flatten(1).split([self.latent, self.latent, self.features - 2 * self.latent], -1)
        base = Independent(Normal(mean, softplus(s) + 1e-6, validate_args=False), 1, validate_args=False)
        e = mean + base.base_dist.scale * draws.normal(samples, mean) if draw else mean[None]  # (K, B, latent)
        z, log_det = self.bend(e, told)
        log_q = base.log_prob(e) - log_det  # (K, B)
        priced = getattr(self.prior, "density", True)
        p = self.prior(context) if priced else None
        log_p = log_q if p is None else p.log_prob(z)
        if not draw and samples > 1:
            z, log_q, log_p = (t.repeat(samples, *[1] * (t.dim() - 1)) for t in (z, log_q, log_p))
        z, log_q, log_p = z.flatten(0, 1), log_q.flatten(), log_p.flatten()
        q = None
        if self.bend.invertible:
            q = Flowed(base, lambda z: self.bend.inverse(z, told), lambda e: self.bend(e, told))  # type: ignore[operator, union-attr]
        if p is None:
            return Code(z, z.new_zeros(z.shape[0], 1), None, None, z.new_zeros(z.shape[0]), q=q)
        rates, nothing = (log_q - log_p)[:, None], torch.zeros_like(log_q)
        if getattr(self.prior, "bounded", False):  # as in `_priced`
            return Code(z, rates, None, None, nothing, q=q)
        return Code(z, rates, log_q, log_p, nothing, q=q, p=p)
