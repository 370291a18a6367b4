"""What all tests share, the examples in docstrings and README included."""

from typing import Any

import pytest
import torch

LONG = ("test_planted_bugs", "test_training", "test_cli", "test_contract", "test_flows", "test_beyond")  # by time


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file goes whole to one worker, for its fixtures, the planted bugs in quarters; the longest files come first."""
    order = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONG)))
    for number, item in enumerate(items):
        part = number % 4 if item.path.stem == LONG[0] else ""
        item.add_marker(pytest.mark.xdist_group(f"{item.path.name}{part}"))


@pytest.fixture(autouse=True)
def seed() -> None:
    """Every test draws from seed 0 unless it says otherwise, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def names(doctest_namespace: dict[str, Any]) -> None:
    """Examples find `torch` without importing it."""
    doctest_namespace["torch"] = torch
