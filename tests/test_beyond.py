"""Estimates of log p(x) against each other and closed forms; inference row by row; the latent space put to use.

Everything draws from seed 0 (conftest.py) or from seeds of its own, so a pass is a pass for good on one version of
torch; each statistical test states the probability that another seed would fail it.
"""

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal

import narrows as nr
from narrows import evaluate, tasks
from narrows.contract import Batch, Code
from narrows.likelihoods import Bernoulli, Gaussian
from narrows.models import Autoencoder
from narrows.networks import Mlp
from narrows.posteriors import Deterministic
from narrows.posteriors import Gaussian as GaussianPosterior
from narrows.priors import GaussianMixture, MultivariateGaussian, StandardNormal, SwissRoll, tempered
from narrows.training import alarms, variational_em
from test_contract import RATED, bits

close = torch.testing.assert_close
D = 6


def affine(weight: Tensor, bias: Tensor, outputs: tuple[int, ...]) -> Mlp:
    network = Mlp((weight.shape[1],), outputs, hidden=())
    network.layers[0].weight.data, network.layers[0].bias.data = weight, bias
    return network


def linear_gaussian(
    latent: int, shift: float = 0.0, seed: int = 3
) -> tuple[Autoencoder, Tensor, MultivariateNormal, Tensor]:
    """x = W z + mu + 0.6 noise, with a diagonal q about the exact posterior mean + shift that is too narrow.

    Also rows, p(x), and the exact posterior's precision.
    """
    torch.manual_seed(3)
    w, mu, s2 = torch.randn(D, latent).double(), torch.randn(D).double(), 0.36
    precision = w.T @ w / s2 + torch.eye(latent).double()
    gain = torch.linalg.solve(precision, w.T / s2)
    p = Gaussian((D,), sigma=0.6)
    q = GaussianPosterior(StandardNormal(latent))
    head = torch.cat([gain, torch.zeros_like(gain)])
    sigma = 0.5 * precision.diagonal().rsqrt()
    bias = torch.cat([shift - gain @ mu, sigma.expm1().log()])
    model = Autoencoder(affine(head, bias, (2 * latent,)), q, affine(w, mu, p.wants), p).double()
    x = MultivariateNormal(mu, w @ w.T + s2 * torch.eye(D).double())
    return model, x.sample((8,)), x, precision


CHOICES = ("concrete", "fsq", "semi_supervised", "vqvae", "vqvae2")  # whose codes, or a part of them, are classes


OWN = {  # members of another arrangement than so many units
    "conv_ladder": lambda latent: {"latent": 1, "rungs": (latent,), "width": 8, "likelihood": Bernoulli},
    "diffusion": lambda latent: {},
}


def trained(name: str, latent: int = 2, steps: int = 200, **arguments: Any) -> tuple[Autoencoder, nr.data.Rows]:
    """A tiny member after some steps on rows that have structure, and some of those rows."""
    torch.manual_seed(0)
    x = (torch.randn(256, 2) @ torch.randn(2, D) + 0.3 * torch.randn(256, D) > 0).float()
    told = x[:, :1] if name == "conditional" else None
    if told is not None:
        arguments["context"] = 1
    units = OWN.get(name, lambda latent: {"latent": latent})(latent)
    model, objective = getattr(nr.recipes, name)((D,), network=partial(Mlp, hidden=(8,)), **units, **arguments)
    adam = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(steps):
        adam.zero_grad()
        some = slice(step % 4, None, 4)
        objective(model, Batch(x[some], x[some], None if told is None else told[some])).loss.backward()
        adam.step()
    return model.eval(), nr.data.Rows(x[:8], context=0 if told is None else told[:8])


# ---- three estimates of log p(x) --------------------------------------------------------------------------------


@pytest.mark.parametrize("shift", [0.0, 3.0])
@pytest.mark.parametrize("latent", [1, 2])
def test_quadrature_is_the_evidence_whatever_q_is(latent, shift):
    """In float64 to 1e-6 nats, in float32 weights to what they are rounded to; a wrong q costs cells only."""
    model, x, p, _ = linear_gaussian(latent, shift)
    found = evaluate.quadrature(model, x)
    close(found.values, p.log_prob(x), rtol=0, atol=1e-6)
    assert found.error.max() < 1e-5
    assert found.mean == pytest.approx(float(p.log_prob(x).mean()), abs=1e-6)
    rounded = evaluate.quadrature(model.float(), x.float())
    close(rounded.values, p.log_prob(x), rtol=0, atol=1e-3)
    assert next(model.parameters()).dtype == torch.float32


def test_quadrature_finds_a_narrow_posterior_that_q_does_not_know():
    """sigma = 0.003 in a prior of width 1, q elsewhere: x ~ N(z, 0.003^2) has p(x) = N(0, 1 + 0.003^2)."""
    q, p = GaussianPosterior(StandardNormal(1)), Gaussian((1,), sigma=0.003)
    eye = torch.eye(1).double()
    model = Autoencoder(
        affine(0 * torch.ones(2, 1).double(), torch.zeros(2).double(), (2,)), q, affine(eye, 0 * eye[0], p.wants), p
    )
    x = torch.tensor([[-2.3], [0.1], [1.7]]).double()
    exact = Normal(0.0, math.sqrt(1 + 0.003**2)).log_prob(x[:, 0])
    close(evaluate.quadrature(model.double(), x).values, exact, rtol=0, atol=1e-6)


def test_quadrature_with_context_and_unseen_cells():
    """Each row by itself; a cell that was not seen is no factor, so the evidence is that of the others."""
    model, x, p, _ = linear_gaussian(2)
    seen = torch.ones_like(x, dtype=torch.bool)
    seen[:, 2:] = False

    def masked(*args: Any) -> Any:
        return (
            b._replace(seen=seen, target=torch.where(seen, b.target, math.nan)) for b in evaluate.common.batches(*args)
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.integral, "batches", masked)
        found = evaluate.quadrature(model, x).values
    part = MultivariateNormal(p.mean[:2], p.covariance_matrix[:2, :2]).log_prob(x[:, :2])
    close(found, part, rtol=0, atol=1e-6)
    told, _ = nr.recipes.vae((D,), latent=1, context=2, network=partial(Mlp, hidden=(4,)))
    rows = nr.data.Rows(bits(6, D), label=torch.tensor([0, 1, 0, 1, 0, 1]), context=2)
    both = evaluate.quadrature(told, rows).values
    alone = torch.cat([evaluate.quadrature(told, rows.take(torch.tensor([i]))).values for i in range(6)])
    close(both, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", RATED)
def test_importance_weighting_is_quadrature_for_every_recipe_that_prices_its_code(name):
    """The mean within 3 Monte Carlo standard errors and the bias of a logarithm, half its variance (1 seed in 370).

    A code of choices has no integral. A rate held far from what it would be leaves a q that is no proposal: the
    effective sample size says so, and the estimate is the lower bound that it is in expectation.
    """
    model, x = trained(name)
    if not model.weighed:
        with pytest.raises(TypeError, match="quadrature weighs single draws .* by a lower bound only"):
            evaluate.quadrature(model, x)
        return
    if name in CHOICES:
        with pytest.raises((TypeError, ValueError), match="a choice among classes. Use log_l|of one or two units"):
            evaluate.quadrature(model, x)
        return
    exact = evaluate.quadrature(model, x, tolerance=1e-4)
    found = evaluate.log_likelihood(model, x, samples=4000)
    error = found.monte_carlo_error
    assert exact.error.max() < 1e-3
    if name == "annealed_vae":
        assert found.effective_sample_size.median() < 100
        assert found.mean < exact.mean
        return
    bias = float(((4000 / found.effective_sample_size - 1) / 4000).mean()) / 2
    assert abs(found.mean + bias - exact.mean) < 3 * error + 1e-4
    assert error < 0.05


def test_annealing_is_the_evidence_and_does_not_need_q():
    """Each row within 5 of its own standard errors, the mean within 3 (1 in 370), with q 3 units beside."""
    model, x, p, _ = linear_gaussian(2, shift=3.0)
    found = evaluate.annealed_importance_sampling(model, x, steps=60, chains=32, leapfrog=5)
    errors = ((32 / found.effective_sample_size - 1) / 32).sqrt()
    gap = found.values + errors.square() / 2 - p.log_prob(x)
    assert abs(float(gap.mean())) < 3 * found.monte_carlo_error < 0.3
    assert (gap.abs() < 5 * errors.clamp_min(0.05)).all()
    assert "annealed importance sampling, 60 steps, K = 32" in str(found)
    again = evaluate.annealed_importance_sampling(model, x, steps=60, chains=32, leapfrog=5)
    assert torch.equal(found.values, again.values)
    wrong = evaluate.log_likelihood(model, x, samples=32)  # what q alone would have said
    assert abs(wrong.mean - float(p.log_prob(x).mean())) > 10 * abs(float(gap.mean()))


def test_annealing_is_quadrature_for_a_network():
    """Of Bernoulli rows, mean within 3 Monte Carlo standard errors (1 seed in 370)."""
    model, rows = trained("vae")
    x = rows.x
    exact = evaluate.quadrature(model, x, tolerance=1e-4)
    found = evaluate.annealed_importance_sampling(model, x, steps=60, chains=32, leapfrog=5)
    assert abs(found.mean - exact.mean) < 3 * found.monte_carlo_error < 0.1


def test_annealing_leaves_the_bridge_as_it_is():
    """Transitions keep a standard normal one: mean and variance of 20,000 chains within 5 errors (1 in 2 million)."""
    model, _ = nr.recipes.vae((D,), latent=2, network=partial(Mlp, hidden=(4,)))
    bridge = evaluate.annealed._Bridge(model, Batch.of(bits(1, D)), 3)
    at = bridge.at(torch.randn(20_000, 1, 2))
    for _ in range(3):
        at, accepted = bridge.move(at, 0.0, torch.full((1,), 1.4), torch.ones(1, 2))
    assert 0.2 < accepted.mean() < 0.95  # a step so long that keeping all proposals would show
    z = at.z[:, 0]
    assert (z.mean(0).abs() < 5 / math.sqrt(20_000)).all()
    assert ((z.var(0) - 1).abs() < 5 * math.sqrt(2 / 20_000)).all()


def test_what_cannot_be_integrated_is_refused():
    point, _ = nr.recipes.autoencoder((D,), latent=2)
    wide, _ = nr.recipes.vae((D,), latent=3)
    for estimate in (evaluate.quadrature, evaluate.annealed_importance_sampling):
        with pytest.raises(TypeError, match=r"needs the density p\(z\) of a code, and this model's code has none"):
            estimate(point, bits(2, D))
    with pytest.raises(ValueError, match="codes of one or two units; this one has 3. Use annealed_importance_sampling"):
        evaluate.quadrature(wide, bits(2, D))
    with pytest.raises(ValueError, match="at least one step, chain and leapfrog step; got steps=0, chains=16"):
        evaluate.annealed_importance_sampling(wide, bits(2, D), steps=0)
    wide.posterior.prior = _Bounded()
    with pytest.raises(TypeError, match="moves through all of space, and codes of _Bounded lie within bounds. Use"):
        evaluate.annealed_importance_sampling(wide, bits(2, D))


class _Bounded(nn.Module):
    density, latent = True, 3

    def forward(self, context: Tensor | None = None) -> Any:
        return Independent(torch.distributions.Beta(torch.ones(3), torch.ones(3)), 1)


# ---- inference for each row -------------------------------------------------------------------------------------


def test_refining_reaches_the_best_diagonal_posterior():
    """Its gap is 1/2 (sum log L_ii - log det L), L the posterior's precision: within 5 errors a row and 0.02 nats."""
    model, x, p, precision = linear_gaussian(2, shift=0.7)
    best = 0.5 * (precision.diagonal().log().sum() - torch.logdet(precision))
    found = evaluate.inference_gap(model, x, steps=300, samples=2000)
    exact = p.log_prob(x)
    close(found.log_p, exact, rtol=0, atol=0.1)
    assert ((exact - found.after - best).abs() < 5 * found.errors[0] + 0.02).all()
    assert abs(found.approximation.mean - float(best)) < 3 * found.monte_carlo_error[0] + 0.03
    # L[q] in closed form: KL between the encoder's q and the posterior
    code = model.encode(x)
    q = MultivariateNormal(code.q.mean, torch.diag_embed(code.q.variance))
    posterior = MultivariateNormal(code.q.mean - 0.7, precision.inverse().expand(8, 2, 2))
    gain = exact - torch.distributions.kl_divergence(q, posterior)
    assert (found.before - gain).mean().abs() < 5 * float(found.errors.max())
    assert found.amortisation.mean > 1
    assert "approximation" in str(found)


@pytest.mark.parametrize("name", RATED)
def test_no_row_is_worse_for_being_refined(name):
    """On the fixed draws none; on 64 fresh ones none by more than 3 standard errors of the difference."""
    model, x = trained(name, latent=3, steps=30)
    if not model.weighed:
        with pytest.raises(TypeError, match="refine weighs single draws .* by a lower bound only"):
            evaluate.refine(model, x)
        return
    if name in CHOICES:
        with pytest.raises(TypeError, match="a choice among classes, which has none"):
            evaluate.refine(model, x)
        return
    found = evaluate.refine(model, x, steps=100, lr=0.1)
    assert (found.after >= found.before).all()
    if model.posterior.closed:  # else the rate is as noisy as such gains are small
        assert (found.after > found.before).any()
    free = evaluate.without_encoder(model)
    fresh = []
    with torch.no_grad():
        told = x.batch(torch.arange(len(x)))
        for h in (model.hidden(told.x, told.context), found.h):
            with nr.draws.seeded(99):
                fresh.append(evaluate.gap._elbos(free, told._replace(x=h), 64))
    gain = fresh[1] - fresh[0]
    assert (gain.mean(0) >= -3 * gain.std(0) / 8).all()
    close(free.encode(found.h, told.context).z, found.z)


def test_a_row_is_refined_alike_whatever_stands_beside_it():
    model, rows = trained("vae", latent=3, steps=30)
    x = rows.x
    whole, part = evaluate.refine(model, x, steps=20), evaluate.refine(model, x[5:7], steps=20)
    close(whole.h[5:7], part.h, rtol=1e-4, atol=1e-5)
    from_zero = evaluate.refine(model, x, steps=200, lr=0.1, start=torch.zeros_like(whole.h))
    assert from_zero.before.mean() < whole.before.mean()
    assert abs(float((from_zero.after - whole.after).mean())) < 0.15


def test_refining_at_the_exact_posterior_stays_there():
    """One unit: a diagonal q is the posterior, no gain is real, and two standard errors are asked for."""
    model, x, _, precision = linear_gaussian(1)
    model.encoder.layers[0].bias.data[1] = precision[0, 0].rsqrt().expm1().log() - 1e-6
    found = evaluate.refine(model, x, steps=20)
    close(found.after, found.before, rtol=0, atol=0.02)
    gap = evaluate.inference_gap(model, x, steps=5, samples=500)
    assert abs(gap.approximation.mean) < 3 * gap.monte_carlo_error[0] + 1e-3


def test_what_cannot_be_refined_is_refused():
    point, _ = nr.recipes.autoencoder((D,), latent=2)
    with pytest.raises(TypeError, match=r"no q\(z\|x\) to refine: this model's code has no density\. Use"):
        evaluate.refine(point, bits(2, D))
    model, _ = nr.recipes.vae((D,), latent=2)
    with pytest.raises(ValueError, match="at least one step and one draw, and a positive lr; got steps=0, samples=2"):
        evaluate.refine(model, bits(2, D), steps=0)


def test_variational_em_reaches_probabilistic_pca():
    """No encoder: log p(x) of the decoder that is found is pPCA's maximum in closed form, to 0.03 nats a row."""
    torch.manual_seed(0)
    x = torch.randn(200, 2) @ torch.randn(2, 5) + 0.5 * torch.randn(200, 5)
    x = x - x.mean(0)
    values = torch.linalg.eigvalsh(x.T.double() @ x.double() / 200).flip(0)
    s2 = values[2:].mean()
    best = -0.5 * (5 * math.log(2 * math.pi) + values[:2].log().sum() + 3 * s2.log() + 5)
    linear = partial(Mlp, hidden=())
    likelihood = partial(Gaussian, learn="shared")
    model, objective = nr.recipes.vae((5,), latent=2, likelihood=likelihood, network=linear, samples=4)
    before = [p.clone() for p in model.encoder.parameters()]
    state = torch.get_rng_state()
    found = variational_em(model, x, objective, epochs=200, inner=2, batch=200, lr=0.05)
    assert torch.equal(state, torch.get_rng_state())
    w, s = model.decoder.layers[0].weight.detach(), model.likelihood.sigma.detach()
    p = MultivariateNormal(model.decoder.layers[0].bias.detach(), w @ w.T + s**2 * torch.eye(5))
    reached = float(p.log_prob(x).mean())
    assert float(best) - 0.03 < reached <= float(best) + 1e-4
    assert float(found.bound.mean()) == pytest.approx(reached, abs=0.1)
    assert found.curve[-1] > found.curve[0]
    assert all(torch.equal(a, b) for a, b in zip(before, model.encoder.parameters(), strict=True))


def test_variational_em_repeats_itself_and_refuses_what_means_nothing():
    outcomes, x = [], bits(20, D)
    for _ in range(2):
        model, _ = nr.recipes.vae((D,), latent=2, network=partial(Mlp, hidden=(4,)))
        found = variational_em(model, x, epochs=2, batch=8, seed=3)
        outcomes.append([found.h, found.bound, *(p.detach() for p in model.decoder.parameters())])
    assert outcomes[0][0].shape == (20, 4)
    assert all(torch.equal(a, b) for a, b in zip(*outcomes, strict=True))
    model, _ = nr.recipes.vae((D,), latent=2)
    with pytest.raises(ValueError, match="at least one epoch, one inner step and one row a batch.*epochs=0"):
        variational_em(model, bits(4, D), epochs=0)
    with pytest.raises(ValueError, match="which Bernoulli cannot produce"):
        variational_em(model, bits(4, D) + 0.5)


# ---- spread -----------------------------------------------------------------------------------------------------


def test_spread_of_a_linear_gaussian_model():
    """Var W z = diag(W diag(sigma^2) W^T), of 20,000 draws within 4 % (8 standard errors); sigma, entropy exactly."""
    model, x, _, precision = linear_gaussian(2)
    found = evaluate.spread(model, x, samples=20_000)
    sigma = (0.5 * precision.diagonal().rsqrt() + 1e-6).expand(8, 2)
    close(found.code, sigma, rtol=1e-6, atol=0)
    close(found.entropy, (sigma.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(1), rtol=1e-6, atol=0)
    w = model.decoder.layers[0].weight
    exact = (w.square() * sigma[0].square()).sum(1).sqrt().expand(8, D)
    close(found.reconstruction, exact, rtol=0.04, atol=0)
    close(found.noise, torch.full((8, D), 0.6).double(), rtol=1e-6, atol=0)
    close(found.total.square(), found.reconstruction.square() + 0.36, rtol=1e-6, atol=0)


@pytest.mark.parametrize("likelihood", [nr.likelihoods.Bernoulli, partial(nr.likelihoods.Categorical, levels=3)])
def test_spread_where_the_likelihood_does_not_know_its_variance(likelihood):
    """By draws: of 4,000, within 10 % of the mean over a row of the moments of its cells."""
    model, _ = nr.recipes.vae((D,), latent=2, likelihood=likelihood, network=partial(Mlp, hidden=(4,)))
    x = bits(3, D)
    found = evaluate.spread(model, x, samples=4000)
    with torch.no_grad():
        px = model.decode(model.encode(x, samples=4000, draw=True).z)
        base = px.base_dist
        if hasattr(base, "levels"):
            grid = torch.linspace(0, 1, 3)
            variance = base.base.probs @ grid.square() - base.mean.square()
        else:
            variance = base.probs * (1 - base.probs)
    exact = variance.unflatten(0, (4000, 3)).mean(0).sqrt()
    close(found.noise, exact, rtol=0.1, atol=0)


def test_spread_of_q_that_only_scores_its_draws():
    """Standard deviation and entropy of 20,000 draws, where q is not told, within 4 % and 0.05 nats."""
    model, x, _, _ = linear_gaussian(2)
    whole = evaluate.spread(model, x, samples=2)
    own = model.posterior.forward

    def untold(h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        code = own(h, context, samples, draw)
        log_q, log_p = code.densities()
        return code._replace(log_q=log_q, log_p=log_p, q=None, p=None)

    model.posterior.forward = untold
    found = evaluate.spread(model, x, samples=20_000)
    close(found.code, whole.code, rtol=0.04, atol=0)
    close(found.entropy, whole.entropy, rtol=0, atol=0.05)
    with pytest.raises(TypeError, match="a deterministic code is one point and has no spread"):
        evaluate.spread(nr.recipes.autoencoder((D,), latent=2)[0], x)
    with pytest.raises(ValueError, match="at least 2 draws; got samples=1"):
        evaluate.spread(model, x, samples=1)


# ---- paths, arithmetic, temperature -----------------------------------------------------------------------------


def identity(prior: nn.Module | None) -> Autoencoder:
    """z = x, E[x|z] = z: what a path through the code looks like in x."""
    d = 2 if prior is None else prior.latent
    p = Gaussian((d,), sigma=0.1)
    eye, zero = torch.eye(d).double(), torch.zeros(d).double()
    return Autoencoder(affine(eye, zero, (d,)), Deterministic(d, prior), affine(eye, zero, p.wants), p).double()


def test_a_spherical_path_turns_at_a_constant_pace():
    """Angles in equal steps, lengths on a straight line; between opposite ends, and equal ones, it is straight."""
    model = identity(None)
    ends = torch.tensor([[2.0, 0.0], [0.0, 4.0]]).double()
    path = tasks.interpolate(model, ends, 5, "spherical")
    angle = torch.atan2(path[:, 1], path[:, 0])
    close(angle, torch.linspace(0, math.pi / 2, 5).double(), rtol=0, atol=1e-6)
    close(path.norm(dim=1), torch.linspace(2, 4, 5).double(), rtol=0, atol=1e-6)
    for a, b in (((1.0, 1.0), (-2.0, -2.0)), ((1.0, 1.0), (3.0, 3.0)), ((0.0, 0.0), (1.0, 2.0))):
        ends = torch.tensor([a, b]).double()
        close(tasks.interpolate(model, ends, 4, "spherical"), tasks.interpolate(model, ends, 4))


def test_a_path_along_the_density_of_one_unit_is_known():
    """With D = 1 the metric's length is that of sqrt(2 pi) e^(z^2/2): its steps are equal in erfi(z / sqrt 2)."""
    from scipy.special import erfi

    model = identity(StandardNormal(1))
    path = tasks.interpolate(model, torch.tensor([[-1.5], [2.0]]).double(), 9, "density")[:, 0]
    length = torch.from_numpy(erfi(path.numpy() / math.sqrt(2)))
    close(length.diff(), ((length[-1] - length[0]) / 8).expand(8), rtol=0.01, atol=0)


class Ring(nn.Module):
    """Codes near a circle of radius 2."""

    density, latent = True, 2

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        angle = torch.arange(24) * (2 * math.pi / 24)
        self.mean = scale * 2 * torch.stack([angle.cos(), angle.sin()], -1).double()
        self.sigma = scale * 0.3

    def forward(self, context: Tensor | None = None) -> MixtureSameFamily:
        parts = Independent(Normal(self.mean, torch.full_like(self.mean, self.sigma)), 1)
        return MixtureSameFamily(Categorical(logits=torch.zeros(24).double()), parts)


def test_a_path_along_the_density_goes_around_a_hole():
    """Its least likely place is far likelier than the straight path's, and scaling the code scales the path."""
    ends = torch.tensor([[2.0, 0.0], [-1.9, 0.6]]).double()
    model = identity(Ring())
    straight, found = (tasks.interpolate(model, ends, 17, path) for path in ("linear", "density"))
    p = model.prior(None)
    assert p.log_prob(found).min() > p.log_prob(straight).min() + 10
    assert 1.6 < found.norm(dim=1).min() < 2.1
    gaps = found.diff(dim=0).norm(dim=1) * torch.exp(-p.log_prob((found[1:] + found[:-1]) / 2) / 2)
    assert gaps.max() < 1.2 * gaps.min()  # steps of equal length in the metric
    close(tasks.interpolate(identity(Ring(3.0)), 3 * ends, 17, "density"), 3 * found, rtol=0, atol=0.05)
    close(found[[0, -1]], ends)


def test_what_is_no_path_is_refused():
    ends = torch.zeros(2, 2).double()
    with pytest.raises(ValueError, match="no path 'round'; there is linear, spherical, density"):
        tasks.interpolate(identity(None), ends, 3, "round")
    with pytest.raises(TypeError, match=r"along the density needs p\(z\).*right: fit_prior\(model, data\) first"):
        tasks.interpolate(identity(None), ends, 3, "density")
    with pytest.raises(TypeError, match=r"along the density needs p\(z\)"):
        tasks.interpolate(identity(SwissRoll()), ends, 3, "density")


def test_paths_with_context():
    model, _ = nr.recipes.vae((D,), latent=2, context=2, network=partial(Mlp, hidden=(4,)))
    rows = nr.data.Rows(bits(2, D), label=torch.tensor([0, 1]), context=2)
    for path in ("linear", "spherical", "density"):
        assert tasks.interpolate(model, rows, 4, path).shape == (4, D)


def test_arithmetic_on_a_linear_model_is_exact():
    """E[x|z + m1 - m0] = x + mean of label 1 - mean of label 0, and the nearest mean changes from 0 to 1."""
    model = identity(None)
    torch.manual_seed(0)
    label = torch.arange(60) % 3
    x = torch.randn(60, 2).double() * 0.2 + torch.tensor([[0.0, 0.0], [3.0, 1.0], [-2.0, 5.0]])[label].double()
    rows = nr.data.Rows(x, label=label)
    means = torch.stack([x[label == k].mean(0) for k in range(3)])
    zeros = rows.take((label == 0).nonzero()[:, 0])
    moved = tasks.arithmetic(model, zeros, add=1, remove=0, labelled=rows)
    close(moved.x, zeros.x + means[1] - means[0], rtol=0, atol=1e-9)
    assert (torch.cdist(zeros.x, means).argmin(1) == 0).all()
    assert (torch.cdist(moved.x, means).argmin(1) == 1).all()
    half = tasks.arithmetic(model, rows, add=2, weight=0.5)
    close(half.x, x + 0.5 * (means[2] - x.mean(0)), rtol=0, atol=1e-9)
    close(tasks.arithmetic(model, rows, remove=2).direction, x.mean(0) - means[2], rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="no row has the label 7; there are 0, 1, 2"):
        tasks.arithmetic(model, rows, add=7)
    for wrong, given in ((rows, {}), (x, {"add": 1})):
        with pytest.raises(ValueError, match="needs rows with labels, and add=, remove= or both"):
            tasks.arithmetic(model, wrong, **given)


@pytest.mark.parametrize("prior", [StandardNormal(2), MultivariateGaussian(2), GaussianMixture(2, 3)], ids=repr)
def test_temperature_scales_deviations_about_the_means(prior):
    """Moments of the tempered normals in closed form; the draws of a standard normal are the same ones, scaled."""
    if not isinstance(prior, StandardNormal):
        prior.mean += 5 * torch.randn_like(prior.mean)
        prior.scale @= torch.tensor([[2.0, 0.0], [1.0, 0.5]])
    p, half, none = prior(), tempered(prior(), 0.5), tempered(prior(), 0.0)
    close(half.mean, p.mean)
    if isinstance(prior, GaussianMixture):
        within = p.component_distribution.variance
        between = p.variance - (p.mixture_distribution.probs[:, None] * within).sum(0)
        close(
            half.variance,
            between + 0.25 * (p.mixture_distribution.probs[:, None] * within).sum(0),
            rtol=1e-4,
            atol=1e-5,
        )
        assert (torch.cdist(none.sample((50,)), prior.mean).min(1).values < 1e-6).all()
    else:
        close(half.stddev, 0.5 * p.stddev)
        close(none.sample((5,)), p.mean.expand(5, 2))
    model, _ = nr.recipes.vae((D,), latent=2)
    with nr.draws.seeded(1):
        one = model.draw(5)
    with nr.draws.seeded(1):
        close(model.draw(5, temperature=0.3), 0.3 * one)


def test_temperatures_that_mean_nothing_are_refused():
    model, _ = nr.recipes.vae((D,), latent=2)
    with pytest.raises(ValueError, match="multiplies standard deviations: at least 0; got -1"):
        model.sample(3, temperature=-1)
    coded, _ = nr.recipes.vqvae((D,), latent=2, codebook=3)
    with pytest.raises(TypeError, match="over codewords, which have no width; got 0.7. Sample at temperature 1$"):
        coded.sample(3, temperature=0.7)
    model.posterior.prior = SwissRoll()
    with pytest.raises(TypeError, match="a prior of normals or of mixtures of normals, and this one is _Roll"):
        model.sample(3, temperature=0.5)


# ---- collapse ---------------------------------------------------------------------------------------------------


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(nr.training.loop, "FEWEST", 40)


def collapsing(**settings: Any) -> nr.Run:
    model, objective = nr.recipes.vae((D,), latent=2, beta=50.0, network=partial(Mlp, hidden=(8,)))
    training = nr.Training(epochs=20, check=20, batch=32, lr=0.01, **settings)
    return nr.fit(model, objective, bits(256, D), bits(64, D), training=training, quiet=True)


def test_collapse_is_said_once_while_training_goes_on(soon, monkeypatch):
    asked = []
    own = alarms.collapsed
    monkeypatch.setattr(alarms, "collapsed", lambda *a: asked.append(own(*a)) or asked[-1])
    run = collapsing()
    assert run.config["steps"] == 160
    assert any(asked)
    assert [a for a in run.alarms if "posterior collapse" in a] == [alarms.COLLAPSED]


def test_collapse_ends_training_where_that_is_asked(soon):
    run = collapsing(on_collapse="stop")
    assert 40 <= run.config["steps"] < 160
    assert alarms.COLLAPSED in run.alarms
    assert f"training was stopped at step {run.config['steps']}, where the code had collapsed" in run.alarms[-1]
    with pytest.raises(ValueError, match="on_collapse .*'warn' or 'stop'; got 'ask'"):
        nr.Training(on_collapse="ask")


def test_a_code_in_use_has_not_collapsed_and_nothing_is_read():
    model, rows = trained("vae")
    x = rows.x
    rows = nr.data.Rows(x)
    assert not alarms.collapsed(model, rows, 0.001)  # the rate alone does not decide
    model.encoder.register_forward_hook(lambda *_: pytest.fail("rows were read"))
    assert not alarms.collapsed(model, rows, 2.0)
    assert not alarms.collapsed(nr.recipes.autoencoder((D,), latent=2)[0], rows, 0.0)
