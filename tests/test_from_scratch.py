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
from narrows.schedules import WarmUp

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


class Quantising:
    """A VQ-VAE twice: the library's, and the same weights and codebook as tensors; five slots of 8 units."""

    def __init__(self) -> None:
        self.file = scratch("vqvae")
        self.model, self.objective = recipes.vqvae(
            (WIDTH,), latent=LATENT, network=partial(Mlp, hidden=(128,)), grid=(5,), codebook=12, decay=0.99
        )
        self.model.double()
        self.weights = [p.detach().clone().requires_grad_() for p in self.model.parameters()]
        self.networks = self.weights[:4], self.weights[4:]
        said = self.file.encode(rows("vae"), self.networks[0], LATENT)
        codebook = said.detach().flatten(0, 1)[:12].clone()  # as the file begins: what the first rows say
        self.book = codebook, torch.ones(12, dtype=torch.float64), codebook.clone()
        self.posterior = self.model.posterior
        self.posterior.vectors.copy_(codebook), self.posterior.sums.copy_(codebook)

    def same_book(self) -> None:
        """Codewords, how many choose each, and the sums of what chose."""
        for theirs, ours in zip(
            (self.posterior.vectors, self.posterior.count, self.posterior.sums), self.book, strict=True
        ):
            close(theirs[0], ours)


def test_a_vqvae() -> None:
    """Codes, every term and gradient, the codebook after one average, and all of it after twenty steps."""
    pair, x = Quantising(), rows("vae")
    before = pair.book[0].clone()
    spent, rate, penalty, h, k = pair.file.terms(x, *pair.networks, pair.book[0])
    code = pair.model.encode(x)
    assert torch.equal(code.index, k)
    assert len(k.unique()) > 6  # several codewords are chosen
    close(code.z, before[k].transpose(1, 2).flatten(1))
    terms = pair.objective(pair.model, Batch.of(x))
    loss = (spent + rate + penalty).mean()
    for theirs, ours in zip(
        (terms.distortion, terms.rate, terms.penalty, terms.bound, terms.loss),
        (spent, rate, penalty, -(spent + rate).detach(), loss),
        strict=True,
    ):
        close(theirs, ours)
    terms.loss.backward()
    for parameter, slope in zip(pair.model.parameters(), torch.autograd.grad(loss, pair.weights), strict=True):
        close(parameter.grad, slope)
    pair.file.average(h, k, *pair.book)
    assert not torch.equal(pair.book[0], before)
    pair.same_book()
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in pair.weights]
    optimiser = torch.optim.Adam(pair.model.parameters(), lr=1e-3)
    for t in range(1, 21):
        loss = pair.objective(pair.model, Batch.of(x)).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        other = pair.file.train_step(x, *pair.networks, pair.book, moments, t)
        assert float(loss.detach()) == pytest.approx(other, abs=1e-6)
    for parameter, weight in zip(pair.model.parameters(), pair.weights, strict=True):
        close(parameter.data, weight.data)
    pair.same_book()


@pytest.mark.parametrize("rungs", [(3, 6), (2, 4, 8)])
def test_a_ladder(rungs: tuple[int, ...]) -> None:
    """Distortion, each rung's rate, the bound and every gradient; losses and weights of twenty steps of a warm-up."""
    file, x = scratch("ladder"), rows("vae")
    model, objective = recipes.ladder(
        (WIDTH,),
        rungs=rungs,
        network=partial(Mlp, hidden=(128,), activation="leaky"),
        beta=WarmUp(30),
        free_bits=0.0,
    )
    model.double()
    ours = file.ladder(rungs)
    q = model.posterior
    parts = model.encoder, list(q.prior.down), list(q.up), list(q.heads), model.decoder
    theirs = file.flat([_weights(part) for part in parts])  # in the file's order
    assert len(theirs) == len(list(model.parameters()))
    for weight, parameter in zip(file.flat(ours), theirs, strict=True):
        assert weight.shape == parameter.shape
        weight.data = parameter.detach().clone()

    def both(step: int) -> tuple[Terms, list[Tensor]]:
        with draws.seeded(0, step):
            terms = objective(model, Batch.of(x)._replace(step=torch.tensor(step, dtype=torch.float64)))
        with draws.seeded(0, step):
            drawn = draws.normal(1, torch.empty(ROWS, sum(rungs), dtype=torch.float64))[0]
        return terms, list(drawn.split(rungs, 1))

    terms, epsilon = both(15)  # half way: beta = 1/2
    spent, rates = file.terms(x, *ours, epsilon)
    close(terms.distortion, spent)
    close(terms.rungs, rates.detach())
    close(terms.bound, -(spent + rates.sum(1)).detach())
    loss = (spent + rates.sum(1) / 2).mean()
    close(terms.loss, loss)
    slopes = torch.autograd.grad(loss, file.flat(ours))
    for slope, other in zip(slopes, torch.autograd.grad(terms.loss, theirs), strict=True):
        close(other, slope)
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in theirs]
    optimiser = torch.optim.Adam(theirs, lr=1e-3)
    for t in range(1, 21):
        terms, epsilon = both(t)
        optimiser.zero_grad()
        terms.loss.backward()
        optimiser.step()
        assert float(terms.loss.detach()) == pytest.approx(file.train_step(x, ours, epsilon, moments, t, 30), abs=1e-6)
    for parameter, weight in zip(theirs, file.flat(ours), strict=True):
        close(parameter.data, weight.data)


def _weights(part: Any) -> list[Any]:
    """The tensors of a module, or of several, each a list of its own."""
    return [_weights(one) for one in part] if isinstance(part, list) else list(part.parameters())


@pytest.mark.parametrize(
    ("name", "lines"), [("aae", 100), ("autoencoder", 100), ("ladder", 140), ("vae", 100), ("vqvae", 120)]
)
def test_a_file_stands_alone(name: str, lines: int) -> None:
    """It imports nothing of the library and fits a few screens."""
    text = (FOLDER / f"{name}.py").read_text()
    assert "narrows" not in text
    assert len(text.splitlines()) <= lines
