"""Data: scaling, rows, parts, arrays, IDX, named sets, and what is said where they cannot be used. All seeds are 0."""

import gzip
import hashlib
import json
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pooch
import pytest
import torch

import narrows.data
from narrows import draws
from narrows.data import Data, Rows, Scaling, like, load, names, reload, rows
from narrows.data import found as reading
from narrows.data.named import FILES, NAMED
from narrows.data.split import parts
from narrows.likelihoods import Bernoulli, DiscretisedLogistic, Gaussian

RNG = np.random.default_rng(0)
TABLE = RNG.normal(3, 5, (200, 4))
GREY = RNG.integers(0, 256, (100, 8, 8), dtype=np.uint8)


def likelihood(data: Data) -> tuple[type, dict]:
    chosen = data.likelihood if isinstance(data.likelihood, partial) else partial(data.likelihood)
    return chosen.func, chosen.keywords


def everything(data: Data) -> np.ndarray:
    return np.asarray(data.x)


# ---- scaling ----


@pytest.mark.parametrize(
    ("dtype", "low", "step", "levels"),
    [("uint8", 0, 1, 256), ("uint8", 0, 1, 17), ("int16", -300, 7, 90), ("float32", 2, 3, 5), ("int32", 0, 1, 65536)],
)
def test_levels_are_undone_exactly(dtype, low, step, levels):
    scale = Scaling("levels", dtype, float(low), float(step), levels)
    x = (low + step * np.arange(levels)).astype(dtype)[:, None]
    units = scale(torch.from_numpy(x))
    assert units.dtype == torch.float32
    torch.testing.assert_close(units, torch.linspace(0, 1, levels)[:, None], rtol=0, atol=1e-6)
    again = scale.undo(units)
    assert again.dtype == x.dtype
    assert (again == x).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bytes_that_were_divided_by_255_are_undone_exactly(dtype):
    scale = Scaling("levels", np.dtype(dtype).name, 0.0, 1 / 255, 256)
    x = (np.arange(256).astype(dtype) / dtype(255))[:, None]
    assert (scale.undo(scale(torch.from_numpy(x))) == x).all()


def test_levels_round_and_clip():
    assert Scaling("levels", "uint8", levels=17).undo(np.array([-0.2, 0.51, 1.7])).tolist() == [0, 8, 16]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8"])
def test_standard_is_undone(dtype):
    x = np.clip(TABLE * 9, 0, 200).astype(dtype)
    data = load(x, test=0.2)
    units = data.scaling(data.x)
    assert units.dtype == torch.float32
    again = data.undo(units)
    assert again.dtype == x.dtype
    np.testing.assert_allclose(again, x, rtol=1e-5, atol=1e-5)


def test_standard_knows_the_training_rows_only():
    data = load(TABLE)
    train = data.train.x
    torch.testing.assert_close(train.mean(0), torch.zeros(4), rtol=0, atol=1e-6)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(4), rtol=0, atol=1e-6)
    assert np.allclose(data.scaling.mean, everything(data)[(data.part == 0).numpy()].mean(0), rtol=1e-12)


def test_standard_keeps_what_float32_cannot_hold():
    seconds = 1.7e9 + RNG.normal(0, 1, (100, 1))
    data = load(seconds)
    np.testing.assert_allclose(data.undo(data.scaling(data.x)), seconds, rtol=0, atol=1e-5)


def test_a_constant_column_is_left_at_zero():
    x = TABLE.copy()
    x[:, 1] = 0.1
    data = load(x)
    assert (data.train.x[:, 1].abs() < 1e-6).all()
    assert data.scaling.std[1] == 1
    assert any("1 of 4 columns are constant (1)" in note for note in data.notes)


@pytest.mark.parametrize(
    ("scaling", "sentence"),
    [
        (Scaling("identity", "uint8"), "values left as they are"),
        (Scaling("levels", "uint8", levels=17), "integers 0..16 scaled to 0..1 (17 levels)"),
        (Scaling("levels", "uint8", 0, 17, 16), "integers 0, 17 .. 255 scaled to 0..1 (16 levels)"),
        (Scaling("levels", "float32", 0, 1 / 255, 256), "values k/255 taken as 256 levels of 0..1"),
        (Scaling("standard", "float32", mean=(0.0,), std=(1.0,)), "values scaled to mean 0"),
        (Scaling("standard", "float32", mean=(0.0, 1.0), std=(1.0, 2.0)), "each of 2 columns scaled to mean 0"),
    ],
)
def test_scaling_as_a_sentence_and_as_json(scaling, sentence):
    assert scaling.describe().startswith(sentence)
    assert Scaling.from_json(json.loads(json.dumps(scaling.to_json()))) == scaling


# ---- rows ----


def test_a_batch_is_direct_indexing():
    data = load((GREY, np.arange(100) % 3))
    index = torch.tensor([5, 0, 5, 17])
    step = torch.tensor(3)
    batch = data.train.batch(index, step)
    numbers = torch.nonzero(data.part == 0)[:, 0][index]
    assert torch.equal(batch.x, data.x[numbers].float() / 255)
    assert batch.target is batch.x
    assert torch.equal(batch.label, numbers % 3)
    assert batch.label.dtype == torch.int64
    assert torch.equal(batch.row, index)
    assert batch.step is step
    assert batch.rows == len(data.train) == 80
    assert data.train.shape == (1, 8, 8)
    assert torch.equal(data.train.x[index], batch.x)
    assert torch.equal(data.train.label[index], batch.label)


def test_rows_taken_from_rows():
    data = load((GREY, np.arange(100)))
    some = data.valid.take(torch.tensor([3, 1])).take(torch.tensor([1]))
    assert len(some) == 1
    assert torch.equal(some.x, data.valid.x[1:2])
    assert torch.equal(some.label, data.valid.label[1:2])


def test_batches_are_all_rows_in_order():
    data = load(TABLE)
    batches = list(data.train.batches(33))
    assert [len(b.x) for b in batches] == [33, 33, 33, 33, 28]
    assert torch.equal(torch.cat([b.x for b in batches]), data.train.x)
    assert torch.equal(torch.cat([b.row for b in batches]), torch.arange(160))


def test_bare_tensors_are_rows_in_model_units():
    x = torch.rand(5, 3, dtype=torch.float64)
    assert torch.equal(rows(x).x, x)  # float64 stays: exact tests need it
    assert rows(np.ones((4, 2), np.uint8)).x.dtype == torch.float32
    held = Rows(x)
    assert rows(held) is held
    with pytest.raises(TypeError, match="rows are read from Rows, a tensor or an array"):
        rows([1, 2])


def test_rows_move_as_a_whole():
    data = load((GREY, np.arange(100)))
    assert data.train.to("cpu") is data.train
    moved = data.train.to("meta")
    assert len(moved) == 80
    assert moved.raw.device.type == moved.batch(torch.arange(3)).x.device.type == "meta"


def test_rows_on_disk_are_rows_in_memory(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", GREY)
    label = np.arange(100)
    held = load(tmp_path / "x.npy", label=label)
    monkeypatch.setattr(reading, "IN_MEMORY", 0)
    disk = load(tmp_path / "x.npy", label=label)
    assert isinstance(held.x, torch.Tensor)
    assert isinstance(disk.x, np.memmap)
    index = torch.tensor([7, 2, 7, 60])
    for one, other in zip(held.train.batch(index), disk.train.batch(index), strict=True):
        assert one == other if not isinstance(one, torch.Tensor) else torch.equal(one, other)
    assert torch.equal(disk.test.x, held.test.x)
    assert disk.train.to("meta").raw is disk.x
    assert held.description() == disk.description()
    assert "disk" in repr(disk.train)


@pytest.mark.parametrize("dtype", [">f4", "<u2", ">i8", "?"])
def test_types_that_torch_does_not_hold_are_widened(tmp_path, monkeypatch, dtype):
    x = (TABLE * 100).astype("i8").clip(0, 60000).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    held = load(tmp_path / "x.npy")
    assert (everything(held) == x).all()
    monkeypatch.setattr(reading, "IN_MEMORY", 0)
    disk = load(tmp_path / "x.npy")
    assert disk.fingerprint == held.fingerprint
    assert torch.equal(disk.train.x, held.train.x)
    assert disk.scaling == held.scaling


def test_a_batch_costs_little():
    data = load(RNG.integers(0, 256, (2000, 28, 28), dtype=np.uint8))
    index = torch.arange(128)

    def best(call) -> float:
        times = []
        for _ in range(200):
            start = time.perf_counter()
            call()
            times.append(time.perf_counter() - start)
        return min(times)

    numbers = torch.nonzero(data.part == 0)[:, 0][index]
    bare = best(lambda: data.x.index_select(0, numbers).to(torch.float32).div_(255))
    assert best(lambda: data.train.batch(index)) - bare < 60e-6  # 20 where nothing else runs


# ---- binarisation ----


def test_dynamic_binarisation_follows_the_seed():
    data = load(GREY, binarise="dynamic")
    index = torch.arange(20)

    def drawn(step: int) -> torch.Tensor:
        with draws.seeded(0, step):
            return data.train.batch(index).x

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    assert set(drawn(1).unique().tolist()) == {0.0, 1.0}
    # 2000 draws of each of 20 x 64 values: 6 standard errors, failure probability 3e-6 over all of them
    mean = torch.stack([drawn(step) for step in range(2000)]).mean(0)
    grey = data.x[torch.nonzero(data.part == 0)[:20, 0]].float() / 255
    assert ((mean - grey).abs() <= 6 * (grey * (1 - grey) / 2000).sqrt() + 1e-6).all()
    assert likelihood(data) == (Bernoulli, {})


def test_fixed_binarisation_is_drawn_once():
    one, other = load(GREY, binarise="fixed"), load(GREY, binarise="fixed", seed=1)
    assert one.x.dtype == torch.uint8
    assert torch.equal(one.x, other.x)  # the split's seed does not change the data
    assert torch.equal(load(GREY).part, one.part)  # nor does drawing change the split
    assert set(one.train.x.unique().tolist()) == {0.0, 1.0}
    assert (one.x[torch.from_numpy(GREY)[:, None] == 255] == 1).all()
    assert (one.x[torch.from_numpy(GREY)[:, None] == 0] == 0).all()
    assert likelihood(one) == (Bernoulli, {})


def test_relaxed_leaves_grey():
    data = load(GREY, binarise="relaxed")
    assert torch.equal(data.train.x, load(GREY).train.x)
    assert likelihood(data) == (Bernoulli, {"relaxed": True})
    assert any("no likelihood" in note or "have no likelihood" in note for note in data.notes)


def test_grey_vectors_can_be_binarised():
    flat = GREY.reshape(100, 64)
    assert torch.equal(
        load(flat, binarise="relaxed").x.float() / 255, load(flat, binarise="relaxed").scaling(torch.from_numpy(flat))
    )
    data = load(RNG.random((50, 6)), binarise="dynamic")
    assert data.scaling.kind == "identity"


def test_black_and_white_needs_no_drawing():
    data = load(GREY > 99, binarise="dynamic")
    assert data.binarise is None
    assert any("nothing to do" in note for note in data.notes)


def test_binarise_wants_probabilities(tmp_path, monkeypatch):
    with pytest.raises(
        ValueError, match=r"binarise reads values as probabilities of 0..1, and those of array run from"
    ):
        load(TABLE, binarise="fixed")
    with pytest.raises(ValueError, match='binarise is None, "fixed", "dynamic" or "relaxed"; got \'statically\''):
        load(GREY, binarise="statically")
    np.save(tmp_path / "x.npy", GREY)
    monkeypatch.setattr(reading, "IN_MEMORY", 0)
    with pytest.raises(ValueError, match="too large to be drawn once and kept; use binarise='dynamic'"):
        load(tmp_path / "x.npy", binarise="fixed")


# ---- what is decided ----


@pytest.mark.parametrize(
    ("x", "shape", "kind", "expected"),
    [
        (GREY > 99, (1, 8, 8), "identity", (Bernoulli, {})),
        ((TABLE > 0).astype(np.float64), (4,), "identity", (Bernoulli, {})),
        (GREY, (1, 8, 8), "levels", (DiscretisedLogistic, {"levels": 256})),
        (GREY // 16, (1, 8, 8), "levels", (DiscretisedLogistic, {"levels": 16})),
        (GREY // 16 * 16, (1, 8, 8), "levels", (DiscretisedLogistic, {"levels": 256})),
        ((GREY // 16 * 7).astype(np.int16), (1, 8, 8), "levels", (DiscretisedLogistic, {"levels": 16})),
        ((GREY // 64).astype(np.float32) - 2, (1, 8, 8), "levels", (DiscretisedLogistic, {"levels": 4})),
        ((GREY / 255).astype(np.float32), (1, 8, 8), "levels", (DiscretisedLogistic, {"levels": 256})),
        ((GREY > 99).astype(np.uint8) * 255, (1, 8, 8), "levels", (Bernoulli, {})),
        (RNG.normal(size=(30, 8, 8)), (1, 8, 8), "standard", (Gaussian, {"sigma": 1.0, "learn": "shared"})),
        (GREY.astype(np.int64) * 200, (1, 8, 8), "levels", (DiscretisedLogistic, {"levels": 256})),
        (RNG.integers(0, 1 << 20, (30, 8, 8)), (1, 8, 8), "standard", (Gaussian, {"sigma": 1.0, "learn": "shared"})),
        (TABLE, (4,), "standard", (Gaussian, {"sigma": 1.0, "learn": "shared"})),
        (GREY.reshape(100, 64), (64,), "standard", (Gaussian, {"sigma": 1.0, "learn": "shared"})),
        (np.repeat(GREY[:, None], 3, 1), (3, 8, 8), "levels", (DiscretisedLogistic, {"levels": 256})),
        (np.repeat(GREY[..., None], 3, 3), (3, 8, 8), "levels", (DiscretisedLogistic, {"levels": 256})),
        (np.repeat(GREY[..., None], 4, 3), (4, 8, 8), "levels", (DiscretisedLogistic, {"levels": 256})),
        (torch.from_numpy(GREY), (1, 8, 8), "levels", (DiscretisedLogistic, {"levels": 256})),
        (torch.rand(20, 3, dtype=torch.bfloat16), (3,), "standard", (Gaussian, {"sigma": 1.0, "learn": "shared"})),
        (TABLE.tolist(), (4,), "standard", (Gaussian, {"sigma": 1.0, "learn": "shared"})),
    ],
)
def test_defaults(x, shape, kind, expected):
    data = load(x)
    assert data.shape == shape
    assert data.scaling.kind == kind
    assert likelihood(data) == expected
    assert data.image is (len(shape) == 3)
    support = data.likelihood(data.shape).support
    assert support.check(data.train.x).all()
    np.testing.assert_allclose(data.undo(data.scaling(data.x)), everything(data), rtol=1e-5, atol=1e-5)
    json.dumps(data.description())


def test_digits():
    data = load("digits")
    assert repr(data) == (
        "Data(digits: 1437 train, 180 valid, 180 test rows of (1, 8, 8); integers 0..16 scaled to 0..1 (17 levels))"
    )
    assert data.x.dtype == torch.uint8
    assert data.classes == list("0123456789")
    about = data.description()
    assert json.loads(json.dumps(about)) == about
    assert about["rows"] == {"train": 1437, "valid": 180, "test": 180}
    assert about["likelihood"] == {"DiscretisedLogistic": {"levels": 17}}
    assert about["source"] == "digits"
    assert about["options"] == {}
    assert len(about["fingerprint"]) == 64


def test_names_have_a_line_each():
    assert set(names()) == {"digits", "fashion-mnist", "mnist"}
    assert all(line and "\n" not in line for line in names().values())


def test_the_public_names_are_sorted():
    assert narrows.data.__all__ == sorted(narrows.data.__all__)


def test_the_fingerprint_sees_values_labels_and_parts():
    y = np.arange(200) % 2
    base = load((TABLE, y)).fingerprint
    assert load((TABLE.copy(), y)).fingerprint == base
    other = TABLE.copy()
    other[3, 2] += 1e-9
    assert load((other, y)).fingerprint != base
    assert load((TABLE, 1 - y)).fingerprint != base
    assert load((TABLE, y), seed=1).fingerprint != base
    assert load((TABLE.astype(np.float32), y)).fingerprint != base


# ---- labels ----


@pytest.mark.parametrize(
    ("given", "coded", "classes"),
    [
        ([0, 1, 2, 1], [0, 1, 2, 1], ["0", "1", "2"]),
        ([7, 3, 3, -1], [1, 0, 0, -1], ["3", "7"]),
        ([1.0, 0.0, np.nan, 1.0], [1, 0, -1, 1], ["0", "1"]),
        ([True, False, False, True], [1, 0, 0, 1], ["0", "1"]),
        (["b", " a", "", "b"], [1, 0, -1, 1], ["a", "b"]),
        (np.array(["x", None, "y", "x"], object), [0, -1, 1, 0], ["x", "y"]),
        (torch.tensor([[1], [0], [0], [1]]), [1, 0, 0, 1], ["0", "1"]),
    ],
)
def test_labels_are_coded(given, coded, classes):
    data = load((TABLE[:4], given))
    assert data.label.tolist() == coded
    assert data.classes == classes
    assert any("1 of 4 rows have no label" in note for note in data.notes) is (-1 in coded)
    assert load(TABLE[:4], label=given).label.tolist() == coded


def test_labels_that_are_none():
    with pytest.raises(ValueError, match=r"labels are classes, and those of array are fractions such as 0.5"):
        load((TABLE[:3], [0.0, 0.5, 1.0]))
    with pytest.raises(ValueError, match=r"one label a row is needed; array has 200 rows and labels of shape \(3,\)"):
        load((TABLE, [1, 2, 3]))
    with pytest.raises(ValueError, match="brings its own label; leave label= away"):
        load("digits", label=np.zeros(1797))
    with pytest.raises(ValueError, match="labels were given twice"):
        load((TABLE, np.ones(200)), label=np.ones(200))
    with pytest.raises(ValueError, match="label='y' names a column, and digits has none"):
        load("digits", label="y")


# ---- parts ----


def test_the_split_follows_the_seed_and_not_the_order():
    first = load(TABLE).part
    assert torch.equal(first, load(TABLE).part)
    assert not torch.equal(first, load(TABLE, seed=1).part)
    order = RNG.permutation(200)
    assert torch.equal(load(TABLE[order]).part, first[torch.from_numpy(order)])
    assert np.bincount(first).tolist() == [160, 20, 20]


@pytest.mark.parametrize(
    ("valid", "test", "counts"), [(0.25, 0.5, [50, 50, 100]), (0, 0.1, [180, 0, 20]), (0, 0, [200, 0, 0])]
)
def test_fractions_are_exact(valid, test, counts):
    part = load(TABLE, valid=valid, test=test).part
    assert np.bincount(part, minlength=3).tolist() == counts


def test_copies_stand_together():
    x = np.concatenate([TABLE, TABLE[:50], -TABLE[:50], TABLE[:50]])
    x[0] = 0.0
    x[200] = -0.0  # the same row to everyone
    data = load(x)
    part = data.part.numpy()
    assert (part[:50] == part[200:250]).all()
    assert (part[1:50] == part[301:350]).all()
    assert "99 of 350 rows are copies of another row" in data.notes
    assert abs((part == 2).sum() - 35) <= 3


def test_one_row_that_fills_the_set_is_for_training():
    x = np.concatenate([np.zeros((150, 4)), TABLE[:50]])
    part = load(x).part.numpy()
    assert (part[:150] == 0).all()
    assert (part == 1).sum() == (part == 2).sum() == 20


@pytest.mark.parametrize("n", [3, 4, 5, 9])
def test_small_sets_have_all_parts(n):
    assert (np.bincount(load(TABLE[:n]).part, minlength=3) >= 1).all()


def test_two_rows_are_for_training():
    data = load(TABLE[:2])
    assert data.part.tolist() == [0, 0]
    assert "no row is left for test: there are too few different ones" in data.notes


def test_groups_stand_together():
    group = np.array([f"person {i}" for i in np.arange(200) % 20])
    part = load(TABLE, group=group).part.numpy()
    assert all(len(set(part[group == g])) == 1 for g in np.unique(group))
    assert np.bincount(part).tolist() == [160, 20, 20]
    few = load(TABLE, group=np.arange(200) % 3).part.numpy()  # a third each, where a tenth was asked for
    assert sorted(np.bincount(few)) == [66, 67, 67]


def test_time_splits_in_order():
    when = RNG.permutation(200)
    part = load(TABLE, time=when).part.numpy()
    assert when[part == 0].max() < when[part == 1].min()
    assert when[part == 1].max() < when[part == 2].min()
    assert np.bincount(part).tolist() == [160, 20, 20]
    days = np.datetime64("2024-01-01") + when // 10
    by_day = load(TABLE, time=days).part.numpy()
    assert days[by_day == 0].max() < days[by_day == 1].min()  # one day is never on both sides
    assert np.bincount(by_day).tolist() == [160, 20, 20]
    years = load(TABLE, time=when // 67).part.numpy()
    assert set(years) == {0, 1, 2}
    assert set(load(TABLE, time=when // 100).part.tolist()) == {0, 1}


def test_parts_hold_their_promises_for_any_ties():
    for seed in range(200):
        rng = np.random.default_rng(seed)
        keys = rng.integers(0, rng.integers(1, 40), rng.integers(1, 60))
        for ordered in (False, True):
            part = parts(keys, 0.1, 0.2, ordered)
            assert (part == 0).any()
            assert all(len(set(part[keys == k])) == 1 for k in keys)
            if len(np.unique(keys)) >= 3:
                assert set(part) == {0, 1, 2}
            if ordered:
                for low, high in ((0, 1), (1, 2), (0, 2)):
                    assert (
                        not (part == high).any()
                        or not (part == low).any()
                        or (keys[part == low].max() < keys[part == high].min())
                    )


def test_splits_that_cannot_be():
    with pytest.raises(ValueError, match=r"leave some to train on; got valid=0.5, test=0.5"):
        load(TABLE, valid=0.5, test=0.5)
    with pytest.raises(ValueError, match=r"leave some to train on; got valid=-0.1"):
        load(TABLE, valid=-0.1)
    with pytest.raises(ValueError, match="group and time are two ways to split"):
        load(TABLE, group=np.ones(200), time=np.ones(200))
    with pytest.raises(ValueError, match=r"group needs one value a row; array has 200 rows and group shape \(3,\)"):
        load(TABLE, group=[1, 2, 3])
    with pytest.raises(ValueError, match="time has missing values in array"):
        load(TABLE, time=np.where(np.arange(200) == 3, np.nan, 0))
    with pytest.raises(ValueError, match="group='person' names a column, and array has none"):
        load(TABLE, group="person")


# ---- files of arrays ----


def test_npy_and_npz(tmp_path):
    np.save(tmp_path / "a.npy", GREY)
    np.savez(tmp_path / "b.npz", y=np.arange(100) % 5, X=GREY)
    np.savez_compressed(tmp_path / "c.npz", first=GREY, kind=np.arange(100) % 2)
    a, b, c = load(tmp_path / "a.npy"), load(str(tmp_path / "b.npz")), load(tmp_path / "c.npz", label="kind")
    for data in (a, b, c):
        assert (everything(data)[:, 0] == GREY).all()
    assert a.name == "a"
    assert a.source == str((tmp_path / "a.npy").resolve())
    assert a.label is None
    assert b.label.tolist() == [i % 5 for i in range(100)]
    assert c.label.tolist() == [i % 2 for i in range(100)]
    assert "array 'first' was read, not 'kind'" in load(tmp_path / "c.npz").notes
    with pytest.raises(ValueError, match=r"c\.npz has no array 'colour' for the labels; it holds first, kind"):
        load(tmp_path / "c.npz", label="colour")


def test_npz_with_its_own_test_part(tmp_path):
    y = np.arange(100) % 5
    np.savez(tmp_path / "k.npz", x_train=GREY[:70], y_train=y[:70], x_test=GREY[70:], y_test=y[70:])
    data = load(tmp_path / "k.npz", valid=0.2, test=0.5)
    assert (data.part[70:] == 2).all()
    assert np.bincount(data.part).tolist() == [56, 14, 30]
    assert "its own test part of 30 rows is kept" in data.notes
    assert torch.equal(data.test.label, torch.from_numpy(y[70:]))
    np.savez(tmp_path / "v.npz", x_train=GREY[:60], x_valid=GREY[60:70], x_test=GREY[70:])
    assert np.bincount(load(tmp_path / "v.npz").part).tolist() == [60, 10, 30]
    np.savez(tmp_path / "w.npz", x_train=GREY, x_test=GREY[:5])
    assert "5 test rows also stand among the training rows" in load(tmp_path / "w.npz").notes
    np.savez(tmp_path / "x.npz", x_train=GREY, x_test=GREY[:, :4])
    with pytest.raises(ValueError, match=r"the parts of .*x\.npz differ in shape: \(100, 8, 8\), \(100, 4, 8\)"):
        load(tmp_path / "x.npz")


@pytest.mark.parametrize("keep", [0, 4, 60, 1000])
@pytest.mark.parametrize("name", ["a.npy", "b.npz", "c.npz"])
def test_files_cut_short_are_named(tmp_path, name, keep):
    path = tmp_path / name
    {"a": np.save, "b": np.savez, "c": np.savez_compressed}[name[0]](path, GREY)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"{name} is damaged or cut short and cannot be read") as caught:
        load(path)
    assert caught.value.__cause__ is not None


def test_objects_are_never_unpickled(tmp_path):
    np.save(tmp_path / "o.npy", np.array([[1, "a"]] * 3, object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"o\.npy holds Python objects, which are never unpickled"):
        load(tmp_path / "o.npy")


# ---- arrays that cannot be used ----

NAN = TABLE.copy()
NAN[7:9, 2] = np.nan
NAN[8, 3] = np.inf
IMAGE_NAN = GREY / 300
IMAGE_NAN[5, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (TABLE[:0], "array has no rows"),
        (TABLE[:1], "array has one row; a model needs two at least"),
        (TABLE[:, :0], r"array has no columns that could be an input \(shape \(200, 0\)\)"),
        (TABLE[:, 0], r"array has shape \(200,\); reshape\(-1, 1\) makes a column of it"),
        (NAN, r"array: 2 values of column 2 are missing, NaN or infinite \(the first in row 7\); 1 more columns"),
        (IMAGE_NAN, r"array: 1 values are missing, NaN or infinite \(the first in row 5\)"),
        (TABLE.astype(complex), "array holds complex numbers"),
        (TABLE.astype(str), "array holds text where numbers are needed"),
        (TABLE.astype(object), "array holds values of type object where numbers are needed"),
        (np.ones((5, 3)), "all 5 rows of array are the same; there is nothing to learn"),
    ],
)
def test_arrays_that_cannot_be_used(x, message):
    with pytest.raises(ValueError, match=message):
        load(x)


def test_sources_that_cannot_be_used(tmp_path):
    with pytest.raises(TypeError, match=r"data are read from a path, the name of a set, an array.*; got int"):
        load(3)
    with pytest.raises(FileNotFoundError, match=r"no file or folder digit, .*; did you mean digits\?"):
        load("digit")
    np.save(tmp_path / "faces.npy", GREY)
    with pytest.raises(FileNotFoundError, match=r"did you mean .*faces\.npy\?"):
        load(tmp_path / "face.npy")
    with pytest.raises(FileNotFoundError, match="named sets are digits, fashion-mnist, mnist"):
        load(tmp_path / "nothing" / "like-it")
    (tmp_path / "a.doc").write_text("hello")
    with pytest.raises(ValueError, match=r"a\.doc is of no kind that is read: \.npy, \.npz"):
        load(tmp_path / "a.doc")
    with pytest.raises(TypeError, match="there is no argument 'binarize'; did you mean 'binarise'"):
        load("digits", binarize="fixed")
    with pytest.raises(ValueError, match="drop leaves out columns by name, and those of array have no names"):
        load(TABLE, drop=["a"])
    with pytest.raises(ValueError, match="size and skip_bad are for folders of images; array is none"):
        load(TABLE, size="8x8")


# ---- read again, and others like them ----


def test_data_are_read_again(tmp_path):
    y = np.arange(100) % 2
    np.savez(tmp_path / "b.npz", x=GREY, y=y)
    data = load(tmp_path / "b.npz", valid=0.2, seed=3, binarise="dynamic")
    about = json.loads(json.dumps(data.description()))
    assert about["options"] == {"valid": 0.2, "binarise": "dynamic"}
    again = reload(about)
    assert again.fingerprint == data.fingerprint
    assert again.description() == data.description()
    np.savez(tmp_path / "b.npz", x=255 - GREY, y=y)
    with pytest.raises(ValueError, match=r"b\.npz is not what it was: .* the fingerprints differ"):
        reload(about)


def test_data_from_memory_are_handed_over():
    y = np.arange(200) % 2
    about = load(TABLE, label=y, seed=5).description()
    with pytest.raises(ValueError, match=r"came from memory and are not kept with a run: hand them over"):
        reload(about)
    with pytest.raises(ValueError, match="label was an array in memory and is not kept"):
        reload(about, TABLE)
    assert reload(about, TABLE, label=y).fingerprint == about["fingerprint"]


def test_other_rows_are_scaled_alike():
    data = load(TABLE)
    other = like(data.description(), TABLE[:1] + 1)
    torch.testing.assert_close(other.x, data.scaling(torch.from_numpy(TABLE[:1] + 1)))
    grey = load(GREY)
    assert torch.equal(
        like(grey.description(), GREY[:3] // 2).x, torch.from_numpy(GREY[:3] // 2)[:, None].float() / 255
    )
    drawn = like(load(GREY, binarise="fixed").description(), GREY).x
    assert torch.equal(drawn, load(GREY, binarise="fixed").x.float())
    dynamic = like(load(GREY, binarise="dynamic").description(), GREY)
    assert set(dynamic.x.unique().tolist()) == {0.0, 1.0}
    with pytest.raises(ValueError, match=r"rows of shape \(4,\) are needed; those of array have shape \(3,\)"):
        like(data.description(), TABLE[:, :3])
    with pytest.raises(ValueError, match=r"run from 0 to 510, and the model knows integers 0..255"):
        like(grey.description(), np.array([[[0] * 8, [510] * 8] * 4]))
    with pytest.raises(ValueError, match=r"the model knows integers 0..255"):
        like(grey.description(), GREY[:3] / 300)
    with pytest.raises(ValueError, match=r"the model knows integers 0, 7 .. 105"):
        like(load(GREY // 16 * 7).description(), GREY[:3] // 3)
    with pytest.raises(ValueError, match="the model knows 0 and 1"):
        like(load(GREY > 3).description(), GREY)


# ---- IDX and named sets ----


def idx(x: np.ndarray) -> bytes:
    kinds = {"uint8": 8, "int8": 9, "int16": 11, "int32": 12, "float32": 13, "float64": 14}
    shape = np.array(x.shape, ">u4").tobytes()
    return bytes([0, 0, kinds[x.dtype.name], x.ndim]) + shape + x.astype(x.dtype.newbyteorder(">")).tobytes()


def write_idx(folder: Path, end: str = "") -> list[bytes]:
    folder.mkdir()
    label = (np.arange(100) % 10).astype(np.uint8)
    contents = [idx(GREY[:80]), idx(label[:80]), idx(GREY[80:]), idx(label[80:])]
    for name, content in zip(FILES, contents, strict=True):
        # mtime: the same bytes every time
        (folder / (name + end)).write_bytes(gzip.compress(content, mtime=0) if end else content)
    return contents


@pytest.mark.parametrize("end", ["", ".gz"])
def test_idx(tmp_path, end):
    write_idx(tmp_path / "set", end)
    pair = load(tmp_path / "set" / (FILES[0] + end))
    folder = load(tmp_path / "set")
    for data in (pair, folder):
        assert data.name == "set"
        assert (everything(data)[:, 0] == GREY).all()
        assert data.label.tolist() == [i % 10 for i in range(100)]
        assert (data.part[80:] == 2).all()
        assert np.bincount(data.part).tolist() == [72, 8, 20]
    alone = load(tmp_path / "set" / (FILES[2] + end))
    assert np.bincount(alone.part).tolist() == [16, 2, 2]
    assert len(alone.label) == 20


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "float32", "float64"])
def test_idx_types_are_big_endian(tmp_path, dtype):
    x = (TABLE * 5).astype(dtype)
    (tmp_path / "train-images-idx2-ubyte").write_bytes(idx(x))
    assert (everything(load(tmp_path / "train-images-idx2-ubyte")) == x).all()


def test_idx_that_cannot_be_read(tmp_path):
    contents = write_idx(tmp_path / "set")
    path = tmp_path / "set" / FILES[0]
    path.write_bytes(contents[0][:-3])
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte should have 5136 bytes by its header and has 5133"):
        load(path)
    path.write_bytes(b"\0\0\x08\x03\0")
    with pytest.raises(ValueError, match=r"by its header and has 5"):
        load(path)
    path.write_bytes(b"<html>")
    with pytest.raises(ValueError, match="is no IDX file: its first four bytes are 3c 68 74 6d"):
        load(path)
    path.write_bytes(idx(GREY[:79]))
    with pytest.raises(ValueError, match=r"has 79 rows and its labels file 80"):
        load(path)
    path.unlink()
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(contents[0])[:-30])
    with pytest.raises(ValueError, match=r"ubyte\.gz is damaged or cut short and cannot be decompressed"):
        load(packed)
    for name in (packed.name, FILES[2]):
        (tmp_path / "set" / name).unlink()
    with pytest.raises(ValueError, match="holds IDX files but none with images in its name"):
        load(tmp_path / "set")


@pytest.mark.parametrize("end", ["", ".gz"])
def test_named_sets_are_checked(tmp_path, monkeypatch, end):
    contents = write_idx(tmp_path / "mnist", end)
    monkeypatch.setenv("NARROWS_DATA", str(tmp_path))
    with pytest.raises(
        ValueError, match=rf"{FILES[0]}{end} is not the {FILES[0]} of mnist: the SHA-256 of its decompr"
    ):
        load("mnist")
    sums = tuple(hashlib.sha256(content).hexdigest() for content in contents)
    monkeypatch.setitem(NAMED, "mnist", NAMED["mnist"]._replace(sums=sums))
    data = load("mnist")
    assert (data.name, data.source, data.shape) == ("mnist", "mnist", (1, 8, 8))
    assert data.classes == list("0123456789")
    assert (data.part[80:] == 2).all()
    path = tmp_path / "mnist" / (FILES[3] + end)
    changed = bytearray(contents[3])
    changed[-1] ^= 1
    path.write_bytes(gzip.compress(bytes(changed)) if end else bytes(changed))
    with pytest.raises(ValueError, match=rf"is not the {FILES[3]} of mnist"):
        load("mnist")


def test_named_sets_come_from_their_home(tmp_path, monkeypatch):
    contents = write_idx(tmp_path / "home", ".gz")
    sums = tuple(hashlib.sha256(content).hexdigest() for content in contents)
    monkeypatch.setitem(NAMED, "mnist", NAMED["mnist"]._replace(sums=sums))
    monkeypatch.setenv("NARROWS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NARROWS_DATA", raising=False)
    asked = []

    def retrieve(url, known_hash, fname, path):
        asked.append(url)
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / fname).write_bytes((tmp_path / "home" / fname).read_bytes())
        return str(Path(path) / fname)

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    assert len(load("mnist").x) == 100
    assert asked == [f"{NAMED['mnist'].url}{name}.gz" for name in FILES]
    assert len(load("mnist").x) == 100
    assert len(asked) == 4  # the cache is looked at first


def test_named_sets_without_folder_or_network(tmp_path, monkeypatch):
    def retrieve(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(pooch, "retrieve", retrieve)
    monkeypatch.setenv("NARROWS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("NARROWS_DATA", raising=False)
    with pytest.raises(
        FileNotFoundError, match=r"fashion-mnist was looked for on this machine \(NARROWS_DATA is not set"
    ):
        load("fashion-mnist")
    monkeypatch.setenv("NARROWS_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"looked for in .*mnist and at https.*cannot be reached: put train-im"):
        load("mnist")


@pytest.mark.skipif(
    not (Path(os.environ.get("NARROWS_DATA", "/nowhere")) / "mnist").is_dir(), reason="needs NARROWS_DATA with mnist"
)
def test_mnist():
    data = load("mnist")
    assert np.bincount(data.part).tolist() == [54000, 6000, 10000]
    assert data.shape == (1, 28, 28)
    assert likelihood(data) == (DiscretisedLogistic, {"levels": 256})
    assert np.bincount(data.test.label)[:3].tolist() == [980, 1135, 1032]
    assert abs(float(data.train.x.mean()) - 0.1307) < 1e-3  # the figure everybody normalises by
