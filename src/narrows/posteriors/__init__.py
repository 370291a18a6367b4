"""q(z|x): from what an encoder says to a code and its price.

A posterior is a module called as `posterior(h, context, samples=1, draw=True) -> Code`. It asks the encoder for
`features` numbers a row. `draw=False` gives the point code (the mean), which is what `transform` and reconstructions
use. The encoder runs once whatever `samples` is. `prior` is p(z) or None; `density` says whether q can score its draws;
`closed` whether the rate is a KL in closed form, and not log q - log p of the draws. A posterior whose q(z|x) is a
normal gives it for h alone by `given(h)`.
"""

from narrows.posteriors.choices import Concrete
from narrows.posteriors.densities import Flow, FullGaussian, Gaussian
from narrows.posteriors.noised import Noised
from narrows.posteriors.points import Deterministic, Sparse

__all__ = ["Concrete", "Deterministic", "Flow", "FullGaussian", "Gaussian", "Noised", "Sparse"]
