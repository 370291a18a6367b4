"""Tables that are not as they should be: one plain sentence or what is documented, and no file that is half of one."""

import datetime as dt
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import csv, parquet
from typer.testing import CliRunner

import narrows as nr
from narrows.cli import app
from narrows.defaults import arguments

ROWS = 40
JOBS = {
    "detect": ["-o", "out.parquet"],
    "impute": ["-o", "out.parquet"],
    "denoise": ["-o", "out.parquet", "--rate", "0.1"],
    "reconstruct": ["-o", "out.parquet"],
    "encode": ["-o", "out.npy"],
}


def sound(rows: int, seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    age = rng.normal(40, 10, rows).round(1)
    days = [dt.date(2020, 1, 1) + dt.timedelta(int(day)) for day in rng.integers(0, 900, rows)]
    return pa.table({"age": age, "kind": np.where(age > 40, "old", "young"), "size": age.astype(int), "when": days})


def other(name: str, values: list) -> pa.Table:
    """The sound table with other first cells in a column."""
    table = sound(ROWS, 1)
    place = table.column_names.index(name)
    rest = table.column(name).to_pylist()[len(values) :]
    rest = [str(value) for value in rest] if isinstance(values[0], str) else rest
    return table.set_column(place, name, pa.array([*values, *rest]))


GOOD = {
    "an extra column": sound(ROWS, 1).append_column("more", pa.array(range(ROWS))),
    "a category never seen": other("kind", ["unheard of"]),
    "a column of nothing": sound(ROWS, 1).set_column(0, "age", pa.nulls(ROWS, pa.float64())),
    "a column of no type": sound(ROWS, 1).set_column(0, "age", pa.nulls(ROWS)),
    "a row of nothing": pa.table({n: pa.array([None, *c[1:]]) for n, c in sound(ROWS, 1).to_pydict().items()}),
    "a number out of all proportion": other("age", [1e308, -1e308]),
    "dates of other centuries": other("when", [dt.date(1700, 1, 1), dt.date(1, 1, 1), dt.date(9999, 12, 31)]),
}
BAD = {
    "a column that lacks": (sound(ROWS, 1).drop_columns(["size"]), "there is no column 'size'"),
    "text among numbers": (other("age", ["forty"]), "'age' holds something that is not a number.*'forty'.*empty it"),
    "infinity": (other("age", [40.0, np.inf]), "'age' is infinite in row 1; leave the cell empty"),
    "a name twice": (
        pa.Table.from_arrays(
            [*sound(ROWS).columns, sound(ROWS).column(0)], names=["age", "kind", "size", "when", "age"]
        ),
        "2 columns called 'age'; rename them",
    ),
    "no rows": (sound(ROWS).slice(0, 0), "has no rows"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("bad")
    parquet.write_table(sound(200), place / "known.parquet")
    data = nr.data.load(place / "known.parquet")
    model, objective = nr.recipes.vae(**arguments(data, "vae", {"latent": 2}))
    nr.fit(model, objective, data, training=nr.Training(epochs=1), folder=place / "run", quiet=True)
    return place / "run"


def does(job: str, run: Path, table: Path, monkeypatch) -> tuple[int, str, list[str]]:
    """Exit code, what is said, and the files that are left where it works."""
    place = table.parent / "work"
    place.mkdir()
    monkeypatch.chdir(place)
    done = CliRunner().invoke(app, [job, str(run), str(table), *JOBS[job]])
    said = done.output if done.exception is None or isinstance(done.exception, SystemExit) else str(done.exception)
    return done.exit_code, said, sorted(file.name for file in place.iterdir())


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("what", GOOD)
def test_is_taken_as_documented(what, job, run, tmp_path, monkeypatch):
    parquet.write_table(GOOD[what], tmp_path / "new.parquet")
    code, said, files = does(job, run, tmp_path / "new.parquet", monkeypatch)
    assert code == 0, said
    assert JOBS[job][1] in files
    if job in ("detect", "impute", "denoise", "reconstruct"):
        assert parquet.read_metadata(tmp_path / "work" / "out.parquet").num_rows == ROWS


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("what", BAD)
def test_is_refused_in_a_sentence(what, job, run, tmp_path, monkeypatch):
    table, sentence = BAD[what]
    parquet.write_table(table, tmp_path / "new.parquet")
    code, said, files = does(job, run, tmp_path / "new.parquet", monkeypatch)
    assert code
    assert not files
    assert "\n" not in said.strip()
    assert re.search(sentence, said)


@pytest.mark.parametrize("job", JOBS)
def test_a_file_cut_in_the_middle(job, run, tmp_path, monkeypatch):
    parquet.write_table(sound(ROWS, 1), tmp_path / "new.parquet")
    whole = (tmp_path / "new.parquet").read_bytes()
    (tmp_path / "new.parquet").write_bytes(whole[: len(whole) // 2])
    code, said, files = does(job, run, tmp_path / "new.parquet", monkeypatch)
    assert code
    assert "damaged or cut short" in said
    assert not files


def test_an_older_result_survives_a_refusal(run, tmp_path, monkeypatch):
    work = tmp_path / "work"
    parquet.write_table(sound(ROWS, 1), tmp_path / "new.parquet")
    assert does("detect", run, tmp_path / "new.parquet", monkeypatch)[0] == 0
    before = (work / "out.parquet").read_bytes()
    parquet.write_table(BAD["infinity"][0], tmp_path / "new.parquet")
    done = CliRunner().invoke(app, ["detect", str(run), str(tmp_path / "new.parquet"), "-o", "out.parquet"])
    assert done.exit_code
    assert (work / "out.parquet").read_bytes() == before


@pytest.mark.parametrize("what", [*GOOD, *BAD])
def test_to_learn_from(what, tmp_path):
    """All that is taken of other tables is learned from, but for a number that no scale is found for."""
    table = GOOD[what] if what in GOOD else BAD[what][0]
    parquet.write_table(table, tmp_path / "known.parquet")
    done = CliRunner().invoke(app, ["check", str(tmp_path / "known.parquet")])
    if what in ("infinity", "a name twice", "no rows", "a number out of all proportion"):
        assert done.exit_code
        assert str(done.exception).count("\n") == 0
        assert ("age" in str(done.exception)) or what == "no rows"
    else:
        assert done.exit_code == 0, done.exception


def test_ten_thousand_columns(tmp_path):
    """They train, and a row is scored."""
    x = np.random.default_rng(0).normal(size=(60, 10_000))
    table = pa.table({f"c{i}": part for i, part in enumerate(x.T)})
    data = nr.data.load(table)
    model, objective = nr.recipes.vae(**arguments(data, "vae", {"latent": 2}))
    nr.fit(model, objective, data, training=nr.Training(epochs=1), quiet=True)
    rows = nr.data.like(data.description(), table)
    score = nr.tasks.Detector(model, data.train, data.valid).score(rows)
    assert score.shape == (60,)
    assert score.isfinite().all()


def test_numbers_alone(tmp_path):
    """The same of a table without text: what is missing or infinite is named, what is far away is scored."""
    rng = np.random.default_rng(0)
    data = nr.data.load(rng.normal(size=(200, 3)))
    model, objective = nr.recipes.vae(data.shape, latent=2, likelihood=data.likelihood)
    nr.fit(model, objective, data, training=nr.Training(epochs=1), quiet=True)
    detector = nr.tasks.Detector(model, data.train, data.valid)
    far = detector.score(nr.data.like(data.description(), np.array([[0, 0, 0], [1e308, 0, 0], [0, -1e30, 0.0]])))
    assert far.isfinite().all()
    assert far[0] < far[1:].min()
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="1 values of column 0 are missing, NaN or infinite"):
            nr.data.like(data.description(), np.array([[bad, 0, 0]]))


def test_a_header_alone_and_an_empty_file(run, tmp_path):
    for text, sentence in (("", "is empty"), ("age,kind,size,when\n", "has no rows"), ("age,kind\n1\n", "Expected 2")):
        (tmp_path / "new.csv").write_text(text)
        done = CliRunner().invoke(app, ["detect", str(run), str(tmp_path / "new.csv")])
        assert sentence in str(done.exception)
    csv.write_csv(sound(3), tmp_path / "new.csv")
    assert CliRunner().invoke(app, ["detect", str(run), str(tmp_path / "new.csv")]).exit_code == 0
