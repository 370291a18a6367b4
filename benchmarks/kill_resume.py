"""Is a run that was killed and resumed the run that was never killed, to the last bit?

Trains once undisturbed, then again and again in a child process that gets SIGKILL at a random moment (mid-epoch, mid-
write, wherever it falls), resumes each to the end, and compares the bytes of weights.safetensors and the metrics.

    python benchmarks/kill_resume.py --times 20
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_TRAIN = """
import sys, narrows as nr
data = nr.data.load("digits")
model, objective = nr.recipes.vae(data.shape, latent=4, likelihood=data.likelihood, beta=nr.schedules.WarmUp(300))
training = nr.Training(epochs=60, batch=100, check=37, decay="cosine", save_every=0.02)
resume = (len(sys.argv) > 2)
nr.fit(model, objective, data, training=training, folder=sys.argv[1], resume=resume, quiet=True)
"""


def train(folder: Path, resume: bool = False, seconds: float | None = None) -> bool:
    """Trains in a child process; killed `seconds` after its first checkpoint. True if it came to its end."""
    words = [sys.executable, "-c", _TRAIN, str(folder), *(["resume"] if resume else [])]
    child = subprocess.Popen(words)
    if seconds is not None:
        while child.poll() is None and not (folder / "checkpoint" / "latest.json").exists():
            time.sleep(0.005)
        time.sleep(seconds)
        child.kill()
    return child.wait() == 0


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
    began = time.monotonic()
    train(base / "whole")
    length = max(0.2, time.monotonic() - began - 2.5)  # less what starting takes
    weights = (base / "whole" / "weights.safetensors").read_bytes()
    equal = 0
    for number in range(arguments.times):
        folder = base / f"killed-{number}"
        finished = train(folder, seconds=chance.uniform(0, length))
        step = json.loads((folder / "checkpoint" / "latest.json").read_text())["file"]
        train(folder, resume=True)
        same = (folder / "weights.safetensors").read_bytes() == weights
        told = all(close(a, b) for a, b in zip(records(folder), records(base / "whole"), strict=True))
        equal += same and told
        state = "had finished" if finished else "killed"
        print(f"{number}: {state}, resumed from {step}: weights {'equal' if same else 'DIFFER'}, metrics "
              f"{'equal' if told else 'DIFFER'}", flush=True)
        shutil.rmtree(folder)
    shutil.rmtree(base)
    print(f"{equal} of {arguments.times} equal to the uninterrupted run, bit for bit")
    sys.exit(equal != arguments.times)


if __name__ == "__main__":
    main()
