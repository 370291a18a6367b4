r"""Codes of which one part is a label: a class y, known of some rows only, beside a style z.

    x (B, *event) -> encoder -> h (B, F) -> q(y|x), q(z|x,y) -> [y | z] (S, classes + style) -> decoder -> p(x|y,z)

The first `classes` units of such a code are the label: one-hot in a draw, probabilities in the point code. A label that
is known takes the place of q(y|x) in training; it is never an input, so that codes, samples and likelihoods need none.
"""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, OneHotCategorical
from torch.nn.functional import softplus

from narrows import draws
from narrows.contract import Batch, Code, Pass, repeated
from narrows.divergences import kl
from narrows.likelihoods import log_prob
from narrows.models import Model

__all__ = ["Labelled", "LabelledGaussian", "SoftLabels", "labels_of", "summed"]


class _Joint(Distribution):
    """A label and a style, each from its own distribution, side by side."""

    def __init__(self, log_p: Tensor, style: Distribution) -> None:
        event = torch.Size((len(log_p) + style.event_shape[0],))
        super().__init__(style.batch_shape, event, validate_args=False)
        self.log_p, self.style = log_p, style

    def log_prob(self, value: Tensor) -> Tensor:
        y, z = value.split([len(self.log_p), self.style.event_shape[0]], -1)
        return (y * self.log_p).sum(-1) + self.style.log_prob(z)

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:  # type: ignore[override]
        z = self.style.sample(torch.Size(sample_shape))
        y = OneHotCategorical(logits=self.log_p, validate_args=False).sample(z.shape[:-1])
        return torch.cat([y, z], -1)

    def expand(self, batch_shape: torch.Size | list[int] | tuple[int, ...], _instance: object = None) -> "_Joint":
        return _Joint(self.log_p, self.style.expand(torch.Size(batch_shape)))


class Labelled(nn.Module):
    r"""A prior over labels and styles: every class is as likely, and none has a style of its own.

    .. math:: p(y, z) = \tfrac1C \, p(z)

    Arguments: `style` a prior of `priors`; `classes` C.
    Shapes: batch as of `style`, event (classes + style units,).
    Raises: ValueError for fewer than 2 classes.

    Example:
        >>> from narrows.priors import StandardNormal
        >>> Labelled(StandardNormal(3), classes=2)().sample((5,)).shape
        torch.Size([5, 5])
    """

    def __init__(self, style: nn.Module, classes: int) -> None:
        super().__init__()
        if classes != int(classes) or classes < 2:
            raise ValueError(f"a label is one of at least 2 classes; got classes={classes}")
        self.style, self.classes = style, int(classes)
        self.latent = self.classes + int(style.latent)  # type: ignore[arg-type]
        self.density: bool = getattr(style, "density", True)
        self.log_p: Tensor
        self.register_buffer("log_p", torch.full((self.classes,), 1 / self.classes).log(), persistent=False)

    def forward(self, context: Tensor | None = None) -> Distribution:
        return _Joint(self.log_p, self.style(context))

    def extra_repr(self) -> str:
        return f"latent={self.latent}, classes={self.classes}"


class LabelledGaussian(nn.Module):
    r"""A class by chance, and given it a normal: the posterior of the semi-supervised variational autoencoder (M2).

    .. math:: q(y, z \mid x) = \operatorname{Cat}(y; \pi(x)) \;
              \mathcal N(z; \mu_y(x), \operatorname{diag} \sigma^2_y(x))

    h holds the logits of pi, then for each class mu and s with sigma = softplus(s). A draw of y has no gradient, so
    an `Objective` sums over the classes instead (`summed`); the sum is exact. The point code is the mean,
    [pi | sum_y pi_y mu_y]. The rates are the KL of the whole in closed form: to the style units belongs
    sum_y pi_y KL_y, to a class's unit pi log(pi / p) - pi + p, which is never negative and adds up to KL(pi || p).

    Shapes: h (B, classes + 2 classes style) -> z (S, classes + style), rates (S, classes + style) nats; log_q and
    log_p of the draws; h of the code is log pi, (S, classes).
    Raises: ValueError for a prior of styles whose KL has no closed form.
    Reference: Semi-supervised Learning with Deep Generative Models (Kingma et al., 2014), arXiv:1406.5298, equation 4
    (there the two factors are networks of their own).

    Example:
        >>> from narrows.priors import StandardNormal
        >>> q = LabelledGaussian(Labelled(StandardNormal(3), classes=2))
        >>> q(torch.zeros(4, q.features), samples=5).z.shape
        torch.Size([20, 5])
    """

    density = True

    def __init__(self, prior: Labelled) -> None:
        super().__init__()
        if not getattr(prior.style, "closed", False):
            raise ValueError(
                "labels are summed over with the KL of each class in closed form, and "
                f"{type(prior.style).__name__} has none: take prior=StandardNormal or ConditionalNormal"
            )
        self.prior, self.classes, self.latent = prior, prior.classes, prior.latent
        self.style = self.latent - self.classes
        self.features = self.classes * (1 + 2 * self.style)

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        log_y, mean, sigma = self.parts(h)
        rates = repeated(self.rates(log_y.exp(), log_y, mean, sigma, context), samples)  # (S, latent)
        nothing, told = rates.new_zeros(len(rates)), repeated(log_y, samples)
        if not draw:
            z = torch.cat([log_y.exp(), (log_y.exp()[..., None] * mean).sum(1)], 1)
            return Code(repeated(z, samples), rates, None, None, nothing, h=told)
        y = nn.functional.one_hot((log_y + draws.gumbel(samples, log_y)).argmax(-1), self.classes).to(log_y.dtype)
        mean, sigma = ((y[..., None] * t).sum(2) for t in (mean, sigma))  # (K, B, style), of the class drawn
        style = mean + sigma * draws.normal(samples, mean[0])
        q = Independent(Normal(mean, sigma, validate_args=False), 1, validate_args=False)
        z = torch.cat([y, style], -1)
        log_q = (y * log_y).sum(-1) + q.log_prob(style)  # (K, B)
        log_p = self.prior(context).log_prob(z)
        return Code(z.flatten(0, 1), rates, log_q.flatten(), log_p.flatten(), nothing, h=told)

    def parts(self, h: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log q(y|x) (B, C), and of q(z|x,y) means and standard deviations (B, C, style)."""
        logits, rest = h.flatten(1).split([self.classes, 2 * self.classes * self.style], 1)
        mean, s = rest.unflatten(1, (2, self.classes, self.style)).unbind(1)
        return logits.log_softmax(-1), mean, softplus(s) + 1e-6

    def rates(self, weight: Tensor, log_weight: Tensor, mean: Tensor, sigma: Tensor, context: Tensor | None) -> Tensor:
        """KL from the prior in closed form, unit by unit, (B, latent) nats, of classes with these weights (B, C)."""
        p = self.prior.style(context)
        if p.batch_shape:  # (B, style) beside (B, C, style)
            p = Independent(
                Normal(p.base_dist.mean[:, None], p.base_dist.stddev[:, None], validate_args=False),
                1,
                validate_args=False,
            )
        each = kl(Independent(Normal(mean, sigma, validate_args=False), 1, validate_args=False), p)  # (B, C, style)
        log_p = self.prior.log_p
        label = weight * (log_weight - log_p) - weight + log_p.exp()  # (B, C)
        return torch.cat([label, (weight[..., None] * each).sum(1)], 1)

    def extra_repr(self) -> str:
        return f"latent={self.latent}, classes={self.classes}"


class SoftLabels(nn.Module):
    """The probabilities of the classes, and beside them the style of any other posterior: codes of the semi-supervised
    adversarial autoencoder, which a critic holds to one-hot labels and the prior of styles.

    Arguments: `style` a posterior without a prior of its own in use; `prior` over both parts.
    Shapes: h (B, classes + features of `style`) -> z (S, latent), rates (S, 1) of zeros; h of the code is the log
    probabilities (S, classes).
    Reference: Adversarial Autoencoders (Makhzani et al., 2015), arXiv:1511.05644, section 5 and figure 8.

    Example:
        >>> from narrows.posteriors import Deterministic
        >>> from narrows.priors import StandardNormal
        >>> q = SoftLabels(Deterministic(3), Labelled(StandardNormal(3), classes=2))
        >>> q(torch.zeros(4, 5)).z[0]
        tensor([0.5000, 0.5000, 0.0000, 0.0000, 0.0000])
    """

    density = False

    def __init__(self, style: nn.Module, prior: Labelled) -> None:
        super().__init__()
        self.style, self.prior, self.classes, self.latent = style, prior, prior.classes, prior.latent
        self.features = self.classes + int(style.features)  # type: ignore[arg-type]

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        logits, rest = h.flatten(1).tensor_split([self.classes], 1)
        log_y = repeated(logits.log_softmax(-1), samples)  # (S, C)
        z = torch.cat([log_y.exp(), self.style(rest, context, samples, draw).z], 1)
        nothing = z.new_zeros(len(z))
        return Code(z, nothing[:, None], None, None, nothing, h=log_y)

    def extra_repr(self) -> str:
        return f"latent={self.latent}, classes={self.classes}"


def labels_of(model: Model) -> int:
    """How many units of the code are the classes of a label, 0 where none is."""
    return int(getattr(model.posterior, "classes", 0))


def summed(model: Model, batch: Batch, samples: int) -> tuple[Pass, Tensor]:
    r"""One pass in which no class is drawn: every class is decoded, and weighed by q(y|x), or by the label where known.

    .. math:: \text{distortion} = \sum_y w_y \, E_{q(z \mid x, y)} [-\log p(x \mid y, z)], \qquad
              \text{rate} = \sum_y w_y \Big( \log \frac{w_y}{p(y)} + KL(q(z \mid x, y) \,\|\, p(z)) \Big)

    with w = q(y|x) their sum is -U(x), a bound on log p(x); with w the label's one-hot it is -L(x, y), a bound on
    log p(x, y), and so on log p(x) too. The styles of all classes share their noise, which leaves each expectation
    as it is.

    Shapes: px over K C B rows, the code and the distortion over S = K B; z of the code is [w | sum_y w_y z_y].
    Reference: Kingma et al. 2014, arXiv:1406.5298, equations 6 and 7.
    """
    q: LabelledGaussian = model.posterior  # type: ignore[assignment]
    log_y, mean, sigma = q.parts(model.hidden(batch.x, batch.context))
    weight, log_weight = log_y.exp(), log_y  # (B, C)
    if batch.label is not None:
        one = (batch.label[:, None] == torch.arange(q.classes, device=log_y.device)).to(log_y.dtype)
        known = (batch.label >= 0)[:, None]
        weight, log_weight = torch.where(known, one, weight), torch.where(known, 0.0, log_weight)
    noise = draws.normal(samples, mean[:, 0])[:, None]  # (K, 1, B, style)
    style = mean.movedim(1, 0) + sigma.movedim(1, 0) * noise  # (K, C, B, style)
    y = torch.eye(q.classes, dtype=style.dtype, device=style.device)[:, None].expand(*style.shape[:-1], -1)
    px = model.decode(torch.cat([y, style], -1).flatten(0, 2), batch.context)
    every = samples * q.classes
    log_p = log_prob(px, repeated(batch.target, every), repeated(batch.seen, every))
    distortion = -(weight.T * log_p.view(samples, q.classes, -1)).sum(1)  # (K, B)
    z = torch.cat([weight.expand(samples, -1, -1), (weight.T[..., None] * style).sum(1)], -1).flatten(0, 1)
    rates = repeated(q.rates(weight, log_weight, mean, sigma, batch.context), samples)
    return Pass(px, Code(z, rates, None, None, z.new_zeros(len(z)), h=repeated(log_y, samples))), distortion.flatten()
