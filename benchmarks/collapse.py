"""What each cure of posterior collapse does: active units, rate, likelihood, reconstruction.

A VAE with a normal likelihood of sigma = 1 on grey images (Fashion-MNIST, 10,000 rows, 784-512-(2 x 16)-512-784) says
that pixels are as noisy as they could be, and most of its units collapse. One thing is changed at a time: beta warmed
up over half the steps, free bits of 0.1 nats a unit, beta = 0.1, a learned sigma, a residual decoder that reads the
code in every block, and an autoregressive decoder, mean_d = decoder_d(z) + sum over e < d of W_de x_e, which can do
without the code and is expected to make things worse. All steps, batches and seeds alike; L_1000 on the first 500 test
images in nats of the grey values; Student's 95 % intervals over the seeds.

    NARROWS_DATA=... python benchmarks/collapse.py             # writes results/collapse.json
"""

import argparse
import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from aggregated import interval
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

import narrows as nr
from narrows.likelihoods import Gaussian
from narrows.networks import Mlp, Residual
from narrows.schedules import WarmUp

TARGET = Path(__file__).parent / "results" / "collapse.json"
ROWS, EPOCHS, LATENT = 10_000, 30, 16


class _Chained(Distribution):
    """Pixels one after the other: each mean adds a linear function of those before it."""

    def __init__(self, mean: Tensor, weight: Tensor) -> None:
        super().__init__(mean.shape[:1], mean.shape[1:], validate_args=False)
        self.own, self.weight = mean, weight

    def log_prob(self, x: Tensor) -> Tensor:
        before = (x.flatten(1) @ self.weight.tril(-1).T).view_as(x)
        return Independent(Normal(self.own + before, 1.0, validate_args=False), x.dim() - 1).log_prob(x)

    @property
    def mean(self) -> Tensor:
        """E[x|z]: x = own + W x + noise, so the means solve (1 - W) m = own."""
        eye = torch.eye(len(self.weight), dtype=self.weight.dtype)
        own = self.own.flatten(1).T
        return torch.linalg.solve_triangular(eye - self.weight.tril(-1), own, upper=False).T.view_as(self.own)


class Autoregressive(Gaussian):
    """The normal of sigma = 1 with a linear chain through the pixels."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, sigma=1.0)
        values = torch.Size(shape).numel()
        self.weight = nn.Parameter(torch.zeros(values, values))

    def forward(self, parameters: Tensor, context: Tensor | None = None) -> Distribution:
        return _Chained(parameters.reshape(-1, *self.shape), self.weight)


def cures(steps: int) -> dict[str, dict[str, Any]]:
    fixed = partial(Gaussian, sigma=1.0)

    def network(inputs: tuple[int, ...], outputs: tuple[int, ...], context: int = 0) -> nn.Module:
        return Residual(inputs, outputs, context) if len(inputs) == 1 else Mlp(inputs, outputs, context)

    return {
        "none": {"likelihood": fixed},
        "warm-up": {"likelihood": fixed, "beta": WarmUp(steps // 2)},
        "free bits 0.1": {"likelihood": fixed, "free_bits": 0.1},
        "beta = 0.1": {"likelihood": fixed, "beta": 0.1},
        "learned sigma": {"likelihood": partial(Gaussian, sigma=1.0, learn="shared")},
        "residual decoder": {"likelihood": fixed, "network": network},
        "autoregressive decoder": {"likelihood": Autoregressive},
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    asked = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    data = nr.data.load("fashion-mnist")
    batch = nr.Training().batch
    train = data.train.take(torch.arange(ROWS)).x
    test = data.test.take(torch.arange(500)).x
    found: dict[str, dict[str, list[float]]] = {}
    for name, settings in cures(asked.epochs * -(-ROWS // batch)).items():
        runs = []
        for seed in range(asked.seeds):
            model, objective = nr.recipes.vae((1, 28, 28), latent=LATENT, **settings, seed=seed)
            nr.fit(model, objective, train, training=nr.Training(epochs=asked.epochs, seed=seed), quiet=True)
            units = nr.evaluate.active_units(model, test)
            runs.append(
                {
                    "active units": float(units.by_rate.sum()),
                    "rate": float(nr.evaluate.distortion_rate(model, test)[1].mean()),
                    "L_1000": nr.evaluate.log_likelihood(model, test, samples=1000).mean,
                    "squared error": float(
                        (nr.evaluate.reconstruct(model, test) - test).square().sum((1, 2, 3)).mean()
                    ),
                }
            )
            print(name, seed, json.dumps(runs[-1]), flush=True)
        found[name] = {key: interval([run[key] for run in runs]) for key in runs[0]}
        TARGET.parent.mkdir(exist_ok=True)
        record = {"versions": {"torch": torch.__version__, "narrows": nr.__version__}, "epochs": asked.epochs}
        TARGET.write_text(json.dumps(record | {"means and half intervals": found}, indent=1) + "\n")
    print("\n| cure | active units of 16 | rate | L_1000 | squared error |\n|---|---|---|---|---|")
    for name, row in found.items():
        print(f"| {name} | " + " | ".join(f"{m:.1f} ± {half:.1f}" for m, half in row.values()) + " |")


if __name__ == "__main__":
    main()
