"""Plain networks from one shape to another: the functions h(x) and theta(z) of the equation.

A network is built as `network(inputs, outputs, context)`, with shapes of one row and the number of context features,
and called as `network(x, context)`. Any module with that call will do in their place.
"""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, normalize, relu

from narrows import draws

__all__ = ["Conv", "Dictionary", "Mlp", "Residual", "mirrored"]


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
    "relu", or "tanh" as in many a published protocol.

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
    ) -> None:
        super().__init__()
        if activation not in ("relu", "tanh"):
            raise ValueError(f'activation is "relu" or "tanh"; got {activation!r}')
        self.outputs, self.dropout = tuple(outputs), _share(dropout)
        self.between = nn.ReLU(inplace=True) if activation == "relu" else nn.Tanh()
        widths = [math.prod(inputs) + context, *hidden, math.prod(outputs)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = _join(x, context)  # (S, inputs + context)
        *hidden, last = self.layers
        for layer in hidden:
            x = _drop(self.between(layer(x)), self.dropout, self.training)
        return last(x).view(-1, *self.outputs)

    def stages(self) -> list[nn.Module]:
        """Its layers one by one, with `between` to be put between them: they share the weights of this network."""
        return [nn.Sequential(nn.Flatten(), layer) for layer in self.layers]


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


def _halvings(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes from (height, width) down, each half of the last rounded up, until the longer side is at most 7."""
    sizes = [(height, width)]
    while max(sizes[-1]) > 7:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes


class Conv(nn.Module):
    """Convolutions that halve an image to at most 7 x 7 and one dense layer; or the same backwards.

    Images of any height, width and number of channels, on either side: an image in and a vector out is an encoder, a
    vector in and an image (channels, ..., H, W) out a decoder. `width` counts the channels of the first halving; they
    double with each further one, up to 8 times `width`. Context joins the vector side. `dropout` as in `Mlp`.

    Shapes: (S, C, H, W) -> (S, *outputs), or (S, *inputs) -> (S, ..., H, W).
    Raises: ValueError where neither side is an image, or an image is smaller than 8 x 8.

    Example:
        >>> Conv((3, 30, 45), (32,))(torch.zeros(5, 3, 30, 45)).shape
        torch.Size([5, 32])
        >>> Conv((16,), (2, 3, 30, 45))(torch.zeros(5, 16)).shape
        torch.Size([5, 2, 3, 30, 45])
    """

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        context: int = 0,
        width: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = _share(dropout)
        self.decodes = len(outputs) >= 3
        image = outputs if self.decodes else inputs
        if len(image) < 3 or min(image[-2:]) < 8:
            raise ValueError(
                f"Conv maps images of at least 8 x 8, shape (C, H, W), to a vector or back; got {tuple(inputs)} -> "
                f"{tuple(outputs)}. Use network=Mlp for vectors and smaller images"
            )
        self.outputs = tuple(outputs)
        self.sizes = _halvings(*image[-2:])
        channels = [math.prod(image[:-2]), *(width * min(2**i, 8) for i in range(len(self.sizes) - 1))]
        self.top = (channels[-1], *self.sizes[-1])
        if self.decodes:
            self.dense = nn.Linear(math.prod(inputs) + context, math.prod(self.top))
            # kernel 4 at stride 2 covers every pixel evenly; an odd size is cropped from the doubled one
            self.layers = nn.ModuleList(
                nn.ConvTranspose2d(b, a, 4, stride=2, padding=1) for a, b in reversed(list(pairwise(channels)))
            )
        else:
            self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(channels))
            self.dense = nn.Linear(math.prod(self.top) + context, math.prod(outputs))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        if not self.decodes:
            for layer in self.layers:
                x = _drop(relu(layer(x), inplace=True), self.dropout, self.training)
            return self.dense(_join(x, context)).unflatten(1, self.outputs)
        x = self.dense(_join(x, context)).unflatten(1, self.top)
        for layer, (height, width) in zip(self.layers, self.sizes[-2::-1], strict=True):
            x = layer(_drop(relu(x, inplace=True), self.dropout, self.training))[..., :height, :width]
        return x.reshape(-1, *self.outputs)

    def stages(self) -> list[nn.Module]:
        """Its layers one by one, with a ReLU to be put between them: they share the weights of this network."""
        dense = nn.Sequential(nn.Flatten(), self.dense)
        if not self.decodes:
            return [*self.layers, dense]
        stages: list[nn.Module] = [dense]
        sizes = self.sizes[::-1]
        for layer, before, after in zip(self.layers, sizes, sizes[1:], strict=False):
            shape = (int(layer.in_channels), *before)  # type: ignore[arg-type]
            stages.append(nn.Sequential(nn.Flatten(), nn.Unflatten(1, shape), layer, _Crop(*after)))
        return stages


class _Crop(nn.Module):
    """The upper left corner of an image."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height, self.width = height, width

    def forward(self, x: Tensor) -> Tensor:
        return x[..., : self.height, : self.width]


def mirrored(network: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The network for the way back: a perceptron's hidden widths in reverse order, anything else as it is.

    Example:
        >>> mirrored(partial(Mlp, hidden=(512, 64))).keywords["hidden"]
        (64, 512)
    """
    if isinstance(network, partial) and "hidden" in network.keywords:
        return partial(network, hidden=tuple(reversed(network.keywords["hidden"])))
    return network
