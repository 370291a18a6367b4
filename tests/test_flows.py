"""Flows, the posteriors and priors that are made of them, and the KL between normals: exact, in float64.

Densities are held to one by quadrature over a grid, whose error is below 1e-6 where the density is smooth on the grid's
scale; maps to autograd's Jacobian at 1e-9 (slopes down to 1e-3 multiply float64's 1e-16). Statistical tests draw from
seed 0 (conftest.py) and say how likely another seed would fail.
"""

import copy
import io
import itertools
import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

import narrows as nr
from narrows import priors, recipes, references
from narrows.contract import Batch
from narrows.divergences import kl
from narrows.export import Decode, Encode
from narrows.flows import IAF, MAF, NSF, Masked, Planar
from narrows.gradients import ScoreFunction, StickingTheLanding, Vimco
from narrows.likelihoods import Bernoulli
from narrows.likelihoods import Gaussian as GaussianLikelihood
from narrows.models import Autoencoder
from narrows.networks import Mlp
from narrows.objectives import Objective, iwae, log_weights
from narrows.posteriors import Concrete, Deterministic, Flow, FullGaussian, Gaussian
from narrows.priors import (
    Autoregressive,
    Categorical,
    GaussianMixture,
    Mixture,
    MultivariateGaussian,
    StandardNormal,
    VampPrior,
)
from narrows.priors import Flow as FlowPrior
from narrows.training import alarms
from narrows.training.adam import Adam

close = torch.testing.assert_close
SAME = {"rtol": 0.0, "atol": 1e-10}
FLOWS = [partial(Planar, length=3), partial(IAF, hidden=(8,)), partial(MAF, hidden=(8,)), partial(NSF, hidden=(8,))]
every_flow = pytest.mark.parametrize("flow", FLOWS, ids=lambda f: f.func.__name__)
every_inverse = pytest.mark.parametrize("flow", FLOWS[2:], ids=lambda f: f.func.__name__)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Parts are built in float64, buffers included."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def strong(module: nn.Module, scale: float = 1.0) -> nn.Module:
    """Weights far from their quiet beginning, so that nothing is nearly linear."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(scale * torch.randn_like(parameter))
    return module


def grid(reach: float, points: int) -> tuple[Tensor, float]:
    """Points of the plane (n, 2), and the area of each."""
    side = torch.linspace(-reach, reach, points)
    return torch.cartesian_prod(side, side), (2 * reach / (points - 1)) ** 2


def gaussian_h(mean: Tensor, scale: Tensor) -> Tensor:
    """What an encoder says where q is N(mean, scale scale^T), (B, D), (B, D, D)."""
    d = mean.shape[-1]
    rows, columns = torch.tril_indices(d, d, -1)
    s = (scale.diagonal(dim1=-2, dim2=-1) - 1e-6).expm1().log()
    return torch.cat([mean, s, scale[..., rows, columns]], -1)


# ---- maps -------------------------------------------------------------------------------------------------------


@every_flow
def test_the_logarithm_of_the_stretch_is_that_of_autograds_jacobian(flow: Callable) -> None:
    """log |det dz/de| at eight points, each told of another row; a flow leaves leading axes as they are."""
    f = strong(flow(3), 0.3)
    e, h = torch.randn(8, 3), torch.randn(8, f.features)
    _, log_det = f(e, h)
    for i in range(8):
        jacobian = torch.autograd.functional.jacobian(lambda e, i=i: f(e, h[i])[0], e[i])
        close(log_det[i], torch.linalg.slogdet(jacobian).logabsdet, rtol=0, atol=1e-9)
    assert (log_det.abs() > 0.1).any()
    several, dets = f(e.expand(5, 8, 3), h)
    close(several, f(e, h)[0].expand(5, 8, 3), **SAME)
    close(dets, log_det.expand(5, 8), **SAME)


@every_flow
def test_what_a_flow_is_told_bends_it(flow: Callable) -> None:
    f = flow(3)
    e, h = torch.randn(4, 3), torch.randn(2, 4, f.features)
    assert ((f(e, h[0])[0] - f(e, h[1])[0]).abs() > 1e-6).all(1).any()


@every_inverse
def test_there_and_back_is_the_identity(flow: Callable) -> None:
    """For z within and beyond the splines' reach; the two stretches cancel. With and without being told of a row."""
    for features in (4, 0):
        f = strong(flow(3, features=features), 0.5)
        e, h = 3 * torch.randn(50, 3), torch.randn(50, 4) if features else None
        z, log_det = f(e, h)
        back, other = f.inverse(z, h)
        close(back, e, rtol=0, atol=1e-8)  # errors of three steps of three passes, divided by slopes down to 1e-3
        close(other, -log_det, rtol=0, atol=1e-6)


@pytest.mark.parametrize("scale", [0.01, 1.0, 5.0])
def test_every_planar_step_is_invertible(scale: float) -> None:
    """Its stretch is positive for any parameters: w.u-hat > -1 (Rezende & Mohamed, appendix A.1)."""
    f = Planar(4, length=1)
    h = scale * torch.randn(2000, f.features)
    _, log_det = f(scale * torch.randn(2000, 4), h)
    assert log_det.isfinite().all()
    u, w, _ = h.split([4, 4, 1], 1)
    z, _ = f((10.0 / w.square().sum(1, keepdim=True)) * w, h)  # finite at tanh = 1 too
    assert z.isfinite().all()
    inside = (w * u).sum(1).abs() < 1e-3  # a step that is allowed as it is stays nearly so
    assert not inside.any() or log_det[inside].abs().max() < 0.01


def test_one_step_of_iaf_is_the_papers_algorithm() -> None:
    """z' = sigma z + m with log sigma = tanh s, and the second step reads units backwards."""
    f = strong(IAF(3, features=2, length=2, hidden=(8,)), 0.5)
    e, h = torch.randn(5, 3), torch.randn(5, 2)
    m, s = f.networks[0](e, h).unbind(-1)
    z = (s.tanh().exp() * e + m)[:, [2, 1, 0]]
    total = s.tanh().sum(1)
    m, s = f.networks[1](z, h).unbind(-1)
    close(f(e, h)[0], s.tanh().exp() * z + m, **SAME)
    close(f(e, h)[1], total + s.tanh().sum(1), **SAME)


@pytest.mark.parametrize(("latent", "hidden"), [(1, (8,)), (4, (8, 8)), (9, (4,)), (5, ())], ids=str)
@pytest.mark.parametrize("features", [0, 3])
def test_a_masked_network_reads_only_what_stands_before(latent: int, hidden: tuple[int, ...], features: int) -> None:
    """Output i has a slope along input j iff j < i, wherever there are hidden units enough; all read h."""
    f = strong(Masked(latent, 2, features, hidden))
    h = torch.randn(features) if features else None
    slopes = sum(
        torch.autograd.functional.jacobian(lambda z: f(z, h), torch.randn(latent)).abs().sum(1) for _ in range(20)
    )
    before = torch.ones(latent, latent).tril(-1).bool()
    assert not slopes[~before].any()
    if len(hidden) == 0 or min(hidden) >= latent:
        assert (slopes[before] > 0).all()
    else:
        assert (slopes[before.cumsum(0) == 1] > 0).any()  # few hidden units: the furthest reach at least some
    if features:
        z = torch.randn(latent)
        told = sum(
            torch.autograd.functional.jacobian(lambda h: f(z, h), torch.randn(features)).abs() for _ in range(20)
        )
        assert (told > 0).any((1, 2)).all()


# ---- q(z|x) -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flow", [partial(MAF, hidden=(8,)), partial(NSF, hidden=(8,))], ids=["MAF", "NSF"])
def test_a_flow_posterior_integrates_to_one_and_scores_its_draws(flow: Callable) -> None:
    """Two rows in the plane by a grid; log q of a draw is what q says at that point."""
    posterior = strong(Flow(StandardNormal(2), flow), 0.15)
    code = posterior(torch.randn(2, posterior.features), samples=500)
    z = code.z.unflatten(0, (500, 2))
    close(code.q.log_prob(z).flatten(), code.log_q, rtol=0, atol=1e-6)
    (points, area), middle = grid(8.0, 241), z.mean(0)  # (n, 2), (2, 2)
    with torch.no_grad():
        mass = code.q.log_prob(points[:, None] + middle).exp().sum(0) * area
    close(mass, torch.ones(2), rtol=0, atol=1e-3)


@pytest.mark.parametrize("flow", [partial(Planar, length=2), partial(IAF, hidden=(8,))], ids=["Planar", "IAF"])
def test_draws_of_a_flow_without_an_inverse_have_the_density_they_claim(flow: Callable) -> None:
    """E_q[exp(log r(z) - log q(z))] = 1 for any density r within q's reach: 200,000 draws, within 6 standard errors
    (failure 2e-9); and q is None, for no other point can be scored.
    """
    posterior = strong(Flow(StandardNormal(2), flow), 0.3)
    code = posterior(torch.randn(1, posterior.features), samples=200_000)
    assert code.q is None
    r = MultivariateNormal(code.z.mean(0), 0.5 * torch.cov(code.z.T))
    ratio = (r.log_prob(code.z) - code.log_q).exp().detach()
    assert (ratio.mean() - 1).abs() < 6 * ratio.std() / math.sqrt(len(ratio))
    assert ratio.std() < 10  # or the error above would mean nothing


@every_flow
def test_the_rate_of_a_flow_is_positive_and_its_point_code_repeats(flow: Callable) -> None:
    """E_q[log q - log p] is a KL: 20,000 draws, whose mean must be 6 standard errors above 0; draw=False is f(mu)."""
    posterior = strong(Flow(StandardNormal(3), flow), 0.3)
    h = torch.randn(1, posterior.features)
    rate = posterior(h, samples=20_000).rate.detach()
    assert rate.mean() > 6 * rate.std() / math.sqrt(20_000)
    point = posterior(h, samples=4, draw=False)
    close(point.z, posterior.bend(h[:, :3], h[:, 6:])[0].expand(4, 3), **SAME)
    assert point.rates.shape == (4, 1)


@every_flow
def test_gradients_of_a_flow_reach_everything(flow: Callable) -> None:
    """Encoder and flow, in one and several draws; rates are the draws' log q - log p."""
    posterior = Flow(StandardNormal(3), flow)
    h = torch.randn(4, posterior.features, requires_grad=True)
    code = posterior(h, samples=3)
    close(code.rate, code.log_q - code.log_p, **SAME)
    close(code.log_p, StandardNormal(3)().log_prob(code.z), **SAME)
    (code.rate.sum() + code.z.square().sum()).backward()
    assert h.grad.any(0).all()
    assert all(p.grad.any() for p in posterior.parameters())


def linear_gaussian(d: int = 6, k: int = 3) -> tuple[Autoencoder, Tensor, Tensor]:
    """x = W z + mu + 0.6 noise, an encoder that says its exact posterior to `FullGaussian`, rows and log p(x)."""
    w, mu, s2, x = torch.randn(d, k), torch.randn(d), 0.36, 2 * torch.randn(4, d)
    precision = w.T @ w / s2 + torch.eye(k)
    gain = torch.linalg.solve(precision, w.T / s2)
    scale = torch.linalg.cholesky(precision.inverse())
    q, p = FullGaussian(StandardNormal(k)), GaussianLikelihood((d,), sigma=0.6)
    encoder, decoder = Mlp((d,), (q.features,), hidden=()), Mlp((k,), p.wants, hidden=())
    rest = gaussian_h(torch.zeros(1, k), scale[None])[0, k:]
    encoder.layers[0].weight.data = torch.cat([gain, torch.zeros(q.features - k, d)])
    encoder.layers[0].bias.data = torch.cat([-gain @ mu, rest])
    decoder.layers[0].weight.data, decoder.layers[0].bias.data = w, mu
    return Autoencoder(encoder, q, decoder, p), x, MultivariateNormal(mu, w @ w.T + s2 * torch.eye(d)).log_prob(x)


def test_the_exact_full_posterior_gives_the_evidence_in_every_draw() -> None:
    """log p(x|z) + log p(z) - log q(z|x) = log p(x), whatever z is; a diagonal q of the same means cannot."""
    model, x, log_p = linear_gaussian()
    distortion, rate = log_weights(*model(x, samples=7), x)
    close(-(distortion + rate), log_p.repeat(7), **SAME)
    for bound in (nr.objectives.elbo, iwae):
        close(Objective(bound=bound, samples=7, rate="sampled")(model, Batch.of(x)).bound, log_p, **SAME)
    close(nr.evaluate.log_likelihood(model, x, samples=1).values, log_p, **SAME)
    close(nr.evaluate.score_samples(model, x, samples=20), log_p, **SAME)


def test_a_full_gaussian_has_the_moments_it_says() -> None:
    """q is the normal of the encoder's numbers; 100,000 draws have its mean and covariance (6 standard errors)."""
    mean, root = torch.randn(2, 3), torch.randn(2, 3, 3).tril()
    root.diagonal(dim1=1, dim2=2).abs_().add_(0.1)
    code = FullGaussian(StandardNormal(3))(gaussian_h(mean, root), samples=100_000)
    close(code.q.covariance_matrix, root @ root.mT, **SAME)
    z = code.z.unflatten(0, (100_000, 2)) - mean
    spread = code.q.covariance_matrix.diagonal(dim1=1, dim2=2)
    assert (z.mean(0).abs() < 6 * (spread / 1e5).sqrt()).all()
    error = ((spread[:, :, None] * spread[:, None] + code.q.covariance_matrix**2) / 1e5).sqrt()
    assert (((z[..., None] * z[..., None, :]).mean(0) - code.q.covariance_matrix).abs() < 6 * error).all()
    close(code.rate, kl_divergence(code.q, MultivariateNormal(torch.zeros(3), torch.eye(3))).repeat(100_000), **SAME)


# ---- KL between normals -----------------------------------------------------------------------------------------


def normal(kind: str, batch: tuple[int, ...], d: int = 3) -> Any:
    """A random normal, diagonal or full."""
    mean, sigma = torch.randn(*batch, d), torch.rand(*batch, d) + 0.3
    if kind == "diagonal":
        return Independent(Normal(mean, sigma), 1)
    return MultivariateNormal(mean, scale_tril=torch.randn(*batch, d, d).tril(-1) + sigma.diag_embed())


def full(d: Any) -> MultivariateNormal:
    """The same normal in torch's full form."""
    return d if isinstance(d, MultivariateNormal) else MultivariateNormal(d.mean, d.variance.diag_embed())


@pytest.mark.parametrize(("left", "right"), list(itertools.product([(), (4,), (2, 4)], [(), (4,)])), ids=str)
@pytest.mark.parametrize(("q", "p"), list(itertools.product(["diagonal", "full"], repeat=2)), ids=str)
def test_kl_between_any_normals_is_torchs_for_full_ones(q: str, p: str, left: tuple, right: tuple) -> None:
    """Whatever their form and batch; per unit where both are diagonal; zero from a normal to itself."""
    a, b = normal(q, left), normal(p, right)
    found = kl(a, b)
    assert found.shape[-1] == (3 if (q, p) == ("diagonal", "diagonal") else 1)
    close(found.sum(-1), kl_divergence(full(a), full(b)), **SAME)
    close(kl(full(a), a), torch.zeros(*left, 1), **SAME)


@pytest.mark.parametrize(("q", "p"), [("diagonal", "full"), ("full", "diagonal"), ("full", "full")], ids=str)
def test_kl_between_normals_is_the_mean_of_log_q_minus_log_p(q: str, p: str) -> None:
    """200,000 draws, within 6 standard errors (failure 2e-9)."""
    a, b = normal(q, ()), normal(p, ())
    z = a.sample((200_000,))
    rate = a.log_prob(z) - b.log_prob(z)
    assert (rate.mean() - kl(a, b)[0]).abs() < 6 * rate.std() / math.sqrt(200_000)


@pytest.mark.parametrize("posterior", [Gaussian, FullGaussian])
def test_rates_are_closed_where_they_can_be(posterior: type) -> None:
    """Under N(0, I) and any normal: the same for every draw. Under a mixture: the draws' own."""
    shifted = MultivariateGaussian(2)
    shifted.mean += 0.3
    shifted.scale += torch.tensor([[0.5, 0.0], [0.7, 0.1]])
    for prior in (StandardNormal(2), shifted, GaussianMixture(2)):
        q = posterior(prior)
        assert q.closed == (not isinstance(prior, GaussianMixture))
        code = q(torch.randn(3, q.features), samples=4)
        rate = code.rate.view(4, 3)
        assert torch.equal(rate[0], rate[1]) == q.closed
        if q.closed:
            close(rate[0], kl_divergence(full(code.q), full(prior())), **SAME)


def test_what_is_estimated_is_said() -> None:
    """One sentence before training, only where the objective would have taken a closed form."""
    x = nr.data.rows(torch.rand(300, 6))
    said = {}
    for name, arguments in (("flow_vae", {}), ("vampprior", {}), ("vae", {}), ("concrete", {}), ("autoencoder", {})):
        model, objective = getattr(recipes, name)((6,), latent=2, **arguments)
        said[name] = [s for s in alarms.before(model, objective, x, 100) if "no closed form" in s]
    assert said["flow_vae"] == [
        "the rate is estimated from the draws, as the mean of log q - log p: the KL from Flow to StandardNormal has no "
        "closed form"
    ]
    assert "from Gaussian to VampPrior" in said["vampprior"][0]
    assert not said["vae"] + said["concrete"] + said["autoencoder"]
    sampled, objective = recipes.flow_vae((6,), latent=2, rate="sampled")
    assert not any("closed form" in s for s in alarms.before(sampled, objective, x, 100))


# ---- choices ----------------------------------------------------------------------------------------------------


def choices(temperature: float | None = 2 / 3) -> tuple[Autoencoder, Tensor]:
    """Two choices among three classes behind five bits; and all the codes there are, (9, 6)."""
    q, p = Concrete(Categorical(6, classes=3), temperature), Bernoulli((5,))
    model = Autoencoder(strong(Mlp((5,), (6,), hidden=(4,))), q, strong(Mlp((6,), p.wants, hidden=(4,))), p)
    one = torch.eye(3)
    return model, torch.stack([torch.cat([one[a], one[b]]) for a in range(3) for b in range(3)])


def test_probabilities_of_choices_are_those_of_enumeration() -> None:
    """q and p sum to one over all codes; draws in evaluation are one-hot, 100,000 as frequent as q says (6 sigma)."""
    model, codes = choices()
    x = torch.randint(2, (3, 5)).double()
    code = model.eval().encode(x, samples=100_000, draw=True)
    log_q, log_p = code.q.log_prob(codes[:, None].expand(9, 3, 6)), code.p.log_prob(codes)
    pi = model.encoder(x).view(3, 2, 3).softmax(-1)
    by_hand = torch.stack([pi[:, 0, a] * pi[:, 1, b] for a in range(3) for b in range(3)])
    close(log_q.exp(), by_hand, **SAME)
    close(log_p.exp(), torch.full((9,), 1 / 9), **SAME)
    drawn = code.z.unflatten(0, (100_000, 3))
    assert torch.equal(drawn.view(-1, 3).sort(1).values, torch.tensor([0.0, 0.0, 1.0]).expand(600_000, 3))
    share = (drawn[:, :, None] == codes).all(-1).double().mean(0)  # (3, 9)
    assert ((share - by_hand.T).abs() < 6 * (by_hand.T / 1e5).sqrt() + 1e-12).all()
    assert torch.equal(code.index, code.z.view(-1, 2, 3).argmax(-1))
    close(code.rate[:3], (by_hand * (log_q - log_p[:, None])).sum(0), **SAME)
    close(model.encode(x).z.view(3, 2, 3), pi, **SAME)  # the point code is the mean


@torch.no_grad()
def test_the_bound_of_choices_is_that_of_enumeration() -> None:
    """`log_likelihood` nears log sum_z p(x|z) p(z) (within 6 of its own errors), the ELBO is sum_z q(z) log w(z)."""
    model, codes = choices()
    model.eval()
    x = torch.randint(2, (4, 5)).double()
    log_joint = torch.stack([model.decode(z.expand(4, 6)).log_prob(x) for z in codes]) - math.log(9)  # (9, 4)
    exact = log_joint.logsumexp(0)
    found = nr.evaluate.log_likelihood(model, x, samples=50_000)
    assert abs(found.mean - float(exact.mean())) < 6 * found.monte_carlo_error
    log_q = model.encode(x).q.log_prob(codes[:, None].expand(9, 4, 6))
    elbo = (log_q.exp() * (log_joint - log_q)).sum(0)
    terms = Objective(samples=50_000)(model, Batch.of(x))
    assert ((terms.bound - elbo).abs() < 6 * 3 / math.sqrt(50_000)).all()  # distortions spread by less than 3 nats
    total = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 5)
    evidence = torch.stack([model.decode(z.expand(32, 6)).log_prob(total) for z in codes]).logsumexp(0) - math.log(9)
    close(evidence.exp().sum(), torch.ones(()), **SAME)


@pytest.mark.parametrize(
    ("gradient", "settings"),
    [(ScoreFunction("leave-one-out"), {}), (Vimco(), {"bound": iwae, "rate": "sampled"})],
    ids=["score function", "vimco"],
)
def test_choices_learn_without_a_slope(gradient: nn.Module, settings: dict[str, Any]) -> None:
    """In training, of two draws: the mean slope by the encoder's words is that of enumeration (5 standard errors)."""
    model, codes = choices(None)
    x, n = torch.randint(2, (1, 5)).double(), 20_000
    h = model.encoder(x).detach().requires_grad_()
    log_q = priors.one_hot(h.view(1, 2, 3)).log_prob(codes)  # (9,)
    with torch.no_grad():
        log_p = torch.cat([model.decode(z[None]).log_prob(x) for z in codes])
    log_w = log_p - math.log(9) - log_q
    pairs = torch.stack([log_w[:, None].expand(9, 9), log_w.expand(9, 9)]).logsumexp(0) - math.log(2)
    value = ((log_q[:, None] + log_q).exp() * pairs).sum() if settings else (log_q.exp() * log_w).sum()
    (known,) = torch.autograd.grad(-value, h)
    rows = h.detach().repeat(n, 1).requires_grad_()
    objective = Objective(gradient=gradient, samples=2, **settings)
    free = nr.evaluate.without_encoder(model).train()
    objective.check(free)
    loss = objective(free, Batch(rows, x.expand(n, -1))).loss
    slopes = n * torch.autograd.grad(loss, rows)[0]
    assert ((slopes.mean(0) - known[0]).abs() < 5 * slopes.std(0) / math.sqrt(n)).all()
    for along in (None, StickingTheLanding()):
        with pytest.raises(TypeError, match="a draw that is a choice has no slope"):
            Objective(gradient=along, samples=2, rate="sampled").check(model)
    with pytest.raises(ValueError, match="units carry at most 1.099 frees all of the rate"):
        Objective(free_bits=1.1, gradient=ScoreFunction()).check(model)


def test_relaxed_draws_are_gumbel_softmax_and_harden_as_the_temperature_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    """softmax((h - log(-log u)) / tau) on the noise at hand; the gradient reaches the encoder; evaluation is hard."""
    u = torch.rand(4, 3, 2, 3)
    monkeypatch.setattr(nr.draws, "uniform", lambda samples, like: u)
    x = torch.randint(2, (3, 5)).double()
    model, _ = choices(0.4)
    h = model.encoder(x).view(3, 2, 3)
    relaxed = model.encode(x, samples=4, draw=True)
    close(relaxed.z.view(4, 3, 2, 3), ((h - (-u.log()).log()) / 0.4).softmax(-1), **SAME)
    model.decode(relaxed.z).mean.sum().backward()
    assert all(p.grad.any() for p in model.encoder.parameters())
    model.posterior.temperature = 1e-3
    hard = copy.deepcopy(model).eval().encode(x, samples=4, draw=True)
    close(model.encode(x, samples=4, draw=True).z, hard.z, rtol=0, atol=1e-3)
    assert torch.equal(hard.index, relaxed.index)


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("concrete", {"latent": 4}),
        ("ladder", {"latent": 3}),
        ("hvae", {"latent": 3}),
        ("vqvae", {"latent": 2, "codebook": 3}),
    ],
)
def test_codes_of_all_kinds_can_be_exported_for_any_batch(name: str, own: dict[str, Any]) -> None:
    """Nothing in the way looks at values, and nothing takes the number of rows for a fixed one."""
    model = getattr(recipes, name)((5,), **own)[0].eval()
    axes = ({0: torch.export.Dim("batch")},)
    x = torch.randint(2, (7, 5)).to(torch.get_default_dtype())
    z = model.encode(x).z.detach()
    for module, t in ((Encode(model, None), x), (Decode(model, None), z)):
        traced = torch.export.export(module, (t[:3],), dynamic_shapes=axes).module()
        for few in (t, t[:1]):
            close(traced(few), module(few), rtol=0, atol=1e-6)


def test_frequencies_of_classes_are_what_a_fit_finds() -> None:
    prior = Categorical(4, classes=2)
    prior.fit(torch.tensor([[1.0, 0, 1, 0], [1, 0, 0, 1], [1, 0, 1, 0]]))
    close(prior.logits.exp(), torch.tensor([[4 / 5, 1 / 5], [3 / 5, 2 / 5]]), **SAME)
    assert [Categorical(n).classes for n in (3, 16, 20, 11)] == [3, 8, 10, 11]


# ---- p(z) -------------------------------------------------------------------------------------------------------


def placed(prior: Any) -> Any:
    """Its standardisation away from the origin, as a fit leaves it."""
    prior.centre += torch.tensor([1.0, -0.5])
    prior.width *= torch.tensor([1.5, 0.7])
    return prior


PRIORS = {
    "diagonal": lambda: strong(Mixture(2, components=4)),
    "full": lambda: strong(Mixture(2, components=4, full=True)),
    "MAF": lambda: placed(strong(FlowPrior(2, partial(MAF, hidden=(8,))), 0.3)),
    "NSF": lambda: placed(strong(FlowPrior(2, partial(NSF, hidden=(8,), length=2)), 0.3)),
    "autoregressive": lambda: placed(strong(Autoregressive(2, components=3, hidden=(8,)), 0.3)),
    "vampprior": lambda: vamp(FullGaussian)[0].prior,
}


def vamp(posterior: type, context: int = 0) -> tuple[Autoencoder, Tensor]:
    """A small model with a VampPrior, and rows."""
    q, p = posterior(VampPrior(2, pseudo=5)), GaussianLikelihood((4,))
    encoder = strong(Mlp((4,), (q.features,), context, hidden=(6,)), 0.5)
    return Autoencoder(encoder, q, Mlp((2,), p.wants, context, hidden=(6,)), p, context=context), torch.randn(9, 4)


@pytest.mark.parametrize("name", PRIORS)
def test_a_learned_density_integrates_to_one_and_draws_what_it_scores(name: str) -> None:
    """By a grid over the plane; the mean of 20,000 draws is the density's (6 standard errors)."""
    p = PRIORS[name]()()
    drawn = p.sample((20_000,))
    with torch.no_grad():
        z, area = grid(10.0, 301)
        mass = p.log_prob(z).exp() * area
        mean = (mass[:, None] * z).sum(0)
    close(mass.sum(), torch.ones(()), rtol=0, atol=2e-3)
    assert ((drawn.mean(0) - mean).abs() < 6 * drawn.std(0) / math.sqrt(20_000) + 0.01).all()


@pytest.mark.parametrize("posterior", [Gaussian, FullGaussian])
def test_a_vampprior_is_the_mixture_of_its_pseudo_inputs_posteriors(posterior: type) -> None:
    """Equation 9 by hand; it moves with the encoder; gradients reach pseudo-inputs and encoder through log p."""
    model, x = vamp(posterior)
    z = torch.randn(7, 2)
    expected = torch.stack(
        [full(model.posterior.given(model.encoder(u[None]))).log_prob(z) for u in model.prior.inputs]
    )
    close(model.prior().log_prob(z), expected.logsumexp(0) - math.log(5), **SAME)
    close(model.prior().log_prob(z.view(7, 1, 2)).view(7), model.prior().log_prob(z), **SAME)
    terms = Objective()(model, Batch.of(x))
    close(terms.bound, -terms.distortion - terms.rate, **SAME)
    (gradient,) = torch.autograd.grad(model.prior().log_prob(z).sum(), model.prior.inputs)
    assert gradient.any(1).all()
    assert Objective(rate="sampled").check(model) is None


def test_a_vampprior_survives_copies_and_files() -> None:
    """A copy reads through its own encoder; the prior counts the pseudo-inputs as its own and nothing twice."""
    model, _ = vamp(Gaussian)
    z, before = torch.randn(7, 2), copy.deepcopy(model)
    close(before.prior().log_prob(z), model.prior().log_prob(z), **SAME)
    old = model.prior().log_prob(z)
    strong(before.encoder)
    close(model.prior().log_prob(z), old, **SAME)
    assert not torch.allclose(before.prior().log_prob(z), old)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    other, _ = vamp(Gaussian)
    other.load_state_dict(torch.load(file, weights_only=True))
    close(other.prior().log_prob(z), old, **SAME)
    assert [name for name, _ in model.prior.named_parameters()] == ["inputs"]
    assert sum(name.endswith("inputs") for name in model.state_dict()) == 1
    assert len(list(model.parameters())) == 9


def test_a_vampprior_begins_at_training_rows() -> None:
    """All different ones where there are enough, with their context; fewer rows come again, moved a little."""
    model, _ = vamp(Gaussian, context=20)
    x, label = torch.arange(20.0).view(20, 1).expand(20, 4), torch.arange(20)
    assert not model.start(model, nr.data.Rows(x, label=label, context=20), None)
    inputs = model.prior.inputs.detach()
    assert (inputs == inputs[:, :1]).all()
    assert len(inputs[:, 0].unique()) == 5
    assert torch.equal(inputs[:, 0], model.prior.told.detach() @ torch.arange(20.0))
    model.start(model, nr.data.Rows(x[:3], label=label[:3], context=20), None)
    assert len({*map(tuple, model.prior.inputs.tolist())}) == 5


def test_many_components_are_scored_in_pieces() -> None:
    """The same as at once; memory does not grow with codes times components."""
    prior = strong(Mixture(40, components=500))
    z = torch.randn(450, 40)
    close(prior().log_prob(z)[200:300], prior().log_prob(z[200:300]), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "prior",
    [
        partial(FlowPrior, flow=partial(NSF, length=2, hidden=(16,))),
        partial(Autoregressive, components=4, hidden=(32,)),
    ],
    ids=["flow", "autoregressive"],
)
def test_a_fitted_density_nears_the_entropy(prior: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """2,000 codes along a wave, z_2 = sin 2 z_1 + noise, entropy known: within 0.15 nats on 5,000 fresh ones.

    Their own mean of -log p has a standard error of 0.014, what is left is that of learning from 2,000; a normal misses
    the entropy by 0.8.
    """
    torch.set_default_dtype(torch.float32)  # as codes come
    monkeypatch.setattr("narrows.priors.learned.STEPS", 400)

    def codes(n: int) -> Tensor:
        a = torch.randn(n)
        return torch.stack([5 + 3 * a, (2 * a).sin() + 0.3 * torch.randn(n)], 1)

    entropy = math.log(2 * math.pi * math.e) + math.log(3 * 0.3)
    fitted, normal, z, fresh = prior(2), MultivariateGaussian(2), codes(2000), codes(5000)
    with torch.no_grad():  # as fit_prior calls it
        fitted.fit(z)
        normal.fit(z)
        assert -normal().log_prob(fresh).mean() > entropy + 0.7
        assert abs(float(-fitted().log_prob(fresh).mean()) - entropy) < 0.15
        drawn = fitted().sample((2000,))
    assert ((drawn.mean(0) - fresh.mean(0)).abs() < torch.tensor([0.4, 0.15])).all()
    assert all(p.grad is None for p in fitted.parameters())


@pytest.mark.parametrize("prior", [partial(Mixture, components=3), partial(Mixture, components=3, full=True)])
def test_a_mixture_is_fitted_by_expectation_maximisation_too(prior: Callable) -> None:
    """With any covariances it is GaussianMixture's fit."""
    z = torch.randn(300, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.3]]) + 4 * torch.randint(3, (300, 1))
    mixture, other = prior(2), GaussianMixture(2, components=3)
    for one in (mixture, other):
        torch.manual_seed(0)
        one.fit(z)
    if mixture.full:
        close(mixture().log_prob(z), other().log_prob(z), rtol=0, atol=1e-6)
    else:
        weights = mixture.logits.exp()
        spread = (weights[:, None] * (nn.functional.softplus(mixture.raw) ** 2 + mixture.mean**2)).sum(0)
        close(spread, z.square().mean(0), rtol=0, atol=1e-3)  # a mixture's second moments are the data's at its optimum


@pytest.mark.parametrize(
    "prior",
    [partial(FlowPrior, flow=partial(NSF, hidden=(8,), bins=4)), partial(Autoregressive, components=2, hidden=(8,))],
    ids=["flow", "autoregressive"],
)
def test_any_member_becomes_generative_by_a_learned_density(
    prior: Callable, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fit_prior depends on its seed alone; a run folder keeps the prior and draws alike."""
    torch.set_default_dtype(torch.float32)
    monkeypatch.setattr("narrows.priors.learned.STEPS", 60)
    model, objective = recipes.autoencoder((5,), latent=2, network=partial(Mlp, hidden=(8,)))
    x = torch.rand(120, 5)
    run = nr.fit(model, objective, x, training=nr.Training(epochs=1), quiet=True)
    first = nr.fit_prior(run.model, x, prior(2)).state_dict()
    torch.rand(3)
    second = nr.fit_prior(run.model, x, prior(2)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    run.save(tmp_path / "a")
    drawn = []
    for loaded in (run, nr.load(tmp_path / "a")):
        torch.manual_seed(0)
        drawn.append(loaded.model.sample(4).mean)
    assert torch.equal(*drawn)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    "settings",
    [
        {"posterior": FullGaussian},
        {"posterior": partial(Flow, flow=Planar)},
        {"posterior": partial(Flow, flow=partial(MAF, length=2))},
        {"posterior": partial(Flow, flow=partial(NSF, length=1, hidden=(8,)))},
        {"posterior": FullGaussian, "prior": MultivariateGaussian},
        {"prior": partial(Mixture, components=3, full=True)},
        {"prior": partial(VampPrior, pseudo=4), "posterior": FullGaussian},
        {"prior": partial(FlowPrior, flow=MAF), "posterior": Flow},
        {"prior": partial(Autoregressive, components=2), "rate": "sampled"},
    ],
    ids=str,
)
def test_every_pair_of_posterior_and_prior_is_a_setting_of_vae(settings: dict[str, Any], dtype: torch.dtype) -> None:
    """Every parameter learns, in either precision; the description rebuilds it; it evaluates."""
    torch.set_default_dtype(torch.float32)
    model, objective = recipes.vae((6,), latent=2, network=partial(Mlp, hidden=(8,)), **settings)
    again, _ = recipes.build(model.spec)
    again.load_state_dict(model.state_dict())
    assert again.spec == model.spec
    model.to(dtype)
    x = torch.randint(2, (9, 6)).to(dtype)
    terms = objective(model, Batch.of(x))
    terms.loss.backward()
    assert terms.bound.dtype == dtype
    assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())
    assert nr.evaluate.log_likelihood(model, x, samples=5).values.isfinite().all()
    assert nr.evaluate.score_samples(model, x).isfinite().all()
    assert model.sample(3).mean.shape == (3, 6)


# ---- citations and refusals -------------------------------------------------------------------------------------


def test_parts_of_parts_are_cited() -> None:
    def keys(**arguments: Any) -> set[str]:
        model, _ = recipes.vae((4,), latent=2, **arguments)
        return {entry.split("{")[1].split(",")[0] for entry in references.cite(model.spec)}

    nested = keys(posterior=partial(Flow, flow=partial(MAF, length=2)), prior=partial(FlowPrior, flow=NSF))
    assert {"rezende2015variational", "papamakarios2017masked", "durkan2019neural", "rozet2022zuko"} <= nested
    assert "kingma2016improved" not in nested
    assert {"tomczak2018vae"} <= keys(prior=partial(VampPrior, pseudo=3))
    assert not keys() & {"rezende2015variational", "tomczak2018vae"}


def test_accents_of_references_are_those_of_tex() -> None:
    """A backslash that Python reads itself leaves an accent that BibTeX prints as it stands."""
    for entry in references._WORKS.values():
        assert not re.search(r"""(?<!\\)["'`^~](?=[a-zA-Z]\}|\{)""", entry), entry
        assert entry.isascii(), entry


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Planar(2, length=0), ValueError, "at least one step; got length=0"),
        (lambda: IAF(2, length=0), ValueError, "at least one step; got length=0"),
        (lambda: MAF(2, length=0), ValueError, "at least one step; got length=0"),
        (lambda: Masked(0, 1), ValueError, "at least one unit, and hidden layers of at least one; got latent=0"),
        (lambda: FlowPrior(2, IAF), TypeError, "needs an inverse: take flow=MAF or flow=NSF; got IAF"),
        (lambda: Mixture(2, components=0), ValueError, "at least one component; got components=0"),
        (lambda: Autoregressive(2, components=0), ValueError, "at least one component; got components=0"),
        (lambda: VampPrior(2, pseudo=0), ValueError, "at least one pseudo-input; got pseudo=0"),
        (lambda: VampPrior(2)(), TypeError, "reads its pseudo-inputs through the encoder of a model: build"),
        (lambda: recipes.vampprior((4,), posterior=Flow), TypeError, "mixes the normals .* and Flow gives none. Take"),
        (
            lambda: recipes.autoencoder((4,), prior=VampPrior),
            TypeError,
            "mixes the normals .* Deterministic gives none",
        ),
        (lambda: Categorical(6, classes=4), ValueError, "at least 2 classes .* got latent=6, classes=4"),
        (lambda: Concrete(StandardNormal(2)), TypeError, "made of classes, and so is its prior.* got StandardNormal"),
        (lambda: Concrete(Categorical(2), temperature=0.0), ValueError, "above 0; got temperature=0"),
        (lambda: recipes.vae((4,), prior=Categorical), TypeError, "Categorical is a prior over classes, and this code"),
        (lambda: recipes.concrete((4,), rate="sampled"), TypeError, 'a relaxed draw .* right: rate="closed"'),
        (lambda: FlowPrior(2).fit(torch.rand(9, 2)), ValueError, "Flow learns from at least 20 codes; got 9"),
        (
            lambda: nr.fit_prior(recipes.concrete((4,))[0], torch.rand(50, 4), GaussianMixture(16)),
            TypeError,
            "GaussianMixture cannot be the prior of a Concrete code: Concrete codes are choices",
        ),
        (
            lambda: nr.fit_prior(recipes.vae((4,))[0], torch.rand(50, 4), Categorical(16)),
            TypeError,
            "Categorical cannot be the prior of a Gaussian code",
        ),
    ],
    ids=range(19),
)
def test_what_means_nothing_is_refused(make: Callable, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_classes_can_be_what_codes_are_held_to() -> None:
    """An adversarial code of classes: sampled from the prior, never priced by it."""
    torch.set_default_dtype(torch.float32)
    model, objective = recipes.aae((6,), latent=3, prior=Categorical)
    assert isinstance(model.posterior, Deterministic)
    assert objective(model, Batch.of(torch.rand(8, 6))).loss.isfinite()


# ---- a bimodal posterior ----------------------------------------------------------------------------------------


class Square(nn.Module):
    """z -> z^2 in the first unit, so that x says nothing of its sign: p(z|x) has two modes."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([z[:, :1].square(), z[:, 1:]], 1)[:, None]


class Free(nn.Module):
    """An encoder for one row: its numbers are its own, and it begins with widths of `width`."""

    def __init__(self, features: int, width: float) -> None:
        super().__init__()
        self.h = nn.Parameter(0.1 * torch.randn(features))
        self.h.data[2:4] = width

    def forward(self, x: Tensor) -> Tensor:
        return self.h.expand(len(x), -1)


def gap(posterior: nn.Module, x: Tensor, steps: int, width: float, seed: int) -> float:
    """log p(x) - ELBO of q optimised for one row from a start of that seed, log p(x) by quadrature in the plane."""
    torch.manual_seed(seed)
    posterior = copy.deepcopy(posterior)
    strong(posterior, 0.2)
    model = Autoencoder(Free(posterior.features, width), posterior, Square(), GaussianLikelihood((2,), sigma=0.5))
    optimiser, objective = Adam(model.parameters(), 0.05), Objective(samples=64, rate="sampled")
    for step in range(steps):
        optimiser.lr = 0.025 * (1 + math.cos(math.pi * step / steps))
        optimiser.zero_grad()
        objective(model, Batch.of(x)).loss.backward()
        optimiser.step()
    z, area = grid(7.0, 281)
    with torch.no_grad():
        joint = model.decode(z).log_prob(x.expand(len(z), 2)) + StandardNormal(2)().log_prob(z)
        elbo = Objective(samples=20_000, rate="sampled")(model, Batch.of(x)).bound[0]
    return float(joint.logsumexp(0) + math.log(area) - elbo)


def test_a_flow_closes_more_than_half_of_the_gap_that_a_normal_leaves_at_two_modes() -> None:
    """One row, q optimised for it, the best of three starts: a normal covers one mode of the two, a flow covers both.

    The KL that is minimised has the single modes as local minima, so one start need not find them both.
    """
    x, flow = torch.tensor([[1.0, 0.5]]), Flow(StandardNormal(2), partial(NSF, features=1, length=1, hidden=(8,)))
    normal = min(gap(FullGaussian(StandardNormal(2)), x, 150, 0.5, seed) for seed in range(3))
    bent = min(gap(flow, x, 120, 1.5, seed) for seed in range(3))
    assert 0.4 < normal < 0.7  # log 2 less what the modes share
    assert -0.02 < bent < normal / 2
