"""Codebooks: averages beside gradients, the quantiser alone, and a whole VQ-VAE beside Pythae's.

Fashion-MNIST, 7 x 7 vectors of 64 units, 512 codewords, strided and residual convolutions of 32 channels, batches of
128, Adam at 1e-3, squared error + 0.25 |h - e|^2 a row (a Gaussian with sigma^2 = 1/2, less its constant).

- codebook: moving averages against gradients, from the same weights, the same k-means and in the same order; with
  revival. Squared error of a test image, perplexity of the 10,000 test images' codewords.
- alone: choosing codewords for 128 x 49 vectors and one step of the averages, beside vector-quantize-pytorch 1.32 with
  its own defaults but the decay; medians of calls that take turns, one thread.
- pythae: the same nets, rows, steps and moving averages in Pythae 0.1.2, whose commitment is a mean over units and
  places where the squared error is a sum: it is multiplied by their number here, so that both libraries minimise the
  same. Otherwise each library as it is: Pythae has neither k-means nor revival. In turns; rows a second of
  processor of training.

    NARROWS_DATA=... python benchmarks/quantised.py codebook alone pythae    # writes results/quantised.json

Intervals are Student's 95 % over three seeds.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import peers
import torch
from aggregated import interval

import narrows as nr

TARGET = Path(__file__).parent / "results" / "quantised.json"
K, WIDTH, BATCH = 512, 64, 128

NETS = """
import torch
from torch import nn

class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner, self.outer = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 1)

    def forward(self, x):
        return x + self.outer(torch.relu(self.inner(torch.relu(x))))

def encoder(d=64, w=32):
    down = [nn.Conv2d(1, w, 4, 2, 1), nn.ReLU(), nn.Conv2d(w, w, 4, 2, 1), nn.ReLU(), nn.Conv2d(w, w, 3, padding=1)]
    return nn.Sequential(*down, Block(w), Block(w), nn.ReLU(), nn.Conv2d(w, d, 1))

def decoder(d=64, w=32):
    up = [nn.ConvTranspose2d(w, w, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(w, 1, 4, 2, 1), nn.Sigmoid()]
    return nn.Sequential(nn.Conv2d(d, w, 3, padding=1), Block(w), Block(w), nn.ReLU(), *up)
"""

COMMON = """
import sys, json, time
import numpy as np
place, seed, epochs, batch, threads = sys.argv[1], *map(int, sys.argv[2:6])
torch.set_num_threads(threads)
train, test = (torch.from_numpy(np.load(f"{place}/{part}.npy")).float().div(255) for part in ("train", "test"))
"""

NARROWS = (
    NETS
    + COMMON
    + """
import math, narrows as nr
from functools import partial
class Back(nn.Module):  # a flat code as a map, an image as the parameters of a likelihood
    def __init__(self):
        super().__init__()
        self.inner = decoder()
    def forward(self, z):
        return self.inner(z.view(-1, 64, 7, 7))[:, None]
network = lambda inputs, outputs, context: encoder() if len(outputs) == 3 else Back()
settings = dict(latent=64, grid=(7, 7), likelihood=partial(nr.likelihoods.Gaussian, sigma=math.sqrt(0.5)))
model, objective = nr.recipes.vqvae((1, 28, 28), network=network, seed=seed, **settings)
began = time.process_time()
nr.fit(model, objective, train, training=nr.Training(epochs=epochs, batch=batch, seed=seed), quiet=True)
seconds = time.process_time() - began
again = nr.evaluate.reconstruct(model, test)
perplexity = nr.evaluate.usage(model, test).perplexity
print(json.dumps([float((again - test).square().flatten(1).sum(1).mean()), perplexity, len(train) * epochs / seconds]))
"""
)

PYTHAE = (
    NETS
    + COMMON
    + """
import logging, tempfile
logging.disable(logging.WARNING)
from pythae import models, trainers
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.pipelines import TrainingPipeline
class There(BaseEncoder):
    def __init__(self):
        super().__init__()
        self.inner = encoder()
    def forward(self, x):
        return ModelOutput(embedding=self.inner(x))
class Back(BaseDecoder):
    def __init__(self):
        super().__init__()
        self.inner = decoder()
    def forward(self, z):
        return ModelOutput(reconstruction=self.inner(z))
class Repaired(models.VQVAE):
    def loss_function(self, recon_x, x, found):
        found.loss = found.loss * 64 * 7 * 7  # a sum, as the squared error is
        return super().loss_function(recon_x, x, found)
torch.manual_seed(seed)
config = models.VQVAEConfig(input_dim=(1, 28, 28), latent_dim=64, use_ema=True, decay=0.99, num_embeddings=512)
model = Repaired(config, There(), Back())
settings = trainers.BaseTrainerConfig(output_dir=tempfile.mkdtemp(), num_epochs=epochs, learning_rate=1e-3, seed=seed,
                                      per_device_train_batch_size=batch, no_cuda=True)
began = time.process_time()
TrainingPipeline(model=model, training_config=settings)(train_data=train)
seconds = time.process_time() - began
model.eval()
with torch.no_grad():
    found = [model({"data": part}) for part in test.split(1000)]
again = torch.cat([one.recon_x for one in found])
counts = torch.bincount(torch.cat([one.quantized_indices.flatten() for one in found]), minlength=512).double()
perplexity = float(torch.special.entr(counts / counts.sum()).sum().exp())
print(json.dumps([float((again - test).square().flatten(1).sum(1).mean()), perplexity, len(train) * epochs / seconds]))
"""
)


def codebook(rows: int, epochs: int, seeds: int) -> dict[str, Any]:
    """Error and perplexity on test images of either way to learn a codebook, and of the difference of the errors."""
    data = nr.data.load("fashion-mnist")
    train, test = data.train.take(torch.arange(min(rows, len(data.train)))), data.test
    found: dict[str, list[list[float]]] = {"averages": [], "gradients": []}
    network, likelihood = {"Grid": {"width": 32}}, {"Gaussian": {"sigma": math.sqrt(0.5)}}
    arguments = {"shape": [1, 28, 28], "latent": WIDTH, "grid": [7, 7], "network": network, "likelihood": likelihood}
    for seed in range(seeds):
        for name, decay in (("averages", 0.99), ("gradients", None)):
            spec = {"recipe": "vqvae", "arguments": {**arguments, "decay": decay}, "seed": seed}
            model, objective = nr.recipes.build(spec)
            training = nr.Training(epochs=epochs, batch=BATCH, seed=seed)
            nr.fit(model, objective, train, training=training, quiet=True)
            error = nr.evaluate.reconstruct(model, test) - nr.evaluate.inputs(model, test)
            used = nr.evaluate.usage(model, test)
            found[name].append([float(error.square().flatten(1).sum(1).mean()), used.perplexity])
            print("codebook", seed, name, *(f"{value:.4g}" for value in found[name][-1]), flush=True)
    keys = ("squared error", "perplexity")
    table = {name: {key: interval([r[i] for r in runs]) for i, key in enumerate(keys)} for name, runs in found.items()}
    pairs = zip(found["averages"], found["gradients"], strict=True)
    return {"rows": len(train), "epochs": epochs, **table, "difference": interval([a[0] - b[0] for a, b in pairs])}


def alone(calls: int) -> dict[str, Any]:
    """Milliseconds of assignment and averages, with and without gradients, in turns."""
    from vector_quantize_pytorch import VectorQuantize

    torch.set_num_threads(1)
    torch.manual_seed(0)
    ours = nr.posteriors.Quantised(nr.priors.Codewords((49,), K), WIDTH)
    theirs = VectorQuantize(dim=WIDTH, codebook_size=K, decay=0.99)
    h = torch.randn(BATCH, 49, WIDTH)
    there = h.transpose(1, 2).contiguous()  # each reads the arrangement that is its own

    def forward_ours(back: bool) -> None:
        code = ours(there.requires_grad_())
        if back:
            torch.autograd.grad(code.z.sum() + code.penalty.sum(), there)

    def forward_theirs(back: bool) -> None:
        z, _, loss = theirs(h.requires_grad_())
        if back:
            torch.autograd.grad(z.sum() + loss.sum(), h)

    found: dict[str, Any] = {}
    for back in (False, True):
        times: dict[str, list[float]] = {"narrows": [], "vector-quantize-pytorch": []}
        for _ in range(calls + 3):
            for name, call in (("narrows", forward_ours), ("vector-quantize-pytorch", forward_theirs)):
                began = time.perf_counter()
                call(back)
                times[name].append(1e3 * (time.perf_counter() - began))
        medians = {name: statistics.median(values[3:]) for name, values in times.items()}
        found["with its gradient" if back else "forward"] = {f"{name}, ms": value for name, value in medians.items()}
        print("alone", "with its gradient" if back else "forward", medians, flush=True)
    return found


def pythae(rows: int, epochs: int, seeds: int, threads: str) -> dict[str, Any]:
    """Error, perplexity and rows a second of both libraries."""
    data = nr.data.load("fashion-mnist")
    found: dict[str, list[list[float]]] = {"narrows": [], "pythae": []}
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    with tempfile.TemporaryDirectory() as place:
        for name, part in (("train", data.train.take(torch.arange(min(rows, len(data.train))))), ("test", data.test)):
            np.save(f"{place}/{name}.npy", (part.x * 255).round().to(torch.uint8).numpy())
        for seed in range(seeds):
            for who, binary, script in (("narrows", sys.executable, NARROWS), ("pythae", peers.python(), PYTHAE)):
                words = [binary, "-c", script, place, *map(str, (seed, epochs, BATCH)), threads]
                done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=place)
                if done.returncode:
                    sys.exit(f"{who}: {done.stderr[-2000:]}")
                found[who].append(json.loads(done.stdout.splitlines()[-1]))
                print("pythae", seed, who, *(f"{value:.4g}" for value in found[who][-1]), flush=True)
    keys = ("squared error", "perplexity", "rows per second")
    table = {who: {key: interval([r[i] for r in runs]) for i, key in enumerate(keys)} for who, runs in found.items()}
    return {"rows": rows, "epochs": epochs, "threads": threads, **table}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("questions", nargs="*", default=["codebook", "alone", "pythae"])
    parser.add_argument("--rows", type=int, default=60_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--threads", default="1")
    asked = parser.parse_args()
    record = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    record["versions"] = {"torch": torch.__version__, "narrows": nr.__version__, "pythae": "0.1.2"}
    for question in asked.questions:
        if question == "alone":
            record[question] = alone(asked.calls)
        elif question == "codebook":
            record[question] = codebook(asked.rows, asked.epochs, asked.seeds)
        else:
            record[question] = pythae(asked.rows, asked.epochs, asked.seeds, asked.threads)
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
