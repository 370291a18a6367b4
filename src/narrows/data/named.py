"""Sets with a name: where they come from, and what their bytes must be."""

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from narrows.data.cache import cache
from narrows.data.found import Found
from narrows.data.idx import content, parse

__all__ = ["NAMED", "from_name", "names"]

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class Named(NamedTuple):
    """A set of four IDX files: its line in a list, its home, the SHA-256 of each file decompressed, its classes."""

    line: str
    url: str = ""
    sums: tuple[str, ...] = ()
    classes: tuple[str, ...] = tuple("0123456789")


NAMED = {
    "digits": Named("1,797 handwritten digits of 8 x 8, values 0..16, labels; comes with scikit-learn (UCI)"),
    "fashion-mnist": Named(
        "70,000 pictures of clothing, 28 x 28 grey, labels, own test part (Xiao et al. 2017, arXiv:1708.07747)",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
    ),
    "mnist": Named(
        "70,000 handwritten digits, 28 x 28 grey, labels, own test part (LeCun et al. 1998, doi:10.1109/5.726791)",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
}


def names() -> dict[str, str]:
    """Every named set with its line."""
    return {name: named.line for name, named in NAMED.items()}


def from_name(name: str) -> Found:
    """A named set, from NARROWS_DATA/<name>, from the cache, or from its home on the network.

    Raises: FileNotFoundError where it is nowhere to be had; ValueError where a file is not what it should be.
    """
    if name == "digits":
        return _digits()
    named = NAMED[name]
    arrays = []
    for file, known in zip(FILES, named.sums, strict=True):
        path = _local(name, file) or _download(name, named.url, file)
        data = content(path)
        found = hashlib.sha256(data).hexdigest()
        if found != known:
            raise ValueError(
                f"{path} is not the {file} of {name}: the SHA-256 of its decompressed bytes is {found[:12]}... and "
                f"should be {known[:12]}...; delete it and load again"
            )
        arrays.append(parse(data, path))
    x, y = np.concatenate(arrays[::2]), np.concatenate(arrays[1::2])
    part = np.repeat(np.array([0, 2], np.uint8), [len(arrays[0]), len(arrays[2])])
    return Found(name, name, x, y, part=part, classes=list(named.classes))


def _digits() -> Found:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = digits.images.astype(np.uint8)[:, None]
    return Found("digits", "digits", x, digits.target, classes=list(NAMED["digits"].classes))


def _local(name: str, file: str) -> Path | None:
    folders = [cache() / name]
    if "NARROWS_DATA" in os.environ:
        folders.insert(0, Path(os.environ["NARROWS_DATA"]) / name)
    paths = (folder / (file + end) for folder in folders for end in ("", ".gz"))
    return next((path for path in paths if path.is_file()), None)


def _download(name: str, url: str, file: str) -> Path:
    import pooch

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # it would print a checksum of the compressed file; ours is of the content
    try:
        return Path(pooch.retrieve(f"{url}{file}.gz", None, f"{file}.gz", cache() / name))
    except OSError as error:  # what requests raises is one
        given = os.environ.get("NARROWS_DATA")
        looked = f"in {Path(given) / name}" if given else "on this machine (NARROWS_DATA is not set)"
        raise FileNotFoundError(
            f"{name} was looked for {looked} and at {url}, which cannot be reached: put {file}.gz and its three "
            f"companions into a folder {name} and set NARROWS_DATA to the folder that holds it, or connect to a network"
        ) from error
    finally:
        logger.setLevel(level)
