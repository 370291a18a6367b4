"""Residual cells: what deep convolutional hierarchies are made of, on their way up and on their way down."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, gelu, interpolate, linear, pixel_shuffle

__all__ = ["Cell", "Cells", "halved", "image", "larger", "smaller"]

Size = tuple[int, int]


def image(shape: Sequence[int]) -> tuple[int, int, int]:
    """A row's shape as channels, height and width; one that is no image is a single pixel of many channels.

    Example:
        >>> image((3, 32, 48)), image((5, 1, 28, 28)), image((20,))
        ((3, 32, 48), (5, 28, 28), (20, 1, 1))
    """
    height, width = shape[-2:] if len(shape) >= 3 else (1, 1)
    return math.prod(shape) // (height * width), height, width


def halved(size: Size, times: int = 1) -> Size:
    """A height and width divided by two and rounded up, so many times.

    Example:
        >>> halved((28, 45)), halved((28, 45), 3)
        ((14, 23), (4, 6))
    """
    return -(-size[0] // 2**times), -(-size[1] // 2**times)


def shrunk(size: Size, patch: int) -> Size:
    """A height and width in patches of a side that is a power of 2. Raises: ValueError for another side.

    Example:
        >>> shrunk((28, 45), 4)
        (7, 12)
    """
    if patch < 1 or patch & (patch - 1):
        raise ValueError(f"a patch is a power of 2 high and wide: 1, 2, 4 ...; got patch={patch}")
    return halved(size, patch.bit_length() - 1)


def smaller(x: Tensor) -> Tensor:
    """A map at half its height and width, rounded up: means of 2 x 2 places, of fewer at an odd edge."""
    return avg_pool2d(x, 2, ceil_mode=True)


def larger(x: Tensor, size: Size) -> Tensor:
    """A map at twice its height and width, or at one less of either, `size`: every place stands for 2 x 2."""
    return interpolate(x, scale_factor=2.0)[..., : size[0], : size[1]]


def mapped(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution of a map whose channels lie side by side in memory; one of 1 x 1 is an affine map of each place,
    which takes half the time so, or less: on small maps a convolution is mostly its own overhead.
    """
    if layer.kernel_size == (1, 1):
        return linear(x.movedim(1, -1), layer.weight.flatten(1), layer.bias).movedim(-1, 1)
    return layer(x)


class Cell(nn.Module):
    r"""A narrow branch of four convolutions, to be added to its input where both have as many channels.

    .. math:: y = x + C_4\, g(C_3\, g(C_2\, g(C_1\, g(x))))

    with g = GELU; the outer convolutions are 1 x 1, the inner ones 3 x 3 between `inner` channels, which costs a
    fraction of two 3 x 3 at full width. On maps of at most 2 x 2 places all are 1 x 1. The last one's weights begin
    multiplied by `scale`, so that a stack of n cells with scale n^(-1/2) neither grows nor fades with its depth.

    Shapes: (S, inputs, h, w) -> (S, outputs, h, w). `residual` needs as many outputs as inputs.
    References: Identity Mappings in Deep Residual Networks (He et al., 2016), arXiv:1603.05027; Very Deep VAEs (Child,
    2021), arXiv:2011.10650, figure 3 and section 3.

    Example:
        >>> Cell(8, 8, (7, 7), residual=True)(torch.zeros(2, 8, 7, 7)).shape
        torch.Size([2, 8, 7, 7])
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: Size,
        inner: int | None = None,
        residual: bool = False,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.residual, inner = residual, inner or max(min(inputs, outputs) // 2, 4)
        kernel = 3 if max(size) > 2 else 1
        widths = ((inputs, inner, 1), (inner, inner, kernel), (inner, inner, kernel), (inner, outputs, 1))
        layers = [nn.Conv2d(a, b, k, padding=k // 2) for a, b, k in widths]
        self.layers: Any = nn.ModuleList(layers)
        with torch.no_grad():
            layers[-1].weight.mul_(scale)

    def forward(self, x: Tensor) -> Tensor:
        y = x = x.contiguous(memory_format=torch.channels_last)
        for layer in self.layers:
            y = mapped(layer, gelu(y))
        return x + y if self.residual else y


class Cells(nn.Module):
    """An image to a map of its patches, by a strided convolution and residual cells; or a map back.

    The cells are as wide as the map, a place for every `patch` x `patch` pixels, and the way back ends in a shuffle of
    pixels. The map of an encoder is flat, as codes are: its numbers are those of width x h x w. A row that is no image
    is one pixel of many channels, and so is its map. Context is added to every place of the map.

    Shapes: (S, *inputs), context (S, context) or None -> (S, width h w); or (S, width, h, w) -> (S, *outputs).
    Raises: ValueError for numbers that make no map of the image's patches, or a map that is of no such size.
    Reference: for the shuffle Shi et al. 2016, arXiv:1609.05158, section 3.2.

    Example:
        >>> Cells((3, 30, 45), (8 * 15 * 23,))(torch.zeros(5, 3, 30, 45)).shape
        torch.Size([5, 2760])
        >>> Cells((8, 15, 23), (2, 3, 30, 45))(torch.zeros(5, 8, 15, 23)).shape
        torch.Size([5, 2, 3, 30, 45])
    """

    def __init__(
        self, inputs: tuple[int, ...], outputs: tuple[int, ...], context: int = 0, depth: int = 1, patch: int = 2
    ) -> None:
        super().__init__()
        self.up, self.outputs = len(outputs) > 1, tuple(outputs)
        wide, *size = image(outputs if self.up else inputs)
        self.size = (size[0], size[1])
        if self.up:
            width, *place = self.inputs = image(inputs)
        else:
            self.inputs, place = image(inputs), list(shrunk(self.size, patch))
            width = math.prod(outputs) // math.prod(place)
        halvings = next((n for n in range(17) if halved(self.size, n) == tuple(place)), None)
        if halvings is None or not width or (not self.up and math.prod(outputs) % math.prod(place)):
            raise ValueError(
                f"Cells leads from an image to a map of its patches, {patch} x {patch}, or from a map of patches back "
                f"to the image; got {tuple(inputs)} -> {tuple(outputs)}. Use network=Conv or Mlp for other shapes"
            )
        self.times, own = 2**halvings, (place[0], place[1])
        self.told = nn.Linear(context, width, bias=False) if context else None
        self.cells = nn.Sequential(*(Cell(width, width, own, residual=True, scale=depth**-0.5) for _ in range(depth)))
        flat = 3 if max(own) > 2 else 1  # on a map a convolution reads no further than the map goes
        if self.up:
            self.last = nn.Conv2d(width, wide * self.times**2, flat, padding=flat // 2)
        else:
            kernel = self.times + 1 if self.times > 1 else flat  # no pixel is stepped over
            self.last = nn.Conv2d(wide, width, kernel, stride=self.times, padding=kernel // 2)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        x = x.reshape(-1, *self.inputs)
        if not self.up:
            x = self.last(x)  # (S, width, h, w)
        if self.told is not None:
            x = x + self.told(context)[:, :, None, None]
        x = self.cells(x)
        if self.up:
            x = pixel_shuffle(self.last(gelu(x)), self.times)[..., : self.size[0], : self.size[1]]
        return x.reshape(-1, *self.outputs)
