"""Priors that are what they are, or are fitted to codes in closed form or by expectation maximisation."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, MultivariateNormal, Normal

__all__ = [
    "GaussianMixture",
    "MultivariateGaussian",
    "Pinwheel",
    "Prior",
    "StandardNormal",
    "SwissRoll",
    "expectation_maximisation",
    "tempered",
]

ONE = math.log(math.expm1(1))  # softplus of it is 1: where learned deviations begin


class Prior(nn.Module):
    """What priors have in common."""

    density = True
    closed = False
    discrete = False

    def __init__(self, latent: int) -> None:
        super().__init__()
        if latent < 1:
            raise ValueError(f"a code needs at least one unit; got latent={latent}")
        self.latent = latent

    def extra_repr(self) -> str:
        return f"latent={self.latent}"


class StandardNormal(Prior):
    r"""The fixed prior of the variational autoencoder.

    .. math:: p(z) = \mathcal N(z; 0, I)

    Shapes: () x (latent,).

    Example:
        >>> StandardNormal(2)().log_prob(torch.zeros(2))  # -log 2 pi
        tensor(-1.8379)
    """

    closed = True

    def __init__(self, latent: int) -> None:
        super().__init__(latent)
        self.mean: Tensor
        self.sigma: Tensor
        self.register_buffer("mean", torch.zeros(latent), persistent=False)
        self.register_buffer("sigma", torch.ones(latent), persistent=False)

    def forward(self, context: Tensor | None = None) -> Distribution:
        return Independent(Normal(self.mean, self.sigma, validate_args=False), 1, validate_args=False)


class MultivariateGaussian(Prior):
    r"""A normal with any mean and covariance, fitted to codes in closed form.

    .. math:: p(z) = \mathcal N(z; m, L L^\top)

    Shapes: () x (latent,).

    Example:
        >>> prior = MultivariateGaussian(2)
        >>> prior.fit(torch.tensor([[1.0, 1.0], [3.0, 1.0], [1.0, 3.0], [3.0, 3.0]]))
        >>> prior().mean
        tensor([2., 2.])
    """

    closed, factorised = True, False

    def __init__(self, latent: int) -> None:
        super().__init__(latent)
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", torch.zeros(latent))
        self.register_buffer("scale", torch.eye(latent))

    def forward(self, context: Tensor | None = None) -> Distribution:
        return MultivariateNormal(self.mean, scale_tril=self.scale, validate_args=False)

    def fit(self, z: Tensor) -> None:
        """Mean and covariance of codes (n, latent), by maximum likelihood; units that never change keep a little."""
        z = z.double()
        covariance = torch.cov(z.T, correction=0).reshape(self.latent, self.latent)
        floor = 1e-6 * covariance.diagonal().mean(-1).clamp_min(1e-6)
        scale = torch.linalg.cholesky(covariance + floor * torch.eye(self.latent, dtype=z.dtype))
        self.mean.copy_(z.mean(0))
        self.scale.copy_(scale)


class GaussianMixture(Prior):
    r"""Several normals, each with any covariance, fitted to codes by expectation maximisation.

    .. math:: p(z) = \sum_c \pi_c \, \mathcal N(z; m_c, L_c L_c^\top)

    Before it is fitted, all components are the standard normal. The ten components are those of ex-post density
    estimation (Ghosh et al. 2020, arXiv:1903.12436, section 4); the fit is scikit-learn's, from k-means.

    Shapes: () x (latent,).

    Example:
        >>> GaussianMixture(2, components=3)().sample((5,)).shape
        torch.Size([5, 2])
    """

    def __init__(self, latent: int, components: int = 10) -> None:
        super().__init__(latent)
        if components < 1:
            raise ValueError(f"a mixture has at least one component; got components={components}")
        self.components = components
        self.logits: Tensor
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("logits", torch.zeros(components))
        self.register_buffer("mean", torch.zeros(components, latent))
        self.register_buffer("scale", torch.eye(latent).repeat(components, 1, 1))

    def forward(self, context: Tensor | None = None) -> Distribution:
        parts = MultivariateNormal(self.mean, scale_tril=self.scale, validate_args=False)
        return MixtureSameFamily(Categorical(logits=self.logits, validate_args=False), parts, validate_args=False)

    def fit(self, z: Tensor) -> None:
        """Maximum likelihood for codes (n, latent). Raises ValueError for fewer codes than components."""
        weights, means, covariances = expectation_maximisation(z, self.components)
        self.logits.copy_(weights.log())
        self.mean.copy_(means)
        self.scale.copy_(torch.linalg.cholesky(covariances))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, components={self.components}"


def expectation_maximisation(z: Tensor, components: int, kind: str = "full") -> tuple[Tensor, Tensor, Tensor]:
    """Weights (C,), means (C, D) and covariances (C, D, D), of kind "diag" (C, D), of the mixture for codes (n, D)."""
    from sklearn.mixture import GaussianMixture as Mixture

    if len(z) < components:
        raise ValueError(
            f"a mixture of {components} components needs as many codes; got {len(z)}. Take components="
            f"{len(z)} or less, or MultivariateGaussian"
        )
    seed = int(torch.randint(2**31, ()))
    ridge = 1e-6 * max(float(z.double().var(0, correction=0).mean(-1)), 1e-6)
    found = Mixture(components, covariance_type=kind, reg_covar=ridge, random_state=seed).fit(z.double().numpy())
    weights, means, covariances = map(torch.from_numpy, (found.weights_, found.means_, found.covariances_))
    return weights, means, covariances


class Pinwheel(Prior):
    r"""Ten narrow normals in the plane, like the petals of a flower: the prior of Makhzani et al. 2015, figure 2.

    Component c of n points in the direction 2 pi c / n, `radius` away from the origin, with a standard deviation of
    `along` in that direction and `across` at right angles to it.

    Shapes: () x (2,).
    Reference: Adversarial Autoencoders (Makhzani et al., 2015), arXiv:1511.05644, section 2.3.
    Raises: ValueError for a code that is not of two units.
    """

    def __init__(self, latent: int = 2, components: int = 10, radius: float = 2.0) -> None:
        super().__init__(latent)
        if latent != 2:
            raise ValueError(f"a pinwheel lies in the plane: latent=2; got latent={latent}")
        self.components, self.radius = components, radius
        angle = torch.arange(components) * (2 * math.pi / components)
        direction = torch.stack([angle.cos(), angle.sin()], -1)  # (n, 2)
        normal = torch.stack([-angle.sin(), angle.cos()], -1)
        axes = torch.stack([0.5 * direction, 0.1 * normal], -1)  # (n, 2, 2)
        self.mean: Tensor
        self.scale: Tensor
        self.register_buffer("mean", radius * direction, persistent=False)
        self.register_buffer("scale", torch.linalg.cholesky(axes @ axes.mT), persistent=False)

    def forward(self, context: Tensor | None = None) -> Distribution:
        parts = MultivariateNormal(self.mean, scale_tril=self.scale, validate_args=False)
        return MixtureSameFamily(
            Categorical(logits=self.mean.new_zeros(self.components), validate_args=False), parts, validate_args=False
        )


class _Roll(Distribution):
    """Points of a spiral; it can be sampled and nothing else."""

    def __init__(self, like: Tensor, turns: float) -> None:
        super().__init__(torch.Size(), torch.Size((2,)), validate_args=False)
        self.like, self.turns = like, turns

    def sample(self, sample_shape: torch.Size | tuple[int, ...] = ()) -> Tensor:  # type: ignore[override]
        u = torch.rand(sample_shape, dtype=self.like.dtype, device=self.like.device)
        radius = 3 * u.sqrt()  # as many points on every stretch of the spiral, nearly
        angle = 2 * math.pi * self.turns * radius / 3
        return torch.stack([radius * angle.cos(), radius * angle.sin()], -1)


class SwissRoll(Prior):
    """A spiral in the plane, which has no density there: a prior that can only be sampled (Makhzani et al., figure 4).

    Shapes: () x (2,). Raises: ValueError for a code that is not of two units.

    Example:
        >>> SwissRoll()().sample((5,)).shape
        torch.Size([5, 2])
    """

    density = False

    def __init__(self, latent: int = 2, turns: float = 1.5) -> None:
        super().__init__(latent)
        if latent != 2:
            raise ValueError(f"a swiss roll lies in the plane: latent=2; got latent={latent}")
        self.turns = turns
        self.like: Tensor
        self.register_buffer("like", torch.zeros(()), persistent=False)

    def forward(self, context: Tensor | None = None) -> Distribution:
        return _Roll(self.like, self.turns)


def tempered(p: Distribution, temperature: float | Sequence[float]) -> Distribution:
    r"""The same normals about the same means, each standard deviation multiplied by a temperature.

    A normal, N(m, S) -> N(m, temperature^2 S); a mixture of normals, each component so, their weights as they are. At
    temperature 0 nothing is left but the means. Rungs of normals may have one each, top first.

    Raises: TypeError for other distributions, or several temperatures for one; ValueError for a temperature below 0.

    Example:
        >>> tempered(StandardNormal(2)(), 0.5).stddev
        tensor([0.5000, 0.5000])
    """
    if hasattr(p, "tempered"):  # rungs
        return p.tempered(temperature)  # type: ignore[no-any-return]
    if hasattr(p, "each"):  # choices, which have no width
        raise TypeError(
            f"a temperature narrows normals, and this prior is over codewords, which have no width; got {temperature}. "
            "Sample at temperature 1"
        )
    if isinstance(temperature, Sequence):
        raise TypeError(
            f"one temperature for each rung is for a prior of rungs (recipes ladder, hvae), and this one is "
            f"{type(p).__name__}; got {temperature}. Give a single number"
        )
    if not 0 <= temperature < math.inf:
        raise ValueError(f"a temperature multiplies standard deviations: at least 0; got {temperature}")
    match p:
        case Independent(base_dist=Normal(loc=mean, scale=sigma)):
            n = p.reinterpreted_batch_ndims
            return Independent(Normal(mean, temperature * sigma, validate_args=False), n, validate_args=False)
        case MultivariateNormal(loc=mean):
            return MultivariateNormal(mean, scale_tril=temperature * p.scale_tril, validate_args=False)
        case MixtureSameFamily():
            parts = tempered(p.component_distribution, temperature)
            return MixtureSameFamily(p.mixture_distribution, parts, validate_args=False)
    raise TypeError(
        f"a temperature narrows a prior of normals or of mixtures of normals, and this one is {type(p).__name__}. "
        "Sample at temperature 1, or fit_prior(model, data, GaussianMixture(latent)) first"
    )
