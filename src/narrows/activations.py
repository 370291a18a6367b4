"""From what an encoder says to a sparse code: which units fire for a row, and how strongly.

An activation is a module h (B, latent) -> z (B, latent). A unit fires where |z| lies above `floor`. ReLU, Sigmoid and
JumpReLU codes are sparse under a penalty; TopK and BatchTopK codes are so by construction.
"""

import math

import torch
from torch import Tensor, nn

__all__ = ["BatchTopK", "JumpReLU", "ReLU", "Sigmoid", "TopK"]


class _Activation(nn.Module):
    """What activations have in common."""

    floor = 0.0

    def __init__(self, latent: int) -> None:
        super().__init__()
        if latent < 1:
            raise ValueError(f"a code needs at least one unit; got latent={latent}")
        self.latent = latent

    def extra_repr(self) -> str:
        return f"latent={self.latent}"


class ReLU(_Activation):
    """z = max(h, 0): sparse under `penalties.L1`."""

    def forward(self, h: Tensor) -> Tensor:
        return h.relu()


class Sigmoid(_Activation):
    """z = 1 / (1 + exp(-h)): sparse under `penalties.TargetActivity`; a unit fires above one half."""

    floor = 0.5

    def forward(self, h: Tensor) -> Tensor:
        return h.sigmoid()


class _Counted(_Activation):
    """Activations that are told how many units fire."""

    def __init__(self, latent: int, active: int) -> None:
        super().__init__(latent)
        if active != int(active) or not 1 <= active <= latent:
            raise ValueError(f"active is a whole number of units from 1 to the latent={latent} there are; got {active}")
        self.active = int(active)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, active={self.active}"


class TopK(_Counted):
    """The `active` largest units of every row, whatever their sign (with many units hardly ever negative).

    Reference: Scaling and evaluating sparse autoencoders (Gao et al., 2024), arXiv:2406.04093, section 2.3.

    Example:
        >>> TopK(4, active=2)(torch.tensor([[3.0, 1.0, 2.0, 4.0]]))
        tensor([[3., 0., 0., 4.]])
    """

    def forward(self, h: Tensor) -> Tensor:
        values, index = h.topk(self.active, 1)
        return torch.zeros_like(h).scatter(1, index, values)


class BatchTopK(_Counted):
    r"""The `active` * B largest units of a batch where they are positive: hard rows may have more than easy ones.

    In evaluation, where a row must not depend on its company, a unit fires above a threshold: the mean, over about the
    last hundred training batches, of the least value that was kept.

    .. math:: z = h \, [h > \theta], \quad \theta = \mathbb E_\text{batches} \min \{ z_{ij} \mid z_{ij} > 0 \}

    Reference: BatchTopK Sparse Autoencoders (Bussmann et al., 2024), arXiv:2412.06410, equations 5 to 7.
    Among several processes each ranks its own rows, and the threshold that is kept is that of the first.
    """

    def __init__(self, latent: int, active: int) -> None:
        super().__init__(latent, active)
        self.threshold: Tensor
        self.batches: Tensor
        self.register_buffer("threshold", torch.zeros(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, h: Tensor) -> Tensor:
        if not self.training:
            return torch.where(h > self.threshold, h, 0.0)
        values, index = h.flatten().topk(self.active * len(h), sorted=False)
        values = values.relu()
        with torch.no_grad():
            least = torch.where(values > 0, values, math.inf).amin()
            least = torch.where(least.isfinite(), least, self.threshold)  # nothing fired
            self.batches += 1
            self.threshold += (least - self.threshold) / self.batches.clamp_max(100)
        return torch.zeros_like(h).flatten().scatter(0, index, values).view_as(h)


class JumpReLU(_Activation):
    r"""Each unit above its own learned threshold: sparse under `penalties.L0`.

    .. math:: z = h \, [h > \theta], \quad
              \frac{\partial z}{\partial \theta} = -\frac{\theta}{\varepsilon} K\Big(\frac{h - \theta}{\varepsilon}\Big)

    The derivative is a pseudo-derivative: the true one is zero almost everywhere, and K is the indicator of
    (-1/2, 1/2), so that what lies within half a `bandwidth` of the threshold tells it where to go.

    Arguments: `threshold` where all begin; `bandwidth` epsilon, both in units of h.
    Reference: Jumping Ahead (Rajamanoharan et al., 2024), arXiv:2407.14435, equations 3 and 11.
    """

    def __init__(self, latent: int, threshold: float = 0.1, bandwidth: float = 0.1) -> None:
        super().__init__(latent)
        if not (0 < threshold < math.inf and 0 < bandwidth < math.inf):
            raise ValueError(f"threshold and bandwidth are above 0; got threshold={threshold}, bandwidth={bandwidth}")
        self.threshold, self.bandwidth = threshold, bandwidth
        self.log_threshold = nn.Parameter(torch.full((latent,), math.log(threshold)))

    def forward(self, h: Tensor) -> Tensor:
        theta, near = self._near(h)
        # the last factor is zero: only its derivative counts
        return torch.where(h > theta, h, 0.0) - theta.detach() * near * (theta - theta.detach())

    def fires(self, h: Tensor) -> Tensor:
        r"""[h > theta] for each unit, with d/d theta = -K((h - theta) / epsilon) / epsilon (equation 12)."""
        theta, near = self._near(h)
        return (h > theta).to(h.dtype) - near * (theta - theta.detach())

    def _near(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Theta, and K / epsilon."""
        theta = self.log_threshold.exp()
        near = ((h - theta).abs() < self.bandwidth / 2).to(h.dtype) / self.bandwidth
        return theta, near

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, threshold={self.threshold:g}, bandwidth={self.bandwidth:g}"
