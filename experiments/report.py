"""Write the report of a finished or unfinished ablation: python -m experiments.report --workdir DIR

Reads results.jsonl and predictions/; writes table.md, table.csv and accuracy_vs_cost.png; computes nothing twice.
"""

from pathlib import Path

from experiments.cli import atomic_files, command_line, display, work_directories
from experiments.results import plots, tables

FILES = ('table.md', 'table.csv', 'accuracy_vs_cost.png')


def write(workdir: Path) -> None:
    """Print the tables to standard output and write the report's files into the work directory.

    Raises:
        UserError: there are no results, or the directory can't be written.
    """
    entries = tables.load(workdir)
    views = [tables.view(entries, name) for name in tables.datasets(entries)]
    work_directories.make(workdir)
    with atomic_files.atomic_write(workdir / 'table.md') as stream:
        stream.write('\n'.join(map(tables.markdown, views)))
    with atomic_files.atomic_write(workdir / 'table.csv') as stream:
        stream.write(tables.csv_text(entries))
    with atomic_files.atomic_write(workdir / 'accuracy_vs_cost.png', 'wb') as stream:
        plots.accuracy_against_cost(entries).savefig(stream, format='png', dpi=120)
    console = display.make_console(stderr=False)
    for view in views:
        console.print(tables.rich_table(view))
        console.print()
    console.print(f'written: {", ".join(str(workdir / name) for name in FILES)}', soft_wrap=True)


def main(argv: list[str] | None) -> None:
    """Report on one work directory."""
    options = command_line.parser(__doc__, config=False).parse_args(argv)
    write(options.workdir)


if __name__ == '__main__':
    command_line.run(main)
