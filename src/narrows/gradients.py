r"""How a bound is differentiated: estimators of one and the same gradient, as settings of `Objective(gradient=...)`.

The encoder's part of a gradient is that of an expectation over draws whose distribution it moves. With f a draw's share
of the objective there are two ways to it, of which the first needs z = z(\phi, noise) and a slope of f,

.. math:: \nabla_\phi E_q f(z)
          = E \Big[ \frac{\partial f}{\partial z} \frac{\partial z}{\partial \phi} + \partial_\phi f \Big]
          = E_q \big[ f(z) \, \nabla_\phi \log q(z \mid x) + \partial_\phi f \big],

and each leaves room for terms of mean zero, by which estimators differ. The value of the loss, and so all that is
logged or compared, is the same for all of them.

An estimator has `passes(model, batch, samples)`, which gives the pass as it is and as it is to be scored, and is called
as `gradient(objective, model, batch, drawn) -> (B,)`, the bound with its gradient.
"""

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor, nn

from narrows import draws
from narrows.contract import Batch, Code, Pass
from narrows.models import Model
from narrows.networks import Mlp
from narrows.objectives import Draws, Objective, elbo, iwae, miwae

__all__ = [
    "DoublyReparameterised",
    "Piwae",
    "Reparameterised",
    "ScoreFunction",
    "StickingTheLanding",
    "Vimco",
]


class Reparameterised(nn.Module):
    r"""The derivative along the path z = mu + sigma eps, as automatic differentiation has it: what None stands for.

    Reference: Auto-Encoding Variational Bayes (Kingma & Welling, 2013), arXiv:1312.6114, section 2.4.

    Example:
        >>> from narrows.recipes import vae
        >>> model, objective = vae((8,), latent=2, gradient=StickingTheLanding(), rate="sampled")
        >>> objective.equation
        'distortion + rate, differentiated by StickingTheLanding()'
    """

    rates: ClassVar[tuple[str, ...]] = ("closed", "sampled")  # which are admitted
    bounds: ClassVar[tuple[Callable[..., Tensor], ...]] = ()  # which are admitted; none named: all
    scores = False  # whether it asks q for the density of a draw
    slopes = True  # whether draws must follow the encoder; where not, they may be choices
    apart = True  # whether a sampled rate can be differentiated apart from the bound, as a capacity does

    def __init__(self) -> None:
        super().__init__()

    @property
    def least(self) -> int:
        """Draws that it takes at least."""
        return 1

    def check(self, objective: Objective) -> None:
        """Raises ValueError for a bound, a rate or a number of draws that the estimator does not admit."""
        name, bound = type(self).__name__, getattr(objective.bound, "func", objective.bound)
        if objective.rate not in self.rates:
            raise ValueError(
                f'{name} differentiates densities of single draws: it needs rate="sampled"; got {objective.rate!r}'
            )
        if self.bounds and bound not in self.bounds:
            admitted = " or ".join(b.__name__ for b in self.bounds)
            raise ValueError(f"{name} is an estimator for bound={admitted}; got {bound.__name__}")
        if objective.samples < self.least:
            raise ValueError(f"{name} takes at least samples={self.least} draws a row; got {objective.samples}")
        if objective.capacity and objective.rate == "sampled" and not self.apart:
            raise ValueError(
                f"{name} differentiates the bound as a whole, and a capacity takes its sampled rate apart: leave one "
                "of them out"
            )

    def passes(self, model: Model, batch: Batch, samples: int) -> tuple[Pass, Pass]:
        """The pass with its code as drawn, for penalties and discrepancies, and as the bound is to score it."""
        found = model(batch.x, batch.context, samples)
        return found, found

    def forward(self, objective: Objective, model: Model, batch: Batch, drawn: Draws) -> Tensor:
        """The bound (B,) with this estimator's gradient."""
        return objective.bound(drawn.distortion, drawn.rate, drawn.beta)


class _Scoring(Reparameterised):
    """What the others have in common: they read the code anew, and ask q for the density of a draw."""

    scores = True

    def passes(self, model: Model, batch: Batch, samples: int) -> tuple[Pass, Pass]:
        code = model.encode(batch.x, batch.context, samples, draw=True)
        if code.q is None or code.p is None:
            raise TypeError(
                f"{type(self).__name__} asks q(z|x) and p(z) for the density of any code, and this posterior or prior "
                "has none or can score only its own draws. Use gradient=None, or a posterior such as "
                "Gaussian(StandardNormal(latent))"
            )
        read = self.read(code)
        px = model.decode(read.z, batch.context)
        return Pass(px, code), Pass(px, read)

    def read(self, code: Code) -> Code:
        """The same numbers with another history."""
        return code


def _density(code: Code, z: Tensor) -> Tensor:
    """Log q(z|x) of codes (S, D), (S,) nats."""
    return code.q.log_prob(z.unflatten(0, (-1, *code.q.batch_shape))).flatten()  # type: ignore[union-attr]


def _without_score(code: Code, z: Tensor) -> Code:
    """The code scored at z, with log q following z alone and not the parameters of q."""
    log_q, log_p = code._replace(z=z, log_q=None, log_p=None).densities()  # type: ignore[misc]
    score = _density(code, z.detach())
    return code._replace(z=z, log_q=log_q - (score - score.detach()), log_p=log_p)


def _at_rest(code: Code) -> Code:
    """The code at draws that do not follow the parameters of q."""
    z = code.z.detach()
    log_q, log_p = code._replace(z=z, log_q=None, log_p=None).densities()  # type: ignore[misc]
    return code._replace(z=z, log_q=log_q, log_p=log_p)


class StickingTheLanding(_Scoring):
    r"""The path derivative alone: the score of q, of mean zero under q, is left out.

    .. math:: \nabla_\phi \log \frac{p(x, z)}{q(z \mid x)}
              \to \frac{\partial}{\partial z} \log \frac{p(x, z)}{q(z \mid x)} \, \frac{\partial z}{\partial \phi}

    Where q is the exact posterior the quotient does not depend on z, and the encoder's gradient is zero in every
    single draw. Without bias for `elbo`, from any number of draws. For the other bounds with K > 1 it is biased: the
    scores come with weights that depend on the draws, so their mean is not zero (Tucker et al. 2018,
    arXiv:1810.04152). Take `DoublyReparameterised` for `iwae`.

    Raises: TypeError, when it is used, for a posterior that can score only its own draws.
    Reference: Sticking the Landing (Roeder et al., 2017), arXiv:1703.09194, section 3.
    """

    rates = ("sampled",)

    def read(self, code: Code) -> Code:
        return _without_score(code, code.z)


class DoublyReparameterised(_Scoring):
    r"""The gradient of `iwae` whose signal does not drown in its noise as draws are added (DReG).

    .. math:: \nabla_\phi L_K = E \sum_k \tilde w_k^2 \,
              \frac{\partial \log w_k}{\partial z_k} \frac{\partial z_k}{\partial \phi},
              \quad \tilde w_k = \frac{w_k}{\sum_j w_j}

    The decoder's gradient is that of `iwae` as it is. With beta other than 1 one of the two weights becomes
    1 - beta + beta w_k, which follows from the same second reparameterisation of w_k's score, beta times as large.

    Raises: ValueError for another bound; TypeError as `StickingTheLanding`.
    Reference: Doubly Reparameterized Gradient Estimators for Monte Carlo Objectives (Tucker et al., 2018),
        arXiv:1810.04152, equation 8.
    """

    rates = ("sampled",)
    bounds = (iwae,)
    apart = False

    def read(self, code: Code) -> Code:
        return _without_score(code, code.z.view_as(code.z))  # a code of its own: penalties do not pass through the hook

    def forward(self, objective: Objective, model: Model, batch: Batch, drawn: Draws) -> Tensor:
        _, code, _, _, beta = drawn
        share = 1 - beta + beta * drawn.log_w.detach().softmax(0)  # (K, B)
        if code.z.requires_grad:
            code.z.register_hook(lambda slope: slope * share.reshape(-1, 1))
        return super().forward(objective, model, batch, drawn)


class ScoreFunction(_Scoring):
    r"""The derivative of q itself, for which f needs no slope in z (REINFORCE).

    .. math:: \nabla_\phi E_q f = E_q \big[ (f(z) - b) \, \nabla_\phi \log q(z \mid x) + \partial_\phi f \big]

    with f the distortion, and beta times the rate where that is sampled. Whatever does not depend on z may stand for b:
    without any the variance grows with the square of f, which is hundreds of nats.

    Arguments:
        baseline: None; "leave-one-out", the mean of f over the row's other draws, for two draws and more; "learned", a
            network's guess of f from x, taught by the squared error in the same step and saved with the objective.
        shape: of one row of x, for a learned baseline; `hidden` its layers.

    Raises: ValueError for a bound other than `elbo`, or a learned baseline without a shape; TypeError as
        `StickingTheLanding`.
    References: Simple statistical gradient-following algorithms (Williams, 1992); learned: Neural Variational Inference
        and Learning (Mnih & Gregor, 2014), arXiv:1402.0030; leave-one-out: Buy 4 REINFORCE Samples (Kool et al., 2019).
    """

    bounds = (elbo,)
    slopes = apart = False

    def __init__(
        self,
        baseline: str | None = None,
        shape: tuple[int, ...] | None = None,
        hidden: tuple[int, ...] = (64,),
    ) -> None:
        super().__init__()
        if baseline not in (None, "leave-one-out", "learned"):
            raise ValueError(f'baseline is None, "leave-one-out" or "learned"; got {baseline!r}')
        if (baseline == "learned") != (shape is not None):
            raise ValueError(
                'a learned baseline reads x, and no other does: baseline="learned" goes with the shape of a row, as in '
                'ScoreFunction("learned", shape=(1, 28, 28))'
            )
        self.baseline, self.hidden = baseline, tuple(hidden)
        self.shape = None if shape is None else tuple(shape)
        if self.shape is not None:
            with draws.seeded(0):  # the same first guess wherever it is built
                self.guess = Mlp(self.shape, (1,), hidden=self.hidden)

    @property
    def least(self) -> int:
        return 2 if self.baseline == "leave-one-out" else 1

    def read(self, code: Code) -> Code:
        return _at_rest(code)

    def forward(self, objective: Objective, model: Model, batch: Batch, drawn: Draws) -> Tensor:
        f = (-drawn.log_w if objective.rate == "sampled" else drawn.distortion).detach()  # (K, B)
        taught = f.new_zeros(())
        if self.baseline == "leave-one-out":
            f = f - (f.sum(0) - f) / (len(f) - 1)
        elif self.baseline == "learned":
            guess = self.guess(model.likelihood.shown(batch.x)).flatten()  # (B,)
            taught, f = (f - guess).square().mean(0), f - guess.detach()
        value = super().forward(objective, model, batch, drawn)
        return value - _only_slope((f * drawn.log_q).mean(0) + taught)

    def extra_repr(self) -> str:
        return "" if self.baseline is None else f"baseline={self.baseline!r}"


class Vimco(_Scoring):
    r"""The score function for `iwae`, where each draw is paid by what it adds to the others.

    .. math:: \nabla_\phi L_K = E \Big[ \sum_k \big( L_K - L_{K}^{-k} \big) \nabla_\phi \log q(z_k \mid x)
              + \sum_k \tilde w_k \, \partial_\phi \log w_k \Big]

    with L^{-k} the bound in which the geometric mean of the other weights stands for w_k.

    Raises: ValueError for another bound or a single draw; TypeError as `StickingTheLanding`.
    Reference: Variational inference for Monte Carlo objectives (Mnih & Rezende, 2016), arXiv:1602.06725, algorithm 1.
    """

    rates = ("sampled",)
    bounds = (iwae,)
    slopes = apart = False

    @property
    def least(self) -> int:
        return 2

    def read(self, code: Code) -> Code:
        return _at_rest(code)

    def forward(self, objective: Objective, model: Model, batch: Batch, drawn: Draws) -> Tensor:
        value, log_w = super().forward(objective, model, batch, drawn), drawn.log_w.detach()  # (B,), (K, B)
        others = (log_w.sum(0) - log_w) / (len(log_w) - 1)  # (K, B): log of the geometric mean of the other weights
        own = torch.eye(len(log_w), dtype=torch.bool, device=log_w.device)[:, :, None]
        without = torch.where(own, others, log_w).logsumexp(1) - math.log(len(log_w))  # (K, B)
        return value + _only_slope(((value.detach() - without) * drawn.log_q).sum(0))


class Piwae(_Scoring):
    r"""The encoder's gradient from `miwae` of `groups` groups, the decoder's and the prior's from `iwae` of all draws.

    A tighter bound teaches the decoder better and the encoder worse, so each gets its own; what is claimed is `iwae`.
    The codes are decoded a second time, cut off from the encoder: there the decoder is given what it gets from `iwae`
    less what it got from `miwae`.

    Raises: ValueError for another bound, or groups that do not divide the draws; TypeError as `StickingTheLanding`.
    Reference: Tighter Variational Bounds are Not Necessarily Better (Rainforth et al., 2018), arXiv:1802.04537,
        section 5, PIWAE.
    """

    rates = ("sampled",)
    bounds = (iwae,)

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def check(self, objective: Objective) -> None:
        super().check(objective)
        miwae(
            torch.zeros(objective.samples, 1), torch.zeros(objective.samples, 1), groups=self.groups
        )  # says which groups there can be

    def forward(self, objective: Objective, model: Model, batch: Batch, drawn: Draws) -> Tensor:
        value = super().forward(objective, model, batch, drawn)
        if not torch.is_grad_enabled():
            return value
        rest = _at_rest(drawn.code)
        rest = rest._replace(log_q=rest.log_q.detach())  # type: ignore[union-attr]
        again = objective.score(Pass(model.decode(rest.z, batch.context), rest), batch)
        distortion, rate = (t.view_as(drawn.rate) for t in again)
        encoder = miwae(drawn.distortion, drawn.rate, drawn.beta, self.groups)
        decoder = iwae(distortion, rate, drawn.beta) - miwae(distortion, rate, drawn.beta, self.groups)
        return value.detach() + _only_slope(encoder + decoder)

    def extra_repr(self) -> str:
        return f"groups={self.groups}"


def _only_slope(t: Tensor) -> Tensor:
    """Zero, with the gradient of t."""
    return t - t.detach()
