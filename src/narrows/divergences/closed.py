"""Kullback-Leibler divergences in closed form."""

from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

__all__ = ["kl"]


def kl(q: Distribution, p: Distribution) -> Tensor:
    """KL(q || p) in closed form, per unit where both factorise over the same units.

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
            return kl_divergence(q, p).unsqueeze(-1)
