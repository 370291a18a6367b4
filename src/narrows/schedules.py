"""Weights that change with the step: beta and capacity, in every recipe that has a rate.

A schedule is called with the step (a tensor or a number) and gives the weight; `schedule(None)` is its final value,
the one at which models are compared; `schedule.steps` is when it gets there. Free bits are no schedule but a
number: `Objective(free_bits=...)`.
"""

from dataclasses import dataclass
from numbers import Real
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Constant", "Cyclical", "Schedule", "WarmUp", "as_schedule"]

Step = Tensor | float | None


class Schedule(Protocol):
    """Anything callable with the step that knows when it settles."""

    @property
    def steps(self) -> int: ...

    def __call__(self, step: Step) -> Tensor | float: ...


def _clip(ratio: Tensor | float) -> Tensor | float:
    return ratio.clamp(0.0, 1.0) if isinstance(ratio, Tensor) else min(max(ratio, 0.0), 1.0)


@dataclass(frozen=True)
class Constant:
    """The same weight always."""

    value: float
    steps: int = 0

    def __call__(self, step: Step) -> Tensor | float:
        return self.value


@dataclass(frozen=True)
class WarmUp:
    """A straight line from `start` to `final` over `steps` steps, then flat.

    For beta: KL warm-up (Bowman et al. 2016, arXiv:1511.06349; Sonderby et al. 2016, arXiv:1602.02282). For capacity:
    the C of Burgess et al. 2018, arXiv:1804.03599, section 4.2.

    Example:
        >>> WarmUp(100)(25), WarmUp(100)(1000), WarmUp(100, final=4.0)(None)
        (0.25, 1.0, 4.0)
    """

    steps: int
    final: float = 1.0
    start: float = 0.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"a warm-up takes at least 1 step; got steps={self.steps}")
        _positive("a warm-up goes from a weight to a weight, which", self.start, self.final)

    def __call__(self, step: Step) -> Tensor | float:
        if step is None:
            return self.final
        return self.start + (self.final - self.start) * _clip(step / self.steps)


@dataclass(frozen=True)
class Cyclical:
    """`cycles` warm-ups one after the other over `steps` steps, each rising for `ratio` of its length; then flat.

    Reference: Cyclical Annealing Schedule (Fu et al., 2019), arXiv:1903.10145, equation 6; defaults M = 4, R = 0.5.

    Example:
        >>> s = Cyclical(800)
        >>> s(0), s(50), s(150), s(200), s(800)
        (0.0, 0.5, 1.0, 0.0, 1.0)
    """

    steps: int
    cycles: int = 4
    ratio: float = 0.5
    final: float = 1.0

    def __post_init__(self) -> None:
        if self.steps < self.cycles or self.cycles < 1 or not 0 < self.ratio <= 1:
            raise ValueError(
                f"a cyclical schedule needs steps >= cycles >= 1 and 0 < ratio <= 1; got steps={self.steps}, "
                f"cycles={self.cycles}, ratio={self.ratio}"
            )
        _positive("a cyclical schedule rises to a weight, which", self.final)

    def __call__(self, step: Step) -> Tensor | float:
        if step is None:
            return self.final
        # whole numbers before the division: steps / cycles rounded would put some first steps at a cycle's end
        rising = _clip(step * self.cycles % self.steps / (self.ratio * self.steps))
        if isinstance(step, Tensor):
            return self.final * torch.where(step >= self.steps, 1.0, rising)
        return self.final if step >= self.steps else self.final * rising


def as_schedule(value: float | Schedule, name: str) -> Schedule:
    """A number is a constant; raises ValueError for a negative one, TypeError for what is neither."""
    if callable(value) and hasattr(value, "steps"):
        return value
    if not isinstance(value, Real):
        raise TypeError(f"{name} is a number or a schedule such as WarmUp(2000); got {value!r}")
    _positive(f"{name} is a weight and", float(value))
    return Constant(float(value))


def _positive(what: str, *values: float) -> None:
    for value in values:
        if not value >= 0:
            raise ValueError(f"{what} cannot be negative; got {value}")
