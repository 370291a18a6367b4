"""What does it cost to begin: `narrows --help`, `import narrows`, and `import torch` beside it? Medians of ten."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

CALLS = {
    "narrows --help": ["-m", "narrows", "--help"],
    "import narrows": ["-c", "import narrows"],
    "import torch": ["-c", "import torch"],
    "import narrows, a recipe built": ["-c", "import narrows; narrows.recipes.vae((4,), latent=2)"],
}


def main() -> None:
    taken: dict[str, list[float]] = {name: [] for name in CALLS}
    for _ in range(10):
        for name, words in CALLS.items():
            began = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, capture_output=True)
            taken[name].append(time.perf_counter() - began)
    result = {name: statistics.median(v) for name, v in taken.items()}
    for name, seconds in result.items():
        print(f"{name}: {seconds:.2f} s")
    print(f"a recipe built over import torch: {result['import narrows, a recipe built'] / result['import torch']:.2f}")
    target = Path(__file__).parent / "results" / "startup.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
