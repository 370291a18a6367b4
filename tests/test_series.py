"""Series: windows that stay within their parts, steps that are scored by them, and a file that comes back scored."""

import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import csv
from typer.testing import CliRunner

import narrows as nr
from narrows.cli import app
from narrows.data import Rows
from narrows.data.windows import named, steps, unnamed, windows
from narrows.likelihoods import Gaussian
from narrows.tasks import Detector, point_adjusted


def waves(steps: int, seed: int = 0) -> np.ndarray:
    """Three channels that go together."""
    t, rng = np.arange(steps), np.random.default_rng(seed)
    return np.stack([np.sin(t / 9), 5 + 2 * np.cos(t / 9), np.sin(t / 9 + 1)], 1) + 0.05 * rng.normal(size=(steps, 3))


@pytest.fixture(scope="module")
def fitted() -> nr.AnomalyDetector:
    return nr.AnomalyDetector(window=8, random_state=0).fit(waves(1500))


# ---- windows ----------------------------------------------------------------------------------------------------


def test_windows_are_a_view_and_steps_bring_them_back():
    x = waves(50)
    made = windows(x, 7)
    assert made.shape == (44, 21)
    assert np.array_equal(made[3], x[3:10].reshape(-1))
    assert not made.flags.contiguous  # nothing was copied
    back = Rows(torch.from_numpy(np.array(made)), window=7).steps(torch.from_numpy(np.array(made)))
    torch.testing.assert_close(back, torch.from_numpy(x))
    names = named(["a", "b"], 3)
    assert names == ["a[-2]", "b[-2]", "a[-1]", "b[-1]", "a[0]", "b[0]"]
    assert unnamed(names, 3) == ["a", "b"]


def test_a_step_is_the_mean_of_the_windows_that_hold_it():
    values, numbers = torch.rand(6, dtype=torch.float64), torch.tensor([0, 1, 2, 7, 8, 9])
    found = steps(values, numbers, 3, 14)
    for step in range(14):
        over = [values[i] for i, first in enumerate(numbers.tolist()) if first <= step < first + 3]
        assert found[step].isnan() if not over else torch.isclose(found[step], torch.stack(over).mean())


@pytest.mark.parametrize("group", [None, np.repeat([3, 1, 2, 7, 5], 60)])
def test_no_window_lies_in_two_parts_or_groups(group):
    """Of every step the part is known by its number, which is what the series holds."""
    x = np.stack([np.arange(300.0), np.zeros(300)], 1)
    data = nr.data.load(x, window=10, group=group, test=0.2, valid=0.2)
    held = [part.raw[part.numbers][:, ::2].double() for part in (data.train, data.valid, data.test)]
    seen = [set(part.flatten().tolist()) for part in held]
    assert not seen[0] & seen[1]
    assert not (seen[0] | seen[1]) & seen[2]
    assert all(len(part) for part in held)
    for part in held:
        assert torch.equal(part, part[:, :1] + torch.arange(10))
        if group is not None:
            of = group[part.long().numpy()]
            assert (of == of[:, :1]).all()
    if group is None:
        assert max(seen[0]) < min(seen[1]) <= max(seen[1]) < min(seen[2])


def test_other_series_are_cut_as_the_first_was():
    x = pa.table({**{f"c{i}": part for i, part in enumerate(waves(200).T)}, "pump": ["a"] * 100 + ["b"] * 100})
    data = nr.data.load(x, window=8, group="pump", test=0.0, valid=0.0)
    rows = nr.data.like(data.description(), x)
    torch.testing.assert_close(rows.x, data.train.x)
    short = nr.data.like(data.description(), x.slice(95, 105))
    assert short.steps(short.x[:, 0]).isnan().sum() == 5  # what is left of the first pump is no window


def test_a_large_series_is_never_copied_into_its_windows(monkeypatch):
    monkeypatch.setattr(sys.modules["narrows.data.load"], "IN_MEMORY", 1000)
    x = waves(200)
    data, small = nr.data.load(x, window=8), nr.data.load(x[:20], window=2)
    assert isinstance(data.x, np.ndarray)
    assert isinstance(small.x, torch.Tensor)
    monkeypatch.undo()
    torch.testing.assert_close(data.train.batch(torch.arange(5)).x, nr.data.load(x, window=8).train.x[:5])


@pytest.mark.parametrize(
    ("what", "options", "said"),
    [
        (waves(20), {"window": 20}, "need a series of more"),
        (waves(20), {"window": 0}, "at least 1"),
        (waves(40), {"window": 35}, "ask for a shorter one"),
        (waves(40), {"window": 4, "time": np.arange(40)[::-1]}, "sort"),
        (waves(40), {"window": 4, "group": np.arange(40) % 2}, "stand together"),
        (pa.table({"a": ["x", "y"] * 20}), {"window": 4}, "numbers in every cell"),
    ],
)
def test_series_that_are_none(what, options, said):
    with pytest.raises(ValueError, match=said):
        nr.data.load(what, **options)


# ---- scores -----------------------------------------------------------------------------------------------------


def test_a_step_s_score_is_the_mean_of_its_windows_and_calibrates(fitted):
    x = waves(100, 5)
    x[40:48, 1] = 0
    score = -fitted.score_samples(x)
    assert 38 <= score.argmax() <= 50
    each = fitted.detector_._score(fitted._rows(x))
    expected = np.array([each[max(0, t - 7) : t + 1].mean() for t in range(100)])
    np.testing.assert_allclose(score, expected, rtol=1e-6)
    assert len(fitted.detector_.state["held"]) == 298 + 7  # steps, not windows, of the last fifth of 1,493
    assert fitted.p_values(x)[44] == pytest.approx(1 / 306)


def test_channels_are_off_by_their_own_error(fitted):
    """A half on average on new steps, and the channel that was changed is named first."""
    x = waves(2000, 7)
    np.testing.assert_allclose(np.mean(fitted.channels(x), 0), 0.5, rtol=0.2)
    x[1000, 2] += 1.0
    assert fitted.channels(x)[1000].argmax() == 2
    assert fitted.why(x[900:1100])[100].startswith(f"x2 is {x[1000, 2]:.4g}, expected")


def test_channels_in_the_units_of_the_data():
    data = nr.data.load(waves(600), window=4)
    model, _ = nr.recipes.vae(data.shape, latent=2)
    detector = Detector(model, data.train, data.valid, "error")
    squares, mean = detector._errors(data.test)
    nats, expected = detector.channels(data.test, data.undo)
    first = data.part.eq(2).nonzero()[0, 0]
    x = data.undo(mean).reshape(-1, 4, 3)
    torch.testing.assert_close(
        expected[first + 1], torch.from_numpy((x[0, 1] + x[1, 0]) / 2).double(), rtol=1e-4, atol=1e-4
    )
    off = (squares.unflatten(1, (4, 3))[0, 1] + squares.unflatten(1, (4, 3))[1, 0]) / 2
    torch.testing.assert_close(nats[first + 1], off / 2 / detector.state["calm"])


def test_too_short_for_its_windows():
    with pytest.raises(ValueError, match="16 steps are learned from a series of 48"):
        nr.AnomalyDetector(window=16).fit(waves(20))
    with pytest.raises(ValueError, match="channels are of a series"):
        nr.AnomalyDetector(training=nr.Training(epochs=1)).fit(waves(20)).channels(waves(20))


def test_point_adjustment_by_hand():
    truth = torch.tensor([0, 1, 1, 0, 1, 0, 1, 1])
    scores = torch.tensor([9.0, 1, 3, 5, 2, 0, 8, 7])
    assert point_adjusted(scores, truth).tolist() == [9, 3, 3, 5, 2, 0, 8, 8]
    assert torch.equal(point_adjusted(scores, truth * 0), scores)


# ---- from file to file ------------------------------------------------------------------------------------------


def test_a_series_from_the_command_line(tmp_path):
    new = waves(400, 3)
    new[200:215, 0] = 0.3
    odd = np.zeros(400, int)
    odd[200:215] = 1
    table = pa.table({"when": np.arange(1500), **dict(zip("abc", waves(1500).T, strict=True))})
    csv.write_csv(table, tmp_path / "known.csv")
    other = pa.table({"when": np.arange(400), **dict(zip("abc", new.T, strict=True)), "odd": odd})
    csv.write_csv(other, tmp_path / "new.csv")
    done = CliRunner().invoke(app, ["check", str(tmp_path / "known.csv"), "--window", "8", "--time", "when"])
    assert "windows of 8 steps" in done.output
    assert done.output.endswith("--time when --window 8\n")
    data, run = nr.data.load(tmp_path / "known.csv", window=8, time="when"), str(tmp_path / "run")
    model, objective = nr.recipes.vae(data.shape, latent=2, likelihood=Gaussian)
    nr.fit(model, objective, data, training=nr.Training(epochs=12), folder=run, quiet=True)
    out = tmp_path / "scored.csv"
    done = CliRunner().invoke(app, ["detect", run, str(tmp_path / "new.csv"), "-o", str(out), "--label", "odd"])
    assert done.exit_code == 0, done.output
    assert "area under the ROC curve of steps" in done.output
    assert "counts as found by its best step" in done.output
    scored = csv.read_csv(out)
    assert scored.num_rows == 400
    flagged = np.flatnonzero(scored["flagged"].to_numpy(zero_copy_only=False))
    assert 195 <= np.median(flagged) <= 220
    assert scored["why"][int(flagged[len(flagged) // 2])].as_py().count("a is 0.3, expected") == 1
    assert {"score", "p_value", "nats.a", "nats.b", "nats.c"} <= set(scored.column_names)
    assert "steps " in done.output
    page = out.with_suffix(".html").read_text()
    assert "data:image/png" in page
