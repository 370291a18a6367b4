"""How fast is an importance-weighted likelihood: K = 1000 on 1,000 test images, beside Pythae's get_nll?

The same untrained network, 784-512-(2 x 16)-512-784 with a relaxed Bernoulli, on Fashion-MNIST; the two take turns.
Pythae's time is that of fewer images, scaled up: it takes them one by one, so its time is proportional to them.

    NARROWS_DATA=... python benchmarks/nll_speed.py            # writes results/nll_speed.json
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import peers

NARROWS = """
import sys, time, json, numpy as np, torch, narrows as nr
from functools import partial
x = torch.from_numpy(np.load(sys.argv[1])).float().div(255)
model, _ = nr.recipes.vae((1, 28, 28), latent=16, likelihood=partial(nr.likelihoods.Bernoulli, relaxed=True))
nr.evaluate.log_likelihood(model, x[:8], samples=1000)
began = time.perf_counter()
mean = nr.evaluate.log_likelihood(model, x, samples=1000).mean
print(json.dumps([time.perf_counter() - began, mean]))
"""

PYTHAE = (
    peers.MODEL
    + """
import sys, time, json
x = torch.from_numpy(np.load(sys.argv[1])).float().div(255)[:100]
model = vae().eval()
with torch.no_grad():
    model.get_nll(x[:2], n_samples=1000, batch_size=1000)
    began = time.perf_counter()
    mean = model.get_nll(x, n_samples=1000, batch_size=1000)
print(json.dumps([10 * (time.perf_counter() - began), float(mean)]))
"""
)


def main() -> None:
    import numpy as np

    import narrows as nr

    found: dict[str, list[float]] = {"pythae": [], "narrows": []}
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "x.npy"
        held = nr.data.load("fashion-mnist")
        np.save(data, held.x[torch_rows(held)].numpy())
        for _ in range(5):
            for name, binary, script in (("pythae", peers.python(), PYTHAE), ("narrows", sys.executable, NARROWS)):
                done = subprocess.run([binary, "-c", script, str(data)], capture_output=True, text=True, env=os.environ)
                if done.returncode:
                    sys.exit(f"{name}: {done.stderr[-2000:]}")
                found[name].append(json.loads(done.stdout.splitlines()[-1])[0])
                print(name, f"{found[name][-1]:.1f} s", flush=True)
    medians = {name: statistics.median(v) for name, v in found.items()}
    result = {"seconds for 1,000 images": found, "ratio": medians["pythae"] / medians["narrows"]}
    print(f"Pythae {medians['pythae']:.1f} s, Narrows {medians['narrows']:.1f} s: {result['ratio']:.1f} x")
    target = Path(__file__).parent / "results" / "nll_speed.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")


def torch_rows(data: object) -> object:
    """The first 1,000 rows of the test part."""
    return (data.part == 2).nonzero()[:1000, 0]  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
