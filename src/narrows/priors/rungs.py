"""Priors that run down rungs: units in groups, each drawn given those above it."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal
from torch.nn.functional import softplus

from narrows.networks import Mlp, Norm, bend
from narrows.priors.fixed import ONE, Prior

__all__ = ["Chain", "Descent", "Hierarchy", "Rungs", "divided", "log_normal", "widths"]

Run = Callable[[Tensor, bool], tuple[Tensor, Tensor, Tensor]]


def log_normal(z: Tensor, mean: Tensor, sigma: Tensor) -> Tensor:
    """Log densities of every unit under normals, nats."""
    return Normal(mean, sigma, validate_args=False).log_prob(z)


def widths(rungs: tuple[int, ...], temperature: float | Sequence[float], like: Tensor) -> Tensor:
    """A temperature, or one for every rung, as one for every unit, (D,).

    Raises: ValueError for one below 0, or for other than one each.
    """
    many = list(temperature) if isinstance(temperature, Sequence) else [temperature] * len(rungs)
    if len(many) != len(rungs) or not all(0 <= t < math.inf for t in many):
        raise ValueError(
            f"a temperature of at least 0 is one number, or one for each of {len(rungs)} rungs, top first; got "
            f"{temperature}"
        )
    return like.new_tensor([t for t, units in zip(many, rungs, strict=True) for _ in range(units)])


class Chain(Distribution):
    """Normals one after the other, each rung's given the rungs before it.

    `run(t, known)` runs through the rungs for S rows: with known=True t (S, D) are codes, else standard normal noise
    that becomes codes. It gives codes, means and standard deviations, (S, D) each. `width`, a number or (D,),
    multiplies the standard deviations.

    Shapes: `batch` x (D,); S is a multiple of the rows that `run` was told of.
    """

    has_rsample = True

    def __init__(
        self, run: Run, rungs: tuple[int, ...], like: Tensor, batch: tuple[int, ...], width: Tensor | float = 1.0
    ) -> None:
        super().__init__(torch.Size(batch), torch.Size((sum(rungs),)), validate_args=False)
        self.run, self.rungs, self.like, self.width = run, rungs, like, width

    def expand(self, batch_shape: Any, _instance: Any = None) -> "Chain":
        """The same for more rows. Raises ValueError where they are no multiple of those that there are."""
        shape = torch.Size(batch_shape)
        if shape.numel() % self.batch_shape.numel():
            raise ValueError(f"a chain for {tuple(self.batch_shape)} rows cannot be read as one for {tuple(shape)}")
        return Chain(self.run, self.rungs, self.like, tuple(shape), self.width)

    def log_prob(self, z: Tensor) -> Tensor:  # type: ignore[override]
        z = z.expand(torch.broadcast_shapes(z.shape, self.batch_shape + self.event_shape))
        flat = z.reshape(-1, z.shape[-1])  # (S, D)
        _, mean, sigma = self.run(flat, True)
        return log_normal(flat, mean, self.width * sigma).sum(-1).view(z.shape[:-1])

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:  # type: ignore[override]
        shape = self._extended_shape(torch.Size(sample_shape))
        noise = self.width * torch.randn(shape, dtype=self.like.dtype, device=self.like.device)
        return self.run(noise.reshape(-1, shape[-1]), False)[0].view(shape)

    def tempered(self, temperature: float | Sequence[float]) -> "Chain":
        """The same normals, standard deviations multiplied by a number, or by one for each rung. Raises: `widths`."""
        width = self.width * widths(self.rungs, temperature, self.like)
        return Chain(self.run, self.rungs, self.like, tuple(self.batch_shape), width)


class Descent(NamedTuple):
    """One run from the top rung to the bottom."""

    z: Tensor  # (S, D)
    mean: Tensor  # (S, D) of p(z_l | z_<l), rung beside rung
    sigma: Tensor  # (S, D)
    state: Any  # what the decoder reads, (S, *gives)


class Hierarchy(Prior, ABC):
    r"""What priors over rungs of normals have in common: the run from the top down.

    .. math:: p(z) = \prod_l \mathcal N\big(z_l; \mu_l(z_{<l}), \operatorname{diag} \sigma_l^2(z_{<l})\big)

    A code z (S, D) holds the rungs side by side, top first; `rungs` are their units. What has been drawn is gathered
    in a *state*, which a posterior of rungs shares and the decoder reads in the end, of shape `gives` for a row. A
    final class says how it begins (`begin`), what it says of the next rung (`given`), and what that rung does to it
    (`join`). A rung's units are flat here, (S, units); maps are views of them.
    """

    gives: tuple[int, ...]

    def __init__(self, rungs: tuple[int, ...], context: int = 0) -> None:
        if not rungs or any(int(units) != units or units < 1 for units in rungs):
            raise ValueError(f"rungs are units of each rung, top first, such as rungs=(4, 8, 16); got {rungs}")
        super().__init__(sum(rungs))
        self.rungs, self.context = tuple(int(units) for units in rungs), context
        self.like: Tensor
        self.register_buffer("like", torch.zeros(()), persistent=False)

    @abstractmethod
    def begin(self, like: Tensor) -> Any:
        """The state above the top rung, for as many rows as `like` (S, ...), on its device and in its dtype."""

    @abstractmethod
    def given(self, rung: int, state: Any, context: Tensor | None) -> tuple[Tensor, Tensor, Any]:
        """Mean and sigma (S, units) of p(z_l | z_<l), and the state from which posterior and `join` go on."""

    @abstractmethod
    def join(self, rung: int, z: Tensor, state: Any, context: Tensor | None) -> Any:
        """The state once the rung is known, z (S, units)."""

    def descend(
        self,
        choose: Callable[[int, Tensor, Tensor, Any], Tensor],
        like: Tensor,
        context: Tensor | None = None,
    ) -> Descent:
        """Runs down the rungs; `choose(rung, mean, sigma, state)` says what each is, (S, units).

        `like` (S, ...) says how many rows, where and in which precision; S is a multiple of the rows of context.
        """
        context = context if context is None else context.repeat(len(like) // len(context), 1)
        state, found = self.begin(like), []
        for rung in range(len(self.rungs)):
            mean, sigma, state = self.given(rung, state, context)
            z = choose(rung, mean, sigma, state)
            state = self.join(rung, z, state, context)
            found.append((z, mean, sigma))
        z, mean, sigma = (torch.cat(parts, 1) for parts in zip(*found, strict=True))
        return Descent(z, mean, sigma, state)

    def at(self, z: Tensor, context: Tensor | None = None) -> Descent:
        """The run through codes z (S, D)."""
        known = z.split(self.rungs, 1)
        return self.descend(lambda rung, *_: known[rung], z, context)

    def forward(self, context: Tensor | None = None) -> Distribution:
        def run(t: Tensor, known: bool) -> tuple[Tensor, Tensor, Tensor]:
            if known:
                return self.at(t, context)[:3]
            noise = t.split(self.rungs, 1)
            return self.descend(lambda rung, mean, sigma, _: mean + sigma * noise[rung], t, context)[:3]

        return Chain(run, self.rungs, self.like, () if context is None else (len(context),))

    def redrawn(
        self, z: Tensor, keep: int, context: Tensor | None = None, temperature: float | Sequence[float] = 1.0
    ) -> Tensor:
        """Codes (S, D) whose top `keep` rungs are those of z and whose others are drawn anew, given them.

        Raises: ValueError for more rungs than there are, or as `widths`.
        """
        if not 0 <= keep <= len(self.rungs):
            raise ValueError(f"there are {len(self.rungs)} rungs, of which 0 to all can be kept; got keep={keep}")
        noise = (widths(self.rungs, temperature, z) * torch.randn_like(z)).split(self.rungs, 1)
        held = z.split(self.rungs, 1)

        def choose(rung: int, mean: Tensor, sigma: Tensor, _: Any) -> Tensor:
            return held[rung] if rung < keep else mean + sigma * noise[rung]

        return self.descend(choose, z, context).z

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, rungs={self.rungs}"


def divided(latent: int) -> tuple[int, ...]:
    """Two rungs of `latent` units, twice as many below as above, as in the two-layer nets of Burda et al. 2015.

    Raises: ValueError for fewer than 2 units.
    """
    if latent == 1:
        raise ValueError("two rungs take at least 2 units; got latent=1. Take latent=2 or more, or recipe vae")
    top = max(latent // 3, 1)
    return (top, latent - top) if latent > 1 else (latent,)


class Rungs(Hierarchy):
    r"""Rungs of vectors: a standard normal on top, below it normals that a perceptron makes of the rung above.

    .. math:: p(z_1) = \mathcal N(0, I), \quad p(z_l \mid z_{l-1}) = \mathcal N\big(z_l; \mu_l(z_{l-1}),
              \operatorname{diag} \sigma_l^2(z_{l-1})\big), \quad l = 1 \text{ on top}

    What the decoder reads is the bottom rung. Its density as a prior of `Gaussian` codes is that of the draws.

    Arguments:
        latent: units in all, divided into two rungs where `rungs` does not say; `rungs`, top first, says it for itself.
        width: hidden units of the perceptron below a rung; None for 8 times the rung's, at least 16 (Sonderby et al.
            2016: 512 to 32 for rungs of 64 to 4).
        depth: its hidden layers; `activation` and `norm` as in `networks.Mlp`.

    Shapes: () or (B,) with context, x (latent,). Raises: ValueError for rungs that are no units, or 1 unit in all.
    References: Stochastic Backpropagation (Rezende et al., 2014), arXiv:1401.4082, section 3; Ladder Variational
    Autoencoders (Sonderby et al., 2016), arXiv:1602.02282, section 2.

    Example:
        >>> prior = Rungs(12, rungs=(4, 8))
        >>> z = prior().sample((5,))
        >>> z.shape, prior().log_prob(z).shape, prior.gives
        (torch.Size([5, 12]), torch.Size([5]), (8,))
    """

    def __init__(
        self,
        latent: int,
        rungs: tuple[int, ...] | None = None,
        context: int = 0,
        width: int | None = None,
        depth: int = 2,
        activation: str = "leaky",
        norm: bool = False,
    ) -> None:
        if latent < 1:
            raise ValueError(f"a code needs at least one unit; got latent={latent}")
        super().__init__(divided(latent) if rungs is None else rungs, context)
        self.width, self.depth, self.activation, self.norm = width, depth, activation, norm
        self.gives = self.rungs[-1:]
        self.down = nn.ModuleList(
            self.between(above, 2 * below, (self.hidden(above),) * depth) for above, below in pairwise(self.rungs)
        )

    def hidden(self, units: int) -> int:
        """Hidden units beside a rung of so many units."""
        return self.width or max(8 * units, 16)

    def between(self, inputs: int, outputs: int, hidden: tuple[int, ...], context: int | None = None) -> Mlp:
        """A perceptron of the kind that stands between rungs: what infers them is built alike."""
        told = self.context if context is None else context
        return Mlp((inputs,), (outputs,), told, hidden, activation=self.activation, norm=self.norm)

    def bent(self, width: int) -> nn.Module:
        """What stands between its layers; what it reads stays as it is."""
        bent = bend(self.activation, inplace=False)
        return nn.Sequential(Norm(width), bent) if self.norm else bent

    def begin(self, like: Tensor) -> Tensor:
        return like.new_zeros(like.shape[0], self.rungs[0])

    def given(self, rung: int, state: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        if rung == 0:
            return state, torch.ones_like(state), state
        mean, s = self.down[rung - 1](state, context).chunk(2, 1)
        return mean, softplus(s + ONE) + 1e-6, state

    def join(self, rung: int, z: Tensor, state: Tensor, context: Tensor | None) -> Tensor:
        return z
