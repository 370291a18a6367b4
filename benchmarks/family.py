"""Does every member of the family train as it is, and does a bent code beat a straight one?

Four questions, two tables (`results/family.json`, printed as Markdown):

1. Digits, latent 8, no other setting: seconds (at most 60), and the held-out squared error beside PCA's with as many
   components on the same rows, `--seeds` of them.
2. Fashion-MNIST, latent 8: an epoch without an alarm; and the same comparison after `--minutes` of training each.
3. A noisy circle arc and a noisy S: a code of one unit against the first principal component, three seeds.
4. `brief`, for members with a density, codewords or rungs too: digits, latent 8, `--seconds` of the processor for each
   seed (what an epoch takes is measured first), one thread. Held-out squared error, and the ELBO where there is one, of
   the values 0 to 16 under the likelihood that comes by itself.

    NARROWS_DATA=... python benchmarks/family.py [--minutes 1] [--seeds 3] [--places digits] [RECIPE ...]
"""

import argparse
import json
import math
import os
import statistics
import time
from functools import partial
from pathlib import Path

import torch

import narrows as nr
from narrows import defaults
from narrows.baselines import fit_pca

RESULTS = Path(__file__).parent / "results" / "family.json"
LATENT = 8
OWN = ("sparse", "diffusion")  # whose codes are meant to be wider than the rows, or as wide


def errors(model: nr.Autoencoder, rows: object) -> torch.Tensor:
    """Squared error of each row, (n,)."""
    x = nr.evaluate.inputs(model, rows)
    return (nr.evaluate.reconstruct(model, rows) - x).square().flatten(1).sum(1)


def straight(data: object, latent: int) -> torch.Tensor:
    """Squared error of each test row under PCA, (n,)."""
    train, test = data.train.x.flatten(1), data.test.x.flatten(1)
    return (fit_pca(train, latent).reconstruct(test) - test).square().sum(1)


def member(recipe: str, data: object, training: nr.Training, seed: int, **given: object) -> tuple[nr.Run, float]:
    """A run with what a newcomer gets, and its seconds."""
    latent = {} if recipe in OWN else {"latent": LATENT}
    arguments = defaults.arguments(data, recipe, {**latent, **given})
    began = time.perf_counter()
    model, objective = getattr(nr.recipes, recipe)(**arguments, seed=seed)
    run = nr.fit(model, objective, data, training=training.model_copy(update={"seed": seed}), quiet=True)
    return run, time.perf_counter() - began


def spread(values: list[float]) -> list[float]:
    """Mean, and half the width of its 95 % interval by Student's t."""
    t = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}.get(len(values), 1.96)
    half = t * statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return [statistics.mean(values), half]


def on_digits(recipe: str, seeds: int) -> dict[str, object]:
    data = nr.data.load("digits")
    runs = [member(recipe, data, nr.Training(), seed) for seed in range(seeds)]
    found = {
        "seconds": max(seconds for _, seconds in runs),
        "squared error": spread([float(errors(run.model, data.test).mean()) for run, _ in runs]),
        "alarms": sorted({alarm for run, _ in runs for alarm in run.alarms}),
    }
    return found | {"PCA": float(straight(data, LATENT).mean())}


def on_fashion(recipe: str, minutes: float) -> dict[str, object]:
    data = nr.data.load("fashion-mnist")
    once, seconds = member(recipe, data, nr.Training(epochs=1), 0)
    longer, _ = member(recipe, data, nr.Training(minutes=minutes), 0)
    ours, theirs = errors(longer.model, data.test), straight(data, LATENT)
    gain = (theirs - ours).double()
    return {
        "seconds an epoch": seconds,
        "alarms": once.alarms,
        "minutes": minutes,
        "squared error": float(ours.mean()),
        "PCA": float(theirs.mean()),
        "better by": [float(gain.mean()), 1.96 * float(gain.std()) / math.sqrt(len(gain))],
    }


def in_brief(recipe: str, seeds: int, budget: float) -> dict[str, object]:
    data = nr.data.load("digits", **({"context": "label"} if recipe == "conditional" else {}))
    member(recipe, data, nr.Training(epochs=1), 0)  # what is imported only now is not part of the pace
    began = time.process_time()
    member(recipe, data, nr.Training(epochs=3), 0)
    epochs = max(1, min(1000, round(3 * budget / (time.process_time() - began))))
    found, bounds, began = [], [], time.process_time()
    for seed in range(seeds):
        run, _ = member(recipe, data, nr.Training(epochs=epochs), seed)
        found.append(float(errors(run.model, data.test).mean()))
        if run.model.density:
            bounds.append(-float(sum(nr.evaluate.distortion_rate(run.model, data.test)).double().mean()))
    return {
        "epochs": epochs,
        "processor seconds a seed": (time.process_time() - began) / seeds,
        "squared error": spread(found),
        "ELBO": spread(bounds) if bounds else None,
        "alarms": run.alarms,
    }


def curves() -> dict[str, object]:
    """Held-out error of a code of one unit over that of PCA-1, on two curves in the plane with noise 0.02."""

    def arc(u: torch.Tensor) -> torch.Tensor:
        return torch.stack([(1.5 * math.pi * u).cos(), (1.5 * math.pi * u).sin()], 1)

    def letter(u: torch.Tensor) -> torch.Tensor:
        t = 3 * math.pi * (u - 0.5)
        return torch.stack([t.sin(), t.sign() * (t.cos() - 1)], 1)

    found = {}
    for name, curve in (("circle arc", arc), ("S", letter)):
        ratios = []
        for seed in range(3):
            torch.manual_seed(seed)
            train, valid, test = (curve(torch.rand(n)) + 0.02 * torch.randn(n, 2) for n in (4000, 1000, 2000))
            network = partial(nr.networks.Mlp, hidden=(64, 64))
            model, objective = nr.recipes.autoencoder((2,), latent=1, network=network, seed=seed)
            nr.fit(model, objective, train, valid, training=nr.Training(epochs=150, seed=seed), quiet=True)
            pca = fit_pca(train, 1)
            bad = float((pca.reconstruct(test) - test).square().sum(1).mean())
            ratios.append(float(errors(model, test).mean()) / bad)
        found[name] = spread(ratios)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("recipes", nargs="*", default=list(nr.recipes.names()))
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--places", nargs="+", default=["curves", "digits", "fashion"])
    asked = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"digits": {}, "fashion": {}}
    if "curves" in asked.places:
        found["curves, error over that of PCA-1"] = curves()
        print(json.dumps(found["curves, error over that of PCA-1"]), flush=True)
    for recipe in asked.recipes:
        for place, question in (
            ("digits", partial(on_digits, seeds=asked.seeds)),
            ("fashion", partial(on_fashion, minutes=asked.minutes)),
            ("brief", partial(in_brief, seeds=asked.seeds, budget=asked.seconds)),
        ):
            if place not in asked.places:
                continue
            found.setdefault(place, {})[recipe] = question(recipe)
            print(recipe, place, json.dumps(found[place][recipe]), flush=True)
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    if asked.places == ["brief"]:
        print("\n| member | squared error | ELBO, nats | epochs | seconds |\n|---|---|---|---|---|")
        for recipe, row in sorted(found["brief"].items()):
            cells = ["" if v is None else f"{v[0]:.3f} ± {v[1]:.3f}" for v in (row["squared error"], row["ELBO"])]
            print(f"| {recipe} | {' | '.join(cells)} | {row['epochs']} | {row['processor seconds a seed']:.0f} |")
        return
    print("\n| recipe | digits: squared error (PCA-8), s | Fashion-MNIST: squared error (PCA-8), better by | alarms |")
    print("|---|---|---|---|")
    for recipe in sorted(found["digits"].keys() & found["fashion"].keys()):
        few, many = found["digits"][recipe], found["fashion"][recipe]
        print(
            f"| {recipe} | {few['squared error'][0]:.3f} ± {few['squared error'][1]:.3f} ({few['PCA']:.3f}), "
            f"{few['seconds']:.0f} s | {many['squared error']:.2f} ({many['PCA']:.2f}), {many['better by'][0]:.2f} ± "
            f"{many['better by'][1]:.2f} | {len(few['alarms']) + len(many['alarms'])} |"
        )


if __name__ == "__main__":
    main()
