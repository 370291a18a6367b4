"""Tables of mixed columns: nothing is lost on the way to tensors and back, and every cell has a probability."""

import datetime
import json
import math
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet

import narrows as nr
from narrows import cli, defaults, recipes, tasks
from narrows.baselines import fit_cells
from narrows.contract import Batch
from narrows.corruptions import Missing
from narrows.data import TableCodec
from narrows.likelihoods import Column, Columns, cells

N = 300
SHORT = nr.Training(epochs=1)


def narrows(*words: str) -> int:
    """Runs the command line in this process and gives its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["narrows", *words])
        try:
            cli.main()
        except SystemExit as stop:
            return int(stop.code or 0)
    return 0


def mixed() -> pa.Table:
    """Columns of every kind."""
    r = np.random.default_rng(0)
    day = [datetime.date(2020, 1, 1) + datetime.timedelta(days=int(i)) for i in r.integers(0, 900, N)]
    when = [datetime.datetime(1890, 1, 1) + datetime.timedelta(minutes=int(i)) for i in r.integers(0, 9e5, N)]
    return pa.table(
        {
            "age": pa.array([None if i % 9 == 0 else int(v) for i, v in enumerate(r.integers(17, 90, N))], pa.int16()),
            "gain": np.where(r.random(N) < 0.8, 0, r.integers(1, 99999, N)),
            "price": np.round(r.lognormal(3, 1, N), 2),
            "weight": r.normal(70, 9, N).astype(np.float32),
            "colour": pa.array([None if i % 7 == 0 else "rgb"[i % 3] for i in range(N)]),
            "member": r.random(N) < 0.3,
            "day": pa.array(day),
            "when": pa.array(when, pa.timestamp("s")),
            "row": np.arange(N),
            "unit": ["kg"] * N,
            "nothing": pa.nulls(N, pa.float64()),
        }
    )


TABLE = mixed()
CODEC = TableCodec.fit(TABLE)


# ---- there and back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["age", "gain", "price", "colour", "member", "day", "when", "unit", "nothing"])
def test_a_column_comes_back_as_it_was(name: str) -> None:
    """Values, types, labels and missing cells, to the last bit."""
    back = CODEC.decode(CODEC.encode(TABLE))
    assert back.column(name).equals(TABLE.column(name))
    assert back.schema.field(name).type == TABLE.schema.field(name).type


def test_what_has_no_grid_comes_back_to_the_last_digits_of_a_float() -> None:
    """A millionth of its spread."""
    back = CODEC.decode(CODEC.encode(TABLE)).column("weight").to_numpy()
    assert np.abs(back - TABLE.column("weight").to_numpy()).max() < 9e-6


def test_the_codec_says_what_it_found() -> None:
    """One line a column; identifiers and constants are set aside."""
    kinds = {column.name: column.kind for column in CODEC.kept}
    assert kinds == dict.fromkeys(("age", "gain", "price", "weight"), "number") | dict.fromkeys(
        ("colour", "member"), "category"
    ) | {"day": "date", "when": "date", "row": "identifier", "unit": "constant", "nothing": "constant"}
    lines = CODEC.listing().splitlines()
    assert len(lines) == 12
    assert "every 1; often 0" in lines[2]
    assert "every 0.01" in lines[3]
    assert "continuous" in lines[4]
    assert "3 classes: b, g, r" in lines[5]
    assert "every 86400 s" in lines[7]
    assert "1890" in lines[8]
    assert "different in every row, set aside" in lines[9]


def test_a_codec_survives_json_and_holds_no_rows() -> None:
    """Its file does not grow with the rows."""
    text = json.dumps(CODEC.to_json())
    assert TableCodec.from_json(json.loads(text)) == CODEC
    twice = TableCodec.fit(pa.concat_tables([TABLE.drop_columns("row")] * 3))
    assert len(json.dumps(twice.to_json())) < len(text) + 20


def test_kinds_can_be_corrected() -> None:
    """And only to what they can be."""
    codec = TableCodec.fit(TABLE, {"age": "category", "row": "number", "price": "drop"})
    kinds = {column.name: column.kind for column in codec.kept}
    assert (kinds["age"], kinds["row"], kinds["price"]) == ("category", "number", "drop")
    assert "price" not in codec.decode(codec.encode(TABLE)).column_names
    for wrong, match in (
        ({"aeg": "number"}, "no column 'aeg'; did you mean 'age'"),
        ({"age": "numbr"}, "no kind of column 'numbr'; did you mean 'number'"),
        ({"colour": "number"}, "column 'colour' holds something that is not a number"),
        ({"price": "date"}, "column 'price' is of type double and no date"),
    ):
        with pytest.raises(ValueError, match=match):
            TableCodec.fit(TABLE, wrong)


def test_other_rows() -> None:
    """New labels have a class of their own, columns that are not known are left, order does not matter."""
    other = TABLE.slice(0, 4).set_column(4, "colour", pa.array(["violet", "g", None, "r"]))
    other = other.append_column("more", pa.array([1, 2, 3, 4])).select(reversed([*TABLE.column_names, "more"]))
    x = CODEC.encode(other)
    place = [column.name for column in CODEC.used].index("colour")
    assert x[:, place].nan_to_num(-1).tolist() == [3, 1, -1, 2]
    assert CODEC.decode(x).column("colour").to_pylist() == [None, "g", None, "r"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t.drop_columns("age"), r"column 'age' is not among those given \(gain, price, .*add it"),
        (lambda t: t.set_column(2, "price", pa.array(["cheap"] * N)), "column 'price' holds something that is not a n"),
        (lambda t: t.set_column(2, "price", pa.array([math.inf] * N)), "column 'price' is infinite in row 0"),
        (lambda t: t.append_column("age", t.column("age")), "2 columns called 'age'; rename them"),
    ],
)
def test_bad_rows_are_refused(change: Any, match: str) -> None:
    """One sentence that names the column."""
    with pytest.raises(ValueError, match=match):
        CODEC.encode(change(TABLE))


def test_bad_tables_are_refused() -> None:
    """Before anything is learned."""
    with pytest.raises(ValueError, match="the table has no rows"):
        TableCodec.fit(TABLE.slice(0, 0))
    with pytest.raises(ValueError, match="no column is left to learn from: 'unit' is always 'kg', set aside"):
        TableCodec.fit(TABLE.select(["unit", "nothing"]))
    with pytest.raises(TypeError, match=r"a table is anything with an Arrow stream .*; got list"):
        TableCodec.fit([1, 2])
    with pytest.raises(ValueError, match=r"rows of 8 columns are needed, shape \(n, 8\)"):
        CODEC.decode(torch.zeros(3, 7))


def test_values_beyond_all_measure_stay_finite() -> None:
    """1e308 is as odd as can be, and no infinity."""
    far = TABLE.set_column(2, "price", pa.array([1e308] * N))
    x = CODEC.encode(far)
    likelihood = CODEC.likelihood((8,))
    px = likelihood(torch.zeros(N, *likelihood.wants))
    assert not x.isinf().any()
    assert cells(px, x.nan_to_num()).isfinite().all(), cells(px, x.nan_to_num()).min(0)
    assert likelihood.shown(x).isfinite().all()


# ---- a probability for every cell -------------------------------------------------------------------------------

SEVERAL = Columns((3,), [(3,), (0, 0.5, 0.25, (0.25, 1.25)), (0, 1e-6)], components=3).double()


def said(rows: int) -> torch.Tensor:
    """What a decoder might say."""
    return torch.randn(rows, *SEVERAL.wants, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_the_cells_of_a_grid_sum_to_one() -> None:
    """Atoms are counted once, and what lies beyond 100,000 is less than a thousandth."""
    grid = torch.arange(-200_000, 200_001, dtype=torch.float64) * 0.5 + 0.25
    x = torch.zeros(len(grid), 3, dtype=torch.float64)
    x[:, 1] = grid
    for row in said(3):
        p = cells(SEVERAL(row.expand(len(grid), -1)), x)[:, 1].exp().sum()
        assert 0.999 < float(p) < 1 + 1e-9
    x = torch.zeros(3, 3, dtype=torch.float64)
    x[:, 0] = torch.arange(3)
    assert float(cells(SEVERAL(said(1).expand(3, -1)), x)[:, 0].exp().sum()) == pytest.approx(1, abs=1e-12)


def test_a_cell_is_the_mixture_written_out() -> None:
    """One number by hand, with scipy's logistic."""
    from scipy.stats import logistic

    row = said(1)
    shares, rest = row[0, 3:6].softmax(0), row[0, 6:15].view(3, 3)
    weights, centre = rest[0].softmax(0), rest[1] + torch.tensor([-2.0, 0.0, 2.0])
    scale = torch.nn.functional.softplus(rest[2] - 0.5) + 1e-4
    for v, atom in ((0.25, 1), (1.25, 2), (3.75, None)):
        edges = [logistic(centre, scale).cdf(math.asinh(v + half)) for half in (0.25, -0.25)]
        p = float(shares[0] * (weights * torch.tensor(edges[0] - edges[1])).sum()) + float(shares[atom] if atom else 0)
        found = cells(SEVERAL(row), torch.tensor([[0.0, v, 0.0]], dtype=torch.float64))[0, 1]
        assert float(found.exp()) == pytest.approx(p, rel=1e-9)


def test_fine_grids_far_out_keep_their_digits() -> None:
    """In float32 the edges of such a place are the same number."""
    x = torch.tensor([[0.0, 0.25, v] for v in (-5000.0, -50.0, 0.0, 3.0, 50.0, 5000.0)])
    single = Columns(SEVERAL.shape, SEVERAL.columns, 3)
    exact = cells(SEVERAL(said(1).expand(6, -1)), x.double())
    found = cells(single(said(1).float().expand(6, -1)), x)
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-4)


def test_draws_have_those_probabilities() -> None:
    """100,000 draws, each of five places within 6 standard errors (failure 1e-8; seed 0)."""
    row, n = said(1), 100_000
    torch.manual_seed(0)
    x = SEVERAL(row).sample((n,))[:, 0]
    assert (((x[:, 1] - 0.25) / 0.5) % 1).abs().max() < 1e-9  # on the grid
    places = torch.tensor([[0, 0.25, 0], [1, 1.25, 0], [2, 0.75, 0], [2, -0.25, 0], [2, 4.75, 0]], dtype=torch.float64)
    p = cells(SEVERAL(row.expand(5, -1)), places).exp()
    for unit in (0, 1):
        share = (x[:, unit, None] - places[:, unit]).abs().lt(1e-9).double().mean(0)
        error = (p[:, unit] * (1 - p[:, unit]) / n).sqrt()
        assert ((share - p[:, unit]).abs() < 6 * error).all()


def test_what_an_encoder_is_shown() -> None:
    """Which cells are missing, categories one-hot, asinh of numbers, which atom; nothing of a missing cell."""
    x = torch.tensor([[math.nan, 1.25, 3.0], [2.0, math.nan, 0.0]])
    shown = Columns(SEVERAL.shape, SEVERAL.columns, 3).shown(x)
    expected = [
        [1, 0, 0, 0, 0, 0, math.asinh(1.25), 0, 1, math.asinh(3)],
        [0, 1, 0, 0, 0, 1, 0, 0, 0, 0],
    ]
    torch.testing.assert_close(shown, torch.tensor(expected, dtype=torch.float32))
    assert shown.shape[1:] == SEVERAL.reads
    week = Columns((1,), [Column(step=0.1, periods=((7.0, 2.0),))])
    torch.testing.assert_close(week.shown(torch.tensor([[3.75]]))[0, 2:], torch.tensor([1.0, 0.0]), atol=1e-6, rtol=0)


def test_columns_and_shape_agree() -> None:
    """Refused at once."""
    with pytest.raises(ValueError, match=r"as many cells as it has columns.*shape \(2,\) for 1 columns"):
        Columns((2,), [Column(classes=2)])
    with pytest.raises(ValueError, match="a category of at least 2 classes, or a number on a grid"):
        Columns((1,), [Column(step=0.0)])


def test_a_model_learns_from_cells_that_are_seen_alone() -> None:
    """Missing cells change neither distortion nor gradient; the run can be described."""
    x = CODEC.encode(TABLE)
    model, objective = recipes.vae((8,), latent=2, likelihood=CODEC.likelihood)
    assert recipes.build(json.loads(json.dumps(model.spec)))[0].likelihood.columns == model.likelihood.columns
    other = torch.where(x.isnan(), 5.0, x)
    found = []
    for target in (x, other):
        torch.manual_seed(0)
        terms = objective(model, Batch(x, target, seen=~x.isnan()))
        found.append(terms.distortion.detach())
        model.zero_grad()
        terms.loss.backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())
    assert torch.equal(*found)
    table = CODEC.decode(model.sample(20).sample())
    assert table.schema == TABLE.schema


def test_the_usual_row_is_the_best_that_can_be_said_without_a_code() -> None:
    """Of categories and atoms the slope is that of one row more; the mixtures' weights are better than equal ones."""
    x = CODEC.encode(TABLE).double()
    likelihood = CODEC.likelihood((8,)).double()
    said = likelihood.usual(x).requires_grad_()

    def score(said: torch.Tensor) -> torch.Tensor:
        px = likelihood(said.expand(len(x), -1))
        return torch.where(x.isnan(), 0.0, cells(px, x.nan_to_num(0.0))).sum()

    found = score(said)
    slope = torch.autograd.grad(found, said)[0]
    classes = likelihood.classes[likelihood.classes < len(said)]
    assert float(slope[classes].abs().max()) < 1.0
    assert float(found.detach()) > float(score(torch.zeros_like(said)).detach()) + 500
    equal = said.detach().clone()
    equal[likelihood.mixtures[:, 0]] = 0.0
    assert float(found.detach()) > float(score(equal).detach())


def test_a_table_from_file_to_file(tmp_path: Any, capsys: Any, monkeypatch: Any) -> None:
    """Fit, judge, sample, reconstruct, encode from the command line; new rows have the types and labels of old ones."""
    monkeypatch.chdir(tmp_path)
    parquet.write_table(TABLE, "t.parquet")

    words = ["fit", "t.parquet", "--epochs", "2", "--folder", "run", "--column", "member=category", "--quiet"]
    assert narrows(*words) == 0
    said = capsys.readouterr().out
    assert "independent columns" in said
    assert "squared error: model" not in said
    run = nr.load("run")
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The darker a cell, the less likely it is given the code" in page
    assert "--column member=category" in page
    assert "squared error of the reconstruction" not in page
    assert ">nan<" not in page
    record = run.evaluation["parts"]["train"]
    assert record["reconstruction"] == {}
    assert all(math.isfinite(v) for pair in record["bits_per_dimension"].values() for v in pair)
    for command, rows in (
        (["sample", "run", "--n", "9", "--out", "new.parquet"], 9),
        (["reconstruct", "run", "t.parquet", "--out", "new.parquet"], N),
    ):
        assert narrows(*command) == 0
        made = parquet.read_table("new.parquet")
        assert len(made) == rows
        assert made.schema.equals(parquet.read_table("t.parquet").schema)
        assert made["row"].null_count == rows  # set aside: nothing of it is known
        assert set(made["colour"].to_pylist()) <= {"r", "g", "b", None}
        assert set(made["unit"].to_pylist()) == {"kg"}
    assert "nats a row through the code" in capsys.readouterr().out
    assert narrows("sample", "run", "--n", "200", "--draw", "--out", "new.csv") == 0
    assert narrows("encode", "run", "t.parquet", "--out", "z.csv") == 0
    assert narrows("verify", "run") == 0
    assert narrows("sample", "run", "--out", "new.npy") != 0
    assert "--out ends in .csv or .parquet for a table of mixed columns" in capsys.readouterr().err


def test_independent_columns_are_as_likely_as_can_be() -> None:
    """Categories by their shares; a normal column's nats within a hundredth of its entropy on its grid."""
    r = np.random.default_rng(1)
    table = pa.table({"k": r.choice(list("ab"), 4000, p=[0.8, 0.2]), "v": np.round(r.normal(5, 2, 4000), 1)})
    codec = TableCodec.fit(table)
    x = codec.encode(table)
    found = float(fit_cells(x, codec.likelihood((2,))).log_prob(x).mean())
    share = float((table["k"].to_numpy() == "a").mean())
    entropy = -share * math.log(share) - (1 - share) * math.log(1 - share)
    normal = 0.5 * math.log(2 * math.pi * math.e * float(np.var(table["v"].to_numpy()))) - math.log(0.1)
    assert abs(found + entropy + normal) < 0.02


def test_cells_that_are_taken_away_are_scored_all_the_same() -> None:
    """What a denoising member of a table is shown: a share of its cells is missing, and its target is not."""
    data = nr.data.load(TABLE)
    chosen = defaults.arguments(data, "denoising", {})
    assert chosen["corruption"] == Missing()
    assert "corruption" not in defaults.arguments(data, "vae", {})
    model, objective = recipes.denoising(**chosen)
    (batch,) = data.train.batches(1000)
    taken = model.corruption(batch.x)
    assert bool((taken.isnan() | (taken == batch.x)).all())
    share = float((taken.isnan() & batch.seen).sum() / batch.seen.sum())
    assert abs(share - 0.25) < 0.05
    terms = objective(model, batch)
    assert terms.bound.isfinite().all()
    px = model.decode(model.encode(batch.x).z)
    assert px.base_dist.log_prob(batch.x.nan_to_num()).shape == batch.x.shape
    nr.fit(model, objective, data, training=nr.Training(epochs=2), quiet=True)


# ---- empty cells ------------------------------------------------------------------------------------------------


def sure_of(samples: int) -> tuple[Any, Any, torch.Tensor]:
    """A model of two categories and a number over one unit, what it fills, and p(second, number | first) on a grid."""
    columns = (Column(classes=3), Column(classes=4), Column(step=0.01))
    model, _ = recipes.vae((3,), latent=1, likelihood=partial(Columns, columns=columns), seed=5)
    with torch.no_grad():
        for layer in model.decoder.layers:
            layer.weight.mul_(3.0)  # so that z matters
    x = torch.tensor([[0.0, math.nan, math.nan], [2.0, math.nan, 0.5], [1.0, 3.0, -0.25]])
    z = torch.linspace(-8, 8, 4001)[:, None]
    return model, nr.impute(model, x, samples=samples, m=4000, seed=1), z


def test_empty_cells_by_quadrature() -> None:
    """Probabilities of categories, median and limits of numbers, and frequencies of draws, against sums over z."""
    model, found, z = sure_of(20_000)
    with torch.no_grad():
        px = model.decode(z).base_dist
    first, second = px.log_classes.exp().unbind(1)
    prior = torch.exp(-(z[:, 0] ** 2) / 2)
    number = torch.exp(px.log_prob(torch.tensor([[0.0, 0.0, 0.5]]).expand(len(z), -1))[:, 2])
    for row, weight in ((0, prior * first[:, 0]), (1, prior * first[:, 2] * number)):
        exact = (weight[:, None] * second[:, :4]).sum(0) / weight.sum()
        assert abs(float(found.sure[row, 1]) - float(exact.max())) < 0.02
        assert int(found.values[row, 1]) == int(exact.argmax())
        counts = torch.bincount(found.draws[:, row, 1].long(), minlength=4) / 4000
        assert float((counts - exact).abs().max()) < 0.05
    weight = prior * first[:, 0]
    for limit, share in ((found.low, 0.05), (found.values, 0.5), (found.high, 0.95)):
        below = ((limit[0, 2] + 0.005).asinh() - px.centre[:, 0]) / px.scale[
            :, 0
        ]  # of each component, atoms there are none
        at = (weight * (px.log_weights[:, 0].exp() * below.sigmoid()).sum(1)).sum() / weight.sum()
        assert abs(float(at) - share) < 0.02
    assert found.values[2].tolist() == [1.0, 3.0, -0.25]
    assert found.sure[2].tolist() == [1.0, 1.0, 1.0]
    assert bool((found.draws[:, 1, 2] == 0.5).all())
    assert bool((found.effective_sample_size >= 1).all())


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: Any) -> Any:
    """A folder with a table of a category that says much of a number, and of a run that learned it."""
    folder = tmp_path_factory.mktemp("kinds")
    r = np.random.default_rng(2)
    kind = r.choice(list("abc"), 1000)
    number = np.round(np.where(kind == "a", 1.0, np.where(kind == "b", 5.0, 9.0)) + r.normal(0, 0.3, 1000), 2)
    table = pa.table({"id": [f"r{i}" for i in range(1000)], "kind": kind, "number": number})
    parquet.write_table(table, folder / "t.parquet")
    data = nr.data.load(folder / "t.parquet", column={"kind": "category"}, test=0.3)
    model, objective = recipes.vae(**defaults.arguments(data, "vae", {"latent": 1}))
    nr.fit(model, objective, data, training=nr.Training(epochs=60, lr=5e-3), folder=folder / "run", quiet=True)
    return folder


def test_a_table_is_filled_where_it_is_empty_and_nowhere_else(
    tmp_path: Any, capsys: Any, monkeypatch: Any, kinds: Any
) -> None:
    """Values that the model never saw stay; each filled cell is listed; the rehearsal stands beside simple fillings."""
    monkeypatch.chdir(tmp_path)
    run = str(kinds / "run")
    loaded = nr.load(run)
    model, data = loaded.model, loaded.data
    found = tasks.rehearse(model, data.train, data.test)
    assert found.categories.mean > 0.7 > 0.5 > found.frequent.mean  # in one of five rows the number is hidden too
    assert found.numbers.mean < 0.6 * found.median.mean
    assert "WORSE" not in str(found)
    holes = pa.table({"id": ["x", "y", "z"], "kind": ["a", None, "new"], "number": [None, 9.1, 1e6]})
    parquet.write_table(holes, "holes.parquet")

    assert narrows("impute", run, "holes.parquet", "--draws", "2", "--out", "full.parquet") == 0
    made = parquet.read_table("full.parquet")
    assert made.column("id").equals(holes.column("id"))
    assert made.column("kind").to_pylist() == ["a", "c", "new"]
    assert made.column("number").to_pylist()[1:] == [9.1, 1e6]
    assert made.column("number")[0].as_py() < 3.0  # that of a, not of b or c
    listed = parquet.read_table("full-cells.parquet").to_pylist()
    assert [(cell["row"], cell["column"]) for cell in listed] == [(0, "number"), (1, "kind")]
    assert float(listed[0]["low"]) < float(listed[0]["value"]) < float(listed[0]["high"])
    assert listed[1]["sure"] > 0.8
    assert len(parquet.read_table("full-2.parquet")) == 3
    said = capsys.readouterr().out
    assert "filled 2 cells of 2 columns in 2 rows" in said
    assert "of their cells hidden: categories right" in said
    plain, _ = recipes.vae((3,), latent=1)
    with pytest.raises(TypeError, match="cells can be missing from rows of mixed columns"):
        nr.impute(plain, torch.zeros(2, 3))
    bare = nr.data.load(np.random.default_rng(2).normal(size=(50, 2)))
    nr.fit(*recipes.vae(**defaults.arguments(bare, "vae", {})), bare, training=SHORT, folder="bare", quiet=True)
    assert narrows("impute", "bare", "holes.parquet") == 1
    assert "learned from numbers alone" in capsys.readouterr().err


def test_cells_that_the_others_speak_against_are_replaced(
    tmp_path: Any, capsys: Any, monkeypatch: Any, kinds: Any
) -> None:
    """And no others: types, empty cells and what was set aside stay; each change is listed with its nats."""
    monkeypatch.chdir(tmp_path)
    run = str(kinds / "run")
    odd = pa.table(
        {
            "id": ["v", "w", "x", "y", "z"],
            "kind": pa.array(["a", "c", None, "b", "b"]).dictionary_encode(),
            "number": [1.1, 9.2, 5.0, 4.9, 500.0],
        }
    )
    parquet.write_table(odd, "odd.parquet")
    assert narrows("denoise", run, "odd.parquet", "--rate", "0.01", "--samples", "64", "--out", "even.parquet") == 0
    made = parquet.read_table("even.parquet")
    assert made.column("id").equals(odd.column("id"))
    assert made.column("kind").to_pylist() == odd.column("kind").to_pylist()
    assert made.column("number").to_pylist()[:4] == [1.1, 9.2, 5.0, 4.9]
    assert 3.0 < made.column("number")[4].as_py() < 7.0  # that of b
    (listed,) = parquet.read_table("even-cells.parquet").to_pylist()
    assert (listed["row"], listed["column"], listed["seen"]) == (4, "number", "500.0")
    assert listed["expected"] == str(made.column("number")[4].as_py())
    assert listed["nats"] > 5
    said = capsys.readouterr().out
    assert "replaced 1 cells of 1 columns in 1 of 5 rows: those with evidence above" in said
    assert "of their cells from other rows: found" in said
    assert narrows("denoise", run, "odd.parquet", "--rate", "0.0000001", "--out", "no.parquet") == 1
    assert "held-out cells tell no share below" in capsys.readouterr().err
    parquet.write_table(odd.slice(0, 2), "fine.parquet")
    assert (
        narrows("denoise", run, "fine.parquet", "--rate", "0.01", "--samples", "64", "--out", "fine-too.parquet") == 0
    )
    assert len(parquet.read_table("fine-too-cells.parquet")) == 0
    loaded = nr.load(run)
    few = {"rate": 0.01, "share": 0.1, "rows": 150, "samples": 64}
    found = tasks.rehearse_denoising(loaded.model, loaded.data.train, loaded.data.test, **few)
    assert found.found.mean > found.rarest.mean + 0.2, found  # of two that do not agree, either may be the odd one
    assert found.false.mean < 0.05, found
    assert "WORSE" not in str(found)
    with pytest.raises(TypeError, match="cells are replaced in rows of mixed columns"):
        tasks.denoise(recipes.vae((3,), latent=1)[0], torch.zeros(2, 3), nr.data.Rows(torch.zeros(9, 3)))
