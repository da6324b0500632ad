"""The work of ``experiments.report``: reports of work directories, and the index of runs."""

import datetime
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from backbones.errors import UserError
from experiments.cli import atomic_files, display, narrow_terminals, work_directories
from experiments.results import failures, family_tables, latex, plots, rows, runs, tables
from experiments.results.page import build, content, runs_index

FILES = ('report.html', 'table.md', 'table.csv', 'table.tex', 'score_vs_cost.png')


def write(workdirs: Sequence[Path], output: Path) -> None:
    """Print the tables of the work directories to standard output and write the report's files.

    Args:
        workdirs: the work directories to report on.
        output: the directory to write to.

    Raises:
        UserError: there are no results, such as where every cell failed, whose errors are then printed; or the files
            cannot be written.
    """
    again = ' '.join(f'--workdir {shlex.quote(str(each))}' for each in workdirs)
    elsewhere = '' if [*workdirs] == [output] else f' --output {shlex.quote(str(output))}'
    command = f'python -m experiments.report {again}{elsewhere}'
    console = display.make_console(stderr=False)
    what = 'work directory' if output in workdirs else 'output directory'
    work_directories.check_writable(output, what)
    _check_that_not_all_failed(workdirs, console)
    report = content.read(workdirs, command)
    aggregates = report.aggregates
    views = [tables.view(aggregates, name) for name in report.datasets]
    for view in views:
        _print(tables.rich_table(view), view.least_important, console, output)
        for table in tables.rich_tables_further(view):
            _print(table, range(len(table.columns) - 1, len(view.labels), -1), console, output)
        console.print()
    if report.failures:
        console.print(failures.rich_table(report.failures))
    if report.missing.text():
        console.print(report.missing.text(), style='yellow', soft_wrap=True, markup=False)
    work_directories.make(output, what)
    with atomic_files.os_errors_as_user_errors(lambda: f'all results are kept, and {command} writes the report'):
        with atomic_files.atomic_write(output / 'report.html') as stream:
            stream.write(build.html(report))
        with atomic_files.atomic_write(output / 'table.md') as stream:
            stream.write('\n'.join(map(tables.markdown, views)) + family_tables.markdown(aggregates))
            stream.write(failures.markdown(report.failures) + report.missing.markdown())
        with atomic_files.atomic_write(output / 'table.csv') as stream:
            stream.write(tables.csv_text(aggregates))
        with atomic_files.atomic_write(output / 'table.tex') as stream:
            stream.write(latex.tables(views))
        with atomic_files.atomic_write(output / 'score_vs_cost.png', 'wb') as stream:
            plots.score_against_cost(aggregates).savefig(stream, format='png', dpi=120)
    console.print(f'written: {", ".join(str(output / name) for name in FILES)}', soft_wrap=True)


def _print(table: Table, optional: Sequence[int], console: Console, output: Path) -> None:
    """Print a table of scores, without those columns for which a terminal has no room."""
    sources = [number for number, column in enumerate(table.columns) if column.header == 'weights']
    shown = narrow_terminals.fitted(table, optional, console, breakable=sources)
    console.print(shown.table)
    if note := shown.note(console, f'{output / "table.md"} has all columns'):
        console.print(note, style='yellow', markup=False, highlight=False)


def _check_that_not_all_failed(workdirs: Sequence[Path], console: Console) -> None:
    for workdir in workdirs:
        failed = [] if rows.read(workdir) else failures.remaining([workdir])
        if failed:
            console.print(failures.rich_table(failed))
            raise UserError(
                f'there are no results in {str(workdir)!r}, as every cell that was tried failed ({len(failed)}): '
                f'{failed[0].label}: {failed[0].error}; the command that ran them tries them again'
            )


def write_index(root: Path, output: Path) -> None:
    """Write ``index.html``, which shows every run below a directory.

    Raises:
        UserError: there is no such directory, or the file cannot be written.
    """
    what = 'output directory'
    work_directories.check_writable(output, what)
    found = runs.find(root)
    work_directories.make(output, what)
    file = output / 'index.html'
    with (
        atomic_files.os_errors_as_user_errors(lambda: 'choose another --output'),
        atomic_files.atomic_write(file) as stream,
    ):
        stream.write(runs_index.html(found, root, output, datetime.datetime.now().astimezone()))
    counts = Counter(run.status for run in found)
    told = ', '.join(f'{count} {status}' for status, count in counts.most_common())
    display.make_console(stderr=False).print(
        f'written: {file} ({len(found)} runs{f": {told}" if told else ""})', soft_wrap=True, markup=False
    )
