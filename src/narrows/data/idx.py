"""IDX files, the format of MNIST: a big-endian header, then the values (yann.lecun.com/exdb/mnist)."""

import gzip
import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from narrows.data.found import Found

__all__ = ["content", "from_idx", "from_idx_folder", "is_idx", "parse"]

TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
NAME = re.compile(r"idx\d+-[a-z0-9]+(\.gz)?$")


def is_idx(path: Path) -> bool:
    """Whether a file is called like one."""
    return NAME.search(path.name) is not None


def content(path: Path) -> bytes:
    """The bytes of a file, decompressed. Raises ValueError where it is cut short."""
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged or cut short and cannot be decompressed; copy it again") from error


def parse(data: bytes, path: Path) -> NDArray[Any]:
    """The array of an IDX file. Raises ValueError where header and length do not agree."""
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] not in TYPES or not data[3]:
        raise ValueError(f"{path} is no IDX file: its first four bytes are {data[:4].hex(' ')}")
    dtype, start = np.dtype(TYPES[data[2]]), 4 + 4 * data[3]
    shape = tuple(np.frombuffer(data[4:start], ">u4").tolist()) if len(data) >= start else ()
    wanted = start + math.prod(shape) * dtype.itemsize
    if len(data) != wanted or not shape:
        raise ValueError(f"{path} should have {wanted} bytes by its header and has {len(data)}; copy it again")
    return np.frombuffer(data, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def from_idx(path: Path) -> Found:
    """An IDX file with its labels and, beside a training file, the test part, where these stand in the same folder."""
    return _join(path.resolve().parent.name, path, _with_test(path))


def from_idx_folder(path: Path) -> Found:
    """A folder with the training files of such a set, and its test files."""
    files = sorted(file for file in path.iterdir() if is_idx(file) and "images" in file.name)
    train = next((file for file in files if "train" in file.name), files[0] if files else None)
    if train is None:
        raise ValueError(f"{path} holds IDX files but none with images in its name, such as train-images-idx3-ubyte")
    return _join(path.resolve().name, path, _with_test(train))


def _with_test(train: Path) -> list[Path]:
    test = _sibling(train, "train", "t10k") or _sibling(train, "train", "test")
    return [train, test] if test else [train]


def _join(name: str, source: Path, files: list[Path]) -> Found:
    arrays = [parse(content(file), file) for file in files]
    labels = [_labels(file) for file in files]
    for file, x, y in zip(files, arrays, labels, strict=True):
        if y is not None and len(x) != len(y):
            raise ValueError(f"{file} has {len(x)} rows and its labels file {len(y)}; they are not of one set")
    part = None
    if len(arrays) == 2:
        part = np.repeat(np.array([0, 2], np.uint8), [len(arrays[0]), len(arrays[1])])
    label = None if any(y is None for y in labels) else np.concatenate([y for y in labels if y is not None])
    return Found(name, str(source), np.concatenate(arrays), label, part=part)


def _labels(file: Path) -> NDArray[Any] | None:
    found = _sibling(file, "images", "labels")
    return parse(content(found), found) if found else None


def _sibling(file: Path, old: str, new: str) -> Path | None:
    """The file of the same folder with another word in its name, compressed or not."""
    if old not in file.name:
        return None
    stem = file.name.removesuffix(".gz").replace(old, new)
    if new == "labels":
        stem = re.sub(r"idx\d+", "idx1", stem)
    return next((file.with_name(stem + end) for end in ("", ".gz") if file.with_name(stem + end).is_file()), None)
