"""What all tests share, the examples in docstrings and README included."""

import re
from typing import Any

import pytest
import torch


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test draws from seed 0 unless it says otherwise, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def names(doctest_namespace: dict[str, Any]) -> None:
    """Examples find `torch` without importing it."""
    doctest_namespace["torch"] = torch


def plain(value: object) -> str:
    """A parameter's name in test names: without the address of a function, which differs from process to process."""
    return re.sub(r" at 0x\w+", "", str(value))
