"""Does pretraining help a classifier? Stacked denoising, stacked plain and no pretraining on rotated MNIST.

The same perceptron with the same labels: its weights are random, or come from `stacked` without labels, plain or with
masking noise of 0.25 in every layer. Every arm is tuned on the same grid of two learning rates by its validation error
with the first seed; three seeds follow. Digits are rotated uniformly in 0..2 pi, 10,000 to train, 2,000 to validate,
50,000 to test, from the 70,000 of MNIST. The same tenth of the training rows picks the step in every arm.

Vincent et al. 2010 (JMLR 11:3371, table 3) print 9.53 % for stacked denoising (SDAE-3) and 10.30 % for stacked plain
(SAE-3) on their own rotations of MNIST, with nets and searches far larger than these: three layers of 256 units here,
five passes over the rows for each layer and twelve over the labels.

    NARROWS_DATA=... python benchmarks/pretraining.py        # --minutes 5 stops earlier and goes on when called again
"""

import argparse
import functools
import json
import math
import os
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import narrows as nr

HIDDEN, LATENT = (256, 256), 256
RATES = (1e-3, 3e-4)
NOISE = 0.25
SEEDS = (0, 1, 2)
LAYER = nr.Training(epochs=5, batch=100)  # of each layer, on all 10,000 rows
TUNE = nr.Training(epochs=12, batch=100, patience=1000)
TARGET = Path(__file__).parent / "results" / "pretraining.json"


def rotated() -> dict[str, tuple[Tensor, np.ndarray]]:
    """The three parts, (n, 784) in 0..1 and labels (n,)."""
    digits = nr.data.load("mnist")
    x = torch.cat([part.x for part in (digits.train, digits.valid, digits.test)])  # (70000, 1, 28, 28)
    y = torch.cat([part.label for part in (digits.train, digits.valid, digits.test)]).numpy()  # type: ignore[misc]
    chance = torch.Generator().manual_seed(2010)
    order = torch.randperm(len(x), generator=chance)[:62_000]
    angle = 2 * math.pi * torch.rand(len(order), generator=chance)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    turned = []
    for rows, by in zip(order.split(2_000), turn.split(2_000), strict=True):
        grid = torch.nn.functional.affine_grid(
            torch.cat([by, torch.zeros(len(by), 2, 1)], 2), [len(by), 1, 28, 28], align_corners=False
        )
        turned.append(torch.nn.functional.grid_sample(x[rows], grid, align_corners=False).flatten(1).clamp(0, 1))
    whole, label = torch.cat(turned), y[order.numpy()]
    ends = {"train": slice(10_000), "valid": slice(10_000, 12_000), "test": slice(12_000, None)}
    return {name: (whole[part], label[part]) for name, part in ends.items()}


@functools.cache
def encoder(noise: float | None, seed: int, x: Tensor) -> nr.Autoencoder:
    """The net of an arm before it sees a label: noise None is no pretraining, 0 the plain one."""
    corruption = nr.corruptions.Masking(noise) if noise else None
    likelihood = nr.likelihoods.Gaussian
    model, _ = nr.recipes.stacked(
        (784,), latent=LATENT, likelihood=likelihood, hidden=HIDDEN, corruption=corruption, seed=seed
    )
    if noise is not None:

        def train(part, objective, rows, **_):
            return nr.fit(part, objective, rows, training=LAYER.model_copy(update={"seed": seed}), quiet=True)

        model.start(model, nr.data.rows(x), train)
    return model


def arm(setting: dict, parts: dict) -> dict:
    """Errors of one setting in per cent, on validation and test."""
    began = time.monotonic()
    x, y = parts["train"]
    model = encoder(setting["noise"], setting["seed"], x)
    between = time.monotonic()
    training = TUNE.model_copy(update={"lr": setting["lr"]})
    tuned = nr.finetune(model, x, y, training=training, seed=setting["seed"])
    error = {name: 100 * (1 - tuned.score(*parts[name])) for name in ("valid", "test")}
    return {
        **setting,
        **error,
        "steps": tuned.n_iter_,
        "pretraining_seconds": between - began,
        "tuning_seconds": time.monotonic() - between,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--minutes", type=float, default=60.0)
    minutes = parser.parse_args().minutes
    began = time.monotonic()
    os.environ.setdefault("NARROWS_DATA", str(Path.home() / "data"))
    parts = rotated()
    result = json.loads(TARGET.read_text()) if TARGET.exists() else {"runs": []}
    runs = result["runs"]

    def measured(setting: dict) -> dict:
        found = next((run for run in runs if all(run[k] == v for k, v in setting.items())), None)
        if found is None:
            if time.monotonic() - began > 60 * minutes:
                raise SystemExit("the minutes are spent; call again to go on")
            found = arm(setting, parts)
            runs.append(found)
            TARGET.parent.mkdir(exist_ok=True)
            TARGET.write_text(json.dumps(result, indent=1) + "\n")
            print({k: round(v, 4) if isinstance(v, float) else v for k, v in found.items()}, flush=True)
        return found

    arms = {"stacked denoising": NOISE, "stacked plain": 0.0, "no pretraining": None}
    table = {}
    for name, noise in arms.items():
        tried = [measured({"noise": noise, "lr": lr, "seed": SEEDS[0]}) for lr in RATES]
        best = min(tried, key=lambda run: run["valid"])
        every = [measured({"noise": noise, "lr": best["lr"], "seed": seed})["test"] for seed in SEEDS]
        half = 4.303 * statistics.stdev(every) / math.sqrt(len(every))  # Student's t, 2 degrees of freedom, 95 %
        table[name] = {"noise": noise, "lr": best["lr"], "test": every, "mean": statistics.mean(every)}
        share = statistics.mean(every) / 100
        binomial = 196 * math.sqrt(share * (1 - share) / 50_000)  # of the test rows as a sample
        table[name] |= {"interval": half, "binomial": binomial}
        print(f"{name}: {table[name]['mean']:.2f} % ± {half:.2f}")
    result |= {"table": table, "net": [784, *HIDDEN, LATENT, 10], "seeds": list(SEEDS), "layer_epochs": LAYER.epochs}
    result |= {"tuning_epochs": TUNE.epochs, "published": {"stacked denoising": 9.53, "stacked plain": 10.30}}
    result |= {"machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"}
    TARGET.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
