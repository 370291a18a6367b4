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
from sklearn.utils.estimator_checks import parametrize_with_checks

import narrows as nr

SHORT = nr.Training(epochs=2, batch=32)
X = np.random.default_rng(0).normal(size=(80, 5)).astype(np.float32)


@pytest.mark.filterwarnings("ignore")  # scikit-learn's checks warn of what they skip
@parametrize_with_checks([nr.AE(latent=1, training=SHORT), nr.VAE(latent=1, training=SHORT)])
def test_scikit_learn(estimator, check):
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


def test_plain_refusals():
    fitted = nr.VAE(latent=2, training=SHORT).fit(X)
    with pytest.raises(ValueError, match="codes have 2 units; these have 3"):
        fitted.inverse_transform(np.zeros((1, 3)))
    with pytest.raises(ValueError, match="at least one unit"):
        nr.VAE(latent=0, training=SHORT).fit(X)
