"""Labels as context: told to the model from the data to the samples, on every face that has rows."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot
from typer.testing import CliRunner

import narrows as nr
from narrows import defaults
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


def test_few_labels_of_many() -> None:
    """`labelled=25`: as many of each class as can be, of training rows only; those that judge keep theirs."""
    data = nr.data.load("digits", labelled=25)
    known = data.train.label[data.train.label >= 0]
    assert torch.bincount(known, minlength=10).tolist().count(3) == 5
    assert len(known) == 25
    assert (data.valid.label < 0).all()
    assert (data.test.label >= 0).all()
    assert data.fingerprint != nr.data.load("digits").fingerprint
    assert nr.data.reload(data.description()).fingerprint == data.fingerprint
    for words, message in (
        ({"labelled": 0}, "how many training rows keep their label, at least 1"),
        ({"labelled": 25, "context": "label"}, "goes without context='label'"),
        ({"labelled": 2000}, "there are 1437 training rows with a label; got labelled=2000"),
    ):
        with pytest.raises(ValueError, match=message):
            nr.data.load("digits", **words)
    with pytest.raises(ValueError, match="labelled keeps some of the labels, and array has none"):
        nr.data.load(np.random.default_rng(0).normal(size=(50, 3)), labelled=5)


@pytest.fixture
def table(tmp_path):
    """A file whose label is blank in most rows."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 3))
    kind = np.where(np.arange(120) % 3, "", np.where(x[:, 0] > 0, "up", "down"))
    lines = [",".join([*(f"{v:.4f}" for v in row), k]) for row, k in zip(x, kind, strict=True)]
    (tmp_path / "few.csv").write_text("\n".join(["a,b,c,kind", *lines]) + "\n")
    return tmp_path / "few.csv"


SMALL = ["--latent", "1", "--epochs", "2", "--set", 'network={"Mlp": {"hidden": [8]}}']


def test_blank_labels_in_a_file_and_back(table, tmp_path) -> None:
    """From the command line to classes found, samples of one class, and a folder that comes back."""
    call, folder = partial(CliRunner().invoke, app), tmp_path / "run"
    words = ["fit", str(table), "--recipe", "semi_supervised", "--label", "kind", "--folder", str(folder)]
    done = call([*words, *SMALL])
    assert done.exit_code == 0, done.output
    assert "training rows are labelled, one of down, up" in done.output
    assert "right class on" in done.output
    run = nr.load(folder)
    assert run.evaluation["classes"]["parts"]["test"]["logistic"][0] > 0.5
    x = run.data.test
    assert torch.equal(nr.evaluate.predict_proba(run.model, x), nr.evaluate.codes(run.model, x)[:, :2])
    out = tmp_path / "up.csv"
    done = call(["sample", str(folder), "--label", "up", "-n", "5", "--out", str(out)])
    assert done.exit_code == 0, done.output
    with pytest.raises(ValueError, match="say which by --label, one of down, up; got left"):
        call(["sample", str(folder), "--label", "left"], catch_exceptions=False)


def test_the_label_is_what_conditional_tells(table, tmp_path) -> None:
    """`--recipe conditional` alone tells it, and says so; classes by Bayes' rule stand beside logistic regression."""
    known = tmp_path / "known.csv"
    known.write_text("\n".join(line for line in table.read_text().splitlines() if not line.endswith(",")))
    folder = tmp_path / "run"
    words = ["fit", str(known), "--recipe", "conditional", "--label", "kind", "--folder", str(folder)]
    done = CliRunner().invoke(app, [*words, *SMALL])
    assert done.exit_code == 0, done.output
    assert "told down, up: the label of every row, as context" in done.output
    assert "logistic regression" in done.output
    run = nr.load(folder)
    assert run.model.prior.context == 2
    assert "share of rows whose class is found" in (folder / "report.html").read_text()


def test_columns_that_are_told(table, tmp_path) -> None:
    """No inputs but context, standardised by the training rows; other rows bring theirs, samples ask for them."""
    data = nr.data.load(table, label="kind", context="b,c")
    assert data.columns == ["a"]
    assert data.context == 2
    context = data.train.batch(torch.arange(len(data.train))).context
    assert torch.allclose(context.mean(0), torch.zeros(2), atol=1e-6)
    assert torch.allclose(context.std(0, correction=0), torch.ones(2), atol=1e-5)
    assert nr.data.reload(data.description()).fingerprint == data.fingerprint
    some = data.test.take(torch.tensor([2, 0]))
    assert torch.equal(some.batch(torch.arange(2)).context, data.test.batch(torch.tensor([2, 0])).context)
    rows = nr.data.like(data.description(), table)
    assert torch.allclose(rows.batch(torch.arange(5)).context, data.told[:5])
    likelihood = partial(nr.likelihoods.Gaussian, sigma=1.0)
    small = {"latent": 1, "likelihood": likelihood, "network": partial(Mlp, hidden=(8,))}
    model, objective = nr.recipes.conditional(**defaults.arguments(data, "conditional", small))
    run = nr.fit(model, objective, data, training=SHORT, quiet=True, folder=tmp_path / "run")
    assert nr.evaluate.codes(run.model, rows).shape == (120, 1)
    assert run.plot.samples()
    assert "classes" not in run.evaluate(samples=5)
    call, out = partial(CliRunner().invoke, app, catch_exceptions=False), tmp_path / "out.csv"
    done = call(["sample", str(run.folder), "--context", "b=1,c=0", "-n", "5", "--out", str(out)])
    assert done.exit_code == 0, done.output
    for words in ([], ["--context", "b=1"], ["--context", "b=1,c=x"]):
        with pytest.raises(ValueError, match="was told columns of every row: say of what, --context b="):
            call(["sample", str(run.folder), *words])
    with pytest.raises(ValueError, match="there is no column 'd'"):
        nr.data.load(table, label="kind", context=["b", "d"])
    with pytest.raises(ValueError, match="context holds a number in every row, and 'kind' does not"):
        nr.data.load(table, context="kind")


def test_labels_that_are_missing_are_refused_before_training() -> None:
    """With what to do; in the data, in the recipe's arguments, in the rows of `fit`."""
    bare = nr.data.load(np.random.default_rng(0).normal(size=(50, 3)))
    with pytest.raises(ValueError, match="tells the model something of every row, and array was loaded without"):
        defaults.arguments(bare, "conditional", {})
    with pytest.raises(ValueError, match="learns a label that some rows bring, and array has no labels: .* are blank"):
        defaults.arguments(bare, "semi_supervised", {})
    model, objective = nr.recipes.semi_supervised((3,), latent=1, likelihood=nr.likelihoods.Gaussian)
    with pytest.raises(ValueError, match="learned from rows that have one, and no training row does"):
        nr.fit(model, objective, bare, training=SHORT, quiet=True)
    y = np.arange(50) % 3
    with pytest.raises(ValueError, match="has 2 classes and a training row is of class 2: give classes=3"):
        nr.fit(model, objective, nr.data.load((np.asarray(bare.x), y)), training=SHORT, quiet=True)
