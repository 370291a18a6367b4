"""How fast does a plain VAE train: rows per second beside Pythae's and beside what this machine could do at most?

784-512-(2 x 16)-512-784, relaxed Bernoulli, Adam, float32, batches of 128 and 512, on Fashion-MNIST. Pythae (its own
VAE and trainer) and Narrows, eager and compiled, take turns; each figure is the median of the epochs after the first of
a new process. The ceiling: the step's multiply-adds at the speed of matrix products of the model's own shapes, plus
Adam's traffic (seven numbers a parameter) at the speed of a memory copy.

    NARROWS_DATA=... python benchmarks/train_speed.py          # writes results/train_speed.json
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import peers

NARROWS = """
import sys, time, json, numpy as np, torch, narrows as nr
torch.set_num_threads(int(sys.argv[4]))
x, batch, compiled = np.load(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "compiled"
rows = nr.data.Rows(torch.from_numpy(x), nr.data.Scaling("levels", "uint8", levels=256), binarise="relaxed")
from functools import partial
model, objective = nr.recipes.vae((1, 28, 28), latent=16, likelihood=partial(nr.likelihoods.Bernoulli, relaxed=True))
steps = -(-len(x) // batch)
training = nr.Training(epochs=4, batch=batch, check=steps, compile=compiled)
run = nr.fit(model, objective, rows, training=training, quiet=True)
print(json.dumps([m["rows_per_second"] for m in run.metrics[1:]]))
"""

PYTHAE = (
    peers.MODEL
    + """
import sys, time, json, logging, tempfile
logging.disable(logging.CRITICAL)
torch.set_num_threads(int(sys.argv[4]))
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.data.datasets import BaseDataset
x, batch = np.load(sys.argv[1]), int(sys.argv[2])
data = BaseDataset(torch.from_numpy(x).float().div(255), torch.zeros(len(x)))
config = BaseTrainerConfig(output_dir=tempfile.mkdtemp(), num_epochs=4, learning_rate=1e-3,
                           per_device_train_batch_size=batch, optimizer_cls="Adam", no_cuda=True)
trainer, speeds, step = BaseTrainer(vae(), data, training_config=config), [], BaseTrainer.train_step
def timed(self, epoch):
    began = time.perf_counter()
    loss = step(self, epoch)
    speeds.append(len(x) / (time.perf_counter() - began))
    return loss
BaseTrainer.train_step = timed
trainer.train()
print(json.dumps(speeds[1:]))
"""
)

SHAPES = ((784, 512), (512, 32), (16, 512), (512, 784))


def ceilings(threads: int) -> dict[str, float]:
    """Seconds of one multiply-add and of one byte, by the median of matrix products and of a copy."""
    import torch

    torch.set_num_threads(threads)
    found = {}
    for batch in (128, 512):
        seconds = flops = 0.0
        for a, b in SHAPES:
            x, w = torch.randn(batch, a), torch.randn(a, b)
            seconds += median(lambda x=x, w=w: x @ w)
            flops += 2 * batch * a * b
        found[f"matrix product at {batch}, GFLOP/s"] = flops / seconds / 1e9
    a, b = torch.randn(16_000_000), torch.empty(16_000_000)
    found["copy, GB/s"] = 2 * 64e6 / median(lambda: b.copy_(a)) / 1e9
    return found


def median(call: object, times: int = 60) -> float:
    call()  # type: ignore[operator]
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        call()  # type: ignore[operator]
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def ceiling(batch: int, measured: dict[str, float]) -> float:
    """Rows per second if nothing but the arithmetic and Adam's traffic took time."""
    forward = 2 * sum(a * b for a, b in SHAPES)
    flops = batch * (3 * forward - 2 * SHAPES[0][0] * SHAPES[0][1])  # no gradient for the input
    parameters = sum(a * b + b for a, b in SHAPES)
    seconds = flops / measured[f"matrix product at {batch}, GFLOP/s"] / 1e9
    return batch / (seconds + 7 * 4 * parameters / measured["copy, GB/s"] / 1e9)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=30_000)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    import numpy as np
    import torch

    import narrows as nr

    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
    who = {
        "pythae": (peers.python(), PYTHAE),
        "eager": (sys.executable, NARROWS),
        "compiled": (sys.executable, NARROWS),
    }
    found: dict[str, dict[str, list[float]]] = {name: {"128": [], "512": []} for name in who}
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "x.npy"
        np.save(data, nr.data.load("fashion-mnist").x[: arguments.rows].numpy())
        measured = ceilings(arguments.threads)
        for _ in range(arguments.rounds):
            for batch in ("128", "512"):
                for name, (binary, script) in who.items():
                    words = [binary, "-c", script, str(data), batch, name, str(arguments.threads)]
                    done = subprocess.run(words, capture_output=True, text=True, env=environment)
                    if done.returncode:
                        sys.exit(f"{name}: {done.stderr[-2000:]}")
                    found[name][batch].append(statistics.median(json.loads(done.stdout.splitlines()[-1])))
                    print(batch, name, f"{found[name][batch][-1]:,.0f} rows/s", flush=True)
    result = {
        "machine": f"{platform.processor() or platform.machine()}, {arguments.threads} threads",
        "versions": {"torch": torch.__version__, "narrows": nr.__version__, "pythae": "0.1.2"},
        "ceilings": measured,
        "rows per second": found,
    }
    for batch in ("128", "512"):
        peer = statistics.median(found["pythae"][batch])
        most = ceiling(int(batch), measured)
        for name in ("eager", "compiled"):
            speed = statistics.median(found[name][batch])
            result[f"{name} at {batch}"] = {
                "median": speed,
                "range": [min(found[name][batch]), max(found[name][batch])],
                "over pythae": speed / peer,
                "of the ceiling": speed / most,
            }
            told = f"{speed:,.0f} rows/s, {speed / peer:.2f} x Pythae, {speed / most:.2f} of the ceiling"
            print(f"{name} at {batch}: {told}")
    target = Path(__file__).parent / "results" / "train_speed.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
