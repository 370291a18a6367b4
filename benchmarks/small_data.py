"""What do dropout and denoising do where rows are few? Autoencoders of 1,000 Fashion-MNIST images.

Plain, dropout and denoising members with the same layers and steps: the mean squared error of a reconstruction on the
1,000 training rows and on the 10,000 test rows, and on test rows with Gaussian noise in the input, measured against
the clean ones. Three seeds.

    NARROWS_DATA=... python benchmarks/small_data.py        # --minutes 5 stops earlier and goes on when called again
"""

import argparse
import json
import platform
import statistics
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import narrows as nr

ARMS = {
    "plain": nr.recipes.autoencoder,
    "dropout 0.2": partial(nr.recipes.dropout, share=0.2),
    "denoising, masking 0.25": partial(nr.recipes.denoising, corruption=nr.corruptions.Masking(0.25)),
    "denoising, Gaussian 0.3": partial(nr.recipes.denoising, corruption=nr.corruptions.GaussianNoise(0.3)),
}
TRAINING = nr.Training(epochs=80)  # 640 steps of 128 rows
NOISE = (0.0, 0.1, 0.2, 0.3, 0.5)
SEEDS = (0, 1, 2)
TARGET = Path(__file__).parent / "results" / "small_data.json"


def error(model: nr.Autoencoder, x: Tensor, clean: Tensor) -> float:
    """Mean squared error of a pixel."""
    return float((nr.evaluate.reconstruct(model, x) - clean).square().mean())


def measure(arm: str, seed: int, data: nr.data.Data) -> dict:
    """One member trained and judged."""
    chance = torch.Generator().manual_seed(seed)
    few = data.train.x[torch.randperm(len(data.train), generator=chance)[:1_000]]
    test = data.test.x
    noise = torch.randn(test.shape, generator=chance)
    model, objective = ARMS[arm](
        data.shape,
        latent=32,
        likelihood=nr.likelihoods.Gaussian,
        network=partial(nr.networks.Mlp, hidden=(256,)),
        seed=seed,
    )
    nr.fit(model, objective, few, training=TRAINING.model_copy(update={"seed": seed}), quiet=True)
    found = {"arm": arm, "seed": seed, "train": error(model, few, few)}
    return found | {f"test, noise {sigma}": error(model, test + sigma * noise, test) for sigma in NOISE}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--minutes", type=float, default=60.0)
    minutes, began = parser.parse_args().minutes, time.monotonic()
    data = nr.data.load("fashion-mnist", valid=0.0)
    result = json.loads(TARGET.read_text()) if TARGET.exists() else {"runs": []}
    runs = result["runs"]
    for seed in SEEDS:
        for arm in ARMS:
            if any(run["arm"] == arm and run["seed"] == seed for run in runs):
                continue
            if time.monotonic() - began > 60 * minutes:
                raise SystemExit("the minutes are spent; call again to go on")
            runs.append(measure(arm, seed, data))
            print(runs[-1], flush=True)
            TARGET.parent.mkdir(exist_ok=True)
            TARGET.write_text(json.dumps(result, indent=1) + "\n")
    columns = ["train", *(f"test, noise {sigma}" for sigma in NOISE)]
    table = {
        arm: {c: statistics.mean(run[c] for run in runs if run["arm"] == arm) for c in columns}
        | {f"{c}, deviation": statistics.stdev(run[c] for run in runs if run["arm"] == arm) for c in columns}
        for arm in ARMS
    }
    for arm, row in table.items():
        print(f"{arm}: " + ", ".join(f"{c} {row[c]:.5f}" for c in columns))
    result |= {"table": table, "epochs": TRAINING.epochs}
    result |= {"machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"}
    TARGET.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
