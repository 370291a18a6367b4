"""What trains but is not information: terms of the equation that a model pays for its code or its weights.

A penalty is a module called as `penalty(model, batch, found) -> (S,)`, with `found` the `Pass` of this batch; several
are added. Each carries its weight.
"""

import math

import torch
from torch import Tensor, nn

from narrows.contract import Batch, Pass
from narrows.models import Autoencoder

__all__ = ["L1", "Contraction", "DecoderSlope", "Energy", "TargetActivity", "Weights"]


class _Penalty(nn.Module):
    """What penalties have in common: a weight."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        if not 0 <= weight < math.inf:
            raise ValueError(f"{type(self).__name__}: the weight is a number of at least 0; got weight={weight}")
        self.weight = float(weight)

    def extra_repr(self) -> str:
        return f"weight={self.weight:g}"


class Contraction(_Penalty):
    r"""The encoder's squared Frobenius slope, so that a code does not follow every change of x.

    .. math:: w \, \| \partial z / \partial x \|_F^2

    With `probes` = 0 exact, by one backward pass for each unit; else estimated without bias from that many random
    directions in the code, E |v^T J|^2 with signs v, whatever the number of units.

    Reference: Contractive Auto-Encoders (Rifai et al., 2011), equation 2; the estimate: Hutchinson 1990.
    """

    def __init__(self, weight: float = 0.1, probes: int = 1) -> None:
        super().__init__(weight)
        if probes < 0:
            raise ValueError(f"probes is a number of directions, 0 for all units exactly; got probes={probes}")
        self.probes = probes

    def forward(self, model: Autoencoder, batch: Batch, found: Pass) -> Tensor:
        with torch.enable_grad():
            x = batch.x.detach().requires_grad_()
            z = model.encode(x, batch.context).z  # (B, D)
            if self.probes:
                signs = [2.0 * torch.randint(2, z.shape, device=z.device).to(z.dtype) - 1 for _ in range(self.probes)]
            else:
                signs = list(torch.eye(z.shape[1], dtype=z.dtype, device=z.device)[:, None].expand(-1, *z.shape))
            slopes = [torch.autograd.grad(z, x, v, create_graph=True)[0] for v in signs]
        square = sum(slope.square().flatten(1).sum(1) for slope in slopes)
        samples = len(found.code.z) // len(batch.x)
        return (self.weight * square / max(self.probes, 1)).repeat(samples)  # type: ignore[operator, union-attr]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, probes={self.probes}"


class DecoderSlope(_Penalty):
    r"""The decoder's squared slope at the code, w |d E[x|z] / dz|_F^2, estimated from `probes` random directions in x.

    Reference: From Variational to Deterministic Autoencoders (Ghosh et al., 2020), arXiv:1903.12436, section 3.1 (GP).
    """

    def __init__(self, weight: float = 0.1, probes: int = 1) -> None:
        super().__init__(weight)
        if probes < 1:
            raise ValueError(f"the decoder's slope is estimated from at least one direction; got probes={probes}")
        self.probes = probes

    def forward(self, model: Autoencoder, batch: Batch, found: Pass) -> Tensor:
        square = found.code.penalty
        with torch.enable_grad():
            z = found.code.z if found.code.z.requires_grad else found.code.z.detach().requires_grad_()
            mean = model.decode(z, batch.context).mean
            for _ in range(self.probes):
                v = 2.0 * torch.randint(2, mean.shape, device=mean.device).to(mean.dtype) - 1
                (slope,) = torch.autograd.grad(mean, z, v, create_graph=True)
                square = square + slope.square().flatten(1).sum(1)
        return self.weight * square / self.probes

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, probes={self.probes}"


class Energy(_Penalty):
    """Half the code's squared length, w |z|^2 / 2: what keeps a regularised autoencoder's codes from drifting apart
    (Ghosh et al. 2020, equation 6).
    """

    def forward(self, model: Autoencoder, batch: Batch, found: Pass) -> Tensor:
        return self.weight / 2 * found.code.z.square().flatten(1).sum(1)


class Weights(_Penalty):
    r"""The squared weights of encoder and decoder (`part` "both"), or of one of them; biases are free.

    .. math:: w \, \big( \|W_\text{encoder}\|_F^2 + \|W_\text{decoder}\|_F^2 \big)

    The same for every row, so that the mean over a batch is the sum that is meant.
    """

    def __init__(self, weight: float = 1e-4, part: str = "both") -> None:
        super().__init__(weight)
        if part not in ("both", "encoder", "decoder"):
            raise ValueError(f'part is "both", "encoder" or "decoder"; got {part!r}')
        self.part = part

    def forward(self, model: Autoencoder, batch: Batch, found: Pass) -> Tensor:
        chosen = [model.encoder, model.decoder] if self.part == "both" else [getattr(model, self.part)]
        squares = [p.square().sum() for module in chosen for p in module.parameters() if p.dim() > 1]
        return self.weight * torch.stack(squares).sum().expand(len(found.code.z))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, part={self.part!r}"


class L1(_Penalty):
    """The code's absolute values, w |z|_1: few units carry much (sparse coding, Olshausen & Field 1996)."""

    def forward(self, model: Autoencoder, batch: Batch, found: Pass) -> Tensor:
        return self.weight * found.code.z.abs().flatten(1).sum(1)


class TargetActivity(_Penalty):
    r"""Holds every unit's mean activity to a target, as coins with those probabilities (units between 0 and 1).

    .. math:: w \sum_j \rho \log \frac{\rho}{\hat\rho_j} + (1 - \rho) \log \frac{1 - \rho}{1 - \hat\rho_j}

    with rho-hat the activity over the batch: a statistic of the batch, the same for every row.

    Reference: Sparse autoencoder (Ng 2011, CS294A lecture notes, section 3).
    """

    def __init__(self, weight: float = 1.0, target: float = 0.05) -> None:
        super().__init__(weight)
        if not 0 < target < 1:
            raise ValueError(f"a target activity lies between 0 and 1; got target={target}")
        self.target = target

    def forward(self, model: Autoencoder, batch: Batch, found: Pass) -> Tensor:
        z = found.code.z
        active = z.mean(0).clamp(1e-6, 1 - 1e-6)
        target = torch.full_like(active, self.target)
        divergence = torch.special.xlogy(target, target / active)
        divergence = divergence + torch.special.xlogy(1 - target, (1 - target) / (1 - active))
        return (self.weight * divergence.sum()).expand(len(z))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, target={self.target:g}"
