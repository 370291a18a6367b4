"""Per-row inference and three estimates of log p(x): what do they cost, and do they agree?

1. `refine` with 100 steps on 1,000 test images of Fashion-MNIST, on a VAE 784-512-(2 x 16)-512-784 after five passes:
   seconds (30 asked), the worst row on the 64 fixed draws, and on fresh ones in its standard errors.
2. Annealed importance sampling (500 temperatures, 16 chains) beside K = 10,000 importance weights on 50 test digits of
   a VAE with 8 units, and beside quadrature on 20 digits of one with 2 units: means, Monte Carlo errors, and how far
   apart they are in those errors, rows as they are.

    NARROWS_DATA=... python benchmarks/inference.py [refine] [estimates]       # adds to results/inference.json
"""

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

import narrows as nr
from narrows import defaults, draws, evaluate

TARGET = Path(__file__).parent / "results" / "inference.json"


def refine() -> dict[str, Any]:
    data = nr.data.load("fashion-mnist")
    given = defaults.arguments(data, "vae", {"latent": 16, "network": nr.networks.Mlp})
    model, objective = nr.recipes.vae(**given)
    nr.fit(model, objective, data, training=nr.Training(epochs=5), quiet=True)
    rows = data.test.take(torch.arange(1000))
    began = time.perf_counter()
    found = evaluate.refine(model, rows, steps=100)
    seconds = time.perf_counter() - began
    free = evaluate.without_encoder(model).eval()
    x, h = evaluate.inputs(model, rows), [model.hidden(evaluate.inputs(model, rows)), found.h]
    gains = []
    with torch.no_grad(), draws.seeded(1, 99):
        for _ in range(64):
            state = torch.get_rng_state()
            values = []
            for some in h:  # the same fresh noise for both
                torch.set_rng_state(state)
                code = free.encode(some, draw=True)
                values.append(nr.likelihoods.log_prob(free.decode(code.z), x) - code.rate)
            gains.append(values[1] - values[0])
    gain = torch.stack(gains).double()  # (64, n)
    error = gain.std(0) / math.sqrt(len(gain))
    return {
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "gain": evaluate.Mean.of(found.after - found.before),
        "worst row, fixed draws": float((found.after - found.before).min()),
        "worst row, fresh draws, standard errors": float((gain.mean(0) / error.clamp_min(1e-12)).min()),
    }


def estimates() -> dict[str, Any]:
    data, found = nr.data.load("digits"), {}
    for latent, count, other in ((8, 50, "importance, K = 10,000"), (2, 20, "quadrature")):
        given = defaults.arguments(data, "vae", {"latent": latent})
        model, objective = nr.recipes.vae(**given)
        nr.fit(model, objective, data, training=nr.Training(epochs=100), quiet=True)
        rows = data.test.take(torch.arange(count))
        began = time.perf_counter()
        annealed = evaluate.annealed_importance_sampling(model, rows)
        seconds = [time.perf_counter() - began]
        began = time.perf_counter()
        weighed = evaluate.log_likelihood(model, rows, samples=10_000)
        seconds.append(time.perf_counter() - began)
        row: dict[str, Any] = {
            "annealed": [annealed.mean, annealed.monte_carlo_error, seconds[0]],
            "importance, K = 10,000": [weighed.mean, weighed.monte_carlo_error, seconds[1]],
            "effective sample size": float(weighed.effective_sample_size.median()),
        }
        if other == "quadrature":
            began = time.perf_counter()
            exact = evaluate.quadrature(model, rows)
            row["quadrature"] = [exact.mean, float(exact.error.mean()), time.perf_counter() - began]
        error = math.hypot(annealed.monte_carlo_error, weighed.monte_carlo_error)
        row["annealed - importance, standard errors"] = (annealed.mean - weighed.mean) / error
        found[f"digits, {latent} units, {count} rows"] = row
        print(json.dumps(row), flush=True)
    return found


def main() -> None:
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    record = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    for name, question in (("refine", refine), ("estimates", estimates)):
        if len(sys.argv) == 1 or name in sys.argv[1:]:
            record[name] = question()
            print(name, json.dumps(record[name]), flush=True)
            TARGET.parent.mkdir(exist_ok=True)
            TARGET.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
