"""What stands in cells of a table that are empty."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from narrows import draws
from narrows.contract import repeated
from narrows.data import Rows
from narrows.evaluate.common import Mean, batches
from narrows.evaluate.likelihood import BUDGET, refuse_unweighed
from narrows.likelihoods import Columns
from narrows.models import Model
from narrows.objectives import log_weights

__all__ = ["Imputed", "Rehearsal", "impute", "rehearse"]


class Imputed(NamedTuple):
    """Rows whose missing cells are filled, (n, columns) each, in model units; cells that were seen are as they were."""

    values: Tensor  # of a category the likeliest, of a number the median
    low: Tensor  # 5 % and 95 % of a number; a category itself
    high: Tensor
    sure: Tensor  # probability of the category that was taken; NaN for a number, 1 where a cell was seen
    draws: Tensor  # (m, n, columns), rows filled at random, each as a whole
    effective_sample_size: Tensor  # (n,) of the draws, from 1: near 1 a row hangs on one of them


@torch.no_grad()
def impute(model: Model, data: Rows | Tensor, samples: int = 200, m: int = 1, seed: int = 0) -> Imputed:
    r"""Missing cells (NaN) of rows of mixed columns, given the cells that are seen.

    .. math:: p(x_m \mid x_s) \approx \sum_k \bar w_k\, p(x_m \mid z_k), \quad z_k \sim q(z \mid x_s), \quad
              \bar w_k \propto \frac{p(x_s \mid z_k)\, p(z_k)}{q(z_k \mid x_s)}

    Right in the limit of many `samples`, whatever q is; with few it leans on how well the encoder knows rows with such
    cells missing. The `m` rows of `draws` are drawn with the same weights, each from its own z: multiple imputation.

    Raises: TypeError for a likelihood that is not of mixed columns, or a model whose draws cannot be weighed.
    Reference: MIWAE (Mattei & Frellsen, 2019), arXiv:1812.02633, section 3 and equation 12.

    Example:
        >>> from functools import partial
        >>> from narrows.likelihoods import Column
        >>> from narrows.recipes import vae
        >>> model, _ = vae((2,), latent=1, likelihood=partial(Columns, columns=(Column(classes=3), Column())))
        >>> found = impute(model, torch.tensor([[1.0, math.nan], [math.nan, 4.0]]), m=5)
        >>> bool(found.values.isnan().any()), found.draws.shape
        (False, torch.Size([5, 2, 2]))
    """
    if not isinstance(model.likelihood, Columns):
        raise TypeError(
            "cells can be missing from rows of mixed columns, whose encoder is shown which are; this model's "
            f"likelihood is {type(model.likelihood).__name__}. Load the table with its empty cells, or with column="
        )
    refuse_unweighed(model, "impute")
    found: list[tuple[Tensor, ...]] = []
    with draws.seeded(seed, 23, 0):
        for batch in batches(model, data, max(1, BUDGET // (math.prod(model.likelihood.wants) * samples))):
            seen = ~batch.target.isnan()
            px, code = model(batch.x, batch.context, samples)
            distortion, rate = log_weights(px, code, batch.target, seen)
            w = (-distortion - rate).double().view(samples, -1).softmax(0).to(code.z.dtype)  # (K, B)
            point = _point(px, w, model.likelihood)
            taken = torch.multinomial(w.T, m, replacement=True).T  # (m, B)
            z = code.z.view(samples, len(seen), -1)[taken, torch.arange(len(seen), device=taken.device)]
            context = None if batch.context is None else repeated(batch.context, m)
            made = model.decode(z.flatten(0, 1), context).sample().view(m, *seen.shape)
            cells = [torch.where(seen, batch.target, part) for part in (*point[:3], made)]
            sure = torch.where(seen, 1.0, point[3])
            found.append(tuple(t.cpu() for t in (*cells[:3], sure, cells[3], 1 / w.square().sum(0))))
    return Imputed(*(torch.cat(parts, max(parts[0].dim() - 2, 0)) for parts in zip(*found, strict=True)))


def _point(px: Any, w: Tensor, likelihood: Columns) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Likeliest or median, 5 %, 95 %, and probability, (B, columns) each, for weights w (K, B)."""
    shape = (w.shape[1], len(likelihood.columns))
    values, low, high = (w.new_zeros(shape) for _ in range(3))
    sure = w.new_full(shape, math.nan)
    base = px.base_dist
    if len(likelihood.chosen):
        p = torch.einsum("kb,kbcj->bcj", w, base.log_classes.exp().unflatten(0, w.shape))
        top = p.max(-1)
        sure[:, likelihood.chosen] = top.values
        for part in (values, low, high):
            part[:, likelihood.chosen] = top.indices.to(w.dtype)
    if len(likelihood.counted):
        drawn = base.sample()[:, likelihood.counted].unflatten(0, w.shape)  # (K, B, numbers)
        drawn, order = drawn.sort(0)
        heaped = w[:, :, None].expand_as(drawn).gather(0, order).cumsum(0)
        for part, share in ((low, 0.05), (values, 0.5), (high, 0.95)):
            at = (heaped < share * heaped[-1]).sum(0, keepdim=True).clamp_max(len(drawn) - 1)
            part[:, likelihood.counted] = drawn.gather(0, at)[0]
    return values, low, high, sure


class Rehearsal(NamedTuple):
    """How well cells are filled that are known, beside the most frequent category and the median of training rows."""

    categories: Mean  # share that is right; NaN where there are none
    frequent: Mean
    numbers: Mean  # |filled - hidden|, in spreads of the column
    median: Mean
    rows: int
    share: float

    def __str__(self) -> str:
        found = []
        for what, ours, other, theirs, sign in (
            ("categories right", self.categories, "the most frequent", self.frequent, 1),
            ("numbers off by", self.numbers, "the median", self.median, -1),
        ):
            if math.isnan(ours.mean):
                continue
            gain, error = sign * (ours.mean - theirs.mean), math.hypot(ours.standard_error, theirs.standard_error)
            word = (
                "" if gain > 2 * error else "; WORSE, fill with that" if gain < -2 * error else "; no clear difference"
            )
            unit = " of their spread" if sign < 0 else ""
            found.append(f"{what} {ours}{unit} ({other}: {theirs}{word})")
        return f"on {self.rows:,} held-out rows with {self.share:.0%} of their cells hidden: " + ", ".join(found)


def rehearse(
    model: Model, train: Rows, held: Rows, share: float = 0.2, rows: int = 1000, samples: int = 200, seed: int = 0
) -> Rehearsal:
    """Hides a share of the known cells of at most `rows` held-out rows, and fills them. Raises: as `impute`."""
    likelihood: Any = model.likelihood
    held = held.take(torch.arange(min(len(held), rows)))
    x, usual = held.x.cpu(), train.x.cpu()
    with draws.seeded(seed, 29, 0):
        hidden = (torch.rand(x.shape) < share) & ~x.isnan()
    few = Rows(torch.where(hidden, torch.nan, x), held.scaling, context=held.told)
    filled = impute(model, few, samples, seed=seed).values
    chosen = torch.zeros(x.shape[1], dtype=torch.bool).index_fill(0, likelihood.chosen.cpu(), True)
    plain = torch.where(chosen, usual.nan_to_num(-1).mode(0).values, usual.nanmedian(0).values).expand_as(x)
    right, frequent = (Mean.of((y == x)[hidden & chosen].double()) for y in (filled, plain))
    off, median = (Mean.of((y - x).abs()[hidden & ~chosen]) for y in (filled, plain))
    return Rehearsal(right, frequent, off, median, len(x), share)
