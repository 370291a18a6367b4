"""From an image to an image of the same size, told of something on the way: the denoiser of a diffusion."""

import math
from itertools import pairwise

from torch import Tensor, nn
from torch.nn.functional import interpolate, silu

from narrows.networks.images import _halvings

__all__ = ["Unet"]


class _Block(nn.Module):
    """x + conv(silu(shift(norm(conv(x))))), the shift and scale of each channel said by what is told."""

    def __init__(self, channels: int, told: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(1, channels, affine=False)
        self.told = nn.Linear(told, 2 * channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        scale, shift = self.told(told)[..., None, None].chunk(2, 1)
        return x + self.second(silu(self.norm(self.first(silu(x))) * (1 + scale) + shift))


class Unet(nn.Module):
    """Residual convolutions down to at most 7 x 7 and up again, each size handing its image over to the way back.

    Images of any height and width from 8 x 8; each size is half of the last, rounded up. `width` counts the channels of
    the largest size, which double with each further one, up to 4 times `width`. What is read first are squares of
    `patch` x `patch` pixels: 2 makes it four times as quick. None takes 1 below 16 x 16 and 2 above. Without context it
    is told nothing.

    Shapes: (S, C, H, W), context (S, context) or None -> (S, *outputs), (..., H, W) with any number of channels.
    Raises: ValueError where the sides are not images of one size, at least 8 x 8, or for a width below 1.
    References: U-Net (Ronneberger et al., 2015), arXiv:1505.04597; told of the time, Denoising Diffusion Probabilistic
    Models (Ho et al., 2020), arXiv:2006.11239, appendix B.

    Example:
        >>> Unet((3, 9, 13), (3, 9, 13), context=2, width=4)(torch.zeros(5, 3, 9, 13), torch.zeros(5, 2)).shape
        torch.Size([5, 3, 9, 13])
    """

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: tuple[int, ...],
        context: int = 0,
        width: int = 32,
        patch: int | None = None,
    ) -> None:
        super().__init__()
        if len(inputs) < 3 or inputs[-2:] != outputs[-2:] or min(inputs[-2:]) < 8 or len(outputs) < 3:
            raise ValueError(
                f"Unet maps images of at least 8 x 8, shape (C, H, W), to images of that size; got {tuple(inputs)} -> "
                f"{tuple(outputs)}. Use network=Mlp or Residual for vectors and smaller images"
            )
        if width < 1 or (patch is not None and not 1 <= patch <= 4):
            raise ValueError(f"width is at least 1 and patch from 1 to 4; got width={width}, patch={patch}")
        self.outputs, self.patch = tuple(outputs), patch or (1 if min(inputs[-2:]) < 16 else 2)
        rows, columns = (-(-side // self.patch) for side in inputs[-2:])
        self.sizes = _halvings(rows, columns)
        if len(self.sizes) == 1:  # an image that is small already still gets one look at all of it
            self.sizes.append(((rows + 1) // 2, (columns + 1) // 2))
        wide = [width * min(2**i, 4) for i in range(len(self.sizes))]
        told = 4 * width
        self.told = nn.Sequential(nn.Linear(context, told), nn.SiLU()) if context else None
        kernel = 3 if self.patch == 1 else self.patch
        self.first = nn.Conv2d(math.prod(inputs[:-2]), width, kernel, self.patch, 1 if self.patch == 1 else 0)
        self.down = nn.ModuleList(_Block(n, told) for n in wide)
        self.halve = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(wide))
        self.middle = _Block(wide[-1], told)
        self.widen = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in pairwise(wide))
        self.up = nn.ModuleList(_Block(n, told) for n in wide[:-1])
        channels = math.prod(outputs[:-2])
        self.last = nn.Conv2d(width, channels * self.patch**2, 3, padding=1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        told = x.new_zeros(x.shape[0], self.down[0].told.in_features)  # type: ignore[union-attr, arg-type]
        if self.told is not None:
            told = self.told(context)
        height, width = self.outputs[-2:]
        x = x.reshape(x.shape[0], -1, height, width)
        rows, columns = self.sizes[0]
        x = nn.functional.pad(x, (0, columns * self.patch - width, 0, rows * self.patch - height))
        x, kept = self.first(x), []
        for block, halve in zip(self.down, [*self.halve, None], strict=True):
            x = block(x, told)
            if halve is not None:
                kept.append(x)
                x = halve(x)
        x = self.middle(x, told)
        for block, widen, old in zip(reversed(self.up), reversed(self.widen), reversed(kept), strict=True):  # type: ignore[call-overload]
            x = block(interpolate(widen(x), size=old.shape[-2:]) + old, told)
        x = nn.functional.pixel_shuffle(self.last(silu(x)), self.patch)[..., :height, :width]
        return x.reshape(-1, *self.outputs)
