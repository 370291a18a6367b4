"""Where randomness comes from.

The noise of a training step is a function of (seed, step) and of a row's place in the *global* batch, so that neither a
validation pass, a resume nor the number of processes can shift it. Everything draws from torch's own generators; what
stands here decides how they are seeded and which rows of a draw are kept.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = [
    "common",
    "dropout",
    "gumbel",
    "mix",
    "normal",
    "part",
    "reseed",
    "seeded",
    "some",
    "stratified",
    "summed",
    "uniform",
    "widened",
]

WIDER = (0.8, 0.1, 0.1)  # shares of draws as they are, of wider and of widest


class _Part(NamedTuple):
    start: int
    rows: int
    total: int
    counted: bool


_part: _Part | None = None  # of this process, which trains one model at a time
_common: ContextVar[bool] = ContextVar("common", default=False)  # of this thread: servers evaluate in several
_widened: ContextVar["Widened | None"] = ContextVar("widened", default=None)


def mix(seed: int, *path: int) -> int:
    """A 32-bit seed from a seed and the place where it is used, e.g. `mix(seed, step)`.

    For a fixed seed and all but the last entry, distinct last entries below 2**32 give distinct results. (torch's CPU
    generator reads 32 bits of its seed, so neighbouring seeds must differ there.)
    """
    value = seed & 0xFFFFFFFFFFFFFFFF
    for part in path:
        # splitmix64's finaliser, then an odd step: a bijection of `part` modulo 2**32
        value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        value = (value ^ (value >> 31)) + part * 0x9E3779B1
    return value & 0xFFFFFFFF


def reseed(seed: int, *path: int) -> None:
    """Seeds torch's global generators for one place; callers hold `torch.random.fork_rng`.

    Each by its own call: `torch.manual_seed` takes down a stack trace for every device that has not been used, which is
    longer than a small training step.
    """
    value = mix(seed, *path)
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed(value)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(value)


@contextmanager
def seeded(seed: int, *path: int) -> Iterator[None]:
    """Draws inside depend on the seed alone; torch's global generators are left as found."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        reseed(seed, *path)
        yield


@contextmanager
def part(start: int, rows: int, total: int, counted: bool = True) -> Iterator[None]:
    """The rows at hand are rows `start, start + 1, ...` of a batch of `total` shared among processes.

    Not `counted`: they are another process's, read here because each must take part.
    """
    global _part
    _part = _Part(start, rows, total, counted)
    try:
        yield
    finally:
        _part = None


@contextmanager
def common() -> Iterator[None]:
    """Every row gets the same draw, so that a row scores alike whatever stands beside it."""
    token = _common.set(True)
    try:
        yield
    finally:
        _common.reset(token)


class Widened:
    r"""Normal draws of which some are spread wider, and what their weights are to be multiplied with.

    .. math:: \varepsilon \sim m = \sum_j a_j\, \mathcal N(0, s_j^2), \quad s_j = 1 + j \sqrt{2 / D}, \quad
              E_{\mathcal N}\, w(\varepsilon) = E_m\, w(\varepsilon) \mathcal N(\varepsilon) / m(\varepsilon)

    All that is drawn for one row and sample is spread by one s_j: D numbers, of which a wider draw is j^2 standard
    deviations further out in its squared length, however many they are.
    Reference: Weighted Average Importance Sampling and Defensive Mixture Distributions (Hesterberg, 1995), section 3.
    """

    def __init__(self) -> None:
        self.spread: Tensor | None = None  # (samples, B)
        self.square: Tensor | None = None  # (samples, B), of the numbers drawn
        self.scales, self.count = [1.0], 0

    def __call__(self, noise: Tensor) -> Tensor:
        """Standard normal draws (samples, B, ...), spread."""
        size, axes = math.prod(noise.shape[2:]), tuple(range(2, noise.dim()))
        if self.spread is None or self.square is None:
            self.scales = [1 + j * math.sqrt(2 / size) for j in range(len(WIDER))]
            which = torch.multinomial(noise.new_tensor(WIDER), noise.shape[:2].numel(), replacement=True)
            self.spread = noise.new_tensor(self.scales)[which].view(noise.shape[:2])
            self.square = torch.zeros_like(self.spread)
        noise = noise * self.spread[(..., *[None] * len(axes))]
        self.square = self.square + noise.square().sum(axes)
        self.count += size
        return noise

    def correction(self) -> Tensor | float:
        """Log N - log m of what was drawn, (samples, B): what is to be added to the log-weights."""
        if self.square is None:
            return 0.0
        parts = [
            math.log(a) - self.count * math.log(s) + self.square * (1 - s**-2) / 2
            for a, s in zip(WIDER, self.scales, strict=True)
        ]
        return -torch.stack(parts).logsumexp(0)


@contextmanager
def widened() -> Iterator[Widened]:
    """Normal draws inside are spread wider now and then, so that no mode that q(z|x) misses is missed for good."""
    token = _widened.set(found := Widened())
    try:
        yield found
    finally:
        _widened.reset(token)


def normal(samples: int, like: Tensor) -> Tensor:
    """Standard normal draws (samples, *like.shape) for rows `like` (B, ...), on its device and in its dtype."""
    noise = _draw(torch.randn, samples, like)
    if not torch.compiler.is_compiling() and (wider := _widened.get()) is not None:
        return wider(noise)
    return noise


def uniform(samples: int, like: Tensor) -> Tensor:
    """Draws from [0, 1), (samples, *like.shape), for rows `like` (B, ...), on its device and in its dtype."""
    return _draw(torch.rand, samples, like)


def gumbel(samples: int, like: Tensor) -> Tensor:
    """Standard Gumbel draws (samples, *like.shape): where logits + gumbel are largest is a draw among the classes."""
    u = uniform(samples, like).clamp_min(torch.finfo(like.dtype).tiny)
    return -(-u.log()).log()


def stratified(samples: int, like: Tensor) -> Tensor:
    """Draws from [0, 1), (samples, B) for rows `like` (B, ...): one in every `samples`-th part of the interval.

    The places of the rows within these parts are spread evenly over the batch too, about one draw for all of them.
    Each draw is uniform; sums over many vary less than those of independent draws (Kingma et al. 2021,
    arXiv:2107.00630, appendix I.1).
    """
    rows, make = like.shape[0], {"device": like.device, "dtype": like.dtype}
    one = torch.rand((), **make)  # type: ignore[call-overload]
    start, total = (0, rows) if _part is None or rows % _part.rows else (_part.start, _part.total)
    place = (one + (start + torch.arange(rows, **make)) / total) % 1  # type: ignore[call-overload]
    if not torch.compiler.is_compiling() and _common.get():
        place = one.expand(rows)
    return (torch.arange(samples, **make)[:, None] + place) / samples  # type: ignore[call-overload]


def dropout(x: Tensor, share: float) -> Tensor:
    """Rows (B, ...) with a share of their values set to 0 and the others scaled up, so that the mean stays."""
    return torch.where(uniform(1, x)[0] < share, 0.0, x / (1 - share))


def summed(t: Tensor) -> Tensor:
    """The sum of what the processes that share a batch found in their rows, in place."""
    if _part is not None:
        if not _part.counted:
            t.zero_()
        dist.all_reduce(t)
    return t


def some(count: int, v: Tensor) -> Tensor:
    """`count` of the vectors (n, d) that the batch holds, one from each of as many stretches; alike in all processes.

    All rows of the batch have as many vectors, and those of a row lie together.
    """
    start, n = 0, len(v)
    if _part is not None:
        each = len(v) // _part.rows
        start, n = _part.start * each, _part.total * each
    u = torch.rand(count, dtype=v.dtype, device=v.device)
    place = ((torch.arange(count, device=v.device) + u) * (n / count)).long().clamp_max(n - 1) - start
    if _part is None:
        return v[place]
    here = (place >= 0) & (place < len(v))
    return summed(torch.where(here[:, None], v[place.clamp(0, len(v) - 1)], 0))


def _draw(sampler: Callable[..., Tensor], samples: int, like: Tensor) -> Tensor:
    rows, rest = like.shape[0], like.shape[1:]
    # a compiler cannot read a context variable, and nothing that is compiled draws in common
    if not torch.compiler.is_compiling() and _common.get():
        return sampler(samples, 1, *rest, device=like.device, dtype=like.dtype).expand(samples, rows, *rest)
    if _part is None or rows % _part.rows:  # rows that are not the batch's are alike in every process
        return sampler(samples, rows, *rest, device=like.device, dtype=like.dtype)
    drawn = sampler(samples, rows // _part.rows, _part.total, *rest, device=like.device, dtype=like.dtype)
    return drawn[:, :, _part.start : _part.start + _part.rows].flatten(1, 2)
