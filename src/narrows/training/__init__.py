"""Training: one loop, and what makes it fast, repeatable and hard to kill."""

from narrows.training.em import Inferred, variational_em
from narrows.training.loop import fit
from narrows.training.settings import Training

__all__ = ["Inferred", "Training", "fit", "variational_em"]
