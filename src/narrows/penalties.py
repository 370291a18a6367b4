"""What trains but is not information: terms of the equation that a model pays for its code or its weights.

A penalty is a module called as `penalty(model, batch, found) -> (S,)`, with `found` the `Pass` of this batch; several
are added. Each carries its weight.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import normalize

from narrows.activations import JumpReLU
from narrows.contract import Batch, Pass, repeated
from narrows.labels import labels_of
from narrows.models import Model
from narrows.networks import Dictionary
from narrows.posteriors import Noised, Sparse

__all__ = [
    "L0",
    "L1",
    "AuxK",
    "Contraction",
    "CrossEntropy",
    "DecoderSlope",
    "Denoising",
    "Energy",
    "Resampling",
    "TargetActivity",
    "Weights",
    "listed",
]


def listed(penalty: nn.Module | Iterable[nn.Module] | None) -> list[nn.Module]:
    """None, one penalty or several, as a list."""
    return [] if penalty is None else [penalty] if isinstance(penalty, nn.Module) else list(penalty)


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

    def forward(self, model: Model, batch: Batch, found: Pass) -> Tensor:
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


class CrossEntropy(_Penalty):
    r"""What the code says of the label, where the label is known; other rows pay nothing.

    .. math:: -w \log q(y \mid x)

    With M2 (Kingma et al. 2014, arXiv:1406.5298, equation 9) w is their alpha over the number of labelled rows: alpha =
    0.1 N there, so w = 0.1 N / N_labelled.

    Raises: TypeError for a code that has no label.
    """

    def forward(self, model: Model, batch: Batch, found: Pass) -> Tensor:
        if not labels_of(model) or found.code.h is None:
            raise TypeError(
                f"CrossEntropy teaches the label in a code, and {type(model.posterior).__name__} codes have none: use "
                "recipe semi_supervised or semi_supervised_aae"
            )
        if batch.label is None:
            return torch.zeros_like(found.code.penalty)
        label = repeated(batch.label, len(found.code.h) // len(batch.x))
        log_q = found.code.h.gather(1, label.clamp_min(0)[:, None])[:, 0]
        return -self.weight * torch.where(label >= 0, log_q, 0.0)


class DecoderSlope(_Penalty):
    r"""The decoder's squared slope at the code, w |d E[x|z] / dz|_F^2, estimated from `probes` random directions in x.

    Reference: From Variational to Deterministic Autoencoders (Ghosh et al., 2020), arXiv:1903.12436, section 3.1 (GP).
    """

    def __init__(self, weight: float = 0.1, probes: int = 1) -> None:
        super().__init__(weight)
        if probes < 1:
            raise ValueError(f"the decoder's slope is estimated from at least one direction; got probes={probes}")
        self.probes = probes

    def forward(self, model: Model, batch: Batch, found: Pass) -> Tensor:
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


class Denoising(_Penalty):
    r"""Weighs the steps of a diffusion's rate anew, so that the loss sees |e - e^|^2 alike at every step.

    .. math:: w \, \Big( \frac{1}{c_i} - 1 \Big) \, T \, \mathrm{KL}_i, \quad
              T \, \mathrm{KL}_i = c_i \, |e - \hat e(z_i, i)|^2

    With w = 1 the loss is distortion + KL at the top + |e - e^|^2, the simplified objective; with 0 the ELBO's. Neither
    rate nor bound is touched.

    Raises: TypeError for a model that is no diffusion.
    Reference: Denoising Diffusion Probabilistic Models (Ho et al., 2020), arXiv:2006.11239, equation 14.
    """

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__(weight)

    def forward(self, model: Model, batch: Batch, found: Pass) -> Tensor:
        posterior, step = model.posterior, found.code.index
        if not isinstance(posterior, Noised) or step is None:
            raise TypeError(
                f"Denoising weighs the steps of a diffusion, and {type(posterior).__name__} codes have none: use "
                "recipe diffusion"
            )
        with torch.no_grad():  # the top takes no network
            top = posterior.noise.top(model.hidden(batch.x, batch.context), posterior.prior()).sum(1)
        steps = found.code.rate - repeated(top, len(step) // len(batch.x))
        return self.weight * (1 / posterior.noise.shares(step[:, 0]) - 1).to(steps) * steps


class Energy(_Penalty):
    """Half the code's squared length, w |z|^2 / 2: what keeps a regularised autoencoder's codes from drifting apart
    (Ghosh et al. 2020, equation 6).
    """

    def forward(self, model: Model, batch: Batch, found: Pass) -> Tensor:
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

    def forward(self, model: Model, batch: Batch, found: Pass) -> Tensor:
        chosen = [model.encoder, model.decoder] if self.part == "both" else [getattr(model, self.part)]
        squares = [p.square().sum() for module in chosen for p in module.parameters() if p.dim() > 1]
        return self.weight * torch.stack(squares).sum().expand(len(found.code.z))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, part={self.part!r}"


class L1(_Penalty):
    """The code's absolute values, w |z|_1: few units carry much (sparse coding, Olshausen & Field 1996)."""

    def forward(self, model: Model, batch: Batch, found: Pass) -> Tensor:
        return self.weight * found.code.z.abs().flatten(1).sum(1)


class L0(_Penalty):
    r"""The number of units that fire, as the thresholds of `activations.JumpReLU` see it.

    .. math:: w \sum_j [h_j > \theta_j]

    Only the thresholds learn from it, by a pseudo-derivative.

    Raises: TypeError where the code has no such thresholds.
    Reference: Jumping Ahead (Rajamanoharan et al., 2024), arXiv:2407.14435, equations 9 and 12.
    """

    def forward(self, model: Model, batch: Batch, found: Pass) -> Tensor:
        activation = getattr(model.posterior, "activation", None)
        if not isinstance(activation, JumpReLU) or found.code.h is None:
            raise TypeError(
                f"L0 moves learned thresholds, and {type(activation or model.posterior).__name__} has none: take "
                "activation=JumpReLU, or L1 for codes without thresholds"
            )
        return self.weight * activation.fires(found.code.h).sum(1)


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

    def forward(self, model: Model, batch: Batch, found: Pass) -> Tensor:
        z = found.code.z
        active = z.mean(0).clamp(1e-6, 1 - 1e-6)
        target = torch.full_like(active, self.target)
        divergence = torch.special.xlogy(target, target / active)
        divergence = divergence + torch.special.xlogy(1 - target, (1 - target) / (1 - active))
        return (self.weight * divergence.sum()).expand(len(z))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, target={self.target:g}"


class _Idle(_Penalty):
    """Counts the rows since each unit last fired, in training steps only; a unit is dead after `after` of them."""

    most = 10_000_000  # rows; what Gao et al. 2024 wait (appendix A.2)

    def __init__(self, latent: int, weight: float, after: int | None) -> None:
        super().__init__(weight)
        if latent < 1 or (after is not None and after < 1):
            raise ValueError(f"units and rows to wait are at least 1; got latent={latent}, after={after}")
        self.latent, self.after = latent, after
        self.idle: Tensor
        self.register_buffer("idle", torch.zeros(latent, dtype=torch.int64))

    @torch.no_grad()
    def count(self, model: Model, batch: Batch, z: Tensor) -> Tensor:
        """Which units are dead, (latent,) bool, this batch included."""
        if not isinstance(model.posterior, Sparse):
            raise TypeError(
                f"{type(self).__name__} looks after units that stop firing, and those of "
                f"{type(model.posterior).__name__} codes do not: use recipe sparse, or leave this penalty away"
            )
        if self.training and batch.step is not None:  # a look at the loss is not training
            fired = model.posterior.fires(z).any(0)
            seen = torch.cat([fired, fired.new_ones(1)]).long() * len(batch.x)
            if distributed.is_available() and distributed.is_initialized():
                distributed.all_reduce(seen)
            self.idle.copy_(torch.where(seen[:-1] > 0, 0, self.idle + seen[-1]))
        return self.idle >= (self.after or min(batch.rows, self.most))

    def extra_repr(self) -> str:
        return f"latent={self.latent}, {super().extra_repr()}, after={self.after}"


class AuxK(_Idle):
    r"""Dead units learn to explain what the living ones leave over; for training only, in evaluation it is zero.

    .. math:: \tfrac{w}{2} \, \| e - \hat e \|^2, \quad e = x - \hat x, \quad \hat e = D z_\text{dead}

    with z_dead the `units` largest positive pre-activations of dead units; e is given, not learned. The half is that
    of a Gaussian with sigma = 1, so that w weighs it against the distortion as in the paper.

    Arguments: `units` k_aux, by the paper about half the values of a row; `after` rows without firing after which a
    unit counts as dead, None for one pass over the training rows (at most the paper's 10 million).
    Raises: ValueError for more units than there are, TypeError for codes that are not sparse.
    Reference: Scaling and evaluating sparse autoencoders (Gao et al., 2024), arXiv:2406.04093, appendix A.2.
    """

    def __init__(self, latent: int, units: int, weight: float = 1 / 32, after: int | None = None) -> None:
        super().__init__(latent, weight, after)
        if not 1 <= units <= latent:
            raise ValueError(f"AuxK takes from 1 to all {latent} units; got units={units}")
        self.units = units

    def forward(self, model: Model, batch: Batch, found: Pass) -> Tensor:
        z, h = found.code.z, found.code.h
        dead = self.count(model, batch, z)
        if not self.training or h is None or (h.is_cpu and not torch.compiler.is_compiling() and not dead.any()):
            return torch.zeros_like(found.code.penalty)  # elsewhere the question would make a step wait for the device
        values, index = h.masked_fill(~dead, -math.inf).topk(self.units, 1)
        z = torch.zeros_like(h).scatter(1, index, values.relu())
        nothing = torch.zeros_like(z if batch.context is not None else z[:1])
        # less what an empty code decodes to, so that of an affine decoder only the directions are left
        explained = model.decode(z, batch.context).mean - model.decode(nothing, batch.context).mean
        samples = len(z) // len(batch.x)
        missed = repeated(batch.target, samples) - found.px.mean.detach() - explained
        if batch.seen is not None:
            missed = torch.where(repeated(batch.seen, samples), missed, 0.0)
        return self.weight / 2 * missed.square().flatten(1).sum(1) * dead.any()

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, units={self.units}"


class Resampling(_Idle):
    """Gives dead units a new life at once: as directions, rows that the model explains badly.

    Every `every` steps `fit` calls `renew`. The penalty itself is zero.

    Arguments: `after` as in `AuxK`.
    Reference: Towards Monosemanticity (Bricken et al., 2023), appendix "Neuron resampling".
    """

    def __init__(self, latent: int, every: int = 1000, after: int | None = None) -> None:
        super().__init__(latent, 0.0, after)
        if every < 1:
            raise ValueError(f"every is a number of steps of at least 1; got every={every}")
        self.every = every

    def forward(self, model: Model, batch: Batch, found: Pass) -> Tensor:
        self.count(model, batch, found.code.z)
        return torch.zeros_like(found.code.penalty)

    @torch.no_grad()
    def renew(self, model: Model, batch: Batch) -> list[tuple[nn.Parameter, Tensor]]:
        """Sets the dead units from some rows; the parameters that changed, each with the rows of it that did.

        A row is drawn with probability proportional to its squared error squared. Its direction, of length 1, becomes
        the unit's; the encoder reads that direction at a fifth of the mean length of the living, without a bias.
        """
        encoder, decoder = model.encoder, model.decoder
        if not isinstance(encoder, Dictionary) or not isinstance(decoder, Dictionary):
            raise TypeError("Resampling writes directions into a Dictionary: take network=Dictionary, or AuxK")
        dead = self.idle >= (self.after or min(batch.rows, self.most))
        units = dead.nonzero().flatten()
        if not len(units):
            return []
        x = batch.target.flatten(1)
        was = model.training
        model.eval()
        error = (x - model(batch.x, batch.context).px.mean.flatten(1)).square().sum(1)
        model.train(was)
        chosen = torch.multinomial(error.square() + 1e-12, len(units), replacement=True)
        new = normalize(x[chosen] - decoder.bias[: x.shape[1]])
        length = encoder.weight[~dead].norm(dim=1).mean(0) if not dead.all() else encoder.weight.new_ones(())
        decoder.weight[units] = new
        encoder.weight[units, : x.shape[1]] = 0.2 * length * new
        encoder.bias[units] = 0.0
        self.idle[units] = 0
        return [(parameter, units) for parameter in (encoder.weight, encoder.bias, decoder.weight)]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, every={self.every}"
