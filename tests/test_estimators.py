"""The scikit-learn faces keep scikit-learn's promises, by its own checks."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

import narrows as nr

SHORT = nr.Training(epochs=2, batch=32)
X = np.random.default_rng(0).normal(size=(80, 5)).astype(np.float32)


@pytest.mark.filterwarnings("ignore")  # scikit-learn's checks warn of what they skip
@parametrize_with_checks([nr.AE(latent=1, training=SHORT), nr.VAE(latent=1, training=SHORT)])
def test_scikit_learn(estimator, check):
    check(estimator)


def quick(estimator):
    """What a fit of every check would cost is paid by `AE` and `VAE`; but scikit-learn's own for classifiers stay."""
    for each, check in estimator_checks_generator(estimator):
        name = getattr(check, "func", check).__name__
        # that -1 is no class but unlabelled scikit-learn knows of its own semi-supervised classifiers only
        known = name == "check_classifiers_classes" and not isinstance(estimator, nr.ConditionalVAE)
        if ("classifier" in name or "unfitted" in name or "supervised_y" in name) and not known:
            yield pytest.param(each, check, id=f"{type(estimator).__name__}-{name}")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("estimator", "check"),
    [*quick(nr.SemiSupervisedVAE(latent=1, training=SHORT)), *quick(nr.ConditionalVAE(latent=1, training=SHORT))],
)
def test_scikit_learn_of_classifiers(estimator, check):
    check(estimator)


@pytest.mark.parametrize("face", [nr.AE, nr.VAE])
def test_codes_and_scores_do_not_depend_on_company_or_time(face):
    fitted = face(latent=2, training=SHORT).fit(X)
    assert np.array_equal(fitted.transform(X), fitted.transform(X))
    assert np.allclose(fitted.transform(X)[3:5], fitted.transform(X[3:5]), atol=1e-6)
    assert np.allclose(fitted.score_samples(X)[3:5], fitted.score_samples(X[3:5]), atol=1e-5)
    again = clone(fitted).fit(X)
    assert np.array_equal(fitted.transform(X), again.transform(X))
    assert not np.array_equal(fitted.transform(X), clone(fitted).set_params(random_state=1).fit(X).transform(X))
    same = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(fitted.transform(X), same.transform(X))


def test_score_samples_estimates_what_log_likelihood_does():
    fitted = nr.VAE(latent=2, training=nr.Training(epochs=60)).fit(X)
    rows = fitted.scaling_(torch.from_numpy(X))
    bound = nr.evaluate.log_likelihood(fitted.model_, rows, samples=2000)
    assert np.corrcoef(fitted.score_samples(X), bound.values.numpy())[0, 1] > 0.99
    assert fitted.score(X) == pytest.approx(bound.mean, abs=0.2)


def test_data_frames_in_and_out():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X, columns=list("abcde"))
    out = nr.VAE(latent=2, training=SHORT).set_output(transform="pandas").fit(frame).transform(frame)
    assert list(out.columns) == ["vae0", "vae1"]


def test_feature_names_pipeline_and_grid_search():
    assert list(nr.AE(latent=2, training=SHORT).fit(X).get_feature_names_out()) == ["ae0", "ae1"]
    pipe = make_pipeline(StandardScaler(), nr.VAE(training=SHORT))
    search = GridSearchCV(pipe, {"vae__latent": [1, 2], "vae__training__epochs": [1, 2]}, cv=2).fit(X)
    assert set(search.best_params_) == {"vae__latent", "vae__training__epochs"}
    assert nr.VAE().set_params(training__epochs=5).training.epochs == 5


def test_images_and_units():
    images = load_digits().images[:200].astype(np.uint8)
    fitted = nr.VAE(latent=3, training=SHORT).fit(images)
    assert fitted.model_.shape == (1, 8, 8)
    z = fitted.transform(images)
    back = fitted.inverse_transform(z)
    assert back.shape == (200, 1, 8, 8)
    assert back.min() >= 0
    assert 8 < back.max() <= 16
    assert np.array_equal(back, np.rint(back))
    assert fitted.sample(4).dtype == np.uint8


LABELS = np.where(np.arange(80) < 40, np.where(X[:, 0] > 0, "up", "down"), "")


@pytest.mark.parametrize("face", [nr.SemiSupervisedVAE, nr.SemiSupervisedAAE])
def test_few_labels(face):
    fitted = face(latent=2, training=SHORT).fit(X, LABELS)
    assert list(fitted.classes_) == ["down", "up"]
    p = fitted.predict_proba(X)
    assert np.allclose(p.sum(1), 1)
    assert np.allclose(p, fitted.transform(X)[:, :2])
    assert np.array_equal(fitted.predict(X), fitted.classes_[p.argmax(1)])
    assert fitted.sample(3, label="up").shape == (3, 5)
    numbers = np.where(LABELS == "", -1, LABELS == "up")  # as in sklearn.semi_supervised
    assert np.array_equal(clone(fitted).fit(X, numbers).predict_proba(X), p)
    for y, message in (
        (np.full(80, -1), "learns at least two classes; y has 0 class"),
        (None, "requires y to be passed"),
        (X[:, 0], "Unknown label type: continuous"),
    ):
        with pytest.raises(ValueError, match=message):
            face(latent=2, training=SHORT).fit(X, y)


def test_every_label_told():
    y = np.where(X[:, 0] > 0, "up", "down")
    fitted = nr.ConditionalVAE(latent=2, training=nr.Training(epochs=40)).fit(X, y)
    assert fitted.class_prior_ == pytest.approx([(y == "down").mean(), (y == "up").mean()])
    assert fitted.score(X, y) > 0.8
    z = fitted.transform(X, y)
    assert fitted.transform(X).shape == z.shape == (80, 2)
    assert fitted.inverse_transform(z, y).shape == X.shape
    assert fitted.score_samples(X).shape == (80,)
    means = [fitted.sample(200, label=label)[:, 0].mean() for label in ("down", "up")]
    assert means[0] < means[1]
    for call, error, message in (
        (lambda: fitted.inverse_transform(z), TypeError, r"say which, inverse_transform\(Z, y\)"),
        (lambda: fitted.transform(X, np.full(80, "left")), ValueError, "y is one of down, up for each of 80 rows"),
        (lambda: fitted.sample(2, label="left"), ValueError, "there are the classes down, up; got label='left'"),
        (lambda: clone(fitted).fit(X, LABELS), ValueError, "40 have none; take SemiSupervisedVAE"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_plain_refusals():
    fitted = nr.VAE(latent=2, training=SHORT).fit(X)
    with pytest.raises(ValueError, match="codes have 2 units; these have 3"):
        fitted.inverse_transform(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="at least one unit"):
        nr.VAE(latent=0, training=SHORT).fit(X)
