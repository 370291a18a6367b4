"""Kullback-Leibler divergences in closed form."""

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, kl_divergence

__all__ = ["kl"]


def kl(q: Distribution, p: Distribution) -> Tensor:
    r"""KL(q || p) in closed form, per unit where both factorise over the same units.

    .. math:: \tfrac12 \big( \| L_p^{-1} L_q \|^2 + | L_p^{-1} (m_q - m_p) |^2 - D \big) + \log |L_p| - \log |L_q|

    between normals of which one or both have any covariance L L^T.

    Shapes: q, p batch (B,), event (D,) -> (B, D) nats, or (B, 1) where only the total is known.
    Raises: NotImplementedError (torch's own) where no closed form is registered: use `rate="sampled"` then.

    Example:
        >>> from torch.distributions import Independent, Normal
        >>> q = Independent(Normal(torch.ones(1, 2), 1.0), 1)
        >>> kl(q, Independent(Normal(torch.zeros(1, 2), 1.0), 1))
        tensor([[0.5000, 0.5000]])
    """
    match (q, p):
        case (Independent(reinterpreted_batch_ndims=1), Independent(reinterpreted_batch_ndims=1)):
            return kl_divergence(q.base_dist, p.base_dist)
        case _:
            normals = [_moments(q), _moments(p)]
            total = kl_divergence(q, p) if None in normals else _between(*normals)  # type: ignore[arg-type]
            return total.unsqueeze(-1)


def _moments(d: Distribution) -> tuple[Tensor, Tensor] | None:
    """Mean (..., D) and triangular factor (..., D, D) of a normal, None for another distribution."""
    match d:
        case MultivariateNormal():
            return d.loc, d.scale_tril
        case Independent(base_dist=Normal(), reinterpreted_batch_ndims=1):
            return d.base_dist.loc, d.base_dist.scale.diag_embed()
        case _:
            return None


def _between(q: tuple[Tensor, Tensor], p: tuple[Tensor, Tensor]) -> Tensor:
    """KL between normals of any covariance, (B,) nats: one triangular system for both squares."""
    away = (q[0] - p[0])[..., None]
    shape = torch.broadcast_shapes(away.shape[:-2], q[1].shape[:-2], p[1].shape[:-2])
    away, ours, theirs = (t.expand(*shape, -1, -1) for t in (away, q[1], p[1]))
    squares = torch.linalg.solve_triangular(theirs, torch.cat([ours, away], -1), upper=False).square().sum((-2, -1))
    volumes = [scale.diagonal(dim1=-2, dim2=-1).log().sum(-1) for scale in (theirs, ours)]
    return (squares - away.shape[-2]) / 2 + volumes[0] - volumes[1]
