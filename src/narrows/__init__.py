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
        flows,
        gradients,
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
        CIWAE,
        DIPVAE,
        IWAE,
        MIWAE,
        PIWAE,
        SWAE,
        VAE,
        WAE,
        AnnealedVAE,
        BetaTCVAE,
        BetaVAE,
        ConcreteVAE,
        ConditionalVAE,
        ContractiveAE,
        DenoisingAE,
        Diffusion,
        DropoutAE,
        FactorVAE,
        FlowVAE,
        InfoVAE,
        LinearAE,
        RegularisedAE,
        RenyiVAE,
        SemiSupervisedAAE,
        SemiSupervisedVAE,
        SparseAE,
        StackedAE,
        VampPriorVAE,
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
    "gradients",
    "flows",
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
    "AnnealedVAE": "estimators",
    "BetaTCVAE": "estimators",
    "BetaVAE": "estimators",
    "CIWAE": "estimators",
    "ConditionalVAE": "estimators",
    "ConcreteVAE": "estimators",
    "ContractiveAE": "estimators",
    "DenoisingAE": "estimators",
    "Diffusion": "estimators",
    "DIPVAE": "estimators",
    "DropoutAE": "estimators",
    "FactorVAE": "estimators",
    "InfoVAE": "estimators",
    "FlowVAE": "estimators",
    "IWAE": "estimators",
    "LinearAE": "estimators",
    "MIWAE": "estimators",
    "PIWAE": "estimators",
    "RegularisedAE": "estimators",
    "RenyiVAE": "estimators",
    "SWAE": "estimators",
    "SemiSupervisedAAE": "estimators",
    "SemiSupervisedVAE": "estimators",
    "SparseAE": "estimators",
    "StackedAE": "estimators",
    "VAE": "estimators",
    "VampPriorVAE": "estimators",
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
    "CIWAE",
    "DIPVAE",
    "IWAE",
    "MIWAE",
    "PIWAE",
    "SWAE",
    "VAE",
    "WAE",
    "AnnealedVAE",
    "Autoencoder",
    "Batch",
    "BetaTCVAE",
    "BetaVAE",
    "Code",
    "ConcreteVAE",
    "ConditionalVAE",
    "ContractiveAE",
    "DenoisingAE",
    "Diffusion",
    "DropoutAE",
    "FactorVAE",
    "FlowVAE",
    "InfoVAE",
    "LinearAE",
    "Objective",
    "Pass",
    "RegularisedAE",
    "RenyiVAE",
    "Run",
    "SemiSupervisedAAE",
    "SemiSupervisedVAE",
    "SparseAE",
    "StackedAE",
    "Terms",
    "Training",
    "VampPriorVAE",
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
    "flows",
    "gradients",
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
