"""How close samples come to rows."""

import torch
from torch import Tensor

__all__ = ["frechet_distance"]


def frechet_distance(a: Tensor, b: Tensor) -> float:
    r"""How far two sets of features lie apart, were each of them normal: their squared Wasserstein-2 distance.

    .. math:: |m_a - m_b|^2 + \operatorname{tr}\big( S_a + S_b - 2 (S_a S_b)^{1/2} \big)

    With features of images and of samples it judges a generative model; figures compare only for the same features and
    numbers of rows, since the estimate is biased upwards for few. Covariances divide by n - 1, as is usual.

    Shapes: a (n, d), b (m, d); computed in float64. Raises: ValueError for other shapes or fewer than 2 rows.
    References: The Fréchet distance between multivariate normal distributions (Dowson & Landau, 1982); GANs Trained by
    a Two Time-Scale Update Rule (Heusel et al., 2017), arXiv:1706.08500, equation 6.

    Example:
        >>> a = torch.randn(100, 3)
        >>> round(frechet_distance(a, a + torch.tensor([2.0, 0.0, 0.0])), 3)
        4.0
    """
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            "a Fréchet distance compares features (n, d) and (m, d) of at least 2 rows each; got "
            f"{tuple(a.shape)} and {tuple(b.shape)}. Flatten what has more axes"
        )
    a, b = a.double(), b.double()
    squares, roots = [], []
    for rows in (a, b):
        values, axes = torch.linalg.eigh(torch.cov(rows.T).reshape(rows.shape[1], -1))
        squares.append(values.sum())
        roots.append(axes * values.clamp_min(0).sqrt() @ axes.T)
    # tr (S_a S_b)^(1/2) is the nuclear norm of S_a^(1/2) S_b^(1/2): no root of a product that is not symmetric
    shared = torch.linalg.svdvals(roots[0] @ roots[1]).sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + squares[0] + squares[1] - 2 * shared)
