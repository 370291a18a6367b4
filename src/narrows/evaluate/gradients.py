"""How noisy a gradient is: the same rows and weights, differentiated again and again."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from narrows import draws
from narrows.contract import Batch, repeated
from narrows.data import Rows
from narrows.evaluate.common import batches
from narrows.evaluate.likelihood import BUDGET, refuse_unweighed
from narrows.labels import labels_of
from narrows.models import Model
from narrows.objectives import Objective

__all__ = ["GradientVariance", "gradient_variance"]


class GradientVariance(NamedTuple):
    """What `gradient_variance` found, of each number that was differentiated by."""

    mean: Tensor  # nats a unit
    variance: Tensor  # of a single gradient
    repeats: int

    @property
    def standard_error(self) -> Tensor:
        """Of the mean, from the finite number of repeats."""
        return (self.variance / self.repeats).sqrt()

    @property
    def signal_to_noise(self) -> Tensor:
        """|mean| over the standard deviation of a single gradient (Rainforth et al. 2018, arXiv:1802.04537)."""
        return self.mean.abs() / self.variance.sqrt()

    def __str__(self) -> str:
        return (
            f"variance {float(self.variance.sum()):.4g} for a squared mean of {float(self.mean.square().sum()):.4g} "
            f"(summed over {self.mean.numel()} numbers, {self.repeats} repeats)"
        )


class _Running:
    """Mean and variance of what comes in pieces (Chan et al. 1983): no difference of large sums."""

    def __init__(self) -> None:
        self.n, self.mean, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, t: Tensor) -> None:
        """Takes t (k, ...)."""
        t = t.detach().double().cpu()
        k, mean = len(t), t.mean(0)
        gap, total = mean - self.mean, self.n + k
        self.squares = self.squares + (t - mean).square().sum(0) + gap.square() * (self.n * k / total)
        self.mean, self.n = self.mean + gap * (k / total), total


class _Said(nn.Module):
    """An encoder that has spoken."""

    def __init__(self, h: Tensor) -> None:
        super().__init__()
        self.h = h

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        return self.h


@torch.enable_grad()
def gradient_variance(
    model: Model,
    data: Rows | Tensor,
    gradient: nn.Module | None = None,
    repeats: int = 1000,
    of: str = "outputs",
    seed: int = 0,
    **settings: Any,
) -> GradientVariance:
    r"""Mean and variance of the gradient that trains the encoder, over repeated draws of the code.

    With of = "outputs" of each row's own loss by the numbers that the encoder says of it, (n, F), all repeats in one
    batched computation; with of = "parameters" of the batch's mean loss by the encoder's parameters, (P,), one after
    the other. For f = (z - k)^2 under N(m, s^2) and d = m - k the variances by m are 4 s^2 (reparameterised) and
    d^4 / s^2 + 14 d^2 + 15 s^2 (score function).

    Arguments:
        gradient: a module of `gradients`, None for the reparameterisation trick.
        repeats: gradients for each row, at least 2.
        settings: `Objective`'s, such as bound, samples, rate and beta, at their final values.

    Raises: ValueError for settings that join the rows of a batch (free_bits, capacity, discrepancy), or which
        `Objective` refuses.
    Reference: Monte Carlo Gradient Estimation in Machine Learning (Mohamed et al., 2020), arXiv:1906.10652.

    Example:
        >>> from narrows.gradients import ScoreFunction
        >>> from narrows.recipes import vae
        >>> model, x = vae((4,), latent=2)[0], torch.ones(3, 4)
        >>> plain, score = (gradient_variance(model, x, by) for by in (None, ScoreFunction()))
        >>> plain.mean.shape, bool(plain.variance.sum() < score.variance.sum())
        (torch.Size([3, 4]), True)
    """
    if repeats < 2 or of not in ("outputs", "parameters"):
        raise ValueError(f'repeats is at least 2 and of is "outputs" or "parameters"; got repeats={repeats}, of={of!r}')
    joining = [name for name in ("free_bits", "capacity", "discrepancy") if settings.get(name) is not None]
    if joining:
        raise ValueError(f"{joining[0]} joins the rows of a batch, and variances are of single rows: leave it out")
    if labels_of(model) or getattr(model.posterior, "relaxed", False):
        raise TypeError(
            "a choice among classes has no slope along which a draw could move. Use Concrete(prior, temperature=None) "
            "with gradient=ScoreFunction(), or a posterior over numbers"
        )
    refuse_unweighed(model, "gradient_variance")
    objective = Objective(gradient=gradient, **settings)
    objective.check(model)
    objective.to(next(model.parameters()))
    found = []
    with draws.seeded(seed, 15, 0):
        if of == "parameters":
            return _by_parameters(model, objective, data, repeats)
        for batch in batches(model, data, 256):
            found.append(_by_outputs(model, objective, batch, repeats))
    mean, squares = (torch.cat(parts) for parts in zip(*((r.mean, r.squares) for r in found), strict=True))
    return GradientVariance(mean, squares / (repeats - 1), repeats)


def _by_outputs(model: Model, objective: Objective, batch: Batch, repeats: int) -> _Running:
    h, running = model.hidden(batch.x, batch.context).detach(), _Running()
    piece = max(1, BUDGET // (math.prod(model.likelihood.wants) * len(h) * objective.samples))
    for done in range(0, repeats, piece):
        k = min(piece, repeats - done)
        said = _Said(repeated(h, k).requires_grad_())  # (k B, F)
        twin = model.read_by(said).eval()
        rows = batch._replace(**{n: repeated(getattr(batch, n), k) for n in ("x", "target", "context", "seen")})
        loss = objective(twin, rows).loss * len(said.h)  # the sum over rows: each has only its own h
        (slope,) = torch.autograd.grad(loss, said.h, materialize_grads=True)
        running.add(slope.unflatten(0, (k, -1)).flatten(2))
    return running


def _by_parameters(model: Model, objective: Objective, data: Rows | Tensor, repeats: int) -> GradientVariance:
    running, parameters = _Running(), [p for p in model.encoder.parameters() if p.requires_grad]
    (batch,) = batches(model, data, 2**31)
    for _ in range(repeats):
        slopes = torch.autograd.grad(objective(model, batch).loss, parameters, materialize_grads=True)
        running.add(torch.cat([slope.flatten() for slope in slopes])[None])
    return GradientVariance(running.mean, running.squares / (repeats - 1), repeats)
