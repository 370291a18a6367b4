"""Is the column that is blamed first the one that was tampered with?

`adult` without education-num, the member iwae as it is. In each test row one cell of a category is given the value of
another row, drawn at random among those that scikit-learn's gradient-boosted classifier of that column, fitted on the
training rows, finds at least three nats less likely given the other columns than the row's own. Among the 14 columns
the one blamed first is the tampered one in what share of the rows? Rankings: the nats themselves; nats less the mean of
the column over 1,000 held-out rows; the share of these rows whose cell costs less; nats less those of the cell alone;
the tail; and the evidence, of which `Blame` tells. Beside them the classifiers themselves, by the same evidence, which
blame categories alone.

    python benchmarks/blame.py --data .../adult.csv        # writes results/blame.json

Intervals are Student's 95 % over seeds, each with weights, rows and donors of its own.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
import torch
from aggregated import interval
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor

import narrows as nr
from narrows import defaults, recipes
from narrows.tasks import Blame, blame

TARGET = Path(__file__).parent / "results" / "blame.json"
GAP = 3.0  # nats
DONORS = 200  # rows that are asked for a value before another column is taken


class Judges:
    """A classifier of each column of categories given all others: log-probabilities of its classes."""

    def __init__(self, x: NDArray[Any], columns: list[int], classes: list[int]) -> None:
        self.columns, self.classes, self.fitted = columns, classes, {}
        for c in columns:
            known = ~np.isnan(x[:, c])
            few = [columns.index(o) - (columns.index(o) > columns.index(c)) for o in columns if o != c]
            order = [o for o in columns if o != c] + [o for o in range(x.shape[1]) if o not in columns]
            model = HistGradientBoostingClassifier(
                categorical_features=few, max_iter=60, l2_regularization=1.0, early_stopping=False, random_state=0
            )
            self.fitted[c] = (model.fit(x[known][:, order], x[known, c]), order)

    def log_p(self, x: NDArray[Any], c: int) -> NDArray[Any]:
        """(n, classes) of column c given the others; what training never showed is as rare as can be."""
        model, order = self.fitted[c]
        out = np.full((len(x), self.classes[c]), -20.0)
        out[:, model.classes_.astype(int)] = np.log(model.predict_proba(x[:, order]).clip(1e-9))
        return out


def tampered(x: NDArray[Any], judges: Judges, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows with one cell of a category replaced, and which column that is."""
    r = np.random.default_rng(seed)
    log_p = {c: judges.log_p(x, c) for c in judges.columns}
    out, place = x.copy(), np.full(len(x), -1)
    for row in range(len(x)):
        for c in r.permutation(judges.columns):
            own = x[row, c]
            if np.isnan(own):
                continue
            donors = x[r.integers(len(x), size=DONORS), c]
            donors = donors[~np.isnan(donors)].astype(int)
            donors = donors[log_p[c][row, int(own)] - log_p[c][row, donors] >= GAP]
            if len(donors):
                out[row, c], place[row] = donors[0], c
                break
    return out[place >= 0], place[place >= 0]


def first(score: Tensor, place: NDArray[Any]) -> float:
    """Share of the rows whose largest score stands at `place`."""
    return float((score.nan_to_num(-torch.inf).argmax(1).numpy() == place).mean())


def rankings(found: Blame, usual: Blame) -> dict[str, Tensor]:
    """Scores by which columns can be ranked."""
    known = usual.nats.nan_to_num(torch.inf).sort(0).values.T.contiguous()
    below = torch.searchsorted(known, found.nats.T.contiguous()).T / (~usual.nats.isnan()).sum(0)
    return {
        "nats": found.nats,
        "less the column's mean": found.nats - usual.nats.nanmean(0),
        "share of rows below": below + 1e-6 * (found.nats - usual.nats.nanmean(0)),
        "less the cell alone": found.nats - found.alone,
        "tail": found.tail,
        "evidence": found.evidence,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="adult.csv")
    parser.add_argument("--recipe", default="iwae")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--samples", type=int, default=256)
    asked = parser.parse_args()
    data = nr.data.load(asked.data, drop=["education-num"])
    used = data.scaling.used
    classes = [len(c.labels) + 1 if c.kind == "category" else 0 for c in used]
    judges = Judges(data.train.x.numpy(), [i for i, n in enumerate(classes) if n], classes)
    runs: dict[str, list[float]] = {}
    by_column: dict[str, list[float]] = {}
    for seed in range(asked.seeds):
        some = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(seed))[: asked.rows]
        changed, place = tampered(data.test.x.numpy()[some], judges, seed)
        model, objective = getattr(recipes, asked.recipe)(**defaults.arguments(data, asked.recipe, {}), seed=seed)
        nr.fit(model, objective, data, training=nr.Training(epochs=asked.epochs, seed=seed), quiet=True)
        began = time.process_time()
        found = blame(model, nr.data.Rows(torch.from_numpy(changed), data.scaling), asked.samples)
        seconds = time.process_time() - began
        scores = rankings(found, blame(model, data.valid.take(torch.arange(1000)), asked.samples))
        shares = {name: first(score, place) for name, score in scores.items()}
        theirs = torch.full(changed.shape, torch.nan)
        for c in judges.columns:
            log_p, known = judges.log_p(changed, c), ~np.isnan(changed[:, c])
            alone = np.bincount(data.train.x[:, c].nan_to_num(classes[c]).int(), minlength=classes[c] + 1) + 1
            at = changed[known, c].astype(int)
            own = log_p[known, at]
            tail = -np.log((np.exp(log_p[known]) * (log_p[known] <= own[:, None] + 1e-5)).sum(1))
            evidence = np.log(alone / len(data.train))[at] - own + tail
            theirs[torch.from_numpy(known), c] = torch.from_numpy(evidence).float()
        shares["the classifiers' own evidence"] = first(theirs, place)
        for name, share in shares.items():
            runs.setdefault(name, []).append(share)
        runs.setdefault("rows a second", []).append(len(changed) / seconds)
        for c in judges.columns:
            here = place == c
            by_column.setdefault(used[c].name, []).append(first(found.evidence[torch.from_numpy(here)], place[here]))
        print(seed, len(place), *(f"{name} {share:.3f}" for name, share in shares.items()), flush=True)
    record = {
        "rows": asked.rows,
        "recipe": asked.recipe,
        "epochs": asked.epochs,
        "samples": asked.samples,
        "versions": {"torch": torch.__version__, "narrows": nr.__version__, "scikit-learn": sklearn.__version__},
        "blamed first": {name: interval(values) for name, values in runs.items()},
        "by column, evidence": {name: interval(values) for name, values in by_column.items()},
    }
    TARGET.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
