"""What all tests share, the examples in docstrings included.

Those stand outside this folder, where a plain conftest fixture does not reach; a plugin's does.
"""

from typing import Any

import pytest
import torch


class Everywhere:
    """Fixtures for tests and doctests alike."""

    @pytest.fixture(autouse=True)
    def seed(self) -> None:
        """Every test draws from seed 0 unless it says otherwise, whatever ran before it."""
        torch.manual_seed(0)

    @pytest.fixture(autouse=True)
    def names(self, doctest_namespace: dict[str, Any]) -> None:
        """Examples find `torch` without importing it."""
        doctest_namespace["torch"] = torch


def pytest_configure(config: pytest.Config) -> None:
    """Hands the fixtures to pytest."""
    config.pluginmanager.register(Everywhere())
