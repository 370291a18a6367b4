"""How long training may take, told before it starts."""

import time
from typing import Any

import torch

from narrows import draws, recipes
from narrows.data import Data
from narrows.training.adam import Adam
from narrows.training.loop import cap
from narrows.training.settings import Training

__all__ = ["estimate"]


def estimate(data: Data, spec: dict[str, Any] | None, training: Training) -> str:
    """One sentence from a few steps on a copy of the model, which is thrown away."""
    rows = data.train
    total, size = cap(len(rows), training)
    seconds = 0.0
    if spec is not None:
        with draws.seeded(0):
            model, objective = recipes.build(spec)
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
