"""Networks of affine maps, from any shape to any other."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import linear, normalize, relu

from narrows import draws

__all__ = ["Dictionary", "Mlp", "Norm", "Residual", "bend", "ending", "mirrored"]


def bend(activation: str, inplace: bool = True) -> nn.Module:
    """What stands between affine maps: "relu", "tanh", or "leaky" for max(x, x / 10). Raises ValueError for others."""
    match activation:
        case "relu":
            return nn.ReLU(inplace)
        case "tanh":
            return nn.Tanh()
        case "leaky":
            return nn.LeakyReLU(0.1, inplace)
    raise ValueError(f'activation is "relu", "tanh" or "leaky"; got {activation!r}')


class Norm(nn.BatchNorm1d):
    """Batch normalisation (Ioffe & Szegedy 2015, arXiv:1502.03167); a batch of one row is scaled as in evaluation.

    Raises: RuntimeError in training by several processes, whose shares of a batch have other means than the batch.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or len(x) > 1:
            if self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
                raise RuntimeError(
                    "batch norm takes the whole batch in one process: train without torchrun, or norm=False"
                )
            return super().forward(x)
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def ending(network: nn.Module) -> Tensor | None:
    """The bias of the map that ends a network, where the network tells which that is (`last`)."""
    return getattr(getattr(network, "last", None), "bias", None)


def _join(x: Tensor, context: Tensor | None) -> Tensor:
    flat = x.flatten(1)
    return flat if context is None else torch.cat([flat, context], 1)


def _drop(x: Tensor, share: float, training: bool) -> Tensor:
    """Dropout whose noise is that of `draws`."""
    return draws.dropout(x, share) if share and training else x


def _share(dropout: float) -> float:
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout is a share of the hidden units of at least 0 and below 1; got dropout={dropout}")
    return dropout


class Mlp(nn.Module):
    """Fully connected layers with ReLU between them; `hidden=()` is an affine map.

    `dropout` is the share of hidden units that a training step leaves out (Srivastava et al. 2014). `activation` is
    "relu", or "tanh" as in many a published protocol, or "leaky"; `norm` for batch normalisation before it.

    Raises: ValueError for another activation, or a dropout that is no share.

    Shapes: (S, *inputs), context (S, context) or None -> (S, *outputs).

    Example:
        >>> Mlp((1, 28, 28), (32,), hidden=(512,))(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 32])
    """

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        context: int = 0,
        hidden: tuple[int, ...] = (512,),
        dropout: float = 0.0,
        activation: str = "relu",
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.outputs, self.dropout = tuple(outputs), _share(dropout)
        self.between = bend(activation)
        widths = [math.prod(inputs) + context, *hidden, math.prod(outputs)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(Norm(w) for w in hidden) if norm else [nn.Identity()] * len(hidden)

    @property
    def last(self) -> nn.Module:
        """The map that ends it."""
        return self.layers[-1]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = _join(x, context)  # (S, inputs + context)
        *hidden, last = self.layers
        for layer, norm in zip(hidden, self.norms, strict=True):
            x = _drop(self.between(norm(layer(x))), self.dropout, self.training)
        return last(x).view(-1, *self.outputs)

    def stages(self) -> list[nn.Module]:
        """Its layers one by one, with `between` to be put between them: they share the weights of this network."""
        norms = [*([norm] if isinstance(norm, Norm) else [] for norm in self.norms), []]
        return [nn.Sequential(nn.Flatten(), layer, *norm) for layer, norm in zip(self.layers, norms, strict=True)]


class Residual(nn.Module):
    r"""A residual perceptron whose every block reads the input again: a code that is told to all of a decoder.

    .. math:: h_0 = W x, \quad h_{l+1} = h_l + B_l \,\mathrm{relu}(A_l \,\mathrm{relu}(h_l) + S_l x), \quad
              y = V \,\mathrm{relu}(h_L)

    Shapes: (S, *inputs), context (S, context) or None -> (S, *outputs).
    References: Deep Residual Learning (He et al., 2015), arXiv:1512.03385; Avoiding Latent Variable Collapse with
    Generative Skip Models (Dieng et al., 2019), arXiv:1807.04863, equation 5, for the path from the code to each layer.

    Example:
        >>> Residual((16,), (1, 28, 28), width=64)(torch.zeros(5, 16)).shape
        torch.Size([5, 1, 28, 28])
    """

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        context: int = 0,
        width: int = 512,
        blocks: int = 2,
    ) -> None:
        super().__init__()
        if width < 1 or blocks < 1:
            raise ValueError(f"width and blocks are whole numbers of at least 1; got width={width}, blocks={blocks}")
        self.outputs, values = tuple(outputs), math.prod(inputs) + context
        self.first, self.last = nn.Linear(values, width), nn.Linear(width, math.prod(outputs))
        self.inner = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.again = nn.ModuleList(nn.Linear(values, width, bias=False) for _ in range(blocks))
        self.back = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = _join(x, context)  # (S, inputs + context)
        h = self.first(x)
        for inner, again, back in zip(self.inner, self.again, self.back, strict=True):
            h = h + back(relu(inner(relu(h)) + again(x)))
        return self.last(relu(h)).view(-1, *self.outputs)


class Dictionary(nn.Module):
    r"""One affine map between rows and the units of a sparse code; the side that is a vector is the code's.

    .. math:: h = W (x - c) + b, \qquad x = b' + \sum_j z_j \, d_j / |d_j|

    To an image or a likelihood's parameters (channels, *event) it is the decoder on the right, in which every unit
    stands for a direction of length 1: no step of training can change that, since the length is taken out in the
    forward pass. To a vector it is the encoder on the left. The origin c is a buffer, zero until `start` sets it.

    Shapes: (S, *inputs), context (S, context) or None -> (S, *outputs).

    Example:
        >>> Dictionary((32,), (1, 20)).directions.square().sum(1).allclose(torch.ones(32))
        True
    """

    def __init__(self, inputs: tuple[int, ...], outputs: tuple[int, ...], context: int = 0) -> None:
        super().__init__()
        self.outputs, self.decodes = tuple(outputs), len(outputs) > len(inputs)
        wide, high = math.prod(inputs), math.prod(outputs)
        self.weight = nn.Parameter(torch.empty((wide, high) if self.decodes else (high, wide + context)))
        nn.init.normal_(self.weight, std=self.weight.shape[1] ** -0.5)  # a unit is a row, of length about 1
        self.bias = nn.Parameter(torch.zeros(high))
        self.told = nn.Parameter(torch.randn(context, high) / high**0.5) if self.decodes and context else None
        self.centre: Tensor
        if not self.decodes:
            self.register_buffer("centre", torch.zeros(wide))

    @property
    def last(self) -> nn.Module:
        """The map that ends it, which is all of it."""
        return self

    @property
    def directions(self) -> Tensor:
        """What each unit of a decoder stands for, (units, values), of length 1."""
        return normalize(self.weight, dim=1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if self.decodes:
            rows = self.directions if self.told is None else torch.cat([self.directions, self.told])
            x = torch.addmm(self.bias, _join(x, context), rows)
        else:
            x = linear(_join(x.flatten(1) - self.centre, context), self.weight, self.bias)
        return x.view(-1, *self.outputs)


def mirrored(network: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The network for the way back: a perceptron's hidden widths in reverse order, anything else as it is.

    Example:
        >>> mirrored(partial(Mlp, hidden=(512, 64))).keywords["hidden"]
        (64, 512)
    """
    if isinstance(network, partial) and "hidden" in network.keywords:
        return partial(network, hidden=tuple(reversed(network.keywords["hidden"])))
    return network
