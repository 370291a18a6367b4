"""Counts reach their likelihood as counts: from a file or an array, on every face, and are refused where they are none.

What the likelihoods themselves say of counts is held to scipy in test_likelihoods.py.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import nbinom
from typer.testing import CliRunner

import narrows as nr
from narrows.baselines import fit_columns
from narrows.cli import app
from narrows.contract import Batch
from narrows.likelihoods import NegativeBinomial, Poisson
from narrows.networks import Mlp

SHORT = nr.Training(epochs=2, batch=32)
call = partial(CliRunner().invoke, app)


def drawn(rows: int = 90) -> np.ndarray:
    """Counts of four values that rise and fall together, some beyond a thousand."""
    rng = np.random.default_rng(0)
    rate = np.exp(rng.normal(size=(rows, 1)) + np.array([0.0, 1.0, 3.0, 6.0]))
    return rng.poisson(rate).astype(np.int32)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Counts as a file."""
    file = tmp_path_factory.mktemp("counts") / "table.csv"
    np.savetxt(file, drawn(), fmt="%d", delimiter=",", header="a,b,c,d", comments="")
    return file


def test_counts_are_loaded_as_they_are(table: Path) -> None:
    """In the rows, in the description, and for other rows afterwards."""
    data = nr.data.load(table, counts=True)
    assert data.likelihood is NegativeBinomial
    assert data.scaling.describe() == "counts left as they are"
    assert torch.equal(data.train.x, torch.as_tensor(np.asarray(data.x))[data.part == 0].float())
    again = nr.data.reload(data.description())
    assert again.scaling == data.scaling
    assert nr.data.like(data.description(), drawn()).x.max() == drawn().max()
    assert np.array_equal(data.undo(data.train.x[:3] + 0.2), data.train.x[:3].numpy())
    with pytest.raises(ValueError, match="the model knows whole numbers from 0 up; scale them alike"):
        nr.data.like(data.description(), drawn() + 0.5)


@pytest.mark.parametrize(("change", "what"), [(0.5, "fractions"), (-1, "values below 0")])
def test_what_is_no_count_is_refused(change: float, what: str) -> None:
    """When it is loaded, with what to do."""
    with pytest.raises(ValueError, match=f"array holds {what}; leave counts away.*Gaussian takes any number"):
        nr.data.load(drawn() + change, counts=True)
    with pytest.raises(ValueError, match=f"array holds {what}"):
        nr.VAE(likelihood=Poisson, training=SHORT).fit(drawn() + change)
    with pytest.raises(ValueError, match="counts are kept: give only one"):
        nr.data.load(drawn(), counts=True, binarise="fixed")


def test_a_count_likelihood_on_fractions_is_refused_before_training() -> None:
    """Scaled rows, and rows of one's own."""
    data = nr.data.load(drawn())
    model, objective = nr.recipes.vae((4,), latent=2, likelihood=Poisson)
    message = (
        r"Poisson cannot produce: it covers whole numbers from 0 up\. Load counts as they are \(counts=True, --counts\)"
    )
    for rows in (data, torch.rand(20, 4)):
        with pytest.raises(ValueError, match=message):
            nr.fit(model, objective, rows, training=SHORT, quiet=True)


@pytest.mark.parametrize("likelihood", [Poisson, partial(NegativeBinomial, dispersion=2.0)], ids=["poisson", "nb"])
def test_an_estimator_takes_counts(likelihood: object) -> None:
    """Codes, scores and samples; what it makes is counts again."""
    fitted = nr.VAE(latent=2, likelihood=likelihood, training=SHORT).fit(drawn())
    assert fitted.scaling_.kind == "counts"
    assert np.isfinite(fitted.score_samples(drawn())).all()
    assert np.isfinite(fitted.transform(drawn())).all()
    for made in (fitted.sample(50, mean=False), fitted.inverse_transform(np.zeros((2, 2)))):
        assert made.min() >= 0
        assert np.array_equal(made, np.rint(made))


def test_the_command_line_takes_counts(table: Path, tmp_path: Path) -> None:
    """By --counts, or by asking for a likelihood of counts; `check` says what it would do."""
    short = ["--epochs", "1", "--latent", "2", "--quiet"]
    done = call(["fit", str(table), "--set", "likelihood=Poisson", *short, "--folder", str(tmp_path / "a")])
    assert done.exit_code == 0, done.output
    assert "bits/dim: model" in done.output
    run = nr.load(tmp_path / "a")
    assert isinstance(run.model.likelihood, Poisson)
    assert run.data.scaling.kind == "counts"
    done = call(["check", str(table), "--counts"])
    assert "NegativeBinomial" in done.output
    assert done.output.splitlines()[-1].endswith("--counts")
    out = tmp_path / "samples.npy"
    assert call(["sample", str(tmp_path / "a"), "-n", "5", "--draw", "--out", str(out)]).exit_code == 0
    assert np.array_equal(np.load(out), np.rint(np.load(out)))


def test_the_encoder_reads_logarithms() -> None:
    """log(1 + x): a count of a million does not drown the others; stacked and sparse codes begin from the same."""
    model, _ = nr.recipes.vae((3,), latent=2, likelihood=Poisson)
    read = []
    model.encoder.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    model.encode(torch.tensor([[0.0, 1.0, 1e6]]))
    torch.testing.assert_close(read[0], torch.tensor([[0.0, np.log(2), np.log(1e6)]], dtype=torch.float32))
    for recipe, more in (("stacked", {"hidden": (8, 4), "pretraining": 1}), ("sparse", {}), ("denoising", {})):
        data = nr.data.load(drawn(), counts=True)
        model, objective = getattr(nr.recipes, recipe)((4,), latent=2, likelihood=Poisson, **more)
        run = nr.fit(model, objective, data, training=SHORT, quiet=True)
        assert np.isfinite(run.metrics[-1]["train"]["loss"])
        if recipe == "sparse":
            torch.testing.assert_close(model.encoder.centre, data.train.x.log1p().mean(0), rtol=1, atol=1)


def test_the_cheap_alternative_for_counts_is_a_negative_binomial_a_column() -> None:
    """Of the mean and variance of the column, against scipy."""
    x = torch.as_tensor(drawn()).double()
    mean, variance = x.mean(0), x.var(0, correction=0)
    theta = mean.square() / (variance - mean)
    expected = nbinom.logpmf(x, theta, theta / (theta + mean)).sum(1)
    torch.testing.assert_close(fit_columns(x, None, counts=True).log_prob(x), torch.as_tensor(expected))
    assert fit_columns(torch.zeros(10, 2), None, counts=True).log_prob(torch.ones(1, 2)).isfinite()


def test_a_library_is_read_from_the_context() -> None:
    """A recipe with context=1; the decoder's means add up to the row's total, and every weight learns."""
    x = torch.as_tensor(drawn(8)).float()
    network = partial(Mlp, hidden=(8,))
    for likelihood in (Poisson, NegativeBinomial):
        model, objective = nr.recipes.vae(
            (4,), latent=2, likelihood=partial(likelihood, library=True), context=1, network=network, samples=3
        )
        context = x.sum(1, keepdim=True).log()
        objective(model, Batch(x, x, context)).loss.backward()
        assert all(p.grad.isfinite().all() and p.grad.any() for p in model.parameters())
        torch.testing.assert_close(model(x, context).px.mean.sum(1), x.sum(1), rtol=1e-5, atol=0)
        assert model.sample(2, torch.tensor([[3.0], [5.0]])).mean.shape == (2, 4)
    model, objective = nr.recipes.vae((4,), latent=2, likelihood=partial(Poisson, library=True))
    with pytest.raises(TypeError, match="there is none. Wrong: .* right: .* a recipe with context=1"):
        nr.fit(model, objective, x, training=SHORT, quiet=True)
