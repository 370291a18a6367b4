"""Estimators of one gradient: means against quadrature, variances against closed forms. float64, seed 0.

The reference is an integral over a fixed grid of codes, sum_z q(z) V(z): its slope comes from q's density alone, so it
shares no path, no score and no draw with what is tested. "4 standard errors" of a mean of 40,000 gradients and more:
each comparison fails one seed in 16,000, and there are about 100 of them, so all pass in all but 0.6 % of seeds.
"""

import copy
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal

from narrows import draws
from narrows.contract import Batch, Code
from narrows.divergences import MMD
from narrows.evaluate import gradient_variance
from narrows.gradients import (
    DoublyReparameterised,
    Piwae,
    Reparameterised,
    ScoreFunction,
    StickingTheLanding,
    Vimco,
)
from narrows.likelihoods import Bernoulli, Gaussian
from narrows.models import Autoencoder
from narrows.networks import Mlp
from narrows.objectives import Objective, ciwae, elbo, iwae, miwae, renyi
from narrows.posteriors import Deterministic
from narrows.posteriors import Gaussian as GaussianPosterior
from narrows.priors import StandardNormal
from narrows.spec import arguments_of, restore
from narrows.training.adam import Adam

close = torch.testing.assert_close
SAME = {"rtol": 0.0, "atol": 1e-10}
D = 3  # width of x
SAMPLED = {"rate": "sampled"}
WEIGHTED = {"rate": "sampled", "bound": iwae}


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Parts are built in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def small(latent: int = 1) -> Autoencoder:
    """A code of one unit behind black-or-white values: smooth, and far from Gaussian."""
    torch.manual_seed(5)
    p, q = Bernoulli((D,)), GaussianPosterior(StandardNormal(latent))
    model = Autoencoder(Mlp((D,), (q.features,), hidden=()), q, Mlp((latent,), p.wants, hidden=()), p)
    model.decoder.layers[0].weight.data *= 3
    return model


ROWS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def exact(model: Autoencoder, bound: Callable, samples: int, beta: float) -> Tensor:
    """Slope of the expected -bound of each row by what the encoder says of it, (2, 2), by integration."""
    h = model.encoder(ROWS).detach().requires_grad_()
    mean, sigma = h[:, :1], h[:, 1:].exp().log1p() + 1e-6  # (2, 1)
    q, z = Normal(mean, sigma), torch.linspace(-8, 8, 401)
    with torch.no_grad():
        logits = model.decoder(z[:, None]).view(-1, 1, D)
    distortion = -(ROWS * logits - logits.exp().log1p()).sum(-1)  # (401, 2)
    log_q = q.log_prob(z).T  # (401, 2)
    rate = log_q - Normal(0.0, 1.0).log_prob(z)[:, None]
    if samples == 1:
        mass, draws_ = log_q.exp(), [t[None] for t in (distortion, rate)]
    else:  # every pair of codes
        mass = (log_q[:, None] + log_q[None]).exp()
        pairs = ([t[:, None].expand_as(mass), t[None].expand_as(mass)] for t in (distortion, rate))
        draws_ = [torch.stack(pair) for pair in pairs]
    value = bound(*draws_, beta)
    step = (z[1] - z[0]) ** samples
    return torch.autograd.grad(-(mass * value).sum() * step, h)[0]


CASES: list[tuple[nn.Module | None, dict[str, Any]]] = [
    (None, {}),
    (Reparameterised(), SAMPLED),
    (StickingTheLanding(), SAMPLED),
    (StickingTheLanding(), {**SAMPLED, "samples": 2, "beta": 2.0}),
    (ScoreFunction(), {}),
    (ScoreFunction(), {**SAMPLED, "beta": 2.0}),
    (ScoreFunction("leave-one-out"), {"samples": 2}),
    (ScoreFunction("leave-one-out"), {**SAMPLED, "samples": 2}),
    (ScoreFunction("learned", (D,)), {}),
    (ScoreFunction("learned", (D,)), {**SAMPLED, "samples": 2}),
    (None, {**WEIGHTED, "samples": 2}),
    (None, {**SAMPLED, "samples": 2, "bound": partial(ciwae, mix=0.3)}),
    (None, {**SAMPLED, "samples": 2, "bound": partial(renyi, alpha=0.5)}),
    (DoublyReparameterised(), {**WEIGHTED, "samples": 2}),
    (DoublyReparameterised(), {**WEIGHTED, "samples": 2, "beta": 0.5}),
    (DoublyReparameterised(), {**WEIGHTED, "samples": 2, "beta": 2.0}),
    (Vimco(), {**WEIGHTED, "samples": 2}),
    (Vimco(), {**WEIGHTED, "samples": 2, "beta": 2.0}),
    (Piwae(1), {**WEIGHTED, "samples": 2}),
]


def label(case: Any) -> str:
    """Short names for long parameters."""
    if isinstance(case, dict):
        return " ".join(f"{k}={getattr(getattr(v, 'func', v), '__name__', v)}" for k, v in case.items())
    return f"{type(case).__name__}({case.extra_repr()})" if isinstance(case, nn.Module) else ""


@pytest.mark.parametrize(("gradient", "settings"), CASES, ids=label)
def test_the_mean_gradient_is_that_of_the_integral(gradient: nn.Module | None, settings: dict[str, Any]) -> None:
    """Of the encoder's mean and sigma of two rows, within 4 standard errors of quadrature."""
    if isinstance(gradient, ScoreFunction):
        gradient.double()
    model = small()
    known = exact(model, settings.get("bound", elbo), settings.get("samples", 1), settings.get("beta", 1.0))
    found = gradient_variance(model, ROWS, gradient, repeats=40_000, **settings)
    assert ((found.mean - known).abs() < 4 * found.standard_error).all()
    assert (found.standard_error < 0.15 * known.abs().max()).all()  # it would notice


def test_sticking_the_landing_is_biased_for_weighted_bounds() -> None:
    """As documented: with K = 2 its mean is not the slope of IWAE (by more than 10 standard errors)."""
    model = small()
    found = gradient_variance(model, ROWS, StickingTheLanding(), repeats=40_000, samples=2, **WEIGHTED)
    assert ((found.mean - exact(model, iwae, 2, 1.0)).abs() > 10 * found.standard_error).any()


# ---- the value, and the other side's gradient -------------------------------------------------------------------


def run(model: Autoencoder, objective: Objective, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Loss, bound and the gradient of every parameter of the model, on the noise of one seed."""
    torch.manual_seed(1)
    terms = objective(model, Batch.of(x))
    slopes = torch.autograd.grad(terms.loss, list(model.parameters()), materialize_grads=True)
    return terms.loss.detach(), terms.bound, list(slopes)


@pytest.mark.parametrize("beta", [1.0, 2.0])
@pytest.mark.parametrize(("gradient", "settings"), [c for c in CASES if c[0] and "beta" not in c[1]], ids=label)
def test_estimators_share_value_and_decoder(gradient: nn.Module, settings: dict[str, Any], beta: float) -> None:
    """On the same draws loss, bound and the decoder's gradient are those of the reparameterisation trick."""
    model, x = small(2), torch.randint(2, (7, D)).double()
    gradient = copy.deepcopy(gradient).double()
    settings = {**settings, "samples": 2 * settings.get("samples", 1), "beta": beta}
    loss, bound, slopes = run(model, Objective(**settings), x)
    other, its, others = run(model, Objective(gradient=gradient, **settings), x)
    close(other, loss, **SAME)
    close(its, bound, **SAME)
    decoder = len(list(model.decoder.parameters()))
    for slope, same in zip(slopes[-decoder:], others[-decoder:], strict=True):
        close(slope, same, **SAME)
    with torch.no_grad():
        torch.manual_seed(1)
        close(Objective(gradient=gradient, **settings)(model, Batch.of(x)).loss, loss, **SAME)


def test_reparameterised_is_what_none_stands_for() -> None:
    """Bit for bit."""
    model, x = small(2), torch.randint(2, (7, D)).double()
    (_, _, slopes), (_, _, others) = (run(model, Objective(gradient=g), x) for g in (None, Reparameterised()))
    assert all(torch.equal(a, b) for a, b in zip(slopes, others, strict=True))


@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_piwae_gives_each_side_its_own_bound(beta: float) -> None:
    """Encoder as from MIWAE(3, 2), decoder as from IWAE(6), on the same draws; what is claimed is IWAE."""
    model, x = small(2), torch.randint(2, (7, D)).double()
    settings = {"beta": beta, "samples": 6, "rate": "sampled"}
    _, bound, slopes = run(model, Objective(bound=iwae, gradient=Piwae(3), **settings), x)
    _, tight, decoder = run(model, Objective(bound=iwae, **settings), x)
    _, _, encoder = run(model, Objective(bound=partial(miwae, groups=3), **settings), x)
    close(bound, tight, **SAME)
    first = len(list(model.encoder.parameters()))
    for found, known in zip(slopes, encoder[:first] + decoder[first:], strict=True):
        close(found, known, **SAME)
        assert not torch.allclose(encoder[0], decoder[0])


class MovingPrior(nn.Module):
    """N(m, 1) with m learned: the prior's side of a gradient."""

    latent = 1

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor([0.4]))

    def forward(self, context: Tensor | None = None) -> torch.distributions.Distribution:
        return torch.distributions.Independent(Normal(self.mean, torch.ones(1)), 1)


@pytest.mark.parametrize(
    "gradient", [DoublyReparameterised(), Vimco(), Piwae(2), StickingTheLanding()], ids=lambda g: type(g).__name__
)
def test_a_learned_prior_gets_the_gradient_of_iwae(gradient: nn.Module) -> None:
    """On the same draws, whatever the encoder gets; the posterior has scored its own draws here."""
    model = small()
    model.posterior = GaussianPosterior(MovingPrior())
    settings = {**WEIGHTED, "samples": 4}
    _, _, slopes = run(model, Objective(**settings), ROWS)
    _, _, others = run(model, Objective(gradient=gradient, **settings), ROWS)
    (at,) = [i for i, (name, _) in enumerate(model.named_parameters()) if "prior" in name]
    assert slopes[at].abs() > 1e-3
    close(others[at], slopes[at], **SAME)


class Penalised(GaussianPosterior):
    """A Gaussian posterior whose draws cost |z|_1 besides."""

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        code = super().forward(h, context, samples, draw)
        return code._replace(penalty=code.z.abs().sum(-1))


@pytest.mark.parametrize(("gradient", "settings"), [c for c in CASES if c[0] and "beta" not in c[1]], ids=label)
def test_penalties_and_discrepancies_keep_their_own_gradient(gradient: nn.Module, settings: dict[str, Any]) -> None:
    """What they add to the gradient on the same draws is what they add to the reparameterised one."""
    x, added = torch.randint(2, (7, D)).double(), []
    for by in (None, copy.deepcopy(gradient).double()):
        plain, dear = small(2), small(2)
        dear.posterior = Penalised(StandardNormal(2))
        _, _, slopes = run(plain, Objective(gradient=by, **settings), x)
        _, _, others = run(dear, Objective(gradient=by, discrepancy=MMD(10.0), **settings), x)
        added.append([b - a for a, b in zip(slopes, others, strict=True)])
    assert added[0][0].abs().max() > 1e-3
    for found, known in zip(*added, strict=True):
        close(found, known, **SAME)


# ---- at the exact posterior -------------------------------------------------------------------------------------


class Exact(nn.Module):
    """q(z|x) = N(h, s^2): the exact posterior of x = w z + sigma noise where h and s are right."""

    latent = features = 1
    density = True

    def __init__(self, s: float) -> None:
        super().__init__()
        self.prior, self.log_s = StandardNormal(1), nn.Parameter(torch.tensor(math.log(s)))

    def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
        q = torch.distributions.Independent(Normal(h, self.log_s.exp().expand_as(h)), 1)
        z = (q.mean + self.log_s.exp() * draws.normal(samples, h)).flatten(0, 1)
        nothing = z.new_zeros(len(z))
        return Code(z, nothing[:, None], None, None, nothing, q=q, p=self.prior(context))


def linear_gaussian() -> tuple[Autoencoder, list[nn.Parameter]]:
    """x = w z + 0.6 noise with its exact posterior, and the encoder's parameters, the posterior's own among them."""
    w, s2 = torch.randn(D, 1), 0.6**2
    precision = float(w.square().sum()) / s2 + 1
    p, posterior = Gaussian((D,), sigma=0.6), Exact(precision**-0.5)
    encoder, decoder = Mlp((D,), (1,), hidden=()), Mlp((1,), p.wants, hidden=())
    encoder.layers[0].weight.data, decoder.layers[0].weight.data = w.T / s2 / precision, w
    for network in (encoder, decoder):
        network.layers[0].bias.data.zero_()
    return Autoencoder(encoder, posterior, decoder, p), [*encoder.parameters(), *posterior.parameters()]


@pytest.mark.parametrize(
    ("gradient", "settings"),
    [
        (StickingTheLanding(), {}),
        (StickingTheLanding(), {"samples": 5}),
        (StickingTheLanding(), {"samples": 5, "bound": iwae}),
        (DoublyReparameterised(), {"samples": 5, "bound": iwae}),
        (ScoreFunction("leave-one-out"), {"samples": 5}),
    ],
    ids=label,
)
def test_at_the_exact_posterior_the_encoder_rests_in_every_draw(gradient: nn.Module, settings: dict[str, Any]) -> None:
    """log w does not depend on z there (Roeder et al. 2017, section 3); the reparameterised gradient is noise.

    Leave-one-out rests but for the scores of its own rate, which it keeps: its advantage is zero, so that what is left
    is the reparameterised noise of log q at rest.
    """
    model, encoder = linear_gaussian()
    x = torch.randn(4, D)
    for seed in range(3):
        torch.manual_seed(seed)
        loss = Objective(gradient=gradient, rate="sampled", **settings)(model, Batch.of(x)).loss
        slopes = torch.autograd.grad(loss, encoder)
        torch.manual_seed(seed)
        plain = torch.autograd.grad(Objective(rate="sampled", **settings)(model, Batch.of(x)).loss, encoder)
        assert max(float(slope.abs().max()) for slope in plain) > 1e-2
        known = plain if isinstance(gradient, ScoreFunction) else [torch.zeros_like(p) for p in encoder]
        for slope, other in zip(slopes, known, strict=True):
            close(slope, other, **SAME)


# ---- variances --------------------------------------------------------------------------------------------------


def square(m: float, s: float) -> Autoencoder:
    """-log p(x|z) = pi (x - z)^2 exactly, z ~ N(m, s^2)."""
    p, q = Gaussian((1,), sigma=1 / math.sqrt(2 * math.pi)), GaussianPosterior(StandardNormal(1))
    encoder, decoder = Mlp((1,), (2,), hidden=()), Mlp((1,), p.wants, hidden=())
    encoder.layers[0].weight.data.zero_()
    encoder.layers[0].bias.data = torch.tensor([m, math.log(math.expm1(s - 1e-6))])
    decoder.layers[0].weight.data, decoder.layers[0].bias.data = torch.ones(1, 1), torch.zeros(1)
    return Autoencoder(encoder, q, decoder, p)


@pytest.mark.parametrize(("m", "s", "k"), [(1.3, 0.7, 0.4), (0.2, 1.0, 0.2), (-1.0, 0.5, 1.0)])
def test_variances_of_a_square_are_the_textbooks(m: float, s: float, k: float) -> None:
    """f = pi (z - k)^2, d = m - k: pi^2 4 s^2 and pi^2 (d^4/s^2 + 14 d^2 + 15 s^2), within 5 %; both means 2 pi d.

    400,000 gradients; the variance of the score function's is known to about 1 %, so 5 % are 5 standard errors.
    """
    model, x, d = square(m, s), torch.tensor([[k]]), m - k
    for gradient, known in ((None, 4 * s**2), (ScoreFunction(), d**4 / s**2 + 14 * d**2 + 15 * s**2)):
        found = gradient_variance(model, x, gradient, repeats=400_000, beta=0.0)
        assert abs(found.mean[0, 0] - 2 * math.pi * d) < 5 * found.standard_error[0, 0]
        assert float(found.variance[0, 0]) == pytest.approx(math.pi**2 * known, rel=0.05)


def test_leave_one_out_takes_the_constant_out_of_the_score_functions_variance() -> None:
    """Two draws: f's mean no longer matters. Half the variance of the plain estimator of two draws, f about 14 nats."""
    model, x = square(-1.0, 0.5), torch.tensor([[1.0]])
    plain, other = (
        gradient_variance(model, x, ScoreFunction(b), repeats=20_000, beta=0.0, samples=2)
        for b in (None, "leave-one-out")
    )
    assert other.variance[0, 0] < 0.7 * plain.variance[0, 0]


def test_a_learned_baseline_learns_the_mean_and_lowers_the_variance() -> None:
    """Taught through the loss alone, it ends near E f = pi (d^2 + s^2) and is saved with the objective."""
    model, x = square(-1.0, 0.5), torch.tensor([[1.0]])
    objective = Objective(0.0, gradient=ScoreFunction("learned", (1,), hidden=(8,)))
    optimiser = Adam(objective.parameters(), lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        objective(model, Batch.of(x.expand(64, 1))).loss.backward()
        optimiser.step()
    guess = float(objective.gradient.guess(x).detach())
    assert guess == pytest.approx(math.pi * (4 + 0.25), rel=0.15)
    assert any("guess" in name for name in objective.state_dict())
    plain, learned = (gradient_variance(model, x, g, 20_000, beta=0.0) for g in (ScoreFunction(), objective.gradient))
    assert learned.variance[0, 0] < 0.7 * plain.variance[0, 0]


def test_more_draws_drown_the_plain_gradient_and_not_the_doubly_reparameterised() -> None:
    """Signal over noise from K = 4 to 64 goes with K^-1/2 (Rainforth et al. 2018, theorem 1) and K^1/2: 1/4 and 4.

    Asked for are factors of 1/2 and 2; each ratio is known to a tenth, so a seed in 10,000 fails at most.
    """
    model = small()

    def signal(gradient: nn.Module | None, k: int) -> float:
        found = gradient_variance(model, ROWS[:1], gradient, repeats=20_000, samples=k, **WEIGHTED)
        return float((found.mean.square().sum() / found.variance.sum()).sqrt())

    assert signal(None, 64) < 0.5 * signal(None, 4)
    assert signal(DoublyReparameterised(), 64) > 2 * signal(DoublyReparameterised(), 4)


def test_vimco_has_less_variance_than_reinforce_would() -> None:
    """Against L_K times the sum of the scores, computed here, for K = 4 draws: at most half."""
    model, n, k = small(), 20_000, 4
    found = gradient_variance(model, ROWS[:1], Vimco(), repeats=n, samples=k, **WEIGHTED)
    h = model.encoder(ROWS[:1]).detach()
    mean, sigma = h[0, 0], h[0, 1].exp().log1p() + 1e-6
    z = mean + sigma * torch.randn(k, n)
    logits = model.decoder(z.reshape(-1, 1)).detach().view(k, n, D)
    log_w = (ROWS[0] * logits - logits.exp().log1p()).sum(-1) - z**2 / 2 + ((z - mean) / sigma) ** 2 / 2 + sigma.log()
    plain = (log_w.logsumexp(0) - math.log(k)) * ((z - mean) / sigma**2).sum(0)
    assert found.variance[0, 0] < 0.5 * plain.var()


# ---- gradient_variance itself -----------------------------------------------------------------------------------


def test_gradients_by_outputs_and_by_parameters_agree() -> None:
    """The chain rule: the mean by the last bias is the rows' mean by the outputs; torch's generator is as found."""
    model = small()
    state = torch.get_rng_state()
    outputs = gradient_variance(model, ROWS, repeats=4000)
    parameters = gradient_variance(model, ROWS, repeats=400, of="parameters")
    assert torch.equal(torch.get_rng_state(), state)
    bias = parameters.mean[-2:]
    error = (parameters.variance[-2:] / 400 + outputs.variance.mean(0) / 4000).sqrt()
    assert ((bias - outputs.mean.mean(0)).abs() < 5 * error).all()  # failure 1e-6
    assert parameters.mean.shape == (2 * D + 2,)
    again = gradient_variance(model, ROWS, repeats=4000)
    assert torch.equal(again.mean, outputs.mean)
    assert torch.equal(again.variance, outputs.variance)
    assert all(p.grad is None for p in model.parameters())
    assert "4000 repeats" in str(outputs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"repeats": 1}, "repeats is at least 2"),
        ({"of": "weights"}, "got repeats=1000, of='weights'"),
        ({"free_bits": 0.5}, "free_bits joins the rows of a batch"),
        ({"gradient": Vimco()}, 'needs rate="sampled"'),
    ],
    ids=str,
)
def test_gradient_variance_refuses_what_means_nothing(arguments: dict[str, Any], message: str) -> None:
    """With what to do."""
    with pytest.raises(ValueError, match=message):
        gradient_variance(small(), ROWS, **arguments)


# ---- what is refused --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gradient", "settings", "message"),
    [
        (StickingTheLanding(), {}, "StickingTheLanding .* needs rate=\"sampled\"; got 'closed'"),
        (DoublyReparameterised(), SAMPLED, "DoublyReparameterised is an estimator for bound=iwae; got elbo"),
        (Vimco(), {**SAMPLED, "bound": partial(renyi, alpha=0.5)}, "Vimco is an estimator for bound=iwae; got renyi"),
        (Vimco(), WEIGHTED, "Vimco takes at least samples=2 draws a row; got 1"),
        (ScoreFunction(), WEIGHTED, "ScoreFunction is an estimator for bound=elbo; got iwae"),
        (ScoreFunction("leave-one-out"), {}, "takes at least samples=2 draws a row; got 1"),
        (Piwae(4), {**WEIGHTED, "samples": 6}, "as many groups as divide its draws; got groups=4 for 6"),
        (ScoreFunction(), {**SAMPLED, "capacity": 1.0}, "ScoreFunction differentiates the bound as a whole, and a cap"),
    ],
    ids=label,
)
def test_estimators_say_what_they_admit(gradient: nn.Module, settings: dict[str, Any], message: str) -> None:
    """When the objective is built."""
    with pytest.raises(ValueError, match=message):
        Objective(gradient=gradient, **settings)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mean",), 'baseline is None, "leave-one-out" or "learned"; got \'mean\''),
        (("learned",), 'baseline="learned" goes with the shape of a row'),
        ((None, (3,)), 'baseline="learned" goes with the shape of a row'),
    ],
    ids=str,
)
def test_baselines_are_checked(arguments: tuple, message: str) -> None:
    """When they are built."""
    with pytest.raises(ValueError, match=message):
        ScoreFunction(*arguments)


def test_codes_without_a_density_are_refused() -> None:
    """A deterministic code before training; a posterior that can score only its own draws when it is met."""
    model = small()
    scored = {"rate": "sampled", "gradient": StickingTheLanding()}

    class Flow(GaussianPosterior):
        def forward(self, h: Tensor, context: Tensor | None = None, samples: int = 1, draw: bool = True) -> Code:
            code = super().forward(h, context, samples, draw)
            log_q, log_p = code.densities()
            return code._replace(q=None, log_q=log_q, log_p=log_p)

    model.posterior = Flow(StandardNormal(1))
    assert Objective(rate="sampled")(model, Batch.of(ROWS)).loss.isfinite()
    for settings in (scored, {"gradient": ScoreFunction()}):
        with pytest.raises(
            TypeError, match=r"asks q\(z\|x\) and p\(z\) .* score only its own draws. Use gradient=None"
        ):
            Objective(**settings)(model, Batch.of(ROWS))
    model.posterior = Deterministic(1)
    with pytest.raises(TypeError, match="no density, so no rate to weigh or sample"):
        Objective(0.0, gradient=ScoreFunction()).check(model)


def test_estimators_survive_a_file_with_their_weights() -> None:
    """Described, built again, and the learned baseline's state loaded; the first guess is the same everywhere."""
    for gradient, settings in CASES:
        objective = Objective(gradient=gradient, **settings)
        described = arguments_of(objective)
        assert described is not None
        again = Objective(**{name: restore(name, value) for name, value in described.items()})
        again.load_state_dict(objective.state_dict())
    torch.randn(3)
    first, second = (ScoreFunction("learned", (D,)).guess(ROWS) for _ in range(2))
    assert torch.equal(first, second)
