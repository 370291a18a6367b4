"""Layer-wise pretraining is what it says: shallow autoencoders, one after another, whose layers the deep one keeps."""

import copy
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import narrows as nr
from narrows import defaults
from narrows.corruptions import Masking
from narrows.networks import Conv, Mlp
from narrows.posteriors import Deterministic
from narrows.pretraining import Greedy
from narrows.training import loop

X = torch.rand(200, 12, generator=torch.Generator().manual_seed(0)) @ torch.rand(
    12, 12, generator=torch.Generator().manual_seed(1)
)
SHORT = nr.Training(epochs=3, batch=32, check=5)


def deep(**arguments: object) -> tuple[nr.Autoencoder, nr.Objective]:
    return nr.recipes.stacked((12,), **{"latent": 2, "hidden": (9, 5), **arguments})


def pretrained(model: nr.Autoencoder) -> nr.Autoencoder:
    model.start(model, nr.data.rows(X), loop._inner(SHORT, quiet=True))
    return model


def train(folder: Path | None, resume: bool = False, **arguments: object) -> nr.Run:
    return nr.fit(*deep(**arguments), X[:160], X[160:], SHORT, folder, resume=resume, quiet=True)


@pytest.mark.parametrize("corruption", [None, Masking(0.25)], ids=["plain", "denoising"])
def test_each_layer_is_that_of_a_shallow_autoencoder(corruption):
    """Built by hand from the same first weights, on the representation by hand, to the last bit."""
    model, _ = deep(corruption=corruption)
    first = copy.deepcopy(model)
    pretrained(model)
    h = X
    tenth = torch.arange(9, 200, 10)
    others = torch.tensor([i for i in range(200) if i % 10 != 9])
    for depth in range(3):
        layer, back = first.encoder.layers[depth], first.decoder.layers[2 - depth]
        encoder = nn.Sequential(layer, nn.ReLU()) if depth < 2 else layer
        likelihood = nr.likelihoods.Gaussian(h.shape[1:], sigma=1.0)
        shallow = nr.Autoencoder(encoder, Deterministic(layer.out_features), back, likelihood, corruption)
        nr.fit(shallow, nr.Objective(beta=0.0), h[others], h[tenth], SHORT, quiet=True)
        for ours, theirs in ((model.encoder.layers[depth], layer), (model.decoder.layers[2 - depth], back)):
            assert torch.equal(ours.weight, theirs.weight)
            assert torch.equal(ours.bias, theirs.bias)
        with torch.no_grad():
            h = torch.relu(layer(h))


def test_without_hidden_layers_it_is_the_plain_autoencoder(tmp_path):
    train(tmp_path / "stacked", hidden=())
    plain = nr.recipes.autoencoder((12,), latent=2, network=partial(Mlp, hidden=()))
    nr.fit(*plain, X[:160], X[160:], SHORT, tmp_path / "plain", quiet=True)
    assert weights(tmp_path / "stacked") == weights(tmp_path / "plain")


def weights(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()


def test_same_seed_same_bytes(tmp_path):
    for name in ("a", "b"):
        train(tmp_path / name, corruption=Masking(0.25))
    train(tmp_path / "plain")
    assert weights(tmp_path / "a") == weights(tmp_path / "b") != weights(tmp_path / "plain")


@pytest.mark.parametrize(
    ("shape", "network"), [((12,), partial(Mlp, hidden=(9, 5))), ((1, 9, 13), partial(Conv, width=4))], ids=str
)
def test_pretraining_lowers_the_first_loss_of_the_whole(shape, network):
    """Before its first step the deep model is nearer than random weights, and than the mean of the rows."""
    x = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) @ torch.rand(3, 12 if len(shape) == 1 else 117)
    x = x.view(-1, *shape)

    def error() -> float:
        return float((model.decode(model.encode(x).z).mean - x).square().flatten(1).sum(1).mean())

    model, _ = nr.recipes.stacked(shape, latent=3, network=network)
    with torch.no_grad():
        before = error()
    model.start(model, nr.data.rows(x), loop._inner(nr.Training(epochs=30, batch=32, lr=0.01), quiet=True))
    with torch.no_grad():
        assert error() < 0.7 * float(x.var(0, correction=0).sum()) < 0.2 * before


def test_layers_share_the_weights_of_their_network():
    """Stage by stage, with a ReLU between, a network says what it says at once; odd sizes too."""
    for network, shape in (
        (Mlp((12,), (3,), hidden=(9, 5)), (12,)),
        (Conv((3, 9, 13), (4,), width=2), (3, 9, 13)),
        (Conv((4,), (2, 3, 9, 13), width=2), (4,)),
        (Conv((4,), (1, 1, 30, 45), width=2), (4,)),
    ):
        x = h = torch.randn(5, *shape)
        for number, stage in enumerate(network.stages()):
            h = stage(torch.relu(h) if number else h)
        assert torch.equal(h.flatten(1), network(x).flatten(1))
        own = {id(p) for stage in network.stages() for p in stage.parameters()}
        assert own == {id(p) for p in network.parameters()}


@pytest.mark.parametrize("step", [1, 5, 8])
def test_a_run_cut_after_pretraining_does_not_pretrain_again(tmp_path, step, monkeypatch):
    """The first checkpoint stands at step 0 of the training end to end; what follows is bit-exact."""
    train(tmp_path / "whole")
    starts, seen = [], 0
    start, forward = Greedy.__call__, loop._Step.forward

    def begin(self, model, rows, fit):
        starts.append(1)
        return start(self, model, rows, fit)

    def cut(self, batch):
        nonlocal seen
        seen += self.model.start is not None
        if seen == step:
            raise MemoryError("as if killed")
        return forward(self, batch)

    monkeypatch.setattr(Greedy, "__call__", begin)
    monkeypatch.setattr(loop._Step, "forward", cut)
    with pytest.raises(MemoryError):
        train(tmp_path / "cut")
    monkeypatch.setattr(loop._Step, "forward", forward)
    run = train(tmp_path / "cut", resume=True)
    assert len(starts) == 1
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert [m["step"] for m in run.metrics] == [5, 10, 15]
    assert starts == [1]


def test_the_whole_is_corrupted_only_where_asked():
    assert deep(corruption=Masking(0.25))[0].corruption is None
    assert deep(corruption=Masking(0.25), throughout=True)[0].corruption == Masking(0.25)


def test_passes_and_minutes_of_the_layers():
    """Their own passes where given; a share of the minutes each, and the whole is not longer for it."""
    asked = []

    def note(model, objective, rows, **settings):
        asked.append(settings)

    model, _ = deep(pretraining=7)
    model.start(model, nr.data.rows(X), note)
    assert asked == [{"every": 10, "share": 0.25, "epochs": 7}] * 3
    run = nr.fit(*deep(), X, training=nr.Training(minutes=0.02), quiet=True)
    assert run.config["seconds"] < 0.02 * 60 * 1.5 + 1


def test_the_way_back_mirrors_the_way_there():
    model, _ = deep(hidden=(9, 7, 5))
    assert [layer.out_features for layer in model.encoder.layers] == [9, 7, 5, 2]
    assert [layer.out_features for layer in model.decoder.layers] == [5, 7, 9, 12]
    standard, _ = nr.recipes.stacked((784,))
    assert [layer.out_features for layer in standard.encoder.layers] == [512, 256, 128, 16]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"hidden": (8, 0)}, ValueError, r"hidden widths are whole numbers of at least 1, .* got \(8, 0\)"),
        ({"hidden": (8.5,)}, ValueError, "hidden widths are whole numbers"),
        ({"network": Conv}, ValueError, "hidden are the widths of a perceptron: give them with network=Mlp"),
        ({"pretraining": 0}, ValueError, "pretraining is a whole number of passes of at least 1 a layer; got 0"),
        ({"throughout": True}, ValueError, "throughout=True corrupts the training end to end too: say how"),
        (
            {"hidden": None, "network": lambda a, b, c: nn.Linear(a[0], b[-1])},
            TypeError,
            "pretrained one by one, and Linear does not tell its own: use network=Mlp or Conv",
        ),
        (
            {"hidden": None, "network": lambda a, b, c: Mlp(a, b, c, hidden=(4,) * (a[0] == 12))},
            TypeError,
            "the encoder has 2 while the decoder has 1; give the decoder",
        ),
    ],
    ids=lambda v: "",
)
def test_what_means_nothing_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        deep(**arguments)


def test_the_face_pretrains():
    face = nr.StackedAE(latent=2, hidden=(9, 5), corruption=Masking(0.25), pretraining=2, training=SHORT)
    assert face.fit(X.numpy()).transform(X.numpy()).shape == (200, 2)


def test_large_images_get_convolutions_unless_hidden_widths_are_given():
    images = nr.data.load(np.random.default_rng(0).integers(256, size=(30, 32, 32), dtype=np.uint8))
    for given, network in (({}, Conv), ({"hidden": (9, 5)}, Mlp)):
        chosen = defaults.arguments(images, "stacked", {"latent": 2, **given})["network"]
        assert getattr(chosen, "func", chosen) is network
    model, _ = nr.recipes.stacked(**defaults.arguments(nr.data.load(X.numpy()), "stacked", {"latent": 2}))
    assert [layer.out_features for layer in model.encoder.layers] == [512, 256, 128, 2]
