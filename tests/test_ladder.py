"""Codes of several rungs, held to a hierarchy whose evidence and posterior are known."""

import copy
import json
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

import narrows as nr
from narrows import draws, evaluate, recipes, tasks
from narrows.contract import Batch
from narrows.gradients import DoublyReparameterised, ScoreFunction, StickingTheLanding
from narrows.likelihoods import Gaussian
from narrows.models import Ladder
from narrows.networks import Mlp, Norm
from narrows.objectives import Objective, iwae
from narrows.pictures import rates as picture_of_rates
from narrows.posteriors import BottomUp, PrecisionWeighted
from narrows.posteriors import Gaussian as GaussianPosterior
from narrows.priors import GaussianMixture, Rungs, StandardNormal
from narrows.schedules import WarmUp
from narrows.training.alarms import COLLAPSED, after
from narrows.training.progress import sentence
from test_cli import call

BOTH = pytest.mark.parametrize("name", ["hvae", "ladder"])
A, B, C, W, T, S = (
    *(torch.tensor(t, dtype=torch.float64) for t in ([1.5, -0.7], [0.3, -0.2], [0.1, 0.4], [0.8, 1.2], [0.5, 0.9])),
    0.6,
)
X = torch.tensor([[0.5, -1.0], [2.0, 0.3], [-1.2, 0.8]], dtype=torch.float64)


def put(layer: nn.Linear, weight: Tensor, bias: Tensor) -> None:
    """Sets an affine map."""
    layer.weight.data, layer.bias.data = weight.double().clone(), bias.double().clone()


def raw(sigma: Tensor, shift: float = 0.0) -> Tensor:
    """What softplus(. + shift) + 1e-6 makes sigma of."""
    return (sigma - 1e-6).expm1().log() - shift


def exact(name: str, off: float = 0.0) -> Ladder:
    """z1 ~ N(0, I), z2 ~ N(W z1 + B, T^2), x ~ N(A z2 + C, S^2), with the exact posterior; `off` spoils q's means."""
    common = {"rungs": (2, 2), "prior": partial(Rungs, width=4, depth=0), "network": partial(Mlp, hidden=())}
    model = getattr(recipes, name)((2,), likelihood=partial(Gaussian, sigma=S), **common)[0].double()
    model.likelihood.log_sigma.fill_(math.log(S))  # in double precision
    put(model.decoder.layers[0], A.diag(), C)
    zero, one = torch.zeros(2, 2), torch.eye(2, dtype=torch.float64)
    put(model.prior.down[0].layers[0], torch.cat([W.diag(), zero]), torch.cat([B, raw(T, math.log(math.expm1(1)))]))
    q = model.posterior
    if name == "hvae":
        precision = 1 / (T**2 + W**2) + (A / S) ** 2  # of z2 given x
        slope, at = (A / S**2) / precision, (B / (T**2 + W**2) - A * C / S**2) / precision
        put(model.encoder.layers[0], torch.cat([slope.diag(), zero]), torch.cat([at + off, raw(precision**-0.5)]))
        precision = 1 + (W / T) ** 2  # of z1 given z2
        slope = (W / T**2) / precision
        put(q.up[0].layers[0], torch.cat([slope.diag(), zero]), torch.cat([-slope * B, raw(precision**-0.5)]))
    else:  # leaky(u) - leaky(-u) = 1.1 u, so pairs carry numbers through the bends as they are
        pair = torch.cat([one, -one], 1) / 1.1
        put(model.encoder.layers[0], torch.cat([one, -one]), torch.zeros(4))
        put(q.up[0].layers[0], torch.cat([pair, -pair]), torch.zeros(4))
        width = (S / A).abs()  # of z2, from what x says alone
        put(q.heads[0], torch.cat([A.reciprocal().diag() @ pair, 0 * pair]), torch.cat([off - C / A, raw(width)]))
        v = S**2 + (A * T) ** 2
        precision = 1 + (A * W) ** 2 / v  # of z1 given x
        slope = (A * W / v) / precision
        at = -slope * (A * B + C)
        put(q.heads[1], torch.cat([slope.diag() @ pair, 0 * pair]), torch.cat([at, raw(precision**-0.5)]))
    return model.eval()


def evidence() -> Tensor:
    """log p(x) (n,) of that hierarchy."""
    return Normal(A * B + C, (S**2 + A**2 * (T**2 + W**2)).sqrt()).log_prob(X).sum(1)


def weights(model: Ladder, x: Tensor, samples: int) -> Tensor:
    """Log importance weights (samples, B) of one pass."""
    objective = Objective(rate="sampled", samples=samples)
    distortion, rate = objective.score(model(x, None, samples), Batch.of(x))
    return -(distortion + rate).view(samples, -1)


# ---- the equation -----------------------------------------------------------------------------------------------


@BOTH
def test_every_draw_is_the_evidence_at_the_exact_posterior(name: str) -> None:
    """log p(x|z) + log p(z) - log q(z|x) = log p(x) for each of 50 draws, to 1e-10; so are estimates by them."""
    model = exact(name)
    torch.testing.assert_close(weights(model, X, 50), evidence().expand(50, -1), atol=1e-10, rtol=0)
    found = evaluate.log_likelihood(model, X, samples=1)  # none of them spread wider
    torch.testing.assert_close(found.values, evidence(), atol=1e-10, rtol=0)
    torch.testing.assert_close(evaluate.score_samples(model, X, 5), evidence(), atol=1e-10, rtol=0)


@BOTH
def test_any_code_is_scored_and_decoded_as_its_draw_was(name: str) -> None:
    """q and p by another run, and decode by another descent, give what the drawing run gave (float64, 1e-12)."""
    model = recipes.__dict__[name]((5,), rungs=(2, 3, 4), context=2, seed=3)[0].double()
    x, context = torch.rand(6, 5, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    px, code = model(x, context, 4)
    z = code.z.unflatten(0, (4, 6))
    torch.testing.assert_close(code.q.log_prob(z).flatten(), code.log_q, atol=1e-12, rtol=0)
    torch.testing.assert_close(code.p.log_prob(z).flatten(), code.log_p, atol=1e-12, rtol=0)
    torch.testing.assert_close(model.decode(code.z, context).mean, px.mean, atol=1e-12, rtol=0)
    for part, rows in ((code.z[6:12], context), (code.z[1::6], context[1:2])):
        again = model.decode(part, rows).mean  # the context of a draw's own row
        whole = px.mean[6:12] if len(rows) > 1 else px.mean[1::6]
        torch.testing.assert_close(again, whole, atol=1e-12, rtol=0)


@BOTH
def test_a_worse_posterior_bounds_the_evidence_and_draws_close_the_gap(name: str) -> None:
    """ELBO < IWAE-10 < log p(x); IWAE-20,000 within 4 Monte Carlo errors (seed 0, failure below 1e-3)."""
    model = exact(name, off=0.3)
    torch.manual_seed(0)
    log_w = weights(model, X, 20_000).detach()
    few = log_w.unflatten(0, (2000, 10)).logsumexp(1) - math.log(10)
    assert (log_w.mean(0) + 0.05 < few.mean(0)).all()
    assert (few.mean(0) + 0.002 < evidence()).all()
    found = evaluate.log_likelihood(model, X, 20_000)
    assert abs(found.mean - float(evidence().mean())) < 4 * found.monte_carlo_error


def test_precisions_add_as_in_the_product_of_two_normals() -> None:
    """log q(z) differs from log p-hat(z) + log p(z) by a constant (float64, 1e-12); on top x stands alone."""
    q = PrecisionWeighted(Rungs(5, rungs=(2, 3))).double()
    m, s, p, t = torch.rand(4, 1, 3, dtype=torch.float64) + 0.2
    mean, sigma = q.merge(1, (m, s), p, t, None)
    z = torch.linspace(-3, 3, 20, dtype=torch.float64)[:, None]
    apart = Normal(mean, sigma).log_prob(z) - Normal(m, s).log_prob(z) - Normal(p, t).log_prob(z)
    assert apart.std(0).max() < 1e-12
    assert q.merge(0, (m, s), p, t, None) == (m, s)


@BOTH
def test_closed_rates_are_means_of_the_sampled_ones(name: str) -> None:
    """Rung by rung within 4 standard errors of 40,000 draws (seed 1; failure below 4e-4)."""
    model = recipes.__dict__[name]((5,), rungs=(2, 3, 4), seed=2)[0].double()
    torch.manual_seed(1)
    x = torch.rand(1, 5, dtype=torch.float64)
    h = model.hidden(x)
    found = model.posterior.run(h, None, torch.randn(40_000, 9, dtype=torch.float64), False)
    sampled = Normal(found.mean, found.sigma).log_prob(found.z)
    sampled = sampled - Normal(found.prior_mean, found.prior_sigma).log_prob(found.z)
    closed = model.posterior.rates(found, sampled)
    split = model.posterior.split
    for rung, (ours, theirs) in enumerate(zip(split(closed), split(sampled), strict=True)):
        gap = (ours - theirs).sum(1).detach()
        if name == "hvae" and rung > 0:
            assert torch.equal(ours, theirs)  # no closed form there
        else:
            assert gap.std() > 0
            assert gap.mean().abs() < 4 * gap.std() / 200
            assert ours.min() >= 0  # a KL, which the draws' estimate need not be
    code = model.encode(x, samples=40_000, draw=True)
    total, mean = code.log_q - code.log_p, code.rate.mean()
    assert (total.mean() - mean).abs() < 4 * total.std() / 200 + 4 * code.rate.std() / 200


@BOTH
def test_log_likelihood_agrees_with_quadrature_on_two_rungs_of_one_unit(name: str) -> None:
    """Within 5 Monte Carlo errors of 4,000 draws and the error of the cells."""
    model = recipes.__dict__[name]((4,), rungs=(1, 1), network=partial(Mlp, hidden=(6,)), seed=4)[0]
    x = torch.tensor([[1.0, 0, 1, 0], [1, 1, 1, 1]])
    whole = evaluate.quadrature(model, x, tolerance=1e-4)
    found = evaluate.log_likelihood(model, x, 4000)
    assert abs(found.mean - whole.mean) < 5 * found.monte_carlo_error + float(whole.error.max()) + 1e-4
    refined = evaluate.refine(model, x, steps=20)
    assert (refined.after >= refined.before).all()
    assert (refined.after <= whole.values + 0.1).all()


@BOTH
def test_estimators_that_decode_again_work_on_rungs(name: str) -> None:
    """At the exact posterior sticking the landing leaves the encoder no gradient, in every single draw."""
    model = exact(name)
    for gradient, bound in ((StickingTheLanding(), None), (DoublyReparameterised(), iwae)):
        objective = Objective(rate="sampled", samples=3, gradient=gradient, **({"bound": bound} if bound else {}))
        model.zero_grad()
        terms = objective(model, Batch.of(X))
        terms.loss.backward()
        own = [p for n, p in model.named_parameters() if "encoder" in n or ("posterior" in n and "prior" not in n)]
        assert max(float(p.grad.abs().max()) for p in own if p.grad is not None) < 1e-10
        assert terms.bound.allclose(evidence())
    terms = Objective(samples=3, gradient=ScoreFunction("leave-one-out"))(model, Batch.of(X))
    assert terms.loss.isfinite()


# ---- rungs ------------------------------------------------------------------------------------------------------


@BOTH
def test_rungs_are_reported_wherever_the_rate_is(name: str, tmp_path) -> None:
    """Their rates sum to the rate: in terms, metrics, a line of progress, evaluation; a resume goes on with them."""
    model, objective = recipes.__dict__[name]((6,), rungs=(1, 2, 3), network=partial(Mlp, hidden=(8,)), beta=1.0)
    x = torch.rand(96, 6).round()
    terms = objective(model, Batch.of(x))
    assert terms.rungs.shape == (96, 3)
    torch.testing.assert_close(terms.rungs.sum(1), terms.rate)
    short = nr.Training(epochs=2, batch=32)
    run = nr.fit(model, objective, x[:64], x[64:], training=short, folder=tmp_path / "a", quiet=True)
    record = json.loads((tmp_path / "a" / "metrics.jsonl").read_text().splitlines()[-1])
    for part in ("train", "valid"):
        assert sum(record[part]["rungs"]) == pytest.approx(record[part]["rate"], rel=1e-5)
    shown = " + ".join(f"{nats:.2f}" for nats in record["train"]["rungs"])
    assert f"({shown} from the top rung down)" in sentence(record)
    whole = recipes.__dict__[name]((6,), rungs=(1, 2, 3), network=partial(Mlp, hidden=(8,)), beta=1.0)
    long = short.model_copy(update={"epochs": 4})
    nr.fit(*whole, x[:64], x[64:], training=long, quiet=True)
    again = nr.fit(model, objective, x[:64], x[64:], training=long, folder=tmp_path / "a", resume=True, quiet=True)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole[0].parameters(), strict=True))
    assert run.metrics[0] == again.metrics[0]
    rates = evaluate.rate_by_rung(model, x)
    torch.testing.assert_close(rates.sum(1), evaluate.distortion_rate(model, x)[1])
    units = evaluate.active_units(model, x)
    each = units.each()
    assert [len(rung.variance) for rung in each] == [1, 2, 3]
    assert torch.equal(torch.cat([rung.by_rate for rung in each]), units.by_rate)
    assert [text.get_text().split("\n")[0] for text in picture_of_rates(*units[2:]).axes[0].texts] == [
        "rung 1",
        "rung 2",
        "rung 3",
    ]


def test_a_temperature_for_each_rung_cools_that_rung() -> None:
    """At 0 a rung is its mean given the rung above; one number is all alike; the density narrows with the draws."""
    model = exact("ladder")
    draws_of = partial(model.draw, 500)
    top, bottom = draws_of(temperature=(0.0, 1.0)).split(2, 1)
    assert not top.any()
    assert (((bottom - B) / T).std(0) - 1).abs().max() < 0.2
    top, bottom = draws_of(temperature=[1.0, 0.0]).split(2, 1)
    assert (top.std(0) - 1).abs().max() < 0.2
    torch.testing.assert_close(bottom, W * top + B)
    with draws.seeded(5):
        one = draws_of(temperature=0.7)
    with draws.seeded(5):
        assert torch.equal(one, draws_of(temperature=(0.7, 0.7)))
    p = model.prior().tempered((0.5, 2.0))
    z = torch.tensor([[0.3, -0.4, 0.2, 0.9]], dtype=torch.float64)
    known = Normal(0.0, 0.5).log_prob(z[:, :2]).sum(1) + Normal(W * z[:, :2] + B, 2 * T).log_prob(z[:, 2:]).sum(1)
    torch.testing.assert_close(p.log_prob(z), known)
    for wrong in ((1.0,), (1.0, -0.1), -1.0, (1.0, math.nan)):
        with pytest.raises(ValueError, match="a temperature of at least 0 is one number, or one for each of 2 rungs"):
            model.sample(3, temperature=wrong)
    with pytest.raises(TypeError, match="one temperature for each rung is for a prior of rungs"):
        recipes.vae((4,), latent=2)[0].sample(3, temperature=(1.0, 0.5))


@BOTH
def test_kept_rungs_stay_and_the_others_are_drawn_given_them(name: str) -> None:
    """All kept are the reconstruction, none a sample of the same noise; with one kept the lower follows its prior."""
    model = exact(name)
    assert torch.equal(tasks.redraw(model, X, 2)[0], evaluate.reconstruct(model, X))
    with draws.seeded(3, 19, 0):
        sample = model.sample(3).mean
    torch.testing.assert_close(tasks.redraw(model, X, 0, seed=3)[0], sample)
    z = model.encode(X).z
    many = model.prior.redrawn(z.repeat(4000, 1), 1).unflatten(0, (4000, 3))
    assert (many[..., :2] == z[:, :2]).all()
    below = many[..., 2:]
    assert ((below.mean(0) - (W * z[:, :2] + B)).abs() < 6 * T / 4000**0.5).all()  # 6 standard errors
    assert (below.std(0) / T - 1).abs().max() < 0.1
    cold = tasks.redraw(model, X, 1, n=2, temperature=(1.0, 0.0))
    torch.testing.assert_close(cold[0], A * (W * z[:, :2] + B) + C)
    assert torch.equal(cold[0], cold[1])
    with pytest.raises(ValueError, match="there are 2 rungs, of which 0 to all can be kept; got keep=3"):
        tasks.redraw(model, X, 3)
    with pytest.raises(ValueError, match="at least one row of each; got n=0"):
        tasks.redraw(model, X, 1, n=0)
    with pytest.raises(TypeError, match="the code of this model has none: its posterior is Gaussian"):
        tasks.redraw(recipes.vae((2,), latent=2)[0], X.float(), 1)


def test_point_codes_are_means_run_through() -> None:
    """Top down the bottom's mean is read at the top's mean; bottom up the other way round. Walks use them."""
    for name in ("ladder", "hvae"):
        model = recipes.__dict__[name]((5,), rungs=(2, 3), seed=1)[0].eval()
        x = torch.rand(4, 5)
        h, z = model.hidden(x), model.encode(x).z
        found = model.posterior.run(h, None, z, True)
        torch.testing.assert_close(found.mean, z)
        assert tasks.interpolate(model, x[:2], 3).shape == (3, 5)
        assert tasks.traverse(model, x, [0, 4]).x.shape == (2, 12, 5)
        assert evaluate.spread(model, x, samples=4).code.shape == (4, 5)


def test_collapsed_rungs_are_named_with_what_to_do() -> None:
    """A top that says nothing; one that says no more than its free bits; all of them; none."""
    model = recipes.ladder((6,), rungs=(2, 3, 4), seed=1)[0].double()
    x = nr.data.Rows(torch.rand(50, 6).round().double())
    assert not after(model, x)
    blank = copy.deepcopy(model)
    put(blank.posterior.heads[2], torch.zeros(4, 16), torch.cat([torch.zeros(2), raw(torch.ones(2))]))
    said = after(blank, x)
    assert len(said) == 2
    assert "rung 1 of 3 (the top, 2 units, " in said[0]
    assert "--set free_bits=1)" in said[0]
    assert "2 of 9 units are inactive; active from the top rung down: 0, 3, 4" in said[1]
    assert said[1].endswith("--set rungs=[3,4]")
    least = min(float(rung.rate.sum()) for rung in evaluate.active_units(model, x).each())
    assert "has collapsed: it carries hardly more about x than its free bits" in after(model, x, least)[0]
    assert not after(model, x, 0.8 * least)
    blank.posterior.merge = lambda rung, known, mean, sigma, state: (mean, sigma)  # q is the prior
    assert after(blank, x) == [COLLAPSED]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rungs": (4, 0)}, ValueError, r"rungs are units of each rung, top first, such as .*; got \(4, 0\)"),
        ({"rungs": ()}, ValueError, r"rungs are units of each rung.*got \(\)"),
        ({"rungs": 5}, TypeError, r"rungs are units of each rung, top first, such as rungs=\(4, 8, 16\); got 5"),
        (
            {"latent": 1},
            ValueError,
            "two rungs take at least 2 units; got latent=1. Take latent=2 or",
        ),
        (
            {"prior": StandardNormal},
            TypeError,
            r"shares the way down with its prior. .*right: .*Rungs\(latent\)",
        ),
        ({"prior": StandardNormal, "rungs": (1, 2)}, TypeError, "units of a prior that has rungs"),
        ({"prior": partial(Rungs, activation="elu")}, ValueError, 'activation is "relu", "tanh" or "leaky"'),
    ],
    ids=str,
)
@BOTH
def test_bad_rungs_are_refused(name: str, arguments: dict, error: type[Exception], message: str) -> None:
    """At once, in one sentence."""
    with pytest.raises(error, match=message):
        recipes.__dict__[name]((6,), **arguments)


def test_what_needs_another_code_is_refused() -> None:
    """A ladder without rungs, a prior that would cut the way down, axes that cannot be turned, units scored apart."""
    model, _ = recipes.ladder((4,), rungs=(1, 2))
    x = torch.rand(30, 4)
    with pytest.raises(TypeError, match=r"a ladder has a posterior with rungs\. Wrong: .*; got Gaussian"):
        Ladder(nn.Identity(), GaussianPosterior(StandardNormal(2)), nn.Identity(), model.likelihood)
    with pytest.raises(TypeError, match="the way down through its rungs, which the decoder needs"):
        nr.fit_prior(model, x, GaussianMixture(3, components=2))
    with pytest.raises(TypeError, match="this model's posterior is PrecisionWeighted"):
        nr.canonical_latent(model, x)
    gaps = recipes.beta_tc_vae((4,), prior=partial(Rungs, rungs=(1, 2)), latent=3, posterior=PrecisionWeighted)
    with pytest.raises(TypeError, match="is Chain"):
        gaps[1](gaps[0], Batch.of(x))
    with pytest.raises(ValueError, match="a chain for .* rows cannot be read as one for"):
        model.encode(x).q.expand((7,))


def test_a_flat_posterior_may_have_a_prior_of_rungs() -> None:
    """Then its rate is that of the draws, and the model no ladder."""
    model, objective = recipes.vae((4,), latent=3, prior=partial(Rungs, rungs=(1, 2)))
    assert not isinstance(model, Ladder)
    terms = objective(model, Batch.of(torch.rand(5, 4).round()))
    assert terms.rungs is None
    assert terms.rate.shape == (5,)
    assert BottomUp(Rungs(3, rungs=(3,))).features == 6  # one rung is a plain VAE


def test_batch_norm_takes_whole_batches(monkeypatch) -> None:
    """A batch of one row is scaled as in evaluation; several processes are refused; all of a ladder has it."""
    model, objective = recipes.ladder((6,), rungs=(2, 3), prior=partial(Rungs, norm=True), beta=WarmUp(5))
    assert sum(isinstance(part, Norm) for part in model.modules()) == 2 + 2 + 1
    x = torch.rand(8, 6).round()
    objective(model, Batch.of(x)).loss.backward()
    before = copy.deepcopy(model.state_dict())
    assert objective(model, Batch.of(x[:1])).loss.isfinite()
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert model.spec["arguments"]["prior"] == {"Rungs": {"norm": True}}
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 2)
    with pytest.raises(RuntimeError, match="batch norm takes the whole batch in one process"):
        objective(model, Batch.of(x))
    assert model.eval().encode(x).z.isfinite().all()


def test_commands_reach_single_rungs(tmp_path, capsys) -> None:
    """Sampling at a temperature for each, and rows whose top rungs are kept, as pictures and as numbers."""
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 2, (60, 4, 4), dtype=np.uint8))
    data = nr.data.load(tmp_path / "x.npy")
    arguments = {"rungs": (2, 3), "likelihood": data.likelihood, "network": partial(Mlp, hidden=(16,))}
    short = nr.Training(epochs=1)
    nr.fit(*recipes.ladder(data.shape, **arguments), data, training=short, folder=tmp_path / "a", quiet=True)
    assert call("sample", tmp_path / "a", "-n", 4, "--temperature", "1,0.5") == 0
    assert call("redraw", tmp_path / "a", "--rows", 5) == 0
    assert "5 test rows; with all 2 rungs; with one fewer each time" in capsys.readouterr().out
    assert (tmp_path / "a" / "redrawn.png").exists()
    assert call("redraw", tmp_path / "a", "--keep", 1, "--rows", 2, "-n", 3, "--out", tmp_path / "k.npy") == 0
    assert np.load(tmp_path / "k.npy").shape[0] == 2 + 6
    assert call("sample", tmp_path / "a", "--temperature", "warm") != 0
    assert "--temperature is a number, or one for each rung such as 1,0.7; got 'warm'" in capsys.readouterr().err
    assert nr.load(tmp_path / "a").plot.rungs() is not None
