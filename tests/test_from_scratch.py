"""The library against the single-file derivations in docs/from_scratch: same weights, same noise, same numbers.

In float64 the two differ by the order of their sums, 1e-15 relative; 20 steps of Adam, whose first steps divide a
gradient by its own size, may amplify that. 1e-6 is the promise, and 1e-9 is what is asked.
"""

import importlib.util
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from narrows import draws, recipes
from narrows.contract import Batch, Terms
from narrows.divergences import JensenShannon
from narrows.likelihoods import Gaussian
from narrows.networks import Mlp

FOLDER = Path(__file__).parents[1] / "docs" / "from_scratch"
ROWS, WIDTH, LATENT = 50, 64, 8
close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)


def scratch(name: str) -> ModuleType:
    """A file as a module; importing it trains nothing."""
    spec = importlib.util.spec_from_file_location(f"from_scratch_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Pair:
    """One model twice: the library's parts, and the same weights as lists of tensors."""

    def __init__(self, name: str, **arguments: Any) -> None:
        self.file = scratch(name)
        network = partial(Mlp, hidden=(128,))
        self.model, self.objective = getattr(recipes, name)((WIDTH,), latent=LATENT, network=network, **arguments)
        self.model.double()
        weights = [p.detach().clone().requires_grad_() for p in self.model.parameters()]
        self.encoder, self.decoder = weights[:4], weights[4:]
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in weights]

    def terms(self, x: Tensor, step: int) -> Terms:
        """The library's, on the noise of a step."""
        with draws.seeded(0, step):
            return self.objective(self.model, Batch.of(x))


def noise(step: int) -> Tensor:
    """What the library draws at a step."""
    with draws.seeded(0, step):
        return draws.normal(1, torch.empty(ROWS, LATENT, dtype=torch.float64))[0]


def rows(name: str) -> Tensor:
    """Bits for the VAE, grey values for the autoencoder."""
    x = torch.rand(ROWS, WIDTH, dtype=torch.float64)
    return x.round() if name == "vae" else x


def test_vae_terms() -> None:
    """Codes, distortion, rate and bound of each row."""
    pair, x = Pair("vae"), rows("vae")
    terms = pair.terms(x, 0)
    mu, sigma = pair.file.encode(x, pair.encoder)
    code = pair.model.encode(x)
    close(code.z, mu)
    close(code.q.base_dist.scale, sigma)
    logits = pair.file.decode(mu + sigma * noise(0), pair.decoder)
    close(terms.distortion, pair.file.distortion(x, logits))
    close(terms.rate, pair.file.rate(mu, sigma))
    close(terms.bound, pair.file.elbo(x, pair.encoder, pair.decoder, noise(0)).detach())
    close(pair.model.decode(mu).mean, torch.sigmoid(pair.file.decode(mu, pair.decoder)))


def test_autoencoder_terms() -> None:
    """Codes, reconstructions and the distortion of each row, in nats with its constant."""
    pair, x = Pair("autoencoder"), rows("autoencoder")
    terms = pair.terms(x, 0)
    z = pair.file.encode(x, pair.encoder)
    close(pair.model.encode(x).z, z)
    mean = pair.file.decode(z, pair.decoder)
    close(pair.model(x).px.mean, mean)
    close(terms.distortion, pair.file.distortion(x, mean))
    close(terms.bound, -pair.file.distortion(x, mean).detach())


@pytest.mark.parametrize("name", ["autoencoder", "vae"])
def test_gradients(name: str) -> None:
    """Of the loss, for every parameter."""
    pair, x = Pair(name), rows(name)
    pair.terms(x, 0).loss.backward()
    if name == "vae":
        loss = -pair.file.elbo(x, pair.encoder, pair.decoder, noise(0)).mean()
    else:
        loss = pair.file.distortion(x, pair.file.decode(pair.file.encode(x, pair.encoder), pair.decoder)).mean()
    gradients = torch.autograd.grad(loss, pair.encoder + pair.decoder)
    for parameter, gradient in zip(pair.model.parameters(), gradients, strict=True):
        close(parameter.grad, gradient)


@pytest.mark.parametrize("name", ["autoencoder", "vae"])
def test_twenty_steps_of_training(name: str) -> None:
    """torch's Adam on the library's loss, and the hand-written one: the same losses and the same weights."""
    pair, x = Pair(name), rows(name)
    optimiser = torch.optim.Adam(pair.model.parameters(), lr=1e-3)
    for t in range(1, 21):
        loss = pair.terms(x, t).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        epsilon = [noise(t)] if name == "vae" else []
        other = pair.file.train_step(x, pair.encoder, pair.decoder, *epsilon, pair.moments, t)
        assert float(loss.detach()) == pytest.approx(other, abs=1e-6)
    for parameter, weight in zip(pair.model.parameters(), pair.encoder + pair.decoder, strict=True):
        close(parameter.data, weight.data)


def test_sigma_of_the_library_only_divides_the_squared_error() -> None:
    """At sigma = 1/2, |x - m|^2 / 2 counts four times, and each value costs log 1/2 more."""
    pair, x = Pair("autoencoder", likelihood=partial(Gaussian, sigma=0.5)), rows("autoencoder")
    pair.model.likelihood.log_sigma.fill_(torch.tensor(0.5, dtype=torch.float64).log())  # not float32's log 1/2
    z = pair.file.encode(x, pair.encoder)
    ours = pair.file.distortion(x, pair.file.decode(z, pair.decoder))
    constant = pair.file.distortion(x, x)
    close(pair.terms(x, 0).distortion, 4 * (ours - constant) + constant + WIDTH * pair.model.likelihood.log_sigma)


def test_an_adversarial_autoencoder() -> None:
    """Both players' losses, every gradient, and the weights after twenty steps of both at once."""
    file, x = scratch("aae"), rows("aae")
    network = partial(Mlp, hidden=(128,))
    model, objective = recipes.aae(
        (WIDTH,), latent=LATENT, network=network, game=JensenShannon(penalty=0.0), weight=0.1
    )
    model.double(), objective.double()
    players = [*model.parameters(), *objective.parameters()]
    weights = [p.detach().clone().requires_grad_() for p in players]
    encoder, decoder, critic = weights[:4], weights[4:8], weights[8:]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in weights]
    optimiser = torch.optim.Adam(players, lr=1e-3)
    for t in range(1, 21):
        with draws.seeded(0, t):
            real = model.draw(ROWS)
        with draws.seeded(0, t):
            terms = objective(model, Batch.of(x))
        model_loss, critic_loss, slopes = file.gradients(x, real, encoder, decoder, critic, 0.1)
        close(terms.discrepancy, -critic_loss.detach())
        close(terms.loss, model_loss + critic_loss)
        optimiser.zero_grad()
        terms.loss.backward()
        for parameter, slope in zip(players, slopes, strict=True):
            close(parameter.grad, slope)
        optimiser.step()
        file.train_step(x, real, encoder, decoder, critic, moments, t, 0.1)
    for parameter, weight in zip(players, weights, strict=True):
        close(parameter.data, weight.data)


@pytest.mark.parametrize("name", ["aae", "autoencoder", "vae"])
def test_a_file_stands_alone(name: str) -> None:
    """It imports nothing of the library and fits a few screens."""
    text = (FOLDER / f"{name}.py").read_text()
    assert "narrows" not in text
    assert len(text.splitlines()) <= 100
