"""The cheap alternatives that every figure stands beside: PCA, and columns that know nothing of each other.

Both are fitted on training rows in model units, flattened to (n, d).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Columns", "Pca", "fit_columns", "fit_pca"]


class Pca(NamedTuple):
    """The `k` leading principal components, and the Gaussian model that has them for its mean's subspace."""

    mean: Tensor  # (d,)
    axes: Tensor  # (d, k) orthonormal, by falling variance
    variances: Tensor  # (k,)
    noise: float  # mean of the discarded eigenvalues

    def reconstruct(self, x: Tensor) -> Tensor:
        """(n, d) -> its projection, (n, d)."""
        centred = x.double() - self.mean
        return centred @ self.axes @ self.axes.T + self.mean

    def log_prob(self, x: Tensor) -> Tensor:
        """Probabilistic PCA at its maximum likelihood (Tipping & Bishop 1999, section 3.2), (n, d) -> (n,) nats."""
        centred = x.double() - self.mean
        inside = centred @ self.axes
        outside = centred.square().sum(1) - inside.square().sum(1)
        d, k = self.axes.shape
        log_det = self.variances.log().sum() + (d - k) * math.log(self.noise)
        return -0.5 * (
            d * math.log(2 * math.pi) + log_det + inside.square() @ (1 / self.variances) + outside / self.noise
        )


def fit_pca(x: Tensor, k: int) -> Pca:
    """PCA of rows (n, d) by the eigenvectors of the smaller Gram matrix; k is cut to what the rows can span."""
    n, d = x.shape
    mean = torch.cat([part.double().mean(0) for part in x.split(64, 1)])
    k = max(1, min(k, n - 1, d - 1))
    if d <= n:  # a piece at a time: the rows are not copied to float64 as a whole
        gram = torch.zeros(d, d, dtype=torch.float64)
        for part in x.split(4096):
            centred = part - mean
            gram.addmm_(centred.T, centred, alpha=1 / n)
    else:
        centred = x - mean
        gram = centred @ centred.T / n
    values, vectors = _leading(gram, k)
    axes = vectors if d <= n else torch.linalg.qr(centred.T @ vectors).Q
    variances = values.clamp_min(1e-12)
    noise = max(float(gram.trace() - variances.sum()) / (d - k), 1e-12)
    return Pca(mean, axes, variances, noise)


def _leading(gram: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest eigenvalues, falling, and their vectors; by Lanczos iteration where few of many are asked for."""
    if len(gram) < 1000 or k > len(gram) // 10:
        values, vectors = torch.linalg.eigh(gram)
        return values.flip(0)[:k], vectors.flip(1)[:, :k]
    from scipy.sparse.linalg import eigsh

    start = torch.ones(len(gram), dtype=gram.dtype)  # else it would be drawn, and every call would differ
    found = eigsh(gram.numpy(), k, which="LA", v0=start.numpy(), tol=1e-10)
    values, vectors = (torch.from_numpy(part.copy()) for part in found)
    order = values.argsort(descending=True)
    return values[order], vectors[:, order]


class Columns(NamedTuple):
    """Every column on its own: a table of probabilities for whole values, a normal for others."""

    mean: Tensor  # (d,)
    log_table: Tensor | None  # (d, levels) log-probabilities
    std: Tensor  # (d,)

    def reconstruct(self, x: Tensor) -> Tensor:
        """The column means, whatever x is, (n, d)."""
        return self.mean.expand(len(x), -1)

    def log_prob(self, x: Tensor) -> Tensor:
        """(n, d) -> (n,) nats."""
        x = x.double()
        if self.log_table is None:
            return torch.distributions.Normal(self.mean, self.std).log_prob(x).sum(1)
        index = (x * (self.log_table.shape[1] - 1)).round().long()
        return self.log_table.T.gather(0, index).sum(1)


def fit_columns(x: Tensor, levels: int | None) -> Columns:
    """Independent columns of rows (n, d); with `levels`, values are k / (levels - 1) and counts start at one each."""
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
