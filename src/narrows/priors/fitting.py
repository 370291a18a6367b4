"""Maximum likelihood by gradients, afterwards: what priors with weights have in common."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["climb"]


def climb(
    prior: nn.Module,
    score: Callable[..., Tensor],
    *codes: Tensor,
    steps: int,
    size: int = 256,
    rate: float = 5e-3,
    every: int = 50,
    patience: int = 10,
) -> None:
    """Raises the mean of `score` of some codes; a tenth of the codes says when to stop, and the best weights are kept.

    Adam on `size` codes a time for at most `steps` steps, whose size falls from `rate` along a cosine; it ends early
    when `patience` looks, one in `every` steps and one at the end, have brought nothing.

    Arguments: `codes` one or more tensors (n, ...) in the same order, which `score` is given a few rows of, to return
    their log p, (rows,) nats.
    """
    order = torch.randperm(len(codes[0]), device=codes[0].device)
    tenth = len(order) // 10
    held, taught = ([part[rows] for part in codes] for rows in (order[:tenth], order[tenth:]))
    optimiser = torch.optim.Adam(prior.parameters(), lr=rate)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    least, waited, best = math.inf, 0, copy.deepcopy(prior.state_dict())
    for step in range(steps):
        with torch.enable_grad():
            optimiser.zero_grad()
            some = torch.randint(len(order) - tenth, (min(size, len(order) - tenth),), device=order.device)
            (-score(*(part[some] for part in taught)).mean(0)).backward()
            optimiser.step()
            decay.step()
        if step % every == every - 1 or step == steps - 1:
            with torch.no_grad():
                loss = -float(score(*held).mean(0))
            waited += 1
            if loss < least:
                least, waited, best = loss, 0, copy.deepcopy(prior.state_dict())
            if waited == patience:
                break
    prior.load_state_dict(best)
    optimiser.zero_grad()
