"""How freed memory is kept for the next step."""

import torch

__all__ = ["keep_freed"]


def keep_freed() -> None:
    """Makes glibc hold on to freed blocks of up to 31 MiB; elsewhere it does nothing.

    By default a freed block over 128 KiB goes back to the system at once and every step faults its memory in anew,
    which takes up to a third of a step on a CPU. Freeing one larger block raises that bound to its size and the bound
    for returning the top of the heap to twice that (mallopt(3), M_MMAP_THRESHOLD).
    """
    torch.empty(31 << 20, dtype=torch.uint8)
