"""The command line. Nothing heavy is imported before the arguments are parsed."""

import sys

from narrows.cli import detect, fit, judge, lists, use  # noqa: F401 (each joins the application)
from narrows.cli.app import app

__all__ = ["app", "main"]


def main() -> None:
    """Runs the command line; a fault of the user's ends in one plain sentence, not a traceback."""
    try:
        app()
    except (ValueError, TypeError, OSError, ArithmeticError) as error:
        print(f"narrows: {error}", file=sys.stderr)
        sys.exit(1)
