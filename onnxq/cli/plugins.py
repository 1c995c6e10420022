"""`onnxq plugins`."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from onnxq.plugin.registry import load_registry

__all__ = ["plugins"]


@click.command()
def plugins() -> None:
    """List every plugin: its family, its name, and the distribution it comes from."""
    table = Table("family", "name", "distribution", "version", box=None, pad_edge=False)
    for plugin in load_registry().all():
        table.add_row(plugin.family, plugin.name, plugin.distribution, plugin.version)
    Console().print(table)
