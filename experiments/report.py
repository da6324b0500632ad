"""Write the report of work directories, finished or not: python -m experiments.report --workdir DIR [--workdir DIR …]

Or write index.html, which shows every run below a directory: python -m experiments.report --runs DIR

Reads what experiments.ablate and experiments.train wrote and combines it into one table; nothing is recomputed.
Writes report.html, table.md, table.csv, table.tex and score_vs_cost.png into the work directory or into --output,
which several work directories need, so that each keeps its own report.
"""

import datetime
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from backbones.errors import UserError
from experiments.cli import atomic_files, command_line, display, work_directories
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
        for table in (tables.rich_table(view), *tables.rich_tables_further(view)):
            console.print(table)
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


def main(argv: list[str] | None) -> None:
    """Report on work directories."""
    arguments = command_line.parser(__doc__, config=False, workdir=False)
    what = arguments.add_mutually_exclusive_group(required=True)
    what.add_argument(
        '--workdir',
        action='append',
        type=command_line.path,
        help='work directory of experiments.ablate or experiments.train; repeat it to make one table of several',
    )
    what.add_argument(
        '--runs',
        type=command_line.path,
        help='directory of work directories, at any depth: write index.html, which shows them all',
    )
    arguments.add_argument(
        '--output',
        type=command_line.path,
        help='directory for the files (default: the work directory, if there is only one)',
    )
    options = arguments.parse_args(argv)
    if options.runs is not None:
        write_index(options.runs, options.output or options.runs)
        return
    if options.output is None and len(set(options.workdir)) > 1:
        raise UserError(
            f'{len(options.workdir)} work directories need --output DIR for their common report; each keeps its own'
        )
    write(options.workdir, options.output or options.workdir[0])


if __name__ == '__main__':
    command_line.run(main)
