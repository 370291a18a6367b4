"""Principal components: the optimum of the linear autoencoder in closed form, and the baseline beside every figure.

One implementation in three ways, each of which reads rows (b, d) a piece at a time and holds none of them:

    covariance   one pass, the sum of outer products; half the arithmetic of a matrix product
    svd          one pass, the triangle of a QR decomposition: no squares, so small variances keep all their digits
    randomised   a few passes, the covariance only ever times a few directions: for rows of many values
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from narrows.likelihoods import Gaussian
from narrows.memory import keep_freed
from narrows.models import Model
from narrows.networks import Mlp
from narrows.spec import misspelt

__all__ = ["SOLVERS", "Components", "Pca", "fit_pca", "principal"]

SOLVERS = ("covariance", "svd", "randomised")
WIDEST = 20_000  # values a row for which a d x d matrix is held: 3 GiB

Pieces = Callable[[], Iterable[Tensor]]  # every call reads all rows again, (b, d) at a time


class Pca(NamedTuple):
    """The `k` leading principal components, and the Gaussian model that has them for its mean's subspace."""

    mean: Tensor  # (d,)
    axes: Tensor  # (d, k) orthonormal, by falling variance; the largest entry of each is positive
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
    """PCA of rows (n, d) in float64, a piece at a time; k is cut to what the rows can span and a Gaussian can use."""
    n, d = x.shape
    return principal(lambda: x.split(_size(d)), (n, d), max(1, min(k, n - 1, d - 1)), dtype=torch.float64)


def principal(
    pieces: Pieces, shape: tuple[int, int], k: int, solver: str = "covariance", dtype: torch.dtype | None = None
) -> Pca:
    """The k leading components of `shape` = (n, d) rows, in float64 on the CPU.

    Sums over pieces are in float64; products within a piece are in `dtype`, None for that of the rows (always float64
    for "svd"). "covariance" holds a d x d matrix, or the rows where they are fewer than d; "svd" one of d x d;
    "randomised" five of d x (k + 10), whose directions are drawn from torch's generator.

    Reference: Finding Structure with Randomness (Halko et al. 2011, doi:10.1137/090771806), with all blocks of the
        iteration kept (Halko, Martinsson, Shkolnisky & Tygert 2011, doi:10.1137/100804139).

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.1], [0.0, -0.1]])
        >>> principal(lambda: x.split(2), (4, 2), 1).variances
        tensor([0.5000], dtype=torch.float64)
    """
    keep_freed()
    (n, d), rows = shape, _Centred(pieces, torch.float64 if solver == "svd" else dtype)
    if solver == "randomised":
        values, axes, total = _randomised(rows, n, d, k)
    elif solver == "svd":
        triangle = torch.empty(0, d, dtype=torch.float64)
        for e in rows:
            triangle = torch.linalg.qr(torch.cat([triangle.to(e.device), e]), mode="r").R
        _, s, vectors = torch.linalg.svd(triangle.cpu(), full_matrices=False)
        values, axes, total = s[:k].square() / n, vectors[:k].T, float(s.square().sum()) / n
    elif d <= n:
        gram = torch.zeros(d, d, dtype=torch.float64)
        mean = torch.zeros(d, dtype=torch.float64)
        for part in pieces():
            e = part if dtype is None else part.to(dtype)
            own = e.mean(0)
            squares = _gram(e)
            # a mean that is large beside the spread would cost digits in the difference of squares: there it goes first
            if bool((own.square() * len(e) > 0.9 * squares.diagonal()).any()):
                gram.addmm_(own.double()[:, None].cpu(), own.double()[None].cpu(), alpha=len(e))
                squares = _gram(e - own)
            gram += squares.cpu()
            mean += own.double().cpu() * (len(e) / n)
        rows.mean, gram = mean, gram.div_(n).addr_(mean, mean, alpha=-1)
        values, axes = _leading(gram, k)
        total = float(gram.trace())
    else:
        x = torch.cat([part.cpu() for part in pieces()]).double()
        rows.mean = x.mean(0)
        x -= rows.mean
        gram = x @ x.T / n
        values, axes = _leading(gram, k)
        axes, total = torch.linalg.qr(x.T @ axes).Q, float(gram.trace())
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    variances = values.clamp_min(1e-12)
    return Pca(rows.mean.cpu(), axes, variances, max((total - float(variances.sum())) / max(d - k, 1), 1e-12))


class _Centred:
    """Reads rows about their mean, in one pass: pieces E (b + 1, d) whose sum of E^T E is that of all centred rows.

    Every piece is centred by its own mean, and its last row tells how far that lies from the mean so far (Chan, Golub &
    LeVeque 1983): nothing large is ever squared and subtracted. `mean` (d,) is known after a pass.
    """

    def __init__(self, pieces: Pieces, dtype: torch.dtype | None) -> None:
        self.pieces, self.dtype = pieces, dtype
        self.mean = torch.zeros(())

    def __iter__(self) -> Iterator[Tensor]:
        n, self.mean = 0, torch.zeros(())
        for part in self.pieces():
            b = len(part)
            e = torch.empty(b + 1, part.shape[1], dtype=self.dtype or part.dtype, device=part.device)
            e[:b] = part
            own = e[:b].mean(0)
            e[:b] -= own
            far = own.double() - self.mean
            e[b] = math.sqrt(n * b / (n + b)) * far
            n += b
            self.mean = self.mean + far * (b / n)
            yield e


def _size(d: int) -> int:
    """Rows a piece: 24 MiB in float64, which is kept when freed; at least 256, so that products stay products."""
    return max(256, (3 << 20) // d)


def _gram(e: Tensor) -> Tensor:
    """E^T E, (d, d), a strip of columns at a time from the diagonal on: the other half is its mirror image.

    Numpy would leave out exactly half, but its threads and torch's take the cores from each other.
    """
    d = e.shape[1]
    gram = e.new_empty(d, d)
    strip = max(128, -(-d // 6))
    for at in range(0, d, strip):
        gram[at : at + strip, at:] = e[:, at : at + strip].T @ e[:, at:]
        gram[at + strip :, at : at + strip] = gram[at : at + strip, at + strip :].T
    return gram


def _leading(gram: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest eigenvalues, falling, and their vectors; by Lanczos iteration where few of many are asked for."""
    d = len(gram)
    if d < 1000 or k > d // 10:
        from scipy.linalg import eigh

        found = eigh(gram.numpy(), subset_by_index=(d - k, d - 1))
    else:
        from scipy.sparse.linalg import eigsh

        start = torch.ones(d, dtype=gram.dtype)  # else it would be drawn, and every call would differ
        found = eigsh(gram.numpy(), k, which="LA", v0=start.numpy(), tol=1e-10)
    values, vectors = (torch.from_numpy(part.copy()) for part in found)
    order = values.argsort(descending=True)
    return values[order], vectors[:, order]


def _randomised(rows: _Centred, n: int, d: int, k: int, passes: int = 5) -> tuple[Tensor, Tensor, float]:
    """Eigenvalues, axes and the total variance, from the covariance C in the span of Q, CQ, C^2 Q ... for a random Q.

    Each pass multiplies one block of k + 10 directions by C; the next block is what that adds to those before. Once the
    mean is known, it is taken out of the products instead of the rows, which are much wider.
    """
    block = torch.linalg.qr(torch.randn(d, min(k + 10, d), dtype=torch.float64)).Q
    basis, images, total = block[:, :0], block[:, :0], 0.0
    while block.shape[1] and passes:
        image = torch.zeros_like(block)
        first, mean = not basis.shape[1], rows.mean.cpu()
        for e in rows if first else rows.pieces():
            e = e.to(rows.dtype or e.dtype)
            y = e @ block.to(e)
            if first:
                total += float(torch.linalg.vector_norm(e, dtype=torch.float64)) ** 2
            else:
                y -= (mean @ block).to(e)
                image -= mean[:, None] * y.sum(0).to(image)  # which is 0 but for rounding, and the mean may be large
            image += (e.T @ y).to(image)
        basis, images = torch.cat([basis, block], 1), torch.cat([images, image / n], 1)
        block = image[:, : d - basis.shape[1]]  # no more than there are
        for _ in range(2):  # once more: what is left of a block may be rounding, which need not stand at right angles
            block = torch.linalg.qr(block - basis @ (basis.T @ block)).Q
        passes -= 1
    values, vectors = torch.linalg.eigh(basis.T @ images)
    return values.flip(0)[:k], basis @ vectors.flip(1)[:, :k], total / n


@dataclass(frozen=True)
class Components:
    r"""The `start` of a linear autoencoder: writes mean and principal axes into its weights, and nothing is left to do.

    .. math:: z = U_k^\top (x - m), \quad \hat x = U_k z + m

    Units beyond what the rows can span stay at 0.

    Raises: ValueError for another solver, parts that are not affine and Gaussian, or rows too wide for the solver.
    Reference: Neural Networks and Principal Component Analysis (Baldi & Hornik 1989).
    """

    solver: str = "covariance"

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise ValueError(misspelt("solver", self.solver, (*SOLVERS, "gradient")))

    @torch.no_grad()
    def __call__(self, model: Model, rows: Any, train: Any = None) -> bool:
        """Solves for `rows` (`narrows.data.Rows`); True, since nothing is left to train."""
        n, d = len(rows), math.prod(model.shape)
        encoder, decoder = (_affine(part) for part in (model.encoder, model.decoder))
        if not isinstance(model.likelihood, Gaussian) or encoder.in_features != d:
            raise ValueError(
                "principal components are the optimum under a Gaussian and without context; this model has "
                f"{type(model.likelihood).__name__} and {encoder.in_features - d} features of context. Leave both "
                "away, or take solver='gradient'"
            )
        if self.solver != "randomised" and min(n, d) > WIDEST:
            raise ValueError(
                f"solver={self.solver!r} holds a matrix of {min(n, d):,} x {min(n, d):,} numbers for these {n:,} rows "
                f"of {d:,} values; take solver='randomised'"
            )
        size = max(_size(d), 2 * d) if self.solver == "svd" else _size(d)
        # no float64 on Apple's devices
        place = "cpu" if rows.device.type == "mps" else rows.device
        pca = principal(
            lambda: (batch.x.flatten(1).to(place) for batch in rows.batches(size)),
            (n, d),
            k := max(1, min(model.latent, n - 1, d)),
            self.solver,
        )
        axes, mean = pca.axes.to(encoder.weight), pca.mean.to(encoder.weight)
        for p in (encoder.weight, encoder.bias, decoder.weight):
            p.zero_()
        encoder.weight[:k], decoder.weight[:, :k] = axes.T, axes
        encoder.bias[:k] = (-pca.axes.T @ pca.mean).to(mean)
        decoder.bias.copy_(mean)
        return True


def _affine(part: nn.Module) -> nn.Linear:
    if isinstance(part, Mlp) and len(part.layers) == 1:
        return part.layers[0]  # type: ignore[return-value]
    raise ValueError(
        "principal components are the optimum of an affine encoder and decoder; this model has a "
        f"{type(part).__name__} with more between. Leave network away, or take solver='gradient'"
    )
