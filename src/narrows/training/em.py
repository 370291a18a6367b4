"""variational_em: a decoder without an encoder."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from narrows import draws
from narrows.data import Rows
from narrows.data import rows as as_rows
from narrows.evaluate import without_encoder
from narrows.evaluate.common import device_of
from narrows.models import Model
from narrows.objectives import Objective
from narrows.training import alarms
from narrows.training.adam import Adam

__all__ = ["Inferred", "variational_em"]

PACE = 10.0  # how much faster a row's own parameters move: each row has its own, and sees them once an epoch


class Inferred(NamedTuple):
    """What was found for each training row, and how the bound rose."""

    h: Tensor  # (n, F) what the posterior reads for each row
    z: Tensor  # (n, D) point codes
    bound: Tensor  # (n,) nats: the objective's bound at the end, mean over 16 passes
    curve: list[float]  # mean bound of each epoch, nats


def variational_em(
    model: Model,
    data: Rows | Tensor,
    objective: Objective | None = None,
    epochs: int = 200,
    inner: int = 5,
    batch: int = 128,
    lr: float = 1e-3,
    seed: int = 0,
) -> Inferred:
    r"""Trains decoder, likelihood and prior with no encoder: every row has variational parameters of its own.

    .. math:: \text{E:} \quad h_n \leftarrow h_n + \ldots \nabla_{h_n} L(x_n; h_n, \theta) \ (\text{inner times}),
              \qquad \text{M:} \quad \theta \leftarrow \theta + \ldots \nabla_\theta \sum_n L(x_n; h_n, \theta)

    Both by Adam, with rates that fall to 0 like a cosine; L is the objective's (the ELBO where none is given). There is
    no amortisation gap, and no generalisation from row to row: for new rows, `refine(model, rows, start=zeros)`. It has
    a small loop of its own because `fit` moves all weights by every row, and here most belong to one row each: the
    table h (n, F) would be too large a state to check, to checkpoint and to average over processes at every step.

    Arguments: `inner` E-steps before each M-step, `lr` of the M-steps (E-steps: ten times as much). The model's encoder
        is neither used nor changed; everything else is trained in place.
    Returns: h, codes and bounds of the rows, in their order. The same seed gives the same weights.
    Raises: ValueError for settings below 1 or data the likelihood cannot produce; FloatingPointError where the loss is
        no number.
    References: A View of the EM Algorithm that Justifies Incremental, Sparse, and other Variants (Neal & Hinton, 1998);
    Stochastic Variational Inference (Hoffman et al., 2013), arXiv:1206.7051, for batches of rows.

    Example:
        >>> from narrows.recipes import vae
        >>> model, _ = vae((8,), latent=2)
        >>> variational_em(model, torch.rand(50, 8).round(), epochs=2).z.shape
        torch.Size([50, 2])
    """
    if min(epochs, inner, batch) < 1 or not lr > 0:
        raise ValueError(
            f"variational EM takes at least one epoch, one inner step and one row a batch, and a positive lr; got "
            f"epochs={epochs}, inner={inner}, batch={batch}, lr={lr}"
        )
    if objective is not None and objective.discrepancy is not None:
        raise ValueError("variational EM has no step for a discrepancy: leave it out, or train with fit")
    if hasattr(model.prior, "attach"):
        raise TypeError(
            f"variational EM trains no encoder, and {type(model.prior).__name__} is made of what the encoder says. Use "
            "another prior, such as Mixture, or train with fit"
        )
    objective, rows, device = objective or Objective(), as_rows(data), device_of(model)
    free = without_encoder(model)
    objective.check(model)
    alarms.check_support(model, rows)
    rows = rows.to(device)
    weights = [p for p in (*free.parameters(), *objective.to(device).parameters()) if p.requires_grad]
    h = torch.zeros(len(rows), int(model.posterior.features), device=device, dtype=weights[0].dtype)  # type: ignore[arg-type]
    means, squares = torch.zeros_like(h), torch.zeros_like(h)
    outer, curve, step = Adam(weights, lr), [], 0
    free.train(), objective.train()
    with draws.seeded(seed, 18, 0):
        for epoch in range(epochs):
            generator = torch.Generator().manual_seed(draws.mix(seed, 1, epoch))
            outer.lr = lr * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
            total = torch.zeros((), device=device)
            for index in torch.randperm(len(rows), generator=generator).to(device).split(batch):
                one = rows.batch(index, torch.tensor(step, device=device))
                own = h[index].requires_grad_()
                adam = Adam([own], PACE * outer.lr)  # type: ignore[list-item]
                count = torch.full_like(adam.steps, epoch * inner)
                adam.load({"steps": count, "mean.0": means[index], "square.0": squares[index]})
                for part in range(inner + 1):  # the last is the M-step
                    draws.reseed(seed, 19, step * (inner + 1) + part)
                    terms = objective(free, one._replace(x=own))
                    if part < inner:
                        (own.grad,) = torch.autograd.grad(terms.loss * len(index), own)
                        adam.step()
                    else:
                        outer.zero_grad()
                        terms.loss.backward()
                        outer.step()
                h[index], means[index], squares[index] = own.detach(), adam.means[0], adam.squares[0]
                total += terms.bound.sum()
                step += 1
            curve.append(float(total) / len(rows))
            if not math.isfinite(curve[-1]):
                raise FloatingPointError(f"the bound is not finite in epoch {epoch + 1}. Try a lower lr")
        outer.zero_grad()
        model.eval(), objective.eval()
        z, bound = [], []
        with torch.no_grad():
            for one in rows.batches(1024):
                one = one._replace(x=h[one.row])
                z.append(free.encode(one.x, one.context).z.cpu())
                bound.append(torch.stack([objective(free, one).bound for _ in range(16)]).double().mean(0).cpu())
    return Inferred(h.cpu(), torch.cat(z), torch.cat(bound), curve)
