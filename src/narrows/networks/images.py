"""Convolutions, from images to vectors and back."""

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import relu

from narrows.networks.dense import _drop, _join, _share

__all__ = ["Conv"]


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
                f"{tuple(outputs)}. Use network=Mlp for vectors and smaller images, Grid for grids of vectors"
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

    @property
    def last(self) -> nn.Module:
        """The map that ends it."""
        return self.layers[-1] if self.decodes else self.dense

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
