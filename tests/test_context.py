"""Labels as context: told to the model from the data to the samples, on every face that has rows."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot
from typer.testing import CliRunner

import narrows as nr
from narrows.cli import app
from narrows.networks import Mlp

SHORT = nr.Training(epochs=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> nr.Run:
    """A variational autoencoder of digits that was told the labels."""
    data = nr.data.load("digits", context="label")
    model, objective = nr.recipes.vae(
        data.shape, latent=4, likelihood=data.likelihood, network=partial(Mlp, hidden=(32,)), context=data.context
    )
    return nr.fit(model, objective, data, training=SHORT, quiet=True, folder=tmp_path_factory.mktemp("runs") / "told")


def test_batches_carry_the_labels_one_hot(run: nr.Run) -> None:
    batch = run.data.train.batch(torch.arange(7))
    assert torch.equal(batch.context, one_hot(batch.label, 10).float())
    assert run.data.train.take(torch.tensor([3])).batch(torch.tensor([0])).context.shape == (1, 10)
    assert run.model.context == run.data.context == 10


def test_every_use_of_a_run_tells_the_model(run: nr.Run) -> None:
    """Evaluation, report, pictures, paths and traversals; a run that comes back from its folder does too."""
    again = nr.load(run.folder)
    assert again.model.context == 10
    found = again.evaluate(samples=5)
    assert found["parts"]["test"]["reconstruction"]["model"][0] > 0
    assert again.report().exists()
    ends = again.data.test.take(torch.tensor([0, 1]))
    assert nr.tasks.interpolate(again.model, ends, 5).shape == (5, 1, 8, 8)
    assert nr.tasks.traverse(again.model, again.data.test, units=[1], steps=3).x.shape == (1, 3, 1, 8, 8)
    assert again.plot.samples()


def test_samples_are_of_the_class_that_was_asked_for(run: nr.Run, tmp_path) -> None:
    """`narrows sample --label`; without one, or with one that is not there, a sentence."""
    out = tmp_path / "three.npy"
    call = partial(CliRunner().invoke, app)
    done = call(["sample", str(run.folder), "--label", "3", "-n", "5", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert np.load(out).shape == (5, 1, 8, 8)
    for words in ([], ["--label", "ten"]):
        with pytest.raises(ValueError, match="say which by --label, one of 0, 1, .*; got (None|ten)"):
            call(["sample", str(run.folder), *words], catch_exceptions=False)


def test_other_rows_bring_their_labels(run: nr.Run, tmp_path) -> None:
    """Known classes by name, whatever their order; strange ones, and rows without, are refused."""
    like = partial(nr.data.like, run.config["data"])
    x = np.asarray(nr.data.load("digits").x[:6])
    rows = like((x, np.array(["9", "0", "1", "0", "9", "1"])))
    assert rows.batch(torch.arange(2)).context.argmax(1).tolist() == [9, 0]
    assert nr.evaluate.codes(run.model, rows).shape == (6, 4)
    for source, message in (
        (x, "the model was told the label of every row, and array has none"),
        ((x, np.array(["9", "0", "1", "0", "9", "x"])), "array has label 'x', and the model knows 0, 1,"),
        ((x, np.array([1, 2, 3, 4, 5, -1])), "array has rows without a label"),
    ):
        with pytest.raises(ValueError, match=message):
            like(source)
    with pytest.raises(ValueError, match="told 10 features of every row .*; got 0"):
        nr.evaluate.codes(run.model, torch.rand(3, 1, 8, 8))


def test_context_that_is_not_there_is_refused() -> None:
    x = np.random.default_rng(0).normal(size=(50, 3))
    for source, words, message in (
        (x, {"context": "label"}, "array has none; name the column by label"),
        ((x, np.r_[np.zeros(49), np.nan]), {"context": "label"}, "array has rows without one"),
        (x, {"context": "lable"}, "context is \"label\", .*got 'lable'"),
    ):
        with pytest.raises(ValueError, match=message):
            nr.data.load(source, **words)


def test_files_of_one_input_cannot_tell(run: nr.Run, tmp_path) -> None:
    from narrows.export import export

    with pytest.raises(ValueError, match="told 10 features of every row, and files of one input cannot tell it"):
        export(run, tmp_path)
