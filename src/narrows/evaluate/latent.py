"""What the units of a code carry."""

from typing import NamedTuple

import torch
from torch import Tensor

from narrows import draws
from narrows.data import Rows
from narrows.data import rows as as_rows
from narrows.diffusion import Diffusion
from narrows.evaluate.common import Mean, batches, device_of
from narrows.models import Ladder, Model
from narrows.posteriors import Discrete

__all__ = ["ActiveUnits", "Features", "RoundTrip", "Usage", "active_units", "features", "round_trip", "usage"]


class ActiveUnits(NamedTuple):
    """Which units of the code carry something, by both definitions in use."""

    by_variance: Tensor  # (D,) bool: variance over x of the posterior mean > 0.01 (Burda et al. 2015, section 5.2)
    by_rate: Tensor | None  # (D,) bool: mean KL > 0.01 nats (Sonderby et al. 2016); None where a unit has none
    variance: Tensor  # (D,)
    rate: Tensor | None  # (D,) nats
    rungs: tuple[int, ...] = ()  # units of each rung, top first, where the code has rungs

    def each(self) -> "list[ActiveUnits]":
        """The same rung by rung, top first; the whole code where it has no rungs."""
        parts = [t if t is None else t.split(self.rungs or (len(self.variance),)) for t in self[:4]]
        return [
            ActiveUnits(*(None if part is None else part[rung] for part in parts))  # type: ignore[arg-type]
            for rung in range(len(self.rungs) or 1)
        ]


class Features(NamedTuple):
    """What the units of a sparse code stand for."""

    rate: Tensor  # (D,) share of the rows for which the unit fires
    dead: Tensor  # (D,) bool: it fires for none
    active: Mean  # units that fire for a row: the mean L0
    rows: Tensor  # (D, top) positions of the rows with the largest values, largest first
    values: Tensor  # (D, top) those values
    directions: Tensor  # (D, *event) what one of the unit adds to x, model units


class Usage(NamedTuple):
    """How often rows choose each codeword."""

    counts: Tensor  # (books, K) whole numbers; more than one book in residual and product quantisers
    perplexity: float  # exp of the entropy of their frequencies, 1 to K; the mean over books
    used: float  # share of the codewords that any row chooses


class RoundTrip(NamedTuple):
    """Errors of going there and back, on means; squared, summed over the event or the units."""

    x: Tensor  # (n,) |x - E[x | z(x)]|^2, model units (pixels in 0..1)
    z: Tensor | None  # (n,) |z - z(E[x|z])|^2 for z from the prior; None without one


@torch.no_grad()
def active_units(model: Model, data: Rows | Tensor) -> ActiveUnits:
    """Which units are active, by the variance of the posterior mean and by the rate.

    Of a ladder the mean is the point code, and the rate that of draws, since a rung's rate hangs on what was drawn
    before it: of one draw a row where each is in closed form then, of four where it is not.
    """
    means: list[Tensor] = []
    rates: list[Tensor] = []
    rungs = model.rungs if isinstance(model, Ladder) else ()
    closed = getattr(model.posterior, "closed", True)
    with draws.seeded(0, 18, 0):
        for batch in batches(model, data):
            if isinstance(model, Diffusion):  # whose code is cheap, and the way to it is not
                means.append(model.encode(batch.x, batch.context).z.double().cpu())
                rates.append(model(batch.x, batch.context).code.rates.double().cpu())
                continue
            h = model.hidden(batch.x, batch.context)
            code = model.posterior(h, batch.context, 1, False)
            means.append(code.z.double().cpu())
            if rungs:
                samples = 1 if closed else 4
                code = model.posterior(h, batch.context, samples)
                rates.append(code.rates.double().unflatten(0, (samples, -1)).mean(0).cpu())
            else:
                rates.append(code.rates.double().cpu())
    variance = torch.cat(means).var(0, correction=0)
    known = model.density and (closed or bool(rungs)) and rates[0].shape[-1] == model.latent
    known = known and not isinstance(model.posterior, Discrete)  # whose rates are those of choices, not of units
    rate = torch.cat(rates).mean(0) if known else None
    return ActiveUnits(variance > 0.01, None if rate is None else rate > 0.01, variance, rate, rungs)


@torch.no_grad()
def features(model: Model, data: Rows | Tensor, top: int = 10) -> Features:
    """Which rows make each unit of the code fire, how often, and what the unit adds to a row.

    A direction is E[x | e_j] - E[x | 0] for the unit vector e_j: the dictionary's own row where the decoder is affine.
    Units of codes that are not sparse fire where they are not 0. Memory grows with units and `top`, not with rows.

    Raises: ValueError for top < 1, TypeError for a model that is told context.

    Example:
        >>> from narrows.recipes import sparse
        >>> model, _ = sparse((8,), latent=16, active=2)
        >>> found = features(model, torch.rand(50, 8), top=3)
        >>> found.rows.shape, found.directions.shape, found.active.mean <= 2
        (torch.Size([16, 3]), torch.Size([16, 8]), True)
    """
    rows = as_rows(data)
    if top < 1:
        raise ValueError(f"features shows at least one row a unit; got top={top}")
    top, start = min(top, len(rows)), 0
    fires = getattr(model.posterior, "fires", lambda z: z != 0)
    values, places, counts = torch.empty(0, model.latent), torch.empty(0, model.latent, dtype=torch.int64), []
    times = torch.zeros(model.latent, dtype=torch.int64)
    for batch in batches(model, rows):
        z = model.encode(batch.x, batch.context).z
        fired = fires(z)
        counts.append(fired.sum(1).cpu())
        times += fired.sum(0).cpu()
        here = torch.arange(start, start + len(z))[:, None].expand(-1, model.latent)
        start += len(z)
        values, places = torch.cat([values.to(z.dtype), z.cpu()]), torch.cat([places, here])
        values, index = values.topk(min(top, len(values)), 0)  # (top, D), and so on with the next rows
        places = places.gather(0, index)
    one = torch.eye(model.latent, device=device_of(model), dtype=values.dtype)
    nothing = model.decode(torch.zeros_like(one[:1])).mean
    directions = torch.cat([(model.decode(part).mean - nothing).cpu() for part in one.split(1024)])
    return Features(times / len(rows), times == 0, Mean.of(torch.cat(counts)), places.T, values.T, directions)


@torch.no_grad()
def usage(model: Model, data: Rows | Tensor) -> Usage:
    """How often each codeword is chosen by some rows, the perplexity of that, and the share in use.

    Raises: TypeError for a code that is not of codewords.

    Example:
        >>> from narrows.recipes import vqvae
        >>> model, _ = vqvae((8,), latent=2, grid=(3,), codebook=4)
        >>> int(usage(model, torch.rand(50, 8)).counts.sum())
        150
    """
    q = model.posterior
    if not isinstance(q, Discrete):
        raise TypeError(
            f"usage counts codewords, and a {type(q).__name__} code has none. Use active_units, or recipe vqvae or fsq"
        )
    counts = torch.zeros(len(q.count), q.codebook, dtype=torch.int64)
    for batch in batches(model, data):
        index = model.encode(batch.x, batch.context).index.cpu()  # type: ignore[union-attr]
        counts += torch.stack([torch.bincount(i, minlength=q.codebook) for i in q.by_book(index)])
    p = counts.double() / counts.sum(1, keepdim=True)
    perplexity = torch.special.entr(p).sum(1).exp()
    return Usage(counts, float(perplexity.mean()), float((counts > 0).double().mean()))


@torch.no_grad()
def round_trip(model: Model, data: Rows | Tensor, seed: int = 0) -> RoundTrip:
    """Errors of x to z to x on the rows, and of z to x to z on as many draws from the prior."""
    errors, back = [], []
    with draws.seeded(seed, 6, 0):
        for batch in batches(model, data):
            mean = model.decode(model.encode(batch.x, batch.context).z, batch.context).mean
            errors.append((mean - batch.target).nan_to_num(0.0).square().flatten(1).sum(1).cpu())  # what is missing: 0
            if model.prior is not None:
                z = model.draw(len(batch.x), batch.context)
                again = model.encode(model.decode(z, batch.context).mean, batch.context).z
                back.append((again - z).square().flatten(1).sum(1).cpu())
    return RoundTrip(torch.cat(errors), torch.cat(back) if back else None)
