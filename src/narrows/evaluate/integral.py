"""log p(x) by a sum over cells: exact where the code has one or two units."""

import copy
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from narrows import draws
from narrows.contract import Batch, repeated
from narrows.data import Rows
from narrows.evaluate.common import Mean, batches
from narrows.evaluate.likelihood import BUDGET, refuse_unpriced, refuse_unweighed
from narrows.likelihoods import log_prob
from narrows.models import Model

__all__ = ["Integral", "quadrature"]

NODES = 6  # Gauss-Legendre nodes along each side of a cell
FIRST = {1: 32, 2: 8}  # cells along each axis to begin with


class Integral(NamedTuple):
    """What `quadrature` found, in nats."""

    values: Tensor  # (n,) log p(x) of each row
    mean: float
    standard_error: float  # of the mean, rows as a sample
    error: Tensor  # (n,) bound on the error of each value, by halving cells
    points: Tensor  # (n,) codes at which the decoder was asked

    def __str__(self) -> str:
        return (
            f"log p(x) = {self.mean:.4g} ± {self.standard_error:.2g} nats (quadrature, error at most "
            f"{float(self.error.max()):.2g} a row)"
        )


class _Cells(NamedTuple):
    """Cubes in the unit coordinates of their rows."""

    row: Tensor  # (N,) of the batch
    low: Tensor  # (N, D) corner
    side: Tensor  # (N,)
    value: Tensor  # (N,) log integral

    def pick(self, which: Tensor) -> "_Cells":
        return _Cells(*(t[which] for t in self))

    def halved(self) -> "_Cells":
        """Each cell's 2^D parts, side by side."""
        d = self.low.shape[1]
        corners = torch.cartesian_prod(*[torch.arange(2.0, dtype=self.low.dtype, device=self.low.device)] * d)
        half = self.side / 2
        low = self.low[:, None] + half[:, None, None] * corners.view(1, -1, d)
        return _Cells(self.row.repeat_interleave(2**d), low.flatten(0, 1), half.repeat_interleave(2**d), self.value[:0])


@torch.no_grad()
def quadrature(model: Model, data: Rows | Tensor, tolerance: float = 1e-6, most: int = 500, seed: int = 0) -> Integral:
    r"""The exact log p(x) by adaptive cubature over the code, for codes of one or two units.

    .. math:: p(x) = \int p(x \mid z)\, p(z)\, dz, \quad z_i = m_i + s_i \frac{u_i}{1 - u_i^2}, \ u \in (-1, 1)^D

    The substitution, with m and s the prior's mean and 1.5 times its width, takes in all of space. Cells of 6^D
    Gauss-Legendre nodes are halved where that still changes the integral, and until they are as narrow as q(z|x)
    wherever its draws fall: q shows where to look first, but every place is looked at, so a wrong q costs time and
    not exactness. All of it in float64, on a copy of the model.

    Arguments: `tolerance` in nats for each row; a row is cut into at most `most` cells (the kinks of a decoder of
        rectifiers take many), and its `error` says what that leaves.
    Returns: values and errors (n,) nats.
    Raises: ValueError for a code of more units, TypeError for one without density or within bounds.

    Example:
        >>> from narrows.recipes import vae
        >>> model, _ = vae((8,), latent=1)
        >>> bool((quadrature(model, torch.ones(3, 8)).error < 1e-5).all())
        True
    """
    refuse_unweighed(model, "quadrature")
    if model.latent > 2:
        raise ValueError(
            f"quadrature integrates over codes of one or two units; this one has {model.latent}. Use "
            "annealed_importance_sampling, or log_likelihood with many samples"
        )
    exact = copy.deepcopy(model).double()
    found = []
    with draws.seeded(seed, 15, 0):
        for batch in batches(exact, data, 32):
            context = batch.context if batch.context is None else batch.context.double()
            batch = batch._replace(x=batch.x.double(), target=batch.target.double(), context=context)
            refuse_unpriced(exact, batch, "quadrature")
            found.append(_integrate(_Integrand(exact, batch), tolerance, most).cpu())
    values, error, points = torch.cat(found, 1)
    return Integral(values, *Mean.of(values), error, points.long())


class _Integrand:
    """p(x|z) p(z) dz/du of the rows of a batch, each in coordinates of its own."""

    def __init__(self, model: Model, batch: Batch) -> None:
        self.model, self.batch, rows = model, batch, len(batch.x)
        z = model.draw(512 * rows, repeated(batch.context, 512)).unflatten(0, (512, rows))
        self.middle, self.scale = z.mean(0), 1.5 * z.std(0) + 1e-9  # (B, D)
        drawn = model.encode(batch.x, batch.context, samples=32, draw=True).z.unflatten(0, (32, rows))
        t = (drawn - self.middle) / self.scale
        self.drawn = (2 * t / (1 + (1 + 4 * t.square()).sqrt())).transpose(0, 1)  # (B, 32, D) in u
        self.width = drawn.std(0) / self.scale  # (B, D)

    def begin(self) -> _Cells:
        """The first cells of all rows."""
        rows, d = self.middle.shape
        axis = torch.linspace(-1, 1, FIRST[d] + 1, dtype=self.middle.dtype, device=self.middle.device)[:-1]
        low = torch.cartesian_prod(*[axis] * d).view(-1, d)
        row = torch.arange(rows, device=low.device).repeat_interleave(len(low))
        return self.valued(_Cells(row, low.repeat(rows, 1), low.new_full((len(row),), 2 / FIRST[d]), low[:0, 0]))

    def valued(self, cells: _Cells) -> _Cells:
        """Cells with their log integrals."""
        d = self.middle.shape[1]
        place, weight = (torch.from_numpy(t).to(cells.low) for t in np.polynomial.legendre.leggauss(NODES))
        nodes = torch.cartesian_prod(*[(place + 1) / 2] * d).view(-1, d)
        log_weights = torch.cartesian_prod(*[(weight / 2).log()] * d).view(-1, d).sum(1)
        u = cells.low[:, None] + cells.side[:, None, None] * nodes  # (N, nodes, D)
        piece = max(1, BUDGET // (len(nodes) * math.prod(self.model.likelihood.wants)))
        value = [
            (self.log(one, row) + log_weights).logsumexp(1)
            for one, row in zip(u.split(piece), cells.row.split(piece), strict=True)
        ]
        return cells._replace(value=torch.cat(value) + d * cells.side.log())

    def log(self, u: Tensor, row: Tensor) -> Tensor:
        """The logarithm of the integrand at u (N, nodes, D) for rows (N,)."""
        room = 1 - u.square()
        z = (self.middle[row, None] + self.scale[row, None] * u / room).flatten(0, 1)
        density = ((1 + u.square()) / room.square() * self.scale[row, None]).log().sum(-1)
        target, context, seen = (
            t if t is None else t[row].repeat_interleave(u.shape[1], 0)
            for t in (self.batch.target, self.batch.context, self.batch.seen)
        )
        found = log_prob(self.model.decode(z, context), target, seen)  # type: ignore[arg-type]
        found = found + self.model.prior(context).log_prob(z)  # type: ignore[misc]
        return density + torch.nan_to_num(found, nan=-math.inf, posinf=-math.inf).view(density.shape)

    def coarse(self, cells: _Cells) -> Tensor:
        """Whether a cell holds draws from q and is wider than q, (N,) bool."""
        u = self.drawn[cells.row]  # (N, 32, D)
        low, side = cells.low[:, None], cells.side[:, None, None]
        holds = ((u >= low) & (u < low + side)).all(-1).any(-1)
        middle = cells.low + cells.side[:, None] / 2
        stretch = (1 + middle.square()) / (1 - middle.square()).square()
        return holds & (cells.side[:, None] * stretch > 2 * self.width[cells.row]).any(-1)


def _integrate(f: _Integrand, tolerance: float, most: int) -> Tensor:
    """Value, error and points of each row, (3, B)."""
    rows, d = f.middle.shape
    cells = f.begin()
    settled = f.middle.new_full((rows,), -math.inf)  # log of what lies in cells that are done
    error, count = torch.zeros_like(settled), torch.zeros_like(settled)
    while len(cells.row):
        parts = f.valued(cells.halved())
        fine = parts.value.view(-1, 2**d).logsumexp(1)  # (N,)
        total = torch.logaddexp(settled, _logsumexp(fine, cells.row, rows))
        change = ((fine - total[cells.row]).exp() - (cells.value - total[cells.row]).exp()).abs()
        number = torch.bincount(cells.row, minlength=rows)
        count += number
        # shared evenly the changes then stay within the tolerance; those of the parts are smaller by far
        open_ = (change * number[cells.row] > tolerance) | f.coarse(cells)
        open_ &= (count < most)[cells.row] & (cells.side > 1e-9)
        done = ~open_
        settled = torch.logaddexp(settled, _logsumexp(fine[done], cells.row[done], rows))
        error.index_add_(0, cells.row[done], change[done])
        cells = parts.pick(open_.repeat_interleave(2**d))
    points = (count * 2**d + FIRST[d] ** d) * NODES**d
    return torch.stack([settled, error, points])


def _logsumexp(value: Tensor, row: Tensor, rows: int) -> Tensor:
    """The log of the sum of exp(value) (N,) for each row, (rows,)."""
    top = value.new_full((rows,), -math.inf).scatter_reduce(0, row, value, "amax")
    shift = torch.where(top.isfinite(), top, 0.0)
    return shift + value.new_zeros(rows).index_add(0, row, (value - shift[row]).exp()).log()
