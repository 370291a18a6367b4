"""Many units, few at a time: sparse codes."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from narrows.activations import BatchTopK, TopK
from narrows.models import Model
from narrows.networks import Dictionary
from narrows.objectives import Objective
from narrows.penalties import AuxK, Resampling, listed
from narrows.recipes.common import Common, Parts, recipe

__all__ = ["sparse"]


_SPARSE = "penalty=L1(0.1) for ReLU, TargetActivity(1.0, 0.05) for Sigmoid, L0(0.1) for JumpReLU"


@torch.no_grad()
def _tied(model: Model) -> Model:
    """The encoder begins as the decoder transposed, which leaves few units dead (Gao et al. 2024, appendix A.1)."""
    encoder, decoder = model.encoder, model.decoder
    if isinstance(encoder, Dictionary) and isinstance(decoder, Dictionary):
        width = encoder.centre.numel()
        if decoder.weight.shape[1] == width:  # a likelihood with one number a value
            encoder.weight[:, :width] = decoder.directions
    model.start = _centred
    return model


@torch.no_grad()
def _centred(model: Model, rows: Any, _: Callable[..., Any]) -> bool:
    """Before the first step: the training rows' mean is where the encoder's origin lies, as an empty code does."""
    if isinstance(model.posterior.activation, BatchTopK):  # type: ignore[union-attr]
        model.posterior.activation.batches.zero_()  # type: ignore[union-attr]  # what was seen before is forgotten
    if isinstance(model.encoder, Dictionary) and not model.encoder.centre.any():
        shown: Callable[..., Any] = model.likelihood.shown
        mean = sum(shown(b.x).flatten(1).sum(0, dtype=torch.float64) for b in rows.batches(4096)) / len(rows)
        model.encoder.centre.copy_(mean)
    return False


@recipe(beta=0.0, network=Dictionary)
def sparse(
    common: Common,
    activation: Callable[..., nn.Module] = TopK,
    active: int | None = None,
    revive: str = "auxk",
    penalty: nn.Module | Iterable[nn.Module] | None = None,
    **objective: Any,
) -> Parts:
    """Sparse autoencoder: many units, of which few fire for a row (Gao et al. 2024, arXiv:2406.04093)."""
    posterior, parts = common.sparse(activation, active), listed(penalty)
    model = common.model(posterior)
    if not parts and not hasattr(posterior.activation, "active"):
        raise ValueError(f"{type(posterior.activation).__name__} codes are sparse only under a penalty: {_SPARSE}")
    if revive not in ("auxk", "resampling", "none"):
        raise ValueError(f'revive is "auxk", "resampling" or "none"; got {revive!r}')
    if revive != "none" and not posterior.activation.floor:  # a sigmoid never rests, so no unit of it dies
        units = max(1, min(512, common.latent, common.values // 2))
        parts.append(AuxK(common.latent, units) if revive == "auxk" else Resampling(common.latent))
    return _tied(model), Objective(penalty=parts, **objective)
