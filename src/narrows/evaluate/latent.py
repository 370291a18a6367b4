"""What the units of a code carry."""

from typing import NamedTuple

import torch
from torch import Tensor

from narrows import draws
from narrows.data import Rows
from narrows.data import rows as as_rows
from narrows.diffusion import Diffusion
from narrows.evaluate.common import Mean, batches, device_of
from narrows.models import Model

__all__ = ["ActiveUnits", "Features", "RoundTrip", "active_units", "features", "round_trip"]


class ActiveUnits(NamedTuple):
    """Which units of the code carry something, by both definitions in use."""

    by_variance: Tensor  # (D,) bool: variance over x of the posterior mean > 0.01 (Burda et al. 2015, section 5.2)
    by_rate: Tensor | None  # (D,) bool: mean KL > 0.01 nats (Sonderby et al. 2016); None where a unit has none
    variance: Tensor  # (D,)
    rate: Tensor | None  # (D,) nats


class Features(NamedTuple):
    """What the units of a sparse code stand for."""

    rate: Tensor  # (D,) share of the rows for which the unit fires
    dead: Tensor  # (D,) bool: it fires for none
    active: Mean  # units that fire for a row: the mean L0
    rows: Tensor  # (D, top) positions of the rows with the largest values, largest first
    values: Tensor  # (D, top) those values
    directions: Tensor  # (D, *event) what one of the unit adds to x, model units


class RoundTrip(NamedTuple):
    """Errors of going there and back, on means; squared, summed over the event or the units."""

    x: Tensor  # (n,) |x - E[x | z(x)]|^2, model units (pixels in 0..1)
    z: Tensor | None  # (n,) |z - z(E[x|z])|^2 for z from the prior; None without one


@torch.no_grad()
def active_units(model: Model, data: Rows | Tensor) -> ActiveUnits:
    """Which units are active, by the variance of the posterior mean and by the rate."""
    means: list[Tensor] = []
    rates: list[Tensor] = []
    for batch in batches(model, data):
        code = model.encode(batch.x, batch.context)
        means.append(code.z.double().cpu())
        if isinstance(model, Diffusion):  # whose code is cheap, and the way to it is not
            with draws.seeded(0, 18, len(rates)):
                code = model(batch.x, batch.context).code
        rates.append(code.rates.double().cpu())
    variance = torch.cat(means).var(0, correction=0)
    known = model.density and getattr(model.posterior, "closed", True) and rates[0].shape[-1] == model.latent
    rate = torch.cat(rates).mean(0) if known else None
    return ActiveUnits(variance > 0.01, None if rate is None else rate > 0.01, variance, rate)


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
def round_trip(model: Model, data: Rows | Tensor, seed: int = 0) -> RoundTrip:
    """Errors of x to z to x on the rows, and of z to x to z on as many draws from the prior."""
    errors, back = [], []
    with draws.seeded(seed, 6, 0):
        for batch in batches(model, data):
            mean = model.decode(model.encode(batch.x, batch.context).z, batch.context).mean
            errors.append((mean - batch.target).square().flatten(1).sum(1).cpu())
            if model.prior is not None:
                z = model.draw(len(batch.x), batch.context)
                again = model.encode(model.decode(z, batch.context).mean, batch.context).z
                back.append((again - z).square().flatten(1).sum(1).cpu())
    return RoundTrip(torch.cat(errors), torch.cat(back) if back else None)
