"""Data: from a folder, a file, a name or an array to rows in model units, with every decision stated."""

from narrows.data.codec import TableCodec, read_scaling
from narrows.data.dataset import Data, Options
from narrows.data.load import like, load, reload
from narrows.data.named import names
from narrows.data.rows import Rows, rows
from narrows.data.scaling import Scaling
from narrows.data.tables import pieces, whole

__all__ = [
    "Data",
    "Options",
    "Rows",
    "Scaling",
    "TableCodec",
    "like",
    "load",
    "names",
    "pieces",
    "read_scaling",
    "reload",
    "rows",
    "whole",
]
