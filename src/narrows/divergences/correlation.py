"""Dependence among the units of a code, in the aggregated posterior q(z) = 1/N sum_n q(z|x_n) of all N rows."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from narrows import draws
from narrows.contract import Batch, Code
from narrows.divergences.common import Gap, positive

__all__ = ["Covariance", "TotalCorrelation", "aggregated", "permuted", "total_correlation", "unit_densities"]


def unit_densities(q: Distribution | None) -> Distribution | None:
    """The distribution of each unit under q(z|x), batch (B, D); None where q cannot tell."""
    match q:
        case Independent(reinterpreted_batch_ndims=1):
            return q.base_dist
        case MultivariateNormal():
            return Normal(q.mean, q.stddev, validate_args=False)
        case _:
            return None


def aggregated(code: Code, rows: int) -> tuple[Tensor, Tensor]:
    r"""Log-densities of codes and of their units under q(z) of all `rows` rows N, from a batch of B of them.

    .. math:: \hat q(z_i) = \frac1N q(z_i \mid x_i) + \frac{N - 1}{N (B - 1)} \sum_{m \ne i} q(z_i \mid x_m)

    for a code drawn from row i: its own row, whose density is the largest by far, is weighed as what it is, one row of
    N, and the others stand for the rest. Over all batches that hold row i the estimate is without bias, and where the
    batch is the whole set it is exact. It is minibatch stratified sampling, averaged over the order of the other
    rows, which changes nothing but the variance. (Its logarithm is too small on average, by Jensen's inequality.)

    Shapes: code.z (S, D), code.q over B rows -> log q(z) (K, B), log q(z_j) (K, B, D), nats.
    Reference: Isolating Sources of Disentanglement in VAEs (Chen et al., 2018), arXiv:1802.04942, appendix C.2.
    Raises: TypeError where q(z|x) does not score single units.
    """
    units = unit_densities(code.q)
    if units is None or code.q is None:
        what = "has no density" if code.q is None else f"is {type(code.q).__name__}"
        raise TypeError(
            f"the total correlation needs the density of every unit of q(z|x), and this q(z|x) {what}. "
            "Use posterior=Gaussian, or recipe factor_vae, whose critic needs only draws"
        )
    size = len(units.mean)
    rows = max(rows, size)  # a bare batch is the whole set
    z = code.z.unflatten(0, (-1, size))[:, :, None]  # (K, B, 1, D), to be scored by each of B rows
    each = units.log_prob(z)  # (K, B, B, D): draw, row it is drawn from, row that scores it, unit
    joint = each.sum(-1) if isinstance(code.q, Independent) else code.q.log_prob(z)  # (K, B, B)
    own = torch.eye(size, dtype=torch.bool, device=z.device)
    other = math.log((rows - 1) / (rows * (size - 1))) if size > 1 else 0.0
    log_weight = torch.full_like(joint[0], other).masked_fill(own, -math.log(rows))  # (B, B)
    return (joint + log_weight).logsumexp(2), (each + log_weight[..., None]).logsumexp(2)


def total_correlation(code: Code, rows: int) -> Tensor:
    r"""KL of the aggregated posterior from the product of its marginals: what its units share, in nats.

    .. math:: \operatorname{TC} = E_{q(z)} \Big[ \log q(z) - \sum_j \log q(z_j) \Big]

    Shapes: code.z (S, D), code.q over B of `rows` rows -> scalar. Raises: as `aggregated`.
    """
    joint, each = aggregated(code, rows)
    return (joint - each.sum(-1)).mean((0, 1))


class TotalCorrelation(nn.Module):
    r"""The total correlation of the codes as a discrepancy (beta-TC-VAE), estimated from a batch without a critic.

    The rate is mutual information + total correlation + sum of the units' own KL from the prior (Chen et al. 2018,
    equation 2), so distortion + rate + (beta - 1) TC is their objective (equation 4, alpha = gamma = 1).

    Shapes: code.z (S, D), code.q over B rows -> Gap. Raises: TypeError where q(z|x) does not score single units.
    Reference: Isolating Sources of Disentanglement in VAEs (Chen et al., 2018), arXiv:1802.04942.

    Example:
        >>> from narrows.posteriors import Gaussian
        >>> from narrows.priors import StandardNormal
        >>> code = Gaussian(StandardNormal(2))(torch.zeros(3, 4))  # all rows alike: q(z) has independent units
        >>> abs(round(float(TotalCorrelation()(code, code.z, Batch.of(code.z)).value), 5))
        0.0
    """

    least = 2
    prior_draws = False

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = positive(weight)

    def forward(self, code: Code, real: Tensor, batch: Batch) -> Gap:
        value = total_correlation(code, batch.rows)
        return Gap(value, value, value.new_zeros(()))

    def extra_repr(self) -> str:
        return f"weight={self.weight:g}"


def permuted(z: Tensor, rows: int) -> Tensor:
    """Codes (S, D) with each column shuffled on its own: nearly draws from the product of the marginals of q(z).

    The order is a function of seed and step, as all noise; no gradient passes. S is a multiple of `rows`, the batch.
    """
    noise = draws.uniform(len(z) // rows, z[:rows]).flatten(0, 1)  # (S, D)
    return z.detach().gather(0, noise.argsort(0))


class Covariance(nn.Module):
    r"""Squared distance of the codes' covariance from the identity, the prior's (DIP-VAE I and II).

    .. math:: \sum_{i \ne j} C_{ij}^2 + d \sum_i (C_{ii} - 1)^2

    with C the covariance of the means mu(x) over the rows of a batch (`of="means"`: DIP-VAE-I), or that of the codes,
    Cov[mu(x)] + E[Sigma(x)] (`of="codes"`: DIP-VAE-II). The weight is the paper's lambda_od, and d = `diagonal` is
    lambda_d / lambda_od.

    Shapes: code.q over B rows -> Gap.
    Raises: ValueError for another `of` or a negative `diagonal`; TypeError where q(z|x) has no moments.
    Reference: Variational Inference of Disentangled Latent Concepts from Unlabeled Observations (Kumar et al., 2018),
        arXiv:1711.00848, equations 5 to 7.

    Example:
        >>> from narrows.posteriors import Gaussian
        >>> from narrows.priors import StandardNormal
        >>> code = Gaussian(StandardNormal(2))(torch.zeros(3, 4))  # no covariance: |0 - I|^2 = 2
        >>> Covariance(diagonal=1.0)(code, code.z, Batch.of(code.z)).value
        tensor(2.)
    """

    least = 2
    prior_draws = False

    def __init__(self, weight: float = 1.0, diagonal: float = 10.0, of: str = "means") -> None:
        super().__init__()
        if of not in ("means", "codes"):
            raise ValueError(f'of is "means" or "codes"; got {of!r}')
        if not 0 <= diagonal < math.inf:
            raise ValueError(f"diagonal is a number of at least 0; got {diagonal}")
        self.weight, self.diagonal, self.of = positive(weight), float(diagonal), of

    def forward(self, code: Code, real: Tensor, batch: Batch) -> Gap:
        q = code.q
        if q is None or unit_densities(q) is None:
            raise TypeError(
                "the covariance of the codes is taken from mean and variance of every q(z|x), and this one has none. "
                "Use posterior=Gaussian"
            )
        centred = q.mean - q.mean.mean(0)  # (B, D)
        c = centred.T @ centred / len(centred)  # (D, D)
        if self.of == "codes":
            full = isinstance(q, MultivariateNormal)
            c = c + (q.covariance_matrix.mean(0) if full else q.variance.mean(0).diag())  # type: ignore[attr-defined]
        error = (c - torch.eye(len(c), dtype=c.dtype, device=c.device)).square()
        value = error.sum() + (self.diagonal - 1) * error.trace()
        return Gap(value, value, value.new_zeros(()))

    def extra_repr(self) -> str:
        return f"weight={self.weight:g}, diagonal={self.diagonal:g}, of={self.of!r}"
