"""Invertible maps that know how much they stretch: from a simple density to one of many shapes.

    log p(f(e)) = log p(e) - log |det df/de|

A flow is built as `flow(latent)` and called as `flow(e, h) -> (z, log_det)`: e and z (..., latent), h (..., features)
what it is told of a row, log_det (...) nats. `features` says how wide h is. That direction takes one pass through its
networks. Where `invertible` is true, `inverse(z, h) -> (e, log_det)` goes back in `latent` passes, log_det then being
that of the way back; and the flow can do without h, `flow(latent, features=0)`.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import linear, relu, softplus

# a flow is what is listed; `Masked` and `Flowed` are what flows and priors are made of
__all__ = ["IAF", "MAF", "NSF", "Planar"]


class Masked(nn.Module):
    r"""A perceptron whose outputs for unit i read only the units before i, and all of h (MADE).

    A hidden unit of degree m reads the inputs 1 to m; the outputs for unit i read hidden units of degree below i.
    Degrees are spread evenly, so that few hidden units serve a wide code too.

    Arguments: `outputs` numbers for each unit; `features` width of h; `hidden` widths.
    Shapes: z (..., latent), h (..., features) or None -> (..., latent, outputs).
    Reference: MADE (Germain et al., 2015), arXiv:1502.03509, equations 12 and 13.

    Example:
        >>> Masked(3, 2)(torch.zeros(5, 3)).shape
        torch.Size([5, 3, 2])
    """

    def __init__(self, latent: int, outputs: int, features: int = 0, hidden: tuple[int, ...] = (128,)) -> None:
        super().__init__()
        if latent < 1 or features < 0 or min((1, *hidden)) < 1:
            raise ValueError(
                "a masked network has at least one unit, and hidden layers of at least one; got "
                f"latent={latent}, features={features}, hidden={tuple(hidden)}"
            )
        self.latent, self.outputs = latent, outputs
        least = 0 if features else 1  # a hidden unit of degree 0 reads h alone
        steps = max(latent - least, 1)
        degrees = [torch.cat([torch.arange(1, latent + 1), torch.zeros(features, dtype=torch.int64)])]
        degrees += [least + torch.arange(width) * steps // width for width in hidden]
        last = torch.arange(latent).repeat_interleave(outputs)  # i - 1: the outputs for i read degrees up to that
        self.layers = nn.ModuleList(nn.Linear(len(a), len(b)) for a, b in pairwise([*degrees, last]))
        for number, (a, b) in enumerate(pairwise([*degrees, last])):
            self.register_buffer(f"mask{number}", (b[:, None] >= a).to(torch.get_default_dtype()), persistent=False)

    def forward(self, z: Tensor, h: Tensor | None = None) -> Tensor:
        x = z if h is None else torch.cat([z, h.expand(*z.shape[:-1], -1)], -1)
        for number, layer in enumerate(self.layers):
            x = relu(x) if number else x
            x = linear(x, layer.weight * getattr(self, f"mask{number}"), layer.bias)  # type: ignore[operator, arg-type]
        return x.unflatten(-1, (self.latent, self.outputs))


class Flowed(Distribution):
    """What becomes of draws from `base` under a map; `back(z)` gives (e, log_det), `there(e)` gives (z, log_det)."""

    has_rsample = True

    def __init__(
        self,
        base: Distribution,
        back: Callable[[Tensor], tuple[Tensor, Tensor]],
        there: Callable[[Tensor], tuple[Tensor, Tensor]],
    ) -> None:
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)
        self.base, self.back, self.there = base, back, there

    def log_prob(self, z: Tensor) -> Tensor:  # type: ignore[override]
        e, log_det = self.back(z)
        return self.base.log_prob(e) + log_det

    def rsample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:  # type: ignore[override]
        return self.there(self.base.rsample(torch.Size(sample_shape)))[0]


def _steps(length: int) -> int:
    if length < 1:
        raise ValueError(f"a flow has at least one step; got length={length}")
    return length


class Planar(nn.Module):
    r"""Steps that each push along one direction, as far as one hidden unit says; h holds all their parameters.

    .. math:: f(z) = z + \hat u \tanh(w^\top z + b), \quad
              \log \Big| \det \frac{\partial f}{\partial z} \Big| = \log \big| 1 + (1 - \tanh^2) \, w^\top \hat u \big|

    A step is invertible iff w.u >= -1. That is seen to by u-hat = u + (m(w.u) - w.u) w / |w|^2 with m(a) = log(1 +
    (e - 1) exp(a)) - 1: the paper's m moved so that m(0) = 0, since its own pushes u by 0.3 / |w| however small w is.

    Arguments: `length` steps.
    Shapes: z (..., latent), h (..., length (2 latent + 1)) -> (..., latent), (...). There is no inverse in closed form.
    Reference: Variational Inference with Normalizing Flows (Rezende & Mohamed, 2015), arXiv:1505.05770, equations 10 to
    12 and appendix A.1.
    """

    invertible = False

    def __init__(self, latent: int, length: int = 8) -> None:
        super().__init__()
        self.latent, self.length = latent, _steps(length)
        self.features = length * (2 * latent + 1)

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(())
        for u, w, b in (part.split([self.latent, self.latent, 1], -1) for part in h.chunk(self.length, -1)):
            along = (w * u).sum(-1, keepdim=True)
            allowed = softplus(along + math.log(math.e - 1)) - 1  # m, above -1
            u = u + (allowed - along) * w / (w.square().sum(-1, keepdim=True) + 1e-12)
            t = ((w * z).sum(-1, keepdim=True) + b).tanh()
            z = z + u * t
            log_det = log_det + torch.log1p((1 - t.square()) * (w * u).sum(-1, keepdim=True)).squeeze(-1)
        return z, log_det

    def extra_repr(self) -> str:
        return f"latent={self.latent}, length={self.length}"


class IAF(nn.Module):
    r"""Inverse autoregressive flow: every unit scaled and shifted by what stands before it.

    .. math:: z'_i = e^{\tanh s_i} z_i + m_i, \quad [m_i, s_i] = \text{network}(z_{<i}, h), \quad
              \log |\det| = \sum_i \tanh s_i

    Units stand in reverse order in every other step. A step stretches by a factor of e at most, either way, which keeps
    it stable as the paper's gate does, g z + (1 - g) m; but that begins by shrinking every unit and hardly moves any,
    and learns more slowly (on binarised MNIST 10 passes end 3 nats lower).

    Arguments: `features` width of h; `length` steps; `hidden` widths of each step's masked network.
    Shapes: z (..., latent), h (..., features) -> (..., latent), (...).
    Reference: Improved Variational Inference with Inverse Autoregressive Flow (Kingma et al., 2016), arXiv:1606.04934,
    equations 9 to 11.

    Example:
        >>> z, log_det = IAF(3, features=4)(torch.zeros(5, 3), torch.zeros(5, 4))
        >>> z.shape, log_det.shape
        (torch.Size([5, 3]), torch.Size([5]))
    """

    invertible = False

    def __init__(self, latent: int, features: int = 32, length: int = 2, hidden: tuple[int, ...] = (128,)) -> None:
        super().__init__()
        self.latent, self.features, self.length, self.hidden = latent, features, _steps(length), tuple(hidden)
        self.networks = nn.ModuleList(Masked(latent, 2, features, hidden) for _ in range(length))
        with torch.no_grad():
            for network in self.networks:
                network.layers[-1].weight.mul_(0.1)  # type: ignore[index, operator, union-attr]  # nearly a normal at first

    def forward(self, z: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = z.new_zeros(())
        for number, network in enumerate(self.networks):
            z = z.flip(-1) if number else z
            m, s = network(z, h).unbind(-1)
            stretch = s.tanh()
            z = m + stretch.exp() * z
            log_det = log_det + stretch.sum(-1)
        return z, log_det

    def extra_repr(self) -> str:
        return f"latent={self.latent}, features={self.features}, length={self.length}, hidden={self.hidden}"


class _Zuko(nn.Module):
    """A flow of the library zuko: the way that takes one pass, and the way back."""

    invertible = True

    def __init__(self, name: str, latent: int, features: int, length: int, **settings: Any) -> None:
        super().__init__()
        import zuko.flows

        self.latent, self.features, self.length = latent, features, _steps(length)
        self.transform = getattr(zuko.flows, name)(latent, features, transforms=length, **settings).transform

    def forward(self, z: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.transform(h).call_and_ladj(z)
        return found

    def inverse(self, z: Tensor, h: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The way back, (e, log_det of the way back)."""
        transform = self.transform(h)
        e = transform.inv(z)
        return e, -transform.call_and_ladj(e)[1]

    def __repr__(self) -> str:  # zuko's own draws random numbers
        return f"{type(self).__name__}({self.extra_repr()})"


class MAF(_Zuko):
    r"""Masked autoregressive flow: every unit scaled and shifted by what stands before it; `zuko`'s.

    .. math:: z'_i = \exp(s_i) z_i + m_i, \quad [m_i, s_i] = \text{network}(z_{<i}, h)

    Arguments: `features` width of h, 0 for none; `length` steps, every other with the units in reverse order; `hidden`
        widths of each step's masked network.
    Shapes: z (..., latent), h (..., features) or None -> (..., latent), (...).
    Reference: Masked Autoregressive Flow for Density Estimation (Papamakarios et al., 2017), arXiv:1705.07057.

    Example:
        >>> flow = MAF(3, features=0)
        >>> z, log_det = flow(torch.ones(5, 3))
        >>> torch.allclose(flow.inverse(z)[0], torch.ones(5, 3), atol=1e-5)
        True
    """

    def __init__(self, latent: int, features: int = 32, length: int = 3, hidden: tuple[int, ...] = (64, 64)) -> None:
        super().__init__("MAF", latent, features, length, hidden_features=tuple(hidden))
        self.hidden = tuple(hidden)

    def extra_repr(self) -> str:
        return f"latent={self.latent}, features={self.features}, length={self.length}, hidden={self.hidden}"


class NSF(_Zuko):
    """Neural spline flow: every unit through a monotonic rational-quadratic spline, shaped by what stands before it;
    `zuko`'s. Splines reach from -5 to 5, and values beyond stay as they are.

    Arguments: as `MAF`; `bins` pieces of each spline.
    Shapes: z (..., latent), h (..., features) or None -> (..., latent), (...).
    Reference: Neural Spline Flows (Durkan et al., 2019), arXiv:1906.04032, section 3.
    """

    def __init__(
        self,
        latent: int,
        features: int = 32,
        length: int = 3,
        hidden: tuple[int, ...] = (64, 64),
        bins: int = 8,
    ) -> None:
        super().__init__("NSF", latent, features, length, hidden_features=tuple(hidden), bins=bins)
        self.hidden, self.bins = tuple(hidden), bins

    def extra_repr(self) -> str:
        return (
            f"latent={self.latent}, features={self.features}, length={self.length}, hidden={self.hidden}, "
            f"bins={self.bins}"
        )
