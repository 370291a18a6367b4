"""Diffusions against data whose best denoiser is known: bounds, ways up and down, weights of steps, priors of codes."""

import copy
import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal, kl_divergence

import narrows as nr
from narrows import draws, likelihoods, priors, recipes
from narrows.contract import Batch, Pass, repeated
from narrows.data import Rows
from narrows.diffusion import Diffusion, Scaled
from narrows.gradients import ScoreFunction
from narrows.likelihoods import Bernoulli, DiscretisedLogistic, Gaussian
from narrows.networks import Mlp, Residual, Unet
from narrows.noise import FEATURES, Noise
from narrows.objectives import Objective, iwae
from narrows.penalties import Denoising
from narrows.posteriors import Gaussian as GaussianPosterior
from narrows.posteriors import Noised
from narrows.priors import StandardNormal
from narrows.recipes.noised import _first

FIRST, LAST = -9.0, 7.0


class Known(nn.Module):
    """The best denoiser for independent mixtures of normals: weights, means and deviations (C,) or (C, D)."""

    def __init__(self, weights: list[float], means: Any, deviations: Any) -> None:
        super().__init__()
        self.log_weight = torch.tensor(weights, dtype=torch.float64).log()[:, None]
        self.mean, self.deviation = (
            t if t.dim() == 2 else t[:, None] for t in (torch.tensor(a).double() for a in (means, deviations))
        )
        self.nothing = nn.Parameter(torch.zeros((), dtype=torch.float64))

    def row(self, z: Tensor, gamma: Tensor) -> Tensor:
        """E[v|z], (S, D), by Bayes' rule."""
        alpha, sigma = (1 / (1 + gamma.exp())).sqrt(), (1 / (1 + (-gamma).exp())).sqrt()
        alpha, sigma, z = alpha[:, None], sigma[:, None], z[:, None]  # (S, 1, D)
        wide = alpha**2 * self.deviation**2 + sigma**2
        means = self.mean + alpha * self.deviation**2 / wide * (z - alpha * self.mean)
        weights = (self.log_weight + Normal(alpha * self.mean, wide.sqrt()).log_prob(z)).softmax(1)
        return (weights * means).sum(1)

    def forward(self, z: Tensor, told: Tensor) -> Tensor:
        u = told[:, :1].clamp(-1, 1).acos() / math.pi
        gamma = FIRST + (LAST - FIRST) * u
        alpha, sigma = (1 / (1 + gamma.exp())).sqrt(), (1 / (1 + (-gamma).exp())).sqrt()
        row = self.row(z, gamma)
        return alpha * (z - alpha * row) / sigma - sigma * row + self.nothing

    def draw(self, n: int, d: int) -> Tensor:
        """Rows (n, D)."""
        which = torch.multinomial(self.log_weight.exp()[:, 0], n * d, replacement=True).view(n, d)
        mean, deviation = (t.expand(-1, d).gather(0, which) for t in (self.mean, self.deviation))
        return mean + deviation * torch.randn(n, d, dtype=torch.float64)


MIXTURE = partial(Known, [0.3, 0.7], [-1.2, 0.6], [0.2, 0.4])
NORMAL = partial(Known, [1.0], [[0.5, -0.3]], [[0.8, 0.3]])


def known(denoiser: nn.Module, d: int, steps: int = 50, jumps: int = 12) -> Diffusion:
    """A diffusion of rows that need no scaling; p(x|z_0) is the normal about z_0 / alpha_0."""
    posterior = Noised(StandardNormal(d), steps, FIRST, LAST, jumps)
    likelihood = Gaussian((d,), sigma=math.exp(FIRST / 2))
    return Diffusion(Scaled((d,), False), posterior, denoiser, likelihood).double().eval()


def written_out(denoiser: Known, steps: int) -> tuple[float, float]:
    """E[ELBO] and E[log p(v)] of one value of a mixture, by sums over a fine grid."""
    grid = torch.linspace(-8, 8, 4_001, dtype=torch.float64)
    cell = float(grid[1] - grid[0])
    weight, mean, deviation = denoiser.log_weight.exp()[:, 0], denoiser.mean[:, 0], denoiser.deviation[:, 0]

    def density(z: Tensor, alpha: float, sigma: float) -> Tensor:
        wide = (alpha**2 * deviation**2 + sigma**2).sqrt()
        return (weight * Normal(alpha * mean, wide).log_prob(z[:, None]).exp()).sum(1)

    squares = float((weight * (mean**2 + deviation**2)).sum())
    total = 0.0
    for i in range(1, steps + 1):
        now, before = (FIRST + (LAST - FIRST) * k / steps for k in (i, i - 1))
        alpha, sigma = 1 / math.sqrt(1 + math.exp(now)), 1 / math.sqrt(1 + math.exp(-now))
        row = denoiser.row(grid[:, None], torch.full((len(grid), 1), now, dtype=torch.float64))[:, 0]
        error = squares - float((density(grid, alpha, sigma) * row**2).sum()) * cell  # E[v^2] - E[E[v|z]^2]
        total += 0.5 * (math.exp(-before) - math.exp(-now)) * error  # the form with SNR and |v - v^|^2
    a2 = 1 / (1 + math.exp(LAST))
    top = 0.5 * (a2 * squares + (1 - a2) - 1 - math.log(1 - a2))
    seen = 0.5 * math.log(2 * math.pi * math.e) + FIRST / 2
    truth = density(grid, 1.0, 0.0)
    return -(total + top + seen), float(torch.special.xlogy(truth, truth).sum()) * cell


@pytest.mark.parametrize("steps", [1, 5, 40])
def test_the_bound_of_a_mixture_is_the_one_by_quadrature(steps: int) -> None:
    """Means over 4,000 rows of single steps, and of sums over all steps, within 4 standard errors (6e-5 each)."""
    torch.manual_seed(0)
    denoiser = MIXTURE()
    expected, _ = written_out(denoiser, steps)
    model, x = known(denoiser, 1, steps), denoiser.draw(4000, 1)
    for samples in (1, steps):
        distortion, rate = nr.evaluate.distortion_rate(model, x, samples)
        bound = -(distortion + rate)
        assert abs(float(bound.mean()) - expected) < 4 * float(bound.std()) / math.sqrt(len(x))
    terms = Objective()(model, Batch.of(x))
    assert abs(float(terms.bound.mean()) - expected) < 4 * float(terms.bound.std()) / math.sqrt(len(x))


def test_the_bound_rises_to_the_likelihood_with_the_steps() -> None:
    """And stays below it, by half as much for twice as many steps but for the ends of the schedule."""
    bounds = [written_out(MIXTURE(), steps)[0] for steps in (1, 2, 8, 64, 128)]
    truth = written_out(MIXTURE(), 1)[1]
    assert bounds == sorted(bounds)
    assert bounds[0] < -5
    gaps = [truth - bound for bound in bounds]
    assert 0 < gaps[-1] < 0.25
    assert gaps[-2] / gaps[-1] == pytest.approx(2, abs=0.1)
    assert abs(2 * gaps[-1] - gaps[-2]) < 0.02


def plain_elbo(model: Diffusion, x: Tensor, repeats: int) -> Tensor:
    """(repeats, B) draws of the ELBO, every step in turn, as section 4.1 of Kingma et al. has it."""
    noise, v = model.posterior.noise, model.encoder(x)
    gammas = torch.linspace(noise.first, noise.last, noise.steps + 1, dtype=torch.float64)
    alphas, sigmas = (1 / (1 + gammas.exp())).sqrt(), (1 / (1 + (-gammas).exp())).sqrt()
    found = []
    for _ in range(repeats):
        top = kl_divergence(
            MultivariateNormal(alphas[-1] * v, sigmas[-1] ** 2 * torch.eye(v.shape[1], dtype=torch.float64)),
            MultivariateNormal(torch.zeros_like(v), torch.eye(v.shape[1], dtype=torch.float64)),
        )
        total = -top
        for i in range(1, noise.steps + 1):
            z = alphas[i] * v + sigmas[i] * torch.randn_like(v)
            told = torch.full((len(v), 1), i / noise.steps, dtype=torch.float64) * torch.arange(1.0, FEATURES + 1)
            turned = model.decoder(z.view_as(x), (math.pi * told).cos()).flatten(1)
            row = alphas[i] * z - sigmas[i] * turned
            gain = (alphas[i - 1] / sigmas[i - 1]) ** 2 - (alphas[i] / sigmas[i]) ** 2
            total = total - gain / 2 * (v - row).square().sum(1)
        seen = (alphas[0] * v + sigmas[0] * torch.randn_like(v)) / alphas[0]
        px = model.likelihood(
            model.likelihood.seen_through(model.encoder.back(seen), model.encoder.width * sigmas[0] / alphas[0])
        )
        found.append(total + px.log_prob(x))
    return torch.stack(found)


@torch.no_grad()
def test_as_many_samples_as_steps_are_the_sum_over_all_of_them() -> None:
    """Each step once; and `evaluate`'s ELBO is a direct sum written out here, within 4 standard errors (6e-5)."""
    torch.manual_seed(0)
    images = torch.randint(5, (90, 1, 4, 4)) / 4
    model, _ = recipes.diffusion(
        (1, 4, 4), likelihood=partial(DiscretisedLogistic, levels=5), network=partial(Mlp, hidden=(9,)), steps=12
    )
    model.double().eval()
    images = images.double()
    code = model(images, samples=12).code
    assert torch.equal(code.index.view(12, 90).sort(0).values, torch.arange(1, 13)[:, None].expand(12, 90))
    assert model.steps(images[:3]).shape == (3, 13)
    direct = plain_elbo(model, images, 16)
    mean = direct.mean(0)
    found = torch.stack([-sum(nr.evaluate.distortion_rate(model, images, 12, seed=s)) for s in range(16)])
    error = ((direct.var(0) + found.var(0)) / 16).sqrt()
    assert ((found.mean(0) - mean).abs() < 5 * error).all()
    by_steps = torch.stack([model.steps(images).sum(1) for _ in range(16)])
    whole = torch.stack([nr.evaluate.distortion_rate(model, images, 12, seed=s)[1] for s in range(16)])
    error = ((by_steps.var(0) + whole.var(0)) / 16).sqrt()
    assert ((by_steps.mean(0) - whole.mean(0)).abs() < 5 * error).all()
    raw = (images * 4).round().numpy().astype(np.uint8)[:, 0]
    data = nr.data.load(raw, test=0.2, valid=0.2)
    figures = nr.evaluate.evaluate(model.float(), data)
    assert figures["estimator"] == "ELBO"
    assert figures["samples"] == 12
    assert "reconstruction over pca" not in figures["parts"]["test"]["gain"]
    for name, part in (("train", data.train), ("test", data.test)):
        x = nr.evaluate.inputs(model, part)
        own = plain_elbo(model.double(), x.double(), 8).mean()
        model.float()
        value, error = figures["parts"][name]["log_likelihood"]["model"]
        bits, wide = figures["parts"][name]["bits_per_dimension"]["model"]
        assert abs(value - float(own)) < 4 * error
        assert bits == pytest.approx(-value / 16 / math.log(2))
        assert wide == pytest.approx(error / 16 / math.log(2))


def test_single_steps_average_to_the_sum() -> None:
    """Of a network that knows nothing: 20,000 single steps of one row within 4 standard errors of it (6e-5)."""
    torch.manual_seed(1)
    model = known(Mlp((2,), (2,), FEATURES, (8,)), 2, 30)
    x = torch.tensor([[0.3, -1.0]], dtype=torch.float64)
    with torch.no_grad():
        rates = model.posterior.priced(model.encoder(x), samples=1 * 20_000).rates.sum(1)
        alone = torch.cat([model(x.expand(1000, -1)).code.rate for _ in range(20)])
        whole = torch.stack([model(x, samples=30).code.rate.mean(0) for _ in range(400)])
    for found in (rates, alone):
        error = math.sqrt(float(found.var()) / len(found) + float(whole.var()) / len(whole))
        assert abs(float(found.mean() - whole.mean())) < 4 * error


# ---- ways up and down -------------------------------------------------------------------------------------------


def test_the_way_without_noise_is_known_for_a_normal() -> None:
    """(z - alpha m) / deviation of z stays as it is along it; and decode undoes encode, the better the more jumps."""
    torch.manual_seed(0)
    denoiser = NORMAL()
    x = denoiser.draw(50, 2)
    errors = []
    for jumps in (6, 12, 200):
        model = known(denoiser, 2, jumps=jumps)
        with torch.no_grad():
            z = model.encode(x).z
            errors.append(float((model.decode(z).mean - x).abs().max()))
    assert errors[0] < 0.05
    assert errors[1] < 0.3 * errors[0]
    assert errors[2] < 2e-5
    alphas, sigmas = ([1 / math.sqrt(1 + math.exp(s * g)) for g in (FIRST, LAST)] for s in (1, -1))
    first, last = ((a**2 * denoiser.deviation[0] ** 2 + s**2).sqrt() for a, s in zip(alphas, sigmas, strict=True))
    expected = alphas[1] * denoiser.mean[0] + last * alphas[0] * (x - denoiser.mean[0]) / first
    assert (z - expected).abs().max() < 1e-3


def test_all_steps_with_their_noise_have_the_moments_they_should() -> None:
    """Of 20,000 ways down, within 5 standard errors (4 numbers, 2e-6) of the recursion for a normal's moments."""
    torch.manual_seed(0)
    denoiser, steps = NORMAL(), 40
    model = known(denoiser, 2, steps)
    mean, variance = torch.zeros(2).double(), torch.ones(2).double()
    m, s2 = denoiser.mean[0], denoiser.deviation[0] ** 2
    for i in range(steps, 0, -1):
        g = [FIRST + (LAST - FIRST) * k / steps for k in (i, i - 1)]
        (at, as_), (st, ss) = ([1 / math.sqrt(1 + math.exp(w * x)) for x in g] for w in (1, -1))
        ratio = at / as_  # alpha_t|s
        wide = st**2 - ratio**2 * ss**2  # sigma^2_t|s
        gain = at * s2 / (at**2 * s2 + st**2)  # E[v|z] = m + gain (z - alpha m)
        slope = ratio * ss**2 / st**2 + as_ * wide / st**2 * gain
        mean = slope * mean + as_ * wide / st**2 * (m - gain * at * m)
        variance = slope**2 * variance + wide * ss**2 / st**2
    alpha = 1 / math.sqrt(1 + math.exp(FIRST))
    x = model.ancestral(20_000).mean
    wide = (variance / alpha**2).sqrt()
    assert ((x.mean(0) - mean / alpha).abs() < 5 * wide / math.sqrt(20_000)).all()
    assert ((x.std(0) / wide - 1).abs() < 5 / math.sqrt(40_000)).all()
    assert ((variance / alpha**2).sqrt() / s2.sqrt() - 1).abs().max() < 0.1  # and they near those of the data


def test_interpolation_and_traversal_go_through_the_code() -> None:
    """Both ends come back; and the code is as large as the row."""
    torch.manual_seed(0)
    model = known(NORMAL(), 2, jumps=12)
    x = NORMAL().draw(20, 2)
    path = nr.tasks.interpolate(model, x[:2], steps=5)
    assert (path[[0, 4]] - x[:2]).abs().max() < 0.02
    assert nr.tasks.traverse(model, x, steps=3).x.shape == (2, 3, 2)
    assert nr.tasks.project(nr.evaluate.codes(model, x)).points.shape == (20, 2)
    units = nr.evaluate.active_units(model, x)
    assert units.rate.shape == (2,)
    assert torch.equal(units.rate, nr.evaluate.active_units(model, x).rate)


# ---- schedule, steps, weights -----------------------------------------------------------------------------------


def test_the_schedule_ends_where_it_says() -> None:
    """Signal over noise at both ends, the KL at the top against torch, and quarter turns undone."""
    torch.manual_seed(0)
    noise = Noise(10, -5.0, 3.0)
    one, zero = torch.ones(1, 1).double(), torch.zeros(1, 1).double()
    for u, gamma in ((0.0, -5.0), (1.0, 3.0)):
        at = noise.gamma(u * one)
        alpha, sigma = float(noise.mixed(one, zero, at)), float(noise.mixed(zero, one, at))
        assert alpha**2 / sigma**2 == pytest.approx(math.exp(-gamma))
        assert alpha**2 + sigma**2 == pytest.approx(1.0)
    assert noise.spread == pytest.approx(math.exp(-2.5))
    v, e = torch.randn(2, 4, 3, dtype=torch.float64)
    last = torch.full((4, 1), 3.0, dtype=torch.float64)
    alpha, sigma = 1 / math.sqrt(1 + math.exp(3)), 1 / math.sqrt(1 + math.exp(-3))
    p = StandardNormal(3).double()()
    assert torch.allclose(noise.top(v, p), kl_divergence(Normal(alpha * v, sigma), Normal(0.0, 1.0)))
    row, found = noise.guess(lambda z, told: alpha * e - sigma * v, noise.mixed(v, e, last), torch.ones_like(last))
    torch.testing.assert_close(row, v)
    torch.testing.assert_close(found, e)
    assert noise.told(one).shape == (1, FEATURES)


def test_steps_are_spread_over_draws_and_rows_alike_in_any_number_of_processes() -> None:
    """One in each part for every row, and the rows evenly within; two processes draw what one does."""
    torch.manual_seed(0)
    like = torch.zeros(10, 3)
    torch.manual_seed(3)
    whole = draws.stratified(4, like)
    assert torch.equal((whole * 4).floor(), torch.arange(4.0)[:, None].expand(4, 10))
    gaps = (whole[0] * 4).sort().values.diff()
    assert torch.allclose(gaps, torch.full((9,), 0.1), atol=1e-6)
    parts = []
    for start, rows in ((0, 4), (4, 6)):
        torch.manual_seed(3)
        with draws.part(start, rows, 10):
            parts.append(draws.stratified(4, like[:rows]))
    assert torch.equal(torch.cat(parts, 1), whole)
    with draws.common():
        assert (draws.stratified(4, like).std(1) == 0).all()


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_the_simple_loss_is_the_formula(weight: float) -> None:
    """Distortion + top + ((1 - w) c + w) |e - e^|^2 of the very step, and the bound does not change."""
    torch.manual_seed(0)
    x = torch.randn(7, 3, dtype=torch.float64)
    model = known(Mlp((3,), (3,), FEATURES, (8,)), 3, 20)
    torch.manual_seed(5)
    terms = Objective(penalty=Denoising(weight), samples=2)(model, Batch.of(x))
    torch.manual_seed(5)
    px, code = model(x, samples=2)
    noise, v = model.posterior.noise, repeated(x, 2)
    u = code.index.double() / 20
    e = (code.z - noise.mixed(v, torch.zeros_like(v), noise.gamma(u))) / torch.sigmoid(noise.gamma(u)).sqrt()
    error = (e - noise.guess(model.denoise, code.z, u)[1]).square().sum(1)
    share = 20 / 2 * math.expm1((LAST - FIRST) / 20)
    loss = -px.log_prob(v) + noise.top(v, model.prior()).sum(1) + ((1 - weight) * share + weight) * error
    assert float(terms.loss.detach()) == pytest.approx(float(loss.detach().mean()))
    torch.testing.assert_close(terms.bound, (px.log_prob(v) - code.rate).detach().view(2, 7).mean(0))
    torch.testing.assert_close(terms.rate, code.rate.view(2, 7).mean(0))


# ---- what is known of x in the end ------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_levels_seen_through_noise(levels: int) -> None:
    """Sums to 1 over the levels; for two of them Bayes' rule exactly, for more up to those further away.

    Where the recipe begins, those change no probability of an event by more than 0.03.
    """
    torch.manual_seed(0)
    p = likelihoods.Categorical((1,), levels)
    sigma = torch.tensor(1 / (6 * (levels - 1)), dtype=torch.float64)  # neighbours are 6 apart
    grid = torch.arange(levels).double() / (levels - 1)
    x = grid[torch.randint(levels, (300,))][:, None] + sigma * torch.randn(300, 1, dtype=torch.float64)
    exact = (-((x - grid) / sigma).square() / 2).log_softmax(1)  # (300, levels)
    for part in (likelihoods.Categorical, DiscretisedLogistic, partial(likelihoods.LogisticMixture, components=2)):
        likelihood = part((1,), levels=levels).double()
        px = likelihood(likelihood.seen_through(x, sigma))
        found = torch.stack([px.log_prob(level.expand(300, 1)) for level in grid], 1)
        torch.testing.assert_close(found.exp().sum(1), torch.ones(300, dtype=torch.float64))
        best = exact.argmax(1, keepdim=True)
        torch.testing.assert_close(found.gather(1, best), exact.gather(1, best), atol=1e-6, rtol=1e-6)
    if levels == 2:
        coin = Bernoulli((1,)).double()
        found = coin(coin.seen_through(x, sigma)).log_prob(torch.ones(300, 1).double())
        torch.testing.assert_close(found, exact[:, 1])
    assert float(exact.amax(1).mean()) > -0.02  # so near that hardly any level is mistaken
    sigma = torch.tensor(math.exp(_first(p) / 2) / 2, dtype=torch.float64)  # the recipe's
    x = grid[torch.randint(levels, (300,))][:, None] + sigma * torch.randn(300, 1, dtype=torch.float64)
    bayes, logistic = (-((x - grid) / sigma).square() / 2).softmax(1), DiscretisedLogistic((1,), levels=levels).double()
    px = logistic(logistic.seen_through(x, sigma))
    found = torch.stack([px.log_prob(level.expand(300, 1)) for level in grid], 1).exp()
    assert (found - bayes).abs().sum(1).max() / 2 < 0.03


@pytest.mark.parametrize("part", [likelihoods.Poisson, likelihoods.NegativeBinomial, likelihoods.Laplace, Gaussian])
def test_numbers_and_counts_seen_through_noise(part: Callable) -> None:
    """The mean is what was seen, in the units of the data."""
    likelihood = part((3,))
    x = torch.tensor([[0.5, 2.0, 9.0]])
    shown = likelihood.shown(x)
    torch.testing.assert_close(likelihood(likelihood.seen_through(shown, torch.tensor(0.1))).mean, x)


def test_a_first_step_brings_rows_to_one_scale() -> None:
    """Columns each by itself, images as a whole, levels not at all; a learned sigma begins at the noise left."""
    torch.manual_seed(0)
    x = torch.randn(64, 3) * torch.tensor([1.0, 10.0, 0.0]) + 5
    model, objective = recipes.diffusion((3,), likelihood=partial(Gaussian, learn="each"), network=Mlp)
    run = nr.fit(model, objective, x, training=nr.Training(epochs=1, batch=32), quiet=True)
    torch.testing.assert_close(model.encoder.centre, x.mean(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model.encoder.width[:2], x.std(0, correction=0)[:2])
    assert 0 < float(model.encoder.width[2]) < 0.1
    torch.testing.assert_close(
        model.likelihood.log_sigma[:2].exp(), model.encoder.width[:2] * math.exp(-5), rtol=0.05, atol=0
    )
    assert not any("compress" in sentence or "gradient of the distortion" in sentence for sentence in run.alarms)
    image, _ = recipes.diffusion((1, 2, 2), likelihood=Gaussian, network=Mlp)
    image.start(image, Rows(3 * torch.randn(50, 1, 2, 2)), None)
    assert image.encoder.width.shape == ()
    assert 2 < float(image.encoder.width) < 4
    levels, _ = recipes.diffusion((4,), network=Mlp)
    levels.start(levels, Rows(torch.zeros(5, 4)), None)
    assert float(levels.encoder.centre) == float(levels.encoder.width) == 0.5


def test_training_beats_one_normal_and_scores_do_not_depend_on_company() -> None:
    """On two clusters, against independent columns, in nats; the face of scikit-learn."""
    torch.manual_seed(0)
    x = torch.where(torch.rand(300, 1) < 0.5, -1.0, 1.0) + 0.1 * torch.randn(300, 2)
    training = nr.Training(epochs=25, batch=60, lr=5e-3)
    face = nr.Diffusion(network=partial(Residual, width=32), training=training, steps=500).fit(x.numpy())
    score = face.score_samples(x.numpy())
    columns = Normal(x.mean(0), x.std(0)).log_prob(x).sum(1)
    assert score.mean() > float(columns.mean())
    assert np.allclose(score[3:5], face.score_samples(x[3:5].numpy()), atol=1e-3)
    assert face.transform(x.numpy()).shape == (300, 2)
    assert np.abs(face.inverse_transform(face.transform(x.numpy())) - x.numpy()).mean() < 0.2
    assert face.sample(5).shape == (5, 2)


# ---- a prior of codes -------------------------------------------------------------------------------------------


def priced_normal(steps: int) -> float:
    """log p(v) - ELBO of a value v ~ N(0, 1) on average, whose best denoiser errs by sigma^2: closed sums."""
    gammas = [-8.0 + 14.0 * i / steps for i in range(steps + 1)]
    total = sum(
        0.5 * math.expm1(b - a) / (1 + math.exp(b)) for a, b in pairwise(gammas)
    )  # E|e - e^|^2 = alpha^2 for v ~ N(0, 1)
    a2 = 1 / (1 + math.exp(6.0))
    top = 0.5 * (a2 + (1 - a2) - 1 - math.log(1 - a2))
    return total + top + 0.5 * math.log(2 * math.pi * math.e) - 4.0 - 0.5 * math.log(2 * math.pi * math.e)


def test_the_bound_of_a_prior_is_that_of_codes_in_their_units() -> None:
    """With the best denoiser for N(0, I), its mean over codes of N(c, w^2): within 4 standard errors (6e-5)."""
    torch.manual_seed(0)
    prior = priors.Diffusion(2, steps=200, hidden=8).double()
    prior.centre.copy_(torch.tensor([3.0, -1.0])), prior.width.copy_(torch.tensor([2.0, 0.7]))
    nn.init.zeros_(prior.network.last.weight), nn.init.zeros_(prior.network.last.bias)  # exact for N(0, I)
    z = prior.centre + prior.width * torch.randn(1000, 2, dtype=torch.float64)
    truth = -float(Normal(prior.centre, prior.width).entropy().sum())
    gap = priced_normal(200) * 2
    for mode in (True, False):
        prior.train(mode)
        found = prior().log_prob(z).detach()
        assert abs(float(found.mean()) + gap - truth) < 4 * float(found.std()) / math.sqrt(1000)
    drawn = prior().sample((1000,))
    assert ((drawn.mean(0) - prior.centre).abs() < 5 * prior.width / math.sqrt(1000)).all()
    assert ((drawn.std(0) / prior.width - 1).abs() < 0.12).all()


def test_a_prior_fitted_to_codes_is_priced_and_never_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Codes in two heaps: samples lie in both, the ELBO gains on N(0, I), and what weighs draws refuses."""
    monkeypatch.setattr(priors.diffusion, "STEPS", 300)
    torch.manual_seed(0)
    x = torch.where(torch.rand(400, 1) < 0.5, -2.0, 2.0) + 0.2 * torch.randn(400, 6)
    model, objective = recipes.vae(
        (6,), latent=1, likelihood=partial(Gaussian, sigma=0.3), network=partial(Mlp, hidden=(16,))
    )
    nr.fit(model, objective, x, training=nr.Training(epochs=60, batch=100, lr=1e-2), quiet=True)
    before = -sum(nr.evaluate.distortion_rate(model, x, 20))
    prior = nr.fit_prior(model, x, priors.Diffusion(1, steps=50, hidden=32))
    after = -sum(nr.evaluate.distortion_rate(model, x, 20))
    assert after.mean() > before.mean()
    z = prior().sample((500,))
    assert 0.3 < float((z > z.mean()).float().mean()) < 0.7
    assert model.density
    assert not model.weighed
    assert nr.evaluate.score_samples(model, x[:5]).shape == (5,)
    again, its = recipes.build(model.spec)
    assert isinstance(again.prior, priors.Diffusion)
    assert its(again, Batch.of(x[:4])).loss.isfinite()
    copy.deepcopy(model)
    for call in (nr.evaluate.log_likelihood, nr.evaluate.quadrature, nr.evaluate.annealed_importance_sampling):
        with pytest.raises(TypeError, match=r"weighs single draws of the code, and a diffusion.* distortion_rate"):
            call(model, x[:2])
    with pytest.raises(TypeError, match="or only a bound on it"):
        nr.tasks.interpolate(model, x[:2], path="density")
    with pytest.raises(ValueError, match="at least 20 codes; got 5"):
        priors.Diffusion(2).fit(torch.zeros(5, 2))


@pytest.mark.parametrize("posterior", [GaussianPosterior, nr.posteriors.Flow])
def test_a_prior_learns_with_the_model(posterior: Callable) -> None:
    """Its denoiser and the encoder have gradients; draws are not weighed."""
    torch.manual_seed(0)
    model, objective = recipes.vae((6,), latent=2, prior=priors.Diffusion, posterior=posterior)
    terms = objective(model, Batch.of(torch.rand(5, 6).round()))
    terms.loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    assert model.encode(torch.zeros(2, 6), draw=True).densities() is None


# ---- networks and refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13), (1, 16, 31), (2, 40, 28)], ids=str)
def test_a_unet_keeps_the_size_and_hears_what_it_is_told(shape: tuple[int, ...]) -> None:
    """Any size from 8 x 8; other context, another image; without context too."""
    torch.manual_seed(0)
    net, x = Unet(shape, shape, 2, width=4), torch.rand(3, *shape)
    one = net(x, torch.zeros(3, 2))
    assert one.shape == x.shape
    assert not torch.equal(one, net(x, torch.ones(3, 2)))
    assert Unet(shape, shape, width=4)(x).shape == x.shape
    one.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: recipes.diffusion((20,), latent=3), ValueError, "a unit for each of its 20 values: leave latent away"),
        (lambda: recipes.diffusion((20,), steps=0), ValueError, "whole number of steps, at least one; got steps=0"),
        (lambda: recipes.diffusion((20,), jumps=0), ValueError, "at least one; got jumps=0"),
        (lambda: recipes.diffusion((20,), prior=priors.GaussianMixture), TypeError, "its prior is the standard normal"),
        (lambda: recipes.diffusion((20,), rate="sampled"), TypeError, "no single draw can be weighed"),
        (
            lambda: Objective(bound=iwae, rate="sampled", samples=3).check(recipes.diffusion((20,))[0]),
            TypeError,
            'right: bound=elbo with rate="closed", as recipe diffusion',
        ),
        (
            lambda: recipes.diffusion((20,), gradient=ScoreFunction(), rate="sampled"),
            TypeError,
            "or differentiated in another way",
        ),
        (
            lambda: Noise(5, 2.0, 1.0),
            ValueError,
            "noise grows from the first to the last step.*got first=2.0, last=1.0",
        ),
        (lambda: Noised(StandardNormal(2))(torch.zeros(1, 2), draw=False), TypeError, "comes from a denoiser"),
        (lambda: Unet((1, 7, 9), (1, 7, 9)), ValueError, r"at least 8 x 8, .* got \(1, 7, 9\)"),
        (lambda: Unet((1, 8, 8), (1, 8, 8), patch=9), ValueError, "patch from 1 to 4; got width=32, patch=9"),
        (
            lambda: Diffusion(nn.Identity(), GaussianPosterior(StandardNormal(2)), nn.Identity(), Gaussian((2,))),
            TypeError,
            "Wrong: Diffusion.* got Identity, Gaussian",
        ),
        (lambda: Denoising()(*_vae_pass()), TypeError, "Gaussian codes have none: use recipe diffusion"),
        (lambda: likelihoods.Likelihood((2,)).seen_through(*torch.zeros(2, 1)), TypeError, "write its seen_through"),
        (
            lambda: nr.fit_prior(recipes.diffusion((3,))[0], torch.zeros(30, 3), priors.GaussianMixture(3)),
            TypeError,
            "noise by construction, and its prior N.* fits already",
        ),
        *(
            (lambda f=f: f(recipes.diffusion((3,))[0], torch.zeros(4, 3)), TypeError, "weighs single draws of the code")
            for f in (
                *(nr.evaluate.log_likelihood, nr.evaluate.spread, nr.evaluate.inference_gap),
                *(nr.evaluate.gradient_variance, nr.evaluate.annealed_importance_sampling),
            )
        ),
    ],
)
def test_what_a_diffusion_cannot_do_is_said(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    """With what to do instead."""
    with pytest.raises(error, match=message):
        call()


def _vae_pass() -> tuple[Any, Batch, Pass]:
    model, _ = recipes.vae((3,), latent=2)
    x = torch.zeros(2, 3)
    return model, Batch.of(x), model(x)
