"""Divergences between distributions: between q(z|x) and p(z) per row, and (later) between their aggregates per batch."""

from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

__all__ = ["kl"]


def kl(q: Distribution, p: Distribution) -> Tensor:
    """KL(q || p) in closed form, per unit where both factorise over the same units.

    Shapes: q, p batch (B,), event (D,) -> (B, D) nats, or (B, 1) where only the total is known.
    Raises: NotImplementedError (torch's own) where no closed form is registered; price by draws then (`rate="sampled"`).
    Example:
        >>> from torch.distributions import Independent, Normal
        >>> q = Independent(Normal(torch.ones(1, 2), 1.0), 1)
        >>> kl(q, Independent(Normal(torch.zeros(1, 2), 1.0), 1))
        tensor([[0.5000, 0.5000]])
    """
    if isinstance(q, Independent) and isinstance(p, Independent) and q.event_shape == p.event_shape:
        if q.reinterpreted_batch_ndims == p.reinterpreted_batch_ndims == 1:
            return kl_divergence(q.base_dist, p.base_dist)
    return kl_divergence(q, p).unsqueeze(-1)
