"""What the rungs of a ladder hold: some are kept, the others drawn anew."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from narrows import draws
from narrows.data import Rows
from narrows.evaluate.common import batches
from narrows.models import Ladder, Model

__all__ = ["redraw"]


@torch.no_grad()
def redraw(
    model: Model,
    data: Rows | Tensor,
    keep: int,
    n: int = 1,
    temperature: float | Sequence[float] = 1.0,
    seed: int = 0,
) -> Tensor:
    r"""E[x|z] of rows whose top `keep` rungs are kept and whose others are drawn from the prior, given them.

    .. math:: z_l = z_l(x) \ \text{for } l \le k, \qquad z_l \sim p(z_l \mid z_{<l}) \ \text{for } l > k

    What is alike among the draws of a row is what its top rungs say. All rungs kept are the reconstruction, none a
    sample; z(x) is the point code.

    Arguments: `n` draws a row; `temperature` multiplies the standard deviations of what is drawn, a number or one for
        each rung, top first.
    Returns: (n, rows, *event) in model units, on the CPU.
    Raises: TypeError for a code without rungs, ValueError for more rungs than there are, or n < 1.

    Example:
        >>> from narrows.recipes import ladder
        >>> model, _ = ladder((8,), rungs=(2, 4))
        >>> redraw(model, torch.ones(3, 8), keep=1, n=5).shape
        torch.Size([5, 3, 8])
    """
    if not isinstance(model, Ladder):
        raise TypeError(
            f"rungs are kept or redrawn, and the code of this model has none: its posterior is "
            f"{type(model.posterior).__name__}. Use recipe ladder, hvae, conv_ladder or vqvae2"
        )
    if n < 1:
        raise ValueError(f"redraw makes at least one row of each; got n={n}")
    posterior: Any = model.posterior
    found = []
    with draws.seeded(seed, 19, 0):
        for batch in batches(model, data):
            z = model.encode(batch.x, batch.context, n).z
            z = posterior.redrawn(z, keep, batch.context, temperature)
            found.append(model.decode(z, batch.context).mean.unflatten(0, (n, -1)).cpu())
    return torch.cat(found, 1)
