"""How well are odd rows found without labels, beside PyOD's detectors, on 19 tables and in one run?

Each table is split 60/40 by class, standardised, its constant columns dropped; anomalies stay in the training part and
no label is seen; every detector has one setting for all tables. Ours is `AnomalyDetector()` as it is. Beside it PyOD
3.6.7's IForest, KNN, ECOD, INNE and AutoEncoder as they are, PCA (the squared Mahalanobis distance of all components),
and a pair, an extended isolation forest of 200 trees and KNN, by the mean of their ranks. Areas under the ROC curve and
average precision on the other 40 %, processor seconds of fit and scores.

    python -m pip install pyod==3.6.7
    NARROWS_DATA=... python benchmarks/anomaly.py --seeds 5        # reads NARROWS_DATA/adbench; --resume goes on

`--rate` instead: trained and calibrated on normal rows alone, the share of other normal rows flagged where 1 % was
asked, on every table of 2,000 rows or more; and the same where anomalies are among the rows that calibrate.
"""

import argparse
import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from aggregated import interval
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import train_test_split

import narrows as nr

TARGET = Path(__file__).parent / "results" / "anomaly.json"
DATA = Path(os.environ.get("NARROWS_DATA", ".")) / "adbench"


class ExtendedForest:
    """Isolation by random oblique cuts (Hariri et al. 2019): trees of 256 rows, all columns in each cut."""

    def __init__(self, seed: int, trees: int = 200, rows: int = 256) -> None:
        self.rng, self.trees, self.rows = np.random.default_rng(seed), trees, rows

    def fit(self, x: np.ndarray) -> None:
        self.depth = int(np.ceil(np.log2(min(self.rows, len(x)))))
        some = [x[self.rng.permutation(len(x))[: self.rows]] for _ in range(self.trees)]
        self.grown = [self._grow(part, 0) for part in some]

    def _grow(self, x: np.ndarray, depth: int) -> Any:
        if depth >= self.depth or len(x) <= 1:
            return len(x)
        normal = self.rng.normal(size=x.shape[1])
        at = self.rng.uniform(x.min(0), x.max(0)) @ normal
        below = x @ normal <= at
        return normal, at, self._grow(x[below], depth + 1), self._grow(x[~below], depth + 1)

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        total = np.zeros(len(x))
        for tree in self.grown:
            self._walk(tree, x, np.arange(len(x)), 0, total)
        return -total

    def _walk(self, node: Any, x: np.ndarray, which: np.ndarray, depth: int, total: np.ndarray) -> None:
        if isinstance(node, int):
            more = 2 * (np.log(node - 1) + np.euler_gamma) - 2 * (node - 1) / node if node > 2 else max(node - 1, 0)
            total[which] += depth + more
            return
        below = x[which] @ node[0] <= node[1]
        self._walk(node[2], x, which[below], depth + 1, total)
        self._walk(node[3], x, which[~below], depth + 1, total)


class Pca:
    """Squared Mahalanobis distance, components of no variance left out."""

    def fit(self, x: np.ndarray) -> None:
        self.mean = x.mean(0)
        values, vectors = np.linalg.eigh(np.cov(x.T))
        kept = values > 1e-6 * values.max()
        self.whiten = vectors[:, kept] / np.sqrt(values[kept])

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return np.square((x - self.mean) @ self.whiten).sum(1)


class Pair:
    """Extended isolation forest and KNN by the mean of their ranks."""

    def __init__(self, seed: int) -> None:
        from pyod.models.knn import KNN

        self.parts = [ExtendedForest(seed), KNN()]

    def fit(self, x: np.ndarray) -> None:
        for part in self.parts:
            part.fit(x)

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return np.mean([part.decision_function(x).argsort().argsort() for part in self.parts], 0)


class Ours:
    """`AnomalyDetector` with its sign turned."""

    def __init__(self, seed: int) -> None:
        self.made = nr.AnomalyDetector(random_state=seed)

    def fit(self, x: np.ndarray) -> None:
        self.made.fit(x)

    def decision_function(self, x: np.ndarray) -> np.ndarray:
        return -self.made.score_samples(x)


def detectors() -> dict[str, Callable[[int], Any]]:
    from pyod.models.auto_encoder import AutoEncoder
    from pyod.models.ecod import ECOD
    from pyod.models.iforest import IForest
    from pyod.models.inne import INNE
    from pyod.models.knn import KNN

    return {
        "Narrows": Ours,
        "IForest": lambda seed: IForest(random_state=seed),
        "KNN": lambda _: KNN(),
        "ECOD": lambda _: ECOD(),
        "INNE": lambda seed: INNE(random_state=seed),
        "AutoEncoder": lambda seed: AutoEncoder(random_state=seed, verbose=0),
        "PCA": lambda _: Pca(),
        "EIF + KNN": Pair,
    }


def tables() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for file in sorted(DATA.glob("*.npz"), key=lambda file: int(file.stem.split("_")[0])):
        held = np.load(file)
        yield file.stem.split("_", 1)[1], held["X"].astype(np.float64), held["y"].astype(int)


def prepared(x: np.ndarray, train: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Standardised by the training part, its constant columns dropped."""
    seen, new = x[train], x[other]
    kept = seen.std(0) > 0
    mean, std = seen[:, kept].mean(0), seen[:, kept].std(0)
    return (seen[:, kept] - mean) / std, (new[:, kept] - mean) / std


def compare(record: dict[str, Any], seeds: int, only: list[str] | None) -> None:
    for seed in range(seeds):
        for name, x, y in tables():
            train, other = train_test_split(np.arange(len(x)), test_size=0.4, stratify=y, random_state=seed)
            seen, new = prepared(x, train, other)
            for peer, make in detectors().items():
                if only and peer not in only:
                    continue
                held = record.setdefault(peer, {}).setdefault(name, {})
                if str(seed) in held:
                    continue
                began = time.process_time()
                detector = make(seed)
                detector.fit(seen)
                score = detector.decision_function(new)
                seconds = time.process_time() - began
                held[str(seed)] = [roc_auc_score(y[other], score), average_precision_score(y[other], score), seconds]
        TARGET.write_text(json.dumps(record, indent=1) + "\n")
        show(record)


def show(record: dict[str, Any]) -> None:
    """One line for each detector: means over the tables with intervals over seeds, seconds for all tables."""
    for peer, held in record.items():
        if peer.startswith("rate"):
            continue
        seeds = sorted(set.intersection(*(set(found) for found in held.values())))
        means = [[float(np.mean([found[s][i] for found in held.values()])) for s in seeds] for i in range(3)]
        (roc, wide), (precision, also), (seconds, _) = (interval(values) for values in means)
        pm = (f" ± {wide:.4f}", f" ± {also:.4f}") if wide is not None and also is not None else ("", "")
        line = f"| {peer} | {roc:.4f}{pm[0]} | {precision:.4f}{pm[1]} | {seconds * len(held):.0f} |"
        print(line, flush=True)
    if {"Narrows", "PCA"} <= set(record):
        gap = {
            name: float(np.mean([record["PCA"][name][s][0] - found[s][0] for s in found if s in record["PCA"][name]]))
            for name, found in record["Narrows"].items()
        }
        print("behind PCA by more than 0.02:", {n: round(g, 3) for n, g in gap.items() if g > 0.02}, flush=True)


def rates(record: dict[str, Any], seeds: int, asked: float = 0.01) -> None:
    for name, x, y in tables():
        if len(x) < 2000:
            continue
        for what in ("normal", "contaminated"):
            found = []
            for seed in range(seeds):
                sound = np.random.default_rng(seed).permutation(np.flatnonzero(y == 0))
                train, other = sound[: int(0.6 * len(sound))], sound[int(0.6 * len(sound)) :]
                if what == "contaminated":
                    odd = np.random.default_rng(seed).permutation(np.flatnonzero(y == 1))
                    train = np.concatenate([train, odd[: int(0.6 * len(odd))]])
                seen, new = prepared(x, train, other)
                made = nr.AnomalyDetector(false_alarms=asked, random_state=seed).fit(seen)
                found.append(float((made.predict(new) == -1).mean()))
            record.setdefault(f"rate, {what}", {})[name] = found
            print(f"{name}, {what}: {np.mean(found):.4f} of normal rows flagged, asked {asked}", flush=True)
        TARGET.write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--rate", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    warnings.filterwarnings("ignore")
    record = json.loads(TARGET.read_text()) if TARGET.exists() and (asked.resume or asked.rate) else {}
    (rates(record, asked.seeds) if asked.rate else compare(record, asked.seeds, asked.only))


if __name__ == "__main__":
    main()
