"""Ladders of maps: sizes, one joint density, rates that add up, and initial weights that suit many rungs."""

import copy
import math
from functools import partial

import pytest
import torch
from torch.nn.functional import softplus

import narrows as nr
from narrows import defaults, recipes
from narrows.likelihoods import Bernoulli
from narrows.networks import Cell, Cells
from narrows.posteriors import ResidualNormal
from narrows.priors import Maps, StandardNormal
from narrows.priors.maps import sizes

SMALL = {"latent": 1, "width": 4, "likelihood": Bernoulli, "free_bits": 0.0}


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def ladder(shape: tuple[int, ...] = (1, 5, 3), rungs: int | tuple[int, ...] = (1, 2), **arguments: object):
    """A small one in double precision, its weights large enough that all of it speaks."""
    model, objective = recipes.conv_ladder(shape, rungs=rungs, **{**SMALL, **arguments})
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(5)
        for parameter in model.parameters():
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    return model.double().eval(), objective.double()


def bits(*shape: int) -> torch.Tensor:
    return torch.randint(2, shape, generator=torch.Generator().manual_seed(1)).double()


def normal(z: torch.Tensor, mean: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    return (-0.5 * ((z - mean) / sigma) ** 2 - sigma.log() - 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


# ---- sizes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "rungs", "expected"),
    [
        ((1, 28, 28), 2, [(7, 7), (14, 14)]),
        ((1, 28, 28), 4, [(4, 4), (7, 7), (14, 14), (14, 14)]),
        ((3, 32, 32), 20, [(4, 4)] * 6 + [(8, 8)] * 7 + [(16, 16)] * 7),
        ((3, 32, 32), (1, 0 + 1, 2, 3), [(2, 2), (4, 4), *[(8, 8)] * 2, *[(16, 16)] * 3]),
        ((1, 9, 6), 3, [(3, 2), (5, 3), (5, 3)]),
        ((2, 5), 2, [(1, 1), (1, 1)]),
        ((1, 1, 1), 2, [(1, 1), (1, 1)]),
    ],
    ids=str,
)
def test_rungs_are_shared_out_among_the_halves_of_an_image(shape, rungs, expected):
    assert list(sizes(shape, rungs)) == expected


@pytest.mark.parametrize(
    ("shape", "patch", "expected"),
    [((1, 8, 6), 1, (8, 6)), ((2, 9, 13), 4, (3, 4)), ((1, 17, 17), 8, (3, 3)), ((5,), 4, (1, 1))],
    ids=str,
)
def test_the_largest_rungs_have_a_place_for_every_patch_and_step_over_no_pixel(shape, patch, expected):
    model, _ = recipes.conv_ladder(shape, patch=patch, **{**SMALL, "rungs": 2})
    assert model.posterior.place == expected
    x = bits(1, *shape).float()
    assert model(x).px.mean.shape == x.shape
    with torch.enable_grad():
        x.requires_grad_()
        model.hidden(x).square().sum().backward()
    assert (x.grad != 0).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rungs": (1, 1, 1, 1, 1)}, r"rungs=\(1, 1, 1, 1, 1\) are of 5 sizes, and rows of shape \(1, 8, 8\) have maps "
         r"of 3 at most: 4 x 4, 2 x 2, 1 x 1. Take fewer sizes, or rungs=5"),
        ({"rungs": 0}, "rungs is their number, .* such as .* got rungs=0"),
        ({"rungs": (1, 0)}, r"how many there are of each size, top first, .* got rungs=\(1, 0\)"),
        ({"latent": 0}, "a code needs at least one unit; got latent=0"),
        ({"patch": 3}, "a patch is a power of 2 high and wide: 1, 2, 4 ...; got patch=3"),
        ({"width": 0}, "width counts the channels of the way down, at least 1; got width=0"),
        ({"prior": StandardNormal}, "a prior of their own. Wrong: prior=StandardNormal; right: prior=Maps"),
    ],
    ids=lambda v: str(v) if isinstance(v, dict) else "",
)  # fmt: skip
def test_what_no_ladder_of_maps_can_be_is_refused(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        recipes.conv_ladder((1, 8, 8), **arguments)


def test_parts_that_do_not_fit_are_refused():
    with pytest.raises(TypeError, match=r"shares the way down with its prior"):
        ResidualNormal(StandardNormal(4))
    for shapes in (((1, 8, 8), (7,)), ((4, 3, 3), (1, 1, 8, 8)), ((1, 8, 8), (17,))):
        with pytest.raises(ValueError, match=r"Cells leads from an image to a map of its patches, .* Use"):
            Cells(*shapes)


@pytest.mark.parametrize("shape", [(1, 7, 9), (3, 13, 8), (2, 5), (4,)], ids=str)
def test_any_size_comes_back_in_its_shape(shape):
    model, objective = recipes.conv_ladder(shape, rungs=3, width=4)
    x = bits(2, *shape).float()
    assert model(x).px.mean.shape == model.sample(2).sample().shape == x.shape
    assert objective(model, nr.Batch.of(x)).bound.isfinite().all()


# ---- one joint density ------------------------------------------------------------------------------------------


def test_the_prior_is_the_product_of_its_rungs():
    """log_prob of its own draws against the path written out: state, cells, larger maps, normals."""
    prior = ladder()[0].prior
    z = prior().sample((6,))
    top, middle, bottom = z.split([2, 6, 6], 1)
    state, total = prior.start.expand(6, -1, -1, -1), torch.zeros(6, dtype=torch.float64)
    for rung, own in enumerate((top.view(6, 1, 2, 1), middle.view(6, 1, 3, 2), bottom.view(6, 1, 3, 2))):
        if rung == 1:
            state = state.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., :3, :2]
        mean, s, more = prior.before[rung](state).split([1, 1, 4], 1)
        total += normal(own, mean, softplus(s + math.log(math.e - 1)) + 1e-6)
        state = prior.after[rung](state + more + prior.taken[rung](own))
    assert prior.sizes == ((2, 1), (3, 2), (3, 2))
    torch.testing.assert_close(prior().log_prob(z), total)
    torch.testing.assert_close(prior.at(z).state, state)


def test_the_density_integrates_to_one():
    """Two rungs of one place: the sum over a fine grid, of the prior and of a posterior."""
    model, _ = ladder((1, 2, 2), 2)
    axis = torch.linspace(-14, 14, 281, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    q = model.encode(bits(1, 1, 2, 2), draw=True).q
    for p in (model.prior(), q):
        mass = p.log_prob(grid[:, None] if p is q else grid).exp().sum() * (axis[1] - axis[0]) ** 2
        assert float(mass) == pytest.approx(1, abs=1e-6)


def test_a_code_is_scored_alike_on_the_way_and_afterwards():
    """log_q and log_p of the draws against q and p, rates against the formula of moved and scaled normals."""
    model, _ = ladder()
    x = bits(4, 1, 5, 3)
    seen = []
    for head in model.posterior.heads:
        head.register_forward_hook(lambda module, inputs, out: seen.append(out.flatten(1)))
    code = model.encode(x, samples=3, draw=True)
    rates = []
    for said in seen[:3]:
        move, s = said.chunk(2, 1)
        scale = softplus(s + math.log(math.e - 1)) + 1e-6
        rates.append((move**2 + scale**2 - 1) / 2 - scale.log())
    torch.testing.assert_close(code.rates, torch.cat(rates, 1))
    log_q, log_p = code._replace(log_q=None).densities()
    torch.testing.assert_close(log_q, code.log_q)
    torch.testing.assert_close(log_p, code.log_p)
    assert [part.shape for part in model.posterior.split(code.rates)] == [(12, 2), (12, 6), (12, 6)]
    torch.testing.assert_close(sum(part.sum(1) for part in model.posterior.split(code.rates)), code.rate)


def test_rates_are_the_mean_of_the_draws():
    """KL of each rung given those above, by 40,000 draws: within 6 standard errors (failure 2e-9; seed 0)."""
    model, _ = ladder((1, 2, 2), 2)
    torch.manual_seed(0)
    code = model.encode(bits(1, 1, 2, 2), samples=40_000, draw=True)
    gap = code.log_q - code.log_p - code.rate
    assert float(gap.mean().abs()) < 6 * float(gap.std()) / 200


def test_decoding_a_code_is_what_the_pass_did():
    model, _ = ladder()
    x = bits(4, 1, 5, 3)
    found = model(x, samples=2)
    torch.testing.assert_close(
        model.decode(found.code.z).log_prob(x.repeat(2, 1, 1, 1)), found.px.log_prob(x.repeat(2, 1, 1, 1))
    )


def test_a_posterior_that_says_nothing_is_its_prior():
    """With heads of zeros every rate is 0 and both densities are one, whatever the prior."""
    model, _ = ladder()
    for head in model.posterior.heads:
        for parameter in head.layers[-1].parameters():
            parameter.data.zero_()
    code = model.encode(bits(4, 1, 5, 3), draw=True)
    assert float(code.rates.abs().max()) < 1e-11  # sigma is scaled by 1 + 1e-6
    torch.testing.assert_close(code.log_q, code.log_p, atol=1e-4, rtol=0)


def test_log_likelihood_is_that_of_quadrature():
    """Two rungs of one place on images of 2 x 2, 10,000 draws against a sum over the codes."""
    model, _ = ladder((1, 2, 2), 2)
    x = bits(8, 1, 2, 2)
    exact = nr.evaluate.quadrature(model, x)
    found = nr.evaluate.log_likelihood(model, x, samples=10_000)
    torch.testing.assert_close(found.values, exact.values, atol=0.05, rtol=0)


# ---- many rungs, copies, descriptions ---------------------------------------------------------------------------


@pytest.mark.parametrize("rungs", [2, 20])
def test_many_rungs_begin_as_quietly_as_few(rungs):
    """The state neither grows nor fades with its depth, and the rate begins small."""
    model, _ = recipes.conv_ladder((1, 16, 16), rungs=rungs, width=16)
    code, state = model.posterior.descend(model.hidden(bits(8, 1, 16, 16).float()))
    assert 0.2 < float(state.std()) < 5
    assert float(code.rate.mean()) < 0.1 * model.latent
    assert float(code.rates.min()) >= 0


def test_a_cell_of_scale_nought_changes_nothing():
    x = torch.randn(2, 8, 5, 5)
    cell = Cell(8, 8, (5, 5), residual=True, scale=0.0)
    assert torch.allclose(cell(x), x + cell.layers[-1].bias[:, None, None])


def test_a_copy_and_a_description_are_the_same_ladder():
    model, _ = recipes.conv_ladder((1, 9, 13), rungs=(1, 2), latent=2, width=4, prior=partial(Maps, inner=3))
    x = bits(2, 1, 9, 13).float()
    again = recipes.build(model.spec)[0]
    for other in (copy.deepcopy(model), again):
        assert torch.equal(other.encode(x).z, model.encode(x).z)
        assert torch.equal(other.decode(model.encode(x).z).mean, model.decode(model.encode(x).z).mean)
    assert again.spec == model.spec
    assert again.prior.inner == 3


def test_data_choose_channels_and_likelihood():
    """A mixture of logistics of the data's levels for grey values, Bernoulli for black and white; 4 channels."""
    grey = nr.data.load(
        torch.randint(17, (40, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8).numpy()
    )
    chosen = defaults.arguments(grey, "conv_ladder", {})
    assert chosen["latent"] == 4
    assert chosen["likelihood"].func is nr.likelihoods.LogisticMixture
    assert chosen["likelihood"].keywords == {"levels": 17}
    assert defaults.arguments(grey, "conv_ladder", {"latent": 2})["latent"] == 2
    black = nr.data.load(grey.train.x.round().to(torch.uint8).numpy())
    assert defaults.arguments(black, "conv_ladder", {})["likelihood"] is Bernoulli
