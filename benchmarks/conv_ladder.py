"""What are rungs of maps worth? A convolutional ladder beside the best single-layer VAEs at equal minutes; full runs.

`fashion`: Fashion-MNIST in bits/dim, each value a mixture of five logistics in every model. A ladder of four rungs as
`conv_ladder` makes it, and with one layer of 32 units `vae` with a perceptron and with convolutions, `flow_vae` (with
convolutions) and `vampprior` (with a perceptron): as many minutes of training each, averaged weights, the best by
held-out loss. Bound of the 10,000 test images, and L_100 of the first 1,000; Student's 95 % intervals over the seeds.

`mnist` and `cifar10` are full runs, meant for a GPU: dynamically binarised MNIST, aiming below 79.0 nats (L_500 of
1,000 test images, binarised once), and CIFAR-10 from an .npz, aiming at 3.36 bits/dim (bound of the test images). A
call trains for `--minutes` and goes on where the last one ended; what it reached stands in the results each time.

    NARROWS_DATA=... python benchmarks/conv_ladder.py                       # fashion, 3 seeds x 5 members x 10 minutes
    NARROWS_DATA=... python benchmarks/conv_ladder.py --row mnist --minutes 60 --folder runs/conv_ladder
    python benchmarks/conv_ladder.py --row cifar10 --data cifar10.npz --minutes 60    # again and again: it goes on
"""

import argparse
import json
import platform
from functools import partial
from pathlib import Path
from typing import Any

import torch
from aggregated import interval

import narrows as nr
from narrows.likelihoods import Bernoulli, LogisticMixture
from narrows.networks import Conv, Mlp
from narrows.priors import VampPrior
from narrows.schedules import WarmUp

TARGET = Path(__file__).parent / "results" / "conv_ladder.json"
SINGLE: dict[str, Any] = {"latent": 32, "likelihood": LogisticMixture}
MEMBERS: dict[str, tuple[str, dict[str, Any]]] = {
    "conv_ladder": ("conv_ladder", {"rungs": 4}),
    "vae, Mlp": ("vae", {**SINGLE, "network": Mlp}),
    "vae, Conv": ("vae", {**SINGLE, "network": Conv}),
    "flow_vae, Conv": ("flow_vae", {**SINGLE, "network": Conv}),
    "vampprior, Mlp": ("vampprior", {**SINGLE, "network": Mlp, "prior": partial(VampPrior, pseudo=500)}),
}
# a guess: 5e-3 itself was never tried, and none was compared over a whole run. All that is known is that in 110 steps
# of 32 rows the ladder learned more at 8e-3 than at 3e-3; the others have 2e-3
RATES = {"conv_ladder": 5e-3}
# a recipe's arguments and the training of a full run; no epochs: the minutes of all calls together are the cap
FULL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "mnist": (
        {"rungs": (2, 6, 6), "latent": 8, "width": 128, "likelihood": Bernoulli, "beta": WarmUp(5000)},
        {"batch": 200, "lr": 1e-3, "clip": 200.0, "skip": 2e3, "average": 0.9995},
    ),
    "cifar10": (
        {"rungs": (4, 8, 8), "latent": 16, "width": 256, "beta": WarmUp(20_000)},
        {"batch": 64, "lr": 5e-4, "clip": 500.0, "skip": 5e3, "average": 0.9998},
    ),
}


def spent(folder: Path) -> float:
    """Minutes that a run has been trained for."""
    record = folder / "metrics.jsonl"
    lines = record.read_text().splitlines() if record.exists() else []
    return float(json.loads(lines[-1])["seconds"]) / 60 if lines else 0.0


def trained(folder: Path, parts: Any, data: Any, minutes: float, **training: Any) -> nr.Run:
    """A run in `folder`, of so many minutes together with what went before."""
    settings = nr.Training(epochs=100_000, minutes=minutes, patience=10_000, **training)
    return nr.fit(*parts, data, training=settings, folder=folder, resume=(folder / "config.json").exists())


def fashion(arguments: argparse.Namespace, keep: Any) -> None:
    """Every member and seed that the results lack."""
    data = nr.data.load("fashion-mnist")
    few = data.test.take(torch.arange(min(1000, arguments.rows)))
    test = data.test.take(torch.arange(min(len(data.test), arguments.rows)))
    for seed in range(arguments.seeds):
        for name in arguments.members:
            if str(seed) in keep.get("fashion", {}).get(name, {}):
                continue
            recipe, own = MEMBERS[name]
            folder = arguments.folder / f"fashion-{name.replace(', ', '-')}-{seed}"
            parts = getattr(nr.recipes, recipe)((1, 28, 28), seed=seed, **own)
            run = trained(folder, parts, data, arguments.minutes, seed=seed, average=0.999, lr=RATES.get(name, 2e-3))
            bound = -float(sum(nr.evaluate.distortion_rate(run.model, test)).mean())  # type: ignore[union-attr]
            tighter = nr.evaluate.log_likelihood(run.model, few, samples=100).mean
            found = [nr.evaluate.bits_per_dimension(nats, (1, 28, 28)) for nats in (bound, float(tighter))]
            keep.setdefault("fashion", {}).setdefault(name, {})[str(seed)] = {
                "bound": found[0],
                "L_100": found[1],
                "minutes": arguments.minutes,
                "steps": run.config["steps"],
                "best_step": run.config["best_step"],
            }
            print(f"{name}, seed {seed}: bound {found[0]:.4f}, L_100 {found[1]:.4f} bits/dim", flush=True)
            store_results(keep)
    print("\n| member | bound, bits/dim | L_100 | steps |\n|---|---|---|---|")
    for name, runs in keep["fashion"].items():
        cells = []
        for what in ("bound", "L_100"):
            mean, half = interval([run[what] for run in runs.values()])
            cells.append(f"{mean:.4f}" + ("" if half is None else f" ± {half:.4f}"))
        steps = sorted(run["steps"] for run in runs.values())
        print(f"| {name} | {' | '.join(cells)} | {steps[len(steps) // 2]:,} |")


def full(arguments: argparse.Namespace, keep: Any) -> None:
    """One call of a full run."""
    own, training = FULL[arguments.row]
    data = nr.data.load("mnist", binarise="dynamic") if arguments.row == "mnist" else nr.data.load(arguments.data)
    folder = arguments.folder / arguments.row
    parts, minutes = nr.recipes.conv_ladder(data.shape, **own), spent(folder) + arguments.minutes
    run = trained(folder, parts, data, minutes, **training)
    if arguments.row == "mnist":
        few = data.test.take(torch.arange(min(1000, arguments.rows))).x
        once = torch.bernoulli(few, generator=torch.Generator().manual_seed(0))
        nats, what = float(nr.evaluate.log_likelihood(run.model, once, samples=500).mean), "L_500"
    else:
        test = data.test.take(torch.arange(min(len(data.test), arguments.rows)))
        nats, what = -float(sum(nr.evaluate.distortion_rate(run.model, test)).mean()), "bound"  # type: ignore[union-attr]
    keep[arguments.row] = {
        what: nats,
        "bits/dim": nr.evaluate.bits_per_dimension(nats, data.shape),
        "minutes": spent(folder),
        "steps": run.config["steps"],
        "device": str(next(run.model.parameters()).device),
    }
    print(json.dumps(keep[arguments.row]), flush=True)
    store_results(keep)


def store_results(keep: Any) -> None:
    """What is known so far, with what it was made on."""
    keep |= {"versions": {"torch": torch.__version__, "narrows": nr.__version__}, "machine": platform.processor()}
    keep |= {"threads": torch.get_num_threads()}
    TARGET.parent.mkdir(exist_ok=True)
    TARGET.write_text(json.dumps(keep, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--row", choices=["fashion", *FULL], default="fashion")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training: each member's, or this call's")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--members", nargs="+", default=list(MEMBERS))
    parser.add_argument("--rows", type=int, default=10_000, help="test images at most")
    parser.add_argument("--data", default="", help="CIFAR-10 as .npz")
    parser.add_argument("--folder", type=Path, default=Path("runs/conv_ladder"))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    (fashion if arguments.row == "fashion" else full)(arguments, keep)


if __name__ == "__main__":
    main()
