"""Each likelihood is a probability: it sums to one, has the moments it claims and draws what it prices.

One list, `LIKELIHOODS`, drives every generic test. Statistical tests start from seed 0 (conftest.py). Frequencies are
held to Bernstein's inequality, which needs no normal approximation: |frequency - p| < sqrt(2 p (1-p) t / n) + t / 3n
fails with probability below 2 exp(-t), at t = 25 below 1e-8 for all cells and levels together.
"""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from scipy.stats import bernoulli, laplace, logistic, multinomial, nbinom, norm, poisson
from torch import Tensor

from narrows.likelihoods import (
    Bernoulli,
    Categorical,
    DiscretisedLogistic,
    Gaussian,
    Laplace,
    Likelihood,
    LogisticMixture,
    NegativeBinomial,
    Poisson,
    cells,
    log_prob,
)

close = torch.testing.assert_close
SHAPE = (2, 3)

DISCRETE = {
    "bernoulli": Bernoulli,
    "categorical 2": partial(Categorical, levels=2),
    "categorical 5": partial(Categorical, levels=5),
    "logistic 2": partial(DiscretisedLogistic, levels=2),
    "logistic 7": partial(DiscretisedLogistic, levels=7),
    "logistic 256": partial(DiscretisedLogistic, levels=256),
    "mixture 2": partial(LogisticMixture, levels=2, components=3),
    "mixture 7": partial(LogisticMixture, levels=7, components=1),
    "mixture 256": partial(LogisticMixture, levels=256),
    "poisson": Poisson,
    "negative binomial": partial(NegativeBinomial, dispersion=1.5),
}
LIKELIHOODS = {
    **DISCRETE,
    "relaxed": partial(Bernoulli, relaxed=True),
    "gaussian": partial(Gaussian, sigma=0.3),
    "gaussian shared": partial(Gaussian, sigma=0.3, learn="shared"),
    "gaussian each": partial(Gaussian, sigma=0.3, learn="each"),
    "laplace": partial(Laplace, scale=0.3),
    "laplace each": partial(Laplace, scale=0.3, learn="each"),
}
discrete = pytest.mark.parametrize("make", DISCRETE.values(), ids=DISCRETE.keys())
every = pytest.mark.parametrize("make", LIKELIHOODS.values(), ids=LIKELIHOODS.keys())
types = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def grid(p: Likelihood) -> Tensor:
    """The values of a discrete likelihood; of counts, all that `parameters` leave a probability above 1e-15."""
    if p.counts:
        return torch.arange(300, dtype=torch.float64)
    levels = getattr(p, "levels", 2)
    return torch.arange(levels, dtype=torch.float64) / (levels - 1)


def parameters(p: Likelihood, rows: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    """What a decoder might say."""
    return (0.5 if p.counts else 2) * torch.randn(rows, *p.wants, dtype=dtype)


def probabilities(p: Likelihood, said: Tensor) -> Tensor:
    """(levels, rows, *event), by enumeration."""
    px = p(said)
    return torch.stack([cells(px, k.expand(len(said), *p.shape)).exp() for k in grid(p)])


# ---- what is usual ----------------------------------------------------------------------------------------------


@every
def test_the_usual_is_the_best_that_can_be_said_without_a_code(make: partial) -> None:
    """At it no number that it chooses has a slope; what was not seen takes no part."""
    p = make(SHAPE).double().requires_grad_(False)
    x = p(parameters(p, 1).expand(501, *p.wants)).sample()
    hidden = torch.where(torch.rand_like(x) < 0.2, math.nan, x)
    said = p.usual(hidden).requires_grad_()
    found, nothing = (log_prob(p(v.expand(501, *p.wants)), hidden, ~hidden.isnan()).sum() for v in (said, 0 * said))
    assert float(found.detach()) > float(nothing.detach()) or getattr(p, "components", 2) == 1
    if isinstance(p, (DiscretisedLogistic, LogisticMixture)):
        return  # a start only: what is best has no closed form
    slope = torch.autograd.grad(found, said)[0]
    near = 1 if isinstance(p, Categorical) else 1 / p.sigma.amax() if isinstance(p, Laplace) else 1e-6
    assert bool((slope.abs() < 1.001 * near).all())  # a Categorical's one row more, and the median's own side


# ---- probabilities ----------------------------------------------------------------------------------------------


@discrete
def test_probabilities_of_all_levels_sum_to_one(make: partial) -> None:
    """Every value, every row, by enumeration; 256 roundings of 1e-16 leave 1e-12 ample."""
    p = make(SHAPE).double()
    total = probabilities(p, parameters(p)).sum(0)
    close(total, torch.ones(4, *SHAPE, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.parametrize("learn", [None, "shared", "each"])
def test_gaussian_density_integrates_to_one(learn: str | None) -> None:
    """The trapezium rule at 1/20 of a standard deviation is exact to rounding for a normal; +-10 sigma lose 1e-23."""
    p = Gaussian((1,), sigma=0.3, learn=learn).double()
    px = p(torch.full((1, 1, 1), 0.4, dtype=torch.float64))
    x = torch.arange(-200, 201, dtype=torch.float64)[:, None] * 0.3 / 20 + 0.4
    total = float(px.log_prob(x).exp().sum().detach()) * 0.3 / 20
    assert total == pytest.approx(1.0, abs=1e-7)  # log sigma was float32


@discrete
def test_mean_is_the_enumerated_mean(make: partial) -> None:
    """sum_k x_k p(x_k)."""
    p = make(SHAPE).double()
    said = parameters(p)
    expected = torch.einsum("k,k...->...", grid(p), probabilities(p, said))
    close(p(said).mean, expected, rtol=0, atol=1e-12)


@discrete
def test_samples_come_as_often_as_they_are_priced(make: partial) -> None:
    """Frequencies of 20,000 draws against probabilities, and every draw on the grid."""
    p, n, t = make(SHAPE).double(), 20_000, 25.0
    said = parameters(p, rows=1)
    drawn = p(said).sample((n,))[:, 0]  # (n, *event)
    assert p.support.check(drawn).all()
    prob = probabilities(p, said)[:, 0]  # (levels, *event)
    frequency = torch.stack([(drawn - k).abs().lt(1e-9).double().mean(0) for k in grid(p)])
    assert ((frequency - prob).abs() < (2 * prob * (1 - prob) * t / n).sqrt() + t / (3 * n)).all()


@pytest.mark.parametrize("learn", [None, "shared", "each"])
def test_gaussian_draws_have_its_mean_and_sigma(learn: str | None) -> None:
    """50,000 draws of 6 values; means and variances within 6 standard errors (failure 3e-8)."""
    p, n = Gaussian(SHAPE, sigma=0.3, learn=learn), 50_000
    said = parameters(p, rows=1, dtype=torch.float32)
    drawn = p(said).sample((n,))[:, 0]
    assert ((drawn.mean(0) - said[0, 0]).abs() < 6 * 0.3 / math.sqrt(n)).all()
    assert ((drawn.var(0) - 0.09).abs() < 6 * 0.09 * math.sqrt(2 / n)).all()


# ---- independent formulas ---------------------------------------------------------------------------------------


def test_bernoulli_is_scipys() -> None:
    """Against pmf, and grey values against x log p + (1 - x) log(1 - p)."""
    p = Bernoulli(SHAPE, relaxed=True)
    said = parameters(p)
    probability = said[:, 0].sigmoid()
    x = torch.randint(2, (4, *SHAPE)).double()
    close(cells(p(said), x), torch.as_tensor(bernoulli.logpmf(x, probability)), rtol=1e-12, atol=1e-12)
    grey = torch.rand(4, *SHAPE, dtype=torch.float64)
    entropy = grey * probability.log() + (1 - grey) * (1 - probability).log()
    close(cells(p(said), grey), entropy, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("learn", [None, "shared", "each"])
def test_gaussian_is_scipys(learn: str | None) -> None:
    """Against norm.logpdf, with each value's own sigma where it has one."""
    p = Gaussian(SHAPE, sigma=0.3, learn=learn).double()
    if learn:
        torch.nn.init.normal_(p.log_sigma)
    said, x = parameters(p), torch.randn(4, *SHAPE, dtype=torch.float64)
    expected = norm.logpdf(x, said[:, 0], p.log_sigma.detach().exp())
    close(cells(p(said), x).detach(), torch.as_tensor(expected), rtol=1e-12, atol=1e-12)


def test_laplace_is_scipys() -> None:
    """Against laplace.logpdf, each value with a scale of its own."""
    p = Laplace(SHAPE, learn="each").double()
    torch.nn.init.normal_(p.log_sigma)
    said, x = parameters(p), torch.randn(4, *SHAPE, dtype=torch.float64)
    expected = laplace.logpdf(x, said[:, 0], p.log_sigma.detach().exp())
    close(cells(p(said), x).detach(), torch.as_tensor(expected), rtol=1e-12, atol=1e-12)


@types
def test_poisson_is_scipys(dtype: torch.dtype) -> None:
    """Against pmf; in float32 too, where log x! of a count of 10^6 has no decimals."""
    p = Poisson((5,)).to(dtype)
    x = torch.tensor([[0.0, 1.0, 30.0, 1e4, 1e6]], dtype=dtype)
    said = torch.tensor([[[-3.0, 0.5, 3.0, 9.2, 13.8155]]], dtype=dtype)
    expected = torch.as_tensor(poisson.logpmf(x.double(), said[:, 0].double().exp()))
    assert cells(p(said), x).dtype == dtype
    close(cells(p(said), x).double(), expected, rtol=1e-6 if dtype == torch.float32 else 1e-12, atol=1e-8)


@types
def test_negative_binomial_is_scipys(dtype: torch.dtype) -> None:
    """nbinom counts failures before the theta-th success of probability theta / (theta + mu), each value its theta.

    Their own rounding of lgamma is about 1e-8 at theta = 10^6, where theirs and ours are differences of 10^7.
    """
    p = NegativeBinomial((6,)).to(dtype)
    theta = torch.tensor([0.01, 0.5, 1.0, 7.3, 1e4, 1e6], dtype=torch.float64)
    p.log_dispersion.data = theta.log().to(dtype)
    theta = p.log_dispersion.double().exp().detach()
    x = torch.tensor([[0.0, 3.0, 0.0, 500.0, 1e4, 2.0], [7.0, 0.0, 10.0, 1e6, 9900.0, 1.0]], dtype=dtype)
    said = torch.tensor([[-1.0, 2.0, 0.0, 6.0, 9.2, 0.3]], dtype=dtype).expand(2, 1, -1)
    mu = said[:, 0].double().exp()
    expected = torch.as_tensor(nbinom.logpmf(x.double(), theta, theta / (theta + mu)))
    found = cells(p(said), x).detach().double()
    close(found, expected, rtol=1e-6 if dtype == torch.float32 else 1e-10, atol=1e-7)


def test_counts_have_the_variances_they_claim() -> None:
    """By enumeration: mu, and mu + mu^2 / theta."""
    for p in (Poisson(SHAPE).double(), NegativeBinomial(SHAPE, dispersion=1.5).double()):
        said = parameters(p)
        prob, px = probabilities(p, said), p(said)
        second = torch.einsum("k,k...->...", grid(p).square(), prob)
        mu = said[:, 0].exp()
        close(px.mean, mu, rtol=1e-12, atol=0)
        close(second - mu.square(), px.variance, rtol=0, atol=1e-9)
        if isinstance(p, NegativeBinomial):
            close(px.variance, mu + mu.square() / 1.5, rtol=1e-7, atol=0)  # log 1.5 was float32


def test_gradients_of_counts() -> None:
    """By log mu: x - mu, and theta (x - mu) / (theta + mu). By log theta: against central differences of scipy."""
    x = torch.tensor([[0.0, 2.0, 40.0]], dtype=torch.float64)
    said = torch.tensor([[[0.3, -1.0, 3.0]]], dtype=torch.float64, requires_grad=True)
    mu, p = said[:, 0].detach().exp(), NegativeBinomial((3,), dispersion=1.5).double()
    (found,) = torch.autograd.grad(Poisson((3,))(said).log_prob(x).sum(), said)
    close(found[:, 0], x - mu)
    found, scale = torch.autograd.grad(p(said).log_prob(x).sum(), (said, p.log_dispersion))
    theta = p.dispersion.detach()
    close(found[:, 0], theta * (x - mu) / (theta + mu))
    up, down = ((theta * math.exp(e)) for e in (1e-5, -1e-5))
    slope = [nbinom.logpmf(x, t, t / (t + mu)) for t in (up, down)]
    close(scale, torch.as_tensor((slope[0] - slope[1]) / 2e-5)[0], rtol=0, atol=1e-6)


def test_a_large_dispersion_is_a_poisson() -> None:
    """The ratio of the two is 1 + O(x^2 / theta)."""
    p = NegativeBinomial(SHAPE, dispersion=1e6).double()
    said = parameters(p)
    x = torch.poisson(said[:, 0].exp())
    close(p(said).log_prob(x).detach(), Poisson(SHAPE)(said).log_prob(x), rtol=0, atol=1e-3)


@pytest.mark.parametrize("shape", [(6,), (2, 3)])
def test_a_library_shares_out_the_total(shape: tuple[int, ...]) -> None:
    """Poisson counts of a row given the rates: the total is Poisson, and given it the counts are multinomial."""
    p = Poisson(shape, library=True).double()
    said = parameters(p)
    x = torch.poisson(3 * torch.rand(4, *shape, dtype=torch.float64))
    total = x.flatten(1).sum(1)
    context = torch.stack([torch.randn(4).double(), total.log()], 1)  # other features come first
    px = p(said, context)
    close(px.mean.flatten(1).sum(1), total)
    shares = said.flatten(1).softmax(1)
    expected = poisson.logpmf(total, total) + multinomial.logpmf(x.flatten(1).numpy(), total.numpy(), shares.numpy())
    close(px.log_prob(x), torch.as_tensor(expected), rtol=1e-12, atol=1e-10)
    counts = NegativeBinomial(shape, library=True).double()(said, context)
    close(counts.mean, px.mean)
    with pytest.raises(TypeError, match=r"shares out the total of a row.*right: Batch\(x, x, context=.*context=1"):
        p(said)


@pytest.mark.parametrize(("levels", "components"), [(2, 4), (7, 1), (256, 3)])
def test_a_mixture_of_logistics_is_a_sum_of_them(levels: int, components: int) -> None:
    """Weights by softmax, each part the discretised logistic of its channels, moved to its place of beginning."""
    p = LogisticMixture(SHAPE, levels=levels, components=components).double()
    part = DiscretisedLogistic(SHAPE, levels=levels).double()
    said = parameters(p)
    weight, location, log_scale = said.chunk(3, 1)
    begin = (torch.arange(components) + 0.5) / components
    assert begin.mean() == 0.5  # one component is where the discretised logistic is
    expected = sum(
        weight.softmax(1)[:, c]
        * probabilities(part, torch.stack([location[:, c] + begin[c] - 0.5, log_scale[:, c]], 1))
        for c in range(components)
    )
    close(probabilities(p, said), expected, rtol=0, atol=1e-7)  # places of beginning are float32


def test_categorical_is_a_softmax_over_the_levels() -> None:
    """The level of x picks the channel; all 5 of them at once."""
    p = Categorical(SHAPE, levels=5).double()
    said = parameters(p)
    close(probabilities(p, said), said.softmax(1).movedim(1, 0), rtol=0, atol=1e-14)


@pytest.mark.parametrize("levels", [2, 7, 256])
def test_discretised_logistic_is_a_difference_of_distribution_functions(levels: int) -> None:
    """Against scipy's logistic.cdf at the bin edges, the outer ones at infinity.

    The difference of two numbers near 1 has an absolute error of 1e-16: compared where the probability exceeds 1e-8.
    """
    p = DiscretisedLogistic(SHAPE, levels=levels).double()
    said = parameters(p)
    base = p(said).base_dist
    edges = [-math.inf, *((k + 0.5) / (levels - 1) for k in range(levels - 1)), math.inf]
    scale = base.log_scale.exp()
    naive = torch.stack(
        [torch.as_tensor(logistic.cdf(b, base.location, scale) - logistic.cdf(a, base.location, scale))
         for a, b in pairwise(edges)]
    )  # fmt: skip
    ours, seen = probabilities(p, said), naive > 1e-8
    close(ours[seen].log(), naive[seen].log(), rtol=0, atol=1e-7)
    assert (ours[~seen] < 1.1e-8).all()


@pytest.mark.parametrize("levels", [2, 256])
def test_discretised_logistic_starts_at_mid_grey_and_spreads_over_it(levels: int) -> None:
    """A decoder that says 0 gives location 1/2 and a scale of about e^-2 of the range, never below 1/100 of a level."""
    p = DiscretisedLogistic((1,), levels=levels).double()
    said = torch.tensor([[0.0, 0.0], [0.0, -1e3]], dtype=torch.float64)
    base = p(said[..., None]).base_dist
    close(base.location, torch.full((2, 1), 0.5, dtype=torch.float64))
    close(base.log_scale[1].exp(), torch.tensor([0.01 / (levels - 1)], dtype=torch.float64))
    assert base.log_scale[0].exp() == pytest.approx(math.exp(-2), rel=0.15)  # softplus(u) = u + O(e^-u), u >= 2.6


# ---- extremes ---------------------------------------------------------------------------------------------------


@types
@every
def test_far_tails_are_finite_with_finite_gradients(make: partial, dtype: torch.dtype) -> None:
    """A decoder that says +-30 or +-1000 in any channel is wrong, not broken."""
    p = make((4,)).to(dtype)
    extremes = torch.tensor([-1e3, -30.0, 30.0, 1e3], dtype=dtype)
    if isinstance(p, DiscretisedLogistic):  # its second channel is a logarithm
        pairs = torch.cartesian_prod(extremes, extremes.clamp(-1e3, 30)).T  # (2, 16)
        said = pairs[..., None].movedim(0, 1).expand(-1, -1, 4).clone().requires_grad_()
    else:
        said = extremes[:, None, None].expand(-1, p.channels, 4).clone().requires_grad_()
    for x in (grid(p)[0], grid(p)[-1], grid(p)[len(grid(p)) // 2]):
        value = p(said).log_prob(x.to(dtype).expand(len(said), 4))
        (gradient,) = torch.autograd.grad(value.sum(), said)
        assert value.dtype == dtype
        assert value.isfinite().all()
        assert gradient.isfinite().all()
        if p.discrete:
            assert (value <= 1e-6).all()


def test_discretised_logistic_keeps_its_slope_where_a_difference_of_sigmoids_is_zero() -> None:
    """300 scales away log p = -300 + log(1 - e^-w) for a bin w wide, and moving the location pays 1 / scale."""
    p = DiscretisedLogistic((1,), levels=11).double()
    said = torch.zeros(1, 2, 1, dtype=torch.float64)
    scale = float(p(said).base_dist.log_scale.exp())
    x = torch.full((1, 1), 0.9, dtype=torch.float64)
    away = torch.tensor([[[0.9 - 0.05 - 0.5 - 300 * scale], [0.0]]], dtype=torch.float64, requires_grad=True)
    value = p(away).log_prob(x)
    close(value.item(), -300 + math.log(-math.expm1(-0.1 / scale)), rtol=0, atol=1e-9)
    close(torch.autograd.grad(value.sum(), away)[0][0, 0].item(), 1 / scale, rtol=1e-9, atol=0)


# ---- the event ---------------------------------------------------------------------------------------------------


@types
@every
def test_shapes_and_types(make: partial, dtype: torch.dtype) -> None:
    """(S, channels, *event) -> batch (S,), event x; cells sum to log_prob; a flat decoder output will do."""
    p = make(SHAPE).to(dtype)
    assert p.wants == (p.channels, *SHAPE)
    said = parameters(p, dtype=dtype)
    px, x = p(said), grid(p)[0].to(dtype).expand(4, *SHAPE)
    assert (px.batch_shape, px.event_shape) == ((4,), SHAPE)
    assert cells(px, x).shape == (4, *SHAPE)
    close(cells(px, x).sum((1, 2)), px.log_prob(x))
    close(log_prob(px, x), px.log_prob(x), rtol=0, atol=0)
    close(p(said.flatten(1)).log_prob(x), px.log_prob(x), rtol=0, atol=0)
    assert px.mean.shape == px.sample().shape == (4, *SHAPE)
    assert px.mean.dtype == px.sample().dtype == px.log_prob(x).dtype == dtype
    assert str(SHAPE) in repr(p)


@every
def test_what_is_not_seen_is_not_scored(make: partial) -> None:
    """With a mask, log_prob is that of the observed values alone, and the others send no gradient back."""
    p = make(SHAPE).double()
    said = parameters(p).requires_grad_()
    x = grid(p)[torch.randint(len(grid(p)), (4, *SHAPE))]
    seen = torch.rand(4, *SHAPE) < 0.5
    value = log_prob(p(said), x, seen)
    for row in range(4):
        chosen = seen[row]
        part = make((int(chosen.sum()),)).double()
        close(value[row], part(said[row : row + 1, :, chosen]).log_prob(x[row, chosen])[0])
    (gradient,) = torch.autograd.grad(value.sum(), said)
    assert not gradient.movedim(1, -1)[~seen].any()
    assert torch.equal(log_prob(p(said), torch.where(seen, x, grid(p)[0]), seen), value)


def test_cells_want_a_distribution_that_factorises() -> None:
    """Others have no values to mask."""
    joint = torch.distributions.MultivariateNormal(torch.zeros(2), torch.eye(2))
    with pytest.raises(TypeError, match="only an Independent distribution has cells; this one is MultivariateNormal"):
        cells(joint, torch.zeros(1, 2))


@pytest.mark.parametrize(
    ("make", "good", "bad"),
    [
        (Bernoulli, [0.0, 1.0], [0.5, -1.0, 2.0, math.nan]),
        (partial(Bernoulli, relaxed=True), [0.0, 0.3, 1.0], [-0.1, 1.1, math.nan]),
        (Gaussian, [-1e6, 0.0, 1e6], [math.nan]),
        (partial(Categorical, levels=5), [0.0, 0.25, 1.0], [0.2, -0.25, 1.25, math.nan]),
        (partial(DiscretisedLogistic, levels=256), [0.0, 17 / 255, 1.0], [0.1 / 255, 256 / 255, 255.0, math.nan]),
        (partial(LogisticMixture, levels=17), [0.0, 3 / 16, 1.0], [0.1, 2.0, math.nan]),
        (Laplace, [-1e6, 0.0, 1e6], [math.nan]),
        (Poisson, [0.0, 1.0, 1e6], [0.5, -1.0, math.nan, math.inf]),
        (NegativeBinomial, [0.0, 3.0, 1e6], [0.25, -2.0, math.nan]),
        (partial(DiscretisedLogistic, levels=65536), [0.0, 12345 / 65535, 1.0], [0.5 / 65535, 2.0, math.nan]),
    ],
)
def test_support_says_which_values_have_a_likelihood(make: partial, good: list[float], bad: list[float]) -> None:
    """In float32, as data come."""
    p = make(SHAPE)
    assert p.support.check(torch.tensor(good)).all()
    assert not p.support.check(torch.tensor(bad)).any()


@pytest.mark.parametrize("levels", [2, 256, 4096])
def test_every_level_of_a_grid_survives_float32(levels: int) -> None:
    """k / (L - 1) in float32 is within the support and priced as level k."""
    p = Categorical((1,), levels=levels)
    x = torch.arange(levels) / (levels - 1)
    assert p.support.check(x).all()
    said = torch.randn(1, levels, 1)
    px = p(said.expand(levels, -1, -1))
    close(px.log_prob(x[:, None]), said[0, :, 0].log_softmax(0))


# ---- arguments ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("learn", "shape"), [(None, None), ("shared", ()), ("each", SHAPE)])
def test_gaussian_learns_one_sigma_or_one_for_each_value_or_none(learn: str | None, shape: tuple | None) -> None:
    """It starts where it is told, is trained by the likelihood if learned, and stays above the floor."""
    p = Gaussian(SHAPE, sigma=0.3, learn=learn)
    assert [q.shape for q in p.parameters()] == ([] if shape is None else [torch.Size(shape)])
    close(p.sigma.expand(SHAPE), torch.full(SHAPE, 0.3))
    if learn:
        p(torch.zeros(1, 1, *SHAPE)).log_prob(torch.ones(1, *SHAPE)).backward()
        # d/d log sigma of -x^2 / 2 sigma^2 - log sigma, at x = 1
        close(p.log_sigma.grad, torch.full(shape, (1 / 0.09 - 1) * (6 if shape == () else 1)), rtol=1e-5, atol=0)
        torch.nn.init.constant_(p.log_sigma, -100.0)
        assert (p.sigma == p.floor).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gaussian(SHAPE, sigma=0.0), "must be positive; got 0.0"),
        (lambda: Gaussian(SHAPE, sigma=-1.0), "must be positive; got -1.0"),
        (lambda: Gaussian(SHAPE, sigma=math.nan), "must be positive; got nan"),
        (lambda: Gaussian(SHAPE, learn="all"), 'learn is None, "shared" or "each"; got'),
        (lambda: Laplace(SHAPE, scale=0.0), "scale is a mean absolute deviation and must be positive; got 0.0"),
        (lambda: LogisticMixture(SHAPE, components=0), "a mixture has at least one component; got components=0"),
        (lambda: LogisticMixture(SHAPE, levels=1), "LogisticMixture needs at least 2 levels; got 1"),
        (
            lambda: NegativeBinomial(SHAPE, dispersion=0.0),
            "dispersion is a positive number .*; got 0.0",
        ),
        (lambda: Categorical(SHAPE, levels=1), "Categorical needs at least 2 levels; got 1"),
        (lambda: DiscretisedLogistic(SHAPE, levels=0), "DiscretisedLogistic needs at least 2 levels; got 0"),
    ],
)
def test_impossible_arguments_are_refused(make: partial, message: str) -> None:
    """With what was asked and what would do."""
    with pytest.raises(ValueError, match=message):
        make()


@every
def test_a_decoder_that_says_too_much_or_too_little_is_refused(make: partial) -> None:
    """The message names the likelihood, what it wants and what it got."""
    p = make(SHAPE)
    for extra in (-1, 1):
        wrong = math.prod(p.wants) + extra
        with pytest.raises(ValueError, match=rf"{type(p).__name__} over \(2, 3\) wants .* it gave \({wrong},\)"):
            p(torch.zeros(4, wrong))


def test_the_abstract_likelihood_names_its_kinds() -> None:
    """Nobody is left with a bare NotImplementedError."""
    with pytest.raises(TypeError, match="use Bernoulli, Gaussian, Categorical or DiscretisedLogistic"):
        Likelihood(SHAPE)(torch.zeros(1, 1, *SHAPE))


def test_unseen_nan_leaves_a_finite_gradient() -> None:
    """What was not observed may hold anything."""
    parameters = torch.zeros(2, 1, 3, requires_grad=True)
    x = torch.tensor([[0.5, float("nan"), 1.0]]).expand(2, 3)
    log_prob(Gaussian((3,))(parameters), x, x.isfinite()).sum().backward()
    assert parameters.grad is not None
    assert parameters.grad.isfinite().all()


def test_no_scale_is_too_wide_for_the_discretised_logistic() -> None:
    """Raw log-scales far beyond any use stay finite, forwards and backwards."""
    parameters = torch.stack([torch.zeros(1, 5), torch.full((1, 5), 500.0)], 1).requires_grad_()
    value = DiscretisedLogistic((5,), levels=5)(parameters).log_prob(torch.linspace(0, 1, 5)[None])
    value.sum().backward()
    assert value.isfinite().all()
    assert parameters.grad is not None
    assert parameters.grad.isfinite().all()
