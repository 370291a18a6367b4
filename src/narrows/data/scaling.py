"""From values as they are stored to model units and back."""

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["FARTHEST", "Scaling", "too_large"]

FARTHEST = 1e15  # spreads from the centre: beyond, every value is as odd; its square is a float32
LARGEST = 1e150  # of a number that is learned from: its square is a float64
Kind = Literal["counts", "identity", "levels", "standard"]


def too_large(low: float, high: float, source: str) -> None:
    """Raises ValueError for numbers that have no mean square."""
    if max(-low, high) > LARGEST:
        raise ValueError(
            f"{source} holds {high if high > -low else low:g}, and no scale is found for numbers beyond {LARGEST:g}: "
            "leave such cells or rows out"
        )


@dataclass(frozen=True)
class Scaling:
    r"""How stored values become float32 model units, and model units stored values again.

    .. math:: \text{identity, counts}: x \qquad
              \text{levels}: \frac{k}{L - 1},\ x = \text{low} + \text{step} \cdot k \qquad
              \text{standard}: \frac{x - \text{mean}}{\text{std}}

    Attributes: `kind`; `dtype` of the stored values; `low`, `step`, `levels` of the grid; `mean`, `std`, one per column
    or a single one for all values, from training rows only.
    Example:
        >>> scale = Scaling("levels", "uint8", levels=17)
        >>> scale(torch.tensor([[0, 8, 16]], dtype=torch.uint8))
        tensor([[0.0000, 0.5000, 1.0000]])
        >>> scale.undo(torch.tensor([[0.49, 1.2]]))
        array([[ 8, 16]], dtype=uint8)
        >>> scale.describe()
        'integers 0..16 scaled to 0..1 (17 levels)'
    """

    kind: Kind
    dtype: str
    low: float = 0.0
    step: float = 1.0
    levels: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    # mean and std as tensors, made once per device and dtype: a batch must not wait for them
    _held: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __call__(self, x: Tensor) -> Tensor:
        """Stored values (n, *event) to model units, float32, on the device of x."""
        if self.kind in ("identity", "counts"):
            return x.to(torch.float32)
        if self.kind == "levels":
            if not x.is_floating_point():
                k = x.to(torch.float32)
                k = k if self.low == 0 else k.sub_(self.low)
                return k.div_(self.step * (self.levels - 1))
            # rounded first, so that values written with an error stand on the grid exactly
            return ((x - self.low) / self.step).round_().to(torch.float32).div_(self.levels - 1)
        # what float32 cannot hold (seconds since 1970, say) is centred before it is rounded
        wide = x if x.dtype in (torch.float32, torch.float64) else x.to(torch.float64)
        mean, std = self._moments(wide)
        return wide.sub(mean).div_(std).clamp_(-FARTHEST, FARTHEST).to(torch.float32)

    def unscale(self, x: Tensor) -> Tensor:
        """Model units to stored units as a tensor that keeps its device and gradient; nothing is rounded."""
        if self.kind == "levels":
            return x * (self.step * (self.levels - 1)) + self.low
        if self.kind == "standard":
            mean, std = self._moments(x)
            return x * std + mean
        return x

    def undo(self, x: Tensor | NDArray[Any]) -> NDArray[Any]:
        """Model units (n, *event) to stored values in the stored dtype: on the grid, or rounded where it is integer."""
        values = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x, np.float64)
        dtype = np.dtype(self.dtype)
        if self.kind == "levels":
            k = np.rint(values * (self.levels - 1)).clip(0, self.levels - 1)
            # a fractional step is 1 / m, and k / m is what was stored where k * (1 / m) is off by a rounding
            values = self.low + (k * self.step if self.step >= 1 else k / round(1 / self.step))
        elif self.kind == "standard":
            values = values * self.std + self.mean
        if dtype.kind in "iu":
            info = np.iinfo(dtype)
            # int64's bounds are not floats; clipping to the neighbouring float inside keeps the cast defined
            high = np.nextafter(float(info.max), 0) if info.bits == 64 else info.max
            values = np.rint(values).clip(info.min, high)
        return values.astype(dtype)

    def describe(self) -> str:
        """One plain sentence, without a full stop."""
        if self.kind in ("identity", "counts"):
            return f"{'values' if self.kind == 'identity' else 'counts'} left as they are"
        if self.kind == "standard":
            what = "values" if len(self.mean) == 1 else f"each of {len(self.mean)} columns"
            return f"{what} scaled to mean 0 and standard deviation 1 of the training rows"
        if self.step < 1:
            return f"values k/{self.levels - 1} taken as {self.levels} levels of 0..1"
        low, high = round(self.low), round(self.low + self.step * (self.levels - 1))
        middle = ".." if self.step == 1 else f", {round(self.low + self.step)} .. "
        return f"integers {low}{middle}{high} scaled to 0..1 ({self.levels} levels)"

    def to_json(self) -> dict[str, Any]:
        """What this kind of scaling needs, and nothing else."""
        needed = {"levels": ("low", "step", "levels"), "standard": ("mean", "std")}.get(self.kind, ())
        values = {name: getattr(self, name) for name in ("kind", "dtype", *needed)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "Scaling":
        """The scaling of `to_json`. Raises TypeError where the record has other names."""
        values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in record.items()}
        return cls(**values)

    def _moments(self, like: Tensor) -> tuple[Tensor, Tensor]:
        key = (like.device, like.dtype)
        if key not in self._held:
            self._held[key] = (like.new_tensor(self.mean), like.new_tensor(self.std))
        return self._held[key]
