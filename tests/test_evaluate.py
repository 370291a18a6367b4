"""Every reported figure against quadrature, a closed form or an enumeration.

Statistical tests draw under a fixed seed; those that compare a Monte Carlo mean with its expectation allow five
standard errors, so a fresh seed would fail them about once in two million runs.
"""

import math
from functools import partial

import numpy as np
import pytest
import torch

import narrows as nr
from narrows import defaults, draws, evaluate
from narrows.baselines import fit_columns, fit_pca
from narrows.contract import Terms
from narrows.likelihoods import DiscretisedLogistic, Gaussian
from narrows.models import Autoencoder

BITS = torch.rand(40, 6, generator=torch.Generator().manual_seed(0)).round()


def small(latent: int = 1) -> Autoencoder:
    model, _ = nr.recipes.vae((6,), latent=latent, network=partial(nr.networks.Mlp, hidden=(8,)), seed=1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)  # a posterior and a likelihood that depend on their input
    return model.double()


def test_log_likelihood_is_that_of_quadrature():
    model, x = small(), BITS.double()
    with torch.no_grad():  # a posterior wider than the true one: the weights are bounded
        model.encoder.layers[-1].bias[1] = 2.0
    z = torch.linspace(-12, 12, 20_001, dtype=torch.float64)[:, None]
    with torch.no_grad():
        prior = torch.distributions.Normal(0.0, 1.0).log_prob(z[:, 0])
        exact = torch.stack(
            [torch.logsumexp(model.decode(z).log_prob(row.expand(len(z), 6)) + prior, 0) for row in x]
        ) + math.log(24 / 20_000)
    found = evaluate.log_likelihood(model, x, samples=20_000)
    assert found.mean == pytest.approx(float(exact.mean()), abs=5 * found.monte_carlo_error)
    assert found.monte_carlo_error < 2e-2
    error = ((20_000 / found.effective_sample_size - 1) / 20_000).sqrt()
    spread = (found.values - exact) / error
    assert 0.6 < float(spread.std()) < 1.5  # the delta method's error is the error


def test_bound_rises_with_samples_and_starts_at_the_elbo():
    model, x = small(2), BITS.double()
    means = [evaluate.log_likelihood(model, x, samples=k, seed=3).mean for k in (1, 10, 1000)]
    assert means[0] < means[1] < means[2]
    distortion, rate = evaluate.distortion_rate(model, x, samples=200)
    one = torch.stack([evaluate.log_likelihood(model, x, samples=1, seed=s).values for s in range(200)])
    error = float(one.mean(1).std()) / math.sqrt(200)
    assert float(one.mean()) == pytest.approx(float(-(distortion + rate).mean()), abs=7 * error)


def test_draws_that_are_spread_wider_are_weighed_for_it():
    """The moments of a standard normal by weighted draws, within 4 standard errors (seed 0, failure below 1e-3)."""
    with draws.seeded(0), draws.widened() as wider:
        first, second = (draws.normal(100_000, torch.zeros(2, n, dtype=torch.float64)) for n in (3, 2))
    weight = wider.correction().exp()
    assert min(first.square().mean(), second.square().mean()) > 1.1
    for value, wanted in ((weight, 1), (weight * first[..., 0] ** 2, 1), (weight * second[..., 1] ** 4, 3)):
        error = value.std(0) / math.sqrt(len(value))
        assert ((value.mean(0) - wanted).abs() < 4 * error).all()


def test_a_posterior_too_narrow_hides_no_likelihood(monkeypatch):
    """With q(z|x) = N(0, 0.3) within 4 Monte Carlo errors of quadrature, which draws of q alone are not."""
    model, x = small(2), BITS.double()
    with torch.no_grad():
        model.encoder.layers[-1].weight.zero_()
        model.encoder.layers[-1].bias.copy_(torch.tensor([0.0, 0.0, -1.0, -1.0]))
    exact = evaluate.quadrature(model, x).mean
    found = evaluate.log_likelihood(model, x, samples=20_000)
    assert abs(found.mean - exact) < 4 * found.monte_carlo_error
    assert found.monte_carlo_error < 0.02
    monkeypatch.setattr(draws, "WIDER", (1.0,))
    found = evaluate.log_likelihood(model, x, samples=20_000)
    assert abs(found.mean - exact) > 8 * found.monte_carlo_error


def test_log_likelihood_in_pieces_is_log_likelihood_at_once(monkeypatch):
    model, x = small(2), BITS.double()
    whole = evaluate.log_likelihood(model, x, samples=3000)
    monkeypatch.setattr(evaluate.likelihood, "BUDGET", 600)
    pieces = evaluate.log_likelihood(model, x, samples=3000)
    assert pieces.mean == pytest.approx(whole.mean, abs=5 * whole.monte_carlo_error * math.sqrt(2))
    assert torch.all(pieces.effective_sample_size <= 3000 + 1e-6)


def test_encoder_runs_once_a_row():
    model, seen = small(), []
    model.encoder.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    evaluate.log_likelihood(model, BITS.double(), samples=50)
    assert sum(seen) == len(BITS)


def test_deterministic_code_has_no_likelihood():
    model, _ = nr.recipes.autoencoder((6,), latent=2)
    with pytest.raises(TypeError, match="deterministic code has none"):
        evaluate.log_likelihood(model, BITS)
    with pytest.raises(ValueError, match=r"rows of shape \(6,\); these have \(5,\)"):
        evaluate.log_likelihood(model, BITS[:, :5])
    with pytest.raises(ValueError, match="at least one sample; got samples=0"):
        evaluate.log_likelihood(model, BITS, samples=0)


def test_evaluation_repeats_itself_and_leaves_the_generator():
    model, x, before = small(), BITS.double(), torch.get_rng_state()
    assert torch.equal(evaluate.log_likelihood(model, x, 10).values, evaluate.log_likelihood(model, x, 10).values)
    assert torch.equal(evaluate.round_trip(model, x).z, evaluate.round_trip(model, x).z)
    assert torch.equal(before, torch.get_rng_state())


def test_active_units_of_a_model_that_uses_one_of_two():
    model, x = small(2), BITS.double()
    last = model.encoder.layers[-1]
    with torch.no_grad():
        last.weight[[1, 3]] = 0.0
        last.bias[1], last.bias[3] = 0.0, math.log(math.e - 1)  # mean 0, sigma 1: the prior
    units = evaluate.active_units(model, x)
    assert units.by_variance.tolist() == units.by_rate.tolist() == [True, False]
    z = model.encode(x).z
    assert torch.allclose(units.variance, z.var(0, correction=0))
    assert torch.allclose(units.rate, model.encode(x).rates.mean(0))


def test_round_trips_are_nothing_for_an_invertible_linear_pair():
    model, _ = nr.recipes.autoencoder((4,), latent=4, network=partial(nr.networks.Mlp, hidden=()))
    with torch.no_grad():
        forward = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0))).Q
        for layer, weight in ((model.encoder.layers[0], forward), (model.decoder.layers[0], forward.T)):
            layer.weight.copy_(weight), layer.bias.zero_()
    trip = evaluate.round_trip(model, torch.randn(5, 4, generator=torch.Generator().manual_seed(1)))
    assert float(trip.x.max()) < 1e-10
    assert trip.z is None


def test_round_trip_of_codes():
    trip = evaluate.round_trip(small(2), BITS.double())
    assert trip.z.shape == trip.x.shape == (40,)


def test_bits_per_dimension():
    assert evaluate.bits_per_dimension(-8 * math.log(2), (2, 4)) == pytest.approx(1.0)


def test_pca_baseline_is_the_gaussian_of_its_own_covariance():
    x = torch.randn(300, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) @ torch.randn(
        5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    pca = fit_pca(x, 2)
    covariance = pca.axes @ torch.diag(pca.variances - pca.noise) @ pca.axes.T + pca.noise * torch.eye(5)
    exact = torch.distributions.MultivariateNormal(pca.mean, covariance).log_prob(x)
    assert torch.allclose(pca.log_prob(x), exact)
    values = torch.linalg.eigvalsh(torch.cov(x.T, correction=0))
    assert float((pca.reconstruct(x) - x).square().sum(1).mean()) == pytest.approx(float(values[:3].sum()))
    # notes: at its optimum the mean log-likelihood is -1/2 (d log 2 pi + sum log l + (d - k) log s2 + d)
    closed = -0.5 * (5 * math.log(2 * math.pi) + float(pca.variances.log().sum()) + 3 * math.log(pca.noise) + 5)
    assert float(exact.mean()) == pytest.approx(closed)


def test_pca_of_wide_rows_is_pca():
    x = torch.randn(20, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wide, narrow = fit_pca(x, 3), torch.pca_lowrank(x, 20, niter=10)
    s = narrow[1][:3].square() / 20
    assert torch.allclose(wide.variances, s, rtol=1e-6)
    assert torch.allclose(wide.axes.T @ wide.axes, torch.eye(3, dtype=torch.float64), atol=1e-10)


def test_columns_baseline_is_a_probability():
    x = torch.randint(0, 4, (50, 3), generator=torch.Generator().manual_seed(0)) / 3
    columns = fit_columns(x, 4)
    grid = torch.cartesian_prod(*[torch.arange(4) / 3] * 3)
    assert float(columns.log_prob(grid).exp().sum()) == pytest.approx(1.0)
    count = float((x[:, 0] == 0).sum())
    assert float(columns.log_table[0, 0].exp()) == pytest.approx((count + 1) / 54)


@pytest.mark.parametrize("kind", ["levels", "real", "deterministic"])
def test_evaluate_has_everything_and_is_json(kind):
    import json

    generator = torch.Generator().manual_seed(0)
    x = (
        torch.randint(0, 5, (200, 1, 8, 8), generator=generator).byte()
        if kind == "levels"
        else torch.randn(200, 5, generator=generator)
    )
    data = nr.data.load(x.numpy())
    recipe = nr.recipes.autoencoder if kind == "deterministic" else nr.recipes.vae
    likelihood = Gaussian if kind == "deterministic" else data.likelihood
    model, _ = recipe(data.shape, latent=2, likelihood=likelihood)
    found = json.loads(json.dumps(evaluate.evaluate(model, data, samples=20)))
    assert set(found["parts"]) == {"train", "valid", "test"}
    test = found["parts"]["test"]
    assert set(test["reconstruction"]) == {"model", "pca", "columns"}
    assert ("bits_per_dimension" in test) == (kind == "levels")
    assert ("pca" in test["log_likelihood"]) == (kind != "levels")
    assert ("model" in test["log_likelihood"]) == (kind != "deterministic")
    assert found["verdict"].startswith("On test rows, ")
    assert "WORSE" in found["verdict"]  # untrained, and said so
    if kind == "levels":
        assert isinstance(model.likelihood, DiscretisedLogistic)
        bits = test["bits_per_dimension"]["columns"][0]
        assert bits == pytest.approx(-test["log_likelihood"]["columns"][0] / 64 / math.log(2))


def test_verdict_needs_two_standard_errors():
    part = {
        "gain": {"likelihood over columns": (1.0, 0.6), "reconstruction over pca": (-1.0, 0.1)},
        "log_likelihood": {"model": (1.0, 0.1), "columns": (0.0, 0.1)},
        "reconstruction": {"model": (3.0, 0.1), "pca": (2.0, 0.1)},
    }
    said = evaluate.verdict(part, "test", 4, False)
    assert "no clear difference: likelihood 1 against 0 nats for independent columns" in said
    assert "WORSE, take the baseline for this: reconstruction error 3 against 2 for PCA with 4 components" in said


def test_terms_detach():
    model, objective = nr.recipes.vae((6,), latent=2)
    terms = objective(model, nr.Batch.of(BITS))
    assert isinstance(terms.detach(), Terms)
    assert not terms.detach().loss.requires_grad
    assert np.isfinite(float(terms.loss.detach()))


def test_rows_that_are_binarised_anew_are_judged_alike_by_every_function():
    grey = np.random.default_rng(0).integers(0, 256, (200, 8, 8)).astype(np.uint8)
    data = nr.data.load(grey, binarise="dynamic")
    model, _ = nr.recipes.vae(data.shape, latent=2)
    first, again = (evaluate.inputs(model, data.test) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(evaluate.codes(model, data.test), evaluate.codes(model, first))
    assert evaluate.evaluate(model, data, samples=5) == evaluate.evaluate(model, data, samples=5)


def test_a_relaxed_bernoulli_is_compared_with_no_likelihood():
    grey = np.random.default_rng(0).integers(0, 256, (200, 8, 8)).astype(np.uint8)
    data = nr.data.load(grey, binarise="relaxed")
    found = evaluate.evaluate(nr.recipes.vae(data.shape, latent=2, likelihood=data.likelihood)[0], data, samples=5)
    assert list(found["parts"]["test"]["log_likelihood"]) == ["model"]
    assert "likelihood" not in found["verdict"]
    assert "bits_per_dimension" not in found["parts"]["test"]


def test_leading_eigenvectors_are_those_of_the_whole_decomposition():
    """Lanczos iteration against LAPACK, wide and tall, and twice the same."""
    x = torch.randn(1100, 1300, generator=torch.Generator().manual_seed(0)) * torch.linspace(3, 0.1, 1300)
    for rows in (x, x.T.contiguous()):
        few, again, all_ = fit_pca(rows, 8), fit_pca(rows, 8), fit_pca(rows, 500)
        torch.testing.assert_close(few.variances, all_.variances[:8], rtol=1e-8, atol=0)
        torch.testing.assert_close(few.axes @ few.axes.T, all_.axes[:, :8] @ all_.axes[:, :8].T, rtol=0, atol=1e-7)
        assert torch.equal(few.axes, again.axes)


@pytest.mark.parametrize(
    ("inputs", "outputs", "draws_and_rows"),
    [
        (10, 50, (1000, 1000)),
        (500, 500, (333, 1000)),
        (1000, 1000, (250, 333)),
        (1000, 5000, (166, 100)),
        (1000, 50_000, (50, 100)),
    ],
)
def test_costly_decoders_get_fewer_draws_and_rows(inputs, outputs, draws_and_rows):
    """5e11 operations over three parts, where a row through this layer takes 2 x inputs x outputs of them."""
    layer = torch.nn.Linear(inputs, outputs)
    assert defaults.bound(lambda: layer(torch.zeros(1, inputs)), 3) == draws_and_rows


# ---- the Fréchet distance ----


def normals(n: int, mean: torch.Tensor, covariance: torch.Tensor) -> torch.Tensor:
    """n rows whose mean and covariance are exactly these."""
    x = torch.randn(n, len(mean), dtype=torch.float64)
    x = x - x.mean(0)
    x = x @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.T))).T
    return x @ torch.linalg.cholesky(covariance).T + mean


def test_frechet_distance_is_that_of_normals():
    m, n = torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([0.0, 1.0, 0.5]).double()
    s, t = torch.tensor([1.0, 2.0, 0.5]).double(), torch.tensor([3.0, 0.1, 0.5]).double()
    a, b = normals(50, m, torch.diag(s**2)), normals(70, n, torch.diag(t**2))
    exact = float((m - n).square().sum() + (s - t).square().sum())  # covariances that commute
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    for first, second in ((a, b), (b, a), (a @ turn, b @ turn), (a + 5, b + 5)):
        assert evaluate.frechet_distance(first, second) == pytest.approx(exact, rel=1e-10)
    assert evaluate.frechet_distance(a[:, :1], b[:, :1]) == pytest.approx(float((m - n)[0] ** 2 + (s - t)[0] ** 2))


def test_frechet_distance_of_covariances_that_do_not_commute():
    """Against scipy's root of the product, and between identical sets 0."""
    from scipy.linalg import sqrtm

    root = torch.randn(2, 4, 4, dtype=torch.float64)
    s, t = root @ root.mT + 0.1 * torch.eye(4)
    a, b = normals(30, torch.zeros(4).double(), s), normals(30, torch.zeros(4).double(), t)
    exact = float(s.trace() + t.trace()) - 2 * np.trace(sqrtm((s @ t).numpy())).real
    assert evaluate.frechet_distance(a, b) == pytest.approx(exact, rel=1e-8)
    for same in (a, torch.cat([a, a.flip(1)], 1), a[:3]):  # the last two singular
        assert abs(evaluate.frechet_distance(same, same)) < 1e-10


@pytest.mark.parametrize("shapes", [((5, 2), (5, 3)), ((1, 2), (5, 2)), ((5,), (5,)), ((5, 2, 2), (5, 2, 2))])
def test_frechet_distance_refuses_what_is_no_table_of_features(shapes):
    with pytest.raises(ValueError, match="at least 2 rows each; got .* Flatten what has more axes"):
        evaluate.frechet_distance(*(torch.zeros(shape) for shape in shapes))
