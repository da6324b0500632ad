"""Cells of an ablation that failed: ``failures.jsonl`` of a work directory, beside the rows of those that are finished.

A file of its own, so that every row of ``results.jsonl`` has a score. A cell that is finished later is no failure.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from backbones.errors import UserError
from experiments.cli import atomic_files, json_files
from experiments.results import markdown_text, row_types, rows, shards
from experiments.results.axes import Cell

FAILURES = 'failures.jsonl'


@dataclasses.dataclass(frozen=True)
class Failure:
    """One cell that was tried and has no result.

    Attributes:
        cell: its axes.
        error: why, in one line.
        traceback: where it was raised; empty for an error that the user can mend.
    """

    cell: Cell
    error: str
    traceback: str = ''

    @property
    def label(self) -> str:
        """The cell, for people."""
        return self.cell.label

    def as_json(self) -> dict[str, Any]:
        """The failure as the file contains it."""
        shots = {'shots': self.cell.shots} if self.cell.shots else {}
        return {'cell': self.cell.as_json(), **shots, 'error': self.error, 'traceback': self.traceback}

    @staticmethod
    def from_json(row: dict[str, Any]) -> 'Failure':
        """The inverse of ``as_json``."""
        cell = dataclasses.replace(Cell.from_json(row['cell']), shots=row.get('shots', 0))
        return Failure(cell, row['error'], row.get('traceback', ''))


def read(workdir: Path) -> list[Failure]:
    """The failures that a work directory itself holds; none if nothing failed.

    Raises:
        UserError: the file is damaged.
    """
    file = workdir / FAILURES
    lines = json_files.lines(file, 'remove it, and its cells are tried again')
    return [_failure(f'line {number} of {file}', line) for number, line in lines]


def _failure(where: str, line: str) -> Failure:
    try:
        content = json_files.parse_object(line)
        row_types.check_failure(content)
        found = Failure.from_json(content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{where} is not a record of a failed cell ({type(error).__name__}: {error}); remove it, and its cell is '
            'tried again'
        ) from None
    return found


def remaining(workdirs: Sequence[Path]) -> list[Failure]:
    """The failures of work directories and of their shards, of cells that none of them has finished."""
    finished = {row.cell for workdir in workdirs for row in rows.read(workdir)}
    places = [part for workdir in workdirs for part in shards.parts(workdir)]
    found = {each.cell: each for place in places for each in read(place) if each.cell not in finished}
    return list(found.values())


def markdown(failures: Sequence[Failure]) -> str:
    """A section of ``table.md``; empty if nothing failed."""
    if not failures:
        return ''
    lines = markdown_text.table(['cell', 'error'], [[each.label, each.error] for each in failures], labels=2)
    return '\n'.join(['', f'### {_title(failures)}', '', *lines, ''])


def rich_table(failures: Sequence[Failure]) -> Table:
    """The same for the terminal."""
    table = Table(title=_title(failures), title_justify='left')
    for title in ('cell', 'error'):
        table.add_column(title, overflow='fold')
    for each in failures:
        table.add_row(escape(each.label), escape(each.error))
    return table


def _title(failures: Sequence[Failure]) -> str:
    return f'{len(failures)} cell{"" if len(failures) == 1 else "s"} failed'


def write(workdir: Path, failures: Sequence[Failure]) -> None:
    """Write all failures of a work directory; none remove the file.

    Raises:
        OSError: writing fails; the previous ones are kept.
    """
    if failures:
        atomic_files.write_jsonl(workdir / FAILURES, [each.as_json() for each in failures])
    else:
        (workdir / FAILURES).unlink(missing_ok=True)
