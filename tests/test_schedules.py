"""Weights at every step, against independent formulas in whole-number fractions.

Tolerance 1e-12 for floats and 1e-6 for float32 tensors: a handful of roundings of numbers up to 10.
"""

import itertools
import json
import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial

import pytest
import torch

from narrows.schedules import Constant, Cyclical, Schedule, WarmUp, as_schedule
from narrows.spec import describe, restore


def straight(step: int, steps: int, final: float, start: float) -> float:
    """Bowman et al. 2016: a line, then flat."""
    return final if step >= steps else start + (final - start) * step / steps


def cycles(step: int, steps: int, count: int, ratio: float, final: float) -> float:
    """Fu et al. 2019, equation 6, with the first step 0 and cycles of steps / count steps, whole or not."""
    if step >= steps:
        return final
    tau = Fraction(step * count, steps) % 1
    return final * float(min(tau / Fraction(ratio), 1))


CASES: list[tuple[Schedule, Callable[[int], float]]] = [(Constant(2.5), lambda t: 2.5)]
for n, b, a in [(1, 1.0, 0.0), (10, 4.0, 1.0), (7, 0.0, 25.0)]:
    CASES.append((WarmUp(n, b, a), partial(straight, steps=n, final=b, start=a)))
for n, m, r, b in [(12, 4, 0.5, 1.0), (10, 6, 0.5, 1.0), (100, 7, 0.25, 4.0), (9, 1, 1.0, 1.0), (5, 5, 0.5, 1.0)]:
    CASES.append((Cyclical(n, m, r, b), partial(cycles, steps=n, count=m, ratio=r, final=b)))

every = pytest.mark.parametrize(("schedule", "expected"), CASES, ids=[repr(s) for s, _ in CASES])


@every
def test_every_step_has_the_weight_of_the_formula(schedule: Schedule, expected: Callable[[int], float]) -> None:
    """As a number and as a tensor of whole or real numbers, past the end, and None for the final value."""
    for step in range(schedule.steps + 3):
        assert schedule(step) == pytest.approx(expected(step), abs=1e-12)
        for dtype in (torch.int64, torch.float32):
            value = schedule(torch.tensor(step, dtype=dtype))
            assert float(value) == pytest.approx(expected(step), abs=1e-6)
    assert schedule(None) == schedule(schedule.steps) == expected(schedule.steps)


@every
def test_a_schedule_survives_a_file(schedule: Schedule, expected: Callable[[int], float]) -> None:
    """Its description is JSON and builds its equal."""
    assert restore("beta", json.loads(json.dumps(describe("beta", schedule)))) == schedule


def test_published_cyclical_schedule() -> None:
    """Fu et al.'s own equation, beta_t = f(tau), tau = mod(t - 1, ceil(T/M)) / (T/M), t from 1, where M divides T."""
    ours, length = Cyclical(400, cycles=4, ratio=0.5), 100
    for t in range(1, 401):
        tau = (t - 1) % math.ceil(length) / length
        assert ours(t - 1) == pytest.approx(tau / 0.5 if tau <= 0.5 else 1.0, abs=1e-12)


def test_a_warm_up_never_falls() -> None:
    """Neighbouring steps of a rising line."""
    values = [WarmUp(1000, final=3.0)(step) for step in range(1100)]
    assert all(a <= b for a, b in itertools.pairwise(values))


def test_a_number_is_a_schedule() -> None:
    """Constant from step 0, whole numbers too; a schedule stays what it is."""
    assert as_schedule(2, "beta") == Constant(2.0)
    assert as_schedule(0.5, "beta").steps == 0
    warm = WarmUp(3)
    assert as_schedule(warm, "beta") is warm


@pytest.mark.parametrize("value", [-1, -1e-9, math.nan])
def test_a_weight_is_not_negative(value: float) -> None:
    """The message names the weight."""
    with pytest.raises(ValueError, match=f"capacity is a weight and cannot be negative; got {value}"):
        as_schedule(value, "capacity")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WarmUp(0), "a warm-up takes at least 1 step; got steps=0"),
        (lambda: Cyclical(3), r"steps >= cycles >= 1 .* got steps=3, cycles=4"),
        (lambda: Cyclical(3, cycles=0), r"steps >= cycles >= 1 .* cycles=0"),
        (lambda: Cyclical(8, ratio=0.0), r"0 < ratio <= 1; .* ratio=0.0"),
        (lambda: Cyclical(8, ratio=1.5), r"0 < ratio <= 1; .* ratio=1.5"),
    ],
)
def test_impossible_schedules_are_refused(make: Callable[[], Schedule], message: str) -> None:
    """With what was given."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "make", [lambda: WarmUp(5, final=-1.0), lambda: WarmUp(5, start=-1.0), lambda: Cyclical(8, final=-1)]
)
def test_negative_ends_are_refused(make) -> None:
    """A weight at either end is a weight."""
    with pytest.raises(ValueError, match="cannot be negative; got -1"):
        make()
