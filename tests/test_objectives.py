"""Bounds on the same draws, and what an objective refuses. float64; tolerances as in test_exact.py."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from narrows import recipes
from narrows.contract import Batch
from narrows.gradients import Piwae, Reparameterised
from narrows.likelihoods import Bernoulli, Categorical, Gaussian, Likelihood
from narrows.models import Autoencoder
from narrows.networks import Mlp
from narrows.objectives import Objective, ciwae, elbo, iwae, miwae, renyi
from narrows.posteriors import Gaussian as GaussianPosterior
from narrows.priors import StandardNormal
from narrows.spec import arguments_of, describe, restore


def plain(value: object) -> str:
    """In test names: without the address of a function, which differs from process to process."""
    return str(value).split(" at 0x")[0]


close = torch.testing.assert_close
SAME = {"rtol": 0.0, "atol": 1e-10}
D = 6


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Parts are built in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def tiny(likelihood: Likelihood | None = None, latent: int = 2) -> Autoencoder:
    """A small VAE that is not linear."""
    p = likelihood or Gaussian((D,), sigma=0.7)
    q = GaussianPosterior(StandardNormal(latent))
    return Autoencoder(Mlp((D,), (q.features,), hidden=(4,)), q, Mlp((latent,), p.wants, hidden=(4,)), p)


def drawn(samples: int = 12, rows: int = 5) -> tuple[Tensor, Tensor]:
    """Distortions and rates of so many draws, hundreds of nats apart."""
    return 100 * torch.rand(samples, rows), 20 * torch.randn(samples, rows)


def value_and_slopes(bound: Callable, **settings: Any) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The bound of a small model, and the gradient of every parameter, on the noise of one seed."""
    torch.manual_seed(3)
    model, x = tiny(), torch.randn(4, D)
    terms = Objective(bound=bound, rate="sampled", **settings)(model, Batch.of(x))
    return terms.bound, torch.autograd.grad(terms.loss, list(model.parameters()))


IDENTITIES = [
    (1, partial(miwae, groups=1), elbo),
    (6, partial(miwae, groups=1), iwae),
    (6, partial(miwae, groups=6), elbo),
    (6, partial(ciwae, mix=1.0), elbo),
    (6, partial(ciwae, mix=0.0), iwae),
    (1, partial(ciwae, mix=0.3), elbo),
    (6, partial(renyi, alpha=1.0), elbo),
    (6, partial(renyi, alpha=0.0), iwae),
    (1, partial(renyi, alpha=0.5), elbo),
    (6, partial(renyi, alpha=1 + 1e-12), elbo),
    (6, partial(renyi, alpha=1 - 1e-12), elbo),
]


@pytest.mark.parametrize(("samples", "bound", "other"), IDENTITIES, ids=plain)
@pytest.mark.parametrize("beta", [1.0, 2.5])
def test_bounds_meet(samples: int, bound: Callable, other: Callable, beta: float) -> None:
    """MIWAE(1, K) = IWAE(K), MIWAE(K, 1) = CIWAE(1) = Renyi(1) = ELBO, CIWAE(0) = Renyi(0) = IWAE: value and slopes."""
    (a, slopes), (b, others) = (value_and_slopes(f, samples=samples, beta=beta) for f in (bound, other))
    close(a, b, **SAME)
    for slope, same in zip(slopes, others, strict=True):
        close(slope, same, **SAME)


def test_bounds_are_what_their_papers_define() -> None:
    """Draw by draw from the weights themselves, M and K different so that no axis can be taken for the other."""
    distortion, rate = torch.rand(12, 5), torch.randn(12, 5)
    w = (-distortion - 1.5 * rate).exp()
    close(iwae(distortion, rate, 1.5), w.mean(0).log(), **SAME)
    groups = [w[4 * m : 4 * m + 4].mean(0).log() for m in range(3)]
    close(miwae(distortion, rate, 1.5, groups=3), sum(groups) / 3, **SAME)
    mixed = 0.3 * w.log().mean(0) + 0.7 * w.mean(0).log()
    close(ciwae(distortion, rate, 1.5, mix=0.3), mixed, **SAME)
    for alpha in (0.0, 0.5, 0.99, 1.7):
        close(renyi(distortion, rate, 1.5, alpha), (w ** (1 - alpha)).mean(0).log() / (1 - alpha), **SAME)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=plain)
def test_bounds_stand_in_their_order(dtype: torch.dtype) -> None:
    """ELBO <= MIWAE <= IWAE, ELBO <= CIWAE <= IWAE, Renyi falls with alpha; of weights that e^x cannot hold."""
    distortion, rate = (1e3 * t.to(dtype) for t in drawn())
    alphas = [renyi(distortion, rate, 1.0, alpha) for alpha in (0.0, 0.3, 0.999, 1.0, 1.001, 2.0)]
    for ladder in (
        [f(distortion, rate) for f in (iwae, partial(miwae, groups=2), partial(miwae, groups=4), elbo)],
        [f(distortion, rate) for f in (iwae, ciwae, partial(ciwae, mix=0.5), elbo)],
        [iwae(distortion, rate), *alphas[1:]],
    ):
        for upper, lower in pairwise(ladder):
            assert upper.isfinite().all()
            assert (upper >= lower).all()
    close(alphas[0], iwae(distortion, rate))


def test_renyi_keeps_its_digits_near_the_elbo() -> None:
    """In float32 at alpha = 1 - 1e-6, where log-mean-exp keeps one digit; the slope in alpha is a variance / 2."""
    distortion, rate = drawn()
    near = renyi(distortion.float(), rate.float(), 1.0, 1 - 1e-6)
    close(near, elbo(distortion, rate).float(), rtol=1e-5, atol=2e-3)


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        (partial(miwae, groups=4), "as many groups as divide its draws; got groups=4 for 6 draws"),
        (partial(miwae, groups=0), "got groups=0 for 6 draws"),
        (partial(ciwae, mix=1.1), "from 0 .iwae. to 1 .elbo.; got mix=1.1"),
        (partial(renyi, alpha=-0.5), "no lower bound; got alpha=-0.5"),
        (partial(renyi, alpha=float("inf")), "no lower bound; got alpha=inf"),
    ],
    ids=plain,
)
def test_arguments_of_bounds_are_checked_at_once(bound: Callable, message: str) -> None:
    """When the objective is built, not in the first step."""
    with pytest.raises(ValueError, match=message):
        Objective(bound=bound, samples=6, rate="sampled")


@pytest.mark.parametrize("bound", [iwae, miwae, ciwae, renyi, partial(renyi, alpha=0.5)], ids=plain)
def test_bounds_of_weights_need_the_sampled_rate(bound: Callable) -> None:
    """The closed one says nothing about a single draw."""
    with pytest.raises(ValueError, match=r'weighs single draws: it needs rate="sampled"'):
        Objective(bound=bound, samples=6)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"bound": partial(miwae, groups=2), "samples": 6}, "miwae(groups=2) of 6 draws: distortion + rate"),
        ({"bound": partial(renyi, alpha=0.5), "samples": 6}, "renyi(alpha=0.5) of 6 draws: distortion + rate"),
        (
            {"bound": iwae, "samples": 6, "gradient": Piwae(2)},
            "iwae of 6 draws: distortion + rate, differentiated by Piwae(groups=2)",
        ),
        ({"gradient": Reparameterised()}, "distortion + rate, differentiated by Reparameterised()"),
    ],
    ids=plain,
)
def test_settings_are_said_and_survive_a_file(settings: dict[str, Any], text: str) -> None:
    """Bounds with arguments and estimators are described, and built again from the description."""
    objective = Objective(rate="sampled", **settings)
    assert objective.equation == text
    described = arguments_of(objective)
    assert described is not None
    again = Objective(**{name: restore(name, value) for name, value in described.items()})
    assert again.equation == text
    assert arguments_of(again) == described
    assert describe("bound", again.bound) == describe("bound", objective.bound)


@pytest.mark.parametrize("settings", [{"free_bits": 0.5}, {"capacity": 3.0}], ids=plain)
def test_what_shapes_the_rate_needs_one(settings: dict[str, float]) -> None:
    """With beta = 0 neither would have an effect."""
    with pytest.raises(ValueError, match="with beta = 0 all of it is: they would change nothing. Use beta > 0"):
        Objective(0.0, **settings).check(tiny())


def test_free_bits_beyond_what_a_row_tells_are_refused() -> None:
    """6 black-or-white values tell 6 log 2 nats, on 4 levels 6 log 4; continuous ones have no such limit."""
    for likelihood, nats in ((Bernoulli((D,)), 4.1588), (Categorical((D,), levels=4), 8.3177)):
        Objective(free_bits=nats / 2 - 1e-3).check(tiny(likelihood))
        with pytest.raises(ValueError, match=rf"for each of 2 units .* {nats:.3f}\d* nats at most, .* take less than"):
            Objective(free_bits=nats / 2 + 1e-3).check(tiny(likelihood))
    Objective(free_bits=100.0).check(tiny())
    Objective(free_bits=100.0).check(tiny(Bernoulli((D,), relaxed=True)))


def test_free_bits_beyond_what_a_unit_carries_are_refused() -> None:
    """A posterior whose units carry at most `most` nats, as one of k values carries log k."""
    model = tiny()
    model.posterior.most = 2.0
    Objective(free_bits=1.9).check(model)
    with pytest.raises(ValueError, match="whose units carry at most 2 frees all of the rate.* take less than 2"):
        Objective(free_bits=2.0).check(model)


def test_free_bits_are_of_rungs() -> None:
    """What is added is beta * sum_l max(0, free - mean rate of the rung), on the same noise."""
    x = torch.rand(7, 6).round()
    losses, terms = [], None
    for free in (0.0, 0.6):
        model, objective = recipes.ladder((6,), rungs=(2, 3), free_bits=free, beta=0.5)
        torch.manual_seed(0)
        terms = objective(model, Batch.of(x))
        losses.append(float(terms.loss.detach()))
    expected = 0.5 * torch.relu(0.6 - terms.rungs.mean(0)).sum()
    assert expected > 0.01
    assert losses[1] - losses[0] == pytest.approx(float(expected), rel=1e-4)
    with pytest.raises(ValueError, match="free_bits=3 nats for each of 2 rungs frees more than a row"):
        recipes.ladder((6,), rungs=(2, 3), free_bits=3.0)
