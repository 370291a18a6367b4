"""What all tests share, the examples in docstrings and README included."""

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
