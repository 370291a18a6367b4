"""How long training may take, told before it starts."""

import math
import time
from typing import Any

import torch

from narrows import draws, recipes
from narrows.data import Data, Rows
from narrows.defaults import operations
from narrows.models import Model
from narrows.objectives import Objective
from narrows.pca import Components
from narrows.training.adam import Adam
from narrows.training.loop import STEPS, cap
from narrows.training.settings import Training

__all__ = ["epochs", "estimate"]

WORK = 3e12  # floating-point operations of a first run on a CPU: about two minutes on two cores


def epochs(model: Model, objective: Objective, rows: Rows, batch: int) -> int:
    """Passes over the rows where nobody says how many: 30,000 steps, or what 3 x 10^12 operations allow.

    A function of model and rows alone, not of the machine's speed, so that the same command gives the same weights.
    """
    size = min(batch, len(rows))
    with draws.seeded(0):
        each = operations(lambda: objective(model, rows.batch(torch.arange(size))).loss.backward())
    model.zero_grad()
    objective.zero_grad()
    steps = min(STEPS, max(WORK / max(each, 1), objective.settled))
    return math.ceil(steps / math.ceil(len(rows) / size))


def estimate(data: Data, spec: dict[str, Any] | None, training: Training) -> str:
    """One sentence from a few steps on a copy of the model, which is thrown away."""
    rows = data.train
    total, size = cap(len(rows), training)
    seconds = 0.0
    if spec is not None:
        model, objective = recipes.build(spec)
        if isinstance(model.start, Components):
            return f"solved in closed form ({model.start.solver}): nothing to train"
        with draws.seeded(0):
            optimiser = Adam(model.parameters(), lr=1e-4)
            steps = 6
            for step in range(steps):
                if step == 2:  # the first ones allocate
                    begun = time.perf_counter()
                optimiser.zero_grad()
                objective(model, rows.batch(torch.arange(size))).loss.backward()
                optimiser.step()
        seconds = (time.perf_counter() - begun) / (steps - 2) * total
    most = f"at most {total:,} steps of {size} rows, about {_duration(seconds)} on this CPU"
    if training.minutes:
        most += f" and no more than {training.minutes:g} min"
    return most + ("" if not len(data.valid) else "; it stops when the held-out loss no longer gains")


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.1f} h"
    )
