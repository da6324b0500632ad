"""Terminal output: progress bars, and the table of trainable and frozen parameters."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:  # it imports JAX, which commands that only read results do not need
    from backbones.freezing import Row


def make_console(stderr: bool) -> Console:
    """A console as wide as the terminal, or 160 columns for a file or a pipe."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=160)


console = make_console(stderr=True)


def progress() -> Progress:
    """A progress bar on standard error with counts, times and a note."""
    return Progress(
        TextColumn('{task.description}'),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(),
        TextColumn('{task.fields[note]}'),
        console=console,
    )


def freeze_table(title: str, rows: 'Sequence[Row]') -> Table:
    """One row per pattern: state, leaves and parameters, with the trainable total below."""
    table = Table(title=title, title_justify='left')
    table.add_column('pattern')
    table.add_column('state')
    table.add_column('leaves', justify='right')
    table.add_column('parameters', justify='right')
    for row in rows:
        style = 'green' if row.state == 'trainable' else 'cyan'
        table.add_row(escape(row.pattern), f'[{style}]{row.state}[/]', f'{row.leaves:,}', f'{row.parameters:,}')
    total = sum(row.parameters for row in rows)
    trainable = sum(row.parameters for row in rows if row.state == 'trainable')
    table.caption = f'{trainable:,} of {total:,} parameters train'
    return table
