"""Penalties and corruptions against closed forms and slow derivations of their own."""

import math
from functools import partial

import pytest
import torch
from torch.func import jacrev, vmap

from narrows import recipes
from narrows.contract import Batch
from narrows.corruptions import Dropout, GaussianNoise, Masking, SaltAndPepper
from narrows.likelihoods import Bernoulli, Gaussian
from narrows.models import Autoencoder
from narrows.networks import Conv, Mlp
from narrows.objectives import Objective
from narrows.penalties import L1, Contraction, DecoderSlope, Energy, TargetActivity, Weights
from narrows.posteriors import Deterministic


def model_of(width: int = 6, latent: int = 3) -> Autoencoder:
    """A small autoencoder in double precision."""
    return recipes.autoencoder((width,), latent=latent, network=partial(Mlp, hidden=(5,)))[0].double()


def paid(penalty: torch.nn.Module, model: Autoencoder, x: torch.Tensor) -> torch.Tensor:
    """What each row pays, as the objective reports it."""
    objective = Objective(0.0, penalty=penalty)
    terms = objective(model, Batch.of(x))
    assert torch.allclose(terms.loss, (terms.distortion + terms.penalty).mean(0))  # and that it is paid
    return terms.penalty.detach()


def test_contraction_is_the_squared_jacobian() -> None:
    """Exactly with probes = 0, by torch's own Jacobian; for a linear encoder it is |W|^2 whatever x."""
    model, x = model_of(), torch.randn(7, 6, dtype=torch.float64)
    jacobian = vmap(jacrev(lambda row: model.encode(row[None]).z[0]))(x)  # (7, 3, 6)
    expected = jacobian.square().sum((1, 2)).detach()
    assert torch.allclose(paid(Contraction(0.7, probes=0), model, x), 0.7 * expected, rtol=1e-10)
    linear = recipes.autoencoder((6,), latent=3, network=partial(Mlp, hidden=()))[0].double()
    square = linear.encoder.layers[0].weight.square().sum()
    assert torch.allclose(paid(Contraction(1.0, probes=0), linear, x), square.expand(7), rtol=1e-10)


def test_contraction_of_a_sigmoid_layer_is_that_of_the_paper() -> None:
    """sum_j (h_j (1 - h_j))^2 sum_i W_ji^2: Rifai et al. 2011, equation 3."""

    class Layer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.affine = torch.nn.Linear(6, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.affine(x).sigmoid()

    layer = Layer()
    model = Autoencoder(layer, Deterministic(3), Mlp((3,), (1, 6)), Gaussian((6,))).double()
    x = torch.randn(5, 6, dtype=torch.float64)
    h = layer(x)
    expected = (h * (1 - h)).square() @ layer.affine.weight.square().sum(1)
    assert torch.allclose(paid(Contraction(1.0, probes=0), model, x), expected, rtol=1e-10)


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_probes_estimate_the_slope_without_bias(part: str) -> None:
    """4,000 probes of one row within 5 standard errors (failure 6e-7; seed 0)."""
    model, x = model_of(), torch.randn(1, 6, dtype=torch.float64)
    z = model.encode(x).z[0].detach()
    if part == "encoder":
        jacobian = jacrev(lambda row: model.encode(row[None]).z[0])(x[0])
        penalty = Contraction(1.0, probes=1)
    else:
        jacobian = jacrev(lambda code: model.decode(code[None]).mean[0])(z)
        penalty = DecoderSlope(1.0, probes=1)
    draws = paid(penalty, model, x.expand(4000, 6))
    error = draws.std() / math.sqrt(4000)
    assert abs(draws.mean() - jacobian.square().sum()) < 5 * error
    assert error > 0


def test_slopes_reach_every_weight_they_depend_on() -> None:
    """Second derivatives: the encoder's for a contraction, the decoder's for its own slope."""
    model, x = model_of(), torch.randn(4, 6, dtype=torch.float64)
    for penalty, moved, still in (
        (Contraction(), model.encoder.layers[0].weight, model.decoder.layers[0].weight),
        (DecoderSlope(), model.decoder.layers[0].weight, None),
    ):
        model.zero_grad()
        found = model(x)
        penalty(model, Batch.of(x), found).sum().backward()
        assert moved.grad.abs().sum() > 0
        assert still is None or still.grad is None


def test_energy_weights_and_l1_are_what_they_say() -> None:
    """Half the squared code; the squared weights without biases; the absolute code."""
    model, x = model_of(), torch.randn(4, 6, dtype=torch.float64)
    z = model.encode(x).z
    assert torch.allclose(paid(Energy(0.3), model, x), 0.15 * z.square().sum(1))
    assert torch.allclose(paid(L1(0.3), model, x), 0.3 * z.abs().sum(1))
    for part, modules in (
        ("both", (model.encoder, model.decoder)),
        ("encoder", (model.encoder,)),
        ("decoder", (model.decoder,)),
    ):
        square = sum(layer.weight.square().sum() for module in modules for layer in module.layers)
        assert torch.allclose(paid(Weights(0.1, part), model, x), 0.1 * square.expand(4))


def test_target_activity_is_the_divergence_of_coins() -> None:
    """Against torch's KL of Bernoullis, summed over the units; zero at the target."""
    model, x = model_of(), torch.randn(8, 6, dtype=torch.float64)
    model.encoder = torch.nn.Sequential(model.encoder, torch.nn.Sigmoid())
    active = model.encode(x).z.mean(0)
    coins = torch.distributions.Bernoulli
    expected = torch.distributions.kl_divergence(coins(torch.tensor(0.05).double()), coins(active)).sum()
    assert torch.allclose(paid(TargetActivity(2.0, 0.05), model, x), 2 * expected.expand(8), rtol=1e-6)


def test_penalties_add_up() -> None:
    """Several at once, and each once for every draw of a code."""
    model, x = model_of(), torch.randn(4, 6, dtype=torch.float64)
    objective = Objective(0.0, penalty=[Energy(1.0), L1(2.0)], samples=3)
    apart = paid(Energy(1.0), model, x) + paid(L1(2.0), model, x)
    assert torch.allclose(objective(model, Batch.of(x)).penalty, apart)
    several = Objective(0.0, penalty=Contraction(1.0, probes=0), samples=3)(model, Batch.of(x)).penalty
    assert torch.allclose(several, paid(Contraction(1.0, probes=0), model, x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: L1(-1.0), "L1: the weight is a number of at least 0; got weight=-1"),
        (
            lambda: Contraction(1.0, probes=-1),
            "a number of directions, 0 for all units exactly; got probes=-1",
        ),
        (lambda: DecoderSlope(1.0, probes=0), "at least one direction; got probes=0"),
        (lambda: TargetActivity(target=1.0), "a target activity lies between 0 and 1; got target=1.0"),
        (lambda: Weights(part="code"), 'part is "both", "encoder" or "decoder"; got \'code\''),
        (lambda: Masking(1.0), "a share of the values between 0 and 1; got share=1.0"),
        (lambda: Dropout(0.0), "a share of the values between 0 and 1; got share=0.0"),
        (lambda: SaltAndPepper(-0.1), "a share of the values between 0 and 1; got share=-0.1"),
        (lambda: GaussianNoise(0.0), "a standard deviation above 0; got sigma=0.0"),
        (lambda: recipes.dropout((4,), share=1.0), "at least 0 and below 1; got dropout=1.0"),
        (lambda: recipes.regularised((4,), decoder="l2"), '"weights" \\(RAE-L2\\) or "slope" \\(RAE-GP\\); got \'l2\''),
        (lambda: recipes.aae((4,), encoder="gauss"), 'encoder is "deterministic" or "gaussian"; got \'gauss\''),
    ],
    ids=range(12),
)
def test_settings_that_mean_nothing_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# ---- corruptions ------------------------------------------------------------------------------------------------


def test_corruptions_have_the_moments_they_claim() -> None:
    """A million values within 6 standard errors (failure 1e-8; seed 0)."""
    x = torch.full((1000, 1000), 0.6)
    x[:, 0], x[:, 1] = 0.0, 1.0
    inner = x[:, 2:]
    n = inner.numel()
    noise = GaussianNoise(0.3)(x)[:, 2:] - inner
    assert abs(noise.mean()) < 6 * 0.3 / math.sqrt(n)
    assert abs(noise.std() - 0.3) < 6 * 0.3 / math.sqrt(2 * n)
    spread = 6 * math.sqrt(0.25 * 0.75 / n)
    assert abs((Masking(0.25)(x)[:, 2:] == 0).float().mean() - 0.25) < spread
    dropped = Dropout(0.25)(x)[:, 2:]
    assert abs((dropped == 0).float().mean() - 0.25) < spread
    assert abs(dropped.mean() - 0.6) < 6 * 0.6 * math.sqrt(0.25 / 0.75 / n)
    peppered = SaltAndPepper(0.25)(x)[:, 2:]
    for value in (0.0, 1.0):
        assert abs((peppered == value).float().mean() - 0.125) < 6 * math.sqrt(0.125 * 0.875 / n)
    assert torch.equal(peppered.unique(), torch.tensor([0.0, 0.6, 1.0]))


def test_a_denoiser_reads_corrupted_rows_and_is_scored_on_clean_ones() -> None:
    """A corruption that can be told apart: the encoder sees it, the likelihood and `encode` do not."""
    model, objective = recipes.denoising((4,), latent=2, corruption=torch.zeros_like)
    x, seen = torch.rand(3, 4), []
    model.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    terms = objective(model, Batch.of(x))
    assert torch.equal(seen[0], torch.zeros(3, 4))
    clean = -Gaussian((4,))(model.decoder(model.encoder(torch.zeros(3, 4)))).log_prob(x)
    assert torch.allclose(terms.distortion, clean)
    model.encode(x)
    assert torch.equal(seen[-1], x)
    assert model.spec is None  # a corruption of one's own has no name in a file


def test_the_same_corruption_in_one_process_and_in_parts() -> None:
    """Rows dealt to two processes see the noise they would see in one."""
    from narrows import draws

    x = torch.rand(6, 5)
    for corruption in (GaussianNoise(), Masking(), SaltAndPepper(0.9), Dropout()):
        torch.manual_seed(3)
        whole = corruption(x)
        torch.manual_seed(3)
        with draws.part(4, 2, 6):
            part = corruption(x[4:])
        if not isinstance(corruption, SaltAndPepper):  # whose extremes are those of the rows at hand
            assert torch.equal(part, whole[4:])


def test_dropout_leaves_out_hidden_units_in_training_only() -> None:
    """The mean over many draws is the network without dropout where it is linear behind the units."""
    network = Mlp((3,), (2,), hidden=(400,), dropout=0.5)
    x = torch.rand(1, 3)
    assert not torch.equal(network(x), network(x))
    still = Mlp((3,), (2,), hidden=(400,))
    still.load_state_dict(network.state_dict())
    draws = network(x.expand(20_000, 3))
    assert ((draws.mean(0) - still(x)[0]).abs() < 6 * draws.std(0) / math.sqrt(20_000)).all()  # failure 4e-9; seed 0
    network.eval()
    assert torch.equal(network(x), still(x))
    images = Conv((1, 8, 8), (4,), dropout=0.5)
    assert not torch.equal(images(torch.ones(1, 1, 8, 8)), images(torch.ones(1, 1, 8, 8)))


def test_a_bernoulli_denoiser_is_described_whole() -> None:
    """Corruption, likelihood and penalty come back from JSON."""
    model, _ = recipes.denoising((4,), latent=2, corruption=Masking(0.5), likelihood=Bernoulli, penalty=L1(0.1))
    again, its = recipes.build(model.spec)
    assert again.corruption == Masking(0.5)
    assert its.penalty[0].weight == 0.1
