"""A folder of images, decoded once into an array on disk."""

import json
import shlex
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from narrows.data import found as reading
from narrows.data.cache import atomic, cache, key, made
from narrows.data.dataset import Options
from narrows.data.found import Found

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["SUFFIXES", "from_folder"]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif")
GREY = ("1", "L", "LA", "I;16", "I;16B", "I;16L")
ALPHA = ("LA", "La", "RGBA", "RGBa", "PA")
PARTS = {"train": 0, "training": 0, "val": 1, "valid": 1, "validation": 1, "test": 2, "testing": 2}
LOOK = 48  # pixels of the longer side that is suggested for images of unequal size
ORIENTATION = 0x0112  # EXIF; 5 to 8 exchange height and width


class _Seen(NamedTuple):
    """What the headers say: the readable files, the channels and size to decode to, and notes."""

    files: list[str]
    channels: int
    size: tuple[int, int]
    notes: list[str]


def from_folder(folder: Path, options: Options, channels: int | None = None) -> Found:
    """Images (n, C, H, W) uint8, one channel where all are grey and three otherwise; sub-folders are the labels.

    Decoded once into the cache, under a key of all paths, sizes and times of change. `channels` asks for 1 or 3.

    Raises: ValueError for a folder without images, images of unequal size, and files that cannot be decoded.
    """
    files, others = _list(folder)
    if not files:
        raise ValueError(f"{folder} holds no images ({', '.join(s[1:] for s in SUFFIXES)}), here or in sub-folders")
    wanted = _size(options.size) if options.size is not None else None
    paths = [folder / name for name in files]
    kept = cache() / "images" / key(paths, size=wanted, skip_bad=options.skip_bad, channels=channels)
    about = kept.with_suffix(".json")
    if about.exists():
        record = json.loads(about.read_text())
        seen = _Seen(record["files"], record["channels"], tuple(record["size"]), record["notes"])
    else:
        seen = _look(folder, files, wanted, channels, options.skip_bad)
        with atomic(about) as temporary:
            temporary.write_text(json.dumps(seen._asdict()))
    shape = (len(seen.files), seen.channels, *seen.size)

    def decode(x: NDArray[Any]) -> None:
        for number, name in enumerate(seen.files):
            x[number] = _open(folder / name, lambda image: _pixels(image, seen.channels, wanted))

    x = made(kept.with_suffix(".npy"), np.dtype(np.uint8), shape, decode)
    if x.nbytes <= reading.IN_MEMORY:
        x = np.array(x)
    found = Found(folder.name, str(folder), x, notes=list(seen.notes))
    if others:
        found.notes.append(f"{others} files are no images and were passed over")
    return _by_folder(found, seen.files)


def _by_folder(found: Found, files: list[str]) -> Found:
    """Labels from the first sub-folder, or from the second where the first are called train, valid, test."""
    paths = [name.split("/")[:-1] for name in files]
    if all(path and path[0].lower() in PARTS for path in paths) and any(PARTS[path[0].lower()] == 0 for path in paths):
        found.part = np.array([PARTS[path[0].lower()] for path in paths], np.uint8)
        named = ", ".join(sorted({path[0] for path in paths}))
        found.notes.append(f"the sub-folders {named} were taken as its own parts")
        paths = [path[1:] for path in paths]
    if any(paths):
        found.label = np.array([path[0] if path else "" for path in paths])
    return found


def _list(folder: Path) -> tuple[list[str], int]:
    """Relative paths of the images below the folder, sorted, and the number of other files; hidden ones aside."""
    every = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    shown = [path for path in every if not any(part.startswith(".") for part in path.parts)]
    images = sorted(path.as_posix() for path in shown if path.suffix.lower() in SUFFIXES)
    return images, len(shown) - len(images)


def _size(given: Any) -> tuple[int, int]:
    """(height, width) from "HxW" or a pair."""
    try:
        height, width = (int(part) for part in (given.split("x") if isinstance(given, str) else given))
    except (TypeError, ValueError):
        height = width = 0
    if height < 1 or width < 1:
        raise ValueError(f'size is height x width in pixels, such as "32x32"; got {given!r}')
    return height, width


def _look(
    folder: Path, files: list[str], wanted: tuple[int, int] | None, channels: int | None, skip_bad: bool
) -> _Seen:
    """Reads the headers; with `skip_bad` decodes as well, since a header does not tell that the rest is missing."""
    modes: Counter[str] = Counter()
    sizes: Counter[tuple[int, int]] = Counter()
    good: list[str] = []
    bad: list[str] = []
    turned = alpha = 0
    for name in files:
        try:
            mode, size, rotated, clear = _open(folder / name, lambda image: _header(image, skip_bad))
        except ValueError:
            if not skip_bad:
                raise
            bad.append(name)
            continue
        good.append(name)
        modes[mode] += 1
        sizes[size] += 1
        turned += rotated
        alpha += clear
    if not good:
        raise ValueError(f"none of the {len(files)} images of {folder} can be read")
    if wanted is None and len(sizes) > 1:
        raise ValueError(_unequal(folder, sizes))
    if any(mode in ("I", "F") for mode in modes):
        raise ValueError(f"{folder} has images of 32 bits a pixel, which 8 cannot hold; make an .npy array of them")
    channels = channels or (1 if all(mode in GREY for mode in modes) else 3)
    named = ", ".join(f"{count} of mode {mode}" for mode, count in modes.most_common())
    notes = [f"images: {named}, read as {'grey' if channels == 1 else 'RGB'}"]
    if wanted is not None:
        notes.append(f"brought to {wanted[0]}x{wanted[1]} by their shorter side, and cropped about the centre")
    if turned:
        notes.append(f"{turned} images were turned upright as their EXIF says")
    if alpha:
        notes.append(f"{alpha} images are partly transparent and were laid on white")
    if any(mode.startswith("I;16") for mode in modes):
        notes.append("16-bit grey was reduced to 8 bits; an .npy array keeps all of them")
    if bad:
        notes.append(f"{len(bad)} files cannot be read and were left out ({', '.join(bad[:5])})")
    return _Seen(good, channels, wanted or next(iter(sizes)), notes)


def _header(image: "Image.Image", decode: bool) -> tuple[str, tuple[int, int], bool, bool]:
    """Mode, (height, width) upright, whether it must be turned, whether it has alpha."""
    turn = image.getexif().get(ORIENTATION, 1)
    width, height = image.size
    clear = image.mode in ALPHA or "transparency" in image.info
    mode = image.mode
    if decode:
        image.load()
    return mode, (width, height) if turn in (5, 6, 7, 8) else (height, width), turn in range(2, 9), clear


def _unequal(folder: Path, sizes: Counter[tuple[int, int]]) -> str:
    listed = ", ".join(f"{count} of {h}x{w}" for (h, w), count in sizes.most_common(4))
    more = f" and {len(sizes) - 4} more sizes" if len(sizes) > 4 else ""
    # the smallest, on the scale that a first look can afford: the cost of a convolution grows with the pixels
    height, width = min(h for h, _ in sizes), min(w for _, w in sizes)
    scale = min(1.0, LOOK / max(height, width))
    height, width = max(1, round(height * scale)), max(1, round(width * scale))
    return (
        f"the images of {folder} differ in height x width: {listed}{more}. To crop and resize them all, "
        f"size={f'{height}x{width}'!r} in Python, or: narrows fit {shlex.quote(str(folder))} --size {height}x{width}"
    )


def _open(path: Path, use: Callable[["Image.Image"], Any]) -> Any:
    """What `use` makes of an image. Raises ValueError where the file is no image or only a part of one."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return use(image)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path} is damaged or no image and cannot be read; mend it, or leave all such files out by --skip-bad"
        ) from error


def _pixels(image: "Image.Image", channels: int, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    """(C, H, W) uint8."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ALPHA or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if channels == 1 else "RGB")
    if size is not None:
        image = ImageOps.fit(image, (size[1], size[0]), Image.Resampling.LANCZOS)
    values = np.asarray(image)
    return values[None] if channels == 1 else np.moveaxis(values, 2, 0)
