"""Narrows: the whole autoencoder family on PyTorch.

Nothing heavy is imported until a name is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from narrows import (
        activations,
        corruptions,
        data,
        divergences,
        draws,
        evaluate,
        likelihoods,
        networks,
        objectives,
        penalties,
        posteriors,
        priors,
        recipes,
        schedules,
        tasks,
    )
    from narrows.contract import Batch, Code, Pass, Terms
    from narrows.estimators import (
        AAE,
        AE,
        IWAE,
        SWAE,
        VAE,
        WAE,
        BetaVAE,
        ContractiveAE,
        DenoisingAE,
        DropoutAE,
        LinearAE,
        RegularisedAE,
        SparseAE,
        StackedAE,
    )
    from narrows.models import Autoencoder
    from narrows.objectives import Objective
    from narrows.store import Run, load
    from narrows.tasks import canonical_latent, fit_prior
    from narrows.training import Training, fit, variational_em
    from narrows.transfer import finetune

__version__ = "0.1.0"

_MODULES = {
    "activations",
    "corruptions",
    "data",
    "divergences",
    "draws",
    "evaluate",
    "likelihoods",
    "networks",
    "objectives",
    "penalties",
    "posteriors",
    "priors",
    "recipes",
    "schedules",
    "tasks",
}
_NAMES = {
    "AAE": "estimators",
    "AE": "estimators",
    "BetaVAE": "estimators",
    "ContractiveAE": "estimators",
    "DenoisingAE": "estimators",
    "DropoutAE": "estimators",
    "IWAE": "estimators",
    "LinearAE": "estimators",
    "RegularisedAE": "estimators",
    "SWAE": "estimators",
    "SparseAE": "estimators",
    "StackedAE": "estimators",
    "VAE": "estimators",
    "WAE": "estimators",
    "Autoencoder": "models",
    "Batch": "contract",
    "Code": "contract",
    "Objective": "objectives",
    "Pass": "contract",
    "Run": "store",
    "Terms": "contract",
    "Training": "training",
    "canonical_latent": "tasks",
    "finetune": "transfer",
    "fit": "training",
    "fit_prior": "tasks",
    "load": "store",
    "variational_em": "training",
}

__all__ = [
    "AAE",
    "AE",
    "IWAE",
    "SWAE",
    "VAE",
    "WAE",
    "Autoencoder",
    "Batch",
    "BetaVAE",
    "Code",
    "ContractiveAE",
    "DenoisingAE",
    "DropoutAE",
    "LinearAE",
    "Objective",
    "Pass",
    "RegularisedAE",
    "Run",
    "SparseAE",
    "StackedAE",
    "Terms",
    "Training",
    "activations",
    "canonical_latent",
    "corruptions",
    "data",
    "divergences",
    "draws",
    "evaluate",
    "finetune",
    "fit",
    "fit_prior",
    "likelihoods",
    "load",
    "networks",
    "objectives",
    "penalties",
    "posteriors",
    "priors",
    "recipes",
    "schedules",
    "tasks",
    "variational_em",
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
