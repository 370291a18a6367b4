"""Every recipe through every check. A new recipe adds one name to `RECIPES`."""

import copy
import inspect
import io
import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from narrows import recipes
from narrows.contract import Batch
from narrows.likelihoods import (
    Bernoulli,
    Categorical,
    DiscretisedLogistic,
    Gaussian,
    Laplace,
    LogisticMixture,
    NegativeBinomial,
    Poisson,
)
from narrows.models import Autoencoder
from narrows.networks import Conv, Mlp
from narrows.objectives import Objective, elbo, iwae
from narrows.posteriors import Deterministic
from narrows.posteriors import Gaussian as GaussianPosterior
from narrows.priors import StandardNormal, VampPrior
from narrows.schedules import Cyclical, WarmUp
from narrows.spec import arguments_of, restore

RECIPES = [
    "aae",
    "annealed_vae",
    "autoencoder",
    "beta_tc_vae",
    "beta_vae",
    "ciwae",
    "concrete",
    "conditional",
    "contractive",
    "conv_ladder",
    "denoising",
    "diffusion",
    "dip_vae",
    "dropout",
    "factor_vae",
    "flow_vae",
    "fsq",
    "hvae",
    "infovae",
    "iwae",
    "ladder",
    "linear",
    "miwae",
    "piwae",
    "regularised",
    "renyi",
    "semi_supervised",
    "semi_supervised_aae",
    "sparse",
    "stacked",
    "swae",
    "vae",
    "vampprior",
    "vqvae",
    "vqvae2",
    "wae_mmd",
]

SMALL = {"latent": 3, "network": partial(Mlp, hidden=(8,))}
OWN: dict[str, dict[str, Any]] = {  # what else a small member is given: to be told, or units with a label among them
    "conditional": {"context": 2},
    "conv_ladder": {
        "latent": 1,
        "rungs": (3,),
        "width": 4,
        "likelihood": Bernoulli,
    },  # one place each where a row is no image
    "diffusion": {"jumps": 3},
    "hvae": {"free_bits": 0.0},  # within its free bits a rung costs nothing, which would teach its prior nothing
    "fsq": {"levels": 16},  # fine enough that fresh weights do not round all codes to 0
    "semi_supervised": {"latent": 1},
    "semi_supervised_aae": {"latent": 1},
    "vampprior": {"prior": partial(VampPrior, pseudo=9)},
    "vqvae2": {"codebook": 4096},  # as fine
}
IMAGES = [(1, 8, 8), (3, 9, 13), (1, 28, 28), (3, 30, 45), (3, 128, 128)]
CASES = [((20,), partial(Mlp, hidden=(8,))), *((shape, partial(Conv, width=4)) for shape in IMAGES)]


def built(name: str) -> Autoencoder:
    """A member as its recipe makes it."""
    return getattr(recipes, name)((2,), context=1)[0]


def whole(name: str) -> bool:
    """Whether a member's code is as large as a row, and `latent` nothing to choose."""
    return inspect.signature(getattr(recipes, name)).parameters["latent"].default is None


RATED = [name for name in RECIPES if built(name).density]  # which price their code
CERTAIN = [name for name in RATED if getattr(built(name).posterior, "certain", False)]  # one code for each row
SAMPLED = [name for name in RECIPES if built(name).prior is not None]
every = pytest.mark.parametrize("name", RECIPES)
every_rated = pytest.mark.parametrize("name", RATED)


def make(name: str, shape: tuple[int, ...] = (20,), **arguments: Any) -> recipes.Parts:
    """A small member of the family."""
    settings = {**SMALL, **OWN.get(name, {}), "shape": shape, **arguments}
    if whole(name) and settings["latent"] > 0:
        settings["latent"] = math.prod(settings["shape"])
    return getattr(recipes, name)(**settings)


def told(name: str, rows: int) -> Tensor | None:
    """Context for a small member that needs some, the same for every row."""
    width = OWN.get(name, {}).get("context")
    return torch.eye(width)[:1].expand(rows, -1) if width else None


def batch_of(name: str, x: Tensor, **more: Any) -> Batch:
    """Rows with what such a member is told, each its own target."""
    return Batch(x, x, None if (c := told(name, len(x))) is None else c.to(x), **more)


def bits(*shape: int) -> Tensor:
    """Zeros and ones: every likelihood admits them."""
    return torch.randint(2, shape).float()


def same(a: nn.Module, b: nn.Module) -> bool:
    """Whether two models hold the same weights."""
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_the_list_is_complete() -> None:
    """Each name has one line that says what it is."""
    assert sorted(recipes.names()) == RECIPES
    assert all(line and "\n" not in line for line in recipes.names().values())


# ---- shapes, gradients, types -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("shape", "network"), CASES, ids=lambda v: "x".join(map(str, v)) if type(v) is tuple else "")
@every
def test_terms_are_per_row_and_every_parameter_learns(name: str, shape: tuple[int, ...], network: Callable) -> None:
    """Terms (B,), a scalar loss, and for each parameter a gradient that is finite and not zero throughout."""
    model, objective = make(name, shape, network=network)
    if name == "fsq":  # fresh weights say so little of large images that all units are rounded to 0
        model.encoder.register_forward_hook(lambda module, inputs, h: h / h.detach().std())
    x = bits(4, *shape)
    terms = objective(model, batch_of(name, x))
    for term in (terms.bound, terms.distortion, terms.rate, terms.penalty):
        assert term.shape == (4,)
        assert term.isfinite().all()
    assert terms.loss.shape == terms.discrepancy.shape == ()
    assert not terms.bound.requires_grad
    terms.loss.backward()
    for parameter in model.parameters():
        assert parameter.grad.isfinite().all()
        assert parameter.grad.any()
    places = getattr(model.posterior, "grids", [getattr(model.posterior, "place", ())])
    units = math.prod(shape) if whole(name) else 3 * sum(map(math.prod, places))  # on every place
    assert (model.shape, model.latent) == (shape, units)
    assert model(x, told(name, 4)).px.mean.shape == x.shape
    assert model.encode(x, told(name, 4)).z.shape == (4, units)


@pytest.mark.parametrize(
    "likelihood",
    [
        Bernoulli,
        Gaussian,
        Laplace,
        NegativeBinomial,
        Poisson,
        partial(Categorical, levels=4),
        partial(DiscretisedLogistic, levels=4),
        partial(LogisticMixture, levels=4, components=2),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@every
def test_any_likelihood_in_any_precision(name: str, dtype: torch.dtype, likelihood: Callable) -> None:
    """Terms and pictures keep the type of the weights."""
    model, objective = make(name, (2, 5), likelihood=likelihood)
    model.to(dtype), objective.to(dtype)
    x = bits(4, 2, 5).to(dtype)
    batch = batch_of(name, x)
    terms, px = objective(model, batch), model(x, batch.context).px
    for value in (*terms[:6], px.mean, px.sample()):
        assert value.dtype == dtype
        assert value.isfinite().all()


@every_rated
@pytest.mark.parametrize("learn", ["shared", "each"])
def test_a_learned_sigma_is_trained(name: str, learn: str) -> None:
    """Its gradient comes from the distortion."""
    model, objective = make(name, likelihood=partial(Gaussian, learn=learn))
    objective(model, batch_of(name, bits(4, 20))).loss.backward()
    assert model.likelihood.log_sigma.grad.all()


@every
def test_several_draws_run_the_encoder_once(name: str) -> None:
    """z has the sample axis slowest; distortion, rate and bound are still one number a row."""
    model, objective = make(name, samples=5)
    model.eval()
    calls = []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    terms = objective(model, batch_of(name, bits(4, 20)))
    # once more for its slope or the rows it scaled, where a penalty asks for it, and for the pseudo-inputs of a prior
    assert len(calls) == (2 if name in ("contractive", "diffusion", "vampprior") else 1)
    assert terms.bound.shape == terms.distortion.shape == terms.rate.shape == (4,)
    x, c = bits(4, 20), told(name, 4)
    code = model.encode(x, c, samples=5, draw=True)
    assert code.z.shape == (20, model.latent)
    assert code.rate.shape == code.penalty.shape == (20,)
    point = model.encode(x, c, samples=5)
    assert torch.equal(point.z.unflatten(0, (5, 4)), model.encode(x, c).z.expand(5, 4, model.latent))


@every
def test_encoding_without_a_draw_is_deterministic(name: str) -> None:
    """And a row's code depends on no other row beyond rounding."""
    model = make(name)[0].eval()
    x, c = bits(6, 20), told(name, 6)
    assert torch.equal(model.encode(x, c).z, model.encode(x, c).z)
    torch.testing.assert_close(model.encode(x[2:3], told(name, 1)).z, model.encode(x, c).z[2:3])


@every_rated
def test_draws_of_a_code_differ_and_average_to_its_mean(name: str) -> None:
    """20,000 draws of 3 units, or 20, within 6 standard errors (failure 4e-8 at most; seed 0)."""
    model = make(name)[0].eval()  # in training the draws of a choice are relaxed
    x, c = bits(1, 20), told(name, 1)
    if name in CERTAIN:  # which is its own mean
        assert torch.equal(model.encode(x, c, samples=3, draw=True).z, model.encode(x, c).z.expand(3, -1))
        return
    z = model.encode(x, c, samples=20_000, draw=True).z
    mean = model.encode(x, c).z[0]
    if whole(name):  # the point code is where a way without noise ends: draws have what signal is left for their mean
        mean = model.hidden(x, c)[0] / math.sqrt(1 + math.exp(model.posterior.noise.last))
    assert ((z.mean(0) - mean).abs() < 6 * z.std(0) / math.sqrt(20_000)).all()
    assert (z.std(0) > 0).all()


# ---- sampling and context ---------------------------------------------------------------------------------------


@every
def test_samples_have_the_shape_of_the_data(name: str) -> None:
    """n draws from the prior through the decoder; without a prior, an error that says what to do."""
    model, _ = make(name, (1, 4, 5))
    if name in SAMPLED:
        px = model.sample(7, told(name, 7))
        assert px.mean.shape == px.sample().shape == (7, 1, 4, 5)
    else:
        with pytest.raises(TypeError, match=r"no prior .* to draw from. Wrong: .* right: fit_prior\(model, data\)"):
            model.sample(7)


@pytest.mark.parametrize("network", [SMALL["network"], partial(Conv, width=4)], ids=["mlp", "conv"])
@every
def test_context_is_told_to_both_sides_and_is_required(name: str, network: Callable) -> None:
    """Other context, other code and other picture of the same code; none, or too little, is an error of shapes."""
    model, objective = make(name, (1, 8, 8), context=2, network=network)
    x, one, two = bits(3, 1, 8, 8), torch.zeros(3, 2), torch.ones(3, 2)
    assert objective(model, Batch(x, x, one)).bound.shape == (3,)
    code = model.encode(x, one)
    assert not torch.equal(code.z, model.encode(x, two).z)
    assert not torch.equal(model.decode(code.z, one).mean, model.decode(code.z, two).mean)
    several = model.encode(x, one, samples=4, draw=True)
    assert model.decode(several.z, one).mean.shape == (12, 1, 8, 8)
    for wrong in (None, one[:, :1]):
        with pytest.raises(ValueError, match=r"is told 2 features of every row \(its context\); got [01]"):
            model(x, wrong)
    if name in SAMPLED:
        with pytest.raises(TypeError, match="told 2 features of every row, so sampling needs them too"):
            model.sample(3)
        assert model.sample(3, one).mean.shape == (3, 1, 8, 8)


def test_repeated_draws_keep_their_own_context() -> None:
    """The rows of context go round with the rows of x, sample by sample."""
    model, _ = make("vae", context=2)
    x, context = bits(3, 20), torch.randn(3, 2)
    z = model.encode(x, context, samples=4, draw=True).z
    for k, part in enumerate(z.unflatten(0, (4, 3))):
        whole = model.decode(z, context).mean.unflatten(0, (4, 3))[k]
        torch.testing.assert_close(whole, model.decode(part, context).mean)


# ---- files, copies, seeds ---------------------------------------------------------------------------------------


@every
def test_weights_survive_a_file_and_a_copy(name: str) -> None:
    """State dict saved, loaded with weights_only into a fresh model: equal outputs; a deepcopy is equal and apart."""
    model, other = make(name)[0].eval(), make(name, seed=1)[0].eval()
    file, x, c = io.BytesIO(), bits(4, 20), told(name, 4)
    torch.save(model.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    twin = copy.deepcopy(model)
    for reader in (other, twin):
        assert torch.equal(reader.decode(reader.encode(x, c).z, c).mean, model.decode(model.encode(x, c).z, c).mean)
    nn.init.zeros_(next(twin.parameters()))
    assert not same(twin, model)
    assert twin.spec == model.spec


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"likelihood": partial(Gaussian, sigma=0.5), "samples": 2},
        {"likelihood": partial(DiscretisedLogistic, levels=7), "context": 2},
        {"shape": (1, 8, 9), "network": Conv, "latent": 5},
        {"network": partial(Mlp, hidden=()), "seed": 3},
    ],
    ids=str,
)
@every
def test_a_model_can_be_rebuilt_from_its_description(name: str, arguments: dict[str, Any]) -> None:
    """`build(json(spec))` has the same weights, parts and spec: the run folder needs no code."""
    model, objective = make(name, **arguments)
    again, its = recipes.build(json.loads(json.dumps(model.spec)))
    assert same(model, again)
    assert again.spec == model.spec
    assert repr(again) == repr(model)
    assert arguments_of(its) == arguments_of(objective)
    assert its.equation == objective.equation


@every
def test_own_networks_train_but_are_not_described(name: str) -> None:
    """Code is never named in a file."""
    model, objective = make(name, network=lambda inputs, outputs, context, **_: Mlp(inputs, outputs, context, (4,)))
    assert model.spec is None
    assert objective(model, batch_of(name, bits(4, 20))).loss.isfinite()


@every
def test_the_seed_alone_decides_the_weights(name: str) -> None:
    """Same seed, same weights whatever was drawn before; the global generator is left as found."""
    model, _ = make(name, seed=4)
    torch.randn(17)
    state = torch.get_rng_state()
    assert same(make(name, seed=4)[0], model)
    assert not same(make(name, seed=5)[0], model)
    assert torch.equal(torch.get_rng_state(), state)


@every
def test_repr_names_the_parts(name: str) -> None:
    """What prints is what was built."""
    text = repr(make(name, likelihood=partial(Gaussian, sigma=0.5))[0])
    encoder, latent = ("Scaled", 20) if whole(name) else ("Mlp", 3)
    parts = (f"(encoder): {encoder}", f"latent={latent}", "(posterior): ", "(decoder): Mlp")
    for part in (*parts, "(likelihood): Gaussian(shape=(20,)"):
        assert part in text


# ---- settings ---------------------------------------------------------------------------------------------------


def loss_at(name: str, step: int | None, **settings: Any) -> float:
    """Loss of one batch at a step, on the same noise."""
    model, objective = make(name, **settings)
    x = bits(4, 20)
    torch.manual_seed(1)
    batch = batch_of(name, x, step=None if step is None else torch.tensor(step))
    return float(objective(model, batch).loss.detach())


def refuses(name: str, settings: dict[str, Any]) -> bool:
    """Whether a capacity meets a bound that has the rate inside, or a rate that costs what it costs: to be said."""
    if name in CERTAIN and {"capacity", "free_bits"} & set(settings):
        with pytest.raises(ValueError, match="no rate that could be made free"):
            make(name, **settings)
        return True
    if "capacity" not in settings or make(name)[1].bound is elbo:
        return False
    with pytest.raises(ValueError, match="a capacity takes the rate out of the bound"):
        make(name, **settings)
    return True


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"beta": WarmUp(10, final=3.0)}, 10),
        ({"beta": Cyclical(8)}, 8),
        ({"capacity": WarmUp(6, final=9.0)}, 6),
        ({"capacity": WarmUp(6, final=9.0), "beta": WarmUp(10)}, 10),
    ],
    ids=str,
)
@every_rated
def test_schedules_move_the_loss_until_they_settle(name: str, settings: dict[str, Any], steps: int) -> None:
    """No step is the final value; the objective knows when that is reached."""
    if refuses(name, settings):
        return
    own = make(name, **{key: schedule(None) for key, schedule in settings.items()})[1].settled  # of what stays
    steps = max(steps, own)
    assert make(name, **settings)[1].settled == steps
    losses = [loss_at(name, step, **settings) for step in (1, steps, steps + 5, None)]
    assert losses[0] != losses[1] == losses[2] == losses[3]


@pytest.mark.parametrize("settings", [{"beta": 2.0}, {"free_bits": 0.5}, {"capacity": 5.0}, {"samples": 3}], ids=str)
@every_rated
def test_no_setting_is_without_effect(name: str, settings: dict[str, Any]) -> None:
    """Each moves the loss from where it was."""
    if refuses(name, settings) or (name in CERTAIN and "samples" in settings):  # all of whose draws are alike
        return
    assert loss_at(name, None, **settings) != loss_at(name, None)


@pytest.mark.parametrize(
    ("argument", "right"), [("latnet", "latent"), ("betta", "beta"), ("fre_bits", "free_bits"), ("sed", "seed")]
)
@every
def test_a_misspelt_argument_is_refused_with_the_nearest(name: str, argument: str, right: str) -> None:
    """The recipe's own and the objective's alike."""
    with pytest.raises(TypeError, match=f"{name}: there is no argument '{argument}'; did you mean '{right}'"):
        make(name, **{argument: 1})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"latent": 0}, ValueError, "a code needs at least one unit; got latent=0"),
        ({"beta": -1.0}, ValueError, "beta is a weight and cannot be negative; got -1.0"),
        (
            {"beta": WarmUp(5, final=1.0), "free_bits": float("nan")},
            ValueError,
            "free_bits at least 0 nats; .*free_bits=nan",
        ),
        ({"samples": 2.5}, ValueError, "samples is at least 1 and whole.*samples=2.5"),
        ({"context": -1}, ValueError, "context is a number of features, 0 for none; got -1"),
        ({"beta": "2"}, TypeError, "beta is a number or a schedule such as .*got '2'"),
        ({"capacity": -1.0}, ValueError, "capacity is a weight and cannot be negative; got -1.0"),
        ({"samples": 0}, ValueError, "samples is at least 1 .* got samples=0"),
        ({"free_bits": -0.1}, ValueError, "free_bits at least 0 nats; .* free_bits=-0.1"),
        ({"rate": "open"}, ValueError, 'rate is "closed" or "sampled"; got \'open\''),
        (
            {"beta": 0.0, "likelihood": partial(Gaussian, learn="shared")},
            ValueError,
            "the likelihood has no optimum. Wrong: .* right: .* beta > 0",
        ),
        (
            {"shape": (1, 7, 9), "network": Conv},
            ValueError,
            r"images of at least 8 x 8, .* got \(1, 7, 9\) .* Use network=Mlp",
        ),
    ],
    ids=lambda v: str(v) if isinstance(v, dict) else "",
)
@every
def test_what_means_nothing_is_refused(name: str, arguments: dict, error: type[Exception], message: str) -> None:
    """At once, with what was asked and what to do."""
    with pytest.raises(error, match=message):
        make(name, **arguments)


@pytest.mark.parametrize("settings", [{"beta": 1.0}, {"rate": "sampled"}, {"beta": WarmUp(3)}], ids=str)
def test_a_deterministic_code_has_no_rate_to_weigh(settings: dict[str, Any]) -> None:
    """In a recipe at once, in hands of one's own when the weights are asked for."""
    with pytest.raises(TypeError, match=r"no density, so no rate to weigh or sample\. Use beta=0"):
        make("autoencoder", **settings)


@pytest.mark.parametrize("settings", [{"rate": "sampled"}, {"rate": "sampled", "bound": iwae}], ids=["sampled", "iwae"])
def test_importance_weights_of_a_deterministic_code_are_refused(settings: dict[str, Any]) -> None:
    """The message says which recipe or part to take instead."""
    model, _ = make("autoencoder")
    with pytest.raises(TypeError, match=r"importance weights .* deterministic code has none\. Use recipe vae or iwae"):
        Objective(**settings)(model, Batch.of(bits(4, 20)))


def test_importance_weights_need_the_sampled_rate() -> None:
    """The closed one says nothing about a single draw."""
    with pytest.raises(ValueError, match='it needs rate="sampled"'):
        make("iwae", rate="closed")


@pytest.mark.parametrize("part", [Deterministic, StandardNormal])
def test_a_code_has_units(part: type[nn.Module]) -> None:
    """Built by hand too."""
    with pytest.raises(ValueError, match="a code needs at least one unit; got latent=-1"):
        part(-1)


def test_a_model_without_a_likelihood_is_refused() -> None:
    """The fourth part is not optional."""
    with pytest.raises(TypeError, match=r"the last part of a model is a likelihood .*; got Linear"):
        Autoencoder(nn.Identity(), GaussianPosterior(StandardNormal(2)), nn.Identity(), nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        ("vea", {}, "no recipe 'vea'; did you mean 'vae'"),
        ("vae", {"likelihood": "Gausian"}, "no likelihood 'Gausian'; did you mean 'Gaussian'"),
        ("vae", {"beta": {"WarmUp": {"step": 3}}}, "beta: .*unexpected keyword argument 'step'"),
    ],
)
def test_a_broken_description_is_refused(recipe: str, arguments: dict[str, Any], message: str) -> None:
    """With the name that was meant."""
    with pytest.raises(ValueError, match=message):
        recipes.build({"recipe": recipe, "arguments": {"shape": [2], **arguments}})


@pytest.mark.parametrize("settings", [{"free_bits": 0.1}, {"capacity": 1.0}], ids=str)
def test_a_deterministic_code_has_no_rate_to_shape(settings: dict[str, float]) -> None:
    """What would change nothing is refused."""
    with pytest.raises(TypeError, match="no rate to weigh or sample"):
        recipes.autoencoder((6,), latent=2, **settings)


def test_numbers_of_numpy_are_numbers() -> None:
    """They end in the description as plain ones."""
    model, _ = recipes.vae((6,), latent=np.int64(3), beta=np.float32(0.5))
    assert model.spec is not None
    assert model.spec["arguments"]["latent"] == 3
    assert json.dumps(model.spec)


@pytest.mark.parametrize("name", recipes.names())
def test_defaults_are_what_a_recipe_takes_when_nothing_is_said(name: str) -> None:
    """`defaults` in JSON form against the objective that is built."""
    model, objective = getattr(recipes, name)((6,), context=1)
    assert model.spec is not None
    said = recipes.defaults(name)
    assert all(said[key] == value for key, value in model.spec["arguments"].items() if key not in ("shape", "context"))
    assert restore("beta", said["beta"]) in (objective.beta, objective.beta(None))
    assert (said["samples"], said["rate"]) == (objective.samples, objective.rate)
