"""The first-party plugins from the sources, whatever has been installed."""

import importlib
import tomllib
from pathlib import Path

import pytest

from onnxq.plugin.registry import Registry, build_registry

PROJECT = Path(__file__).resolve().parents[3] / "pyproject.toml"


@pytest.fixture(scope="session")
def registry() -> Registry:
    """Every plugin that pyproject.toml announces."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf8"))["project"]
    modules = [importlib.import_module(name) for name in project["entry-points"]["onnxq"].values()]
    return build_registry([(module, project["name"], project["version"]) for module in modules])
