"""Are empty cells of a table filled better than by the usual means?

`adult` without education-num: 20 % of the cells are hidden at random in training, held-out and test rows alike, and the
hidden cells of test rows are filled. Beside the member iwae, as it is, stand mean or mode (and the median),
scikit-learn's k-NN imputer (5 neighbours, by distance) and IterativeImputer (ridge regressions), both on standardised
numbers and one-hot categories, and a loop of random forests in the manner of MissForest (Stekhoven & Buehlmann 2012),
which learns on training rows and is applied to test rows.

Categories: share that is right. Numbers, each column on its own and then their mean: absolute error in spreads
(quartile range / 1.349), and the root of the mean squared error in standard deviations of the training rows.

    python benchmarks/impute.py --data .../adult.csv        # writes results/impute.json; --only narrows knows itself

Intervals are Student's 95 % over seeds, each with cells, weights and forests of its own.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from aggregated import interval
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 (makes the next import work)
from sklearn.impute import IterativeImputer, KNNImputer

import narrows as nr
from narrows import defaults, recipes
from narrows.data import Data

TARGET = Path(__file__).parent / "results" / "impute.json"
SHARE = 0.2
Array = NDArray[Any]


class Table:
    """Rows with hidden cells, (n, columns) in model units, and the same as numbers beside one-hot categories."""

    def __init__(self, data: Data, seed: int, rows: int) -> None:
        used = data.scaling.used  # type: ignore[union-attr]
        self.classes = [len(c.labels) if c.kind == "category" else 0 for c in used]
        self.names = [c.name for c in used]
        hidden = torch.rand(data.x.shape, generator=torch.Generator().manual_seed(seed)) < SHARE
        self.data = replace(data, x=torch.where(hidden, torch.nan, torch.as_tensor(data.x)))
        self.truth = data.test.x.numpy()[:rows]
        self.train, self.test = self.data.train.x.numpy(), self.data.test.x.numpy()[:rows]
        self.hidden = np.isnan(self.test) & ~np.isnan(self.truth)
        self.mean, self.std = np.nanmean(self.train, 0), np.nanstd(self.train, 0)

    def flat(self, x: Array) -> Array:
        """Standardised numbers, categories one-hot, NaN where hidden."""
        parts = []
        for c, n in enumerate(self.classes):
            cell = x[:, c, None]
            shown = (cell == np.arange(n)).astype(float) if n else (cell - self.mean[c]) / self.std[c]
            parts.append(np.where(np.isnan(cell), np.nan, shown))
        return np.concatenate(parts, 1)

    def back(self, flat: Array) -> Array:
        """Rows from `flat`: of one-hot numbers the largest."""
        out, at = np.empty((len(flat), len(self.classes))), 0
        for c, n in enumerate(self.classes):
            part = flat[:, at : at + max(n, 1)]
            out[:, c] = part.argmax(1) if n else part[:, 0] * self.std[c] + self.mean[c]
            at += max(n, 1)
        return out

    def errors(self, filled: Array) -> dict[str, float]:
        """Accuracy of categories over their cells; errors of numbers, means over columns."""
        off, square, right = [], [], []
        for c, n in enumerate(self.classes):
            here = self.hidden[:, c]
            error = filled[here, c] - self.truth[here, c]
            if n:
                right.append(error == 0)
            else:
                off.append(np.abs(error).mean())
                square.append(np.sqrt(np.square(error / self.std[c]).mean()))
        return {
            "categories right": float(np.concatenate(right).mean()),
            "numbers off by": float(np.mean(off)),
            "rms": float(np.mean(square)),
        }


def plain(table: Table, middle: Callable[..., Any]) -> Array:
    """Modes, and means or medians, of training rows."""
    usual = [
        np.bincount(x[~np.isnan(x)].astype(int)).argmax() if n else middle(x)
        for x, n in zip(table.train.T, table.classes, strict=True)
    ]
    return np.broadcast_to(np.array(usual, float), table.test.shape)


def scikit(table: Table, imputer: Any) -> Array:
    """One of scikit-learn's, on flat rows."""
    return table.back(imputer.fit(table.flat(table.train)).transform(table.flat(table.test)))


def forests(table: Table, seed: int, trees: int = 50, rounds: int = 4) -> Array:
    """Columns in turn from all others, by forests, the fewest holes first, a few rounds."""
    usual = plain(table, np.nanmean)[0]
    lost = [np.isnan(x) for x in (table.train, table.test)]
    rows = [np.where(gone, usual, x) for gone, x in zip(lost, (table.train, table.test), strict=True)]
    for _ in range(rounds):
        for c in np.argsort(lost[0].sum(0)):
            kind = RandomForestClassifier if table.classes[c] else RandomForestRegressor
            forest = kind(trees, max_features="sqrt", min_samples_leaf=3, random_state=seed)
            others = np.arange(len(table.classes)) != c
            known = ~lost[0][:, c]
            forest.fit(rows[0][known][:, others], rows[0][known, c])
            for part, gone in zip(rows, lost, strict=True):
                part[gone[:, c], c] = forest.predict(part[gone[:, c]][:, others])
    return rows[1]


def narrows(table: Table, seed: int, asked: argparse.Namespace) -> dict[str, Array]:
    """A member of the family as it stands, trained on the rows with their holes: medians, and means for the numbers."""
    data = table.data
    model, objective = getattr(recipes, asked.recipe)(**defaults.arguments(data, asked.recipe, {}), seed=seed)
    nr.fit(model, objective, data, training=nr.Training(epochs=asked.epochs, seed=seed), quiet=True)
    found = nr.impute(model, data.test.take(torch.arange(len(table.test))), asked.samples, m=200, seed=seed)
    chosen = np.array(table.classes) > 0
    mean = np.where(chosen, found.values.numpy(), found.draws.mean(0).numpy())
    return {f"narrows, {asked.recipe}": found.values.numpy(), f"narrows, {asked.recipe}, means of draws": mean}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="adult.csv")
    parser.add_argument("--recipe", default="iwae")
    parser.add_argument("--rows", type=int, default=2000, help="test rows")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--only", nargs="*", default=["plain", "knn", "iterative", "forests", "narrows"])
    asked = parser.parse_args()
    record: dict[str, Any] = json.loads(TARGET.read_text()) if TARGET.exists() else {"runs": {}}
    record.update({"rows": asked.rows, "recipe": asked.recipe, "epochs": asked.epochs, "samples": asked.samples})
    record["versions"] = {"torch": torch.__version__, "narrows": nr.__version__, "scikit-learn": sklearn.__version__}
    data = nr.data.load(asked.data, drop=["education-num"])
    for seed in range(asked.seeds):
        table = Table(data, seed, asked.rows)
        ways: dict[str, Callable[[Table], dict[str, Array]]] = {
            "plain": lambda t: {"mean, mode": plain(t, np.nanmean), "median, mode": plain(t, np.nanmedian)},
            "knn": lambda t: {"k-NN": scikit(t, KNNImputer(weights="distance"))},
            "iterative": lambda t, s=seed: {"IterativeImputer": scikit(t, IterativeImputer(random_state=s))},
            "forests": lambda t, s=seed: {"random forests": forests(t, s)},
            "narrows": lambda t, s=seed: narrows(t, s, asked),
        }
        for only in asked.only:
            began = time.process_time()
            filled = ways[only](table)
            seconds = time.process_time() - began
            for name, values in filled.items():
                found = {**table.errors(values), "processor seconds": seconds}
                record["runs"].setdefault(name, {})[str(seed)] = found
                print(seed, name, *(f"{key} {value:.4g}" for key, value in found.items()), flush=True)
            runs = record["runs"].items()
            record["mean"] = {
                name: {key: interval([run[key] for run in by.values()]) for key in next(iter(by.values()))}
                for name, by in runs
            }
            TARGET.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
