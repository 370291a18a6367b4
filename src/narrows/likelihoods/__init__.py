"""p(x|z): from what a decoder says to a distribution over the data.

A likelihood is a module built for one event shape. It asks the decoder for `channels` numbers per value, laid out
(S, channels, *event), and returns a `torch.distributions.Distribution` with batch (S,) and the event of x. Continuous
and grey values live in model units, pixels in 0..1; a value of a discrete likelihood with L levels is k / (L - 1);
counts are themselves.
"""

from narrows.likelihoods.columns import Column, Columns
from narrows.likelihoods.common import Likelihood, cells, log_prob
from narrows.likelihoods.counts import NegativeBinomial, Poisson
from narrows.likelihoods.levels import Bernoulli, Categorical, DiscretisedLogistic, LogisticMixture
from narrows.likelihoods.spread import Gaussian, Laplace

__all__ = [
    "Bernoulli",
    "Categorical",
    "Column",
    "Columns",
    "DiscretisedLogistic",
    "Gaussian",
    "Laplace",
    "Likelihood",
    "LogisticMixture",
    "NegativeBinomial",
    "Poisson",
    "cells",
    "log_prob",
]
