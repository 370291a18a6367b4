"""Are the anomalies of 81 telemetry channels found, step by step, better than by PCA and an isolation forest?

SMAP and MSL (Hundman et al. 2018): each channel has a training series and a test series with labelled stretches. Each
detector learns from windows of 16 steps of the one, standardised by it, sees no label, and scores the windows of the
other; the score of a step is the mean over the windows that hold it. Ours is `AnomalyDetector(window=16)` as it is.
PCA is the squared distance from the components that hold 90 % of the variance, Mahalanobis that of all components. Area
under the ROC curve of steps, un-adjusted; then the same with point adjustment. Means over channels, and the mean of the
paired differences with Student's 95 % interval over channels.

    NARROWS_DATA=... python benchmarks/series.py [--seeds 1] [--resume]    # reads NARROWS_DATA/smap_msl
"""

import argparse
import ast
import csv
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
from sklearn.ensemble import IsolationForest
from sklearn.metrics import roc_auc_score

import narrows as nr
from narrows.data.windows import steps, windows

TARGET = Path(__file__).parent / "results" / "series.json"
DATA = Path(os.environ.get("NARROWS_DATA", ".")) / "smap_msl"
WINDOW = 16


def channels() -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray]]:
    with open(DATA / "labeled_anomalies.csv") as file:
        rows = [(line["spacecraft"], line["chan_id"], line["anomaly_sequences"]) for line in csv.DictReader(file)]
    for craft in ("SMAP", "MSL"):
        held = np.load(DATA / f"{craft.lower()}.npz")
        for name in sorted({channel for where, channel, _ in rows if where == craft}):
            train, test = held[f"train_{name}"], held[f"test_{name}"]
            truth = np.zeros(len(test), bool)
            for where, channel, stretches in rows:
                if (where, channel) == (craft, name):
                    for first, last in ast.literal_eval(stretches):
                        truth[first : last + 1] = True
            yield f"{craft} {name}", train, test, truth


def of_steps(scores: np.ndarray) -> np.ndarray:
    return steps(torch.from_numpy(scores), torch.arange(len(scores)), WINDOW, len(scores) + WINDOW - 1).numpy()


def components(seen: np.ndarray, new: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared distance from the first components, and in units of all that have a variance."""
    mean = seen.mean(0)
    values, vectors = np.linalg.eigh(np.cov(seen.T).reshape(seen.shape[1], -1))
    values, vectors = values[::-1], vectors[:, ::-1]
    few = vectors[:, : 1 + int((np.cumsum(values) / values.sum() < 0.9).sum())]
    all_ = values > 1e-6 * values[0]
    off = new - mean
    whitened = off @ (vectors[:, all_] / np.sqrt(values[all_]))
    return np.square(off - off @ few @ few.T).sum(1), np.square(whitened).sum(1)


def scored(train: np.ndarray, test: np.ndarray, seed: int) -> dict[str, tuple[np.ndarray, float]]:
    """Scores of the test's steps, and processor seconds."""
    mean, std = train.mean(0), train.std(0)
    std[std == 0] = 1
    train, test = (train - mean) / std, (test - mean) / std
    seen, new = (np.array(windows(x, WINDOW)) for x in (train, test))
    found: dict[str, tuple[np.ndarray, float]] = {}

    def timed(name: str, make: Callable[[], Any]) -> Any:
        began = time.process_time()
        made = make()
        found[name] = (made, time.process_time() - began)
        return made

    timed("Narrows", lambda: -nr.AnomalyDetector(window=WINDOW, random_state=seed).fit(train).score_samples(test))
    both = timed("PCA", lambda: components(seen, new))
    for name, part in zip(("PCA", "Mahalanobis"), both, strict=True):
        found[name] = (of_steps(part), found["PCA"][1])
    forest = timed("IForest", lambda: -IsolationForest(random_state=seed).fit(seen).score_samples(new))
    found["IForest"] = (of_steps(forest), found["IForest"][1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    warnings.filterwarnings("ignore")
    record: dict[str, Any] = json.loads(TARGET.read_text()) if asked.resume and TARGET.exists() else {}
    for seed in range(asked.seeds):
        for name, train, test, truth in channels():
            held = record.setdefault(name, {})
            if str(seed) in held:
                continue
            held[str(seed)] = {}
            for peer, (scores, seconds) in scored(train, test, seed).items():
                adjusted = nr.tasks.point_adjusted(torch.from_numpy(scores), torch.from_numpy(truth)).numpy()
                held[str(seed)][peer] = [roc_auc_score(truth, scores), roc_auc_score(truth, adjusted), seconds]
            TARGET.write_text(json.dumps(record, indent=1) + "\n")
        show(record)


def show(record: dict[str, Any]) -> None:
    for craft in ("SMAP", "MSL", ""):
        some = [held for name, held in record.items() if name.startswith(craft)]
        print(f"{craft or 'all'}: {len(some)} channels", flush=True)
        for peer in some[0]["0"]:
            area, adjusted, seconds = (
                np.array([np.mean([held[s][peer][i] for s in held]) for held in some]) for i in range(3)
            )
            ours = np.array([np.mean([held[s]["Narrows"][0] for s in held]) for held in some])
            gain, wide = interval((ours - area).tolist())
            beside = "" if peer == "Narrows" else f"{gain:+.3f} ± {wide:.3f}"
            cells = (peer, f"{area.mean():.3f}", beside, f"{adjusted.mean():.3f}", f"{seconds.sum():.0f}")
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
