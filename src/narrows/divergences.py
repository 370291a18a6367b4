"""Divergences between distributions: of single codes in closed form, of the aggregated posterior from a batch of codes.

`kl` gives nats per row. A *discrepancy* D(q(z), p(z)) compares all codes of a batch with as many draws from the prior:
a module called as `discrepancy(code, real, batch) -> Gap`, whose `weight` stands in the equation. Where a critic plays
against the model both players' losses come out of one graph, and neither's gradient reaches the other.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence
from torch.func import functional_call
from torch.nn.functional import logsigmoid

from narrows.contract import Batch, Code
from narrows.networks import Mlp

__all__ = [
    "KL",
    "MMD",
    "Adversarial",
    "Gap",
    "JensenShannon",
    "PearsonChiSquared",
    "ReverseKL",
    "SlicedWasserstein",
    "SquaredHellinger",
    "Wasserstein",
    "kl",
    "mmd",
    "sliced_wasserstein",
]


def kl(q: Distribution, p: Distribution) -> Tensor:
    r"""KL(q || p) in closed form, per unit where both factorise over the same units.

    .. math:: \tfrac12 \big( \| L_p^{-1} L_q \|^2 + | L_p^{-1} (m_q - m_p) |^2 - D \big) + \log |L_p| - \log |L_q|

    between normals of which one or both have any covariance L L^T.

    Shapes: q, p batch (B,), event (D,) -> (B, D) nats, or (B, 1) where only the total is known.
    Raises: NotImplementedError (torch's own) where no closed form is registered: use `rate="sampled"` then.

    Example:
        >>> from torch.distributions import Independent, Normal
        >>> q = Independent(Normal(torch.ones(1, 2), 1.0), 1)
        >>> kl(q, Independent(Normal(torch.zeros(1, 2), 1.0), 1))
        tensor([[0.5000, 0.5000]])
    """
    match (q, p):
        case (Independent(reinterpreted_batch_ndims=1), Independent(reinterpreted_batch_ndims=1)):
            return kl_divergence(q.base_dist, p.base_dist)
        case _:
            normals = [_moments(q), _moments(p)]
            total = kl_divergence(q, p) if None in normals else _between(*normals)  # type: ignore[arg-type]
            return total.unsqueeze(-1)


def _moments(d: Distribution) -> tuple[Tensor, Tensor] | None:
    """Mean (..., D) and triangular factor (..., D, D) of a normal, None for another distribution."""
    match d:
        case MultivariateNormal():
            return d.loc, d.scale_tril
        case Independent(base_dist=Normal(), reinterpreted_batch_ndims=1):
            return d.base_dist.loc, d.base_dist.scale.diag_embed()
        case _:
            return None


def _between(q: tuple[Tensor, Tensor], p: tuple[Tensor, Tensor]) -> Tensor:
    """KL between normals of any covariance, (B,) nats: one triangular system for both squares."""
    away = (q[0] - p[0])[..., None]
    shape = torch.broadcast_shapes(away.shape[:-2], q[1].shape[:-2], p[1].shape[:-2])
    away, ours, theirs = (t.expand(*shape, -1, -1) for t in (away, q[1], p[1]))
    squares = torch.linalg.solve_triangular(theirs, torch.cat([ours, away], -1), upper=False).square().sum((-2, -1))
    volumes = [scale.diagonal(dim1=-2, dim2=-1).log().sum(-1) for scale in (theirs, ours)]
    return (squares - away.shape[-2]) / 2 + volumes[0] - volumes[1]


class Gap(NamedTuple):
    """What a discrepancy found between codes and draws from the prior; scalars."""

    value: Tensor  # the estimate of D(q(z), p(z)) that is reported
    model: Tensor  # what the encoder minimises; the value itself, unless a critic is played against
    critic: Tensor  # what the critic minimises; 0 without one


# ---- without a critic -------------------------------------------------------------------------------------------


def mmd(z: Tensor, real: Tensor, kernel: str = "imq") -> Tensor:
    r"""Squared maximum mean discrepancy between two samples, unbiased, so it may be negative.

    .. math:: \frac{1}{n(n-1)} \sum_{i \ne j} k(z_i, z_j) + \frac{1}{m(m-1)} \sum_{i \ne j} k(y_i, y_j)
              - \frac{2}{nm} \sum_{ij} k(z_i, y_j)

    with k(z, y) = C / (C + |z - y|^2), C = 2 D ("imq", the kernel of WAE for a prior of unit variance), or
    k = exp(-|z - y|^2 / 2 D) ("rbf").

    Shapes: z (n, D), real (m, D) -> scalar. A sample of fewer than two rows has no pairs, and adds nothing.
    References: A Kernel Two-Sample Test (Gretton et al., 2012), equation 3; Wasserstein Auto-Encoders (Tolstikhin et
    al., 2018), arXiv:1711.01558, section 4.
    """
    width = z.shape[1]

    def k(a: Tensor, b: Tensor) -> Tensor:
        square = (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp_min(0)
        return 2 * width / (2 * width + square) if kernel == "imq" else (-square / (2 * width)).exp()

    def within(a: Tensor) -> Tensor:
        return (k(a, a).sum() - len(a)) / max(len(a) * (len(a) - 1), 1)

    return within(z) + within(real) - 2 * k(z, real).sum() / (len(z) * len(real))


class MMD(nn.Module):
    """Kernel distance between codes and prior: `mmd` as a discrepancy (WAE-MMD, InfoVAE).

    Raises: ValueError for a kernel that is neither "imq" nor "rbf", or a negative weight.
    """

    least = 2  # rows a batch

    def __init__(self, weight: float = 1.0, kernel: str = "imq") -> None:
        super().__init__()
        if kernel not in ("imq", "rbf"):
            raise ValueError(f'kernel is "imq" or "rbf"; got {kernel!r}')
        self.weight, self.kernel = _positive(weight), kernel

    def forward(self, code: Code, real: Tensor, batch: Batch) -> Gap:
        value = mmd(code.z, real, self.kernel)
        return Gap(value, value, value.new_zeros(()))

    def extra_repr(self) -> str:
        return f"weight={self.weight:g}, kernel={self.kernel!r}"


def sliced_wasserstein(z: Tensor, real: Tensor, directions: Tensor) -> Tensor:
    r"""Squared Wasserstein-2 distance of two samples of one size, seen along directions and averaged over them.

    .. math:: \frac1L \sum_l \frac1n \sum_i
              \big( \langle \theta_l, z \rangle_{(i)} - \langle \theta_l, y \rangle_{(i)} \big)^2

    Over D orthonormal directions a shift by m gives |m|^2 / D exactly.

    Shapes: z, real (n, D), directions (L, D) of length 1 -> scalar.
    Reference: Sliced-Wasserstein Autoencoder (Kolouri et al., 2018), arXiv:1804.01947, equation 12.
    """
    ordered = [(a @ directions.T).sort(0).values for a in (z, real)]
    return (ordered[0] - ordered[1]).square().mean((0, 1))


class SlicedWasserstein(nn.Module):
    """Sliced Wasserstein distance between codes and prior, along random orthonormal frames (SWAE)."""

    least = 2

    def __init__(self, weight: float = 1.0, directions: int = 64) -> None:
        super().__init__()
        if directions < 1:
            raise ValueError(f"a sliced distance looks along at least one direction; got directions={directions}")
        self.weight, self.directions = _positive(weight), directions

    def forward(self, code: Code, real: Tensor, batch: Batch) -> Gap:
        z, width = code.z, code.z.shape[1]
        frames = torch.randn(-(-self.directions // width), width, width, device=z.device)
        frames = torch.linalg.qr(frames).Q.flatten(0, 1)[: self.directions].to(z.dtype)
        value = sliced_wasserstein(z, real, frames)
        return Gap(value, value, value.new_zeros(()))

    def extra_repr(self) -> str:
        return f"weight={self.weight:g}, directions={self.directions}"


# ---- with a critic ----------------------------------------------------------------------------------------------


class Game(Protocol):
    """A divergence as the best that a critic V can do: sup_V E_q[fake(V(z))] - E_p[real(V(z))].

    `model` is what the encoder minimises of E_q. V is large where codes are more frequent than the prior says. The
    critic pays penalty * E (|V'| - slope)^2 between codes and draws: for Wasserstein's distance that is what makes the
    supremum one over slopes of 1; for the others a slope of 0 keeps it from running ahead of the encoder, which would
    else chase it in circles (Thanh-Tung et al. 2019, arXiv:1902.03984, equation 6; Mescheder et al. 2018,
    arXiv:1801.04406, why that converges). It is no part of the value.

    Near q = p every f-divergence is f''(1) / 2 times the same chi-squared, so games are alike once weights are divided
    by `curvature` = f''(1); and their standard penalties are so chosen that the critics' losses are alike too.
    """

    slope: ClassVar[float] = 0.0
    curvature: ClassVar[float]

    @property
    def penalty(self) -> float: ...

    def fake(self, v: Tensor) -> Tensor:
        return v

    def real(self, v: Tensor) -> Tensor: ...

    def model(self, v: Tensor) -> Tensor:
        return self.fake(v)


@dataclass(frozen=True)
class JensenShannon(Game):
    """1/2 KL(q || m) + 1/2 KL(p || m) with m = (q + p) / 2; the best V is log q/p (Goodfellow et al. 2014, theorem 1).

    The critic is a classifier of codes against draws. `saturating`: the encoder minimises the divergence itself, whose
    gradient fades while the critic wins; else it maximises the probability of being taken for a draw (section 3).
    """

    saturating: bool = False
    penalty: float = 0.5
    curvature: ClassVar[float] = 0.25

    def fake(self, v: Tensor) -> Tensor:
        return 0.5 * (math.log(2) + logsigmoid(v))

    def real(self, v: Tensor) -> Tensor:
        return -0.5 * (math.log(2) + logsigmoid(-v))

    def model(self, v: Tensor) -> Tensor:
        return self.fake(v) if self.saturating else -0.5 * logsigmoid(-v)


@dataclass(frozen=True)
class Wasserstein(Game):
    """Wasserstein-1: sup E_q[V] - E_p[V] over V of slope at most 1, kept so by a penalty on its gradient between the
    samples (Gulrajani et al. 2017, arXiv:1704.00028, equation 3, `penalty` its lambda).
    """

    penalty: float = 10.0
    slope: ClassVar[float] = 1.0
    curvature: ClassVar[float] = 4.0  # no f-divergence; its gradient does not fade near equality, hence little weight

    def real(self, v: Tensor) -> Tensor:
        return v


# The f-divergences of f-GAN (Nowozin et al. 2016, arXiv:1606.00709, tables 1 and 2): with u = q/p,
# D = E_p[f(u)] = sup_T E_q[T] - E_p[f*(T)], T = g(V) in the domain of f*, at best f'(u).


@dataclass(frozen=True)
class KL(Game):
    """KL(q || p): f = u log u, T = V, f* = exp(T - 1); the best V is 1 + log q/p."""

    penalty: float = 2.0
    curvature: ClassVar[float] = 1.0

    def real(self, v: Tensor) -> Tensor:
        return (v - 1).exp()


@dataclass(frozen=True)
class ReverseKL(Game):
    """KL(p || q): f = -log u, T = -exp(-V), f* = V - 1; the best V is log q/p."""

    penalty: float = 2.0
    curvature: ClassVar[float] = 1.0

    def fake(self, v: Tensor) -> Tensor:
        return -(-v).exp()

    def real(self, v: Tensor) -> Tensor:
        return v - 1


@dataclass(frozen=True)
class PearsonChiSquared(Game):
    """E_p (q/p - 1)^2: f = (u - 1)^2, T = V, f* = T^2 / 4 + T; the best V is 2 (q/p - 1)."""

    penalty: float = 1.0
    curvature: ClassVar[float] = 2.0

    def real(self, v: Tensor) -> Tensor:
        return v.square() / 4 + v


@dataclass(frozen=True)
class SquaredHellinger(Game):
    """Integral of (√q - √p)^2: f = (√u - 1)^2, T = 1 - exp(-V), f* = exp(V) - 1; the best V is log(q/p) / 2."""

    penalty: float = 4.0
    curvature: ClassVar[float] = 0.5

    def fake(self, v: Tensor) -> Tensor:
        return 1 - (-v).exp()

    def real(self, v: Tensor) -> Tensor:
        return v.exp() - 1


class Adversarial(nn.Module):
    """A critic that learns to tell codes from draws of the prior, and an encoder that learns to deceive it.

    In training both losses come out of one graph: the encoder's through a critic whose weights stand still, the
    critic's on codes cut off from the encoder. In evaluation the value is `mmd`, which means the same whatever the
    critic has become, so that held-out figures can be compared from check to check.

    Arguments: `latent` units; `game` which divergence; `weight` in the equation; `hidden` layers of the critic;
    `context` features that the critic is told.
    Shapes: code.z, real (S, latent) -> Gap.
    Reference: Adversarial Autoencoders (Makhzani et al., 2015), arXiv:1511.05644.
    """

    least = 2

    def __init__(
        self,
        latent: int,
        game: Game = JensenShannon(),
        weight: float = 1.0,
        hidden: tuple[int, ...] = (256, 256),
        context: int = 0,
    ) -> None:
        super().__init__()
        if latent < 1:
            raise ValueError(f"a code needs at least one unit; got latent={latent}")
        self.latent, self.game, self.weight = latent, game, _positive(weight)
        self.hidden, self.context = tuple(hidden), context
        self.critic: nn.Module = Mlp((latent,), (1,), context, hidden)

    def forward(self, code: Code, real: Tensor, batch: Batch) -> Gap:
        z, context = code.z, batch.context
        if not self.training:
            value = mmd(z, real)
            return Gap(value, value, value.new_zeros(()))
        told = () if context is None else (context.repeat(len(z) // len(context), 1),)
        still = {name: weight.detach() for name, weight in self.critic.named_parameters()}
        model = self.game.model(functional_call(self.critic, still, (z, *told))).mean((0, 1))
        fake = z.detach()
        value = self.game.fake(self.critic(fake, *told)).mean((0, 1))
        value = value - self.game.real(self.critic(real, *told)).mean((0, 1))
        return Gap(value.detach(), model, self.game.penalty * self._slope(fake, real, told) - value)

    def _slope(self, fake: Tensor, real: Tensor, told: tuple[Tensor, ...]) -> Tensor:
        """Mean of (|V'| - slope)^2 at random points between codes and draws."""
        with torch.enable_grad():
            between = torch.lerp(real, fake, torch.rand_like(fake[:, :1])).requires_grad_()
            (slope,) = torch.autograd.grad(self.critic(between, *told).sum(), between, create_graph=True)
        return (slope.square().sum(1).clamp_min(1e-12).sqrt() - self.game.slope).square().mean(0)

    def extra_repr(self) -> str:
        return f"latent={self.latent}, game={self.game}, weight={self.weight:g}"


def _positive(weight: float) -> float:
    if not 0 <= weight < math.inf:
        raise ValueError(f"a discrepancy's weight is a number of at least 0; got weight={weight}")
    return float(weight)
