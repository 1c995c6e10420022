"""`onnxq doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from onnxq.doctor import Fact, State, examine

__all__ = ["doctor"]

_COLOURS = {State.OK: "green", State.NOTE: "yellow", State.BROKEN: "red"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Say what this installation can do on this machine, and what is wrong with it.

    The exit code is 1 if something is broken; each broken thing has its fix beside it.
    """
    facts = examine()
    broken = any(fact.state is State.BROKEN for fact in facts)
    if as_json:
        click.echo(json.dumps({"ok": not broken, "facts": [asdict(fact) for fact in facts]}, indent=2))
    else:
        _print(facts)
    context.exit(1 if broken else 0)


def _print(facts: tuple[Fact, ...]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for overflow in ("ellipsis", "ellipsis", "fold"):  # a path is of no use without its end
        table.add_column(overflow=overflow)
    for fact in facts:
        colour = _COLOURS[fact.state]
        table.add_row(f"[{colour}]{fact.state}[/]", f"[bold]{escape(fact.topic)}[/]", escape(fact.value))
        if fact.fix:
            table.add_row("", "", f"[{colour}]-> {escape(fact.fix)}[/]")
    Console(highlight=False).print(table)
