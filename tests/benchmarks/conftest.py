"""Tests of benchmarks/: fast and offline, but for those marked `suite`, which fetch the real models."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
if str(CHECKOUT) not in sys.path:  # benchmarks/ is not installed: it is imported from the checkout
    sys.path.insert(0, str(CHECKOUT))


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "suite: downloads and scores the public models; run with -m suite")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "suite" in config.getoption("-m"):
        return
    for item in items:
        if item.get_closest_marker("suite"):
            item.add_marker(pytest.mark.skip(reason="downloads the model suite: pytest -m suite"))
