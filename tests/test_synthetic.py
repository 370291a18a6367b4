"""Rows drawn given cells, and what is said of synthetic rows."""

import math
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import csv
from sklearn.metrics import roc_auc_score

import narrows as nr
from narrows import cli, defaults
from narrows.evaluate import auc, augmentation, synthetic
from narrows.evaluate.synthetic import _cramer, _off
from narrows.likelihoods import Column, Columns
from narrows.networks import Mlp
from narrows.tasks import sample

COLUMNS = (Column(classes=3), Column(classes=2), Column(step=1.0, atoms=(0.0,)))


@pytest.fixture(scope="module")
def model() -> Any:
    """One unit of code, and a decoder that says much of it."""
    likelihood = partial(Columns, columns=COLUMNS)
    made, _ = nr.recipes.vae((3,), latent=1, likelihood=likelihood, network=partial(Mlp, hidden=()))
    with torch.no_grad():
        made.decoder.last.weight.copy_(
            torch.randn(made.decoder.last.weight.shape, generator=torch.Generator().manual_seed(3))
        )
    return made.eval()


# ---- rows given cells ---------------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("prior", ["normal", "by the prior alone"])
def test_rows_given_a_cell_by_quadrature(model: Any, prior: str, monkeypatch: Any) -> None:
    """Shares of 40,000 rows against sums over the code: off by 5 standard errors at most (seed 0; failure 1e-5)."""
    if prior != "normal":
        monkeypatch.setattr(type(model), "weighed", property(lambda self: False))
    given, n = torch.tensor([2.0, math.nan, math.nan]), 40_000
    found = sample(model, n, given, codes=200_000)
    assert bool((found.x[:, 0] == 2).all())
    z = torch.linspace(-8, 8, 2001)[:, None]
    px = model.decode(z)
    alone = model.prior().log_prob(z).exp()
    weight = alone * px.base_dist.log_prob(given.expand(len(z), -1).nan_to_num())[:, 0].exp()
    weight = (weight / weight.sum()).double()
    for column, value in ((1, 0.0), (1, 1.0), (2, 0.0), (2, 1.0), (2, -2.0)):
        cells = torch.zeros(len(z), 3)
        cells[:, column] = value
        exact = float((weight * px.base_dist.log_prob(cells)[:, column].exp()).sum())
        share = float((found.x[:, column] == value).double().mean())
        assert abs(share - exact) < 5 * math.sqrt(exact * (1 - exact) / n), (column, value, share, exact)
    said = px.base_dist.log_classes[:, 1, 1].exp()
    assert abs(float((said * alone / alone.sum()).sum() - found.x[:, 1].mean())) > 0.05  # what was given matters


@torch.no_grad()
def test_what_is_given_in_all_cells_is_what_comes(model: Any) -> None:
    given = torch.tensor([1.0, 0.0, 4.0])
    found = sample(model, 3, given)
    assert torch.equal(found.x, given.expand(3, -1))
    assert torch.equal(found.x, sample(model, 3, given).x)
    assert 1 <= found.effective_sample_size <= found.codes == 10_000
    assert "less varied" in str(found._replace(effective_sample_size=2.0))


def test_rows_that_cannot_be_drawn_are_refused(model: Any) -> None:
    with pytest.raises(ValueError, match=r"at least one row given cells \(3,\).* got n=2, cells \(2,\)"):
        sample(model, 2, torch.zeros(2))
    with pytest.raises(
        TypeError, match=r"where columns are mixed.* likelihood is Bernoulli. Load the table with column="
    ):
        sample(nr.recipes.vae((3,), latent=1)[0], 2, torch.zeros(3))


def people(n: int = 400, seed: int = 0) -> pa.Table:
    """Pay that hangs on sex and age; some ages are missing."""
    random = np.random.default_rng(seed)
    age, sex = random.integers(20, 60, n), random.choice(["Female", "Male"], n)
    rich = random.random(n) < np.where(sex == "Male", 0.1, 0.02) * (age - 15) / 6
    gain = np.where(random.random(n) < 0.7, 0, random.integers(1, 50, n) * 10)
    ages = [None if random.random() < 0.05 else int(a) for a in age]
    return pa.table({"age": ages, "sex": sex, "gain": gain, "paid": np.where(rich, "much", "little"), "on": [True] * n})


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"sx": "Male"}, "there is no column 'sx'; did you mean 'sex'"),
        ({"sex": "Mal"}, "column 'sex': there is no label 'Mal'; did you mean 'Male'"),
        ({"age": "old"}, "column 'age' holds a number; got 'old'"),
        ({"age": ""}, "column 'age' holds a number; got ''"),
        ({"age": 300}, "column 'age' runs over 20 to 59, every 1.* nothing is known beyond; got 300"),
        ({"age": 30.5}, "column 'age' runs over 20 to 59, every 1.*; 30.5 is none of these"),
        ({"on": True}, r"column 'on' is no part of what was learned \(always True, set aside\): leave it out"),
    ],
)
def test_cells_that_cannot_be_given_are_refused(given: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        nr.data.TableCodec.fit(people()).ask(given)


def test_given_numbers_keep_their_digits() -> None:
    values = np.random.default_rng(0).normal(size=50)
    codec = nr.data.TableCodec.fit(pa.table({"x": values, "k": list(range(25)) * 2}))
    given = {"x": repr(float(values[3])), "k": "7"}
    table = codec.exact(codec.decode(codec.ask(given)[None]), given)
    assert table.to_pylist() == [{"x": values[3], "k": 7}]


def test_cells_are_given_as_they_are_encoded() -> None:
    days = pa.array(np.arange("2020-01-01", "2020-03-01", dtype="datetime64[D]"))
    table = pa.table({"day": days, "x": np.linspace(0, 1, 60), "ok": [True, False] * 30})
    codec = nr.data.TableCodec.fit(table)
    row = table.slice(7, 1)
    for given in ({"day": "2020-01-08", "x": str(table["x"][7]), "ok": "False"}, row.to_pylist()[0]):
        assert torch.allclose(codec.ask(given), codec.encode(row)[0], atol=1e-6)
    with pytest.raises(ValueError, match="column 'day' holds a date; got 'soon'"):
        codec.ask({"day": "soon"})


# ---- values that stand out ----------------------------------------------------------------------------------------


def test_heaps_are_atoms_and_smooth_columns_have_none() -> None:
    random = np.random.default_rng(0)
    age = random.integers(18, 80, 5000)
    hours = np.where(random.random(5000) < 0.3, random.choice([20, 30, 35], 5000), random.integers(1, 80, 5000))
    weight = random.normal(70, 10, 5000)
    codec = nr.data.TableCodec.fit(pa.table({"age": age, "hours": hours, "weight": weight}))
    assert [column.atoms for column in codec.used] == [(), (20.0, 30.0, 35.0), ()]


# ---- what is said of synthetic rows -------------------------------------------------------------------------------


def test_an_area_is_that_of_scikit_learn_and_its_error_that_of_resampling() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(300, generator=generator).add(0.7).round(decimals=1), torch.randn(200, generator=generator)
    b = b.round(decimals=1)
    found = auc(a, b)
    assert found.mean == pytest.approx(roc_auc_score([1] * 300 + [0] * 200, torch.cat([a, b])), abs=1e-12)
    again = [auc(*(x[torch.randint(len(x), (len(x),), generator=generator)] for x in (a, b))).mean for _ in range(400)]
    assert found.standard_error == pytest.approx(float(np.std(again)), rel=0.15)


def test_distances_of_columns_and_of_pairs() -> None:
    a, b = torch.tensor([0.0, 0.0, 1.0, math.nan]), torch.tensor([0.0, 1.0, 2.0])
    assert _off(a, b, category=True) == pytest.approx(1 / 3)
    assert _off(a, b, category=False) == pytest.approx(1 / 3)
    assert _off(a, a[3:], category=False) == 1
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randint(4, (2, 2000), generator=generator)
    assert _cramer(x, x) == pytest.approx(1, abs=1e-3)
    assert _cramer(x, y) < 0.03
    assert _cramer(x, torch.zeros_like(x)) == 0


@pytest.fixture(scope="module")
def rows() -> dict[str, Any]:
    codec = nr.data.TableCodec.fit(people(1200))
    parts = {name: codec.encode(people(300, seed)) for name, seed in (("train", 1), ("held", 2), ("made", 3))}
    return {"codec": codec, **parts}


def test_rows_of_the_same_source_are_as_good_as_real_ones(rows: dict[str, Any]) -> None:
    found = synthetic(rows["made"], rows["train"], rows["held"], rows["codec"], "paid", rows=300)
    assert abs(found.told_apart.made.mean - 0.5) < 5 * found.told_apart.made.standard_error
    assert found.utility.made.mean > found.utility.columns.mean + 0.1
    assert found.utility.made.mean == pytest.approx(found.utility.real.mean, abs=0.1)
    assert abs(found.membership.made.mean - 0.5) < 5 * found.membership.made.standard_error
    assert list(found.by_column) == ["age", "sex", "gain", "paid"]
    assert found.pairs.made.mean < found.pairs.columns.mean
    said = str(found)
    assert "AUC after training on them" in said
    assert "can be guessed" not in said
    assert "CLOSER" not in said


def test_copies_of_training_rows_are_found_out(rows: dict[str, Any]) -> None:
    made = rows["train"].clone()
    made[:, 2] += 1e-4  # which no table would show
    found = synthetic(made, rows["train"], rows["held"], rows["codec"], rows=300)
    assert found.copies.made.mean > 0.8  # but for those that get another row's empty cells
    assert found.membership.made.mean > 0.6
    assert found.utility is None
    for word in ("CLOSER to training rows", "whether a row was trained on can be guessed", "--target COLUMN"):
        assert word in str(found)


def test_a_noisy_copy_is_told_apart_and_independent_columns_are_preferred(rows: dict[str, Any]) -> None:
    made = rows["train"].clone()
    made[:, 1] = 1.0
    found = synthetic(made, rows["train"], rows["held"], rows["codec"], "gain", rows=300)
    assert found.by_column["sex"][0] > 0.3 > found.by_column["sex"][1]
    assert found.told_apart.made.mean > 0.65
    assert found.score == "R2"
    assert "BETTER, take them for this" in str(found)


def test_more_rows_for_a_classifier(rows: dict[str, Any]) -> None:
    found = augmentation(rows["train"][:60], rows["made"], rows["held"], rows["codec"], "paid")
    assert (found.rows, found.more, found.score) == (60, 300, "AUC")
    assert found.both.mean > found.real.mean - found.real.standard_error
    assert "of 60 real rows" in str(found)
    with pytest.raises(ValueError, match="there is no column 'pay'; did you mean 'paid'"):
        augmentation(rows["train"], rows["made"], rows["held"], rows["codec"], "pay")


def test_too_few_rows_and_other_targets_are_refused(rows: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="there is no column 'pay'; did you mean 'paid'"):
        synthetic(rows["made"], rows["train"], rows["held"], rows["codec"], "pay")
    with pytest.raises(ValueError, match="at least 20 of them beside .* got 19, 300 and 300"):
        synthetic(rows["made"][:19], rows["train"], rows["held"], rows["codec"])


# ---- the command line ---------------------------------------------------------------------------------------------


def narrows(*words: str) -> int:
    """Runs the command line in this process and gives its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["narrows", *words])
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


def test_rows_from_a_run(tmp_path: Any, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    csv.write_csv(people(), "people.csv")
    data = nr.data.load("people.csv")
    model, objective = nr.recipes.vae(**defaults.arguments(data, "vae", {"latent": 2, "network": Mlp}))
    nr.fit(model, objective, data, training=nr.Training(epochs=2), folder="r", quiet=True)
    assert narrows("sample", "r", "--rows", "30", "--given", "sex=Female", "--given", "age=40") == 0
    assert "30 rows from 10,000 codes" in capsys.readouterr().out
    made = csv.read_csv("r/samples.csv")
    assert made.column_names == people().column_names
    assert set(made["sex"].to_pylist()) == {"Female"}
    assert set(made["age"].to_pylist()) == {40}
    for words, match in (
        (["sex"], "--given takes COLUMN=VALUE, such as age=...; got 'sex'"),
        (["sex=Feminine"], "column 'sex': there is no label 'Feminine'"),
        (["sex=Male", "--given", "sex=Female"], "--given asks two values of column 'sex': Male and Female"),
    ):
        assert narrows("sample", "r", "--given", *words, "--out", "no.csv") == 1
        assert match in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "no.csv").exists()
    assert narrows("evaluate", "r", "--synthetic", "--target", "paid", "--rows", "40") == 0
    said = capsys.readouterr().out
    assert "40 synthetic rows" in said
    assert "paid of held-out rows, AUC after training on them" in said
