"""Odd rows: scores that stay the same, thresholds that keep their word, columns that are rightly blamed."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import csv, parquet
from sklearn.ensemble import IsolationForest
from sklearn.metrics import f1_score, precision_recall_curve
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch.distributions import Normal
from typer.testing import CliRunner

import narrows as nr
from narrows.cli import app
from narrows.likelihoods import Gaussian
from narrows.objectives import Objective
from narrows.tasks import Detector, benjamini_hochberg
from narrows.tasks.anomaly import SCORES, _curve, _normal_score, squash, stretch

SHORT = nr.Training(epochs=1, batch=64)


def rows(n: int, seed: int = 0, d: int = 4) -> np.ndarray:
    """Correlated normal rows."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 2)) @ np.array([[1, 1, 0, 0.5], [0, 1, 2, -1]])[:, :d] + 0.1 * rng.normal(size=(n, d))


@pytest.fixture(scope="module")
def fitted() -> nr.AnomalyDetector:
    return nr.AnomalyDetector(random_state=0).fit(rows(600))


@pytest.mark.filterwarnings("ignore")  # scikit-learn's checks warn of what they skip
@parametrize_with_checks([nr.AnomalyDetector(training=SHORT)])
def test_scikit_learn(estimator, check):
    check(estimator)


# ---- scores -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", SCORES)
def test_every_score_knows_a_row_that_is_far_away(by, fitted):
    """Deterministic, the same in any company, and higher for a row far from all others."""
    made = nr.AnomalyDetector(by=by, training=SHORT, random_state=0).fit(rows(300))
    x = np.concatenate([rows(50, 1), [[6.0, -6, 6, 6]]])
    score = made.score_samples(x)
    assert score.argmin() == 50
    assert np.array_equal(score, made.score_samples(x))
    np.testing.assert_allclose(made.score_samples(x[20:23]), score[20:23], rtol=1e-9)


def test_a_detector_is_pickled_and_does_as_before(fitted):
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.score_samples(rows(20, 1)), fitted.score_samples(rows(20, 1)))


def test_ranks_become_normal_scores_and_go_straight_on_beyond():
    known = Normal(0.0, 1.0).icdf((torch.arange(20_001, dtype=torch.float64) + 0.5) / 20_001)
    curve = _curve(known)
    value = torch.tensor([-2.0, 0.0, 1.0, 2.5], dtype=torch.float64)
    torch.testing.assert_close(_normal_score(value, curve), value, atol=5e-3, rtol=0)
    far = _normal_score(torch.tensor([4.5, 5.0, 100.0], dtype=torch.float64), curve)
    assert (far.diff() > 0).all()
    assert far[0] == pytest.approx(4.5, abs=0.01)
    alike = torch.tensor([1.0, 2.0, 2.0 + 1e-15, 2.0, 3.0], dtype=torch.float64)
    torch.testing.assert_close(_normal_score(alike, _curve(alike))[1:4], torch.zeros(3, dtype=torch.float64))


def test_squash_is_undone_by_stretch():
    x = torch.tensor([-1e6, -1.0, 0.0, 1e-9, 3.0], dtype=torch.float64)
    torch.testing.assert_close(stretch(squash(x)), x, rtol=1e-9, atol=0)
    assert squash(torch.tensor([np.e - 1])).item() == pytest.approx(1.0)


def test_mahalanobis_distance_is_that_of_the_codes():
    model, _ = nr.recipes.vae((4,), latent=2, likelihood=Gaussian)
    x = torch.from_numpy(rows(200)).float()
    detector = Detector(model, x[:100], x[100:], "mahalanobis")
    known = nr.evaluate.codes(model, x[:100][torch.randperm(100, generator=torch.Generator())]).double()
    assert len(known) == 100
    z = nr.evaluate.codes(model, x[100:]).double()
    gap = z - detector.state["mean"]
    precision = detector.state["whiten"] @ detector.state["whiten"].T
    torch.testing.assert_close(detector.score(x[100:]), torch.einsum("bi,ij,bj->b", gap, precision, gap))


def test_no_row_is_its_own_neighbour():
    """Of 40 rows that all are neighbours, each is scored by the second nearest other, and so is a new row."""
    model = nr.recipes.vae((4,), latent=2, likelihood=Gaussian)[0].double()
    x = torch.from_numpy(rows(40))
    detector, new = Detector(model, x, x[:1], squashed=False), torch.from_numpy(rows(9, 3))
    nearest = torch.cdist(x, x).sort(1).values
    torch.testing.assert_close(detector._distances(nr.data.rows(x))["rows"], nearest[:, 2])
    torch.testing.assert_close(detector._distances(nr.data.rows(new))["rows"], torch.cdist(new, x).sort(1).values[:, 1])
    twice = Detector(model, torch.cat([x, x[:5]]), x[:1], squashed=False)  # a row's copy is its neighbour
    alike = twice._distances(nr.data.rows(x[:5]))["rows"]
    torch.testing.assert_close(alike, nearest[:5, 1])


def test_the_likelihood_s_score_is_minus_log_p():
    model, _ = nr.recipes.vae((4,), latent=2, likelihood=Gaussian)
    x = torch.from_numpy(rows(100)).float()
    found = Detector(model, x[:50], x[50:], "likelihood").score(x[50:])
    torch.testing.assert_close(found, -nr.evaluate.score_samples(model, x[50:], 16), rtol=1e-6, atol=0)


# ---- thresholds -------------------------------------------------------------------------------------------------


def test_the_false_alarm_rate_is_kept(fitted):
    """Asked 5 %: of 20,000 normal rows the share flagged lies within 4 deviations of the 6 / 121 of 120 held-out rows.

    The threshold is the 6th highest of 120 held-out scores, so the share is Beta(6, 115).
    """
    made = nr.AnomalyDetector(false_alarms=0.05, random_state=0).fit(rows(600))
    found = float((made.predict(rows(20_000, 5)) == -1).mean())
    spread = (6 * 115 / 121**2 / 122) ** 0.5
    assert abs(found - 6 / 121) < 4 * spread


def test_p_values_are_uniform_over_held_out_rows(fitted):
    p = fitted.detector_.p_values(fitted.detector_.state["held"])
    torch.testing.assert_close(p.sort().values, torch.arange(2, 122).double() / 121)
    assert fitted.p_values([[50.0, 0, 0, 0]])[0] == pytest.approx(1 / 121)


def test_thresholds_by_share_and_by_labels():
    x = np.concatenate([rows(380), 6 + rows(20, 3)])
    y = np.repeat([0, 1], [380, 20])
    assert (nr.AnomalyDetector(contamination=0.1, training=SHORT, random_state=0).fit_predict(x) == -1).sum() == 40
    made = nr.AnomalyDetector(random_state=0).fit(x, y)
    precision, recall, _ = precision_recall_curve(y, -made.score_samples(x))
    best = (2 * precision * recall / (precision + recall).clip(1e-9)).max()
    assert f1_score(y, made.predict(x) == -1) == pytest.approx(best)
    assert best > 0.7
    assert "best F1" in made.threshold_.why


def test_best_f1_is_that_of_all_thresholds():
    generator = torch.Generator().manual_seed(0)
    score = torch.randint(6, (40,), generator=generator).double()
    label = torch.rand(40, generator=generator) < score / 8
    held = torch.randn(20, 4, generator=generator)
    found = Detector(nr.recipes.vae((4,), latent=2, likelihood=Gaussian)[0], held, held).threshold(
        scores=score, label=label
    )

    def f1(at: float) -> float:
        flagged = score >= at
        return 2 * float((flagged & label).sum()) / float(flagged.sum() + label.sum())

    assert f1(found.value) == pytest.approx(max(f1(at) for at in range(6)))


def test_benjamini_hochberg_keeps_the_false_discovery_rate():
    """90 null p-values uniform and 10 tiny ones, 2,000 times: the mean share of false ones is 0.09 (4 errors)."""
    generator = torch.Generator().manual_seed(0)
    shares = []
    for _ in range(2000):
        p = torch.cat([torch.full((10,), 1e-6), torch.rand(90, generator=generator)]).double()
        found = benjamini_hochberg(p, 0.1)
        shares.append(float(found[10:].sum() / found.sum()))
    error = np.std(shares) / 2000**0.5
    assert abs(np.mean(shares) - 0.1 * 90 / 100) < 4 * error


def test_trimmed_losses_leave_the_worst_rows_out():
    model, objective = nr.recipes.autoencoder((2,), latent=1, likelihood=Gaussian)
    x = torch.tensor([[0.0, 0], [0, 1], [1, 0], [100, 100]])
    each = -objective(model, nr.Batch.of(x)).bound
    objective.trim = 0.25
    assert float(objective.train()(model, nr.Batch.of(x)).loss.detach()) == pytest.approx(
        float(each[:3].mean()), rel=1e-5
    )
    assert float(objective.eval()(model, nr.Batch.of(x)).loss.detach()) == pytest.approx(float(each.mean()), rel=1e-5)
    nr.fit(model, objective, x.repeat(20, 1), training=nr.Training(epochs=1, batch=8, trim=0.5), quiet=True)
    assert objective.trim == 0.5
    assert Objective.trim == 0


# ---- reasons ----------------------------------------------------------------------------------------------------


def test_the_column_that_was_spoiled_is_blamed(fitted):
    x = rows(40, 7)
    for row in range(40):
        x[row, row % 4] += 4.0
    said = fitted.why(x)
    assert np.mean([text.startswith(f"x{row % 4} is ") for row, text in enumerate(said)]) > 0.6
    assert said[0].split(" is ")[1].split(",")[0] == f"{x[0, 0]:.4g}"


# ---- the command ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("detect")
    odd = np.concatenate([rows(400), 5 + rows(8, 3)])
    table = pa.table([*odd.T, np.repeat([0, 1], [400, 8])], names=["a", "b", "c", "d", "odd"])
    csv.write_csv(table, folder / "all.csv")
    (folder / "lake").mkdir()
    for part in range(3):
        parquet.write_table(table.slice(part * 136, 136), folder / "lake" / f"{part}.parquet")
    data = nr.data.load(folder / "all.csv", drop="odd", seed=0)
    model, objective = nr.recipes.vae((4,), latent=2, likelihood=Gaussian)
    nr.fit(model, objective, data, training=nr.Training(epochs=5), folder=folder / "run", quiet=True)
    return folder


def call(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == code, (done.output, done.exception)
    return done.output + str(done.exception or "")


def test_a_table_is_scored_flagged_and_explained(run):
    said = call("detect", run / "run", run / "all.csv", "--label", "odd", "--out", run / "scored.parquet")
    made = parquet.read_table(run / "scored.parquet").to_pandas()
    assert list(made.columns) == ["a", "b", "c", "d", "odd", "score", "p_value", "flagged", "why"]
    assert made.flagged[400:].all()
    assert made.flagged[:400].mean() < 0.05
    assert made.why[made.flagged].str.contains("expected").all()
    assert (made.why[~made.flagged] == "").all()
    assert "isolation forest" in said
    assert "best F1" in said
    assert "The strangest rows" in (run / "scored.html").read_text()
    again = call("detect", run / "run", run / "all.csv", "--share", "0.02", "--out", run / "again.parquet")
    assert "calibrated" not in again  # the detector is read from the run
    assert np.array_equal(parquet.read_table(run / "again.parquet")["score"], made.score)
    assert parquet.read_table(run / "again.parquet")["flagged"].to_pandas().sum() == 8


def test_a_folder_is_scored_file_by_file_and_goes_on_where_it_stopped(run):
    out = run / "lake-scored"
    (run / "run" / "detector-combined.safetensors").unlink(missing_ok=True)  # made by the first call, read by the next
    assert "flagged" in call("detect", run / "run", run / "lake", "--false-alarms", "0.05")
    whole = call("detect", run / "run", run / "all.csv", "--false-alarms", "0.05", "--out", run / "w.parquet")
    assert "flagged" in whole
    made = [parquet.read_table(out / f"{part}.parquet") for part in range(3)]
    both = pa.concat_tables(made)["score"].to_numpy()
    np.testing.assert_allclose(both, parquet.read_table(run / "w.parquet")["score"].to_numpy(), rtol=1e-5)
    (out / "1.parquet").unlink()
    before = (out / "0.parquet").stat().st_mtime_ns
    said = call("detect", run / "run", run / "lake", "--false-alarms", "0.05")
    assert "2 of 3 files were there already" in said
    assert (out / "0.parquet").stat().st_mtime_ns == before
    (run / "lake" / "3.parquet").write_bytes((run / "lake" / "2.parquet").read_bytes()[:-200])
    assert "damaged or cut short" in call("detect", run / "run", run / "lake", "--false-alarms", "0.05", code=1)
    assert sorted(file.name for file in out.iterdir()) == ["0.parquet", "1.parquet", "2.parquet"]
    (run / "lake" / "3.parquet").unlink()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--by", "magic"], "a row is scored by combined, neighbours"),
        (["--false-alarms", "1e-6"], "cannot tell a false-alarm rate of 1e-06"),
        (["--share", "2"], "share is a share between 0 and 1"),
        (["--share", "0.1", "--fdr", "0.1"], "one threshold at a time"),
        (["--label", "ood"], "odd"),
        (["--label", "a"], "1 for anomalies and 0 for others"),
        (["--out", "scored.xlsx"], "ends in .csv or .parquet"),
        (["--fdr", "3"], "false discovery rate lies between 0 and 1"),
    ],
)
def test_what_is_asked_wrongly_is_said_in_a_sentence(run, words, message):
    assert message in call("detect", run / "run", run / "all.csv", *words, code=1)


def test_a_detector_says_what_it_needs():
    model, _ = nr.recipes.vae((4,), latent=2, likelihood=Gaussian)
    with pytest.raises(ValueError, match="at least 4 that the model learned from and 1 that it did not; got 3 and 0"):
        Detector(model, torch.zeros(3, 4), torch.zeros(0, 4))
    with pytest.raises(ValueError, match="no recipe 'vea'; did you mean 'vae'"):
        nr.AnomalyDetector(recipe="vea").fit(rows(20))
    detector = Detector(model, torch.randn(8, 4), torch.randn(4, 4))
    with pytest.raises(ValueError, match="labels of both kinds"):
        detector.threshold(scores=torch.zeros(3), label=torch.zeros(3))
    with pytest.raises(ValueError, match="together with the scores of their rows"):
        detector.threshold(label=torch.zeros(3))
    made, _ = nr.recipes.vae(
        (1,), latent=1, likelihood=lambda _: nr.likelihoods.Columns((1,), [nr.likelihoods.Column()])
    )
    with pytest.raises(TypeError, match="rows of mixed columns have no squared error"):
        Detector(made, torch.zeros(8, 1), torch.zeros(2, 1), "error")


def test_the_baseline_is_scikit_learn_s_forest():
    x = torch.from_numpy(rows(200))
    found = nr.baselines.isolation_forest(x[:100], x[100:])
    forest = IsolationForest(random_state=0).fit(x[:100].numpy())
    assert np.array_equal(found.numpy(), -forest.score_samples(x[100:].numpy()))
