"""A folder of Parquet is scored in flat memory, as fast as an array is, and goes on where it was stopped.

Makes --gigabytes of Parquet in --place: files of 65,536 rows of 400 numbers in float64, five factors and noise. A run
is trained on the first file. `narrows detect RUN FOLDER` is then killed (SIGKILL) after a third of the files and
started again; its anonymous memory is read every fifth of a second. Beside it the same detector scores the rows of one
file as an array in memory, twice in between and twice at the end, and its rows a second are those of the detector
alone. The floor is arithmetic: a row is compared with 6,400 others in two spaces of 400, 5 million products.

    python benchmarks/folder.py --place /tmp/folder [--gigabytes 20] [--keep]
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet

import narrows as nr

TARGET = Path(__file__).parent / "results" / "folder.json"
ROWS, COLUMNS, FACTORS = 65_536, 400, 5


def rows(number: int) -> np.ndarray:
    rng, loads = np.random.default_rng(number), np.random.default_rng(0).normal(size=(FACTORS, COLUMNS))
    return rng.normal(size=(ROWS, FACTORS)) @ loads + rng.normal(size=(ROWS, COLUMNS))


def make(folder: Path, gigabytes: float) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    files = round(gigabytes * 1e9 / (ROWS * COLUMNS * 8))
    for number in range(files):
        path = folder / f"part-{number:04d}.parquet"
        if not path.exists():
            part = path.with_suffix(".part")
            parquet.write_table(
                pa.table({f"c{i:03d}": c for i, c in enumerate(rows(number).T)}), part, use_dictionary=False
            )
            part.replace(path)
    return files


def watched(words: list[str], stop_after: int | None, out: Path) -> tuple[float, float, str]:
    """Seconds, peak anonymous MiB and output of a command, killed once `out` holds that many files."""
    began, peak = time.monotonic(), 0
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
                peak = max(peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")))
            except (FileNotFoundError, ProcessLookupError, TypeError):
                pass
            if stop_after is not None and len(list(out.glob("*.parquet"))) >= stop_after:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.2)
        said = process.stdout.read() if process.stdout else ""
    return time.monotonic() - began, peak / 1024, said


def in_memory(run: str, number: int) -> float:
    """Rows a second of the detector on an array."""
    loaded = nr.load(run)
    from safetensors.torch import load_file

    detector = nr.tasks.Detector.of(loaded.model, "combined", load_file(f"{run}/detector-combined.safetensors"))
    x = loaded.data.scaling(torch.from_numpy(rows(number))).float()
    began = time.monotonic()
    detector.score(x)
    return len(x) / (time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--place", type=Path, required=True)
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--keep", action="store_true", help="the folder, for another time")
    asked = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    folder, run, out = asked.place / "rows", str(asked.place / "run"), asked.place / "scored"
    files = make(folder, asked.gigabytes)
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e9
    print(f"{files} files, {size:.1f} GB", flush=True)
    narrows = [sys.executable, "-m", "narrows"]
    for old in (Path(run), out):
        shutil.rmtree(old, ignore_errors=True)
    first = [str(folder / "part-0000.parquet"), "--epochs", "2", "--folder", run, "--quiet"]
    subprocess.run([*narrows, "fit", *first], check=True, stdout=subprocess.DEVNULL)
    words = [*narrows, "detect", run, str(folder), "-o", str(out)]
    begun = watched(words, max(1, files // 3), out)
    left = [file.name for file in out.iterdir() if file.suffix != ".part"]
    whole = all(parquet.read_metadata(out / name).num_rows == ROWS for name in left)
    rates = [in_memory(run, number) for number in (1, 2)]
    done = watched(words, None, out)
    rates += [in_memory(run, number) for number in (3, 4)]
    scored = [parquet.read_metadata(file).num_rows for file in sorted(out.glob("*.parquet"))]
    record = {
        "gigabytes": round(size, 1),
        "rows": sum(scored),
        "rows expected": files * ROWS,
        "anonymous MiB, peak": round(max(begun[1], done[1])),
        "rows/s of the folder": round((sum(scored) - len(left) * ROWS) / done[0]),
        "rows/s of an array": round(median(rates)),
        "files whole after SIGKILL": f"{len(left)} of {len(left)}" if whole else "NO",
        "what it says": done[2].splitlines()[-1],
        "parts left": len(list(out.glob("*.part"))),
    }
    record["ratio"] = round(record["rows/s of the folder"] / record["rows/s of an array"], 3)
    TARGET.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
    if not asked.keep:
        shutil.rmtree(asked.place)


if __name__ == "__main__":
    main()
