"""What resuming needs, and how it survives a crash.

A state is written under a new name; `latest.json` then points to it in one step, and only then is the old one removed.
Whatever moment the process dies at, `latest.json` names a whole state.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from narrows.store import read_tensors, write_json, write_tensors

__all__ = ["latest", "save"]


def save(folder: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> None:
    """Writes the state of step `about["step"]` and makes it the latest."""
    name = f"step-{about['step']:09d}.safetensors"
    digest = write_tensors(folder / name, tensors, about)
    write_json(folder / "latest.json", {"file": name, "sha256": digest})
    for old in folder.glob("step-*.safetensors"):
        if old.name != name:
            old.unlink()


def latest(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole state, None where there is none yet. Raises ValueError where it has been damaged."""
    pointer = folder / "latest.json"
    if not pointer.exists():
        return None
    named = json.loads(pointer.read_text())
    path = folder / named["file"]
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != named["sha256"]:
        raise ValueError(f"{path} is missing or has been changed since it was written; this run cannot be resumed")
    return read_tensors(path)
