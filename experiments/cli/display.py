"""Terminal output: progress bars, and the table of trainable and frozen parameters."""

import os
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:  # it imports JAX, which commands that only read results do not need
    from backbones.freezing import Row


# Columns that no table reaches.
_UNLIMITED = 1000


def make_console(stderr: bool) -> Console:
    """A console as wide as the terminal; for a file or a pipe, as the variable COLUMNS says or its tables need."""
    console = Console(stderr=stderr)
    if console.is_terminal or os.environ.get('COLUMNS', '').isdigit():
        return console
    return Console(stderr=stderr, width=_UNLIMITED)


console = make_console(stderr=True)


class ProgressLines(Progress):
    """Progress as lines of text, for a log: one when a task begins, one when it ends, and few between.

    Args:
        console: where the lines go.
        seconds: shortest time between two lines of a task.
        clock: the present time in seconds.
    """

    def __init__(self, console: Console, seconds: float = 30.0, clock: Callable[[], float] = time.monotonic):
        super().__init__(console=console, auto_refresh=False)
        self._seconds, self._clock = seconds, clock
        self._begun: dict[TaskID, float] = {}
        self._told: dict[TaskID, float] = {}
        self._brief: set[TaskID] = set()

    def start(self) -> None:
        """Begin; there is nothing to draw."""

    def refresh(self) -> None:
        """Nothing: a line is never drawn again."""

    def stop(self) -> None:
        """Tell the end of every task."""
        for task in list(self._begun):
            self._end(task)

    def add_task(self, description: str, *arguments: Any, **fields: Any) -> TaskID:
        """Begin a task; one with the field ``brief`` is only told if it takes long."""
        task = super().add_task(description, *arguments, **fields)
        self._begun[task] = self._told[task] = self._clock()
        if fields.get('brief'):
            self._brief.add(task)
        else:
            self._tell(task)
        return task

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Change a task."""
        super().update(task_id, **changes)
        self._tell_if_due(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Advance a task."""
        super().advance(task_id, advance)
        self._tell_if_due(task_id)

    def remove_task(self, task_id: TaskID) -> None:
        """End a task."""
        self._end(task_id)
        super().remove_task(task_id)

    def _tell_if_due(self, task: TaskID) -> None:
        if task in self._told and self._clock() - self._told[task] >= self._seconds:
            self._brief.discard(task)
            self._tell(task)

    def _end(self, task: TaskID) -> None:
        begun = self._begun.pop(task, None)
        self._told.pop(task, None)
        if begun is not None and task not in self._brief:
            self._tell(task, f' after {self._clock() - begun:.0f} s')

    def _tell(self, task: TaskID, after: str = '') -> None:
        self._told[task] = self._clock()
        if self.disable:
            return
        state = self._tasks[task]
        note = f', {state.fields["note"]}' if state.fields.get('note') else ''
        total = '' if state.total is None else f' of {state.total:,.0f}'
        line = f'{state.description}: {state.completed:,.0f}{total}{note}{after}'
        self.console.print(line, soft_wrap=True, markup=False, highlight=False)


def progress() -> Progress:
    """Progress on standard error with counts, times and a note: a bar on a terminal, lines elsewhere."""
    if not console.is_terminal:
        return ProgressLines(console)
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


def beside(bar: Progress) -> Console:
    """A console for standard output while a bar is drawn: on a terminal lines go above the bar, not into it."""
    output = make_console(stderr=False)
    return bar.console if bar.console.is_terminal and output.is_terminal else output
