"""What discrepancies have in common: what they hand back, and a weight."""

import math
from typing import NamedTuple

from torch import Tensor

__all__ = ["Gap", "positive"]


class Gap(NamedTuple):
    """What a discrepancy found between codes and draws from the prior; scalars."""

    value: Tensor  # the estimate of D(q(z), p(z)) that is reported
    model: Tensor  # what the encoder minimises; the value itself, unless a critic is played against
    critic: Tensor  # what the critic minimises; 0 without one


def positive(weight: float) -> float:
    """The weight; raises ValueError for a negative or infinite one."""
    if not 0 <= weight < math.inf:
        raise ValueError(f"a discrepancy's weight is a number of at least 0; got weight={weight}")
    return float(weight)
