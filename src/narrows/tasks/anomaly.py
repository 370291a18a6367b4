"""Rows that are unlike the others: how much, by which threshold, and because of which columns."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from narrows import draws
from narrows.contract import Batch
from narrows.data import Rows
from narrows.data import rows as as_rows
from narrows.evaluate.common import batches
from narrows.evaluate.likelihood import distortion_rate, score_samples
from narrows.likelihoods import Columns
from narrows.models import Model

__all__ = ["SCORES", "Detector", "Threshold", "benjamini_hochberg", "point_adjusted", "reasons", "squash", "stretch"]

SCORES = ("combined", "neighbours", "mahalanobis", "likelihood", "reconstruction", "error")
BAGS, FEW, NEAR = 100, 64, 2  # the second nearest of 64 rows, a hundred times over
WEIGHTS = {"rows": 0.4, "squashed": 0.4, "codes": 0.2, "channels": 1.0}  # of those that there are
TRUSTED = 1e-3  # the least mean square of a channel's error, in model units
KNOWN = 4096  # rows that neighbours are drawn from, and as many for ranks or a mean and covariance
DRAWS = 16  # of the code, for scores in nats


def squash(x: Tensor) -> Tensor:
    """Sign(x) log(1 + |x|): x itself near 0, its logarithm far out."""
    return x.sign() * x.abs().log1p()


def stretch(x: Tensor) -> Tensor:
    """What undoes `squash`."""
    return x.sign() * x.abs().expm1()


class Threshold(NamedTuple):
    """From which score on a row is flagged."""

    value: float
    why: str


class Detector:
    r"""How unlike the training rows a row is, by a trained model of any recipe; the same row always scores alike.

    `by` is one of

    - "combined": distances to neighbours among rows, among rows squashed to :math:`\pm \log(1 + |x|)` (`squash`), and
      among codes, each turned into a normal score by its rank among training rows; their mean, in which codes count
      half. The standard choice.
    - "neighbours": distances among codes alone; "mahalanobis": distance from the mean of codes in units of their
      covariance.
    - "likelihood": -log p(x) in nats; "reconstruction": -log p(x|z) for z from q(z|x) in nats, the reconstruction
      probability (An & Cho 2015); "error": squared error of the reconstruction, of numbers only.

    A distance to neighbours is that to the second nearest of 64 training rows, averaged over 100 such draws: among so
    few rows anomalies that stand together are no neighbours of one another, and a row need not be compared with all.
    The detector keeps those rows, in model units.

    Rows that were held out of training calibrate it: p(s) = (1 + #{held-out scores >= s}) / (1 + m) is at most alpha
    for a share of at most alpha of rows like those (conformal p-values), whatever the model is.

    Of a series (`Rows` with a window) every step has a score, the mean over the windows that hold it, and p-values and
    thresholds are those of steps: as good as the held-out steps are like those to come. In "combined" the errors of the
    reconstruction count as much as all distances together, those of each channel in units of its own.

    Arguments: `model`; `train`, rows that it learned from, and `held`, rows that it did not; `by` as above; `seed`;
    `squashed`, whether rows are squashed as the model knows them, None for mixed columns, of which it reads asinh.
    Raises: ValueError for an unknown `by` or too few rows, TypeError where the model has no such score.
    References: Isolation using Nearest Neighbour Ensemble (Bandaragoda et al., 2018), section 3, for neighbours among
    few rows; Testing for Outliers with Conformal p-values (Bates et al., 2023), arXiv:2104.08279, equation 3.

    Example:
        >>> from narrows.recipes import vae
        >>> from narrows.likelihoods import Gaussian
        >>> x = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
        >>> detector = Detector(vae((5,), latent=2, likelihood=Gaussian)[0], x[:300], x[300:])
        >>> p = detector.p_values(detector.score(torch.tensor([[0.0] * 5, [9.0] * 5])))
        >>> bool(p[0] > 0.1), round(float(p[1]), 4)
        (True, 0.0099)
    """

    def __init__(
        self,
        model: Model,
        train: Rows | Tensor,
        held: Rows | Tensor,
        by: str = "combined",
        seed: int = 0,
        squashed: bool | None = None,
    ) -> None:
        if by not in SCORES:
            raise ValueError(f"a row is scored by {', '.join(SCORES)}; got {by!r}")
        train, held = as_rows(train), as_rows(held)
        if len(train) < 4 or not len(held):
            raise ValueError(
                f"a detector compares rows with at least 4 that the model learned from and 1 that it did not; got "
                f"{len(train)} and {len(held)}"
            )
        self.model, self.by, self.seed = model.eval(), by, seed
        self.squashed = isinstance(model.likelihood, Columns) if squashed is None else squashed
        self.state: dict[str, Tensor] = {}
        with draws.seeded(seed, 31, 0):
            self._learn(train.take(torch.randperm(len(train))[:KNOWN]))
        scores = self.score(held)
        self.state["held"] = scores[~scores.isnan()].sort().values

    def _learn(self, known: Rows) -> None:
        if known.window > 1:
            squares = self._errors(known)[0].unflatten(1, (known.window, -1))
            self.state["calm"] = squares.mean((0, 1)).clamp_min(TRUSTED)
        if self.by in ("combined", "neighbours"):
            which = torch.stack([torch.randperm(len(known))[:FEW] for _ in range(BAGS)])
            for name, part in self._parts(known).items():
                self.state[f"near.{name}"] = part[which.T]  # (few, bags, d)
        if self.by == "mahalanobis":
            codes = self._codes(known).double()
            self.state["mean"] = codes.mean(0)
            spread = torch.linalg.eigh(torch.cov(codes.T).reshape(codes.shape[1], -1))
            kept = spread.eigenvalues > 1e-9 * spread.eigenvalues.max().clamp_min(1e-300)
            self.state["whiten"] = spread.eigenvectors[:, kept] / spread.eigenvalues[kept].sqrt()
        if self.by == "combined":
            for name, distance in self._distances(known).items():
                self.state[f"known.{name}"] = _curve(distance)

    def score(self, data: Rows | Tensor) -> Tensor:
        """How unlike the training rows each row is, (n,), to single precision: higher is stranger.

        Of a series each step, (T,); NaN where it is part of no window.
        """
        rows = as_rows(data)
        return rows.steps(self._score(rows)).float().double()  # the same whatever is scored beside it

    def channels(self, data: Rows, undo: Callable[[Tensor], Any] = torch.as_tensor) -> tuple[Tensor, Tensor]:
        """How far each channel of a series is from what the model makes of it, and what that is, (T, C) each.

        The first is (x - E[x|z])^2 / 2v in nats, where v is the mean square of the same difference on training steps of
        that channel, so a half on average of such; the second in model units, or in those that `undo` brings windows
        (n, window * C) back to. Both are means over the windows that hold the step.
        """
        squares, mean = self._errors(data)
        return data.steps(squares) / (2 * self.state["calm"]), data.steps(torch.as_tensor(undo(mean)))

    @torch.no_grad()
    def _errors(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Squared difference from the reconstruction, and that, (n, d) each."""
        if isinstance(self.model.likelihood, Columns):
            raise TypeError(
                'rows of mixed columns have no squared error: score them by="reconstruction", in nats, or by="combined"'
            )
        found = []
        for batch in batches(self.model, rows):
            mean = self.model.decode(self.model.encode(batch.x, batch.context).z, batch.context).mean
            found.append([part.flatten(1).double().cpu() for part in ((mean - batch.target).square(), mean)])
        squares, mean = (torch.cat(parts) for parts in zip(*found, strict=True))
        return squares, mean

    def _score(self, rows: Rows) -> Tensor:
        if self.by == "likelihood":
            return -score_samples(self.model, rows, DRAWS, self.seed)
        if self.by == "reconstruction":
            with draws.common():
                return distortion_rate(self.model, rows, DRAWS if self.model.density else 1, self.seed)[0].double()
        if self.by == "error":
            return self._errors(rows)[0].sum(1)
        if self.by == "mahalanobis":
            return ((self._codes(rows).double() - self.state["mean"]) @ self.state["whiten"]).square().sum(1)
        found = self._distances(rows)
        if self.by == "neighbours":
            return found["codes"]
        scores = [WEIGHTS[name] * _normal_score(each, self.state[f"known.{name}"]) for name, each in found.items()]
        return torch.stack(scores).sum(0)

    def p_values(self, scores: Tensor) -> Tensor:
        """Share of held-out rows at least as strange as these `scores` (n,), counting the row itself."""
        held = self.state["held"]
        found = (1 + len(held) - torch.searchsorted(held, scores.contiguous())).double() / (1 + len(held))
        return torch.where(scores.isnan(), torch.nan, found)

    def threshold(
        self,
        false_alarms: float | None = None,
        share: float | None = None,
        scores: Tensor | None = None,
        label: Tensor | None = None,
    ) -> Threshold:
        """The score from which rows are flagged, by one of three ways.

        Arguments: `false_alarms`, the share of rows like the held-out ones that may be flagged; `share`, the expected
        share of anomalies in `scores` (n,), by default among the held-out rows; or `scores` and `label` (n,), 1 where a
        row is known to be anomalous: the best F1.
        Raises: ValueError for shares that are none, fewer held-out rows than a rate takes, labels of one kind.
        """
        if label is not None:
            if scores is None:
                raise ValueError("labels set a threshold together with the scores of their rows: give scores=, too")
            return _best_f1(scores[~scores.isnan()], label[~scores.isnan()])
        for name, value in (("false_alarms", false_alarms), ("share", share)):
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{name} is a share between 0 and 1; got {value:g}")
        if share is not None:
            of = (self.state["held"] if scores is None else scores[~scores.isnan()]).sort().values
            count = max(1, round(share * len(of)))
            return Threshold(float(of[-count]), f"the {share:.3g} of rows that are strangest")
        held, rate = self.state["held"], 0.01 if false_alarms is None else false_alarms
        count = math.floor((len(held) + 1) * rate)
        if not count:
            if false_alarms is not None:
                raise ValueError(
                    f"{len(held)} held-out rows cannot tell a false-alarm rate of {rate:g}: ask for at least "
                    f"{1 / (len(held) + 1):.2g}, or hold out more rows"
                )
            count = 1
        why = f"at most {count / (len(held) + 1):.2g} of rows like the {len(held):,} held-out ones"
        return Threshold(float(held[-count]), why)

    def _codes(self, rows: Rows) -> Tensor:
        return torch.cat([self._code(batch).cpu() for batch in batches(self.model, rows)])

    @torch.no_grad()
    def _code(self, batch: Batch) -> Tensor:
        z = self.model.encode(batch.x, batch.context).z
        return torch.cat([part.flatten(1) for part in z], 1) if isinstance(z, tuple) else z.flatten(1)

    @torch.no_grad()
    def _parts(self, rows: Rows) -> dict[str, Tensor]:
        """The rows in each space, (n, d)."""
        found: dict[str, list[Tensor]] = {}
        for batch in batches(self.model, rows):
            for name, part in self._spaces(batch).items():
                found.setdefault(name, []).append(part)
        return {name: torch.cat(parts) for name, parts in found.items()}

    def _spaces(self, batch: Batch) -> dict[str, Tensor]:
        spaces = {"codes": self._code(batch), "mark": _mark(batch.x)}
        if self.by == "combined":
            x = self.model.likelihood.shown(batch.x).flatten(1)
            spaces |= {"rows": stretch(x), "squashed": x} if self.squashed else {"rows": x, "squashed": squash(x)}
        return spaces

    @torch.no_grad()
    def _distances(self, rows: Rows) -> dict[str, Tensor]:
        """Mean distance to the second nearest of each few in each space, (n,): no row is its own neighbour."""
        found: dict[str, list[Tensor]] = {}
        for batch in batches(self.model, rows):
            spaces = self._spaces(batch)
            own = (spaces.pop("mark")[:, None, None] == self.state["near.mark"].to(batch.x.device)).any(1)  # (B, bags)
            for name, part in spaces.items():
                near = self.state[f"near.{name}"].to(part.device)
                each = torch.cdist(part, near.flatten(0, 1)).view(len(part), *near.shape[:2])  # (B, few, bags)
                least = _least(each, min(NEAR + 1, each.shape[1]))
                chosen = torch.where(own, least[-1], least[min(NEAR, each.shape[1]) - 1])
                found.setdefault(name, []).append(chosen.mean(1).double().cpu())
        scores = {name: torch.cat(parts) for name, parts in found.items()}
        if "calm" in self.state and self.by == "combined":
            squares = self._errors(rows)[0].unflatten(1, (rows.window, -1))
            scores["channels"] = (squares / self.state["calm"]).sum((1, 2))
        return scores

    @classmethod
    def of(cls, model: Model, by: str, tensors: Mapping[str, Tensor], seed: int = 0) -> "Detector":
        """A detector from the `state` of another that learned from rows as they are in the run."""
        made = cls.__new__(cls)
        made.model, made.by, made.seed, made.state = model.eval(), by, seed, dict(tensors)
        made.squashed = isinstance(model.likelihood, Columns)
        return made


def _least(x: Tensor, count: int) -> list[Tensor]:
    """The least values along dimension 1 of (B, n, ...), ascending, (B, ...) each: a tenth of the time of `topk`."""
    found = [torch.full_like(x[:, 0], math.inf) for _ in range(count)]
    for value in x.unbind(1):
        for place, known in enumerate(found):  # the smaller stays, the larger goes on to the next place
            found[place], value = torch.minimum(known, value), torch.maximum(known, value)
    return found


def _mark(x: Tensor) -> Tensor:
    """A number (B,) that rows share which are equal to some five digits."""
    coarse = (x.flatten(1).float() + 0.0).view(torch.int32).add(1 << 7).bitwise_right_shift(8).long()
    odd = torch.randint(-(2**62), 2**62, (coarse.shape[1],), generator=torch.Generator().manual_seed(0))
    return (coarse * (2 * odd + 1).to(x.device)).sum(1)


def _curve(known: Tensor) -> Tensor:
    """Values and their normal quantiles by rank, (2, nodes): values that are alike share one of their mean rank."""
    value = known.sort().values
    quantile = torch.special.ndtri((torch.arange(len(value), dtype=value.dtype) + 0.5) / len(value))
    apart = torch.cat([torch.zeros(1), (value.diff() > 1e-9 * (value[-1] - value[0])).double()]).cumsum(0).long()
    count = torch.bincount(apart).to(value.dtype)
    return torch.stack([torch.zeros_like(count).index_add(0, apart, part) / count for part in (value, quantile)])


def _normal_score(value: Tensor, curve: Tensor) -> Tensor:
    """The normal quantile of each value's rank, by a curve that is straight between its nodes and on beyond its end."""
    x, y = curve
    if len(x) == 1:  # known rows are all alike: there is no unit but that of the value
        return value - x
    at = torch.searchsorted(x, value.contiguous()).clamp(1, len(x) - 1)
    inside = y[at - 1] + (y[at] - y[at - 1]) * (value.clamp_min(x[0]) - x[at - 1]) / (x[at] - x[at - 1])
    middle = len(x) // 2  # beyond, the slope of the upper half: that of the last step is chance
    slope = (y[-1] - y[middle]) / (x[-1] - x[middle]) if middle < len(x) - 1 else (y[-1] - y[0]) / (x[-1] - x[0])
    return torch.where(value > x[-1], y[-1] + slope * (value - x[-1]), inside)


def _best_f1(scores: Tensor, label: Tensor) -> Threshold:
    """Where flagging all rows from a score on has the greatest F1."""
    truth = label.bool()
    if truth.all() or not truth.any():
        raise ValueError("labels of both kinds are needed to set a threshold: 1 for anomalies, 0 for others")
    order = scores.argsort(descending=True, stable=True)
    hits = truth[order].cumsum(0).double()
    f1 = 2 * hits / (torch.arange(1, len(order) + 1) + truth.sum())
    last = torch.cat([scores[order][1:] != scores[order][:-1], torch.tensor([True])])  # of rows that score alike
    best = int(torch.where(last, f1, -1.0).argmax())
    return Threshold(float(scores[order][best]), f"best F1 on labelled rows, {float(f1[best]):.3g}")


def benjamini_hochberg(p: Tensor, rate: float) -> Tensor:
    """Which rows to flag so that at most a share `rate` of the flagged ones is expected to be normal, (n,) bool.

    Reference: Benjamini & Hochberg 1995, "Controlling the False Discovery Rate", equation 1.

    Example:
        >>> benjamini_hochberg(torch.tensor([0.001, 0.02, 0.03, 0.9]), 0.05)
        tensor([ True,  True,  True, False])
    """
    if not 0 < rate < 1:
        raise ValueError(f"a false discovery rate lies between 0 and 1; got {rate:g}")
    ordered = p.sort().values
    below = (ordered <= rate * torch.arange(1, len(p) + 1, dtype=p.dtype) / len(p)).nonzero()
    return p <= ordered[below.max()] if len(below) else torch.zeros_like(p, dtype=torch.bool)


def point_adjusted(scores: Tensor, truth: Tensor) -> Tensor:
    """Scores (T,) with all of a true stretch at its highest, as if one step found in it were all of them found.

    What is measured so goes beside what is measured without, never in its place: long stretches are found by chance.
    References: Unsupervised Anomaly Detection via Variational Auto-Encoder for Seasonal KPIs (Xu et al., 2018), section
    4.2; Towards a Rigorous Evaluation of Time-Series Anomaly Detection (Kim et al., 2022), section 3.

    Example:
        >>> point_adjusted(torch.tensor([0.1, 0.9, 0.2, 0.3]), torch.tensor([1, 1, 0, 1]))
        tensor([0.9000, 0.9000, 0.2000, 0.3000])
    """
    inside = truth.bool()
    begins = inside & ~torch.cat([inside.new_zeros(1), inside[:-1]])
    stretch = begins.cumsum(0)  # the number of each, from 1
    highest = scores.new_full((int(begins.sum()) + 1,), -math.inf)
    highest = highest.scatter_reduce(0, stretch[inside], scores[inside], "amax")
    return torch.where(inside, highest[stretch], scores)


def reasons(evidence: Tensor, seen: Any, expected: Any, names: Sequence[str], columns: int = 3) -> list[str]:
    """A sentence for each row: the columns to blame first, what was seen and what the others make one expect.

    Arguments: `evidence` (n, columns) in nats against each cell, as `tasks.blame` or `Detector.channels` has it; what
    was `seen` and `expected`, arrays (n, columns) or pyarrow Tables in the units of the data; `names` of the columns;
    `columns` to name at most, those whose evidence speaks against them.
    """
    texts, against = [_texts(part, len(names)) for part in (seen, expected)], evidence.nan_to_num(-math.inf)
    said = []
    for row, order in enumerate(against.argsort(1, descending=True).tolist()):
        parts = [
            f"{names[c]} is {texts[0][c][row]}, expected {texts[1][c][row]} ({against[row, c]:.1f} nats)"
            for number, c in enumerate(order[:columns])
            if against[row, c] > 0 or not number
        ]
        said.append("; ".join(parts))
    return said


def _texts(values: Any, columns: int) -> list[list[str]]:
    """Cells as a person reads them, one list for each column."""
    if hasattr(values, "column_names"):
        return [[str(cell) for cell in values.column(name).to_pylist()] for name in values.column_names]
    return [[f"{cell:.4g}" for cell in values.reshape(len(values), -1)[:, c].tolist()] for c in range(columns)]
