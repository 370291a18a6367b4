"""Synthetic rows of a table beside real ones: how alike, how useful, and whether they give rows away."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from narrows.data import Rows, TableCodec
from narrows.evaluate.common import Mean
from narrows.spec import misspelt

__all__ = ["Augmented", "Beside", "Synthetic", "auc", "augmentation", "synthetic"]

BINS = 10  # of a number, where columns are compared in pairs
FOLDS = 5


class Beside(NamedTuple):
    """A figure of synthetic rows, of rows whose columns are drawn independently, and of real rows in their place."""

    made: Mean
    columns: Mean
    real: Mean | None = None


class Synthetic(NamedTuple):
    """What `synthetic` found; `str` of it is a page for people."""

    rows: int  # of each kind that are compared
    by_column: dict[str, tuple[float, float]]  # distance of the shares from those of held-out rows: made, independent
    marginals: Beside  # the mean of it over columns
    pairs: Beside  # |Cramer's V - that of held-out rows|, a mean over pairs of columns
    told_apart: Beside  # AUC of a classifier that tells them from held-out rows; 0.5: it cannot
    target: str | None
    score: str  # of the utility: AUC, accuracy or R2
    utility: Beside | None  # on held-out rows, of a model of the target that was trained on each kind
    closest: Beside  # distance to the closest training row; real: that of held-out rows
    copies: Beside  # share of exact copies of training rows; real: that of held-out rows
    membership: Beside  # AUC of training rows against held-out rows by how close the closest synthetic row lies

    def __str__(self) -> str:
        lines = [f"{self.rows:,} synthetic rows, beside as many held-out rows and rows of independent columns"]
        worst = sorted(self.by_column, key=lambda name: -self.by_column[name][0])[:3]
        shown = ", ".join(f"{name} {self.by_column[name][0]:.2g}" for name in worst)
        lines.append("fidelity")
        lines.append(f"  each column, distance of its shares: {_said(self.marginals, -1)}")
        lines.append(f"    (total variation of categories, Kolmogorov-Smirnov of numbers; the farthest: {shown})")
        lines.append(f"  pairs of columns, difference of Cramer's V: {_said(self.pairs, -1)}")
        lines.append(f"  told from held-out rows by a classifier, AUC (0.5: not at all): {_said(self.told_apart, -1)}")
        lines.append("utility")
        if self.utility is None:
            lines.append("  not measured: name the column to be predicted by target= (--target COLUMN)")
        else:
            what = f"  {self.target} of held-out rows, {self.score} after training on them"
            lines.append(f"{what}: {_said(self.utility, 1, 'training on as many real rows')}")
        lines.append("privacy")
        lines.append(f"  exact copies of training rows: {_said(self.copies, 0, 'held-out rows')}")
        lines.append(f"  distance to the closest training row: {_said(self.closest, 0, 'held-out rows')}")
        if self.closest.real and self.closest.made.mean < self.closest.real.mean - 2 * _joint(
            self.closest.made, self.closest.real
        ):
            lines.append("    CLOSER to training rows than held-out rows are: some may be given away")
        lines.append(
            f"  training rows told from held-out rows by their closest synthetic row, AUC: {self.membership.made}"
        )
        if self.membership.made.mean > 0.5 + 2 * self.membership.made.standard_error:
            lines.append("    above 0.5: whether a row was trained on can be guessed")
        return "\n".join(lines)


def _joint(a: Mean, b: Mean) -> float:
    errors = [one.standard_error for one in (a, b) if math.isfinite(one.standard_error)]
    return math.hypot(*errors)


def _said(found: Beside, sign: int, real: str = "training rows") -> str:
    """A figure beside the others; `sign` is 1 where more is better, -1 where less, 0 where neither."""
    word = found.made.against(found.columns, "BETTER, take them for this", sign) if sign else ""
    parts = [f"independent columns {found.columns}{word}"]
    parts += [f"{real} {found.real}"] if found.real else []
    return f"{found.made} ({'; '.join(parts)})"


def synthetic(
    made: Tensor,
    train: Rows | Tensor,
    held: Rows | Tensor,
    codec: TableCodec,
    target: str | None = None,
    rows: int = 2000,
    seed: int = 0,
) -> Synthetic:
    r"""Fidelity, utility and privacy of synthetic rows, beside rows that draw each column from the training rows alone.

    Numbers are compared as the codec gives them back, on its grid and within its range. Synthetic rows get the empty
    cells of held-out rows drawn at random, since a model of what is in cells makes none. Fidelity: the distance of each
    column's shares from those of held-out rows, total variation or Kolmogorov-Smirnov; Cramer's V of pairs of columns,
    numbers in ten bins, corrected for bias (Bergsma 2013); the AUC of gradient-boosted trees, cross-validated, that
    tell them from held-out rows (Lopez-Paz & Oquab 2017). Utility: gradient-boosted trees that predict `target`,
    trained on them and on as many training rows, on all held-out rows; AUC for two classes, accuracy for more, R2 for
    numbers. Privacy: distances are sums over columns of 0 or 1 for categories and of the difference of ranks among the
    training rows, 0 to 1, for numbers; the attack takes a row for a training row where the closest synthetic row is
    near (Chen et al. 2020, arXiv:1909.03935). Splits by row keep equal rows in one part, so that held-out rows hold no
    copies of training rows where the table was split so: then independent columns say how often equality is chance.

    Arguments: `made`, `train`, `held` (n, columns) in model units, NaN where missing; for tables `codec.encode(table)`.
    At most `rows` of each are compared; the classifiers of the utility see all.
    Errors: of AUCs as DeLong et al. 1988; of means over columns and pairs, theirs as a sample.
    Raises: ValueError for fewer than 20 rows of a kind, or a target that is no column.
    """
    names = [column.name for column in codec.used]
    if target is not None and target not in names:
        raise ValueError(misspelt("column", target, names))
    train, held = (part.x.cpu() if isinstance(part, Rows) else part for part in (train, held))
    if min(len(made), len(train), len(held)) < 20:
        raise ValueError(
            "synthetic rows are judged by at least 20 of them beside 20 training and 20 held-out rows; got "
            f"{len(made)}, {len(train)} and {len(held)}"
        )
    random = np.random.default_rng(seed)
    drawn = [known[torch.from_numpy(random.integers(len(known), size=len(made)))] for known in map(_known, train.T)]
    cheap = torch.stack(drawn, 1)
    parts = (_holes(made, held, random), _holes(cheap, held, random), train, held)
    made, cheap, train, held = (_kept(part, codec) for part in parts)
    chosen = [column.kind == "category" for column in codec.used]
    m = min(rows, len(made), len(train), len(held))
    few = [part[torch.from_numpy(random.permutation(len(part))[:m])] for part in (made, cheap, train, held)]
    off = [[_off(a, b, kind) for a, b, kind in zip(part.T, few[3].T, chosen, strict=True)] for part in few[:3]]
    pairs = _pairs(few, chosen)
    utility, score = None, ""
    if target is not None:
        at, n = names.index(target), min(len(made), len(train))
        order = torch.from_numpy(random.permutation(len(train))[:n])
        found = [_useful(part, held, at, chosen, seed) for part in (made, cheap, train[order])]
        utility, score = Beside(*(one[0] for one in found)), found[0][1]
    ranks = _Ranks(train, chosen)
    close = [ranks.closest(part, train) for part in (few[0], few[1], few[3])]
    attack = [
        auc(-ranks.closest(few[2], part), -ranks.closest(few[3], part)) for part in (made[: 10 * m], cheap[: 10 * m])
    ]
    return Synthetic(
        m,
        {name: (a, b) for name, a, b in zip(names, off[0], off[1], strict=True)},
        Beside(*(Mean.of(torch.tensor(one)) for one in off)),
        pairs,
        Beside(*(_told_apart(part, few[3], chosen, seed) for part in few[:2])),
        target,
        score,
        utility,
        Beside(*(Mean.of(one) for one in close)),
        Beside(*(Mean.of((one < 1e-6).double()) for one in close)),
        Beside(*attack),
    )


class Augmented(NamedTuple):
    """How well a target is predicted from few real rows, and from these and synthetic rows."""

    real: Mean
    both: Mean
    made: Mean  # from the synthetic rows alone
    score: str
    rows: int
    more: int

    def __str__(self) -> str:
        gain, edge = self.both.mean - self.real.mean, 2 * _joint(self.both, self.real)
        word = "better" if gain > edge else "WORSE, leave them away" if gain < -edge else "no clear difference"
        return (
            f"{self.score} of {self.rows:,} real rows {self.real}, with {self.more:,} synthetic rows {self.both} "
            f"({word}), of these alone {self.made}"
        )


def augmentation(
    real: Rows | Tensor, made: Tensor, held: Rows | Tensor, codec: TableCodec, target: str, seed: int = 0
) -> Augmented:
    """Gradient-boosted trees that predict `target` of held-out rows, trained on real rows and on these and made ones.

    The made rows should come from a model that was trained on no more than these real rows. Scores, shapes and errors
    as in `synthetic`. Raises: ValueError for a target that is no column.
    """
    names = [column.name for column in codec.used]
    if target not in names:
        raise ValueError(misspelt("column", target, names))
    real, held = (_kept(part.x.cpu() if isinstance(part, Rows) else part, codec) for part in (real, held))
    made, chosen = _kept(made, codec), [column.kind == "category" for column in codec.used]
    parts = (real, torch.cat([real, made]), made)
    found = [_useful(part, held, names.index(target), chosen, seed) for part in parts]
    return Augmented(found[0][0], found[1][0], found[2][0], found[0][1], len(real), len(made))


def auc(higher: Tensor, lower: Tensor) -> Mean:
    """Chance that one of `higher` (m,) scores above one of `lower` (n,), ties by half, with DeLong's error.

    The error is inf where one of them is alone.

    Reference: Comparing the Areas under Two or More Correlated ROC Curves (DeLong et al., 1988), equations 3 to 5.

    Example:
        >>> auc(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0])).mean
        0.875
    """
    a, b = higher.double(), lower.double()

    def above(x: Tensor, others: Tensor) -> Tensor:
        others = others.sort().values
        under, upto = (torch.searchsorted(others, x, right=right) for right in (False, True))
        return (under + upto).double() / 2 / len(others)

    first, second = above(a, b), 1 - above(b, a)
    error = (
        math.sqrt(float(first.var()) / len(a) + float(second.var()) / len(b)) if min(len(a), len(b)) > 1 else math.inf
    )
    return Mean(float(first.mean()), error)


def _kept(x: Tensor, codec: TableCodec) -> Tensor:
    """Rows as they come back from a table: numbers on their grid and within their range."""
    return codec.encode(codec.decode(x))


def _known(cells: Tensor) -> Tensor:
    known = cells[~cells.isnan()]
    return known if len(known) else cells


def _holes(made: Tensor, held: Tensor, random: np.random.Generator) -> Tensor:
    holes = held.isnan()[torch.from_numpy(random.integers(len(held), size=len(made)))]
    return made.masked_fill(holes, torch.nan)


def _off(a: Tensor, b: Tensor, category: bool) -> float:
    """Total variation or Kolmogorov-Smirnov distance of known cells; 1 where one side has none."""
    a, b = a[~a.isnan()].double(), b[~b.isnan()].double()
    if not len(a) or not len(b):
        return float(len(a) != len(b))
    places = torch.cat([a, b]).unique()
    if category:
        shares = [torch.bincount(torch.searchsorted(places, x), minlength=len(places)) / len(x) for x in (a, b)]
        return float((shares[0] - shares[1]).abs().sum()) / 2
    steps = [torch.searchsorted(x.sort().values, places, right=True) / len(x) for x in (a, b)]
    return float((steps[0] - steps[1]).abs().max())


def _pairs(parts: list[Tensor], chosen: list[bool]) -> Beside:
    """Made, independent and training rows against held-out rows, the last of `parts`."""
    levels = []
    for c, category in enumerate(chosen):
        known = torch.cat([part[:, c] for part in parts[2:]])
        known = known[~known.isnan()].double()
        cut = (
            torch.quantile(known, torch.arange(1, BINS).double() / BINS).unique()
            if len(known) and not category
            else known[:0]
        )
        levels.append(
            [
                torch.where(
                    part[:, c].isnan(),
                    -1,
                    part[:, c].nan_to_num().long() if category else torch.bucketize(part[:, c].double(), cut),
                )
                for part in parts
            ]
        )
    gaps: list[list[float]] = [[], [], []]
    for a in range(len(chosen)):
        for b in range(a):
            found = [_cramer(x, y) for x, y in zip(levels[a], levels[b], strict=True)]
            for place, gap in enumerate(gaps):
                gap.append(abs(found[place] - found[3]))
    return Beside(*(Mean.of(torch.tensor(gap)) if gap else Mean(math.nan, math.nan) for gap in gaps))


def _cramer(a: Tensor, b: Tensor) -> float:
    """Cramer's V corrected for bias (Bergsma 2013, equation 4), over rows in which both are known."""
    both = (a >= 0) & (b >= 0)
    n = int(both.sum())
    if n < 2:
        return 0.0
    (_, a), (_, b) = (x[both].unique(return_inverse=True) for x in (a, b))
    r, k = int(a.max()) + 1, int(b.max()) + 1
    if min(r, k) < 2:
        return 0.0
    counts = torch.bincount(a * k + b, minlength=r * k).view(r, k).double()
    expected = counts.sum(1, keepdim=True) * counts.sum(0) / n
    phi = float(((counts - expected).square() / expected).sum()) / n
    phi = max(0.0, phi - (r - 1) * (k - 1) / (n - 1))
    r_, k_ = r - (r - 1) ** 2 / (n - 1), k - (k - 1) ** 2 / (n - 1)
    return math.sqrt(phi / max(min(r_, k_) - 1, 1e-9))


def _trees(kind: str, chosen: list[bool], x: NDArray[Any], seed: int) -> Any:
    """Gradient-boosted trees; categories of up to 255 classes are split as such."""
    from sklearn import ensemble

    few = [category and not np.nanmax(x[:, c], initial=0) > 254 for c, category in enumerate(chosen)]
    make = getattr(ensemble, f"HistGradientBoosting{kind}")
    return make(categorical_features=few, early_stopping=False, random_state=seed)


def _told_apart(made: Tensor, held: Tensor, chosen: list[bool], seed: int) -> Mean:
    from sklearn.model_selection import StratifiedKFold

    x, y = torch.cat([made, held]).numpy(), np.repeat([1, 0], [len(made), len(held)])
    said = np.empty(len(y))
    for fitted, judged in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(x, y):
        trees = _trees("Classifier", chosen, x, seed).fit(x[fitted], y[fitted])
        said[judged] = trees.predict_proba(x[judged])[:, 1]
    found = torch.from_numpy(said)
    return auc(found[: len(made)], found[len(made) :])


def _useful(rows: Tensor, held: Tensor, at: int, chosen: list[bool], seed: int) -> tuple[Mean, str]:
    """The score on held-out rows of trees that predict the column `at` from the others, and what score it is."""
    others = [c for c in range(rows.shape[1]) if c != at]
    rows, held = rows[~rows[:, at].isnan()], held[~held[:, at].isnan()]
    y, truth = rows[:, at].numpy(), held[:, at].numpy()
    x, asked = rows[:, others].numpy(), held[:, others].numpy()
    kinds, both = [chosen[c] for c in others], np.concatenate([rows[:, others].numpy(), held[:, others].numpy()])
    if not chosen[at]:
        trees = _trees("Regressor", kinds, both, seed).fit(x, y)
        left = (truth - trees.predict(asked)) ** 2
        return Mean.of(torch.from_numpy(1 - left / truth.var())), "R2"
    y, truth = y.astype(int), truth.astype(int)
    binary = len(np.unique(truth)) == 2
    score = "AUC" if binary else "accuracy"
    if len(np.unique(y)) < 2:  # nothing to learn from
        return (Mean(0.5, 0.0) if binary else Mean.of(torch.from_numpy((truth == y[0]).astype(float)))), score
    trees = _trees("Classifier", kinds, both, seed).fit(x, y)
    if not binary:
        return Mean.of(torch.from_numpy((trees.predict(asked) == truth).astype(float))), score
    high = truth.max()
    said = trees.predict_proba(asked)[:, list(trees.classes_).index(high)] if high in trees.classes_ else 0.0 * truth
    said = torch.from_numpy(said)
    return auc(said[truth == high], said[truth != high]), score


class _Ranks:
    """Rows with numbers as their rank among training rows, and how far apart two of them are."""

    def __init__(self, train: Tensor, chosen: list[bool]) -> None:
        self.chosen = chosen
        self.known = [column[~column.isnan()].sort().values for column in train.T]

    def of(self, x: Tensor) -> list[Tensor]:
        """Columns of rows, a missing cell -2: as far from any other as can be."""
        out = []
        for column, known, category in zip(x.T, self.known, self.chosen, strict=True):
            if not category and len(known):
                upto = [torch.searchsorted(known, column.contiguous(), right=right) for right in (False, True)]
                column = torch.where(column.isnan(), torch.nan, (upto[0] + upto[1]) / (2 * len(known)))
            out.append(column.nan_to_num(-2.0))
        return out

    def closest(self, x: Tensor, among: Tensor) -> Tensor:
        """Distance of each row (n,) to the closest of others."""
        rows, others = self.of(x), self.of(among)
        found = []
        for part in torch.arange(len(x)).split(max(1, 4_000_000 // len(among))):
            total = torch.zeros(len(part), len(among))
            for a, b, category in zip(rows, others, self.chosen, strict=True):
                apart = a[part, None] - b
                total += (apart != 0).float() if category else apart.abs_().clamp_max_(1.0)
            found.append(total.min(1).values)
        return torch.cat(found)
