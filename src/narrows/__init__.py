"""Narrows: the whole autoencoder family on PyTorch.

Nothing heavy is imported until a name is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from narrows import (
        data,
        divergences,
        draws,
        evaluate,
        likelihoods,
        networks,
        objectives,
        posteriors,
        priors,
        recipes,
        schedules,
        tasks,
    )
    from narrows.contract import Batch, Code, Pass, Terms
    from narrows.estimators import AE, VAE
    from narrows.models import Autoencoder
    from narrows.objectives import Objective
    from narrows.store import Run, load
    from narrows.training import Training, fit

__version__ = "0.1.0"

_MODULES = {
    "data",
    "divergences",
    "draws",
    "evaluate",
    "likelihoods",
    "networks",
    "objectives",
    "posteriors",
    "priors",
    "recipes",
    "schedules",
    "tasks",
}
_NAMES = {
    "AE": "estimators",
    "Autoencoder": "models",
    "Batch": "contract",
    "Code": "contract",
    "Objective": "objectives",
    "Pass": "contract",
    "Run": "store",
    "Terms": "contract",
    "Training": "training",
    "VAE": "estimators",
    "fit": "training",
    "load": "store",
}

__all__ = [
    "AE",
    "VAE",
    "Autoencoder",
    "Batch",
    "Code",
    "Objective",
    "Pass",
    "Run",
    "Terms",
    "Training",
    "data",
    "divergences",
    "draws",
    "evaluate",
    "fit",
    "likelihoods",
    "load",
    "networks",
    "objectives",
    "posteriors",
    "priors",
    "recipes",
    "schedules",
    "tasks",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"narrows.{name}")
    if name in _NAMES:
        value = getattr(import_module(f"narrows.{_NAMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'narrows' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
