"""The terminal itself: lines, one progress bar with the time left, tables; nothing of this package but the listener."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from medgraft.listener import Listener

__all__ = ["listening", "print_table"]


@contextmanager
def listening(console: Console) -> Iterator[Listener]:
    """A listener that prints lines and keeps one progress bar below them."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=1, visible=False)
        current = ""

        def step(what: str, done: int, total: int) -> None:
            nonlocal current
            if what != current:
                progress.reset(task, description=what, total=total)
                current = what
            progress.update(task, completed=done, total=total, visible=done < total)

        def say(text: str) -> None:
            progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

        yield Listener(say=say, step=step)


def print_table(
    console: Console, columns: Sequence[tuple[str, bool]], rows: Sequence[Sequence[str]], title: str = ""
) -> None:
    """Print a table; each column is (heading, whether its cells are numbers).

    Args:
        console: Where to print.
        columns: Heading of each column, and whether its cells are numbers.
        rows: Cells in the order of the columns.
        title: Line above the table; empty for none.
    """
    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for name, is_number in columns:
        table.add_column(name, justify="right" if is_number else "left", no_wrap=is_number)
    for row in rows:
        table.add_row(*row)
    console.print(table)
