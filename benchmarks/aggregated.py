"""Do codes follow the prior they are held to, at what cost in reconstruction, and what does that buy in samples?

A plain autoencoder, the adversarial one with each game, the Wasserstein and the sliced one, all with their default
weights: the same 784-512-8-512-784 perceptron, rows, steps and seeds on Fashion-MNIST. For each: squared error of a
test image; squared MMD (inverse multiquadric kernel, unbiased) between the codes of the 10,000 test images and 10,000
draws from N(0, I); minutes; and the Fréchet distance of 10,000 samples from the test images, in the 64 features of a
small classifier trained here. Then, on the plain autoencoder's codes, three priors: N(0, I), a normal and a mixture
fitted afterwards.

    NARROWS_DATA=... python benchmarks/aggregated.py           # a quarter of an hour on two cores; --resume goes on

Intervals are mean +- t * standard error over the seeds (95 %).
"""

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from scipy.special import stdtrit
from torch import Tensor, nn

import narrows as nr
from narrows import defaults, divergences
from narrows.evaluate import codes, frechet_distance, inputs, reconstruct
from narrows.likelihoods import Gaussian

TARGET = Path(__file__).parent / "results" / "aggregated.json"
LATENT = 8
GAMES = ("JensenShannon", "Wasserstein", "KL", "ReverseKL", "PearsonChiSquared", "SquaredHellinger")
MEMBERS: dict[str, tuple[str, dict[str, Any]]] = {
    "plain": ("autoencoder", {}),
    "WAE-MMD": ("wae_mmd", {}),
    "SWAE": ("swae", {}),
    **{f"AAE, {game}": ("aae", {"game": getattr(divergences, game)()}) for game in GAMES},
}


def classifier(x: Tensor, label: Tensor, test: tuple[Tensor, Tensor]) -> tuple[Callable[[Tensor], Tensor], float]:
    """64 features of a small classifier, and its accuracy on the test images."""
    torch.manual_seed(0)
    body = nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 64), nn.ReLU())
    head = nn.Linear(64, 10)
    optimiser = torch.optim.Adam([*body.parameters(), *head.parameters()], 2e-3)
    for _ in range(2):
        for rows in torch.randperm(len(x)).split(256):
            optimiser.zero_grad()
            nn.functional.cross_entropy(head(body(x[rows])), label[rows]).backward()
            optimiser.step()

    @torch.no_grad()
    def features(images: Tensor) -> Tensor:
        return torch.cat([body(part) for part in images.split(1000)])

    with torch.no_grad():
        return features, float((head(features(test[0])).argmax(1) == test[1]).float().mean())


@torch.no_grad()
def samples(model: nr.Autoencoder, prior: Any, seed: int) -> Tensor:
    """10,000 means E[x|z] for z from the prior."""
    with nr.draws.seeded(seed, 99):
        z = prior().sample((10_000,))
    return torch.cat([model.decode(part).mean for part in z.split(1000)]).clamp(0, 1)


def one(name: str, seed: int, data: nr.data.Data, rows: int, epochs: int, judge: Callable) -> dict[str, float]:
    """Everything about one member and one seed."""
    recipe, own = MEMBERS[name]
    model, objective = getattr(nr.recipes, recipe)(
        **defaults.arguments(data, recipe, {"latent": LATENT, "likelihood": Gaussian, **own}), seed=seed
    )
    train = data.train.take(torch.arange(min(rows, len(data.train))))
    began = time.monotonic()
    nr.fit(model, objective, train, data.valid, training=nr.Training(epochs=epochs, seed=seed), quiet=True)
    found = {"minutes": (time.monotonic() - began) / 60}
    z, normal = codes(model, data.test, draw=True), nr.priors.StandardNormal(LATENT)
    with nr.draws.seeded(seed, 98):
        real = normal().sample((len(z),))
    found["error"] = float((inputs(model, data.test) - reconstruct(model, data.test)).square().flatten(1).sum(1).mean())
    found["mmd"] = distance(z, real)
    found["least standard deviation"], found["largest"] = float(z.std(0).min()), float(z.std(0).max())
    found["frechet"] = judge(samples(model, normal, seed))
    found["frechet of reconstructions"] = judge(reconstruct(model, data.test).clamp(0, 1))
    if name == "plain":
        for prior in (nr.priors.MultivariateGaussian(LATENT), nr.priors.GaussianMixture(LATENT, components=10)):
            fitted = nr.fit_prior(model, train, prior, seed=seed)
            found[f"frechet, {type(prior).__name__}"] = judge(samples(model, fitted, seed))
    return found


@torch.no_grad()
def distance(z: Tensor, real: Tensor) -> float:
    """Squared MMD of all pairs, unbiased, C = 2 D: `divergences.mmd` a few rows at a time."""

    def total(a: Tensor, b: Tensor) -> float:
        width = 2 * z.shape[1]
        return sum(float((width / (width + torch.cdist(part, b).square())).sum()) for part in a.split(500))

    def within(a: Tensor) -> float:
        return (total(a, a) - len(a)) / (len(a) * (len(a) - 1))

    z, real = z.double(), real.double()
    return within(z) + within(real) - 2 * total(z, real) / (len(z) * len(real))


def interval(values: list[float]) -> tuple[float, float | None]:
    """Mean and half the 95 % interval, none for a single seed."""
    n = len(values)
    return statistics.mean(values), stdtrit(n - 1, 0.975) * statistics.stdev(values) / math.sqrt(n) if n > 1 else None


def summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Intervals, and the ratios that are asked about, each taken within a seed."""
    table = {name: {key: interval([r[key] for r in some]) for key in some[0]} for name, some in runs.items() if some}
    ratios: dict[str, Any] = {}
    for name, some in runs.items():
        pairs = list(zip(some, runs["plain"], strict=False))
        if name != "plain" and pairs:
            ratios[name] = {key: interval([a[key] / b[key] for a, b in pairs]) for key in ("error", "mmd", "frechet")}
    for prior in ("MultivariateGaussian", "GaussianMixture"):
        gains = [r["frechet"] / r[f"frechet, {prior}"] for r in runs["plain"]]
        ratios[f"N(0, I) over {prior}"] = interval(gains) if gains else None
    return {"means and half intervals": table, "over plain": ratios}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--minutes", type=float, default=1e9, help="begin no run later than this; --resume goes on")
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    began = time.monotonic()
    data = nr.data.load("fashion-mnist")
    settings = {"rows": min(arguments.rows, len(data.train)), "epochs": arguments.epochs, "latent": LATENT}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in MEMBERS}
    if arguments.resume and TARGET.exists():
        kept = json.loads(TARGET.read_text())
        if kept["settings"] != settings:
            raise SystemExit(f"{TARGET} was made with {kept['settings']}, now {settings}")
        runs |= kept["runs"]

    whole, test = (nr.data.rows(part).batch(torch.arange(len(part))) for part in (data.train, data.test))
    features, accuracy = classifier(whole.x, whole.label, (test.x, test.label))  # type: ignore[arg-type]
    real = features(test.x)
    print(f"the classifier is right for {accuracy:.1%} of the test images", flush=True)

    def judge(x: Tensor) -> float:
        return frechet_distance(features(x), real)

    floor = judge(whole.x[:10_000])
    for seed in range(arguments.seeds):
        for name in MEMBERS:
            if len(runs[name]) > seed or time.monotonic() - began > 60 * arguments.minutes:
                continue
            runs[name].append(one(name, seed, data, arguments.rows, arguments.epochs, judge))
            print(seed, name, {key: round(value, 4) for key, value in runs[name][-1].items()}, flush=True)
            result = {
                "settings": settings,
                "machine": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads",
                "versions": {"torch": torch.__version__, "narrows": nr.__version__},
                "classifier accuracy": accuracy,
                "frechet of training images": floor,
                **summary(runs),
                "runs": runs,
            }
            TARGET.parent.mkdir(exist_ok=True)
            TARGET.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
