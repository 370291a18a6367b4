"""Folders of images, and tables in .csv, .parquet and memory. All seeds are 0."""

import os
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import csv, parquet

from narrows.data import found as reading
from narrows.data import images, like, load, reload
from narrows.data.cache import atomic
from narrows.likelihoods import DiscretisedLogistic

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (12, 6, 8, 3), dtype=np.uint8)
LETTERS = np.array(list("abc"))[np.arange(60) % 3]
TABLE = pa.table(
    {
        "age": RNG.integers(18, 90, 60),
        "pay": RNG.normal(2000, 500, 60),
        "kind": LETTERS.tolist(),
        "who": [f"p{i % 15}" for i in range(60)],
        "day": pa.array(np.datetime64("2024-01-01") + RNG.permutation(60)),
    }
)
NUMBERS = np.stack([TABLE["age"].to_numpy(), TABLE["pay"].to_numpy()], 1)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NARROWS_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path) -> Path:
    path = tmp_path / "pictures"
    path.mkdir()
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels).save(path / f"{number:02}.png")
    return path


def whole(data) -> np.ndarray:
    return np.asarray(data.x)


# ---- images ----


def test_images_are_decoded_channel_first(folder):
    data = load(folder)
    assert data.name == "pictures"
    assert data.source == str(folder.resolve())
    assert data.shape == (3, 6, 8)
    assert (whole(data) == PIXELS.transpose(0, 3, 1, 2)).all()
    assert isinstance(data.likelihood, partial)
    assert data.likelihood.func is DiscretisedLogistic
    assert data.label is None
    assert "images: 12 of mode RGB, read as RGB" in data.notes


def test_grey_images_keep_one_channel(tmp_path):
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels[..., 0]).save(tmp_path / f"{number:02}.png")
    assert (whole(load(tmp_path))[:, 0] == PIXELS[..., 0]).all()
    Image.fromarray(PIXELS[0]).save(tmp_path / "colour.png")
    data = load(tmp_path)
    assert data.shape == (3, 6, 8)
    assert "images: 12 of mode L, 1 of mode RGB, read as RGB" in data.notes


def test_sixteen_bits_are_reduced(tmp_path):
    for number, pixels in enumerate(PIXELS):
        Image.fromarray(pixels[..., 0].astype(np.uint16) * 257).save(tmp_path / f"{number:02}.png")
    data = load(tmp_path)
    assert (whole(data)[:, 0] == PIXELS[..., 0]).all()
    assert any("16-bit grey was reduced to 8 bits" in note for note in data.notes)


def test_thirty_two_bits_are_refused(tmp_path):
    Image.fromarray(PIXELS[0, ..., 0].astype(np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match=r"has images of 32 bits a pixel, which 8 cannot hold; make an .npy"):
        load(tmp_path)


def test_transparency_is_laid_on_white(tmp_path):
    for number, pixels in enumerate(PIXELS):
        alpha = np.full((6, 8, 1), 255, np.uint8)
        alpha[0] = 0
        Image.fromarray(np.concatenate([pixels, alpha], 2)).save(tmp_path / f"{number:02}.png")
    data = load(tmp_path)
    assert (whole(data)[:, :, 0] == 255).all()
    assert (whole(data)[:, :, 1:] == PIXELS.transpose(0, 3, 1, 2)[:, :, 1:]).all()
    assert "12 images are partly transparent and were laid on white" in data.notes


def test_exif_turns_images_upright(tmp_path):
    upright = PIXELS[..., 0]
    for number, pixels in enumerate(upright):
        exif = Image.Exif()
        exif[images.ORIENTATION] = 6  # the camera lay on its side: turn by 90 degrees clockwise to see it upright
        Image.fromarray(np.rot90(pixels)).save(tmp_path / f"{number:02}.png", exif=exif)
    data = load(tmp_path)
    assert data.shape == (1, 6, 8)
    assert (whole(data)[:, 0] == upright).all()
    assert "12 images were turned upright as their EXIF says" in data.notes


@pytest.mark.parametrize("end", ["png", "bmp", "webp", "tif", "gif", "jpg", "jpeg", "PNG"])
def test_formats(tmp_path, end):
    flat = np.full((6, 8), 1, np.uint8)
    for number in range(12):
        options = {"lossless": True} if end == "webp" else {}
        Image.fromarray(flat * number * 20).save(tmp_path / f"{number:02}.{end}", **options)
    data = load(tmp_path)
    assert (whole(data)[:, 0, 0, 0] == np.arange(12) * 20).all()


def test_sub_folders_are_labels(tmp_path):
    for number, pixels in enumerate(PIXELS):
        path = tmp_path / ["cat", "dog"][number % 2] / f"{number:02}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    Image.fromarray(PIXELS[0] // 2).save(tmp_path / "stray.png")
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / ".thumbs.png").write_text("no image either, but hidden")
    data = load(tmp_path)
    assert data.classes == ["cat", "dog"]
    assert data.label.tolist() == [0] * 6 + [1] * 6 + [-1]
    assert "1 of 13 rows have no label" in data.notes
    assert "1 files are no images and were passed over" in data.notes
    assert (whole(data)[6] == PIXELS[1].transpose(2, 0, 1)).all()


def test_sub_folders_called_train_and_test_are_parts(tmp_path):
    for number, pixels in enumerate(PIXELS):
        path = tmp_path / ["train", "test"][number % 3 == 0] / ["cat", "dog"][number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    data = load(tmp_path)
    assert np.bincount(data.part).tolist() == [7, 1, 4]
    assert data.classes == ["cat", "dog"]
    assert "the sub-folders test, train were taken as its own parts" in data.notes


def test_size_suggested_for_large_images_is_one_a_first_look_can_afford(tmp_path):
    for height, width in ((100, 300), (200, 200)):  # the smallest is 100 x 200
        Image.new("RGB", (width, height)).save(tmp_path / f"{height}.png")
    with pytest.raises(ValueError, match=r"--size 24x48$"):
        load(tmp_path)


def test_unequal_sizes_end_with_what_to_add(folder):
    Image.fromarray(PIXELS[0, :5]).save(folder / "small.png")
    with pytest.raises(
        ValueError, match=r"differ in height x width: 12 of 6x8, 1 of 5x8\. .* narrows fit \S+ --size 5x8$"
    ):
        load(folder)
    data = load(folder, size="4x4")
    assert data.shape == (3, 4, 4)
    assert any("brought to 4x4 by their shorter side, and cropped about the centre" in note for note in data.notes)
    assert reload(data.description()).fingerprint == data.fingerprint
    assert like(data.description(), folder).shape == (3, 4, 4)
    for size in ("4", "4x0", "big", 4, "4x4x4"):
        with pytest.raises(ValueError, match='size is height x width in pixels, such as "32x32"; got'):
            load(folder, size=size)


def test_resizing_keeps_the_centre(tmp_path):
    for number in range(3):
        wide = np.zeros((8, 24), np.uint8)
        wide[:, 8:16] = 100 + number
        Image.fromarray(wide).save(tmp_path / f"{number}.png")
    assert (whole(load(tmp_path, size=(8, 8)))[:, 0] == (100 + np.arange(3))[:, None, None]).all()


@pytest.mark.parametrize("keep", [0, 20, -60])
def test_broken_images(folder, keep):
    path = folder / "03.png"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"03\.png is damaged or no image and cannot be read; .* by --skip-bad"):
        load(folder)
    data = load(folder, skip_bad=True)
    assert len(data.x) == 11
    assert (whole(data)[3] == PIXELS[4].transpose(2, 0, 1)).all()
    assert "1 files cannot be read and were left out (03.png)" in data.notes
    assert data.description()["options"] == {"skip_bad": True}


def test_folders_without_images(tmp_path):
    with pytest.raises(ValueError, match=r"holds no images \(png, jpg, jpeg, bmp, webp, tif, tiff, gif\)"):
        load(tmp_path)
    (tmp_path / "a.png").write_text("not one")
    with pytest.raises(ValueError, match=r"none of the 1 images of .* can be read"):
        load(tmp_path, skip_bad=True)
    with pytest.raises(ValueError, match=r"a\.png is a single image; give the folder that holds the images"):
        load(tmp_path / "a.png")


def test_images_are_decoded_once(folder, tmp_path, monkeypatch):
    first = load(folder)
    kept = sorted((tmp_path / "cache" / "images").iterdir())
    assert [path.suffix for path in kept] == [".json", ".npy"]

    def never(*_):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(images, "_open", never)
        second = load(folder)
    assert second.description() == first.description()
    kept[1].write_bytes(kept[1].read_bytes()[:200])  # a damaged cache is made again
    assert load(folder).fingerprint == first.fingerprint
    Image.fromarray(PIXELS[1]).save(folder / "00.png")
    os.utime(folder / "00.png", (1, 1))  # another time of change
    assert (whole(load(folder))[0] == PIXELS[1].transpose(2, 0, 1)).all()


def test_the_cache_is_written_in_one_step(folder, tmp_path, monkeypatch):
    whole_pixels = images._pixels

    def stop(image, channels, size):
        if (whole_pixels(image, channels, size) == PIXELS[7].transpose(2, 0, 1)).all():
            raise KeyboardInterrupt
        return whole_pixels(image, channels, size)

    with monkeypatch.context() as patch:
        patch.setattr(images, "_pixels", stop)
        with pytest.raises(KeyboardInterrupt):
            load(folder)
    assert not list((tmp_path / "cache" / "images").glob("*.npy"))
    assert not list((tmp_path / "cache" / "images").glob(".*"))
    assert len(load(folder).x) == 12
    path = tmp_path / "held"
    path.write_text("before")
    with pytest.raises(FileNotFoundError), atomic(path) as temporary:
        (temporary.with_name("gone") / temporary.name).write_text("never")
    assert path.read_text() == "before"


def test_large_folders_stay_on_disk(folder, monkeypatch):
    held = load(folder)
    monkeypatch.setattr(reading, "IN_MEMORY", 0)
    disk = load(folder)
    assert isinstance(disk.x, np.memmap)
    assert torch.equal(disk.train.x, held.train.x)
    assert disk.fingerprint == held.fingerprint


def test_other_images_are_brought_to_the_same_channels(folder, tmp_path):
    about = load(folder).description()
    other = tmp_path / "grey"
    other.mkdir()
    Image.fromarray(PIXELS[0, ..., 0]).save(other / "a.png")
    rows = like(about, other)
    assert rows.shape == (3, 6, 8)
    assert torch.equal(rows.x[0, 2], torch.from_numpy(PIXELS[0, ..., 0]).float() / 255)


# ---- tables ----


@pytest.fixture(params=["csv", "tsv", "semicolon", "parquet", "parts", "memory"])
def table(request, tmp_path):
    if request.param == "memory":
        return TABLE
    path = tmp_path / "people.parquet"
    if request.param == "parquet":
        parquet.write_table(TABLE, path, row_group_size=17)
    elif request.param == "parts":
        path = tmp_path / "people"
        path.mkdir()
        parquet.write_table(TABLE[:25], path / "a.parquet")
        parquet.write_table(TABLE[25:], path / "b.parquet")
    else:
        separator = {"csv": ",", "tsv": "\t", "semicolon": ";"}[request.param]
        path = tmp_path / ("people.tsv" if request.param == "tsv" else "people.csv")
        csv.write_csv(TABLE, path, csv.WriteOptions(delimiter=separator))
    return path


def test_tables(table):
    data = load(table, label="kind", group="who", drop="day")
    assert data.name == ("table" if table is TABLE else "people")
    assert data.columns == ["age", "pay"]
    assert (whole(data) == NUMBERS).all()
    assert data.x.dtype == torch.float64
    assert data.classes == ["a", "b", "c"]
    assert data.label.tolist() == [i % 3 for i in range(60)]
    part = data.part.numpy()
    assert all(len(set(part[np.arange(60) % 15 == g])) == 1 for g in range(15))
    assert set(part) == {0, 1, 2}
    again = reload(data.description(), TABLE if table is TABLE else None)
    assert again.fingerprint == data.fingerprint


def test_tables_in_order_of_time(table):
    data = load(table, label="kind", time="day", drop=["who"])
    assert data.columns == ["age", "pay"]
    when, part = TABLE["day"].to_numpy(), data.part.numpy()
    assert when[part == 0].max() < when[part == 1].min() <= when[part == 1].max() < when[part == 2].min()


def test_columns_of_every_kind(table):
    """As it looks to the training rows; what it is instead is said by `column`."""
    data = load(table)
    assert data.columns == ["age", "pay", "kind", "who", "day"]
    assert [column.kind for column in data.scaling.kept] == ["number", "number", "category", "category", "date"]
    assert data.undo(data.x[:5]).column("kind").to_pylist() == LETTERS[:5].tolist()
    assert data.undo(data.x).column("day").to_pylist() == TABLE["day"].to_pylist()
    again = reload(data.description(), TABLE if table is TABLE else None)
    assert again.fingerprint == data.fingerprint
    assert again.scaling == data.scaling
    other = load(table, column="age=category, day=drop", label="kind")
    assert other.columns == ["age", "pay", "who"]
    assert other.scaling.kept[0].kind == "category"
    assert any("'day' is set aside: left out" in note for note in other.notes)
    few = like(data.description(), TABLE.slice(0, 7) if table is TABLE else table)
    assert torch.equal(few.x[:7], data.x[:7])


def test_what_the_test_rows_alone_hold_is_unknown():
    """Labels and ranges are the training rows'."""
    table = pa.table({"k": ["a", "b"] * 20 + ["c"] * 4, "n": range(44), "when": range(44)})
    data = load(table, time="when")
    assert data.scaling.kept[0].labels == ("a", "b")
    assert data.test.x[:, 0].tolist() == [2.0] * len(data.test)
    assert data.scaling.kept[1].high < 43


def test_what_is_no_table_of_mixed_columns():
    with pytest.raises(ValueError, match="column says what columns are by name, and those of array have no names"):
        load(NUMBERS, column="age=category")
    with pytest.raises(ValueError, match='column says what columns are, such as "age=number,sex=category"; got'):
        load(TABLE, column="age")
    with pytest.raises(ValueError, match="there is no kind of column 'numbr'; did you mean 'number'"):
        load(TABLE, column={"age": "numbr"})
    with pytest.raises(ValueError, match="counts is for numbers in every cell, and table has text, dates or missing"):
        load(TABLE, counts=True)
    with pytest.raises(ValueError, match="a table with the columns age, pay, kind, who, day is needed; array is none"):
        like(load(TABLE).description(), NUMBERS)


def test_columns_that_are_not_there(table):
    with pytest.raises(ValueError, match="there is no column 'kinds'; did you mean 'kind'"):
        load(table, label="kinds")
    with pytest.raises(ValueError, match="there is no column 'agee'; did you mean 'age'"):
        load(table, drop=["agee"])
    with pytest.raises(ValueError, match="has no column left that could be an input; it has age, pay, kind, who, day"):
        load(table, drop=["age", "pay", "kind", "who", "day"])


def test_other_tables_are_read_by_column_name(table):
    about = load(TABLE, drop=["kind", "who", "day"]).description()
    rows = like(about, table)
    assert torch.equal(rows.x, load(TABLE, drop=["kind", "who", "day"]).scaling(torch.from_numpy(NUMBERS)))
    swapped = like(about, TABLE.select(["pay", "who", "age"]))
    assert torch.equal(swapped.x, rows.x)
    with pytest.raises(ValueError, match="there is no column 'pay'"):
        like(about, TABLE.select(["age"]))


def test_large_parquet_is_kept_on_disk(tmp_path, monkeypatch):
    parquet.write_table(TABLE, tmp_path / "people.parquet", row_group_size=7)
    options = {"label": "kind", "drop": ["who", "day"]}
    held = load(tmp_path / "people.parquet", **options)
    monkeypatch.setattr(reading, "IN_MEMORY", 0)
    disk = load(tmp_path / "people.parquet", **options)
    assert isinstance(disk.x, np.memmap)
    assert disk.description() == held.description()
    assert torch.equal(disk.train.x, held.train.x)
    (kept,) = (tmp_path / "cache" / "tables").iterdir()
    before = kept.stat().st_mtime_ns
    assert load(tmp_path / "people.parquet", **options).fingerprint == held.fingerprint
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("column", "dtype"),
    [
        (pa.array([True, False] * 5), torch.uint8),
        (pa.array(range(10), pa.int8()), torch.int8),
        (pa.array(range(10), pa.uint16()), torch.int32),
        (pa.array(np.arange(10, dtype=np.float16)), torch.float16),
        (pa.array(np.arange(10, dtype=np.float32)), torch.float32),
        (pa.array(range(10), pa.int64()).cast(pa.decimal128(25, 2)), torch.float64),
    ],
)
def test_types_of_columns(column, dtype):
    data = load(pa.table({"a": column}))
    assert data.x.dtype == dtype
    assert whole(data)[:, 0].tolist() == [float(v) for v in column.to_pylist()]


def test_labels_of_any_column():
    kinds = pa.array(["x", None, "y"] * 3).dictionary_encode()
    data = load(pa.table({"a": range(9), "k": kinds}), label="k")
    assert data.label.tolist() == [0, -1, 1] * 3
    flags = load(pa.table({"a": range(4), "k": [1, None, 0, 1]}), label="k")
    assert flags.label.tolist() == [1, -1, 0, 1]


def test_missing_cells_are_counted(tmp_path, monkeypatch):
    """They are not scored; in a table that is too large for memory they are refused."""
    holes = TABLE.select(["age"]).append_column("pay", pa.array([*RNG.random(50), *[None] * 3, *RNG.random(7)]))
    parquet.write_table(holes, tmp_path / "holes.parquet", row_group_size=7)
    data = load(tmp_path / "holes.parquet")
    assert torch.isnan(data.x[:, 1]).nonzero()[:, 0].tolist() == [50, 51, 52]
    assert data.scaling.kind == "table"
    lost = [number for number in (50, 51, 52) if data.part[number] == 0]
    assert bool(lost) == any(
        f"missing cells are not scored; of the training rows: 'pay' {len(lost)}" in n for n in data.notes
    )
    (batch,) = data.train.batches(100)
    assert torch.equal(batch.seen, ~batch.x.isnan())
    monkeypatch.setattr(reading, "IN_MEMORY", 0)
    with pytest.raises(
        ValueError,
        match=r"holes\.parquet: 3 values of column 'pay' are missing, NaN or infinite \(the first"
        r" in row 50\); fill them in or leave them out",
    ):
        load(tmp_path / "holes.parquet")
    assert not list(tmp_path.glob("cache/**/*.npy"))
    csv.write_csv(holes, tmp_path / "holes.csv")
    assert torch.equal(load(tmp_path / "holes.csv").x.nan_to_num(9), data.x.nan_to_num(9))
    with pytest.raises(ValueError, match="time has missing values in table"):
        load(holes, time="pay")


def test_csv_as_people_write_it(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\ufeffheight , weight, kind\n1.5, 60, tall\n1.25, 50 , small\n 1.75,70, tall\n", encoding="utf-8")
    data = load(path, label="kind")
    assert data.columns == ["height", "weight"]
    assert whole(data).tolist() == [[1.5, 60], [1.25, 50], [1.75, 70]]
    assert data.classes == ["small", "tall"]
    mixed = load(path, valid=0, test=0)
    assert mixed.scaling.kept[2].labels == ("small", "tall")
    path.write_text("a,b\n1, ?\n2,x\n3, y \n4,x\n")
    assert load(path, valid=0, test=0).scaling.kept[1].labels == ("x", "y")
    assert load(path, valid=0, test=0).scaling.kept[1].missing == 1
    path.write_bytes(b"a,b\n1,caf\xe9\n2,th\xe9\n5,caf\xe9\n")
    coffee = load(path, valid=0, test=0)
    assert coffee.scaling.kept[1].labels == ("café", "thé")
    assert any("not UTF-8 and was read as Windows-1252" in note for note in coffee.notes)
    path.write_text("1,2\n3,4\n5,7\n")
    bare = load(path)
    assert whole(bare).tolist() == [[1, 2], [3, 4], [5, 7]]
    assert any("the first line holds numbers and was read as a row" in note for note in bare.notes)


def test_tables_that_cannot_be_read(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("")
    with pytest.raises(ValueError, match=r"a\.csv is empty; a table needs a line of column names"):
        load(path)
    path.write_text("a,b\n")
    with pytest.raises(ValueError, match=r"a\.csv has no rows"):
        load(path)
    path.write_text("a,b\n1,2\n1,2,3\n")
    with pytest.raises(
        ValueError, match=r"a\.csv is no table that can be read: CSV parse error: .*Expected 2 columns, got 3"
    ):
        load(path)
    path.write_text("a,a\n1,2\n")
    with pytest.raises(ValueError, match=r"a\.csv has 2 columns called 'a'; rename them"):
        load(path)


@pytest.mark.parametrize("keep", [0, 8, 300, -3])
def test_parquet_cut_short_is_named(tmp_path, keep):
    path = tmp_path / "a.parquet"
    parquet.write_table(TABLE.select(["age", "pay"]), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"a\.parquet is damaged or cut short and cannot be read"):
        load(path)


def test_parquet_damaged_within_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(TABLE.select(["age", "pay"]), path, compression="zstd")
    damaged = bytearray(path.read_bytes())
    damaged[30:400] = b"\xff" * 370
    path.write_bytes(bytes(damaged))
    with pytest.raises(ValueError, match=r"a\.parquet is damaged or cut short and cannot be read"):
        load(path)


def test_parquet_files_of_two_tables(tmp_path):
    parquet.write_table(TABLE.select(["age"]), tmp_path / "a.parquet")
    parquet.write_table(TABLE.select(["pay"]), tmp_path / "b.parquet")
    with pytest.raises(
        ValueError, match=r"b\.parquet has other columns than a\.parquet; the files of one table have the"
    ):
        load(tmp_path)


def test_frames_with_labels_apart():
    data = load((TABLE.select(["age", "pay"]), LETTERS))
    assert data.columns == ["age", "pay"]
    assert data.classes == ["a", "b", "c"]
