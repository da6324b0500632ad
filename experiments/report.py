"""Write the report of work directories, finished or not: python -m experiments.report --workdir DIR [--workdir DIR …]

Or write index.html, which shows every run below a directory: python -m experiments.report --runs DIR

Reads what experiments.ablate and experiments.train wrote and combines it into one table; nothing is recomputed.
Writes report.html, table.md, table.csv, table.tex and score_vs_cost.png into the work directory or into --output,
which several work directories need, so that each keeps its own report.
"""

from backbones.errors import UserError
from experiments.cli import command_line


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
    # Imports NumPy and Matplotlib, which neither help nor a wrong option waits for.
    from experiments.commands import report

    if options.runs is not None:
        report.write_index(options.runs, options.output or options.runs)
        return
    if options.output is None and len(set(options.workdir)) > 1:
        raise UserError(
            f'{len(options.workdir)} work directories need --output DIR for their common report; each keeps its own'
        )
    report.write(options.workdir, options.output or options.workdir[0])


if __name__ == '__main__':
    command_line.run(main)
