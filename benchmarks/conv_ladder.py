"""What are rungs of maps worth? A convolutional ladder beside the best single-layer VAEs at equal time; full runs.

`fashion`: Fashion-MNIST in bits/dim, each value a mixture of five logistics in every model. A ladder of four rungs,
2 x 2, 4 x 4 and twice 7 x 7 places, and with one layer of 32 units `vae` with a perceptron and with convolutions,
`flow_vae` (with convolutions) and `vampprior` (with a perceptron). As many processor seconds of training each, one
thread: what a step of each takes is measured first, in turns, and says how many steps each has. Batches of 32, of which
all learn most in little time; the learning rate falls to 0 as half a cosine; averaged weights. Bound of the 10,000 test
images, and L_100 of the first 200; Student's 95 % intervals over the seeds.

`mnist` and `cifar10` are full runs, meant for a GPU: dynamically binarised MNIST, aiming below 79.0 nats (L_500 of
1,000 test images, binarised once), and CIFAR-10 from an .npz, aiming at 3.36 bits/dim (bound of the test images). A
call trains for `--minutes` and goes on where the last one ended; what it reached stands in the results each time.

    NARROWS_DATA=... python benchmarks/conv_ladder.py [--seconds 300]       # fashion, 3 seeds of 5 members
    NARROWS_DATA=... python benchmarks/conv_ladder.py --row mnist --minutes 60 --folder runs/conv_ladder
    python benchmarks/conv_ladder.py --row cifar10 --data cifar10.npz --minutes 60    # again and again: it goes on
"""

import argparse
import json
import platform
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from aggregated import interval

import narrows as nr
from narrows.likelihoods import Bernoulli, LogisticMixture
from narrows.networks import Conv, Mlp
from narrows.priors import Maps, VampPrior
from narrows.schedules import WarmUp

TARGET = Path(__file__).parent / "results" / "conv_ladder.json"
SINGLE: dict[str, Any] = {"latent": 32, "likelihood": LogisticMixture}
MEMBERS: dict[str, tuple[str, dict[str, Any]]] = {
    "conv_ladder": (
        "conv_ladder",
        {"rungs": (1, 1, 2), "patch": 4, "latent": 8, "width": 64, "prior": partial(Maps, inner=16), "beta": 1.0},
    ),
    "vae, Mlp": ("vae", {**SINGLE, "network": Mlp}),
    "vae, Conv": ("vae", {**SINGLE, "network": Conv}),
    "flow_vae, Conv": ("flow_vae", {**SINGLE, "network": Conv}),
    "vampprior, Mlp": ("vampprior", {**SINGLE, "network": Mlp, "prior": partial(VampPrior, pseudo=500)}),
}
# learning rate and the like, by trials of 400 steps: with a warm-up, or with the learning rate of the others, the
# ladder's upper rungs stay empty; gradients beyond `skip` are those of the first steps
SINGLES: dict[str, Any] = {"lr": 2e-3}
LADDER: dict[str, Any] = {"lr": 6e-3, "clip": 300.0, "skip": 3000.0}
BATCH = 32
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


def paces(data: Any, members: list[str], rounds: int = 9) -> dict[str, float]:
    """Processor seconds that a training step of each takes: the median of rounds in which all take turns."""
    made = {name: getattr(nr.recipes, MEMBERS[name][0])(data.shape, **MEMBERS[name][1]) for name in members}
    steps = {name: torch.optim.Adam(parts[0].parameters(), 0.0, fused=True) for name, parts in made.items()}
    times: dict[str, list[float]] = {name: [] for name in members}
    for turn in range(rounds + 1):
        batch = data.train.batch(torch.arange(turn * BATCH, (turn + 1) * BATCH), torch.tensor(turn))
        for name, (model, objective) in made.items():
            began = time.process_time()
            steps[name].zero_grad()
            objective(model, batch).loss.backward()
            steps[name].step()
            times[name].append(time.process_time() - began)
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def fashion(arguments: argparse.Namespace, keep: Any) -> None:
    """Every member and seed that the results lack."""
    data = nr.data.load("fashion-mnist")
    few = data.test.take(torch.arange(min(200, arguments.rows)))
    test = data.test.take(torch.arange(min(len(data.test), arguments.rows)))
    if keep.get("seconds") != arguments.seconds:
        keep |= {"fashion": {}, "seconds": arguments.seconds, "paces": paces(data, list(MEMBERS))}
        print(json.dumps(keep["paces"]), flush=True)
    for seed in range(arguments.seeds):
        for name in arguments.members:
            if str(seed) in keep["fashion"].get(name, {}):
                continue
            recipe, own = MEMBERS[name]
            parts = getattr(nr.recipes, recipe)(data.shape, seed=seed, **own)
            rows = round(arguments.seconds / keep["paces"][name]) * BATCH
            epochs = -(-rows // len(data.train))
            train = data.train.take(torch.arange(rows // epochs))
            more: dict[str, Any] = LADDER if recipe == "conv_ladder" else SINGLES
            settings = nr.Training(
                epochs=epochs, batch=BATCH, seed=seed, decay="cosine", average=0.99, check=100_000, **more
            )
            began = time.process_time()
            run = nr.fit(*parts, train, training=settings, quiet=True)
            seconds = time.process_time() - began
            bound = -float(sum(nr.evaluate.distortion_rate(run.model, test)).mean())  # type: ignore[union-attr]
            tighter = nr.evaluate.log_likelihood(run.model, few, samples=100).mean
            found = [nr.evaluate.bits_per_dimension(nats, (1, 28, 28)) for nats in (bound, float(tighter))]
            keep.setdefault("fashion", {}).setdefault(name, {})[str(seed)] = {
                "bound": found[0],
                "L_100": found[1],
                "seconds": seconds,
                "steps": run.config["steps"],
            }
            if isinstance(run.model, nr.Ladder):
                rates = nr.evaluate.rate_by_rung(run.model, few).mean(0)
                keep["fashion"][name][str(seed)]["rates, from the top"] = [round(float(r), 2) for r in rates]
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
    parser.add_argument("--seconds", type=float, default=300.0, help="of the processor, for each member of fashion")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training in this call of a full run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--members", nargs="+", default=list(MEMBERS))
    parser.add_argument("--rows", type=int, default=10_000, help="test images at most")
    parser.add_argument("--data", default="", help="CIFAR-10 as .npz")
    parser.add_argument("--folder", type=Path, default=Path("runs/conv_ladder"))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    (fashion if arguments.row == "fashion" else full)(arguments, keep)


if __name__ == "__main__":
    main()
