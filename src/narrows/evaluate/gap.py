"""What is lost between log p(x) and its bound, and what inference for each row by itself wins back."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from narrows import draws
from narrows.contract import Batch, repeated
from narrows.data import Rows
from narrows.evaluate.common import Mean, batches
from narrows.evaluate.likelihood import BUDGET, importance, refuse_unweighed
from narrows.labels import labels_of
from narrows.likelihoods import log_prob
from narrows.models import Model

__all__ = ["InferenceGap", "Refined", "inference_gap", "refine", "without_encoder"]

JUDGED = 64  # fixed draws on which a row's states are compared


class Refined(NamedTuple):
    """q(z|x) of each row, optimised by itself."""

    h: Tensor  # (n, F) what the posterior reads in place of the encoder's words
    z: Tensor  # (n, D) point codes
    before: Tensor  # (n,) nats: ELBO with the encoder's q, on fixed draws
    after: Tensor  # (n,) nats: ELBO with the refined q, on the same draws; never less

    def __str__(self) -> str:
        return f"ELBO {Mean.of(self.before)} -> {Mean.of(self.after)} nats, gain {Mean.of(self.after - self.before)}"


class InferenceGap(NamedTuple):
    """log p(x) - L[q], in its two parts; all on draws that took no part in the refinement."""

    log_p: Tensor  # (n,) nats, importance-weighted with the refined q
    before: Tensor  # (n,) nats, L[q]: the ELBO with the encoder's q
    after: Tensor  # (n,) nats, L[q*]: the ELBO with each row's own best q
    errors: Tensor  # (2, n) Monte Carlo standard errors of each row's approximation and amortisation gap

    @property
    def approximation(self) -> Mean:
        """What no q of this form can win: log p(x) - L[q*]."""
        return Mean.of(self.log_p - self.after)

    @property
    def amortisation(self) -> Mean:
        """What the encoder loses by speaking for all rows at once: L[q*] - L[q]."""
        return Mean.of(self.after - self.before)

    @property
    def monte_carlo_error(self) -> tuple[float, float]:
        """Of the mean approximation and amortisation gap."""
        first, second = (self.errors.square().sum(1).sqrt() / self.errors.shape[1]).tolist()
        return first, second

    def __str__(self) -> str:
        first, second = self.monte_carlo_error
        return (
            f"log p(x) - ELBO = {Mean.of(self.log_p - self.before)} nats: approximation {self.approximation} (Monte "
            f"Carlo error {first:.2g}), which no q of this form can win, and amortisation {self.amortisation} (Monte "
            f"Carlo error {second:.2g}), which inference for each row by itself wins back"
        )


class _Said(nn.Module):
    """An encoder whose rows are already what an encoder says."""

    def forward(self, h: Tensor, context: Tensor | None = None) -> Tensor:
        return h


def _said(h: Tensor, context: Tensor | None = None) -> Tensor:  # noqa: ARG001
    """Instead of `Model.hidden`, which shows an encoder the logarithms of counts."""
    return h


def without_encoder(model: Model) -> Model:
    """The same posterior, decoder and likelihood, with an encoder that hands on what it is given.

    Its rows are what the posterior reads, h (B, F): then q(z|x) is a free choice for every row. Weights are shared.
    Show it a batch whose x is h and whose target is x.
    """
    free = model.read_by(_Said())
    free.hidden = _said  # type: ignore[assignment,method-assign]
    return free


def refine(
    model: Model,
    data: Rows | Tensor,
    steps: int = 100,
    samples: int = 2,
    lr: float = 0.03,
    seed: int = 0,
    start: Tensor | None = None,
) -> Refined:
    r"""Optimises q(z|x) of each row by itself, from the encoder's guess, all rows at once.

    .. math:: h^*(x) = \arg\max_h \; E_{q(z; h)} \Big[ \log p(x \mid z) + \log p(z) - \log q(z; h) \Big],
              \quad h_0 = \text{encoder}(x)

    What is free is what the posterior reads, so this works for every posterior; decoder and prior stay as they are.
    Adam with a rate that falls to 0 like a cosine, on fresh draws. Half way and at the end a row's state is compared
    with its best so far on 64 fixed draws, and taken where it gains more than two standard errors: no row ends below
    its start.

    Arguments: `samples` draws a step, `start` (n, F) another first guess, such as zeros for a model without encoder.
    Returns: h (n, F), point codes (n, D), and the ELBO before and after, (n,) nats on the fixed draws. For new draws,
        codes or likelihoods give h to `without_encoder(model)`.
    Raises: TypeError for a code without density, ValueError for steps, samples or lr that are not positive.
    References: Semi-Amortized Variational Autoencoders (Kim et al., 2018), arXiv:1802.02550, section 3; Inference
    Suboptimality in Variational Autoencoders (Cremer et al., 2018), arXiv:1801.03558, section 3.

    Example:
        >>> from narrows.recipes import vae
        >>> model, _ = vae((8,), latent=2)
        >>> found = refine(model, torch.ones(3, 8), steps=20)
        >>> bool((found.after >= found.before).all())
        True
    """
    _check(model, steps, samples, lr)
    free, found, done = without_encoder(model).eval(), [], 0
    for batch in batches(model, data, _size(model, samples)):
        if start is None:
            with torch.no_grad():
                h = model.hidden(batch.x, batch.context)
        else:
            h = start[done : done + len(batch.x)].to(batch.x)
        done += len(batch.x)
        best, before, after = _climb(free, batch._replace(x=h), steps, samples, lr, seed)
        with torch.no_grad():
            z = free.encode(best, batch.context).z
        found.append([t.cpu() for t in (best, z, before, after)])
    return Refined(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def inference_gap(
    model: Model, data: Rows | Tensor, steps: int = 100, samples: int = 1000, seed: int = 0
) -> InferenceGap:
    r"""Splits log p(x) - L[q] into what the form of q costs and what the encoder costs.

    .. math:: \log p(x) - L[q] = \underbrace{\log p(x) - L[q^*]}_{\text{approximation}}
              + \underbrace{L[q^*] - L[q]}_{\text{amortisation}}

    q* is `refine`d, with 8 draws a step; all three are then measured on `samples` fresh draws, the two bounds on the
    same ones. log p(x) is importance-weighted with q*: a lower bound in expectation, so the approximation gap is at
    least what is found; a q* whose optimisation was cut short moves from one part to the other. Where one draw carries
    the weights q* has missed a mode, and no error shows it: compare `annealed_importance_sampling`.

    Raises: as `refine`.
    Reference: Inference Suboptimality in Variational Autoencoders (Cremer et al., 2018), arXiv:1801.03558, section 3.

    Example:
        >>> from narrows.recipes import vae
        >>> model, _ = vae((8,), latent=2)
        >>> found = inference_gap(model, torch.ones(3, 8), steps=10, samples=50)
        >>> total = (found.log_p - found.before).mean()
        >>> bool((found.approximation.mean + found.amortisation.mean - total).abs() < 1e-3)
        True
    """
    _check(model, steps, samples, 1.0)
    free, found = without_encoder(model).eval(), []
    for number, batch in enumerate(batches(model, data, _size(model, 8))):
        with torch.no_grad():
            first = batch._replace(x=model.hidden(batch.x, batch.context))
        best = first._replace(x=_climb(free, first, steps, 8, 0.03, seed)[0])
        with torch.no_grad():
            with draws.seeded(seed, 16, 2, number):
                total, squares = importance(free, best, samples)
            values = []
            for one in (first, best):
                with draws.seeded(seed, 16, 3, number):  # the same draws for both
                    values.append(_elbos(free, one, samples).cpu())
        before, after = values
        size = (2 * total - squares).exp()
        of_log_p = (samples / size - 1).clamp_min(0)  # variances, times the samples
        variances = torch.stack([of_log_p + after.var(0), (after - before).var(0)]) / samples
        errors = variances.sqrt()
        found.append([total - math.log(samples), before.mean(0), after.mean(0), errors])
    return InferenceGap(*(torch.cat(parts, -1) for parts in zip(*found, strict=True)))


def _check(model: Model, steps: int, samples: int, lr: float) -> None:
    if not model.density:
        raise TypeError(
            "there is no q(z|x) to refine: this model's code has no density. Use a model that prices its code, such as "
            "recipe vae or iwae"
        )
    refuse_unweighed(model, "refine")
    if getattr(model.posterior, "relaxed", getattr(model.posterior, "certain", False)) or labels_of(model):
        raise TypeError(
            "q(z|x) is refined by the slope of its draws, and here a draw is a choice among classes, which has none. "
            "Use a posterior over numbers, such as recipe vae or flow_vae"
        )
    if steps < 1 or samples < 1 or not lr > 0:
        raise ValueError(
            f"refining takes at least one step and one draw, and a positive lr; got steps={steps}, samples={samples}, "
            f"lr={lr}"
        )


def _size(model: Model, samples: int) -> int:
    """Rows at once: as many as fit a few tens of megabytes."""
    return max(1, min(1024, 4 * BUDGET // (math.prod(model.likelihood.wants) * samples)))


def _elbos(free: Model, batch: Batch, samples: int) -> Tensor:
    """The ELBO of every draw, (samples, B) nats in float64; the rate in closed form where there is one."""
    piece = max(1, BUDGET // (math.prod(free.likelihood.wants) * len(batch.x)))
    return torch.cat([_draws(free, batch, min(piece, samples - d)).double() for d in range(0, samples, piece)])


def _draws(free: Model, batch: Batch, k: int) -> Tensor:
    """The ELBO of k draws, (k, B) nats."""
    px, code = free(batch.x, batch.context, k)
    return (log_prob(px, repeated(batch.target, k), repeated(batch.seen, k)) - code.rate).unflatten(0, (k, -1))


def _climb(free: Model, batch: Batch, steps: int, samples: int, lr: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best h (B, F) on the way up from `batch.x`, and the ELBO (B,) of start and best on the fixed draws."""

    @torch.no_grad()
    def judged(h: Tensor) -> Tensor:
        with draws.seeded(seed, 16, 1):
            return _elbos(free, batch._replace(x=h), JUDGED)  # (JUDGED, B)

    best = batch.x
    h = best.clone().requires_grad_()
    adam = torch.optim.Adam([h], lr)
    with draws.seeded(seed, 16, 0), draws.common():  # what a row finds does not depend on its neighbours
        first = held = judged(best)
        for step in range(1, steps + 1):
            adam.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * (step - 1) / steps))
            value = _draws(free, batch._replace(x=h), samples).sum() / samples
            (slope,) = torch.autograd.grad(value, h)
            h.grad = -slope
            adam.step()
            if step in (-(-steps // 2), steps):
                now = judged(h.detach())
                gain = now - held
                better = gain.mean(0) > 2 * gain.std(0) / math.sqrt(JUDGED)  # (B,); false where it is no number
                held, best = torch.where(better, now, held), torch.where(better[:, None], h.detach(), best)
    return best, first.mean(0), held.mean(0)
