"""The four records that every part of the library speaks.

    Batch --> model --> Pass(px, Code) --> objective --> Terms

B is the batch, S = samples * B the draws of the code, the sample axis slowest: `t.unflatten(0, (samples, B))`.
"""

from typing import NamedTuple, TypeVar

from torch import Tensor
from torch.distributions import Distribution

__all__ = ["Batch", "Code", "Pass", "Terms", "repeated"]

T = TypeVar("T", Tensor, Tensor | None)


def repeated(t: T, samples: int) -> T:
    """Rows (B, ...) once for every draw, the sample axis slowest, (S, ...)."""
    return t if t is None or samples == 1 else t.repeat(samples, *[1] * (t.dim() - 1))  # type: ignore[return-value]


class Batch(NamedTuple):
    """All that an objective may see."""

    x: Tensor  # (B, *event) what the encoder reads
    target: Tensor  # (B, *event) what the likelihood scores; x unless denoising
    context: Tensor | None = None  # (B, C) what both sides are told
    label: Tensor | None = None  # (B,) integers, -1 where unlabelled; never an input
    seen: Tensor | None = None  # (B, *event) bool, the observed cells; None: all of them
    row: Tensor | None = None  # (B,) row numbers in the training set
    step: Tensor | None = None  # scalar; None: schedules stand at their final value
    rows: int = 1  # size of the training set

    @classmethod
    def of(cls, x: Tensor) -> "Batch":
        """A batch of bare rows, each its own target."""
        return cls(x, x)


class Code(NamedTuple):
    """What a posterior makes of x."""

    z: Tensor  # (S, D) what the decoder reads
    rates: Tensor  # (S, G) nats per unit; G = 1 where only the total is known
    log_q: Tensor | None  # (S,) log q(z|x) of this very draw; None where `q` scores it, or where there is no density
    log_p: Tensor | None  # (S,) log p(z) of this very draw, likewise
    penalty: Tensor  # (S,) trains, but is not information
    index: Tensor | None = None  # type: ignore[assignment]  # (S, *grid) discrete codes
    q: Distribution | None = None  # over B rows (not S: the draws of a row share it)
    p: Distribution | None = None
    h: Tensor | None = None  # (S, F) what the encoder said, where a penalty asks for it: sparse codes

    @property
    def rate(self) -> Tensor:
        """(S,) nats: KL(q(z|x) || p(z)) in closed form."""
        return self.rates.sum(-1)

    def densities(self) -> tuple[Tensor, Tensor] | None:
        """(log q(z|x), log p(z)) of every draw, (S,) nats each; None where the code has no density.

        Scored when asked for: an objective in closed form never asks.
        """
        if self.log_q is not None and self.log_p is not None:
            return self.log_q, self.log_p
        if self.q is None or self.p is None:
            return None
        z = self.z.unflatten(0, (-1, *self.q.batch_shape))  # (K, B, D)
        return self.q.log_prob(z).flatten(), self.p.log_prob(z).flatten()


class Pass(NamedTuple):
    """One pass through any model."""

    px: Distribution  # p(x|z), batch (S,), event as x
    code: Code


class Terms(NamedTuple):
    """What an objective returns; training, logs and evaluation read only this."""

    loss: Tensor  # scalar to differentiate; may be a surrogate
    bound: Tensor  # (B,) nats: the value claimed, at beta = 1
    distortion: Tensor  # (B,) nats: -log p(x|z)
    rate: Tensor  # (B,) nats: KL(q(z|x) || p(z))
    penalty: Tensor  # (B,)
    discrepancy: Tensor  # scalar: D(q(z), p(z)), before its weight
    rungs: Tensor | None = None  # (B, L) nats: the rate of each rung, top first; None where the code has none

    def detach(self) -> "Terms":
        """The same numbers without their history."""
        return Terms(*(None if t is None else t.detach() for t in self))  # type: ignore[arg-type]
