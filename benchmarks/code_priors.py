"""What is a prior over codewords worth that is fitted afterwards? Nats of the rate, and samples that look like images.

A VQ-VAE as it comes on Fashion-MNIST (7 x 7 codewords of 512), trained once for each seed. Then, on the same codes: all
codes equally likely, each place counted by itself, the gated PixelCNN, the causal transformer. For each the rate of a
test image in nats and its ratio to the uniform one, the test ELBO in bits/dim, the Fréchet distance of 10,000 samples
from the test images (the 64 features of `aggregated.py`), minutes to fit, samples a second.

    NARROWS_DATA=... python benchmarks/code_priors.py          # --resume goes on

Intervals are mean +- t * standard error over the seeds (95 %); ratios are taken within a seed.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from aggregated import classifier, interval
from torch import Tensor

import narrows as nr
from narrows import defaults
from narrows.evaluate import distortion_rate, frechet_distance, reconstruct

TARGET = Path(__file__).parent / "results" / "code_priors.json"
SAMPLES = 10_000
PRIORS = ("uniform", "Codewords", "PixelCNN", "Transformer")


@torch.no_grad()
def samples(model: nr.Autoencoder, seed: int) -> Tensor:
    """10,000 means E[x|z] for codes from the prior."""
    with nr.draws.seeded(seed, 99):
        z = model.draw(SAMPLES)
    return torch.cat([model.decode(part).mean for part in z.split(1000)]).clamp(0, 1)


def one(
    seed: int, data: nr.data.Data, settings: dict[str, int], judge: Callable[[Tensor], float]
) -> dict[str, dict[str, float]]:
    """Everything about one seed."""
    model, objective = nr.recipes.vqvae(**defaults.arguments(data, "vqvae", {}), seed=seed)
    train = data.train.take(torch.arange(min(settings["rows"], len(data.train))))
    began = time.monotonic()
    training = nr.Training(epochs=settings["epochs"], seed=seed)
    nr.fit(model, objective, train, data.valid, training=training, quiet=True)
    found = {"model": {"minutes": (time.monotonic() - began) / 60, "frechet": judge(reconstruct(model, data.test))}}
    for name in PRIORS:
        began = time.monotonic()
        if name == "uniform":
            model.prior.begin()
        else:
            kind = getattr(nr.priors, name)
            kind = kind if name == "Codewords" else partial(kind, steps=settings["steps"])
            nr.fit_prior(model, train, kind, seed=seed)
        minutes, began = (time.monotonic() - began) / 60, time.monotonic()
        made = samples(model, seed)
        seconds = time.monotonic() - began
        distortion, rate = (float(t.mean()) for t in distortion_rate(model, data.test))
        found[name] = {
            "rate": rate,
            "bits/dim": (distortion + rate) / math.log(2) / math.prod(data.shape),
            "frechet": judge(made),
            "minutes": minutes,
            "samples/s": len(made) / seconds,
        }
        found[name] |= {f"{key} over uniform": found[name][key] / found["uniform"][key] for key in ("rate", "frechet")}
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1_000)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    data = nr.data.load("fashion-mnist")
    settings = {name: getattr(arguments, name) for name in ("rows", "epochs", "steps")}
    runs: list[dict[str, dict[str, float]]] = []
    if arguments.resume and TARGET.exists():
        kept = json.loads(TARGET.read_text())
        if kept["settings"] != settings:
            raise SystemExit(f"{TARGET} was made with {kept['settings']}, now {settings}")
        runs = kept["runs"]
    whole, test = (nr.data.rows(part).batch(torch.arange(len(part))) for part in (data.train, data.test))
    features, accuracy = classifier(whole.x, whole.label, (test.x, test.label))  # type: ignore[arg-type]
    real = features(test.x)

    def judge(x: Tensor) -> float:
        return frechet_distance(features(x.clamp(0, 1)), real)

    for seed in range(len(runs), arguments.seeds):
        runs.append(one(seed, data, settings, judge))
        for name, row in runs[-1].items():
            print(seed, name, {key: round(value, 4) for key, value in row.items()}, flush=True)
        result: dict[str, Any] = {
            "settings": settings,
            "machine": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads",
            "versions": {"torch": torch.__version__, "narrows": nr.__version__},
            "classifier accuracy": accuracy,
            "means and half intervals": {
                name: {key: interval([run[name][key] for run in runs]) for key in row} for name, row in runs[0].items()
            },
            "runs": runs,
        }
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
