"""Where decoded and downloaded data are kept, and how a file gets there in one step."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["atomic", "cache", "key", "made"]


def cache() -> Path:
    """The folder of the cache: NARROWS_CACHE, or the user's own cache folder."""
    if "NARROWS_CACHE" in os.environ:
        return Path(os.environ["NARROWS_CACHE"])
    import pooch

    return Path(pooch.os_cache("narrows"))


def key(files: list[Path], **options: Any) -> str:
    """A name for what is made of some files: changes with any path, size, time of change or option."""
    seen = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(json.dumps([seen, options]).encode()).hexdigest()[:32]


def made(
    path: Path, dtype: np.dtype[Any], shape: tuple[int, ...], fill: Callable[[NDArray[Any]], None]
) -> NDArray[Any]:
    """The array kept at `path`, read from disk; where it is not there or damaged, one that `fill` has written."""
    held = _kept(path)
    if held is None or held.shape != shape:
        with atomic(path) as temporary:
            mapped = np.lib.format.open_memmap(temporary, "w+", dtype, shape)
            fill(mapped)
            mapped.flush()
        held = np.load(path, mmap_mode="r")
    return held


def _kept(path: Path) -> NDArray[Any] | None:
    try:
        kept: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return kept


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, moved there when the block ends well and removed when it does not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
