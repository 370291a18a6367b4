"""A head on an encoder learns what its closed form says, changes what it may, and is a scikit-learn estimator."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.datasets import load_digits
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch import nn

import narrows as nr
from narrows.networks import Conv, Mlp
from narrows.transfer import Classifier, Regressor

chance = np.random.default_rng(0)
X = chance.normal(size=(200, 6)).astype(np.float32)
Y = np.where(X[:, 0] + 0.7 * X[:, 1] + chance.normal(size=200) > 0, "high", "low")
SHORT = nr.Training(epochs=3, batch=32)


def member(recipe: str = "autoencoder", shape: tuple[int, ...] = (6,), **arguments: object) -> nr.Autoencoder:
    arguments = {
        "latent": 3,
        "likelihood": nr.likelihoods.Gaussian,
        "network": partial(Mlp, hidden=(8, 5)),
        **arguments,
    }
    return getattr(nr.recipes, recipe)(shape, **arguments)[0].eval()


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


# ---- what is learned --------------------------------------------------------------------------------------------


def test_a_frozen_encoder_and_a_linear_head_are_logistic_regression_on_the_codes():
    """The optimum is unique where the classes overlap: probabilities are scikit-learn's, without its penalty.

    Nineteen rows of two classes by turns: below 20 none is held out, so the last step counts.
    """
    model, x = member(), X[:19]
    y = np.array(["high", "low"] * 10)[:19]
    z = nr.evaluate.codes(model, torch.from_numpy(x)).numpy()
    tuned = nr.finetune(model, x, y, freeze=True, training=nr.Training(epochs=1500, lr=0.1, decay="cosine"))
    peer = LogisticRegression(C=1e6, tol=1e-8, max_iter=10_000).fit(z, y)
    assert list(tuned.classes_) == list(peer.classes_) == ["high", "low"]
    assert 0.2 < np.ptp(peer.predict_proba(z)[:, 0]) < 0.99
    assert np.allclose(tuned.predict_proba(x), peer.predict_proba(z), atol=2e-3)
    assert np.array_equal(tuned.predict(x), peer.predict(z))


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_frozen_encoder_and_a_linear_head_are_least_squares_on_the_codes(outputs):
    """Trained to the optimum of few rows (no held-out tenth below 20), in the units of y."""
    model, x = member(), X[:19]
    y = 100 + 30 * (x[:, :outputs] + chance.normal(size=(19, outputs)))
    y = y[:, 0] if outputs == 1 else y
    z = nr.evaluate.codes(model, torch.from_numpy(x)).numpy()
    tuned = nr.finetune(model, x, y, freeze=True, training=nr.Training(epochs=1500, lr=0.1, decay="cosine"))
    peer = LinearRegression().fit(z, y)
    assert tuned.predict(x).shape == y.shape
    assert np.allclose(tuned.predict(x), peer.predict(z), atol=0.05)
    assert tuned.score(x, y) == pytest.approx(peer.score(z, y), abs=1e-4)


def test_a_tuned_encoder_knows_digits_from_few_labels():
    """200 labels (0.93 right when this was written): no worse than a frozen one, or logistic regression on pixels."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    x, y = (x[order] / 16).astype(np.float32), y[order]
    model, objective = nr.recipes.autoencoder((64,), latent=16, network=partial(Mlp, hidden=(64,)))
    nr.fit(model, objective, torch.from_numpy(x), training=nr.Training(epochs=15), quiet=True)
    frozen, tuned = (nr.finetune(model, x[:200], y[:200], f, nr.Training(epochs=150, lr=3e-3)) for f in (True, False))
    pixels = LogisticRegression(max_iter=1000).fit(x[:200], y[:200]).score(x[200:], y[200:])
    assert tuned.score(x[200:], y[200:]) > max(frozen.score(x[200:], y[200:]), pixels - 0.02, 0.88)


# ---- what changes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "network", "layers"), [((6,), partial(Mlp, hidden=(8, 5)), 3), ((1, 9, 9), partial(Conv, width=2), 2)]
)
@pytest.mark.parametrize("recipe", ["autoencoder", "vae", "denoising", "dropout"])
def test_only_what_is_free_changes(recipe, shape, network, layers):
    """For each number of frozen layers; the source never does."""
    model = member(recipe, shape, network=network)
    before = copy.deepcopy(model)
    x = torch.rand(60, *shape)
    y = (x.flatten(1).mean(1) > 0.5).numpy()
    for freeze in (True, False, *range(layers + 1)):
        tuned = nr.finetune(model, x, y, freeze=freeze, training=SHORT)
        found, count = tuned.network_[0].model.encoder, layers if freeze is True else int(freeze)
        pairs = zip(found.stages(), model.encoder.stages(), strict=True)
        assert [same(a, b) for a, b in pairs] == [n < count for n in range(layers)]
        assert tuned.predict_proba(x).shape == (60, 2)
        assert np.allclose(tuned.predict_proba(x).sum(1), 1)
        if freeze is True:
            assert torch.equal(tuned.network_[0](x), model.encode(x).z)
        assert same(model, before)


def test_dropout_and_draws_are_away_in_use():
    for recipe in ("dropout", "vae"):
        tuned = nr.finetune(member(recipe), X, Y, training=SHORT)
        assert np.array_equal(tuned.predict_proba(X), tuned.predict_proba(X))


def test_seeds_decide_and_the_generator_is_left_as_found():
    state = torch.get_rng_state()
    a, b, c = (nr.finetune(member(), X, Y, training=SHORT, seed=seed).predict_proba(X) for seed in (0, 0, 1))
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    assert torch.equal(torch.get_rng_state(), state)


# ---- data and faces ---------------------------------------------------------------------------------------------


def test_a_run_brings_its_scaling():
    """Stored values in, whatever their type; `Rows` are scaled already."""
    images = load_digits().images[:100].astype(np.uint8)
    y = load_digits().target[:100]
    found = nr.data.load(images)
    run = nr.fit(*nr.recipes.autoencoder(found.shape, latent=4), found, training=SHORT, quiet=True)
    tuned = nr.finetune(run, images, y, training=SHORT)
    rows = nr.data.Rows(found.x, found.scaling)
    assert np.array_equal(tuned.predict(images), tuned.predict(rows))
    assert tuned.network_[0](rows.x).shape == (100, 4)
    again = nr.finetune(run, rows, y, training=SHORT)
    assert np.array_equal(tuned.predict_proba(images), again.predict_proba(images))
    assert torch.equal(run.encoder(found.x), nr.evaluate.codes(run.model, rows))
    z = run.encoder(found.x)
    back = found.scaling.unscale(run.model.decode(z).mean)
    assert torch.equal(run.decoder(z), back)


def test_a_face_lends_its_run():
    """Arrays in their own units, and pixels that are binarised anew are still judged alike."""
    tuned = nr.finetune(nr.AE(latent=2, training=SHORT).fit(100 + 5 * X).run_, 100 + 5 * X, Y, training=SHORT)
    assert tuned.predict((100 + 5 * X).tolist()).shape == (200,)
    found = nr.data.load(load_digits().images[:60].astype(np.uint8), binarise="dynamic")
    run = nr.fit(*nr.recipes.vae(found.shape, latent=2), found, training=SHORT, quiet=True)
    tuned = nr.finetune(run, found.train, np.arange(len(found.train)) % 3, training=SHORT)
    state = torch.get_rng_state()
    assert np.array_equal(tuned.predict_proba(found.train), tuned.predict_proba(found.train))
    assert torch.equal(torch.get_rng_state(), state)


def test_scikit_learn_copies_and_files():
    labels, numbers = nr.finetune(member(), X, Y, training=SHORT), nr.finetune(member(), X, X[:, 0], training=SHORT)
    assert is_classifier(labels)
    assert is_regressor(numbers)
    for tuned, y in ((labels, Y), (numbers, X[:, 0])):
        again = clone(tuned)
        assert not hasattr(again, "network_")
        assert again.get_params()["freeze"] is False
        assert np.array_equal(again.fit(X, y).predict(X), tuned.predict(X))
        assert np.array_equal(pickle.loads(pickle.dumps(tuned)).predict(X), tuned.predict(X))
        assert np.isfinite(tuned.score(X, y))
        assert 0 < tuned.n_iter_ <= 3 * 6


def test_rows_with_a_target_keep_it_wherever_they_go():
    rows = nr.data.Rows(torch.arange(10.0)[:, None]).take(torch.tensor([7, 3, 5, 1])).towards(torch.arange(4.0))
    assert rows.wanted == ()
    assert rows.shape == (1,)
    for some in (rows, rows.take(torch.arange(4))):
        batch = some.batch(torch.tensor([2, 0]))
        assert batch.x.flatten().tolist() == [5, 7]
        assert batch.target.tolist() == [2, 0]
    moved = rows.take(torch.tensor([3, 2])).to("meta")
    assert moved.batch(torch.tensor([0])).target.shape == (1,)
    assert nr.data.Rows(torch.zeros(2, 3)).wanted == (3,)


@pytest.mark.parametrize(
    ("x", "y", "settings", "error", "message"),
    [
        (X, np.zeros(200), {}, ValueError, "at least two classes; all of y is .*0"),
        (X, np.full(200, 0.5), {}, ValueError, "a regressor needs values that differ; all of y is 0.5"),
        (X, Y[:9], {}, ValueError, "X has 200 rows and y 9 values; there must be one for each row"),
        (X[:0], Y[:0], {}, ValueError, "there are no rows to learn from"),
        (X, np.where(X[:, 0] > 1, np.nan, 1.0), {}, ValueError, r"y has no value in \d+ rows, the first of them \d+"),
        (X, np.array(["a", None] * 100, object), {}, ValueError, "y has no value in 100 rows, the first of them 1;"),
        (np.where(X > 1, np.nan, X), Y, {}, ValueError, "X has cells that are no number"),
        (X[:, :4], Y, {}, ValueError, r"the encoder reads rows of shape \(6,\); these have \(4,\)"),
        (X, Y.reshape(2, 50, 2), {}, ValueError, r"y holds one value a row, shape \(n,\); got shape \(2, 50, 2\)"),
        (X, Y, {"freeze": 4}, ValueError, "leading layers, of which this encoder has 3; got 4"),
        (X, Y, {"freeze": -1}, ValueError, "leading layers, of which this encoder has 3; got -1"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_what_cannot_be_learned_is_refused(x, y, settings, error, message):
    with pytest.raises(error, match=message):
        nr.finetune(member(), x, y, training=SHORT, **settings)


def test_a_source_without_layers_or_of_another_kind_is_refused():
    with pytest.raises(TypeError, match=r"what is tuned is a run .* or a model of narrows; got Linear"):
        nr.finetune(nn.Linear(6, 2), X, Y)
    model = member()
    model.encoder = nn.Linear(6, 3)
    with pytest.raises(TypeError, match="freeze counts the layers of Mlp or Conv, and this encoder is Linear"):
        nr.finetune(model, X, Y, freeze=1, training=SHORT)
    assert isinstance(nr.finetune(model, X, Y, training=SHORT), Classifier)
    with pytest.raises(ValueError, match="y holds one value a row"):
        Classifier(model, training=SHORT).fit(X, X[:, :2])
    assert Regressor(model, training=SHORT).fit(X, X[:, :2]).predict(X).shape == (200, 2)
