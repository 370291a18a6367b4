"""How sure a model is of the code of a row, and of the row that comes back."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from narrows import draws
from narrows.contract import Code
from narrows.data import Rows
from narrows.evaluate.common import batches
from narrows.evaluate.likelihood import BUDGET, refuse_unweighed
from narrows.models import Model

__all__ = ["Spread", "spread"]


class Spread(NamedTuple):
    """Standard deviations about the code of each row, and about its reconstruction."""

    code: Tensor  # (n, D) of q(z|x), units of the code
    entropy: Tensor  # (n,) nats: -E_q log q(z|x)
    reconstruction: Tensor  # (n, *event) of E[x|z] over z from q(z|x), model units: what the code leaves open
    noise: Tensor  # (n, *event) root of E_q Var[x|z], model units: what the likelihood leaves open

    @property
    def total(self) -> Tensor:
        """Standard deviation of x given its code's q, (n, *event): both together, by the law of total variance."""
        return (self.reconstruction.square() + self.noise.square()).sqrt()


@torch.no_grad()
def spread(model: Model, data: Rows | Tensor, samples: int = 64, seed: int = 0) -> Spread:
    r"""How widely q(z|x) spreads, and how much of x that leaves open.

    .. math:: \operatorname{Var}[x'] = \operatorname{Var}_q\, E[x' \mid z] + E_q \operatorname{Var}[x' \mid z]

    The code's spread and entropy are q's own where it knows them, else of the draws; the reconstruction's are of
    `samples` draws from q (relative error about 1 / sqrt(2 samples)). A likelihood that does not know its variance is
    drawn from once for each of them.

    Raises: TypeError for a code without q(z|x), ValueError for fewer than 2 samples.

    Example:
        >>> from narrows.recipes import vae
        >>> model, _ = vae((8,), latent=2)
        >>> found = spread(model, torch.ones(3, 8))
        >>> found.code.shape, found.entropy.shape, found.reconstruction.shape
        (torch.Size([3, 2]), torch.Size([3]), torch.Size([3, 8]))
    """
    if not model.posterior.density:
        raise TypeError(
            "a deterministic code is one point and has no spread. Use a model with q(z|x), such as recipe vae or iwae"
        )
    refuse_unweighed(model, "spread")
    if samples < 2:
        raise ValueError(f"a spread takes at least 2 draws; got samples={samples}")
    found = []
    width = math.prod(model.likelihood.wants)
    with draws.seeded(seed, 17, 0):
        for batch in batches(model, data, max(1, min(1024, BUDGET // (width * 8)))):
            h, rows = model.hidden(batch.x, batch.context), len(batch.x)
            piece = max(1, BUDGET // (width * rows))
            sums = torch.zeros(3, *batch.target.shape, dtype=torch.float64, device=batch.x.device)
            parts = []
            # squares about a point near by lose no digits
            origin = model.decode(model.posterior(h, batch.context, 1, False).z, batch.context).mean.double()
            for done in range(0, samples, piece):
                k = min(piece, samples - done)
                code = model.posterior(h, batch.context, k)
                px = model.decode(code.z, batch.context)
                mean = px.mean.double().unflatten(0, (k, rows))
                sums[0] += (mean - origin).sum(0)
                sums[1] += (mean - origin).square().sum(0)
                sums[2] += _variance(px).double().unflatten(0, (k, rows)).sum(0)
                parts.append((code.z.double().unflatten(0, (k, rows)), _log_q(code).unflatten(0, (k, rows))))
            z, log_q = (torch.cat(p) for p in zip(*parts, strict=True))
            variance = (sums[1] - sums[0].square() / samples).clamp_min(0) / (samples - 1)
            wide = _known(code, "stddev", z.std(0))
            entropy = _known(code, "entropy", -log_q.mean(0))
            four = (wide, entropy, variance.sqrt(), (sums[2] / samples).sqrt())
            found.append([t.to(batch.x.dtype).cpu() for t in four])
    return Spread(*(torch.cat(p) for p in zip(*found, strict=True)))


def _known(code: Code, name: str, otherwise: Tensor) -> Tensor:
    """What q says of itself; where it cannot, what its draws say."""
    try:
        value = getattr(code.q, name)
        return (value() if callable(value) else value).double()
    except (AttributeError, NotImplementedError):
        return otherwise


def _log_q(code: Code) -> Tensor:
    scored = code.densities()
    if scored is not None:
        return scored[0].double()
    z = code.z.unflatten(0, (-1, *code.q.batch_shape))  # type: ignore[union-attr]
    return code.q.log_prob(z).flatten().double()  # type: ignore[union-attr]


def _variance(px: Distribution) -> Tensor:
    try:
        return px.variance
    except NotImplementedError:
        return (px.sample() - px.mean).square()
