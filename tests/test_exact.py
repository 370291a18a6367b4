"""Identities that hold without training, in float64.

Tolerances. Where both sides are the same real number, reached by different roundings of sums of some hundred terms of
size 1 to 100, 1e-10 leaves a thousandfold margin over float64's 1e-16 a term. What must be the same operations is
compared exactly.

Statistical tests draw from seed 0 (conftest.py), so a pass is a pass for good on one version of torch; each states the
probability that another seed would fail it. "z standard errors" means a normal approximation to a mean of >= 50,000
draws: 6 of them fail once in 5e8 seeds.

`cubature` makes expectations exact: the 2 D points +-sqrt(D) e_i integrate every quadratic against N(0, I), and in a
linear-Gaussian model distortion, log q and log p are quadratic in the noise.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, Laplace, MultivariateNormal, Normal, kl_divergence
from torch.nn.functional import mse_loss

from narrows import draws
from narrows.contract import Batch, Code, Terms
from narrows.divergences import kl
from narrows.likelihoods import Bernoulli, Gaussian, Likelihood
from narrows.models import Autoencoder
from narrows.networks import Mlp
from narrows.objectives import Objective, elbo, iwae, log_weights
from narrows.posteriors import Gaussian as GaussianPosterior
from narrows.priors import StandardNormal

close = torch.testing.assert_close
SAME = {"rtol": 0.0, "atol": 1e-10}
D, K = 6, 3  # width of x, units of z


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Parts are built in float64, buffers included."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def cubature(monkeypatch: pytest.MonkeyPatch) -> int:
    """Puts the 2 K points in the place of the draws and gives their number."""
    points = math.sqrt(K) * torch.cat([torch.eye(K), -torch.eye(K)])
    monkeypatch.setattr(draws, "normal", lambda samples, like: points[:, None].expand(samples, *like.shape))
    return len(points)


def affine(weight: Tensor, bias: Tensor, outputs: tuple[int, ...]) -> Mlp:
    """The map x -> weight x + bias as a network."""
    network = Mlp((weight.shape[1],), outputs, hidden=())
    network.layers[0].weight.data, network.layers[0].bias.data = weight, bias
    return network


def tiny(likelihood: Likelihood | None = None, latent: int = 2) -> Autoencoder:
    """A small VAE that is not linear."""
    p = likelihood or Gaussian((D,), sigma=0.7, learn="each")
    q = GaussianPosterior(StandardNormal(latent))
    return Autoencoder(Mlp((D,), (q.features,), hidden=(4,)), q, Mlp((latent,), p.wants, hidden=(4,)), p)


def run(model: Autoencoder, objective: Objective, x: Tensor, seed: int = 1) -> tuple[Terms, list[Tensor]]:
    """Terms and the gradient of every parameter, on the noise of a seed."""
    torch.manual_seed(seed)
    terms = objective(model, Batch.of(x))
    return terms, list(torch.autograd.grad(terms.loss, list(model.parameters()), allow_unused=True))


# ---- a linear-Gaussian model with its exact posterior -----------------------------------------------------------


class FullPrior(nn.Module):
    """N(0, I) in the form whose KL from a full-covariance normal torch knows."""

    latent = K

    def forward(self, context: Tensor | None = None) -> MultivariateNormal:
        return MultivariateNormal(torch.zeros(K), torch.eye(K))


class FullGaussian(nn.Module):
    """q(z|x) = N(h + shift, stretch^2 covariance): the exact posterior where shift = 0 and stretch = 1."""

    latent = features = K

    def __init__(self, covariance: Tensor, shift: float = 0.0, stretch: float = 1.0) -> None:
        super().__init__()
        self.prior, self.shift = FullPrior(), shift
        self.scale = stretch * torch.linalg.cholesky(covariance)

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        q, p = MultivariateNormal(h + self.shift, scale_tril=self.scale), self.prior(context)
        noise = draws.normal(samples, h) if draw else torch.zeros(samples, *h.shape)
        z = q.mean + noise @ self.scale.T  # (samples, B, K)
        log_q, log_p = q.log_prob(z).flatten(), p.log_prob(z).flatten()
        return Code(z.flatten(0, 1), kl(q, p).repeat(samples, 1), log_q, log_p, torch.zeros_like(log_q), q=q, p=p)


def linear_gaussian(shift: float = 0.0, stretch: float = 1.0) -> tuple[Autoencoder, Tensor, Tensor]:
    """x = W z + mu + 0.6 noise with its posterior, four rows of x and their exact log p(x)."""
    w, mu, s2 = torch.randn(D, K), torch.randn(D), 0.6**2
    x = torch.randn(4, D) * 2
    precision = w.T @ w / s2 + torch.eye(K)
    gain = torch.linalg.solve(precision, w.T / s2)  # E[z|x] = gain (x - mu)
    p = Gaussian((D,), sigma=0.6)
    posterior = FullGaussian(precision.inverse(), shift, stretch)
    model = Autoencoder(affine(gain, -gain @ mu, (K,)), posterior, affine(w, mu, p.wants), p)
    return model, x, MultivariateNormal(mu, w @ w.T + s2 * torch.eye(D)).log_prob(x)


@pytest.mark.parametrize("samples", [1, 5, 50])
def test_exact_posterior_gives_the_evidence_in_every_single_draw(samples: int) -> None:
    """log p(x|z) + log p(z) - log q(z|x) = log p(x) whatever z is; hence ELBO = IWAE_K = log p(x)."""
    model, x, log_p = linear_gaussian()
    distortion, rate = log_weights(*model(x, samples=samples), x)
    close(-(distortion + rate), log_p.repeat(samples), **SAME)
    for bound in (elbo, iwae):
        terms = Objective(bound=bound, samples=samples, rate="sampled")(model, Batch.of(x))
        close(terms.bound, log_p, **SAME)
        close(terms.loss, -log_p.mean(), **SAME)


def test_exact_posterior_with_the_closed_rate_gives_the_evidence_in_expectation(cubature: int) -> None:
    """E_q[-log p(x|z)] + KL = -log p(x), the expectation exact by cubature."""
    model, x, log_p = linear_gaussian()
    close(Objective(samples=cubature)(model, Batch.of(x)).bound, log_p, **SAME)


def test_iwae_rises_towards_the_evidence_where_the_posterior_is_wrong() -> None:
    """Burda et al. 2015, theorem 1: ELBO < IWAE_5 < IWAE_50 < log p(x), and E[w] = p(x).

    Means over 4,000 groups of 50 draws, taken as IWAE_1, IWAE_5 and IWAE_50 of the same draws; each gap must exceed 10
    standard errors (they are 20 and more; failure below 1e-20). The mean weight, of finite variance since q is wider
    than the posterior, must lie within 6 (1 in 5e8).
    """
    model, x, log_p = linear_gaussian(shift=0.3, stretch=1.5)
    log_w = -sum(log_weights(*model(x[:1], samples=200_000), x[:1]))  # (200000,)
    gaps = []
    for k in (1, 5, 50):
        bound = iwae(-log_w.unflatten(0, (4_000 * 50 // k, k)).T, torch.zeros(()))  # (groups,)
        gaps.append(log_p[0] - bound.unflatten(0, (4_000, -1)).mean(1))
    gaps.append(torch.zeros(4_000))
    for wide, narrow in pairwise(gaps):
        gain = wide - narrow
        assert gain.mean() > 10 * gain.std() / math.sqrt(len(gain))
    ratio = (log_w - log_p[0]).exp()
    assert (ratio.mean() - 1).abs() < 6 * ratio.std() / math.sqrt(len(ratio))


# ---- the optimum of a linear VAE --------------------------------------------------------------------------------


def principal_components() -> tuple[Tensor, Tensor, Tensor]:
    """Centred rows whose covariance has six different eigenvalues, these (descending), and their vectors."""
    x = torch.randn(200, D) @ torch.randn(D, D)
    x = x - x.mean(0)
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    return x, values.flip(0), vectors.flip(1)


def linear_vae(values: Tensor, vectors: Tensor, s2: float, effective: float, learn: str | None) -> Autoencoder:
    """The stationary W, V, D of Lucas et al. 2019 with noise s2; `effective` is beta s2."""
    kept = values[:K].clamp_min(effective)
    w = vectors[:, :K] * (kept - effective).sqrt()  # zero where the eigenvalue is below the noise: a collapsed unit
    sigma = (effective / kept).sqrt() - 1e-6
    v = torch.cat([(w / kept).T, torch.zeros(K, D)])
    q, p = GaussianPosterior(StandardNormal(K)), Gaussian((D,), math.sqrt(s2), learn)
    bias = torch.cat([torch.zeros(K), sigma.expm1().log()])  # the inverse of softplus
    return Autoencoder(affine(v, bias, (2 * K,)), q, affine(w, torch.zeros(D), p.wants), p)


def test_linear_vae_reaches_ppca_and_rests_there(cubature: int) -> None:
    """At Tipping and Bishop's W, V, D, s2 the ELBO is pPCA's log-likelihood in closed form, KL and variances are known.

    And the gradient of every parameter, learned sigma included, is zero: nothing in the loss pulls elsewhere.
    """
    x, values, vectors = principal_components()
    s2 = values[K:].mean()
    model = linear_vae(values, vectors, float(s2), float(s2), "shared")
    terms, gradients = run(model, Objective(samples=cubature), x)
    evidence = -0.5 * (D * math.log(2 * math.pi) + values[:K].log().sum() + (D - K) * s2.log() + D)
    close(terms.bound.mean(), evidence, **SAME)
    code = model.encode(x)
    close(code.rates.mean(0), 0.5 * (values[:K] / s2).log(), **SAME)
    close(code.z.var(0, unbiased=False), 1 - s2 / values[:K], **SAME)
    for gradient in gradients:
        close(gradient, torch.zeros_like(gradient), **SAME)


@pytest.mark.parametrize("beta", [1.0, 2.5])
@pytest.mark.parametrize("active", [3, 2, 0])
def test_units_collapse_where_the_eigenvalue_is_below_the_noise(active: int, beta: float, cubature: int) -> None:
    """With sigma fixed a unit is used iff its eigenvalue exceeds beta sigma^2: with the others off, all is at rest."""
    x, values, vectors = principal_components()
    effective = float((values[active] + (values[active - 1] if active else 2 * values[0])) / 2)
    s2 = effective / beta
    model = linear_vae(values, vectors, s2, effective, None)
    terms, gradients = run(model, Objective(beta=beta, samples=cubature), x)
    for gradient in gradients:
        close(gradient, torch.zeros_like(gradient), **SAME)
    assert int((model.encode(x).rates.mean(0) > 1e-9).sum()) == active
    if beta == 1.0:
        w = model.decoder.layers[0].weight
        close(terms.bound, MultivariateNormal(torch.zeros(D), w @ w.T + s2 * torch.eye(D)).log_prob(x), **SAME)


def test_a_rotated_linear_vae_has_a_lower_bound(cubature: int) -> None:
    """A rotation of the code leaves p(x) as it is, but a diagonal q no longer fits: the ELBO identifies the axes."""
    x, values, vectors = principal_components()
    s2 = float(values[K:].mean())
    model, rotation = linear_vae(values, vectors, s2, s2, None), torch.linalg.qr(torch.randn(K, K))[0]
    straight = Objective(samples=cubature)(model, Batch.of(x)).bound.mean()
    model.decoder.layers[0].weight.data @= rotation
    model.encoder.layers[0].weight.data[:K] = rotation.T @ model.encoder.layers[0].weight.data[:K]
    assert Objective(samples=cubature)(model, Batch.of(x)).bound.mean() < straight - 0.01


# ---- bounds on the same draws -----------------------------------------------------------------------------------


def test_iwae_of_one_draw_is_the_elbo_exactly() -> None:
    """Value and gradient of every parameter, bit for bit."""
    x, model = torch.randn(8, D), tiny()
    (a, one), (b, other) = (run(model, Objective(bound=bound, rate="sampled"), x) for bound in (elbo, iwae))
    assert torch.equal(a.bound, b.bound)
    assert torch.equal(a.loss, b.loss)
    assert all(torch.equal(g, h) for g, h in zip(one, other, strict=True))


@pytest.mark.parametrize("samples", [2, 7, 50])
def test_iwae_is_never_below_the_elbo_of_the_same_draws(samples: int) -> None:
    """Jensen's inequality for each row (1e-12: rounding where the weights are equal)."""
    x, model = torch.randn(8, D), tiny()
    a, b = (run(model, Objective(bound=bound, samples=samples, rate="sampled"), x)[0] for bound in (elbo, iwae))
    assert (b.bound >= a.bound - 1e-12).all()
    close(a.distortion, b.distortion, rtol=0, atol=0)


@pytest.mark.parametrize("constant", [-3.5, 0.0, 1e4])
def test_iwae_of_equal_weights_is_that_weight(constant: float) -> None:
    """log (1/K) sum_k e^c = c, where e^c overflows too."""
    zeros = torch.zeros(6, 2)
    close(iwae(zeros - constant, zeros), torch.full((2,), constant), rtol=1e-15, atol=1e-14)


# ---- what the loss is made of -----------------------------------------------------------------------------------


class Penalised(GaussianPosterior):
    """A Gaussian posterior whose draws cost |z|_1 besides."""

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        code = super().forward(h, context, samples, draw)
        return code._replace(penalty=code.z.abs().sum(-1))


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
@pytest.mark.parametrize(
    ("bound", "rate", "samples"), [(elbo, "closed", 1), (elbo, "closed", 3), (elbo, "sampled", 3), (iwae, "sampled", 3)]
)
def test_the_loss_is_the_batch_mean_of_the_equation(bound: Callable, rate: str, samples: int, beta: float) -> None:
    """distortion + beta rate + penalty, from log densities summed here by hand; the bound stands at beta = 1."""
    x, model = torch.randn(5, D), tiny(Gaussian((D,), sigma=0.7))
    model.posterior = Penalised(StandardNormal(2))
    terms, _ = run(model, Objective(beta, bound, samples, rate), x)
    torch.manual_seed(1)
    mean, s = model.encoder(x).chunk(2, 1)
    sigma, noise = s.exp().log1p() + 1e-6, torch.randn(samples, 5, 2)
    z = mean + sigma * noise  # (K, B, 2)
    reconstruction = model.decoder(z.flatten(0, 1)).reshape(samples, 5, D)
    distortion = (((x - reconstruction) / 0.7) ** 2 / 2 + math.log(0.7) + math.log(2 * math.pi) / 2).sum(2)
    if rate == "closed":
        price = ((mean**2 + sigma**2 - 1) / 2 - sigma.log()).sum(1).expand(samples, 5)
    else:
        price = ((z**2 - noise**2) / 2 - sigma.log()).sum(2)
    penalty = z.abs().sum(2).mean(0)

    def value(weight: float) -> Tensor:
        log_w = -(distortion + weight * price)
        return log_w.mean(0) if bound is elbo else log_w.exp().mean(0).log()

    close(terms.loss, (penalty - value(beta)).mean(), **SAME)
    close(terms.bound, value(1.0).detach(), **SAME)
    close(terms.distortion, distortion.mean(0), **SAME)
    close(terms.rate, price.mean(0), **SAME)
    close(terms.penalty, penalty, **SAME)
    assert terms.discrepancy == 0


@pytest.mark.parametrize("rate", ["closed", "sampled"])
def test_beta_scales_the_gradient_of_the_rate_and_nothing_else(rate: str) -> None:
    """gradient(beta) = gradient of the distortion + beta * gradient of the rate, for every parameter."""
    x, model = torch.randn(5, D), tiny()
    terms, gradients = run(model, Objective(3.0, rate=rate), x)
    parameters = list(model.parameters())
    torch.manual_seed(1)
    terms = Objective(rate=rate)(model, Batch.of(x))
    of_distortion, of_rate = (
        torch.autograd.grad(t.mean(), parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        for t in (terms.distortion, terms.rate)
    )
    for gradient, d, r in zip(gradients, of_distortion, of_rate, strict=True):
        close(gradient, d + 3.0 * r, **SAME)
    assert all(r.abs().sum() > 0 for r in of_rate[:4])  # the encoder's


@pytest.mark.parametrize("free", [0.05, 0.5, 100.0])
def test_free_bits_are_a_floor_under_the_mean_rate_of_each_unit(free: float) -> None:
    """Loss = distortion + beta sum_j max(free, mean rate_j) (Kingma et al. 2016, equation 15)."""
    x, model = 2 * torch.randn(5, D), tiny(latent=3)
    terms, gradients = run(model, Objective(2.0, free_bits=free), x)
    rates = model.encode(x).rates.mean(0)
    close(terms.loss, terms.distortion.mean() + 2.0 * rates.clamp_min(free).sum(), **SAME)
    close(terms.bound, -terms.distortion - terms.rate, **SAME)  # the claim is not moved by what is free
    if free == 100.0:  # all is free: as beta = 0
        for gradient, other in zip(gradients, run(model, Objective(0.0), x)[1], strict=True):
            close(gradient, other, **SAME)


@pytest.mark.parametrize("capacity", [0.0, 0.3, 50.0])
def test_capacity_is_a_target_for_the_mean_rate(capacity: float) -> None:
    """Loss = distortion + beta |mean rate - C| (Burgess et al. 2018, equation 8), on either side of C."""
    x, model = torch.randn(5, D), tiny()
    terms, _ = run(model, Objective(20.0, capacity=capacity), x)
    close(terms.loss, terms.distortion.mean() + 20.0 * (terms.rate.mean() - capacity).abs(), **SAME)
    close(terms.bound, -terms.distortion - terms.rate, **SAME)


def test_free_bits_are_added_to_the_importance_weighted_bound_and_a_capacity_cannot_be() -> None:
    """IWAE's loss plus beta * (the free bits not used). A capacity takes a rate out, which is no term of this bound."""
    x, model, settings = torch.randn(5, D), tiny(), {"bound": iwae, "samples": 4, "rate": "sampled"}
    plain = run(model, Objective(2.0, **settings), x)[0]
    rates = model.encode(x).rates
    free = run(model, Objective(2.0, **settings, free_bits=0.4), x)[0]
    close(free.loss, plain.loss + 2.0 * (0.4 - rates.mean(0)).clamp_min(0).sum(), **SAME)
    with pytest.raises(ValueError, match="a capacity takes the rate out of the bound, and iwae has it inside"):
        Objective(2.0, **settings, capacity=0.4)


def test_squared_error_with_lambda_is_a_gaussian_decoder_with_sigma_squared_half_of_it() -> None:
    """|x - D(z)|^2 + lambda KL is 2 sigma^2 times the negative ELBO plus a constant, sigma^2 = lambda / 2.

    So all gradients are proportional and the optimum is the same; and a weight w beside a *mean* squared error over d
    values is lambda = d w.
    """
    weight = 0.3 / D
    x, model = torch.randn(5, D), tiny(Gaussian((D,), math.sqrt(0.3 / 2)))
    terms, gradients = run(model, Objective(), x)
    torch.manual_seed(1)
    mean, s = model.encoder(x).chunk(2, 1)
    sigma = s.exp().log1p() + 1e-6
    reconstruction = model.decoder(mean + sigma * torch.randn(5, 2))[:, 0]
    rate = ((mean**2 + sigma**2 - 1) / 2 - sigma.log()).sum(1).mean()
    peer = mse_loss(reconstruction, x) + weight * rate
    close(D * peer, 0.3 * (terms.loss - D / 2 * math.log(math.pi * 0.3)), **SAME)
    for gradient, other in zip(gradients, torch.autograd.grad(peer, list(model.parameters())), strict=True):
        close(D * other, 0.3 * gradient, **SAME)


class FixedNoise(nn.Module):
    """The loss as a function of the parameters alone."""

    def __init__(self, model: Autoencoder, objective: Objective, x: Tensor) -> None:
        super().__init__()
        self.model, self.objective, self.x = model, objective, x

    def forward(self) -> Tensor:
        torch.manual_seed(1)
        loss: Tensor = self.objective(self.model, Batch.of(self.x)).loss
        return loss


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rate": "sampled", "samples": 2},
        {"rate": "sampled", "samples": 3, "bound": iwae},
        {"free_bits": 0.1},
        {"capacity": 0.5},
    ],
    ids=["closed", "sampled", "iwae", "free bits", "capacity"],
)
def test_gradients_are_the_slopes_of_the_loss(settings: dict) -> None:
    """Central differences on fixed noise, each entry of every parameter: nothing is detached that should not be.

    With steps of 1e-6 the differences carry an error of about 1e-16 |loss| / 1e-6 + 1e-12 |loss'''|, below 1e-8.
    """
    x, model = torch.randn(3, D), tiny()
    loss = FixedNoise(model, Objective(1.5, **settings), x)
    names, parameters = zip(*loss.named_parameters(), strict=True)

    def at(*values: Tensor) -> Tensor:
        return torch.func.functional_call(loss, dict(zip(names, values, strict=True)), ())

    assert torch.autograd.gradcheck(at, parameters, eps=1e-6, atol=1e-7, rtol=1e-6)


# ---- divergences and draws --------------------------------------------------------------------------------------


def normals() -> tuple[Tensor, ...]:
    """Means and standard deviations of q and p, (4, K) and (K,)."""
    return torch.randn(4, K), torch.rand(4, K) + 0.2, torch.randn(K), torch.rand(K) + 0.2


def test_closed_kl_is_torchs_and_the_textbooks() -> None:
    """Per unit log(s_p / s_q) + (s_q^2 + (m_q - m_p)^2) / 2 s_p^2 - 1/2; only the total where q does not factorise."""
    mq, sq, mp, sp = normals()
    q, p = Independent(Normal(mq, sq), 1), Independent(Normal(mp, sp), 1)
    close(kl(q, p), (sp / sq).log() + (sq**2 + (mq - mp) ** 2) / (2 * sp**2) - 0.5, **SAME)
    close(kl(q, p).sum(1), kl_divergence(q, p), **SAME)
    full = kl(MultivariateNormal(mq, torch.diag_embed(sq**2)), MultivariateNormal(mp, torch.diag(sp**2)))
    close(full, kl(q, p).sum(1, keepdim=True), **SAME)


def test_closed_kl_is_the_mean_of_the_sampled_rate() -> None:
    """E_q[log q - log p] over 100,000 draws, 4 x 3 units, within 6 standard errors (failure 3e-8)."""
    mq, sq, mp, sp = normals()
    q, p = Normal(mq, sq), Normal(mp, sp)
    z = q.sample((100_000,))
    rate = q.log_prob(z) - p.log_prob(z)
    assert ((rate.mean(0) - kl(Independent(q, 1), Independent(p, 1))).abs() < 6 * rate.std(0) / math.sqrt(1e5)).all()


def test_the_sampled_rate_of_a_model_has_the_closed_rate_as_its_mean(cubature: int) -> None:
    """log q - log p is quadratic in the noise, so cubature makes the equality exact."""
    x, model = torch.randn(5, D), tiny(latent=K)
    closed, sampled = (Objective(rate=r, samples=cubature)(model, Batch.of(x)).rate for r in ("closed", "sampled"))
    close(closed, sampled, **SAME)


def test_kl_without_a_closed_form_says_so() -> None:
    """torch's own error, not a number."""
    with pytest.raises(NotImplementedError):
        kl(Independent(Normal(torch.zeros(1, 2), 1.0), 1), Independent(Laplace(torch.zeros(1, 2), 1.0), 2))


def test_pathwise_gradient_has_its_exact_mean_and_variance() -> None:
    """f(x) = (x - k)^2 under N(m, s^2): gradient 2 (m - k), variance 4 s^2 (Mohamed et al. 2020, section 3).

    200,000 draws, within 6 standard errors each (failure 4e-9).
    """
    n, m, s, k = 200_000, 1.3, 0.7, 0.4
    mean = torch.full((n,), m, requires_grad=True)
    x = mean + s * draws.normal(1, mean)[0]
    (gradient,) = torch.autograd.grad(((x - k) ** 2).sum(), mean)
    assert abs(gradient.mean() - 2 * (m - k)) < 6 * 2 * s / math.sqrt(n)
    assert abs(gradient.var() - 4 * s**2) < 6 * 4 * s**2 * math.sqrt(2 / n)


@pytest.mark.parametrize("draw", [draws.normal, draws.uniform])
@pytest.mark.parametrize("samples", [1, 3])
def test_processes_that_share_a_batch_draw_its_parts(draw: Callable[[int, Tensor], Tensor], samples: int) -> None:
    """`part(start, rows, total)` gives rows what they get in the whole batch; `common` gives all rows one draw."""
    rows = torch.empty(7, 2)
    with draws.seeded(3):
        whole = draw(samples, rows)
    for start, stop in ((0, 7), (0, 3), (3, 7), (6, 7)):
        with draws.seeded(3), draws.part(start, stop - start, 7):
            assert torch.equal(draw(samples, rows[start:stop]), whole[:, start:stop])
        twice, few = rows.repeat(2, 1), rows[start:stop].repeat(2, 1)  # as a decoder sees two draws of every row
        with draws.seeded(3):
            both = draw(samples, twice).unflatten(1, (2, 7))
        with draws.seeded(3), draws.part(start, stop - start, 7):
            assert torch.equal(draw(samples, few).unflatten(1, (2, -1)), both[:, :, start:stop])
    with draws.seeded(3), draws.common():
        one = draw(samples, rows)
    assert torch.equal(one, one[:, :1].expand_as(one))
    with draws.seeded(3), draws.common():
        assert torch.equal(draw(samples, rows[:2]), one[:, :2])
    with draws.seeded(3):  # nothing lingers
        assert torch.equal(draw(samples, rows), whole)


def test_mix_gives_each_step_its_own_seed() -> None:
    """Distinct last entries never collide, so 100,000 steps of three seeds each have 100,000 seeds; order matters."""
    for seed in (0, 1, 2**63 - 1):
        mixed = {draws.mix(seed, step) for step in range(100_000)}
        assert len(mixed) == 100_000
        assert min(mixed) >= 0
        assert max(mixed) < 2**32
    assert draws.mix(0, 1, 2) != draws.mix(0, 2, 1)


def test_seeded_draws_leave_the_global_generator_as_found() -> None:
    """Same seed and path, same numbers; and the numbers after them are those that would have come anyway."""
    state = torch.get_rng_state()
    with draws.seeded(5, 1):
        first = torch.randn(3)
    with draws.seeded(5, 1):
        assert torch.equal(torch.randn(3), first)
    with draws.seeded(5, 2):
        assert not torch.equal(torch.randn(3), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_probabilities_of_all_data_sum_to_one_whatever_the_code() -> None:
    """With q = p (an encoder that says mean 0, sigma 1) the rate is 0 and a draw's weight is p(x|z): sum_x w = 1."""
    p, q = Bernoulli((3,)), GaussianPosterior(StandardNormal(2))
    one = torch.full((2,), 1 - 1e-6).expm1().log()
    encoder = affine(torch.zeros(4, 3), torch.cat([torch.zeros(2), one]), (4,))
    model = Autoencoder(encoder, q, Mlp((2,), p.wants, hidden=(4,)), p)
    x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3)  # all 8
    with draws.common():
        terms = Objective(rate="sampled")(model, Batch.of(x))
    close(terms.rate, torch.zeros(8), **SAME)
    close(terms.bound.exp().sum(), torch.ones(()), **SAME)
