"""q(z|x): from what an encoder says to a code and its price.

A posterior is a module called as `posterior(h, context, samples=1, draw=True) -> Code`. It asks the encoder for
`features` numbers a row. `draw=False` gives the point code (the mean), which is what `transform` and reconstructions
use. The encoder runs once whatever `samples` is. `prior` is p(z) or None; `density` says whether q can score its draws;
`closed` whether the rate is a KL in closed form, and not log q - log p of the draws. A posterior whose q(z|x) is a
normal gives it for h alone by `given(h)`.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal
from torch.nn.functional import one_hot, softmax, softplus

from narrows import draws, priors
from narrows.contract import Code
from narrows.divergences import kl
from narrows.flows import IAF, Flowed

__all__ = ["Concrete", "Deterministic", "Flow", "FullGaussian", "Gaussian", "Sparse"]


def _of_numbers(prior: nn.Module) -> nn.Module:
    """The prior. Raises TypeError for one over classes, which says nothing of codes in between."""
    if getattr(prior, "discrete", False):
        raise TypeError(
            f"{type(prior).__name__} is a prior over classes, and this code is made of numbers. Wrong: "
            "vae(shape, prior=Categorical); right: concrete(shape), whose posterior is Concrete"
        )
    return prior


class Deterministic(nn.Module):
    """The code is what the encoder says: an autoencoder proper, which has a code but no density over codes.

    A prior, where there is one, is what codes are held to (`Objective(discrepancy=...)`) or what was fitted to them
    (`fit_prior`): codes can then be sampled, but not priced.

    Shapes: h (B, latent) -> z (S, latent), rates (S, 1) of zeros; log_q, log_p, q, p None.

    Example:
        >>> Deterministic(2)(torch.ones(3, 2)).z.shape
        torch.Size([3, 2])
    """

    density = False

    def __init__(self, latent: int, prior: nn.Module | None = None) -> None:
        super().__init__()
        if latent < 1:
            raise ValueError(f"a code needs at least one unit; got latent={latent}")
        self.latent = self.features = latent
        self.prior = prior

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        z = h.flatten(1).repeat(samples, 1)
        return Code(z, z.new_zeros(z.shape[0], 1), None, None, z.new_zeros(z.shape[0]))

    def extra_repr(self) -> str:
        return f"latent={self.latent}"


class Gaussian(nn.Module):
    r"""A normal with a diagonal covariance, drawn by the reparameterisation trick.

    .. math:: q(z \mid x) = \mathcal N(\mu(x), \operatorname{diag} \sigma^2(x)), \quad z = \mu + \sigma \varepsilon

    h holds mu, then s with sigma = softplus(s), which neither overflows nor vanishes as exp(s) does. The rates are the
    KL of each unit where it has a closed form, the total log q - log p of the draw where it has none, and zero under a
    prior that can only be sampled.

    Shapes: h (B, 2 latent) -> z (S, latent), rates (S, latent) or (S, 1) nats; q and p score the draws.
    Reference: Auto-Encoding Variational Bayes (Kingma & Welling, 2013), arXiv:1312.6114, equations 9 and 10.

    Example:
        >>> from narrows.priors import StandardNormal
        >>> Gaussian(StandardNormal(2))(torch.zeros(3, 4), samples=5).rate.shape
        torch.Size([15])
    """

    density = True

    def __init__(self, prior: nn.Module) -> None:
        super().__init__()
        self.prior = _of_numbers(prior)
        self.latent = int(prior.latent)  # type: ignore[arg-type]
        self.features = 2 * self.latent

    @property
    def closed(self) -> bool:
        """Whether the rate is a KL in closed form."""
        return bool(getattr(self.prior, "closed", False))

    @property
    def groups(self) -> int:
        """Columns of the rates: units, or 1 where only the total is known."""
        return self.latent if self.closed and getattr(self.prior, "factorised", True) else 1

    def given(self, h: Tensor) -> Distribution:
        """q(z|x) from what the encoder said, batch (B,), event (latent,)."""
        mean, s = h.flatten(1).chunk(2, -1)  # (B, latent) each
        return Independent(Normal(mean, softplus(s) + 1e-6, validate_args=False), 1, validate_args=False)

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        q = self.given(h)
        mean, sigma = q.base_dist.loc, q.base_dist.scale  # type: ignore[attr-defined]
        if draw:  # one draw is not broadcast: its gradient would be summed over an axis of one
            z = torch.addcmul(mean, sigma, draws.normal(samples, mean).squeeze(0)).view(-1, self.latent)  # (S, latent)
        else:
            z = mean if samples == 1 else mean.repeat(samples, 1)
        return _priced(self.prior, z, q, context, samples)


def _priced(prior: nn.Module, z: Tensor, q: Distribution, context: Tensor | None, samples: int) -> Code:
    """Draws (S, latent) from normals q, with their rates."""
    nothing = z.new_zeros(z.shape[0])
    if not getattr(prior, "density", True):
        return Code(z, nothing[:, None], None, None, nothing, q=q)
    p = prior(context)
    if not getattr(prior, "closed", False):
        code = Code(z, nothing[:, None], None, None, nothing, q=q, p=p)
        log_q, log_p = code.densities()  # type: ignore[misc]
        return code._replace(rates=(log_q - log_p)[:, None], log_q=log_q, log_p=log_p)
    rates = kl(q, p)  # (B, latent), or (B, 1) where only the total is known
    rates = rates if samples == 1 else rates.repeat(samples, 1)  # (S, latent)
    return Code(z, rates, None, None, nothing, q=q, p=p)


class FullGaussian(nn.Module):
    r"""A normal with any covariance, by its Cholesky factor.

    .. math:: q(z \mid x) = \mathcal N(\mu(x), L(x) L(x)^\top), \quad z = \mu + L \varepsilon

    h holds mu, then s with diag L = softplus(s), then L below the diagonal, row by row. The rate is the total KL where
    the prior is a normal, log q - log p of the draw where it is not.

    Shapes: h (B, latent (latent + 3) / 2) -> z (S, latent), rates (S, 1) nats; q and p score the draws.
    Reference: Auto-Encoding Variational Bayes (Kingma & Welling, 2013), arXiv:1312.6114, section 2.4, and An
    Introduction to Variational Autoencoders (Kingma & Welling, 2019), arXiv:1906.02691, algorithm 2.

    Example:
        >>> from narrows.priors import StandardNormal
        >>> FullGaussian(StandardNormal(2))(torch.zeros(3, 5), samples=5).rate.shape
        torch.Size([15])
    """

    density, groups = True, 1

    def __init__(self, prior: nn.Module) -> None:
        super().__init__()
        self.prior = _of_numbers(prior)
        self.latent = int(prior.latent)  # type: ignore[arg-type]
        self.features = self.latent * (self.latent + 3) // 2

    @property
    def closed(self) -> bool:
        """Whether the rate is a KL in closed form."""
        return bool(getattr(self.prior, "closed", False))

    def given(self, h: Tensor) -> Distribution:
        """q(z|x) from what the encoder said, batch (B,), event (latent,)."""
        d, h = self.latent, h.flatten(1)
        mean, s, below = h.split([d, d, d * (d - 1) // 2], -1)
        rows, columns = torch.tril_indices(d, d, -1, device=h.device)
        scale = (softplus(s) + 1e-6).diag_embed()  # L
        scale[:, rows, columns] = below
        return MultivariateNormal(mean, scale_tril=scale, validate_args=False)

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        q = self.given(h)
        mean, scale = q.loc, q.scale_tril  # type: ignore[attr-defined]
        z = mean.expand(samples, -1, -1)  # (samples, B, latent)
        if draw:
            z = z + torch.einsum("bij,kbj->kbi", scale, draws.normal(samples, mean))
        return _priced(self.prior, z.flatten(0, 1), q, context, samples)


class Flow(nn.Module):
    r"""A normal that an invertible map bends into other shapes; both are told of the row.

    .. math:: e \sim \mathcal N(\mu(x), \operatorname{diag} \sigma^2(x)), \quad z = f(e; h), \quad
              \log q(z \mid x) = \log q(e \mid x) - \log |\det f'(e)|

    h holds mu, s with sigma = softplus(s), and what the flow is told. Drawing takes one pass. The rate is log q - log p
    of the draws. Under IAF and Planar only a code's own draws can be scored, and `q` is None; MAF and NSF score any
    point through their inverse, in `latent` passes. The point code is f(mu), which is no mean of q.

    Arguments: `flow` of module `flows`, a class or a `partial`.
    Shapes: h (B, 2 latent + features of the flow) -> z (S, latent), rates (S, 1) nats; log_q, log_p (S,).
    References: Variational Inference with Normalizing Flows (Rezende & Mohamed, 2015), arXiv:1505.05770, equation 15;
    Kingma et al. 2016, arXiv:1606.04934, algorithm 1.

    Example:
        >>> from narrows.priors import StandardNormal
        >>> q = Flow(StandardNormal(2))
        >>> q(torch.zeros(3, q.features), samples=5).rate.shape
        torch.Size([15])
    """

    density = True
    closed, groups = False, 1

    def __init__(self, prior: nn.Module, flow: Callable[..., nn.Module] = IAF) -> None:
        super().__init__()
        self.prior, self.flow = _of_numbers(prior), flow
        self.latent = int(prior.latent)  # type: ignore[arg-type]
        self.bend = flow(self.latent)
        self.features = 2 * self.latent + int(self.bend.features)  # type: ignore[arg-type]

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        mean, s, told = h.flatten(1).split([self.latent, self.latent, self.features - 2 * self.latent], -1)
        base = Independent(Normal(mean, softplus(s) + 1e-6, validate_args=False), 1, validate_args=False)
        e = mean + base.base_dist.scale * draws.normal(samples, mean) if draw else mean[None]  # (K, B, latent)
        z, log_det = self.bend(e, told)
        log_q = base.log_prob(e) - log_det  # (K, B)
        priced = getattr(self.prior, "density", True)
        p = self.prior(context) if priced else None
        log_p = log_q if p is None else p.log_prob(z)
        if not draw and samples > 1:
            z, log_q, log_p = (t.repeat(samples, *[1] * (t.dim() - 1)) for t in (z, log_q, log_p))
        z, log_q, log_p = z.flatten(0, 1), log_q.flatten(), log_p.flatten()
        q = None
        if self.bend.invertible:
            q = Flowed(base, lambda z: self.bend.inverse(z, told), lambda e: self.bend(e, told))  # type: ignore[operator, union-attr]
        if p is None:
            return Code(z, z.new_zeros(z.shape[0], 1), None, None, z.new_zeros(z.shape[0]), q=q)
        return Code(z, (log_q - log_p)[:, None], log_q, log_p, torch.zeros_like(log_q), q=q, p=p)


class Concrete(nn.Module):
    r"""Choices among classes, one-hot and side by side, through which gradients pass in training: Gumbel-softmax.

    .. math:: z_v = \operatorname{softmax}\big( (\log \pi_v(x) + g) / \tau \big), \quad g_c = -\log(-\log u_c)

    In training draws are these relaxed ones. In evaluation they are one-hot, the classes where log pi + g is largest,
    which are exact draws from q(z|x) = prod_v Categorical(pi_v). The density of the code is that of the choices,
    always: the rate is the KL between categoricals in closed form, one for each choice, and q and p give probabilities
    of one-hot codes. So in evaluation bound and `log_likelihood` are those of the discrete model, exactly; the bound
    that training reports is near them, and may lie above. Sampled rates, whose gradient would not pass through a
    choice, are refused in training (`Objective.check`). The point code is pi, the mean of the draws.

    Arguments: `prior` a `priors.Categorical`, which says how many classes; `temperature` tau: as it falls, draws near
        one-hot codes and gradients grow noisy. None: draws are one-hot in training too, for estimators that need no
        slope, `Objective(gradient=ScoreFunction())` or `Vimco()`; then sampled rates are admitted.
    Shapes: h (B, latent) -> z (S, latent), rates (S, choices) nats, index (S, choices); q and p score one-hot codes.
    Raises: TypeError for a prior over numbers, ValueError for a temperature that is not positive.
    References: The Concrete Distribution (Maddison et al., 2017), arXiv:1611.00712, equation 10 and appendix C.3, whose
    temperature is 2/3; Categorical Reparameterization with Gumbel-Softmax (Jang et al., 2017), arXiv:1611.01144.

    Example:
        >>> from narrows.priors import Categorical
        >>> code = Concrete(Categorical(6, classes=3)).eval()(torch.zeros(4, 6))
        >>> code.z.view(4, 2, 3).sum(2).unique(), code.rates.shape
        (tensor([1.]), torch.Size([4, 2]))
    """

    density = closed = True

    def __init__(self, prior: nn.Module, temperature: float | None = 2 / 3) -> None:
        super().__init__()
        if temperature is not None and not temperature > 0:
            raise ValueError(f"a temperature is above 0; got temperature={temperature}")
        self.prior, self.temperature = prior, temperature
        self._choices()
        self.latent = self.features = int(prior.latent)  # type: ignore[arg-type]

    def _choices(self) -> tuple[int, int]:
        """Choices and the classes of each. Raises TypeError where the prior has none."""
        if not getattr(self.prior, "discrete", False):
            raise TypeError(
                "a Concrete code is made of classes, and so is its prior. Wrong: Concrete(StandardNormal(latent)); "
                f"right: Concrete(Categorical(latent, classes=10)); got {type(self.prior).__name__}"
            )
        return int(self.prior.variables), int(self.prior.classes)  # type: ignore[arg-type]

    @property
    def relaxed(self) -> bool:
        """Whether gradients pass through its draws, which then are none of q's."""
        return self.temperature is not None

    @property
    def most(self) -> float:
        """Nats that a choice can carry at most."""
        return math.log(self._choices()[1])

    @property
    def variables(self) -> int:
        """Choices that a code consists of."""
        return self._choices()[0]

    groups = variables  # each with a rate of its own

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        variables, classes = self._choices()
        logits = h.flatten(1).unflatten(1, (variables, classes))
        q, p = priors.one_hot(logits), self.prior(context)
        # (K, B, V, classes)
        noisy = logits + draws.gumbel(samples, logits) if draw else logits.repeat(samples, 1, 1, 1)
        index = noisy.argmax(-1)
        if not draw:
            z = softmax(noisy, -1)
        elif self.training and self.temperature is not None:
            z = softmax(noisy / self.temperature, -1)
        else:
            z = one_hot(index, classes).to(h)
        rates = kl(q.base_dist, p.base_dist).repeat(samples, 1)  # (S, V)
        z = z.reshape(-1, self.latent)
        return Code(z, rates, None, None, z.new_zeros(z.shape[0]), index.flatten(0, 1), q, p)

    def extra_repr(self) -> str:
        return f"latent={self.latent}, temperature={self.temperature}"


class Sparse(nn.Module):
    """The code is what an activation leaves of the encoder's numbers: many units, of which few fire for a row.

    Arguments: `activation`, a module of `activations`; `prior` as in `Deterministic`.
    Shapes: h (B, latent) -> z (S, latent), rates (S, 1) of zeros; log_q, log_p, q, p None.

    Example:
        >>> from narrows.activations import TopK
        >>> Sparse(TopK(8, active=2))(torch.rand(3, 8)).z.count_nonzero(1)
        tensor([2, 2, 2])
    """

    density = False

    def __init__(self, activation: nn.Module, prior: nn.Module | None = None) -> None:
        super().__init__()
        self.latent = self.features = int(activation.latent)  # type: ignore[arg-type]
        self.activation, self.prior = activation, prior

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        h = h.flatten(1)
        z = self.activation(h).repeat(samples, 1)  # (S, latent)
        nothing = z.new_zeros(z.shape[0])
        return Code(z, nothing[:, None], None, None, nothing, h=h.repeat(samples, 1))

    def fires(self, z: Tensor) -> Tensor:
        """Which units fire, (S, latent) bool."""
        return z.abs() > self.activation.floor  # type: ignore[operator]

    def extra_repr(self) -> str:
        return f"latent={self.latent}"
