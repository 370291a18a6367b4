"""Which sparse code gives most for its active units, do units die, and does a dictionary that is known come back?

equal      GloVe vectors (20,000 words x 100, one in five held out): TopK and BatchTopK with 16 of 400 units, normalised
           squared error on held-out words; BatchTopK both at its own running threshold and at that which gives the
           held-out words 16.0 units on average. L1 at three weights, and by interpolation its L0 at TopK's error.
dead       The same vectors under a large learning rate, TopK with 8 of 1,024 units: units that fire for none of the
           training words, with AuxK and without.
dictionary 256 directions in 64 dimensions, each present in a row with probability 5/256: the share of them that some
           unit of 512 matches with a cosine above 0.9.

Each with three seeds of weights, order and (dictionary) data. The normalised error divides by the mean's.

    NARROWS_DATA=... python benchmarks/sparse.py [equal dead dictionary]    # writes its parts of results/sparse.json
"""

import argparse
import json
import math
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import narrows as nr
from narrows.activations import BatchTopK, ReLU, TopK
from narrows.penalties import L1

SEEDS = (0, 1, 2)
TARGET = Path(__file__).parent / "results" / "sparse.json"


def glove() -> tuple[Tensor, Tensor]:
    """Training and held-out words, in one common unit."""
    file = Path(os.environ["NARROWS_DATA"]) / "glove" / "wink_glove100d_top20k.npz"
    x = torch.from_numpy(np.load(file)["vectors"]).float()
    x = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(0))]
    x = x / x[:16_000].std()
    return x[:16_000], x[16_000:]


def trained(x: Tensor, seed: int, steps: int, latent: int, lr: float = 1e-2, **settings: Any) -> nr.Autoencoder:
    model, objective = nr.recipes.sparse((x.shape[1],), latent=latent, seed=seed, **settings)
    epochs = math.ceil(steps / math.ceil(len(x) / 256))
    training = nr.Training(epochs=epochs, batch=256, lr=lr, decay="cosine", check=steps, seed=seed)
    return nr.fit(model, objective, x, training=training, quiet=True).model


def measured(model: nr.Autoencoder, held: Tensor, centre: Tensor) -> dict[str, float]:
    error = (nr.evaluate.reconstruct(model, held) - held).square().sum() / (held - centre).square().sum()
    return {"nmse": float(error), "L0": nr.evaluate.features(model, held, top=1).active.mean}


def equal(steps: int = 400, latent: int = 400, active: int = 16) -> dict[str, Any]:
    train, held = glove()
    centre, rows = train.mean(0), []
    for seed in SEEDS:
        found: dict[str, Any] = {"seed": seed}
        model = trained(train, seed, steps, latent, activation=TopK, active=active)
        found["TopK"] = measured(model, held, centre)
        model = trained(train, seed, steps, latent, activation=BatchTopK, active=active)
        found["BatchTopK, running threshold"] = measured(model, held, centre)
        with torch.no_grad():  # the value that the 16th unit of a held-out word has on average
            model.posterior.activation.threshold.copy_(model.hidden(held).flatten().topk(active * len(held)).values[-1])
        found["BatchTopK, equal L0"] = measured(model, held, centre)
        curve = []
        for weight in (0.5, 0.7, 1.0):
            penalty = L1(weight)
            model = trained(train, seed, steps, latent, activation=ReLU, penalty=penalty)
            found[f"L1, {weight}"] = measured(model, held, centre)
            curve.append(found[f"L1, {weight}"])
        errors, counts = [c["nmse"] for c in curve], [math.log(c["L0"]) for c in curve]
        inside = errors[0] < found["TopK"]["nmse"] < errors[-1]
        at = float(np.exp(np.interp(found["TopK"]["nmse"], errors, counts)))
        found["L1 at TopK's error"] = {"L0": at if inside else None}
        rows.append(found)
        print(json.dumps(found), flush=True)
    gains = [r["TopK"]["nmse"] - r["BatchTopK, equal L0"]["nmse"] for r in rows]
    return {
        "steps": steps,
        "units": latent,
        "active": active,
        "seeds": rows,
        "TopK nmse": interval([r["TopK"]["nmse"] for r in rows]),
        "BatchTopK nmse at equal L0": interval([r["BatchTopK, equal L0"]["nmse"] for r in rows]),
        "BatchTopK nmse at its threshold": interval([r["BatchTopK, running threshold"]["nmse"] for r in rows]),
        "BatchTopK L0 at its threshold": interval([r["BatchTopK, running threshold"]["L0"] for r in rows]),
        "TopK less BatchTopK": interval(gains),
        "L1 L0 at TopK's error": interval([r["L1 at TopK's error"]["L0"] or math.nan for r in rows]),
    }


def dead(steps: int = 400, latent: int = 1024, active: int = 8) -> dict[str, Any]:
    train, held = glove()
    shares: dict[str, list[float]] = {"auxk": [], "none": []}
    errors: dict[str, list[float]] = {name: [] for name in shares}
    for seed in SEEDS:
        for revive in shares:
            model = trained(train, seed, steps, latent, active=active, revive=revive)
            shares[revive].append(float(nr.evaluate.features(model, train, top=1).dead.float().mean()))
            errors[revive].append(measured(model, held, train.mean(0))["nmse"])
            print(seed, revive, f"{shares[revive][-1]:.3f} dead, nmse {errors[revive][-1]:.4f}", flush=True)
    return {
        "steps": steps,
        "units": latent,
        "active": active,
        "dead share": shares,
        "dead share, interval": {name: interval(values) for name, values in shares.items()},
        "nmse": {name: interval(values) for name, values in errors.items()},
    }


def dictionary(steps: int = 1000, true: int = 256, width: int = 64, present: int = 5) -> dict[str, Any]:
    shares: dict[str, list[float]] = {"TopK": [], "BatchTopK": []}
    for seed in SEEDS:
        generator = torch.Generator().manual_seed(seed)
        directions = torch.nn.functional.normalize(torch.randn(true, width, generator=generator), dim=1)
        there = torch.rand(50_000, true, generator=generator) < present / true
        x = (there * (0.5 + torch.rand(50_000, true, generator=generator))) @ directions
        for name, activation in (("TopK", TopK), ("BatchTopK", BatchTopK)):
            model = trained(x, seed, steps, 2 * true, lr=3e-3, activation=activation, active=present)
            cosines = directions @ model.decoder.directions.detach().T
            shares[name].append(float((cosines.amax(1) > 0.9).float().mean()))
            print(seed, name, f"{shares[name][-1]:.3f} recovered", flush=True)
    found = {name: interval(values) for name, values in shares.items()}
    return {"steps": steps, "true": true, "width": width, "seeds": shares, "recovered": found}


def interval(values: list[float]) -> dict[str, float]:
    """Mean of the seeds with Student's 95 % interval."""
    half = 4.303 * statistics.stdev(values) / math.sqrt(len(values))  # two degrees of freedom
    return {"mean": statistics.mean(values), "plus or minus": half}


def main() -> None:
    parts = {"equal": equal, "dead": dead, "dictionary": dictionary}
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", choices=[[], *parts], default=list(parts))
    torch.set_num_threads(1)  # matrices this small gain nothing from a second
    result = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    for name in parser.parse_args().parts:
        begun, busy = time.monotonic(), time.process_time()
        found = parts[name]()
        found |= {"minutes": (time.monotonic() - begun) / 60, "processor minutes": (time.process_time() - busy) / 60}
        found |= {"machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"}
        found |= {"versions": {"torch": torch.__version__, "narrows": nr.__version__}}
        result[name] = found
        TARGET.write_text(json.dumps(result, indent=1) + "\n")
        print(name, json.dumps({k: v for k, v in found.items() if k != "seeds"}, indent=1))


if __name__ == "__main__":
    main()
