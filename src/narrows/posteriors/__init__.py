"""q(z|x): from what an encoder says to a code and its price.

A posterior is a module called as `posterior(h, context, samples=1, draw=True) -> Code`. It asks the encoder for
`features` numbers a row. `draw=False` gives the point code (the mean), which is what `transform` and reconstructions
use. The encoder runs once whatever `samples` is. `prior` is p(z) or None; `density` says whether q can score its draws;
`closed` whether the rate is a KL in closed form, and not log q - log p of the draws. A posterior whose q(z|x) is a
normal gives it for h alone by `given(h)`. A code of codewords (`Discrete`) may ask for a map, `features` a shape, and
its `embed(index)` turns numbers of codewords into codes.
"""

from narrows.posteriors.choices import Concrete
from narrows.posteriors.densities import Flow, FullGaussian, Gaussian
from narrows.posteriors.maps import ResidualNormal
from narrows.posteriors.noised import Noised
from narrows.posteriors.points import Deterministic, Sparse
from narrows.posteriors.quantised import Discrete, Quantised
from narrows.posteriors.quantised_rungs import QuantisedRungs
from narrows.posteriors.rungs import BottomUp, Hierarchical, PrecisionWeighted, TopDown
from narrows.posteriors.scalars import FSQ

__all__ = [
    "FSQ",
    "BottomUp",
    "Concrete",
    "Deterministic",
    "Discrete",
    "Flow",
    "FullGaussian",
    "Gaussian",
    "Hierarchical",
    "Noised",
    "PrecisionWeighted",
    "Quantised",
    "QuantisedRungs",
    "ResidualNormal",
    "Sparse",
    "TopDown",
]
