"""Settings and fixtures of all tests. Being here also puts `tests/` on the path, for graphs.py and tiny_models.py."""

import pytest
from hypothesis import settings

from onnxq.plugin.registry import Registry, load_registry

# The same examples on every run: a failure seen once can be seen again, on any machine.
settings.register_profile("onnxq", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("onnxq")


@pytest.fixture(scope="session")
def registry() -> Registry:
    """The installed plugins."""
    return load_registry()
