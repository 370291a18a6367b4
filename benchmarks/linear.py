"""How fast is a linear autoencoder solved, beside scikit-learn's PCA with the same solver, and does it agree?

Fashion-MNIST's 60,000 x 784 training pixels as one float32 array, k = 32. Ours is the `start` of recipe `linear`, from
the array to weights in encoder and decoder; theirs is `PCA(32, svd_solver=...).fit`. Alternating in one process with
the same threads, after one round that is not counted; medians and the ratio of medians. Beside the time of each stands
its floor: the arithmetic that its algorithm cannot do without, at the speed of this machine's matrix products of
60,000 x 784 by 784 x 784, measured in the same rounds. With --cpu the seconds are CPU time, which other work on the
machine disturbs less; with one thread it is what a quiet machine's clock would show. Accuracy is against LAPACK's SVD
of the centred rows in float64.

    NARROWS_DATA=... python benchmarks/linear.py        # writes benchmarks/results/linear.json, 2 threads, minutes
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn
import torch
from sklearn.decomposition import PCA
from threadpoolctl import threadpool_limits

import narrows as nr

K = 32
PEERS = {"covariance": "covariance_eigh", "svd": "full", "randomised": "randomized"}


def timed(call: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds that a call takes."""
    begun = clock()
    call()
    return clock() - begun


def ours(x: np.ndarray, solver: str) -> nr.Autoencoder:
    """A linear autoencoder of the rows."""
    model, _ = nr.recipes.linear(x.shape[1:], latent=K, solver=solver)
    with nr.draws.seeded(0):
        model.start(model, nr.data.rows(x), None)
    return model


def errors(axes: np.ndarray, mean: np.ndarray, x: np.ndarray, exact: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """Of axes (K, d): the squared error of reconstructions beyond the least, and the sine of the largest angle."""
    variances, vectors = exact
    covered = 0.0
    axes = np.linalg.qr(axes.astype(np.float64).T)[0].T
    for part in np.array_split(x, 15):
        covered += float((((part - mean) @ axes.T) ** 2).sum()) / len(x)
    lost, least = variances.sum() - covered, variances[K:].sum()
    angle = np.linalg.norm(axes.T - vectors[:K].T @ (vectors[:K] @ axes.T), 2)
    return {"reconstruction error beyond the least, relative": lost / least - 1, "sine of the largest angle": angle}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--solvers", nargs="*", default=list(PEERS))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    threadpool_limits(arguments.threads)
    clock = time.process_time if arguments.cpu else time.perf_counter
    raw = nr.data.load("fashion-mnist")
    x = np.concatenate([b.x.flatten(1).numpy() for part in (raw.train, raw.valid) for b in part.batches(4096)])
    n, d = x.shape
    wide = torch.from_numpy(x).double()
    mean = wide.mean(0)
    _, s, vectors = torch.linalg.svd(torch.linalg.qr(wide - mean, mode="r").R)
    exact, mean = ((s.square() / n).numpy(), vectors.numpy()), mean.numpy()
    del wide
    y, square = torch.from_numpy(x), torch.rand(d, d)
    width, passes = K + 10, 5
    # half of a product; R of a QR, in float64, which is half as fast; two thin products a pass
    floors = {"covariance": n * d * d, "svd": 2 * (2 * n * d * d), "randomised": passes * 4 * n * d * width}
    result: dict[str, object] = {
        "rows": [n, d], "k": K, "clock": "CPU" if arguments.cpu else "wall", "threads": arguments.threads,
        "rounds": arguments.rounds, "torch": torch.__version__,
        "scikit-learn": sklearn.__version__, "numpy": np.__version__, "machine": platform.processor() or "x86_64",
    }  # fmt: skip
    for solver in arguments.solvers:
        peer = PCA(K, svd_solver=PEERS[solver], random_state=0)
        seconds: dict[str, list[float]] = {"narrows": [], "scikit-learn": [], "product": []}
        for number in range(arguments.rounds + 1):
            calls = (lambda s=solver: ours(x, s)), (lambda p=peer: p.fit(x)), (lambda: y @ square)
            found = [timed(call, clock) for call in calls]
            if number:
                for name, value in zip(seconds, found, strict=True):
                    seconds[name].append(value)
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        speed = 2 * n * d * d / min(seconds["product"])
        w = ours(x, solver).encoder.layers[0].weight.detach().numpy()
        ratio = medians["scikit-learn"] / medians["narrows"]
        result[solver] = {
            "peer": PEERS[solver], "seconds": seconds, "medians": medians, "ratio": ratio,
            "floor, seconds": floors[solver] / speed, "matrix products, GFLOP/s": speed / 1e9,
            "narrows": errors(w, mean, x, exact), "scikit-learn": errors(peer.components_, mean, x, exact),
        }  # fmt: skip
        print(solver, json.dumps({**result[solver], "seconds": None}, indent=1), flush=True)  # type: ignore[dict-item]
    if arguments.solvers == list(PEERS):
        target = Path(__file__).parent / "results" / "linear.json"
        target.write_text(json.dumps(result, indent=1) + "\n")
    sys.exit(0)


if __name__ == "__main__":
    main()
