"""The aggregated posterior: kernels, sorted slices and critics against closed forms, quadrature and slow loops.

Float64 throughout. Expectations under q and p are sums over a grid on the line (trapezoid rule, whose error for these
densities is below 1e-12), so what a critic can know of a divergence is exact. Statistical tests draw from seed 0
(conftest.py) and state the probability that another seed would fail them.
"""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

import narrows as nr
from narrows.contract import Batch, Code
from narrows.divergences import (
    KL,
    MMD,
    Adversarial,
    Gap,
    JensenShannon,
    PearsonChiSquared,
    ReverseKL,
    SlicedWasserstein,
    SquaredHellinger,
    Wasserstein,
    mmd,
    sliced_wasserstein,
)
from narrows.networks import Mlp
from narrows.priors import StandardNormal

close = torch.testing.assert_close
SAME = {"rtol": 0.0, "atol": 1e-10}
GRID = torch.linspace(-15, 15, 30_001, dtype=torch.float64)[:, None]
PAIRS = [
    (Normal(torch.tensor(0.0).double(), 1.0), Normal(torch.tensor(1.0).double(), 1.0)),
    (Normal(torch.tensor(0.5).double(), 0.8), Normal(torch.tensor(-0.2).double(), 1.1)),
    (Normal(torch.tensor(-1.0).double(), 1.2), Normal(torch.tensor(0.0).double(), 1.0)),
]
GAMES = [JensenShannon(), KL(), ReverseKL(), PearsonChiSquared(), SquaredHellinger()]
every_game = pytest.mark.parametrize("game", GAMES, ids=lambda game: type(game).__name__)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Parts are built in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def compare(discrepancy: nn.Module, z: Tensor, real: Tensor, context: Tensor | None = None) -> Gap:
    """What a discrepancy finds between bare codes and draws."""
    nothing = z.new_zeros(len(z))
    return discrepancy(Code(z, nothing[:, None], None, None, nothing), real, Batch(z, z, context))


# ---- games: what the best critic says, and that no other says more ------------------------------------------------


class Known(nn.Module):
    """A critic V(z) that is a formula."""

    def __init__(self, v: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.v = v

    def forward(self, z: Tensor) -> Tensor:
        return self.v(z)


@dataclass(frozen=True)
class Weighed:
    """A game whose means over the grid are expectations under q and p."""

    game: Any
    q: Tensor
    p: Tensor
    slope = 0.0
    penalty = 0.0

    def fake(self, v: Tensor) -> Tensor:
        return len(v) * self.q * self.game.fake(v)

    def real(self, v: Tensor) -> Tensor:
        return len(v) * self.p * self.game.real(v)

    def model(self, v: Tensor) -> Tensor:
        return len(v) * self.q * self.game.model(v)

    def reported(self, gap: Tensor, model: Tensor) -> Tensor:
        return self.game.reported(gap, model)


def said(game: Any, q: Normal, p: Normal, v: Callable[[Tensor], Tensor]) -> Tensor:
    """The value of a game under a critic, both expectations by quadrature."""
    step = GRID[1] - GRID[0]
    judge = Adversarial(1, Weighed(game, q.log_prob(GRID).exp() * step, p.log_prob(GRID).exp() * step))
    judge.critic = Known(v)
    gap = compare(judge, GRID, GRID)
    close(gap.critic, -gap.value)  # the critic climbs
    return gap.value


def best(game: Any, q: Normal, p: Normal) -> Callable[[Tensor], Tensor]:
    """The optimal V of f-GAN (table 2, f'(u) brought through g) and of Goodfellow et al., proposition 1."""

    def log_u(z: Tensor) -> Tensor:
        return q.log_prob(z) - p.log_prob(z)

    known = {
        JensenShannon: log_u,
        KL: lambda z: 1 + log_u(z),
        ReverseKL: log_u,
        PearsonChiSquared: lambda z: 2 * log_u(z).expm1(),
        SquaredHellinger: lambda z: log_u(z) / 2,
    }
    return known[type(game)]


def divergence(game: Any, q: Normal, p: Normal) -> Tensor:
    """Closed forms between normals; Jensen-Shannon by adaptive quadrature of its definition."""
    m, n, s, t = (float(v) for v in (q.mean, p.mean, q.stddev, p.stddev))
    if type(game) is KL:
        return kl_divergence(q, p)
    if type(game) is ReverseKL:
        return kl_divergence(p, q)
    if type(game) is SquaredHellinger:
        overlap = math.sqrt(2 * s * t / (s**2 + t**2)) * math.exp(-((m - n) ** 2) / (4 * (s**2 + t**2)))
        return torch.tensor(2 - 2 * overlap)
    if type(game) is PearsonChiSquared:  # the integral of q^2 / p is one of a normal, where s^2 < 2 t^2
        wide = 2 * t**2 - s**2
        return torch.tensor(t**2 / (s * math.sqrt(wide)) * math.exp((m - n) ** 2 / wide) - 1)

    def density(z: float, mean: float, sigma: float) -> float:
        return math.exp(-(((z - mean) / sigma) ** 2) / 2) / sigma / math.sqrt(2 * math.pi)

    def point(z: float) -> float:
        a, b = density(z, m, s), density(z, n, t)
        return 0.5 * (a * math.log(2 * a / (a + b)) + b * math.log(2 * b / (a + b)))

    return torch.tensor(quad(point, -12, 12, epsabs=1e-12)[0])


@every_game
@pytest.mark.parametrize("pair", range(3))
def test_the_best_critic_says_the_divergence(game: Any, pair: int) -> None:
    """sup_V E_q[fake(V)] - E_p[real(V)] = D(q, p), against closed forms; and 0 where q = p."""
    q, p = PAIRS[pair]
    close(said(game, q, p, best(game, q, p)), divergence(game, q, p), rtol=0, atol=1e-8)
    close(said(game, q, q, best(game, q, q)), torch.tensor(0.0), rtol=0, atol=1e-8)


@every_game
@pytest.mark.parametrize("pair", range(3))
def test_any_other_critic_says_less(game: Any, pair: int) -> None:
    """A variational lower bound, flat to first order at its top."""
    q, p = PAIRS[pair]
    v, exact = best(game, q, p), divergence(game, q, p)
    for turn in (torch.sin, torch.cos, torch.tanh, torch.ones_like):
        for much in (-0.3, -0.1, 0.1, 0.3):
            assert said(game, q, p, lambda z, much=much, turn=turn: v(z) + much * turn(z)) < exact - 1e-5
        little = torch.zeros((), requires_grad=True)
        judge = said(game, q, p, lambda z, turn=turn, little=little: v(z) + little * turn(z))
        assert not judge.requires_grad  # what is reported is no loss
    assert said(game, q, p, lambda z: 0.8 * v(z)) < exact - 1e-5


@every_game
def test_the_critics_gradient_vanishes_at_its_best(game: Any) -> None:
    """d/de of the critic's loss at V* + e h(z) is 0: the loss has its optimum where the paper says."""
    q, p = PAIRS[1]
    step = GRID[1] - GRID[0]
    v, little = best(game, q, p), torch.zeros((), requires_grad=True)
    for turn in (torch.sin, torch.cos, torch.tanh):
        judge = Adversarial(1, Weighed(game, q.log_prob(GRID).exp() * step, p.log_prob(GRID).exp() * step))
        judge.critic = Known(lambda z, turn=turn: v(z) + little * turn(z))
        (slope,) = torch.autograd.grad(compare(judge, GRID, GRID).critic, little)
        close(slope, torch.tensor(0.0), rtol=0, atol=1e-8)


@every_game
def test_the_encoders_gradient_is_that_of_the_divergence(game: Any) -> None:
    """At the best critic, moving q's mean changes the game by dD/dm (the critic's own change is of second order).

    Where the encoder minimises the divergence itself, which the non-saturating game of Jensen-Shannon does not.
    """
    game = JensenShannon(saturating=True) if type(game) is JensenShannon else game
    _, p = PAIRS[1]
    m, s = 0.5, 0.8
    q = Normal(torch.tensor(m), s)
    z = GRID + 0.0
    shift = torch.zeros((), requires_grad=True)
    step = GRID[1] - GRID[0]
    judge = Adversarial(1, Weighed(game, q.log_prob(z).exp() * step, p.log_prob(z).exp() * step))
    judge.critic = Known(best(game, q, p))
    (slope,) = torch.autograd.grad(compare(judge, z + shift, z).model, shift)
    up, down = (divergence(game, Normal(torch.tensor(m + e), s), p) for e in (1e-4, -1e-4))
    close(slope, (up - down) / 2e-4, rtol=0, atol=1e-6)


def test_saturating_and_not_have_the_gradients_of_the_paper() -> None:
    """With D = sigma(-V) the probability of a draw: d/dV of 1/2 log(1 - D) is D / 2, of -1/2 log D is (1 - D) / 2.

    So the first fades where the critic is sure that a code is none of the prior's (Goodfellow et al. 2014, section 3).
    """
    v = torch.linspace(-30, 30, 61, requires_grad=True)
    for saturating, expected in ((True, (-v).sigmoid() / 2), (False, v.sigmoid() / 2)):
        (slope,) = torch.autograd.grad(JensenShannon(saturating).model(v).sum(), v)
        close(slope, expected.detach(), **SAME)
    sure = torch.tensor(20.0)
    assert (-sure).sigmoid() < 1e-8 < 0.999 < sure.sigmoid()


# ---- Wasserstein and the slope of a critic ------------------------------------------------------------------------


def linear(slope: Tensor, bias: float = 0.3) -> Mlp:
    """V(z) = slope . z + bias as a critic."""
    critic = Mlp((len(slope),), (1,), hidden=())
    critic.layers[0].weight.data, critic.layers[0].bias.data = slope[None], torch.tensor([bias])
    return critic


def test_wasserstein_gives_the_length_of_a_shift() -> None:
    """The critic along the shift has slope 1 everywhere: value |m|, penalty 0; against it, -|m|."""
    real, m = torch.randn(50, 4), torch.tensor([1.0, -2.0, 0.5, 3.0])
    judge = Adversarial(4, Wasserstein())
    judge.critic = linear(m / m.norm())
    gap = compare(judge, real + m, real)
    close(gap.value, m.norm(), **SAME)
    close(gap.critic, -m.norm(), **SAME)
    judge.critic = linear(-m / m.norm())
    close(compare(judge, real + m, real).value, -m.norm(), **SAME)


@pytest.mark.parametrize("game", [*GAMES, Wasserstein(3.0)], ids=lambda game: type(game).__name__)
def test_the_critic_pays_for_its_slope(game: Any) -> None:
    """penalty * (|a| - slope)^2 for V = a z + b, beside the value: 1 is right for Wasserstein, 0 for all others."""
    z, real, a = torch.randn(20, 3), torch.randn(20, 3), torch.tensor([0.1, -0.2, 0.3])
    judge = Adversarial(3, game)
    judge.critic = linear(a)
    gap = compare(judge, z, real)
    target = 1.0 if type(game) is Wasserstein else 0.0
    close(gap.critic + gap.value, game.penalty * (a.norm() - target) ** 2, **SAME)
    assert game.penalty > 0


def test_the_slope_is_taken_between_codes_and_draws() -> None:
    """V = z^2 / 2 has slope |z|; between codes at 2 and draws at 0 its mean square is 4/3 in expectation.

    20,000 points, standard deviation of u^2 sqrt(4/45), within 6 standard errors (failure 2e-9).
    """
    judge = Adversarial(1, JensenShannon(penalty=1.0))
    judge.critic = Known(lambda z: z.square() / 2)
    found = judge._slope(torch.full((20_000, 1), 2.0), torch.zeros(20_000, 1), ()).detach()
    assert abs(found.item() - 4 / 3) < 6 * 4 * math.sqrt(4 / 45 / 20_000)


# ---- two players, one graph ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("game", [*GAMES, Wasserstein()], ids=lambda game: type(game).__name__)
@pytest.mark.parametrize("context", [0, 2])
def test_neither_players_gradient_reaches_the_other(game: Any, context: int) -> None:
    """The loss's gradients are those of two separate backward passes: the encoder's loss with the critic frozen, the
    critic's on codes that were computed without a graph.
    """
    model, objective = nr.recipes.aae(
        (5,), latent=2, network=partial(Mlp, hidden=(8,)), context=context, game=game, weight=0.7
    )
    judge, x = objective.discrepancy, torch.randn(6, 5)
    told = torch.randn(6, context) if context else None
    torch.manual_seed(3)
    terms = objective(model, Batch(x, x, told))
    torch.manual_seed(3)
    real = torch.randn(6, 2)
    assert not torch.equal(real, torch.randn(6, 2))
    parameters, critics = list(model.parameters()), list(judge.critic.parameters())
    both = torch.autograd.grad(terms.loss, [*parameters, *critics])

    extra = () if told is None else (told,)
    for p in critics:
        p.requires_grad_(False)
    code = model.encode(x, told)
    error = (x - model.decode(code.z, told).mean).square().sum(1) / 2 + 5 / 2 * math.log(2 * math.pi)
    own = error.mean() + 0.7 * game.model(judge.critic(code.z, *extra)).mean()
    for found, expected in zip(both, torch.autograd.grad(own, parameters), strict=False):
        close(found, expected, **SAME)

    for p in critics:
        p.requires_grad_(True)
    with torch.no_grad():
        z = model.encode(x, told).z
    torch.manual_seed(3)
    real = torch.randn(6, 2)
    u = torch.rand(6, 1)
    between = (u * z + (1 - u) * real).requires_grad_()
    (slope,) = torch.autograd.grad(judge.critic(between, *extra).sum(), between, create_graph=True)
    paid = game.penalty * ((slope.square().sum(1) + 0).sqrt() - game.slope).square().mean()
    loss = paid - game.fake(judge.critic(z, *extra)).mean() + game.real(judge.critic(real, *extra)).mean()
    for found, expected in zip(both[len(parameters) :], torch.autograd.grad(loss, critics), strict=True):
        close(found, expected, **SAME)


def test_the_critic_is_told_the_context_of_every_draw() -> None:
    """Codes (S, D) come sample by sample, and so does their context; another context, another value."""
    judge = Adversarial(2, context=3)
    z, real, context = torch.randn(8, 2), torch.randn(8, 2), torch.randn(4, 3)
    seen = []
    judge.critic.register_forward_pre_hook(lambda _, given: seen.extend(given[1:]))
    torch.manual_seed(1)
    gap = compare(judge, z, real, context)
    assert len(seen) == 4
    assert all(torch.equal(told, torch.cat([context, context])) for told in seen)
    torch.manual_seed(1)
    assert compare(judge, z, real, context + 1).value != gap.value
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        compare(judge, z, real)


def test_in_use_the_value_is_a_kernel_distance() -> None:
    """Whatever the critic has become: a held-out figure that can be compared from check to check."""
    z, real = torch.randn(9, 2) + 1, torch.randn(9, 2)
    judge = Adversarial(2).eval()
    gap = compare(judge, z, real)
    close(gap.value, mmd(z, real), **SAME)
    assert gap.critic == 0
    nn.init.normal_(judge.critic.layers[0].weight)
    assert torch.equal(compare(judge, z, real).value, gap.value)


# ---- kernels ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
def test_mmd_is_the_slow_double_loop(kernel: str) -> None:
    """Gretton et al. 2012, equation 3, pair by pair, samples of different sizes."""
    z, y = torch.randn(5, 3), torch.randn(7, 3) + 0.5

    def k(a: Tensor, b: Tensor) -> float:
        square = float(((a - b) ** 2).sum())
        return 6 / (6 + square) if kernel == "imq" else math.exp(-square / 6)

    within = [
        sum(k(s[i], s[j]) for i in range(len(s)) for j in range(len(s)) if i != j) / len(s) / (len(s) - 1)
        for s in (z, y)
    ]
    across = sum(k(a, b) for a in z for b in y) / 35
    close(mmd(z, y, kernel), torch.tensor(sum(within) - 2 * across), **SAME)
    close(compare(MMD(2.0, kernel), z, y).model, mmd(z, y, kernel), **SAME)


@pytest.mark.parametrize("kernel", ["imq", "rbf"])
@pytest.mark.parametrize(("shift", "sigma"), [(0.0, 1.0), (0.7, 1.0), (0.3, 0.5)])
def test_mmd_is_unbiased(kernel: str, shift: float, sigma: float) -> None:
    """Its mean over 4,000 pairs of samples of 8 is the value in closed form, 0 where the distributions agree.

    x - y is normal with variance v a unit, so E exp(-u |x - y|^2 / C) = (1 + 2 u v / C)^(-D/2) exp(-u |m|^2 / (C + 2 u
    v)); and C / (C + r) is the mean of exp(-u r / C) over u ~ Exp(1). Within 5 standard errors (failure 6e-7 a case).
    """
    wide = 3

    def rbf(u: float, v: float, square: float, c: float) -> float:
        return (1 + 2 * u * v / c) ** (-wide / 2) * math.exp(-u * square / (c + 2 * u * v))

    def expected(v: float, square: float) -> float:
        c = 2 * wide
        if kernel == "rbf":
            return rbf(1.0, v, square, c)
        return quad(lambda u: math.exp(-u) * rbf(u, v, square, c), 0, math.inf)[0]

    exact = expected(2 * sigma**2, 0) + expected(2, 0) - 2 * expected(1 + sigma**2, wide * shift**2)
    z, y = sigma * torch.randn(4000, 8, wide) + shift, torch.randn(4000, 8, wide)
    found = torch.vmap(partial(mmd, kernel=kernel))(z, y)
    assert abs(float(found.mean()) - exact) < 5 * float(found.std()) / math.sqrt(len(found))
    if shift == 0 and sigma == 1:
        assert abs(exact) < 1e-12
        assert (found < 0).any()  # as an unbiased estimate of 0 has to be


# ---- slices -------------------------------------------------------------------------------------------------------


def test_a_shift_along_orthonormal_directions_is_exact() -> None:
    """W2^2 along each direction is <theta, m>^2, and over D orthonormal ones the mean is |m|^2 / D; the module's frames
    are orthonormal, so it says the same whatever it draws.
    """
    real, m = torch.randn(40, 4), torch.tensor([1.0, -2.0, 0.5, 3.0])
    exact = m.square().sum() / 4
    close(sliced_wasserstein(real[torch.randperm(40)] + m, real, torch.eye(4)), exact, **SAME)
    for directions in (4, 12):
        close(compare(SlicedWasserstein(directions=directions), real + m, real).value, exact, **SAME)
    assert compare(SlicedWasserstein(directions=3), real + m, real).value.isfinite()


def test_a_slice_is_the_cheapest_matching() -> None:
    """W2^2 of two samples on a line is the least mean squared distance over all matchings."""
    z, real = torch.randn(6, 2), torch.randn(6, 2)
    directions = torch.linalg.qr(torch.randn(2, 2)).Q
    least = []
    for theta in directions:
        a, b = z @ theta, real @ theta
        least.append(min((a[list(order)] - b).square().mean() for order in itertools.permutations(range(6))))
    close(sliced_wasserstein(z, real, directions), torch.stack(least).mean(), **SAME)


# ---- in training --------------------------------------------------------------------------------------------------


HELD = ["aae", "wae_mmd", "swae"]
every_held = pytest.mark.parametrize("recipe", HELD)


def small(recipe: str, **arguments: Any) -> Any:
    """A member small enough to train in a moment, in the precision of rows."""
    model, objective = getattr(nr.recipes, recipe)((6,), latent=2, network=partial(Mlp, hidden=(8,)), **arguments)
    return model.float(), objective.float()


@every_held
@pytest.mark.parametrize(
    ("rows", "batch", "message"),
    [
        (101, 100, "101 rows in batches of 100 leave a last batch of 1. Use --batch 99"),
        (9, 2, "9 rows in batches of 2 leave a last batch of 1. Use --batch 3"),
        (12, 1, "12 rows in batches of 1 leave a last batch of 1. Use --batch 2"),
        (1, 100, "takes at least 2 rows; there are 1. Use recipe autoencoder, or more rows"),
    ],
)
def test_a_batch_too_small_for_the_discrepancy_is_refused(recipe: str, rows: int, batch: int, message: str) -> None:
    """Before training, with a batch that fits."""
    with pytest.raises(ValueError, match=f"compares the codes of a batch with draws from the prior.*{message}"):
        nr.fit(*small(recipe), torch.rand(rows, 6).float(), training=nr.Training(batch=batch, epochs=1), quiet=True)


@every_held
def test_a_last_held_out_row_gives_numbers(recipe: str) -> None:
    """1,025 held-out rows are judged in batches of 1,024, and one row alone has nothing to be compared with."""
    x = torch.rand(1027, 6).float()
    for held in (x[:1], x[:2], x[:1025]):
        run = nr.fit(*small(recipe), x, held, training=nr.Training(epochs=1), quiet=True)
        assert all(math.isfinite(value) for value in run.metrics[-1]["valid"].values())
        assert (run.metrics[-1]["valid"]["discrepancy"] == 0) == (len(held) == 1)


class Unsampled(StandardNormal):
    """A prior that only scores."""

    def forward(self, context: Tensor | None = None) -> Any:
        return type("Scores", (torch.distributions.Distribution,), {})(validate_args=False)


@every_held
def test_a_prior_that_cannot_be_sampled_is_refused(recipe: str) -> None:
    """Before training, with what to do."""
    model, objective = small(recipe, prior=Unsampled)
    with pytest.raises(TypeError, match=r"Unsampled cannot be sampled. .* right: .* such as StandardNormal\(latent\)"):
        nr.fit(model, objective, torch.rand(20, 6).float(), training=nr.Training(epochs=1), quiet=True)
    with pytest.raises(TypeError, match="this model has none. Use recipe aae, wae_mmd or swae"):
        small(recipe, prior=None)


def judged(recipe: str, **arguments: Any) -> tuple[float, float, int]:
    """Error of a held-out digit, MMD of the codes of all digits to N(0, I), active units, after 240 steps."""
    data = nr.data.load("digits")
    model, objective = getattr(nr.recipes, recipe)(data.shape, latent=8, **arguments)
    torch.set_default_dtype(torch.float32)
    nr.fit(model.float(), objective.float(), data, training=nr.Training(epochs=20), quiet=True)
    error = nr.evaluate.round_trip(model, data.test).x.mean()
    z = nr.evaluate.codes(model, data.train)
    return float(error), float(mmd(z, torch.randn(len(z), 8))), int((z.var(0) > 0.01).sum())


@pytest.fixture(scope="module")
def plain() -> tuple[float, float, int]:
    """What an autoencoder without a discrepancy does on the same rows."""
    return judged("autoencoder")


@pytest.mark.parametrize(
    ("recipe", "arguments"),
    [("wae_mmd", {}), ("swae", {}), *(("aae", {"game": game}) for game in (*GAMES, Wasserstein()))],
    ids=lambda v: v if isinstance(v, str) else "".join(type(g).__name__ for g in v.values()),
)
def test_defaults_work(recipe: str, arguments: dict[str, Any], plain: tuple[float, float, int]) -> None:
    """No unit collapses, the error stays within 15 % of the plain autoencoder's, codes come closer to the prior.

    On digits, where a weight of 10 had left no unit alive; weights, order and noise from seed 0.
    """
    error, gap, active = judged(recipe, **arguments)
    assert active == 8
    assert error < 1.15 * plain[0]
    assert gap < 0.5 * plain[1]


@pytest.mark.parametrize("recipe", HELD)
def test_weights_grow_with_the_values_of_a_row(recipe: str) -> None:
    """As distortions do, where none is given; a game's curvature divides it."""
    one, many = (getattr(nr.recipes, recipe)(shape)[1].discrepancy.weight for shape in ((3,), (2, 5, 6)))
    assert many == pytest.approx(20 * one)
    assert getattr(nr.recipes, recipe)((3,), weight=0.7)[1].discrepancy.weight == 0.7
    if recipe == "aae":
        weights = [nr.recipes.aae((3,), game=game)[1].discrepancy.weight * game.curvature for game in GAMES]
        assert weights == pytest.approx([weights[0]] * len(GAMES))


@every_game
def test_curvatures_are_those_of_the_divergences(game: Any) -> None:
    """Between N(e, 1) and N(0, 1) the divergence is f''(1) / 2 e^2 to second order, and the critic's loss is alike for
    all: E |V*'|^2 penalty / f''(1) = 2 e^2.
    """
    e = 1e-2
    q, p = (Normal(torch.tensor(m), 1.0) for m in (e, 0.0))
    close(divergence(game, q, p), torch.tensor(game.curvature / 2 * e**2), rtol=1e-3, atol=0)
    z = GRID[14_000:16_001].clone().requires_grad_()
    (slope,) = torch.autograd.grad(best(game, q, p)(z).sum(), z)
    middle = slope[len(slope) // 2].square().sum()
    close(middle * game.penalty / game.curvature, torch.tensor(2 * e**2), rtol=2e-2, atol=0)


def test_what_means_nothing_is_refused() -> None:
    """Weights, kernels, directions, units."""
    for part in (MMD, SlicedWasserstein, partial(Adversarial, 2)):
        for weight in (-1.0, math.inf, math.nan):
            with pytest.raises(ValueError, match=f"weight is a number of at least 0; got weight={weight}"):
                part(weight=weight)
    with pytest.raises(ValueError, match='kernel is "imq" or "rbf"; got \'rfb\''):
        MMD(kernel="rfb")
    with pytest.raises(ValueError, match="at least one direction; got directions=0"):
        SlicedWasserstein(directions=0)
    with pytest.raises(ValueError, match="at least one unit; got latent=0"):
        Adversarial(0)
    with pytest.raises(ValueError, match='encoder is "deterministic" or "gaussian"; got \'gausian\''):
        nr.recipes.aae((4,), encoder="gausian")
