"""Whether a run is what it says: files by checksums, data by fingerprint, figures by measuring again."""

import hashlib
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from narrows import recipes
from narrows.evaluate import evaluate
from narrows.store import load
from narrows.training import Training, fit

__all__ = ["differences", "verify"]


def verify(folder: Path, rerun: bool = False) -> Iterator[tuple[str, bool]]:
    """Sentences, each with whether it holds; the last ones take as long as evaluation, or training, does.

    Raises: ValueError where the folder has been changed or its data are no longer the same.
    """
    run = load(folder)
    yield f"every file of {folder} is as it was sealed", True
    data = run.data
    yield f"{data.source} is the data that were trained on ({len(data.x):,} rows)", True
    if run.evaluation is not None:
        most = max(part["bound_rows"] for part in run.evaluation["parts"].values())
        again = evaluate(run.model, data, run.evaluation["samples"] or 1, most, run.evaluation["seed"])
        wrong = list(differences(run.evaluation, again))
        yield (
            "every stored figure is measured again" if not wrong else f"stored figures: {'; '.join(wrong[:5])}",
            not wrong,
        )
    if rerun:
        if run.config["spec"] is None:
            yield "own networks cannot be built again from the folder", False
            return
        model, objective = recipes.build(run.config["spec"])
        with tempfile.TemporaryDirectory() as place:
            other = Path(place) / "again"
            fit(model, objective, data, training=Training(**run.config["training"]), folder=other, quiet=True)
            same = _digest(other) == _digest(folder)
        yield "trained again, the weights are the same to the last bit", same


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()


def differences(was: Any, now: Any, where: str = "") -> Iterator[str]:
    """Where two records differ by more than rounding (a millionth), each as a sentence."""
    if isinstance(was, dict) and isinstance(now, dict):
        for name in {**was, **now}:
            yield from differences(was.get(name), now.get(name), f"{where}.{name}" if where else name)
    elif isinstance(was, (list, tuple)) and isinstance(now, (list, tuple)) and len(was) == len(now):
        for i, (a, b) in enumerate(zip(was, now, strict=True)):
            yield from differences(a, b, f"{where}[{i}]")
    elif isinstance(was, float) and isinstance(now, float):
        if not (math.isclose(was, now, rel_tol=1e-6, abs_tol=1e-9) or (math.isnan(was) and math.isnan(now))):
            yield f"{where} was {was:.6g} and is {now:.6g}"
    elif was != now:
        yield f"{where} was {was} and is {now}"
