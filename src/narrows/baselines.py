"""The cheap alternatives that every figure stands beside: PCA, columns on their own, an isolation forest.

All are fitted on training rows in model units, flattened to (n, d).
"""

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from narrows.likelihoods import Columns as Mixed
from narrows.likelihoods import log_prob
from narrows.likelihoods.counts import NegativeBinomialDistribution
from narrows.pca import Pca, fit_pca

__all__ = ["Cells", "Columns", "Pca", "fit_cells", "fit_columns", "fit_pca", "isolation_forest"]


class Columns(NamedTuple):
    """Every column on its own: a table of probabilities for levels, a negative binomial for counts, else a normal."""

    mean: Tensor  # (d,)
    log_table: Tensor | None  # (d, levels) log-probabilities
    std: Tensor  # (d,)
    counts: bool = False

    def reconstruct(self, x: Tensor) -> Tensor:
        """The column means, whatever x is, (n, d)."""
        return self.mean.expand(len(x), -1)

    def log_prob(self, x: Tensor) -> Tensor:
        """(n, d) -> (n,) nats."""
        x = x.double()
        if self.counts:  # of the same mean and variance, or a Poisson's where the variance is no larger
            excess = (self.std.square() - self.mean).clamp_min(1e-9)
            p = NegativeBinomialDistribution(self.mean.log(), (self.mean.square() / excess).clamp_max(1e6).log())
            return p.log_prob(x).sum(1)
        if self.log_table is None:
            return torch.distributions.Normal(self.mean, self.std).log_prob(x).sum(1)
        index = (x * (self.log_table.shape[1] - 1)).round().long()
        return self.log_table.T.gather(0, index).sum(1)


class Cells(NamedTuple):
    """Every column of a mixed table on its own, under the likelihood of the model beside it."""

    likelihood: Mixed
    said: Tensor  # what a decoder would say of every row, (numbers,)

    def log_prob(self, x: Tensor) -> Tensor:
        """(n, columns), NaN where a cell is missing -> (n,) nats."""
        found = [
            log_prob(self.likelihood(self.said.expand(len(part), -1)), part, ~part.isnan()) for part in x.split(4096)
        ]
        return torch.cat(found).double()


def fit_cells(x: Tensor, likelihood: Mixed) -> Cells:
    """Independent columns of rows (n, columns): 300 steps of Adam from what is usual, on at most 10,000 rows."""
    likelihood, few = copy.deepcopy(likelihood).cpu(), x[:10_000]
    said = likelihood.usual(few).requires_grad_()
    optimiser, generator = torch.optim.Adam([said], lr=0.05), torch.Generator().manual_seed(0)
    with torch.enable_grad():
        for _ in range(300):
            optimiser.zero_grad()
            some = few[torch.randint(len(few), (min(1000, len(few)),), generator=generator)]
            (-log_prob(likelihood(said.expand(len(some), -1)), some, ~some.isnan()).mean()).backward()
            optimiser.step()
    return Cells(likelihood, said.detach())


def fit_columns(x: Tensor, levels: int | None, counts: bool = False) -> Columns:
    """Independent columns of rows (n, d); with `levels`, values are k / (levels - 1) and counts start at one each."""
    if counts:  # a column of zeros may hold a one in the next row
        x = x.double()
        return Columns(x.mean(0).clamp_min(1 / len(x)), None, x.std(0, correction=0), counts)
    fitted = [_columns(part.double(), levels) for part in x.split(64, 1)]
    table = None if levels is None else torch.cat([part.log_table for part in fitted if part.log_table is not None])
    return Columns(torch.cat([part.mean for part in fitted]), table, torch.cat([part.std for part in fitted]))


def _columns(x: Tensor, levels: int | None) -> Columns:
    mean, std = x.mean(0), x.std(0, correction=0).clamp_min(1e-3)
    if levels is None:
        return Columns(mean, None, std)
    index = (x * (levels - 1)).round().long()
    counts = torch.ones(x.shape[1], levels, dtype=torch.float64)
    counts.scatter_add_(1, index.T, torch.ones_like(x.T))
    return Columns(mean, (counts / counts.sum(1, keepdim=True)).log(), std)


def isolation_forest(train: Tensor, rows: Tensor, seed: int = 0) -> Tensor:
    """How odd rows (n, d) are to scikit-learn's isolation forest of 100 trees on `train`, (n,): higher is stranger."""
    from sklearn.ensemble import IsolationForest

    forest = IsolationForest(random_state=seed).fit(train.double().cpu().numpy())
    return -torch.from_numpy(forest.score_samples(rows.double().cpu().numpy()))
