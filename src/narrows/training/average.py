"""The running average of the weights, which is judged and kept while the optimiser goes on with the raw ones."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["Average"]


class Average:
    r"""An exponential average of parameters over the steps; with `share = 0` there is none, and nothing is done.

    .. math:: \bar\theta \leftarrow d\, \bar\theta + (1 - d)\, \theta, \quad
              d = \min\Big(\text{share}, \frac{1 + t}{10 + t}\Big)

    after step t = 1, 2, ..., so that a short run is not held back by the weights it began with. Buffers are no part of
    it: those that learn (codebooks, statistics of batches) are running averages already, and are taken as they stand.

    Reference: Acceleration of Stochastic Approximation by Averaging (Polyak & Juditsky, 1992); in hierarchical VAEs
    Very Deep VAEs (Child, 2021), arXiv:2011.10650, whose share is 0.9999 at most.

    Example:
        >>> weight = nn.Parameter(torch.zeros(1))
        >>> average = Average([weight], share=0.5)
        >>> with torch.no_grad(): _ = weight.fill_(11.0)
        >>> average.step(1)
        >>> with average.shown(): print(round(float(weight.detach()), 4))  # (2 * 0 + 9 * 11) / 11
        9.0
        >>> float(weight.detach())
        11.0
    """

    def __init__(self, parameters: Iterable[nn.Parameter], share: float) -> None:
        self.parameters, self.share = list(parameters) if share else [], share
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def step(self, step: int) -> None:
        """Takes in the weights after so many steps."""
        if self.parameters:
            kept = min(self.share, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.values, self.parameters, 1 - kept)  # type: ignore[arg-type]

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Inside, the parameters hold the average."""
        with torch.no_grad():
            raw = [p.clone() for p in self.parameters]
            self._set(self.values)
        try:
            yield
        finally:
            with torch.no_grad():
                self._set(raw)

    def _set(self, values: list[Tensor]) -> None:
        for parameter, value in zip(self.parameters, values, strict=True):
            parameter.copy_(value)  # in place: whoever holds the tensor sees it

    @torch.no_grad()
    def forget(self, parameter: nn.Parameter, rows: Tensor) -> None:
        """Begins anew with some rows of a parameter, which were set anew."""
        for own, value in zip(self.parameters, self.values, strict=True):
            if own is parameter:
                value[rows] = parameter[rows]

    def state(self) -> dict[str, Tensor]:
        """The averages by the number of the parameter."""
        return {str(number): value for number, value in enumerate(self.values)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Puts them back. Raises KeyError where one is missing."""
        for name, value in self.state().items():
            value.copy_(state[name])
