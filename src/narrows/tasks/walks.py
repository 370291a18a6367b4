"""Walks through the code: between two rows, along single units, from one label to another."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from narrows.data import Rows
from narrows.data import rows as as_rows
from narrows.evaluate import active_units, codes
from narrows.models import Model
from narrows.posteriors import Discrete

__all__ = ["Moved", "Traversal", "arithmetic", "interpolate", "traverse"]

LINKS = 64  # of the chain, at least, by which a path along the density is found


@torch.no_grad()
def interpolate(model: Model, ends: Rows | Tensor, steps: int = 9, path: str = "linear") -> Tensor:
    r"""E[x|z] on the way between the codes of two rows (2, *event), (steps, *event) in model units.

    "linear" is the straight line. "spherical" turns from the direction of the first code to that of the second at a
    constant pace while the length goes over in a straight line: draws from a standard normal of many units lie near a
    sphere, whose inside the straight line crosses. "density" is the shortest path where a step |dz| counts for more the
    less likely the place is,

    .. math:: \min_z \int p(z(t))^{-1/D} \, |\dot z(t)| \, dt,

    the geodesic of the metric p(z)^{-2/D} I, which no scaling of the code changes; its steps are of equal length in
    that metric. It is found as the chain of at least 64 links with the least energy, from the straight and from the
    spherical one (the better of two minima, each local). What a model is told (context) goes over from that of the
    first row to that of the second as the code does.

    Raises: ValueError for fewer than 2 steps, other than 2 rows or another path; TypeError for "density" without p(z).
    References: Sampling Generative Networks (White, 2016), arXiv:1609.04468, for the sphere; Latent Space Oddity
    (Arvanitidis et al., 2018), arXiv:1710.11379, for shortest paths; Nonhomogeneous Euclidean first-passage percolation
    and distance learning (Groisman et al., 2022), arXiv:1810.09398, for distances that a power of the density weighs.

    Example:
        >>> from narrows.recipes import vae
        >>> model, _ = vae((8,), latent=2)
        >>> interpolate(model, torch.rand(2, 8), steps=5, path="density").shape
        torch.Size([5, 8])
    """
    ends = as_rows(ends)
    if steps < 2 or len(ends) != 2:
        raise ValueError(f"a path has two ends and at least 2 steps; got {len(ends)} rows, steps={steps}")
    if path not in ("linear", "spherical", "density"):
        raise ValueError(f"there is no path {path!r}; there is linear, spherical, density")
    device = next(model.parameters()).device
    weight = torch.linspace(0, 1, steps)[:, None]
    z, context = codes(model, ends), ends.batch(torch.arange(2)).context
    if path == "density":
        z = _along_density(model, z, context, steps)
    else:
        z = _spherical(z, weight) if path == "spherical" else (1 - weight) * z[0] + weight * z[1]
    told = None if context is None else ((1 - weight) * context[0].cpu() + weight * context[1].cpu()).to(device)
    return model.decode(z.to(device), told).mean.cpu()


def _spherical(ends: Tensor, weight: Tensor) -> Tensor:
    """Slerp of the directions, and the length in a straight line: (2, D), (steps, 1) -> (steps, D)."""
    a, b = ends.double()
    lengths = ends.double().norm(dim=1)
    straight = (1 - weight) * a + weight * b
    angle = torch.arccos(((a @ b) / lengths.prod()).clamp(-1, 1))  # NaN from the origin, which has no direction
    if not 1e-6 < angle < torch.pi - 1e-6:  # one direction, or opposite ones, between which no turn is shortest
        return straight.to(ends)
    turned = (((1 - weight) * angle).sin() * a / lengths[0] + (weight * angle).sin() * b / lengths[1]) / angle.sin()
    return (turned * ((1 - weight) * lengths[0] + weight * lengths[1])).to(ends)


def _along_density(model: Model, ends: Tensor, context: Tensor | None, steps: int) -> Tensor:
    """Codes (steps, D) on the path of least energy in the metric p(z)^(-2/D) between two (2, D)."""
    prior: Any = model.prior
    if isinstance(model.posterior, Discrete):
        raise TypeError(
            "p(z) of codewords is a probability of each, and there is none on the way between two. Wrong: "
            "path='density'; right: path='linear', whose middle the decoder blends"
        )
    if prior is None or not getattr(prior, "density", True) or getattr(prior, "bounded", False):
        raise TypeError(
            "a path along the density needs p(z), and this model has none, or only a bound on it. Wrong: "
            "path='density'; right: fit_prior(model, data) first, or path='linear'"
        )
    links = -(-LINKS // (steps - 1))  # between two steps
    chain = torch.linspace(0, 1, links * (steps - 1) + 1, dtype=torch.float64)[:, None]
    device = next(model.parameters()).device
    middle = (chain[1:] + chain[:-1]) / 2
    told = None
    if context is not None:
        told = ((1 - middle) * context[0].cpu() + middle * context[1].cpu()).to(device, context.dtype)

    def energy(z: Tensor) -> Tensor:
        """The logarithm of sum |dz|^2 p^(-2/D) over the links of a chain (links + 1, D)."""
        log_p = prior(told).log_prob(((z[1:] + z[:-1]) / 2).to(device, ends.dtype)).cpu().double()
        lengths = (z[1:] - z[:-1]).square().sum(1).clamp_min(1e-300)
        return (lengths.log() - 2 / z.shape[1] * log_p).logsumexp(0)

    found = []
    for first in ((1 - chain) * ends[0] + chain * ends[1], _spherical(ends, chain)):
        z = _shortest(energy, first.double())
        found.append((float(energy(z)), z))
    return min(found, key=lambda one: one[0])[1][::links].to(ends)


def _shortest(energy: Callable[[Tensor], Tensor], chain: Tensor) -> Tensor:
    """The chain of least energy (a local minimum) between the ends of a first one (links + 1, D)."""
    inner = chain[1:-1].clone().requires_grad_()
    solver = torch.optim.LBFGS([inner], max_iter=500, history_size=30, line_search_fn="strong_wolfe")

    def joined() -> Tensor:
        return torch.cat([chain[:1], inner, chain[-1:]])

    def slope() -> Tensor:
        value = energy(joined())
        (inner.grad,) = torch.autograd.grad(value, inner)
        return value

    with torch.enable_grad():
        solver.step(slope)  # type: ignore[no-untyped-call]
    return joined().detach()


class Traversal(NamedTuple):
    """Walks along single units of the code."""

    x: Tensor  # (units, steps, *event) E[x|z], model units
    units: list[int]  # by falling rate, or variance where there is no rate


@torch.no_grad()
def traverse(
    model: Model, rows: Rows | Tensor, units: list[int] | None = None, steps: int = 12, width: float = 2.5
) -> Traversal:
    """Moves one unit at a time from -width to +width standard deviations about the mean code of some rows.

    A model that is told context is told that of the first row throughout.

    `units` None: the eight that carry most. Raises: ValueError for a unit that is not there, TypeError for a code of
    codewords.
    """
    if isinstance(model.posterior, Discrete):
        raise TypeError(
            "a unit of a codeword cannot be moved by itself: between two codewords there is no code. Use interpolate "
            "(narrows interpolate), whose ends are codes, or sample"
        )
    used = active_units(model, rows)
    weight = used.rate if used.rate is not None else used.variance
    chosen = [int(u) for u in weight.argsort(descending=True)[:8]] if units is None else units
    for unit in chosen:
        if not 0 <= unit < model.latent:
            raise ValueError(f"the code has units 0 to {model.latent - 1}; got {unit}")
    z = codes(model, rows)
    path = z.mean(0).repeat(len(chosen), steps, 1)
    for i, unit in enumerate(chosen):
        path[i, :, unit] += torch.linspace(-width, width, steps) * z[:, unit].std()
    device = next(model.parameters()).device
    told = as_rows(rows).batch(torch.arange(1)).context
    context = None if told is None else told.to(device).expand(len(chosen) * steps, -1)
    x = model.decode(path.flatten(0, 1).to(device), context).mean.cpu()
    return Traversal(x.unflatten(0, (len(chosen), steps)), chosen)


class Moved(NamedTuple):
    """Rows whose codes were moved."""

    x: Tensor  # (n, *event) E[x|z + direction], model units
    z: Tensor  # (n, D) the codes that were decoded
    direction: Tensor  # (D,)


@torch.no_grad()
def arithmetic(
    model: Model,
    rows: Rows | Tensor,
    add: int | None = None,
    remove: int | None = None,
    labelled: Rows | None = None,
    weight: float = 1.0,
) -> Moved:
    r"""Adds to the code of each row what one label has and another has not.

    .. math:: z' = z(x) + w \, \big( E[z \mid \text{add}] - E[z \mid \text{remove}] \big)

    Means of point codes over the rows of a label; where one of the labels is not given, over all labelled rows.

    Arguments: `labelled` the rows whose labels give the direction, None for `rows` themselves.
    Raises: ValueError where there are no labels, where neither is given, or no row has the one asked for.
    Reference: Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks (Radford et
    al., 2016), arXiv:1511.06434, section 6.3.2.

    Example:
        >>> from narrows.recipes import autoencoder
        >>> model, _ = autoencoder((8,), latent=2)
        >>> rows = Rows(torch.rand(6, 8), label=torch.tensor([0, 0, 0, 1, 1, 1]))
        >>> moved = arithmetic(model, rows, add=1, remove=0)
        >>> bool(torch.allclose(moved.z[:3].mean(0), codes(model, rows)[3:].mean(0)))
        True
    """
    rows = as_rows(rows)
    known = rows if labelled is None else labelled
    if known.label is None or (add is None and remove is None):
        raise ValueError(
            "arithmetic moves codes from one label to another: it needs rows with labels, and add=, remove= or both"
        )
    z, label = codes(model, known).double(), known.label.cpu()
    means = []
    for asked in (add, remove):
        chosen = label >= 0 if asked is None else label == asked
        if not chosen.any():
            there = ", ".join(map(str, sorted(set(label[label >= 0].tolist()))))
            raise ValueError(f"no row has the label {asked}; there are {there}")
        means.append(z[chosen].mean(0))
    direction = weight * (means[0] - means[1])
    own = codes(model, rows)
    moved = (own.double() + direction).to(own)
    device, made = next(model.parameters()).device, []
    for index in torch.arange(len(rows)).split(1024):
        told = rows.batch(index).context
        made.append(model.decode(moved[index].to(device), None if told is None else told.to(device)).mean.cpu())
    return Moved(torch.cat(made), moved, direction.to(own))
