"""Is the ELBO of a diffusion what `nr.evaluate` says, and what do latent priors buy in samples?

(a) On digits, for each seed a diffusion is trained; the ELBO of the test rows by `nr.evaluate` beside a direct sum over
all its steps that is written out here, with the standard errors of both. (b) On Fashion-MNIST, for each seed a VAE is
trained; its codes then get three priors: N(0, I), as trained, a flow and a diffusion, the latter fitted by
`nr.fit_prior`. For each the Fréchet distance of 10,000 samples from the test images, as aggregated.py measures it.

    NARROWS_DATA=... python benchmarks/diffusion.py            # half an hour on two cores; --resume goes on

Intervals are mean +- t * standard error over the seeds (95 %).
"""

import argparse
import json
import math
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from aggregated import classifier, interval, samples
from torch import Tensor

import narrows as nr
from narrows import defaults
from narrows.evaluate import frechet_distance, inputs
from narrows.likelihoods import Gaussian

TARGET = Path(__file__).parent / "results" / "diffusion.json"
LATENT = 16


@torch.no_grad()
def direct(model: Any, x: Tensor, seed: int) -> Tensor:
    """One draw of the ELBO of each row (n,), every step in turn: Kingma et al. 2021, section 4.1, with SNR."""
    noise, v = model.posterior.noise, model.encoder(x)
    gammas = torch.linspace(noise.first, noise.last, noise.steps + 1)
    alphas, sigmas = torch.sigmoid(-gammas).sqrt(), torch.sigmoid(gammas).sqrt()
    waves = torch.arange(1.0, nr.noise.FEATURES + 1)
    with nr.draws.seeded(seed, 97):
        a2, s2 = alphas[-1] ** 2, sigmas[-1] ** 2
        total = -0.5 * (a2 * v.square() + s2 - 1 - s2.log()).sum(1)
        for i in range(1, noise.steps + 1):
            z = alphas[i] * v + sigmas[i] * torch.randn_like(v)
            told = (math.pi * i / noise.steps * waves).cos().expand(len(v), -1)
            row = alphas[i] * z - sigmas[i] * model.decoder(z.view_as(x), told).flatten(1)
            gain = (-gammas[i - 1]).double().exp() - (-gammas[i]).double().exp()
            total = total - gain.float() / 2 * (v - row).square().sum(1)
        first = v + sigmas[0] / alphas[0] * torch.randn_like(v)
        sigma = model.encoder.width * sigmas[0] / alphas[0]
        px = model.likelihood(model.likelihood.seen_through(model.encoder.back(first), sigma))
    return total + px.log_prob(x)


def bound(seed: int, epochs: int) -> dict[str, float]:
    """The ELBO of a diffusion of digits, by `nr.evaluate` and by the direct sum."""
    data = nr.data.load("digits")
    model, objective = nr.recipes.diffusion(**defaults.arguments(data, "diffusion", {}), seed=seed)
    began = time.monotonic()
    training = nr.Training(epochs=epochs, lr=2e-3, decay="cosine", seed=seed)
    nr.fit(model, objective, data, training=training, quiet=True)
    found: dict[str, float] = {"minutes": (time.monotonic() - began) / 60}
    figures = nr.evaluate.evaluate(model, data)["parts"]["test"]
    found["evaluate"], found["evaluate, standard error"] = figures["elbo"]
    found["bits/dim"] = figures["bits_per_dimension"]["model"][0]
    x = inputs(model, data.test)[: figures["bound_rows"]]
    values = direct(model, x, seed).double()
    found["direct"], found["direct, standard error"] = (
        float(values.mean()),
        float(values.std()) / math.sqrt(len(values)),
    )
    found["difference over the standard error"] = (found["evaluate"] - found["direct"]) / found[
        "evaluate, standard error"
    ]
    return found


def latent(seed: int, data: nr.data.Data, rows: int, epochs: int, judge: Any) -> dict[str, float]:
    """Fréchet distances of a VAE's samples under its own prior and under two that are fitted to its codes."""
    own = {"latent": LATENT, "likelihood": partial(Gaussian, learn="shared")}
    model, objective = nr.recipes.vae(**defaults.arguments(data, "vae", own), seed=seed)
    train = data.train.take(torch.arange(min(rows, len(data.train))))
    nr.fit(model, objective, train, data.valid, training=nr.Training(epochs=epochs, seed=seed), quiet=True)
    found = {"normal": judge(samples(model, model.prior, seed))}
    for name, prior in (("flow", nr.priors.Flow(LATENT)), ("diffusion", nr.priors.Diffusion(LATENT))):
        began = time.monotonic()
        fitted = nr.fit_prior(model, train, prior, seed=seed)
        found[f"{name}, seconds of fitting"] = time.monotonic() - began
        found[name] = judge(samples(model, fitted, seed))
        found[f"{name} over normal"] = found[name] / found["normal"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--digits", type=int, default=100, help="epochs of the diffusions of digits")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--epochs", type=int, default=10, help="of the VAEs")
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    settings = {name: value for name, value in vars(arguments).items() if name not in ("seeds", "resume")}
    runs: dict[str, list[dict[str, float]]] = {"bound": [], "latent": []}
    if arguments.resume and TARGET.exists():
        kept = json.loads(TARGET.read_text())
        if kept["settings"] != settings:
            raise SystemExit(f"{TARGET} was made with {kept['settings']}, now {settings}")
        runs |= kept["runs"]
    data = nr.data.load("fashion-mnist")
    whole, test = (nr.data.rows(part).batch(torch.arange(len(part))) for part in (data.train, data.test))
    features, accuracy = classifier(whole.x, whole.label, (test.x, test.label))  # type: ignore[arg-type]
    real = features(test.x)

    def judge(x: Tensor) -> float:
        return frechet_distance(features(x), real)

    for seed in range(arguments.seeds):
        for name in runs:
            if len(runs[name]) > seed:
                continue
            one = bound(seed, arguments.digits) if name == "bound" else None
            runs[name].append(one or latent(seed, data, arguments.rows, arguments.epochs, judge))
            print(seed, name, {key: round(value, 4) for key, value in runs[name][-1].items()}, flush=True)
            result = {
                "settings": settings,
                "machine": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads",
                "versions": {"torch": torch.__version__, "narrows": nr.__version__},
                "classifier accuracy": accuracy,
                "means and half intervals": {
                    n: {key: interval([r[key] for r in some]) for key in some[0]} for n, some in runs.items() if some
                },
                "runs": runs,
            }
            TARGET.parent.mkdir(exist_ok=True)
            TARGET.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
