"""The application that every command joins, and the arguments they share."""

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["Out", "RunFolder", "Source", "app", "pair"]

app = typer.Typer(
    name="narrows",
    help="The whole autoencoder family: train, judge in nats, put to work.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

RunFolder = Annotated[Path, typer.Argument(help="folder of a finished run", metavar="RUN")]
Source = Annotated[
    str, typer.Argument(help="a file, a folder or a named set (narrows data lists them)", metavar="DATA")
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="where to write: .png for images, .npy, .csv")]


def pair(value: Any) -> str:
    """A mean and its standard error."""
    return f"{value[0]:.4g} ± {value[1]:.2g}"
