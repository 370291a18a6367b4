"""The claims of docs/theory, each by its page's own functions, without training anything large or drawing a figure.

Float64. Closed forms, enumerations and quadratures of smooth integrands must agree to 1e-8 or better: only rounding
separates them. What a page reaches by gradient descent agrees as far as the descent went; each such test says how far.
Where something is drawn (seed 0), the test says how often another seed would fail it.
"""

import importlib.util
import math
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import torch

import narrows as nr
from narrows.pca import fit_pca

FOLDER = Path(__file__).parents[1] / "docs" / "theory"
PAGES = sorted(path.stem for path in FOLDER.glob("*.py"))
EIGENVALUES = [4.0, 2.0, 1.0, 0.4, 0.2, 0.1]


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """As `main` of the exact pages."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@cache
def page(name: str) -> ModuleType:
    """A file as a module; importing it computes nothing."""
    spec = importlib.util.spec_from_file_location(f"theory_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", PAGES)
def test_every_page_is_listed_and_has_its_figure(name: str) -> None:
    """README shows both; the figure is small enough for a repository; the docstring says how to run it."""
    readme = (FOLDER / "README.md").read_text()
    assert f"[{name}.py]({name}.py)" in readme
    assert f"(figures/{name}.png)" in readme
    assert (FOLDER / "figures" / f"{name}.png").stat().st_size < 80_000
    assert f"Run it: python docs/theory/{name}.py" in page(name).__doc__
    assert callable(page(name).main)


# ---- the bound ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("beta", "sigma"), [(1.0, 1.0), (1.0, 0.2), (4.0, 0.3)])
def test_reconstruction_plus_lambda_kl_is_the_bound(beta: float, sigma: float) -> None:
    """Row by row at random weights on the same noise, and in the gradient of every parameter."""
    file = page("two_sides")
    model, _ = nr.recipes.vae((5,), latent=2, likelihood=lambda shape: nr.likelihoods.Gaussian(shape, sigma))
    x, noise, weight = torch.randn(7, 5), torch.randn(3, 7, 2), 2 * beta * sigma**2
    lecture, ours = file.lecture(model, x, noise, weight), file.ours(model, x, noise, beta)
    constant = 5 / 2 * math.log(2 * math.pi * sigma**2)
    torch.testing.assert_close(lecture, 2 * sigma**2 * (ours - constant), rtol=1e-10, atol=1e-10)
    if beta == 1:
        torch.testing.assert_close(lecture, file.from_ours(ours, weight, 5), rtol=1e-10, atol=1e-10)
    slopes = [torch.autograd.grad(loss.sum(), list(model.parameters())) for loss in (lecture, ours)]
    for a, b in zip(*slopes, strict=True):
        torch.testing.assert_close(a, 2 * sigma**2 * b, rtol=1e-9, atol=1e-9)


def test_the_bound_has_a_best_lambda_and_the_lectures_loss_has_none() -> None:
    """It is twice the noise of probabilistic PCA, and there the bound is its log-likelihood."""
    two_sides, linear_vae = page("two_sides"), page("linear_vae")
    values, units = torch.tensor(EIGENVALUES), 3
    best = float(values[units:].mean())
    least = two_sides.smallest(values, units, best)
    assert least == pytest.approx(-linear_vae.log_likelihood(values, units), abs=1e-12)
    assert all(two_sides.smallest(values, units, best * f) > least for f in (0.5, 0.99, 1.01, 2.0))
    grid = [0.01 * 1.2**i for i in range(30)]
    plain = [two_sides.from_ours(two_sides.smallest(values, units, g / 2), g, 6) for g in grid]
    assert all(a <= b + 1e-12 for a, b in pairwise(plain))


def test_a_trained_linear_vae_is_probabilistic_pca() -> None:
    """400 steps of L-BFGS get within 1e-6 nats of the maximum of the likelihood; never above it."""
    file, few = page("linear_vae"), [3.0, 1.0, 0.3, 0.1]
    x = file.rows(few, 20)
    gap = file.log_likelihood(few, 2) + float(file.exact_loss(file.trained(x, 2), x).detach())
    assert -1e-10 < gap < 1e-6


def test_units_collapse_where_their_eigenvalue_lies_below_beta_sigma_squared() -> None:
    """Rates after training, within 1e-3 nats; the fourth unit (0.4 < 0.625) is dead."""
    file = page("linear_vae")
    x = file.rows(EIGENVALUES)
    model = file.trained(x, 4, beta=2.5, sigma=0.5)
    rates = model.encode(x).rates.mean(0).detach().sort(descending=True).values
    told = [file.rate(value, 2.5 * 0.5**2) for value in EIGENVALUES[:4]]
    assert told[3] == 0
    torch.testing.assert_close(rates, torch.tensor(told), rtol=0, atol=1e-3)


def test_the_linear_vae_walks_along_shannons_curve() -> None:
    """Squared error and rate of the trained model, R(D) by bisection, and the slope -beta."""
    file, linear_vae = page("rate_distortion"), page("linear_vae")
    beta, sigma = 2.0, 0.5
    error, rate = file.linear(EIGENVALUES, beta * sigma**2)
    x = linear_vae.rows(EIGENVALUES)
    model = linear_vae.trained(x, 5, beta, sigma)  # one unit to spare
    code = model.encode(x)
    assert float(code.rate.mean().detach()) == pytest.approx(rate, abs=1e-3)
    distortion = float((linear_vae.exact_loss(model, x, beta) - beta * code.rate.mean()).detach())
    assert (distortion - 3 * math.log(2 * math.pi * sigma**2)) * 2 * sigma**2 == pytest.approx(error, abs=1e-3)
    assert file.shannon(EIGENVALUES, error) == pytest.approx(rate, abs=1e-10)
    (e1, r1), (e2, r2) = (file.linear(EIGENVALUES, beta * sigma**2 * f) for f in (1 - 1e-5, 1 + 1e-5))
    assert (e2 - e1) / (r2 - r1) / (2 * sigma**2) == pytest.approx(-beta, rel=1e-6)


def test_em_climbs_the_bound_and_ends_at_probabilistic_pca() -> None:
    """No half step lowers it (beyond rounding), every E step closes the gap; it rests at the optimum and nears it."""
    file = page("em")
    x = file.rows(60)
    trace, theta = file.em(x, 3, 30)
    bounds = [bound for bound, _ in trace]
    assert all(a <= b + 1e-11 for a, b in pairwise(bounds))
    assert all(abs(bound - log_p) < 1e-10 for bound, log_p in trace[::2])
    assert all(bound < log_p for bound, log_p in trace[1:20:2])
    first, last = (file.optimum(x, 3) - value for value in (trace[0][1], file.log_likelihood(x, theta)))
    assert -1e-10 < last < 0.01 * first
    pca = fit_pca(x, 3)
    best = pca.axes * (pca.variances - pca.noise).sqrt(), pca.mean, torch.tensor(pca.noise)
    for a, b in zip(file.m_step(x, file.e_step(x, best)), best, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("mean", "sigma"), [(0.0, 1.0), (0.8, 0.25), (1.2, 0.1)])
def test_the_gap_is_the_kl_to_the_posterior(mean: float, sigma: float) -> None:
    """narrows' bound by Gauss-Hermite quadrature, evidence and KL on a grid."""
    file, x = page("evidence_gap"), torch.tensor([[1.2, 0.6]])
    bound, gap = file.elbo(file.model(mean, sigma), x), file.gap(x, mean, sigma)
    assert gap > 0
    assert bound + gap == pytest.approx(file.log_evidence(x), abs=1e-9)


def test_gibbs_principle() -> None:
    """Reached at q*; any other q falls short by KL(q || q*); ascent finds it; its dual gives the KL."""
    file = page("gibbs")
    f, log_p = file.bumps(file.GRID), file.log_prior(file.GRID)
    top, star = file.free_energy(f, log_p), file.best(f, log_p)
    assert float(file.objective(star, f, log_p)) == pytest.approx(top, abs=1e-12)
    other = torch.randn(len(f)).log_softmax(0) - math.log(file.STEP)
    short = float((other.exp() * (other - star)).sum() * file.STEP)
    assert float(file.objective(other, f, log_p)) == pytest.approx(top - short, abs=1e-10)
    values, found = file.climb(f, log_p)
    assert all(a <= b + 1e-12 for a, b in pairwise(values))
    torch.testing.assert_close(found.exp(), star.exp(), rtol=0, atol=1e-10)
    kl = float((star.exp() * (star - log_p)).sum() * file.STEP)
    assert file.donsker_varadhan(f + 3.0, star, log_p) == pytest.approx(kl, abs=1e-12)
    assert file.donsker_varadhan(0.7 * f, star, log_p) < kl


def test_the_importance_weighted_bound() -> None:
    """K = 1 is the closed KL, K = 2 and 50 narrows' iwae on draws, K = 2000 the asymptote within 1 %.

    Within 5 standard errors of 20,000 and 2,000 groups: one seed in 9e5 fails.
    """
    file, shift, stretch = page("importance"), 0.8, 1.5
    closed = (shift**2 + stretch**2 - 1) / 2 - math.log(stretch)
    assert file.gap(1, shift, stretch) == pytest.approx(closed, abs=1e-8)
    model = file.model(1.0, shift, stretch)
    for k, groups in ((2, 20_000), (50, 2_000)):
        mean, error = file.sampled(model, 1.0, k, groups)
        assert abs(file.log_evidence(1.0) - file.gap(k, shift, stretch) - mean) < 5 * error
    assert 2000 * file.gap(2000, shift, stretch) == pytest.approx(file.asymptote(shift, stretch), rel=0.01)
    log_r, weights = file.ratios(shift, stretch)
    assert float(weights @ log_r.exp()) == pytest.approx(1, abs=1e-10)  # E R = 1
    variance = float(weights @ (log_r.exp() - 1) ** 2)
    assert file.asymptote(shift, stretch) == pytest.approx(variance / 2, abs=1e-10)


# ---- gradients and gaps ------------------------------------------------------------------------------------------


def test_variances_of_the_gradient_estimators() -> None:
    """Formulas by quadrature, exactly; narrows' distortion, which is pi f, on 200,000 draws within 5 %.

    The relative standard error of the widest of the three variances is 1.3 %, so 1 seed in 1e4 fails.
    """
    file, m, s, k = page("gradients"), 1.3, 0.7, 0.4
    told = file.formulas(m - k, s)
    exact, drawn = file.quadrature(lambda z: (z - k) ** 2, m, s, nodes=12), file.narrows(m, s, k)
    for name, variance in told.items():
        assert exact[name] == pytest.approx((2 * (m - k), variance), abs=1e-9)
        assert drawn[name][1] / math.pi**2 == pytest.approx(variance, rel=0.05)
        assert abs(drawn[name][0] / math.pi - 2 * (m - k)) < 5 * math.sqrt(variance / 200_000)
    fast = file.quadrature(lambda z: torch.cos(10 * z), m, s)
    assert fast["reparameterised"][0] == pytest.approx(fast["score function"][0], abs=1e-9)
    assert fast["reparameterised"][1] > 10 * fast["score function"][1]


def test_the_gap_splits_in_two() -> None:
    """For a small VAE: the evidence by quadrature is narrows' estimate, and neither gap is negative.

    5 standard errors of 8 rows times 4,000 draws: one seed in 2e6 fails.
    """
    file = page("amortisation")
    model, _ = nr.recipes.vae((6,), latent=2, network=lambda *a: nr.networks.Mlp(*a, hidden=(8,)))
    model.float()
    with torch.no_grad():
        for p in model.decoder.parameters():
            p.mul_(3)  # so that the posterior is not the prior
    x = torch.rand(8, 6, dtype=torch.float32).round()
    torch.set_default_dtype(torch.float32)  # what the page computes in
    found = nr.evaluate.log_likelihood(model, x, samples=4000)
    evidence = file.log_evidence(model, x)
    assert abs(float(evidence.mean()) - found.mean) < 5 * found.monte_carlo_error + 1e-5
    approximation, amortisation = file.gaps(model, x, steps=40)
    assert approximation.min() > -1e-4
    assert amortisation.min() >= 0
    assert amortisation.mean() > 0.01


def test_a_flow_says_what_a_normal_cannot() -> None:
    """x = 2: the best normal misses about log 2 of the evidence, the flow under half of that (in fact 1 %)."""
    file = page("bimodal")
    normal, _ = file.best_normal(2.0)
    flow, parameters = file.best_flow(2.0)
    assert normal == pytest.approx(math.log(2), rel=0.1)
    assert 0 < flow < normal / 2
    z, log_q = file.density(file.flow, parameters)
    assert bool((z.diff() > 0).all())
    assert float(torch.trapezoid(log_q.exp(), z)) == pytest.approx(1, abs=1e-3)


# ---- what the rate is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [2.0, 0.5, 0.05])
def test_the_rate_is_information_plus_mismatch(sigma: float) -> None:
    """narrows' rate over all rows, and two sums on a grid; the information is at most log N."""
    file = page("mutual_information")
    information, mismatch = file.parts(file.MEANS, sigma)
    assert information + mismatch == pytest.approx(file.rate(file.MEANS, sigma), abs=1e-9)
    assert 0 < information <= math.log(len(file.MEANS)) + 1e-9
    assert mismatch > 0


def test_squares_in_place_of_the_kl() -> None:
    """Second order agrees, the third differs; the claim is too high; the trained weight is (4) within 1e-4."""
    file = page("square_penalty")
    mu, h = torch.tensor([0.3, -1.2]), 1e-3
    difference = file.kl(mu, torch.full((2,), 1 + h)) - file.penalty(mu, torch.full((2,), 1 + h))
    torch.testing.assert_close(difference, torch.full((2,), -(h**3) / 3), rtol=1e-2, atol=1e-14)
    x = torch.randn(50, 1)
    x = (x - x.mean()) / x.std(correction=0) * math.sqrt(2.5)
    loss, r, s = file.trained(x, file.penalty)
    assert r == pytest.approx(file.best(2.5)[1], abs=1e-4)
    assert s == pytest.approx(1 / (1 + r / 2), abs=1e-4)
    evidence = float(torch.distributions.Normal(0.0, math.sqrt(1 + r)).log_prob(x).mean())
    assert -evidence - loss == pytest.approx(file.too_much(r), abs=1e-6)
    assert file.trained(x, file.kl)[1] == pytest.approx(1.5, abs=1e-4)
    assert file.best(0.9) == (0.0, 0.0)
    assert file.best(4.0)[1] == math.inf


def test_densities_of_codes_do_not_depend_on_axes() -> None:
    """The sum of normals is torch's; differences of its logarithm survive any affine change of the code."""
    file = page("plain_autoencoder")
    codes, z = torch.randn(30, file.UNITS), torch.randn(5, file.UNITS)
    covariance = torch.cov(codes.T)
    parts = torch.distributions.MultivariateNormal(codes, covariance)
    mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(torch.ones(30)), parts)
    torch.testing.assert_close(file.kernel_density(codes, covariance, z), mixture.log_prob(z), rtol=0, atol=1e-9)
    turn = torch.randn(file.UNITS, file.UNITS)
    one, other = file.point_density(codes, z)(z), file.point_density(codes @ turn + 3, z @ turn + 3)(z @ turn + 3)
    torch.testing.assert_close(one - one[0], other - other[0], rtol=0, atol=1e-8)
