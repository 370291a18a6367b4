"""Cells of a table: what stands in those that are empty, and what each is worth given the others of its row."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from narrows import draws
from narrows.contract import Code, repeated
from narrows.data import Rows
from narrows.data import rows as as_rows
from narrows.evaluate.common import Mean, batches
from narrows.evaluate.likelihood import BUDGET, refuse_unweighed
from narrows.likelihoods import Columns, Likelihood, cells
from narrows.likelihoods.columns import Numbers
from narrows.models import Model
from narrows.objectives import log_weights

__all__ = [
    "Blame",
    "Cleaned",
    "Cleaning",
    "Imputed",
    "Rehearsal",
    "blame",
    "denoise",
    "impute",
    "rehearse",
    "rehearse_denoising",
]

ALONE = 1000  # draws from the prior
TINY = 1e-7  # a probability that is no smaller in sums of float32
VARIANTS = 8  # groups of columns that are hidden in turn: more draw the code no better


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
            each = w[..., None].expand(-1, -1, model.shape[0])
            points, sure = _point(model.likelihood, *_mixed(px, each, model.likelihood), 0.5, 0.05, 0.95)
            taken = torch.multinomial(w.T, m, replacement=True).T  # (m, B)
            z = code.z.view(samples, len(seen), -1)[taken, torch.arange(len(seen), device=taken.device)]
            context = None if batch.context is None else repeated(batch.context, m)
            made = model.decode(z.flatten(0, 1), context).sample().view(m, *seen.shape)
            cells = [torch.where(seen, batch.target, part) for part in (*points, made)]
            sure = torch.where(seen, 1.0, sure)
            found.append(tuple(t.cpu() for t in (*cells[:3], sure, cells[3], 1 / w.square().sum(0))))
    return Imputed(*(torch.cat(parts, max(parts[0].dim() - 2, 0)) for parts in zip(*found, strict=True)))


def _mixed(px: Any, w: Tensor, likelihood: Columns, most: int | None = None) -> tuple[Tensor, Numbers]:
    """Probabilities of classes (B, categories, most) and mixtures of numbers, for weights w (K, B, columns)."""
    base = px.base_dist
    p = base.log_classes.exp().unflatten(0, w.shape[:2])  # (K, B, categories, most)
    p = torch.einsum("kbc,kbcj->bcj", w[..., likelihood.chosen], p)
    return p, base.numbers(w[..., likelihood.counted], most)


def _point(likelihood: Columns, p: Tensor, numbers: Numbers, *shares: float) -> tuple[Tensor, Tensor]:
    """Likeliest or quantiles (shares, B, columns), and probability of the category (B, columns)."""
    shape = (len(p), len(likelihood.columns))
    values, sure = p.new_zeros(len(shares), *shape), p.new_full(shape, math.nan)
    if len(likelihood.chosen):
        top = p.max(-1)
        sure[:, likelihood.chosen] = top.values
        values[..., likelihood.chosen] = top.indices.to(p.dtype)
    if len(likelihood.counted):
        for share, part in zip(shares, values, strict=True):
            part[:, likelihood.counted] = numbers.quantile(share)
    return values, sure


class Blame(NamedTuple):
    """What each cell is worth given the others of its row, (n, columns) each; NaN where a cell is empty."""

    nats: Tensor  # -log p(x_c | x_rest): how unlikely the cell is, given the others
    alone: Tensor  # -log p(x_c): the same of one that knows nothing of the row
    tail: Tensor  # -log of the probability, given the others, of a class no likelier, of a number as far out
    values: Tensor  # what was seen, in model units
    expected: Tensor  # given the others: the likeliest category, the median (of a plain table the mean)
    sure: Tensor  # probability of the category that is expected; NaN for a number
    effective_sample_size: Tensor  # of the draws, from 1: near 1 a figure hangs on one of them

    @property
    def evidence(self) -> Tensor:
        """By which columns are ranked: nats that speak for a value of another row, of those as odd here as this one."""
        return self.nats - self.alone + self.tail


@torch.no_grad()
def blame(model: Model, data: Rows | Tensor, samples: int = 256, seed: int = 0) -> Blame:
    r"""How unlikely each cell of a row is, given the others, and what the others make one expect in its place.

    .. math:: p(x_c \mid x_{-c}) = \frac{\sum_k w_k}{\sum_k w_k / p(x_c \mid z_k)}, \quad
              w_k = \frac{p(z_k) \prod_j p(x_j \mid z_k)}{\bar q(z_k)}, \quad
              z_k \sim \bar q = \tfrac1G \textstyle\sum_g q(z \mid x_{-g})

    The encoder is shown the row with each group g of columns hidden in turn (empty in a table of mixed columns, at the
    mean otherwise), and all that it says together is the proposal for every cell: right in the limit of many
    `samples`, whatever q is, and all draws serve all cells. Where q scores its own draws only, as in a ladder, a cell
    is served by those that have not seen it. Draws are the same for every row, so that a row is blamed alike whatever
    stands beside it.

    Columns differ in what they cost, so nats are no ranking: a number on a fine grid is never likely. Their `evidence`
    is the logarithm of a Bayes factor, of a cell that was taken from another row against one that belongs here,

    .. math:: \log \frac{p(x_c) / T}{p(x_c \mid x_{-c})}, \quad T = P(\text{a value as unlikely as } x_c \mid x_{-c})

    where T stands for the share of other rows' values that would be as odd here: exact where the others say nothing of
    the column, and what makes a rare value count there. benchmarks/README.md has it beside other rankings.

    Arguments: rows (n, columns) in model units; `samples` draws of the code for each row, in all.
    Raises: TypeError for a model whose draws cannot be weighed; ValueError for rows that are no rows of a table.
    Reference: for the mixture as proposal, Veach & Guibas 1995, "Optimally combining sampling techniques", equation 10.

    Example:
        >>> from narrows.recipes import vae
        >>> from narrows.likelihoods import Gaussian
        >>> found = blame(vae((5,), latent=2, likelihood=Gaussian)[0], torch.randn(3, 5))
        >>> found.nats.shape, found.evidence.argsort(1, descending=True).shape
        (torch.Size([3, 5]), torch.Size([3, 5]))
    """
    if len(model.shape) != 1:
        raise ValueError(f"cells are blamed in rows of a table, of shape (columns,); these have shape {model.shape}")
    refuse_unweighed(model, "blame")
    if not model.density:
        raise TypeError(
            "what a cell is worth given the others needs the density of a code, and this model's code has none. Use "
            "recipe vae or another one whose code has a rate"
        )
    columns, wants = model.shape[0], math.prod(model.likelihood.wants)
    variants = min(columns, VARIANTS)
    hiding = torch.arange(columns)[None] % variants == torch.arange(variants)[:, None]  # (V, columns)
    each = -(-samples // variants)
    found: list[tuple[Tensor, ...]] = []
    mixed = isinstance(model.likelihood, Columns)
    nothing = None if model.context else _usual(model, None, seed)
    for batch in batches(model, data, max(1, BUDGET // (wants * each * variants))):
        seen = ~batch.target.isnan()
        told = [None] * len(seen) if batch.context is None else batch.context
        usual = [nothing or _usual(model, row, seed) for row in told]
        middle = torch.nan if mixed else torch.stack([px0.mean.mean(0) for px0 in usual])
        with draws.seeded(seed, 37, 0), draws.common():
            codes = [
                model.encode(torch.where(hidden, middle, batch.x), batch.context, each, draw=True)
                for hidden in hiding.to(batch.x.device)
            ]
        px: Any = model.decode(torch.cat([code.z for code in codes]), batch.context)
        score = cells(px, repeated(batch.target.nan_to_num(0.0), each * variants)).double()
        score = torch.where(seen, score.unflatten(0, (-1, len(seen))), 0.0)  # (K, B, columns)
        joint = (score.sum(-1) + _priced(codes, len(seen)))[..., None]  # (K, B, 1): log p(x, z) - log q(z)
        if codes[0].q is None:  # for each cell the draws that have not seen it
            own = hiding.repeat_interleave(each, 0)[:, None]  # (K, 1, columns)
            joint = torch.where(own.to(joint.device), joint, -math.inf)
        rest = joint - score  # (K, B, columns): without the cell
        nats = rest.logsumexp(0) - joint.logsumexp(0)
        w = rest.softmax(0)
        alone = torch.stack([_alone(px0, x) for px0, x in zip(usual, batch.target.nan_to_num(0.0), strict=True)])
        guess = _guess(px, w.to(batch.x.dtype), batch.target.nan_to_num(0.0), model.likelihood)
        parts = (nats, alone, guess[2], batch.target, *guess[:2], 1 / w.square().sum(0))
        found.append(tuple(torch.where(seen, part.float(), torch.nan).cpu() for part in parts))
    return Blame(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def _usual(model: Model, context: Tensor | None, seed: int) -> Any:
    """p(x|z) of draws from the prior, for one context (C,) or none: together what is known without a row."""
    with draws.seeded(seed, 41, 0):
        told = None if context is None else context.expand(ALONE, -1)
        return model.decode(model.draw(ALONE, told), told)


def _alone(usual: Any, x: Tensor) -> Tensor:
    """-log p(x_c) of the cells of one row (columns,)."""
    return math.log(ALONE) - cells(usual, x.expand(ALONE, -1)).double().logsumexp(0)


def _guess(px: Any, w: Tensor, x: Tensor, likelihood: Likelihood) -> tuple[Tensor, Tensor, Tensor]:
    """What is expected, how surely, and -log of the tail at x, (B, columns) each, for weights w (K, B, columns)."""
    if isinstance(likelihood, Columns):
        p, numbers = _mixed(px, w, likelihood, most=64)
        (expected,), sure = _point(likelihood, p, numbers, 0.5)
        tail = torch.ones_like(expected)
        if len(likelihood.chosen):
            own = p.gather(-1, x[:, likelihood.chosen, None].long().clamp(0, p.shape[-1] - 1))
            tail[:, likelihood.chosen] = (p * (p <= own * (1 + 1e-5))).sum(-1)
        if len(likelihood.counted):
            v = x[:, likelihood.counted]
            numbers = px.base_dist.numbers(w[..., likelihood.counted])  # all: what is rare is of a few draws
            tail[:, likelihood.counted] = 2 * torch.minimum(numbers.below(v), 1 - numbers.below(v, inclusive=False))
    else:
        mean, variance = (t.unflatten(0, w.shape[:2]) for t in (px.mean, px.variance))
        expected = (w * mean).sum(0)
        deviation = (w * (variance + (mean - expected).square())).sum(0).sqrt()
        sure, tail = torch.full_like(expected, math.nan), torch.erfc((x - expected).abs() / deviation / math.sqrt(2))
    return expected, sure, -tail.clamp(TINY, 1).log()


def _priced(codes: list[Code], rows: int) -> Tensor:
    """Log p(z) - log q(z) of all draws, (K, B): q is the mean of what was said of the row with each part of it hidden,
    or where that scores none but its own draws, what drew it.
    """
    if codes[0].q is None or codes[0].p is None:
        scored = [code.densities() for code in codes]
        return torch.cat([(p - q).unflatten(0, (-1, rows)) for q, p in scored]).double()  # type: ignore[misc]
    z = torch.cat([code.z for code in codes]).unflatten(0, (-1, rows))
    mixed = torch.stack([code.q.log_prob(z).double() for code in codes]).logsumexp(0)  # type: ignore[union-attr]
    return codes[0].p.log_prob(z).double() - mixed


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
            word = ours.against(theirs, "WORSE, fill with that", sign)
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


class Cleaned(NamedTuple):
    """Rows of mixed columns whose improbable cells are replaced, in model units."""

    values: Tensor  # (n, columns)
    row: Tensor  # (changes,) which cells they are, row by row
    column: Tensor
    nats: Tensor  # (changes,) -log p(x_c | x_rest) of what was seen there
    evidence: Tensor  # (changes,) as `Blame` has it
    threshold: float  # of the evidence


def denoise(
    model: Model, data: Rows | Tensor, held: Rows, rate: float = 0.001, samples: int = 256, seed: int = 0, most: int = 4
) -> Cleaned:
    """Replaces cells that the others of their row speak against by what these make one expect.

    A cell is replaced where its evidence (`Blame`) exceeds that of all but a share `rate` of the cells of the held-out
    rows: a false-alarm rate, as long as new rows are like those. One cell of a row at a time, the worst first, for an
    odd cell makes others look odd; what is left is blamed again without it, until nothing is odd or `most` are
    replaced. In their place stands what `impute` says, all of them hidden. Empty cells stay empty.

    Raises: ValueError for a rate that is no share, or too small for so few held-out cells; TypeError as `impute`.
    """
    if not isinstance(model.likelihood, Columns):
        raise TypeError(
            f"cells are replaced in rows of mixed columns; this model's likelihood is {type(model.likelihood).__name__}"
        )
    held = held.take(torch.arange(min(len(held), 2000)))
    usual = blame(model, held, samples, seed).evidence
    usual = usual[~usual.isnan()].sort().values
    place = math.ceil((len(usual) + 1) * (1 - rate)) - 1  # of (n + 1) cells as likely anywhere
    if not 0 < rate < 1 or place >= len(usual):
        raise ValueError(
            f"rate is the share of sound cells that may be replaced, above 0 and below 1, and {len(usual):,} held-out "
            f"cells tell no share below {1 / (len(usual) + 1):.2g}; got rate={rate}"
        )
    threshold = float(usual[place])
    rows = as_rows(data)
    x = rows.x.cpu()
    found, left = [], torch.arange(len(x))
    for _ in range(most):
        told = Rows(x[left], rows.scaling, context=rows.take(left).told)
        blamed = blame(model, told, samples, seed)
        worst, column = blamed.evidence.nan_to_num(-math.inf).max(1)
        odd = (worst > threshold).nonzero().flatten()
        left, column = left[odd], column[odd]
        if not len(left):
            break
        found.append((left, column, blamed.nats[odd, column], worst[odd]))
        x[left, column] = torch.nan
    if not found:
        nothing = torch.empty(0)
        return Cleaned(x, nothing.long(), nothing.long(), nothing, nothing, threshold)
    row, column, nats, evidence = (torch.cat(parts) for parts in zip(*found, strict=True))
    changed = row.unique()
    filled = impute(model, Rows(x[changed], rows.scaling, context=rows.take(changed).told), samples, seed=seed).values
    x[row, column] = filled[torch.searchsorted(changed, row), column]
    order = (row * x.shape[1] + column).argsort()
    return Cleaned(x, row[order], column[order], nats[order], evidence[order], threshold)


class Cleaning(NamedTuple):
    """How well cells are found that were taken from other rows, beside rare categories and far numbers."""

    found: Mean  # share of the cells that were changed in secret
    rarest: Mean  # the same of the simple way
    false: Mean  # share of the sound cells that are replaced
    wrong: Mean  # the same of the simple way
    right: Mean  # share of the categories found that are what they were before
    frequent: Mean
    rows: int
    share: float

    def __str__(self) -> str:
        word = self.found.against(self.rarest, "WORSE, look for these")
        ours, theirs = (f"{mean} right" if mean.mean >= 0 else "none" for mean in (self.right, self.frequent))  # or NaN
        return (
            f"on {self.rows:,} held-out rows with {self.share:.0%} of their cells from other rows: found {self.found}, "
            f"sound cells replaced {self.false}, of the categories found {ours} (rare categories and far numbers: "
            f"found {self.rarest}{word}, sound {self.wrong}, filled with the most frequent: {theirs})"
        )


def rehearse_denoising(
    model: Model,
    train: Rows,
    held: Rows,
    rate: float = 0.001,
    share: float = 0.05,
    rows: int = 1000,
    samples: int = 256,
    seed: int = 0,
) -> Cleaning:
    """Takes a share of the known cells of at most `rows` held-out rows from others, and looks for them.

    The first half of the held-out rows tells the threshold, of either way. The simple way calls a cell odd where its
    category is rarer, or its number farther from the median, than all but a share `rate` of that column's are, and
    replaces it by mode or median. Raises: as `denoise`.
    """
    likelihood: Any = model.likelihood
    half = len(held) // 2
    known, few = held.take(torch.arange(half)), held.take(torch.arange(half, min(len(held), half + rows)))
    x, usual = few.x.cpu(), train.x.cpu()
    with draws.seeded(seed, 43, 0):
        other = x[torch.rand(x.shape).argsort(0), torch.arange(x.shape[1])]
        hit = (torch.rand(x.shape) < share) & ~x.isnan() & ~other.isnan() & (other != x)
    bad = torch.where(hit, other, x)
    found = denoise(model, Rows(bad, few.scaling, context=few.told), known, rate, samples, seed)
    ours = torch.zeros_like(hit)
    ours[found.row, found.column] = True
    chosen = torch.zeros(x.shape[1], dtype=torch.bool).index_fill(0, likelihood.chosen.cpu(), True)
    plain = torch.where(chosen, usual.nan_to_num(-1).mode(0).values, usual.nanmedian(0).values).expand_as(x)
    theirs = torch.zeros_like(hit)
    for c in range(x.shape[1]):

        def odd(v: Tensor, c: int = c) -> Tensor:
            if not chosen[c]:
                return (v - plain[0, c]).abs()
            counts = torch.bincount(usual[:, c][~usual[:, c].isnan()].long(), minlength=int(v.nan_to_num(0).max()) + 1)
            return -counts[v.nan_to_num(0).long()].float()

        sound = known.x[:, c].cpu()
        limit = odd(sound[~sound.isnan()]).sort().values
        place = min(math.ceil((len(limit) + 1) * (1 - rate)) - 1, len(limit) - 1)
        theirs[:, c] = (odd(bad[:, c]) > limit[place]) & ~bad[:, c].isnan()
    whole = ~x.isnan() & ~hit
    parts = []
    for flagged, values in ((ours, found.values), (theirs, plain)):
        right = (values == x)[hit & flagged & chosen].double()
        parts.append((Mean.of(flagged[hit].double()), Mean.of(flagged[whole].double()), Mean.of(right)))
    (a, b, c1), (d, e, f) = parts
    return Cleaning(a, d, b, e, c1, f, len(x), share)
