"""Divergences as games: the best that a critic can do, and an encoder that plays against it."""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import logsigmoid

from narrows.contract import Batch, Code
from narrows.divergences.common import Gap, positive
from narrows.divergences.correlation import permuted, total_correlation, unit_densities
from narrows.divergences.samples import mmd
from narrows.networks import Mlp

__all__ = [
    "KL",
    "Adversarial",
    "Game",
    "JensenShannon",
    "LogRatio",
    "PearsonChiSquared",
    "ReverseKL",
    "SquaredHellinger",
    "Wasserstein",
]


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

    def reported(self, gap: Tensor, model: Tensor) -> Tensor:
        """What stands for the divergence: the game's value, or what the encoder minimises."""
        return gap


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
class LogRatio(Game):
    """KL(q || p) as E_q log q/p, the log-ratio being the V of JensenShannon's classifier (Kim & Mnih 2018, equation 3).

    Unlike the game of `KL` it has no exponential of V; but it is a bound of neither kind while V is not at its best. A
    penalty would make every log-ratio too small, so there is none unless it is asked for.
    """

    penalty: float = 0.0
    curvature: ClassVar[float] = 1.0

    def fake(self, v: Tensor) -> Tensor:
        return 0.5 * (math.log(2) + logsigmoid(v))

    def real(self, v: Tensor) -> Tensor:
        return -0.5 * (math.log(2) + logsigmoid(-v))

    def model(self, v: Tensor) -> Tensor:
        return v

    def reported(self, gap: Tensor, model: Tensor) -> Tensor:
        return model


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

    With `pair="permuted"` the critic tells codes from codes whose columns were shuffled, each on its own, and the
    divergence is the dependence among the units: under `LogRatio` their total correlation (FactorVAE). The shuffled
    codes are those of the same batch.

    In training both losses come out of one graph: the encoder's through a critic whose weights stand still, the
    critic's on codes cut off from the encoder. In evaluation the value is `mmd`, which means the same whatever the
    critic has become, so that held-out figures can be compared from check to check; for permuted codes it is
    `total_correlation` where q(z|x) scores single units.

    Arguments: `latent` units; `game` which divergence; `weight` in the equation; `hidden` layers of the critic;
    `context` features that the critic is told; `pair` "prior" or "permuted".
    Shapes: code.z, real (S, latent) -> Gap.
    References: Adversarial Autoencoders (Makhzani et al., 2015), arXiv:1511.05644; for permuted codes Disentangling by
        Factorising (Kim & Mnih, 2018), arXiv:1802.05983, algorithm 2.
    """

    least = 2

    def __init__(
        self,
        latent: int,
        game: Game = JensenShannon(),
        weight: float = 1.0,
        hidden: tuple[int, ...] = (256, 256),
        context: int = 0,
        pair: str = "prior",
    ) -> None:
        super().__init__()
        if pair not in ("prior", "permuted"):
            raise ValueError(f'pair is "prior" or "permuted"; got {pair!r}')
        if latent < 1:
            raise ValueError(f"a code needs at least one unit; got latent={latent}")
        self.latent, self.game, self.weight = latent, game, positive(weight)
        self.hidden, self.context, self.pair = tuple(hidden), context, pair
        self.critic: nn.Module = Mlp((latent,), (1,), context, hidden)

    @property
    def prior_draws(self) -> bool:
        """Whether codes are compared with draws from the prior."""
        return self.pair == "prior"

    def forward(self, code: Code, real: Tensor, batch: Batch) -> Gap:
        z, context = code.z, batch.context
        if self.pair == "permuted":  # a column of shuffled codes knows nothing of the others, nor of any context
            real, context = permuted(z, len(batch.x)), None
        if not self.training:
            exact = self.pair == "permuted" and unit_densities(code.q) is not None
            value = total_correlation(code, batch.rows) if exact else mmd(z, real)
            return Gap(value, value, value.new_zeros(()))
        told = () if context is None else (context.repeat(len(z) // len(context), 1),)
        still = {name: weight.detach() for name, weight in self.critic.named_parameters()}
        model = self.game.model(functional_call(self.critic, still, (z, *told))).mean((0, 1))
        fake = z.detach()
        value = self.game.fake(self.critic(fake, *told)).mean((0, 1))
        value = value - self.game.real(self.critic(real, *told)).mean((0, 1))
        critic = self.game.penalty * self._slope(fake, real, told) - value
        return Gap(self.game.reported(value, model).detach(), model, critic)

    def _slope(self, fake: Tensor, real: Tensor, told: tuple[Tensor, ...]) -> Tensor:
        """Mean of (|V'| - slope)^2 at random points between codes and draws."""
        if not self.game.penalty:
            return fake.new_zeros(())
        with torch.enable_grad():
            between = torch.lerp(real, fake, torch.rand_like(fake[:, :1])).requires_grad_()
            (slope,) = torch.autograd.grad(self.critic(between, *told).sum(), between, create_graph=True)
        return (slope.square().sum(1).clamp_min(1e-12).sqrt() - self.game.slope).square().mean(0)

    def extra_repr(self) -> str:
        return f"latent={self.latent}, game={self.game}, weight={self.weight:g}, pair={self.pair!r}"
