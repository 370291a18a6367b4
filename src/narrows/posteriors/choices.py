"""Choices among classes."""

import math

from torch import Tensor, nn
from torch.nn.functional import one_hot, softmax

from narrows import draws, priors
from narrows.contract import Code
from narrows.divergences import kl

__all__ = ["Concrete"]


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
