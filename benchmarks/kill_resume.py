"""Is a run that was killed and resumed the run that was never killed, to the last bit?

Trains once undisturbed, then again and again in a child process that gets SIGKILL at a random moment (mid-epoch, mid-
write, wherever it falls), resumes each to the end, and compares the bytes of weights.safetensors and the metrics.

    python benchmarks/kill_resume.py --times 20
"""

import argparse
import json
import math
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_TRAIN = """
import sys, torch, narrows as nr
x = torch.rand(1530, 64, generator=torch.Generator().manual_seed(0)).round()
model, objective = nr.recipes.vae((64,), latent=4, beta=nr.schedules.WarmUp(300))
training = nr.Training(epochs=40, batch=100, check=37, decay="cosine", save_every=0.02)
nr.fit(model, objective, x[:1437], x[1437:], training, sys.argv[1], resume=len(sys.argv) > 2, quiet=True)
"""


def train(folder: Path, resume: bool = False, seconds: float = math.inf) -> float:
    """Trains in a child process, killed `seconds` after its first checkpoint; how long it lived after that."""
    child = subprocess.Popen([sys.executable, "-c", _TRAIN, str(folder), *(["resume"] if resume else [])])
    while child.poll() is None and not (folder / "checkpoint" / "latest.json").exists():
        time.sleep(0.005)
    began = time.monotonic()
    try:
        child.wait(None if math.isinf(seconds) else seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    return time.monotonic() - began


def records(folder: Path) -> list[dict[str, object]]:
    """The metrics without what the clock says."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{k: line[k] for k in ("step", "train", "valid", "beta", "lr")} for line in lines]


def close(a: object, b: object) -> bool:
    """Equal, floats up to the rounding of a sum that was split at the interruption."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(close(a[k], b[k]) for k in a)
    return abs(a - b) <= 1e-9 * abs(a) if isinstance(a, float) and isinstance(b, float) else a == b


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    base = Path(tempfile.mkdtemp())
    length = train(base / "whole")  # of which the first part is used: an idle machine may be quicker later
    weights = (base / "whole" / "weights.safetensors").read_bytes()
    equal = 0
    for number in range(arguments.times):
        folder = base / f"killed-{number}"
        train(folder, seconds=chance.uniform(0, 0.6 * length))
        finished = (folder / "SHA256SUMS").exists()
        step = json.loads((folder / "checkpoint" / "latest.json").read_text())["file"]
        train(folder, resume=True)
        same = (folder / "weights.safetensors").read_bytes() == weights
        told = all(close(a, b) for a, b in zip(records(folder), records(base / "whole"), strict=True))
        equal += same and told
        state = "had finished" if finished else "killed"
        print(
            f"{number}: {state}, resumed from {step}: weights {'equal' if same else 'DIFFER'}, metrics "
            f"{'equal' if told else 'DIFFER'}",
            flush=True,
        )
        shutil.rmtree(folder)
    shutil.rmtree(base)
    print(f"{equal} of {arguments.times} equal to the uninterrupted run, bit for bit")
    sys.exit(equal != arguments.times)


if __name__ == "__main__":
    main()
