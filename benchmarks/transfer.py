"""What are labels worth on top of an autoencoder? Test error on Fashion-MNIST at 100, 1,000 and all 60,000 labels.

One autoencoder a seed learns from all 60,000 images without labels. Then, with the same labelled rows: `probe`,
logistic regression on its codes (100 iterations); `frozen`, a head trained by `finetune(freeze=True)`; `tuned`,
everything; `scratch`, the same encoder and head from random weights. Learning rates are fixed beforehand: 1e-2 for a
head alone, 1e-3 for everything. Three seeds (weights, rows and order), one where all labels are used.

    NARROWS_DATA=... python benchmarks/transfer.py        # --minutes 5 stops earlier and goes on when called again
"""

import argparse
import json
import platform
import statistics
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression

import narrows as nr

UNLABELLED = nr.Training(epochs=3)
LABELS = {n: nr.Training(epochs=e, batch=b) for n, e, b in ((100, 300, 64), (1_000, 40, 64), (60_000, 3, 128))}
SEEDS = {100: (0, 1, 2), 1_000: (0, 1, 2), 60_000: (0,)}
TARGET = Path(__file__).parent / "results" / "transfer.json"


def model_of(seed: int) -> tuple[nr.Autoencoder, nr.Objective]:
    """784-256-64-256-784."""
    likelihood = nr.likelihoods.Gaussian
    return nr.recipes.autoencoder(
        (1, 28, 28), latent=64, likelihood=likelihood, network=partial(nr.networks.Mlp, hidden=(256,)), seed=seed
    )


def errors(count: int, model: nr.Autoencoder, images: dict, seed: int) -> dict[str, float]:
    """Test errors of the four arms in per cent."""
    (x, y), (test, truth) = images["train"], images["test"]
    some = np.random.default_rng(seed).permutation(len(x))[:count]
    x, y = x[some], y[some]
    z = nr.evaluate.codes(model, x).numpy()
    far = nr.evaluate.codes(model, test).numpy()
    spread = z.std(0) + 1e-6
    probe = LogisticRegression(max_iter=100).fit(z / spread, y)
    found = {"probe": probe.score(far / spread, truth)}
    arms = {"frozen": (model, True, 1e-2), "tuned": (model, False, 1e-3), "scratch": (model_of(seed)[0], False, 1e-3)}
    for name, (source, freeze, lr) in arms.items():
        training = LABELS[count].model_copy(update={"lr": lr})
        found[name] = nr.finetune(source, x, y, freeze, training, seed=seed).score(test, truth)
    return {name: 100 * (1 - right) for name, right in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--minutes", type=float, default=60.0)
    minutes, began = parser.parse_args().minutes, time.monotonic()
    data = nr.data.load("fashion-mnist", valid=0.0)
    images = {name: (part.x, part.label.numpy()) for name, part in (("train", data.train), ("test", data.test))}
    result = json.loads(TARGET.read_text()) if TARGET.exists() else {"runs": []}
    runs = result["runs"]
    for seed in SEEDS[100]:
        model, objective = model_of(seed)
        folder = Path("runs") / f"transfer-{seed}"
        training = UNLABELLED.model_copy(update={"seed": seed})
        for count in (n for n in LABELS if seed in SEEDS[n]):
            if any(run["seed"] == seed and run["labels"] == count for run in runs):
                continue
            if time.monotonic() - began > 60 * minutes:
                raise SystemExit("the minutes are spent; call again to go on")
            nr.fit(model, objective, images["train"][0], None, training, folder, resume=folder.exists(), quiet=True)
            started = time.monotonic()
            run = {"labels": count, "seed": seed, **errors(count, model, images, seed)}
            runs.append({**run, "seconds": time.monotonic() - started})
            print({k: round(v, 2) for k, v in runs[-1].items()}, flush=True)
            TARGET.parent.mkdir(exist_ok=True)
            TARGET.write_text(json.dumps(result, indent=1) + "\n")
    table = {}
    for count in LABELS:
        some = [run for run in runs if run["labels"] == count]
        for arm in ("probe", "frozen", "tuned", "scratch"):
            values = [run[arm] for run in some]
            mean, spread = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None
            table[f"{arm}, {count} labels"] = {"mean": mean, "deviation": spread, "seeds": len(values)}
            print(f"{count:>6} labels, {arm}: {mean:.2f} % (deviation {spread})")
    epochs = {n: training.epochs for n, training in LABELS.items()}
    result |= {"table": table, "unlabelled_epochs": UNLABELLED.epochs, "epochs": epochs}
    result |= {"machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"}
    TARGET.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
