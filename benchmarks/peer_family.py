"""Four members beside Pythae's: reconstruction, samples, speed, with the same nets, rows, steps, batches and seeds.

AE, AAE, WAE-MMD and RAE-L2 on 20,000 images of MNIST, 784-512-8-512-784 with a sigmoid at the end, 5 passes in batches
of 100, Adam at 1e-3; each library with its own default weights of the terms besides; WAE-MMD a second time with the
peer's weight, 0.03 a row, where ours is 0.13 for each value of a row. AAE and WAE draw codes from N(0, I), AE and RAE
from a mixture of ten normals that each library fits to the codes of the training images.
The Fréchet distance of 10,000 samples from the 10,000 test images is taken in the features of a small classifier
(aggregated.py). The two libraries take turns; intervals are Student's 95 % over three seeds.

    NARROWS_DATA=... python benchmarks/peer_family.py          # writes results/peer_family.json, about 8 minutes
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import peers
import torch
from aggregated import classifier, interval

import narrows as nr
from narrows.evaluate import frechet_distance

TARGET = Path(__file__).parent / "results" / "peer_family.json"
MEMBERS = ("AE", "AAE", "WAE-MMD", "WAE-MMD, weight 0.03", "RAE-L2")
ROWS, EPOCHS, BATCH, LATENT = 20_000, 5, 100, 8

NARROWS = """
import sys, time, json, numpy as np, torch, narrows as nr
place, name, seed, epochs, batch, latent = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7])
torch.set_num_threads(int(sys.argv[7]))
train, test = (torch.from_numpy(np.load(f"{place}/{part}.npy")).float().div(255) for part in ("train", "test"))
def network(inputs, outputs, context):
    mlp = nr.networks.Mlp(inputs, outputs, context)
    return torch.nn.Sequential(mlp, torch.nn.Sigmoid()) if len(outputs) > 1 else mlp
recipe, own = {
    "AE": ("autoencoder", {}),
    "AAE": ("aae", {}),
    "WAE-MMD": ("wae_mmd", {}),
    "WAE-MMD, weight 0.03": ("wae_mmd", {"weight": 0.03}),
    "RAE-L2": ("regularised", {"prior": None}),  # fitted below, as the peer's is: no part of the training that is timed
}[name]
own = {"latent": latent, "network": network, **own}
model, objective = getattr(nr.recipes, recipe)(tuple(train.shape[1:]), **own, seed=seed)
began = time.perf_counter()
nr.fit(model, objective, train, training=nr.Training(epochs=epochs, batch=batch, seed=seed), quiet=True)
seconds = time.perf_counter() - began
if name in ("AE", "RAE-L2"):
    nr.fit_prior(model, train, nr.priors.GaussianMixture(latent, components=10), seed=seed)
torch.manual_seed(seed)
with torch.no_grad():
    made = torch.cat([model.sample(1000).mean for _ in range(10)])
np.savez(f"{place}/found.npz", again=nr.evaluate.reconstruct(model, test), made=made)
print(json.dumps(seconds))
"""

PYTHAE = """
import sys, time, json, tempfile, logging, numpy as np, torch
logging.disable(logging.WARNING)
from pythae import models, trainers
from pythae.pipelines import TrainingPipeline
from pythae.samplers import GaussianMixtureSampler, GaussianMixtureSamplerConfig, NormalSampler
place, name, seed, epochs, batch, latent = sys.argv[1], sys.argv[2], *map(int, sys.argv[3:7])
torch.set_num_threads(int(sys.argv[7]))
train, test = (torch.from_numpy(np.load(f"{place}/{part}.npy")).float().div(255) for part in ("train", "test"))
torch.manual_seed(seed)
name = name.split(",")[0]
kind = {"AE": "AE", "AAE": "Adversarial_AE", "WAE-MMD": "WAE_MMD", "RAE-L2": "RAE_L2"}[name]
config = getattr(models, kind + ("_Config" if kind != "AE" else "Config"))
own = {"deterministic_posterior": True} if name == "AAE" else {}
model = getattr(models, kind)(config(input_dim=tuple(train.shape[1:]), latent_dim=latent, **own))
common = dict(output_dir=tempfile.mkdtemp(), num_epochs=epochs, per_device_train_batch_size=batch, no_cuda=True,
              seed=seed)
if name == "AAE":
    training = trainers.AdversarialTrainerConfig(**common, autoencoder_learning_rate=1e-3,
                                                 discriminator_learning_rate=1e-3)
elif name == "RAE-L2":
    training = trainers.CoupledOptimizerTrainerConfig(**common, encoder_learning_rate=1e-3, decoder_learning_rate=1e-3)
else:
    training = trainers.BaseTrainerConfig(**common, learning_rate=1e-3)
began = time.perf_counter()
TrainingPipeline(model=model, training_config=training)(train_data=train)
seconds = time.perf_counter() - began
model.eval()
with torch.no_grad():
    again = torch.cat([model.decoder(model.encoder(part).embedding).reconstruction for part in test.split(1000)])
torch.manual_seed(seed)
if name in ("AE", "RAE-L2"):
    sampler = GaussianMixtureSampler(model, GaussianMixtureSamplerConfig(n_components=10))
    sampler.fit(train)
else:
    sampler = NormalSampler(model)
made = sampler.sample(num_samples=10_000, batch_size=1000, return_gen=True)
np.savez(f"{place}/found.npz", again=again.detach(), made=made.detach())
print(json.dumps(seconds))
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", default="2")
    asked = parser.parse_args()
    data = nr.data.load("mnist")
    train, test = data.train.take(torch.arange(ROWS)), data.test
    judge, accuracy = classifier(train.x, train.label, (test.x, test.label))
    real = judge(test.x)
    found: dict[str, dict[str, list[list[float]]]] = {name: {"narrows": [], "pythae": []} for name in MEMBERS}
    environment = {**os.environ, "OMP_NUM_THREADS": asked.threads}
    with tempfile.TemporaryDirectory() as place:
        for name, rows in (("train", train), ("test", test)):
            np.save(f"{place}/{name}.npy", (rows.x * 255).round().to(torch.uint8).numpy())
        for seed in range(asked.seeds):
            for name in MEMBERS:
                for who, binary, script in (
                    ("narrows", sys.executable, NARROWS),
                    ("pythae", peers.python(), PYTHAE),
                ):
                    words = [place, name, *map(str, (seed, EPOCHS, BATCH, LATENT)), asked.threads]
                    done = subprocess.run(
                        [binary, "-c", script, *words], capture_output=True, text=True, env=environment, cwd=place
                    )
                    if done.returncode:
                        sys.exit(f"{who}, {name}: {done.stderr[-2000:]}")
                    with np.load(f"{place}/found.npz") as arrays:
                        again, made = (torch.from_numpy(arrays[part]).clamp(0, 1) for part in ("again", "made"))
                    error = float((again - test.x).square().flatten(1).sum(1).mean())
                    speed = ROWS * EPOCHS / json.loads(done.stdout.splitlines()[-1])
                    found[name][who].append([error, frechet_distance(judge(made), real), speed])
                    print(seed, name, who, *(f"{value:.4g}" for value in found[name][who][-1]), flush=True)
    table = {
        name: {
            who: {
                key: interval([run[i] for run in runs])
                for i, key in enumerate(("squared error", "Fréchet distance", "rows per second"))
            }
            for who, runs in both.items()
        }
        for name, both in found.items()
    }
    TARGET.parent.mkdir(exist_ok=True)
    record = {"versions": {"torch": torch.__version__, "narrows": nr.__version__, "pythae": "0.1.2"}}
    record |= {"classifier accuracy": accuracy, "threads": asked.threads, "means and half intervals": table}
    TARGET.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    print(json.dumps(table, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
