"""Convolutions between images and grids of vectors."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

__all__ = ["Grid"]


class _Block(nn.Module):
    """ReLU, 3 x 3, ReLU, 1 x 1, and what came in."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(width, width, 3, padding=1)
        self.outer = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(relu(self.inner(relu(x))))


def _halvings(image: tuple[int, ...], grid: tuple[int, ...]) -> int:
    """How often an image is halved to become the grid. Raises ValueError where no halving leads there."""
    (height, width), (rows, columns) = image[-2:], grid[-2:]
    sides = [(height, rows), (width, columns)]
    times = max(0, round(math.log2(max(max(a / b for a, b in sides), 1))))
    if all(a == b << times for a, b in sides):
        return times
    factor = 1 << times
    if not all(b == -(-a // factor) for a, b in sides):
        raise ValueError(
            f"Grid halves both sides of an image the same number of times, and none leads from {height} x {width} to a "
            f"grid of {rows} x {columns}: take grid=({-(-height // 4)}, {-(-width // 4)}) for two halvings"
        )
    raise ValueError(
        f"images of {height} x {width} are not divisible by {factor}, as a grid of {rows} x {columns} asks: use --size "
        f"{rows * factor}x{columns * factor} where they come from a folder, or pad the array to that"
    )


class Grid(nn.Module):
    """Convolutions from an image to a grid of vectors, one for each patch of it; or the same backwards.

    An image (channels, ..., H, W) on one side, a map (d, h, w) on the other, of which H / h = W / w is a power of 2:
    as many strided 4 x 4 convolutions, and `blocks` residual ones at the size of the grid, all of `width` channels.
    Context joins as constant feature maps. Of two equal sides inputs are the image, as for an encoder.

    Shapes: (S, C, H, W) -> (S, d, h, w), or (S, d h w) or (S, d, h, w) -> (S, ..., H, W).
    Raises: ValueError where a side is no image or grid, or the image is not divisible for the grid.
    Reference: Neural Discrete Representation Learning (van den Oord et al., 2017), arXiv:1711.00937, section 4.1, whose
    width is 256.

    Example:
        >>> Grid((1, 28, 28), (64, 7, 7))(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 64, 7, 7])
        >>> Grid((64, 7, 7), (2, 1, 28, 28))(torch.zeros(5, 64 * 7 * 7)).shape
        torch.Size([5, 2, 1, 28, 28])
    """

    def __init__(
        self, inputs: tuple[int, ...], outputs: tuple[int, ...], context: int = 0, width: int = 64, blocks: int = 2
    ) -> None:
        super().__init__()
        if min(len(inputs), len(outputs)) < 3:
            raise ValueError(
                f"Grid maps images (C, H, W) to grids of vectors (d, h, w) or back; got {tuple(inputs)} -> "
                f"{tuple(outputs)}. Give the code a grid, such as grid=(7, 7) in recipe vqvae, or use network=Mlp"
            )
        if width < 1 or blocks < 0:
            raise ValueError(f"width is at least 1 and blocks at least 0; got width={width}, blocks={blocks}")
        self.inputs, self.outputs = tuple(inputs), tuple(outputs)
        self.decodes = outputs[-2] * outputs[-1] > inputs[-2] * inputs[-1]
        times = _halvings(outputs, inputs) if self.decodes else _halvings(inputs, outputs)
        before, after = (math.prod(shape[:-2]) for shape in (inputs, outputs))
        residual = [_Block(width) for _ in range(blocks)]
        layers: list[nn.Module]
        if self.decodes:
            layers = [nn.Conv2d(before + context, width, 3, padding=1), *residual]
            channels = [width] * times + [after]
            for a, b in pairwise(channels):
                layers += [nn.ReLU(), nn.ConvTranspose2d(a, b, 4, stride=2, padding=1)]
        else:
            layers, channels = [], [before + context] + [width] * times
            for a, b in pairwise(channels):
                layers += [nn.Conv2d(a, b, 4, stride=2, padding=1), nn.ReLU()]
            layers += [nn.Conv2d(channels[-1], width, 3, padding=1), *residual, nn.ReLU(), nn.Conv2d(width, after, 1)]
        self.layers = nn.Sequential(*layers)

    @property
    def last(self) -> nn.Module:
        """The map that ends it."""
        return self.layers[-1]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = x.reshape(x.shape[0], -1, *self.inputs[-2:])
        if context is not None:
            x = torch.cat([x, context[:, :, None, None].expand(-1, -1, *x.shape[-2:])], 1)
        return self.layers(x).reshape(-1, *self.outputs)
