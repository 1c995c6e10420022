"""Progress on the terminal: live bars where there is one, a line per stage otherwise. Both go to stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from onnxq.progress import Progress

__all__ = ["live_progress"]


@contextmanager
def live_progress() -> Iterator[Progress]:
    """Progress for the duration of a command."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(console)
        return
    columns = (
        TextColumn("{task.description:<18}"),
        BarColumn(30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[what]}", style="dim"),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield _Live(bars)


class _Lines:
    """One line per stage."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def stage(self, name: str, total: int) -> None:
        self._console.print(f"{name} ({total})...", highlight=False)

    def step(self, what: str) -> None:
        pass


class _Live:
    """One bar per stage."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None
        self._started = 0

    def stage(self, name: str, total: int) -> None:
        self._finish()
        self._started = 0
        self._task = self._bars.add_task(name, total=total, what="")

    def step(self, what: str) -> None:
        assert self._task is not None
        self._bars.update(self._task, completed=self._started, what=what)
        self._started += 1

    def _finish(self) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=self._started, what="")
