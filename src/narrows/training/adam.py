"""Adam over torch's fused kernel, without the bookkeeping of a general optimiser: a tenth of a small step on a CPU."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["Adam"]


class Adam:
    """Adam with beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8 (Kingma & Ba 2014, arXiv:1412.6980, algorithm 1).

    The result is that of `torch.optim.Adam(fused=True)` to the last bit: a parameter without a gradient is passed over.

    Arguments: `parameters` on one device; `lr`, the step size alpha, may be changed between steps.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float) -> None:
        self.parameters, self.lr = list(parameters), lr
        self.means = [torch.zeros_like(p) for p in self.parameters]
        self.squares = [torch.zeros_like(p) for p in self.parameters]
        self.steps = torch.zeros(len(self.parameters), device=self.parameters[0].device)
        self.counts = self.steps.unbind()  # views: all of them move in one addition

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for p in self.parameters:
            p.grad = None

    @torch.no_grad()
    def step(self, left_out: Tensor | None = None) -> None:
        """Moves every parameter that has a gradient; none where `left_out`, a number on the device, is 1."""
        every = zip(self.parameters, self.means, self.squares, self.counts, strict=True)
        some = [(p, p.grad, mean, square, count) for p, mean, square, count in every if p.grad is not None]
        counted = 1 if left_out is None else 1 - left_out
        if len(some) == len(self.parameters):
            self.steps += counted
        else:
            torch._foreach_add_([count for *_, count in some], counted)
        if not some:
            return
        p, grads, means, squares, counts = map(list, zip(*some, strict=True))
        torch._fused_adam_(
            p, grads, means, squares, [], counts, lr=self.lr, beta1=0.9, beta2=0.999, weight_decay=0.0, eps=1e-8,
            amsgrad=False, maximize=False, grad_scale=None, found_inf=left_out,
        )  # fmt: skip

    def forget(self, parameter: nn.Parameter, rows: Tensor) -> None:
        """Zeroes the means and squares of some rows of a parameter, which were set anew."""
        number = next(i for i, p in enumerate(self.parameters) if p is parameter)
        self.means[number][rows] = 0.0
        self.squares[number][rows] = 0.0

    def state(self) -> dict[str, Tensor]:
        """Step counts, means and squares as they stand, the latter by the number of the parameter."""
        kept = {f"mean.{number}": t for number, t in enumerate(self.means)}
        return {"steps": self.steps, **kept, **{f"square.{number}": t for number, t in enumerate(self.squares)}}

    def load(self, state: dict[str, Tensor]) -> None:
        """Puts them back. Raises KeyError where one is missing."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])
