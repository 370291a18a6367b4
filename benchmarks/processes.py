"""Do two processes give what one gives, and how much faster?

Trains the same VAE on random images in one process with one thread, and in two under torchrun with one thread each,
alternating: a perceptron (many weights to exchange for little arithmetic) and convolutions (the other way round). The
weights after 20 steps (float64: rounding apart, the sums are the same; float32: Adam divides
by the root of squared gradients, so a gradient that is nearly 0 shows its rounding in full) and the rows per second.

    python benchmarks/processes.py                 # both; writes benchmarks/results/processes.json
    python benchmarks/processes.py --steps-only    # weights only, seconds
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

_TRAIN = """
import sys, torch, narrows as nr
out, dtype, epochs, rows, batch = sys.argv[1], getattr(torch, sys.argv[2]), *map(int, sys.argv[3:6])
network, average, skip = getattr(nr.networks, sys.argv[6]), *map(float, sys.argv[7:9])
torch.set_num_threads(1)
x = torch.rand(rows, 1, 28, 28, generator=torch.Generator().manual_seed(0)).round().to(dtype)
model, objective = nr.recipes.vae((1, 28, 28), latent=16, network=network)
training = nr.Training(epochs=epochs, batch=batch, check=20, average=average, skip=skip)
run = nr.fit(model.to(dtype), objective, x, training=training, quiet=True)
import os
if int(os.environ.get("RANK", "0")) == 0:
    nr.store.write_tensors(nr.store.Path(out), model.state_dict(), {"speed": run.metrics[-1]["rows_per_second"]})
"""

SPIKE = 20.0  # a norm that some of the 20 steps exceed


def train(
    out: Path,
    processes: int,
    dtype: str,
    sizes: tuple[int, int, int],
    network: str = "Mlp",
    care: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Trains in new processes with one thread each; sizes are epochs, rows, rows a batch. Weights come to `out`.

    `care` is for the running average of the weights, and for the gradient's norm beyond which a step is left out.
    """
    launcher = [sys.executable]
    script = out.with_suffix(".py")
    script.write_text(_TRAIN)
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    words = [*launcher, str(script), str(out), dtype, *map(str, sizes), network, *map(str, care)]
    done = subprocess.run(words, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)


def difference(folder: Path, dtype: str) -> float:
    """Largest difference of any weight after 20 steps, the last batch of each epoch being smaller and odd."""
    from narrows.store import read_tensors

    for processes in (1, 2):
        train(folder / f"{processes}.safetensors", processes, dtype, (4, 4 * 64 + 33, 64), care=(0.5, SPIKE))
    one, two = (read_tensors(folder / f"{n}.safetensors")[0] for n in (1, 2))
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def speeds(folder: Path, rounds: int, network: str, sizes: tuple[int, int, int]) -> dict[int, list[float]]:
    """Rows per second at the last check, alternating."""
    from narrows.store import read_tensors

    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for processes in found:
            out = folder / f"speed-{processes}.safetensors"
            train(out, processes, "float32", sizes, network)
            found[processes].append(read_tensors(out)[1]["speed"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps-only", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result: dict[str, object] = {"float64 after 20 steps": difference(folder, "float64")}
        print(f"largest difference of a weight after 20 steps: float64 {result['float64 after 20 steps']:.2g}")
        if not arguments.steps_only:
            result["float32 after 20 steps"] = difference(folder, "float32")
            print(f"float32 {result['float32 after 20 steps']:.2g}")
            for network, sizes in (("Mlp", (6, 40_960, 2048)), ("Conv", (5, 5_120, 256))):
                found = speeds(folder, arguments.rounds, network, sizes)
                one, two = (statistics.median(found[n]) for n in (1, 2))
                result[network] = {"rows per second": found, "ratio": two / one}
                print(f"{network}, rows/s: one process {one:,.0f}, two {two:,.0f}, ratio {two / one:.2f}")
            target = Path(__file__).parent / "results" / "processes.json"
            target.parent.mkdir(exist_ok=True)
            target.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(float(str(result["float64 after 20 steps"])) > 1e-6)


if __name__ == "__main__":
    main()
