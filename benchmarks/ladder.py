"""Does inference along the generative way keep upper rungs in use, and what is that worth in nats?

Hierarchies of 64-32-16-8-4 units from the bottom up on dynamically binarised MNIST, perceptrons of 512 to 32 hidden
units between them, leaky rectifiers. `hvae` is inferred from the bottom up, with beta = 1 from the first step and no
batch norm: the VAE of several rungs that ladders were proposed against; `hvae, norm` has batch norm throughout.
`ladder` has batch norm throughout and a warm-up over a quarter of the steps, as published, and no free bits, so that no
unit is active because being so is free; `ladder, free bits` has 0.25 nats a rung, as the recipe. 60,000 images, 15
passes in batches of 256, Adam at 1e-3, the last weights: 3.6 processor minutes of hvae and 4.9 of ladder. Of all 10,000
test images, binarised once: active units (mean KL > 0.01 nats, Sonderby et al.; and Burda's, variance of the mean >
0.01), rung by rung, ELBO, L_100.

    NARROWS_DATA=... python benchmarks/ladder.py [--rows hvae ladder] [--seeds 3] [--epochs 15]   # results/ladder.json

The published protocols, one at a time; each call goes on where the last one stopped:

    NARROWS_DATA=... python benchmarks/ladder.py --rows sonderby --device cuda --minutes 25      # 81.87 nats, 81 units
    NARROWS_DATA=... python benchmarks/ladder.py --rows burda --device cuda --minutes 25         # 82.90 nats

`sonderby`: the ladder for 2,000 passes, of which 200 warm up, L_5000. `burda`: 100 and 50 units, tanh, IWAE
of 50 draws, batches of 20, 3^i passes at 0.001 * 10^(-i/7) for i = 0 to 7, L_5000; Adam's epsilon is torch's 1e-8,
where the paper has 1e-4.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from aggregated import interval

import narrows as nr
from narrows.networks import Mlp
from narrows.posteriors import BottomUp
from narrows.priors import Rungs
from narrows.schedules import WarmUp
from narrows.store import read_tensors, unprefixed

TARGET = Path(__file__).parent / "results" / "ladder.json"
RUNGS, BATCH = (4, 8, 16, 32, 64), 256
SMALL, FULL = ("hvae", "ladder", "ladder, free bits", "hvae, norm"), ("sonderby", "burda")
Stage = tuple[int, float]  # passes, learning rate


def parts(row: str, seed: int, steps: int) -> tuple[nr.recipes.Parts, list[Stage], int, int]:
    """Model and objective of a row, its stages (one of `epochs` where there are none), rows a step, draws for L."""
    shape: Any = (1, 28, 28)
    if row == "burda":
        prior = partial(Rungs, rungs=(50, 100), width=100, activation="tanh")
        network = partial(Mlp, hidden=(200, 200), activation="tanh")
        common = {"latent": 150, "prior": prior, "posterior": BottomUp, "network": network}
        made = nr.recipes.iwae(shape, samples=50, seed=seed, **common)
        return made, [(3**i, 1e-3 * 10 ** (-i / 7)) for i in range(8)], 20, 5000
    full = row == "sonderby"
    norm = row != "hvae"
    network = partial(Mlp, hidden=(512, 512), activation="leaky", norm=norm)
    own = {"rungs": RUNGS, "prior": partial(Rungs, norm=norm), "network": network, "seed": seed}
    own["free_bits"] = 0.25 if "free bits" in row else 0.0
    if full:
        return nr.recipes.ladder(shape, beta=WarmUp(200 * 235), **own), [(2000, 1e-3)], BATCH, 5000
    beta = WarmUp(max(steps // 4, 1)) if row.startswith("ladder") else 1.0
    return getattr(nr.recipes, row.split(",")[0])(shape, beta=beta, **own), [], BATCH, 100


def train(
    made: nr.recipes.Parts,
    rows: nr.data.Rows,
    stages: list[Stage],
    settings: dict[str, Any],
    folder: Path,
    left: Callable[[], float],
) -> bool:
    """Goes through the stages, from where the folder stands; whether all are done."""
    model, objective = made
    for number, (epochs, lr) in enumerate(stages):
        place = folder / str(number)
        total = epochs * -(-len(rows) // settings["batch"])
        lines = (place / "metrics.jsonl").read_text().splitlines() if (place / "metrics.jsonl").exists() else []
        at = json.loads(lines[-1]) if lines else {"step": 0, "seconds": 0.0}
        if at["step"] < total and left() <= 0:
            return False
        minutes = at["seconds"] / 60 + max(left(), 1e-6)
        training = nr.Training(epochs=epochs, lr=lr, minutes=minutes, **settings)
        resume = (place / "config.json").exists()
        if at["step"] >= total:
            tensors, _ = read_tensors(place / "weights.safetensors")
            model.load_state_dict(unprefixed("model", tensors))
            continue
        run = nr.fit(model, objective, rows, training=training, folder=place, resume=resume, quiet=True)
        if run.metrics[-1]["step"] < total:
            return False
    return True


def judge(model: nr.Ladder, test: nr.data.Rows, samples: int) -> dict[str, Any]:
    """What the test images say."""
    units = nr.evaluate.active_units(model, test)
    distortion, rate = nr.evaluate.distortion_rate(model, test)
    found = nr.evaluate.log_likelihood(model, test, samples)
    return {
        "active by rate": int(units.by_rate.sum()),  # type: ignore[union-attr]
        "active by variance": int(units.by_variance.sum()),
        "active by rate, from the top": [int(rung.by_rate.sum()) for rung in units.each()],  # type: ignore[union-attr]
        "rates, from the top": [round(float(r), 3) for r in nr.evaluate.rate_by_rung(model, test).mean(0)],
        "elbo": -float((distortion + rate).double().mean()),
        f"L_{samples}": found.mean,
        "standard error": found.standard_error,
        "Monte Carlo error": found.monte_carlo_error,
    }


def table(runs: dict[str, dict[str, dict[str, Any]]]) -> None:
    """Means over the seeds with Student's 95 % intervals, and what is asked: the ladder against `hvae`."""
    for row, seeds in runs.items():
        some = list(seeds.values())
        keys = ("active by rate", "active by variance", "elbo", next(k for k in some[0] if k.startswith("L_")))
        print(
            f"{row}, {len(some)} seeds: " + "; ".join(f"{key} {said([found[key] for found in some])}" for key in keys)
        )
    both = [(runs["hvae"][s], runs["ladder"][s]) for s in runs.get("hvae", {}) if s in runs.get("ladder", {})]
    if both:
        print(f"ladder over hvae, {len(both)} seeds: L_100 + {said([b['L_100'] - a['L_100'] for a, b in both])}")
        for key in ("active by rate", "active by variance"):
            print(f"{key}: {said([b[key] / a[key] for a, b in both])} times as many")


def said(values: list[float]) -> str:
    """A mean, and half of its interval where there is one."""
    mean, half = interval(values)
    return f"{mean:.2f}" + ("" if half is None else f" ± {half:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", nargs="+", default=SMALL, choices=(*SMALL, *FULL))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=15, help="of the small rows")
    parser.add_argument("--images", type=int, default=60_000, help="to train on, for a trial")
    parser.add_argument("--judged", type=int, default=10_000, help="test images, for a trial")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--minutes", type=float, default=1e6, help="of training in this call; the next one goes on")
    parser.add_argument("--folder", type=Path, default=Path("runs/ladder"), help="where runs stand")
    parser.add_argument("--target", type=Path, default=TARGET)
    asked = parser.parse_args()
    began, threads = time.monotonic(), torch.get_num_threads()
    data = nr.data.load("mnist", valid=0.0, binarise="dynamic")
    rows, test = (part.take(torch.arange(n)) for part, n in ((data.train, asked.images), (data.test, asked.judged)))
    record = json.loads(asked.target.read_text()) if asked.target.exists() else {"runs": {}}
    record |= {"epochs": asked.epochs, "versions": {"torch": torch.__version__, "narrows": nr.__version__}}
    for seed in range(asked.seeds):
        for row in asked.rows:
            if str(seed) in record["runs"].get(row, {}):
                continue
            made, stages, batch, samples = parts(row, seed, asked.epochs * -(-len(rows) // BATCH))
            settings = {"batch": batch, "seed": seed, "device": asked.device, "compile": asked.compile}
            place, before = asked.folder / f"{row.replace(', ', '-')}-{seed}", time.process_time()
            stages = stages or [(asked.epochs, 1e-3)]
            if not train(made, rows, stages, settings, place, lambda: asked.minutes - (time.monotonic() - began) / 60):
                print(f"{row}, seed {seed}: not done yet, call again; it stands in {place}", flush=True)
                return
            lines = [(place / str(i) / "metrics.jsonl").read_text().splitlines()[-1] for i in range(len(stages))]
            spent = {"minutes": sum(json.loads(line)["seconds"] for line in lines) / 60, "threads": threads}
            spent |= {"processor minutes of this call": (time.process_time() - before) / 60, "device": asked.device}
            found = judge(made[0], test, samples) | spent  # type: ignore[arg-type]
            record["runs"].setdefault(row, {})[str(seed)] = found
            asked.target.parent.mkdir(exist_ok=True)
            asked.target.write_text(json.dumps(record, indent=1) + "\n")
            print(row, seed, json.dumps(found), f"{os.cpu_count()} cores", flush=True)
    table(record["runs"])


if __name__ == "__main__":
    main()
