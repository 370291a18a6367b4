"""What a person sees while training: a live line on a terminal, plain lines in a log, nothing if quiet."""

import sys
import time
from types import TracebackType
from typing import Any, Self

__all__ = ["Progress", "sentence"]


def sentence(record: dict[str, Any]) -> str:
    """One check as a line: the equation with its numbers, nats per row."""
    terms = record["train"]
    text = f"train {terms['loss']:.2f} = distortion (reconstruction) {terms['distortion']:.2f}"
    if record["beta"]:
        rate = f"rate (KL) {terms['rate']:.2f}"
        text += f" + {record['beta']:.3g} x " + (
            f"|{rate} - {record['capacity']:.2f}|" if record.get("capacity") is not None else rate
        )
    if terms["penalty"]:
        text += f" + penalty {terms['penalty']:.2f}"
    if terms["discrepancy"]:
        text += f", discrepancy {terms['discrepancy']:.3g}"
    if "perplexity" in record:
        text += f", perplexity {record['perplexity']:.0f} ({record['used']:.0%} of the codewords used)"
    if record["valid"]:
        text += f" | held-out {record['valid']['loss']:.2f}"
    return text


class Progress:
    """Context that shows records as they come."""

    every = 5.0  # seconds between plain lines

    def __init__(self, total: int, quiet: bool) -> None:
        self.total, self.quiet, self.last = total, quiet, 0.0
        self.bar: Any = None

    def __enter__(self) -> Self:
        if not self.quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = [BarColumn(20), TextColumn("{task.completed:,}/{task.total:,} steps"), TimeElapsedColumn()]
            self.bar = Bar(
                *columns, TimeRemainingColumn(), TextColumn("{task.description}"), console=Console(stderr=True)
            )
            self.task = self.bar.add_task("", total=self.total)
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def say(self, text: str) -> None:
        """One line that stays."""
        if self.bar is not None:
            self.bar.console.print(text, highlight=False)
        elif not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def step(self, step: int) -> None:
        """Moves the bar."""
        if self.bar is not None and step % 10 == 0:
            self.bar.update(self.task, completed=step)

    def show(self, record: dict[str, Any], best: bool) -> None:
        """A check: on a terminal it replaces the last one; in a log at most one line in `every` seconds."""
        text = sentence(record) + (" (best)" if best else "") + f" | {record['rows_per_second']:,.0f} rows/s"
        if self.bar is not None:
            self.bar.update(self.task, completed=record["step"], description=text)
        elif time.monotonic() - self.last >= self.every:
            self.last = time.monotonic()
            self.say(f"step {record['step']:,}, epoch {record['epoch']:.4g}: {text}")
