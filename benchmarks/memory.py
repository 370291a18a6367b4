"""Does a table larger than memory train in flat memory?

Writes a float32 .npy of 4 GiB (1,048,576 rows of 1,024), fits a VAE on it in shuffled order from the command line, and
watches the anonymous memory of that process (RssAnon: what it holds itself, without the pages of the file).

    python benchmarks/memory.py                    # writes results/memory.json
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROWS, COLUMNS = 1_048_576, 1_024


def peak(child: "subprocess.Popen[str]") -> float:
    """Largest RssAnon of a process until it ends, GiB."""
    most = 0
    while child.poll() is None:
        try:
            lines = Path(f"/proc/{child.pid}/status").read_text().splitlines()
            most = max([most, *(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))])
        except (FileNotFoundError, ProcessLookupError):
            break
        time.sleep(0.05)
    return most / 2**20


def main() -> None:
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as place:
        path = Path(place) / "large.npy"
        x = np.lib.format.open_memmap(path, "w+", np.float32, (ROWS, COLUMNS))
        generator = np.random.default_rng(0)
        mixing = generator.normal(size=(8, COLUMNS)).astype(np.float32)
        for start in range(0, ROWS, 65_536):
            x[start : start + 65_536] = generator.normal(size=(65_536, 8)).astype(np.float32) @ mixing
        x.flush()
        words = [sys.executable, "-m", "narrows", "fit", str(path), "--latent", "8", "--minutes", "2", "--batch", "512"]
        began = time.monotonic()
        child = subprocess.Popen([*words, "--folder", str(Path(place) / "run")], text=True)
        found = peak(child)
        result = {
            "file, GiB": path.stat().st_size / 2**30,
            "peak RssAnon, GiB": round(found, 2),
            "seconds": round(time.monotonic() - began),
            "exit": child.returncode,
        }
    print(json.dumps(result))
    target = Path(__file__).parent / "results" / "memory.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
