"""What likelihoods have in common, and how their values are scored."""

import math

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, constraints

__all__ = ["Likelihood", "cells", "log_prob"]


def cells(px: Distribution, x: Tensor) -> Tensor:
    """Log p(x|z) of each value, before the sum over the event, (S, *event) nats."""
    if not isinstance(px, Independent):
        raise TypeError(f"only an Independent distribution has cells; this one is {type(px).__name__}")
    return px.base_dist.log_prob(x)


def log_prob(px: Distribution, x: Tensor, seen: Tensor | None = None) -> Tensor:
    """Log p(x|z) summed over the event, or over its observed cells only, (S,) nats."""
    if seen is None:
        return px.log_prob(x)
    # what was not seen may be NaN, whose gradient no later mask takes back; 0 lies in every support
    return torch.where(seen, cells(px, torch.where(seen, x, 0.0)), 0.0).flatten(1).sum(1)


class Likelihood(nn.Module):
    """What likelihoods have in common: the event's shape, and the layout of what the decoder says.

    Attributes: `shape` of the event; `channels`, numbers wanted from the decoder per value; `discrete`, whether
    probabilities (not densities) of the values come out, so that bits/dim have a meaning; `counts`, whether values are
    counts as they are stored, 0, 1, 2, ...; `support`, which values have a likelihood at all.
    """

    channels = 1
    discrete = False
    counts = False
    support: constraints.Constraint = constraints.real

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    @property
    def wants(self) -> tuple[int, ...]:
        """Shape of the decoder's output for one row: (channels, *event)."""
        return (self.channels, *self.shape)

    @property
    def reads(self) -> tuple[int, ...]:
        """Shape of what an encoder reads of one row, that of `shown`."""
        return self.shape

    def forward(self, parameters: Tensor, context: Tensor | None = None) -> Distribution:
        """Parameters (S, channels, *event), or anything of that many numbers a row, to p(x|z)."""
        if parameters.shape[1:].numel() != math.prod(self.wants):
            raise ValueError(
                f"{type(self).__name__} over {self.shape} wants {self.wants} numbers a row from the decoder; "
                f"it gave {tuple(parameters.shape[1:])}"
            )
        base = self.values(parameters.reshape(-1, *self.wants), context)
        return Independent(base, len(self.shape), validate_args=False)

    def values(self, parameters: Tensor, context: Tensor | None = None) -> Distribution:
        """The distribution of each value: batch (S, *event), event ()."""
        raise TypeError("Likelihood is abstract: use Bernoulli, Gaussian, Categorical or DiscretisedLogistic")

    def shown(self, x: Tensor) -> Tensor:
        """What an encoder reads of x: x itself, but of counts, which may differ a thousandfold, log(1 + x)."""
        return torch.log1p(x.clamp_min(0)) if self.counts else x  # a corruption may have gone below

    def usual(self, x: Tensor) -> Tensor | None:
        """What a decoder that knows nothing of a row says best, (channels, *event), from rows x (n, *event), NaN where
        nothing was seen: where its last bias begins. None where that has no closed form.
        """
        return None

    def seen_through(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Parameters (S, channels, *event) for values that were seen as x (S, *event) through normal noise of width
        sigma, on the scale that an encoder is shown: what a diffusion knows of a row in the end.
        """
        raise TypeError(
            f"{type(self).__name__} does not say what is known of a value seen through noise. Use Gaussian for "
            "numbers, DiscretisedLogistic for levels, Bernoulli for 0 and 1, or write its seen_through"
        )

    def extra_repr(self) -> str:
        return f"shape={self.shape}"
