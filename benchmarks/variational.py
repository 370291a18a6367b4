"""Four variational members beside Pythae's: log p(x) of held-out images by one estimator, and seconds of processor.

VAE, IWAE with 50 draws, VAE with an IAF posterior (two MADE blocks of two hidden layers of 128), and VampPrior with 500
pseudo-inputs, on dynamically binarised MNIST: 60,000 images, nets 784-200-200-50 and back with tanh as in Burda et al.
2015, 10 passes in batches of 100, Adam at 1e-3, the last weights; each library begins as it does by itself, ours with
the last bias at the log-odds of the training mean, as Burda et al. did. L_5000 of the first 1,000 test images, drawn
once; both libraries' models are scored by log 1/K sum p(x|z) p(z) / q(z|x) with K = 5,000. The libraries take turns;
Student's 95 % intervals over the seeds.

    NARROWS_DATA=... python benchmarks/variational.py [--seeds 3] [--members VAE VAMP] [--only narrows] [--resume]
                                                                # adds to results/variational.json
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
from aggregated import interval

import narrows as nr

TARGET = Path(__file__).parent / "results" / "variational.json"
MEMBERS = ("VAE", "IAF", "VAMP", "IWAE")
EPOCHS, BATCH, LATENT, DRAWS, COMPONENTS = 10, 100, 50, 50, 500

COMMON = f"""
import sys, time, json, math, numpy as np, torch
place, name, seed, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
epochs, batch, latent, draws, components = {EPOCHS}, {BATCH}, {LATENT}, {DRAWS}, {COMPONENTS}
torch.set_num_threads(threads)
train, test = (torch.from_numpy(np.load(f"{{place}}/{{part}}.npy")) for part in ("train", "test"))
train, test = train.float().div(255), test.float()
"""

NARROWS = (
    COMMON
    + """
import narrows as nr
from functools import partial
from narrows import flows, posteriors, priors
network = partial(nr.networks.Mlp, hidden=(200, 200), activation="tanh")
recipe, own = {
    "VAE": ("vae", {}),
    "IWAE": ("iwae", {"samples": draws}),
    "IAF": ("flow_vae", {}),
    "VAMP": ("vampprior", {"prior": partial(priors.VampPrior, pseudo=components)}),
}[name]
model, objective = getattr(nr.recipes, recipe)((1, 28, 28), latent=latent, network=network, seed=seed, **own)
rows = nr.data.Rows(train, binarise="dynamic")
began = time.process_time()
nr.fit(model, objective, rows, training=nr.Training(epochs=epochs, batch=batch, seed=seed), quiet=True)
seconds = time.process_time() - began
nr.draws.WIDER = (1.0,)  # draws from q alone, as the other library's model has below
print(json.dumps([nr.evaluate.log_likelihood(model, test, samples=5000).mean, seconds]))
"""
)

PYTHAE = (
    COMMON
    + """
import logging, tempfile
logging.disable(logging.WARNING)
from torch import nn
from pythae import models, trainers
from pythae.data.datasets import BaseDataset, DatasetOutput
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.pipelines import TrainingPipeline

class Encoder(BaseEncoder):
    def __init__(self):
        BaseEncoder.__init__(self)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(784, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh())
        self.embedding, self.log_var = nn.Linear(200, latent), nn.Linear(200, latent)
        self.latent_dim = latent
    def forward(self, x):
        h = self.layers(x)
        return ModelOutput(embedding=self.embedding(h), log_covariance=self.log_var(h))

class Decoder(BaseDecoder):
    def __init__(self):
        BaseDecoder.__init__(self)
        self.layers = nn.Sequential(nn.Linear(latent, 200), nn.Tanh(), nn.Linear(200, 200), nn.Tanh(),
                                    nn.Linear(200, 784), nn.Sigmoid())
    def forward(self, z):
        return ModelOutput(reconstruction=self.layers(z).reshape(-1, 1, 28, 28))

class Binarised(BaseDataset):
    def __getitem__(self, index):
        return DatasetOutput(data=torch.bernoulli(self.data[index]), labels=self.labels[index])

kind, config, own = {
    "VAE": ("VAE", "VAEConfig", {}),
    "IWAE": ("IWAE", "IWAEConfig", {"number_samples": draws}),
    "IAF": ("VAE_IAF", "VAE_IAF_Config", {"n_made_blocks": 2, "n_hidden_in_made": 2, "hidden_size": 128}),
    "VAMP": ("VAMP", "VAMPConfig", {"number_components": components}),
}[name]
torch.manual_seed(seed)
settings = getattr(models, config)(input_dim=(1, 28, 28), latent_dim=latent, reconstruction_loss="bce", **own)
model = getattr(models, kind)(settings, encoder=Encoder(), decoder=Decoder())
training = trainers.BaseTrainerConfig(output_dir=tempfile.mkdtemp(), num_epochs=epochs, no_cuda=True, seed=seed,
                                      per_device_train_batch_size=batch, learning_rate=1e-3)
rows = Binarised(train, torch.zeros(len(train)))
began = time.process_time()
trainer = trainers.BaseTrainer(model=model, train_dataset=rows, training_config=training)
trainer.train()
seconds = time.process_time() - began
# `train` leaves the weights of the last step on the model; the best on training loss are only in its files
model.eval()
found = []
with torch.no_grad():
    torch.manual_seed(0)
    if name == "VAMP":  # the numbers of `_log_p_z` by products of matrices, and no pass of the encoder for each image
        pseudo = model.encoder(model.pseudo_inputs(model.idle_input).view(-1, 1, 28, 28))
        at, precision = pseudo.embedding.double(), (-pseudo.log_covariance.double()).exp()
        constant = (at.square() * precision + pseudo.log_covariance).sum(1)

        def vamp(z):
            z = z.double()
            cost = z.square() @ precision.T - 2 * z @ (at * precision).T + constant
            return (-cost / 2).logsumexp(1) - math.log(len(at))

        few = torch.randn(8, latent)
        assert torch.allclose(vamp(few), model._log_p_z(few).double(), atol=1e-3)
    for x in test:
        said = model.encoder(x[None])
        mean, log_var = said.embedding, said.log_covariance
        z = z0 = mean + (log_var / 2).exp() * torch.randn(5000, latent)
        log_q = -(log_var + (z0 - mean) ** 2 / log_var.exp()).sum(1) / 2
        if name == "IAF":
            moved = model.iaf_flow.inverse(z0)
            z, log_q = moved.out, log_q - moved.log_abs_det_jac
        log_p = vamp(z) if name == "VAMP" else -z.square().sum(1) / 2
        p = model.decoder(z)["reconstruction"].flatten(1)
        log_px = -nn.functional.binary_cross_entropy(p, x.flatten().expand_as(p), reduction="none").sum(1)
        found.append(float((log_px + log_p - log_q).double().logsumexp(0)) - math.log(5000))
print(json.dumps([sum(found) / len(found), seconds]))
"""
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--members", nargs="+", default=MEMBERS)
    parser.add_argument("--only", default="", help="one of the two libraries")
    parser.add_argument("--resume", action="store_true", help="what is recorded stays")
    asked = parser.parse_args()
    threads = os.environ.get("OMP_NUM_THREADS", "2")
    data = nr.data.load("mnist", valid=0.0)
    generator = torch.Generator().manual_seed(0)
    grey = data.test.take(torch.arange(1000)).x
    record = json.loads(TARGET.read_text()) if TARGET.exists() else {"runs": {}}
    record |= {"versions": {"torch": torch.__version__, "narrows": nr.__version__, "pythae": "0.1.2"}}
    sides = [("narrows", sys.executable, NARROWS), ("pythae", peers.python(), PYTHAE)]
    sides = [side for side in sides if asked.only in ("", side[0])]
    with tempfile.TemporaryDirectory() as place:
        np.save(f"{place}/train.npy", (data.train.x * 255).round().to(torch.uint8).numpy())
        np.save(f"{place}/test.npy", torch.bernoulli(grey, generator=generator).numpy())
        for name in asked.members:
            for seed in range(asked.seeds):
                for who, binary, script in sides:
                    if asked.resume and str(seed) in record["runs"].get(name, {}).get(who, {}):
                        continue
                    words = [binary, "-c", script, place, name, str(seed), threads]
                    environment = {**os.environ, "OMP_NUM_THREADS": threads}
                    done = subprocess.run(words, capture_output=True, text=True, env=environment, cwd=place)
                    if done.returncode:
                        sys.exit(f"{who}, {name}: {done.stderr[-2000:]}")
                    found = json.loads(done.stdout.splitlines()[-1])
                    record["runs"].setdefault(name, {}).setdefault(who, {})[str(seed)] = [*found, int(threads)]
                    print(name, who, seed, f"{found[0]:.2f} nats, {found[1]:.0f} s", flush=True)
                    TARGET.parent.mkdir(exist_ok=True)
                    TARGET.write_text(json.dumps(record, indent=1) + "\n")
    print("\n| member | L_5000 | s | Pythae: L_5000 | s |\n|---|---|---|---|---|")
    for name, both in record["runs"].items():
        cells = []
        for who in ("narrows", "pythae"):
            runs = list(both.get(who, {}).values())
            for i, digits in ((0, 2), (1, 0)):
                mean, half = interval([run[i] for run in runs]) if runs else (float("nan"), None)
                cells.append(f"{mean:.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}"))
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
