"""Which row is for training, which for validation, which for the test.

Rows with equal keys stay together: the key is a hash of the row's bytes (so copies never stand on both sides), of its
group, or its time. Hashes depend on the seed, so that ranking by them is a shuffle, and one that does not see the order
in which the rows were stored.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LEFT", "TEST", "TRAIN", "VALID", "digests", "parts"]

TRAIN, VALID, TEST, LEFT = 0, 1, 2, 3  # what is left belongs to none


def digests(rows: Iterable[Any], seed: int) -> NDArray[np.uint64]:
    """A 64-bit hash of each of some byte strings."""
    key = (seed % 2**64).to_bytes(8, "little")
    return np.frombuffer(b"".join(blake2b(row, digest_size=8, key=key).digest() for row in rows), np.uint64)


def parts(keys: NDArray[Any], valid: float, test: float, ordered: bool = False) -> NDArray[np.uint8]:
    """The part of each row, (n,) uint8, from its key (n,).

    Groups of rows with equal keys go where they fit best, in the order of the keys; with `ordered` the smallest keys
    train, the largest are the test. From 3 rows on, valid and test have one at least where there are enough groups.
    """
    _, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    least = int(len(keys) >= 3)
    counts = {part: max(least, round(len(keys) * share)) for part, share in ((TEST, test), (VALID, valid)) if share > 0}
    want = {part: count for part, count in counts.items() if count}
    chosen = _in_order(sizes, want) if ordered else _by_fit(sizes, want)
    return chosen[group]


def _in_order(sizes: NDArray[Any], want: dict[int, int]) -> NDArray[np.uint8]:
    chosen = np.full(len(sizes), TRAIN, np.uint8)
    end = len(sizes)
    for place, (part, left) in enumerate(want.items()):
        below = len(want) - place  # groups that the parts still to come need
        taken = 0
        while end > below and (taken == 0 or sizes[end - 1] <= 2 * (left - taken)):
            end -= 1
            chosen[end] = part
            taken += int(sizes[end])
    return chosen


def _by_fit(sizes: NDArray[Any], want: dict[int, int]) -> NDArray[np.uint8]:
    chosen = np.full(len(sizes), TRAIN, np.uint8)
    left = dict(want)
    for number, size in enumerate(sizes.tolist()):
        for part in left:
            if size <= 2 * left[part]:  # nearer to what is wanted with it than without
                chosen[number] = part
                left[part] -= size
                break
        if max(left.values(), default=0) <= 0:
            break
    if not (chosen == TRAIN).any():
        chosen[sizes.argmax()] = TRAIN
    for part in (VALID, TEST):  # all groups were too large
        free = np.flatnonzero(chosen == TRAIN)
        if part in want and not (chosen == part).any() and len(free) > 1:
            chosen[free[np.abs(sizes[free] - want[part]).argmin()]] = part
    return chosen
