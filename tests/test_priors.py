"""Priors: their densities, their draws, and fits to codes against closed forms and scikit-learn."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

import narrows as nr
from narrows import recipes
from narrows.contract import Batch
from narrows.networks import Mlp
from narrows.priors import GaussianMixture, MultivariateGaussian, Pinwheel, StandardNormal, SwissRoll

SMALL = {"latent": 2, "network": partial(Mlp, hidden=(8,))}


@pytest.mark.parametrize(
    "prior", [Pinwheel(), GaussianMixture(2, 3), MultivariateGaussian(2), StandardNormal(2)], ids=repr
)
def test_a_density_integrates_to_one(prior) -> None:
    """By a fine grid over the plane."""
    side = torch.linspace(-7, 7, 1401)
    z = torch.cartesian_prod(side, side)
    assert float(prior().log_prob(z).double().exp().sum()) * (14 / 1400) ** 2 == pytest.approx(1, abs=1e-4)


def test_the_petals_of_the_pinwheel_lie_where_they_should() -> None:
    """20,000 draws: as many on each petal, radius 2 on average along it (6 standard errors; seed 0)."""
    z = Pinwheel().forward().sample((20_000,))
    angle = torch.atan2(z[:, 1], z[:, 0]) % (2 * math.pi)
    petal = (angle * 10 / (2 * math.pi)).round().long() % 10
    counts = petal.bincount(minlength=10).float()
    assert ((counts - 2000).abs() < 8 * math.sqrt(1800)).all()
    assert abs(float(z.norm(dim=1).mean()) - 2.0) < 0.03


def test_a_fitted_gaussian_is_the_closed_form() -> None:
    """Mean and covariance; its log-likelihood is scipy's."""
    z = torch.randn(500, 3) @ torch.tensor([[1.0, 0.0, 0.0], [0.5, 2.0, 0.0], [0.0, 0.3, 0.1]]) + 4
    prior = MultivariateGaussian(3)
    prior.fit(z)
    expected = multivariate_normal(z.mean(0), np.cov(z.T.double(), bias=True)).logpdf(z)
    assert np.allclose(prior().log_prob(z), expected, atol=1e-2)
    assert float(prior().log_prob(z).mean()) == pytest.approx(expected.mean(), abs=1e-4)


def test_a_fitted_mixture_finds_the_clusters() -> None:
    """Three clusters far apart: weights, means and scales of the draws; better than one Gaussian by the entropy."""
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    z = centres.repeat_interleave(torch.tensor([100, 200, 300]), 0) + 0.5 * torch.randn(600, 2)
    mixture, normal = GaussianMixture(2, components=3), MultivariateGaussian(2)
    for prior in (mixture, normal):
        prior.fit(z)
    order = mixture.logits.argsort()
    assert torch.allclose(mixture.logits.exp()[order], torch.tensor([1, 2, 3]) / 6, atol=1e-3)
    assert torch.allclose(mixture.mean[order], centres, atol=0.2)
    assert mixture().log_prob(z).mean() > normal().log_prob(z).mean() + 1


def test_a_constant_unit_does_not_break_a_fit() -> None:
    """Dead units are common."""
    z = torch.randn(100, 2) * torch.tensor([1.0, 0.0])
    for prior in (GaussianMixture(2, components=2), MultivariateGaussian(2)):
        prior.fit(z)
        assert prior().sample((50,)).isfinite().all()


# ---- fitted to the codes of a model -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["autoencoder", "vae", "denoising"])
def test_any_member_becomes_generative(name: str, tmp_path) -> None:
    """fit_prior, a draw, and the description from which a run folder builds the model again."""
    x = (torch.rand(300, 6) > 0.5).float()
    model, _ = getattr(recipes, name)((6,), **SMALL)
    prior = nr.fit_prior(model, x, GaussianMixture(2, components=2))
    assert model.prior is prior
    assert model.sample(5).mean.shape == (5, 6)
    again, _ = recipes.build(model.spec)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.prior.mean, prior.mean)


def test_what_is_fitted_to_a_variational_code_is_the_aggregated_posterior() -> None:
    """The bound under it is a bound still, and far above that under N(0, I) where codes stand elsewhere."""
    x = (torch.rand(2000, 6) > 0.5).float()
    model, objective = recipes.vae((6,), rate="sampled", **SMALL)
    with torch.no_grad():
        model.encoder.layers[-1].bias[:2] += 3.0  # far from the origin
    torch.manual_seed(0)
    before = objective(model, Batch.of(x)).bound.mean()
    nr.fit_prior(model, x, MultivariateGaussian(2))
    torch.manual_seed(0)
    after = objective(model, Batch.of(x)).bound.mean()
    assert after > before + 3
    z = nr.evaluate.codes(model, x, draw=True)
    assert torch.allclose(model.prior().mean, z.mean(0), atol=0.15)
    found = nr.evaluate.log_likelihood(model, x[:200], samples=200)
    assert found.mean > float(after) - 0.5


def test_fit_fits_a_prior_that_training_did_not_use() -> None:
    """A regularised autoencoder leaves `fit` generative; an adversarial one keeps the prior it was held to."""
    x = torch.rand(300, 6)
    short = nr.Training(epochs=2, batch=64)
    model, objective = recipes.regularised((6,), prior=partial(GaussianMixture, components=2), **SMALL)
    nr.fit(model, objective, x, training=short, quiet=True)
    assert not torch.equal(model.prior.mean, torch.zeros(2, 2))
    held, objective = recipes.aae((6,), prior=partial(GaussianMixture, components=2), **SMALL)
    nr.fit(held, objective, x, training=short, quiet=True)
    assert torch.equal(held.prior.mean, torch.zeros(2, 2))


@pytest.mark.parametrize("encoder", ["deterministic", "gaussian"])
@pytest.mark.parametrize("prior", [Pinwheel, SwissRoll, StandardNormal])
def test_codes_are_held_to_any_prior_that_can_be_sampled(prior, encoder: str) -> None:
    """A swiss roll has no density, a pinwheel has one without a closed KL."""
    model, objective = recipes.aae((6,), prior=prior, encoder=encoder, **SMALL)
    terms = objective(model, Batch.of(torch.rand(8, 6)))
    terms.loss.backward()
    assert terms.loss.isfinite()
    assert model.sample(4).mean.shape == (4, 6)
    assert model.density == (encoder == "gaussian" and prior is not SwissRoll)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda m, x: nr.fit_prior(m, x), TypeError, "has a method fit.* got NoneType. Take GaussianMixture"),
        (lambda m, x: nr.fit_prior(m, x, SwissRoll()), TypeError, "has a method fit.* got SwissRoll"),
        (lambda m, x: nr.fit_prior(m, x, MultivariateGaussian(3)), ValueError, "code has 2 units; this prior is for 3"),
        (
            lambda m, x: nr.fit_prior(m, x[:5], GaussianMixture(2)),
            ValueError,
            "10 components needs as many .* got 5",
        ),
        (lambda m, x: GaussianMixture(2, components=0), ValueError, "at least one component; got components=0"),
        (lambda m, x: SwissRoll(3), ValueError, "lies in the plane: latent=2; got latent=3"),
        (lambda m, x: Pinwheel(1), ValueError, "lies in the plane: latent=2; got latent=1"),
        (lambda m, x: recipes.vae((6,), prior=None), ValueError, "give one, such as prior=StandardNormal"),
        (
            lambda m, x: recipes.autoencoder((6,), discrepancy=nr.divergences.MMD()),
            TypeError,
            "this model has none. Use",
        ),
    ],
    ids=range(9),
)
def test_priors_that_do_not_fit_are_refused(make, error: type[Exception], message: str) -> None:
    model, _ = recipes.autoencoder((6,), **SMALL)
    with pytest.raises(error, match=message):
        make(model, torch.rand(50, 6))


def test_a_run_that_became_generative_can_be_kept(tmp_path) -> None:
    """`run.save`: the folder holds the prior, evaluates and samples alike; the first folder is as it was."""
    data = nr.data.load("digits")
    model, objective = recipes.autoencoder(data.shape, **SMALL)
    run = nr.fit(model, objective, data, training=nr.Training(epochs=2), folder=tmp_path / "a", quiet=True)
    nr.fit_prior(run.model, data.train, GaussianMixture(2, components=3))
    run.save(tmp_path / "b")
    again, before = nr.load(tmp_path / "b"), nr.load(tmp_path / "a")
    drawn = []
    for loaded in (run, again):
        torch.manual_seed(0)
        drawn.append(loaded.model.sample(4).mean)
    assert torch.equal(*drawn)
    assert before.model.prior is None
    with pytest.raises(ValueError, match="exists already and is never overwritten"):
        run.save(tmp_path / "a")
