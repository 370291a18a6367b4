"""What a cell is worth given the others of its row: against sums over the code, and the same whatever stands beside."""

import math
from functools import partial
from typing import Any

import pytest
import torch

import narrows as nr
from narrows import recipes, tasks
from narrows.likelihoods import Column, Columns, Gaussian, cells

NAN = math.nan
MIXED = (Column(classes=3), Column(classes=4), Column(step=0.25, atoms=(0.0,)), Column(classes=2))
ROWS = torch.tensor([[0.0, 3, 0.0, 1], [2, 0, -0.5, 0], [1, NAN, 2.5, 1]])
Z = torch.linspace(-9, 9, 6001)[:, None]


def speaking(likelihood: Any, shape: tuple[int, ...], recipe: str = "vae", **arguments: Any) -> nr.Autoencoder:
    """A model whose code says much of a row, though it never trained."""
    model, _ = getattr(recipes, recipe)(shape, likelihood=likelihood, seed=3, **arguments)
    with torch.no_grad():
        for layer in model.decoder.layers:
            layer.weight.mul_(3.0)
    return model


def exact(model: nr.Autoencoder, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Nats given the others and alone, and weights of the grid given the others, by sums over one unit."""
    seen = ~x.isnan()
    with torch.no_grad():
        score = cells(model.decode(Z), x.nan_to_num(0.0).expand(len(Z), -1)).double()
    score = torch.where(seen, score, 0.0)
    prior = (-(Z.double() ** 2) / 2).log_softmax(0)
    rest = prior + score.sum(1, keepdim=True) - score  # (Z, columns)
    w = rest.log_softmax(0)
    given, alone = -(w + score).logsumexp(0), -(prior + score).logsumexp(0)
    return torch.where(seen, given, NAN), torch.where(seen, alone, NAN), w.exp()


@pytest.mark.parametrize("recipe", ["vae", "flow_vae"])
def test_a_cell_of_mixed_columns_by_quadrature(recipe: str) -> None:
    """Nats, tails, what is expected and how surely; 20,000 draws, and 1,000 of the prior for nats alone."""
    model = speaking(partial(Columns, columns=MIXED), (4,), recipe, latent=1)
    found = tasks.blame(model, ROWS, samples=20_000)
    for row, x in enumerate(ROWS):
        given, alone, w = exact(model, x)
        torch.testing.assert_close(found.nats[row], given.float(), atol=0.05, rtol=0, equal_nan=True)
        torch.testing.assert_close(found.alone[row], alone.float(), atol=0.15, rtol=0, equal_nan=True)
        with torch.no_grad():
            base = model.decode(Z).base_dist
        p = torch.einsum("zc,zcj->cj", w[:, [0, 1, 3]].float(), base.log_classes.exp())
        for place, column in enumerate((0, 1, 3)):
            if not x[column].isnan():
                assert int(found.expected[row, column]) == int(p[place].argmax())
                assert float(found.sure[row, column]) == pytest.approx(float(p[place].max()), abs=0.02)
                tail = float(p[place][p[place] <= p[place][int(x[column])] * 1.0001].sum())
                assert float(found.tail[row, column]) == pytest.approx(-math.log(tail), abs=0.05)
        numbers = base.numbers(w[:, None, 2:3].float())
        assert abs(float(found.expected[row, 2] - numbers.quantile(0.5))) <= 0.25  # a place of the grid
        sides = float(numbers.below(x[None, 2:3])), 1 - float(numbers.below(x[None, 2:3], inclusive=False))
        assert float(found.tail[row, 2]) == pytest.approx(-math.log(min(1.0, 2 * min(sides))), abs=0.15)
    assert bool(found.expected[2].isnan()[1])


def test_a_cell_of_plain_numbers_by_quadrature() -> None:
    """Densities, and the mean that the others make one expect."""
    model = speaking(partial(Gaussian, sigma=0.7), (3,), latent=1)
    x = torch.tensor([[0.5, -1.0, 2.0], [1.0, 0.5, 0.0]])
    found = tasks.blame(model, x, samples=20_000)
    for row, one in enumerate(x):
        given, alone, w = exact(model, one)
        with torch.no_grad():
            mean = (w * model.decode(Z).mean).sum(0)
            variance = (w * (model.decode(Z).mean - mean).square()).sum(0) + 0.7**2
        torch.testing.assert_close(found.nats[row], given.float(), atol=0.06, rtol=0)
        torch.testing.assert_close(found.expected[row], mean.float(), atol=0.06, rtol=0)
        far = torch.distributions.Normal(0.0, 1.0).cdf(-(one - mean).abs() / variance.sqrt())
        torch.testing.assert_close(found.tail[row], -(2 * far).log().float(), atol=0.15, rtol=0)
        torch.testing.assert_close(found.alone[row], alone.float(), atol=0.15, rtol=0)
        assert bool(found.sure[row].isnan().all())


def test_a_mixture_of_rows_has_their_probabilities_and_quantiles() -> None:
    """Of two rows: against the sum over all places of the grid; of many, by those that stand for them."""
    likelihood = Columns((1,), [Column(step=0.25, origin=0.1, atoms=(0.1, 2.6))]).double()
    said = torch.randn(2, *likelihood.wants, generator=torch.Generator().manual_seed(0)).double()
    w = torch.tensor([0.3, 0.7]).double().view(2, 1, 1)
    grid = (0.1 + 0.25 * torch.arange(-40_000, 40_000).double())[:, None]
    mass = sum(
        float(v) * cells(likelihood(row.expand(len(grid), -1)), grid)[:, 0].exp()
        for v, row in zip(w, said, strict=True)
    )
    numbers = likelihood(said).base_dist.numbers(w)
    below = mass.cumsum(0)
    for place in (39_990, 40_000, 40_001, 40_010):
        v = grid[place : place + 1]
        assert float(numbers.below(v)) == pytest.approx(float(below[place]), abs=2e-3)  # what lies beyond the grid
        both = float(numbers.below(v) - numbers.below(v, inclusive=False))
        assert both == pytest.approx(float(mass[place]), rel=1e-6)
    for share in (0.05, 0.3, 0.5, 0.95):
        place = round((float(numbers.quantile(share)) - 0.1) / 0.25) + 40_000
        assert below[place - 1] < share + 2e-3 < below[place] + 4e-3
    many = likelihood(said.repeat_interleave(500, 0)).base_dist.numbers(w.repeat_interleave(500, 0), most=30)
    assert many.parts.shape == (30, 1, 1, 5)
    torch.testing.assert_close(many.below(grid[39_990:39_991]), numbers.below(grid[39_990:39_991]))
    torch.testing.assert_close(many.quantile(0.3), numbers.quantile(0.3))


def test_a_row_is_blamed_alike_whatever_stands_beside_it() -> None:
    """Alone, in another order, a second time; with groups of columns, with context, and for a ladder."""
    columns = [Column(classes=2 + c % 3) for c in range(11)]
    x = torch.randint(2, (6, 11), generator=torch.Generator().manual_seed(0)).float()
    many = speaking(partial(Columns, columns=columns), (11,), latent=2)
    ladder = speaking(partial(Columns, columns=MIXED), (4,), "ladder", rungs=(1, 1))
    told = speaking(partial(Columns, columns=MIXED), (4,), latent=2, context=2)
    rows = nr.data.Rows(ROWS, context=torch.tensor([[0.0, 1.0], [2.0, 0.0], [0.0, 1.0]]))
    for model, few in ((many, nr.data.Rows(x)), (ladder, nr.data.Rows(ROWS)), (told, rows)):
        found = tasks.blame(model, few, samples=64)
        other = tasks.blame(model, few.take(torch.tensor([2, 0])), samples=64)
        for ours, theirs in zip(found, other, strict=True):
            torch.testing.assert_close(theirs, ours[[2, 0]], atol=1e-4, rtol=1e-4, equal_nan=True)
        assert found.nats.isfinite().sum() == (~few.x.isnan()).sum()


def test_blame_is_refused_where_it_means_nothing() -> None:
    """No density, no table."""
    with pytest.raises(TypeError, match="needs the density of a code, and this model's code has none"):
        tasks.blame(recipes.autoencoder((4,), latent=1)[0], torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"rows of a table, of shape \(columns,\); these have shape \(1, 8, 8\)"):
        tasks.blame(recipes.vae((1, 8, 8), latent=1)[0], torch.zeros(2, 1, 8, 8))
