"""Keep the rows behind the tables of pages, and write these tables from them: python -m experiments.results keep|tables

    python -m experiments.results keep runs/quickstart results/quickstart   copy what tables need of a work directory
    python -m experiments.results tables README.md docs/results.md          write the tables of pages again
    python -m experiments.results tables --check README.md docs/*.md        only say which differ (exit status 1)

A page says in a comment which rows a table shows:

    <!-- table results/quickstart mnist5k | regime=linear | columns=backbone, weights, scores, parameters | note -->
    <!-- end of table -->
"""

import sys
from pathlib import Path

from backbones.errors import UserError
from experiments.cli import atomic_files, command_line, display
from experiments.results import kept, pages


def main(argv: list[str] | None) -> None:
    """Keep rows, or write tables."""
    arguments = command_line.parser(__doc__, config=False, workdir=False)
    actions = arguments.add_subparsers(dest='action', required=True, metavar='keep|tables')
    keep = actions.add_parser('keep', help='copy what tables need of a work directory')
    keep.add_argument('workdir', type=command_line.path, help='of experiments.ablate or experiments.train')
    keep.add_argument('output', type=command_line.path, help='the copy, such as results/NAME')
    tables = actions.add_parser('tables', help='write the tables of pages from their rows')
    tables.add_argument('pages', nargs='+', type=command_line.path, help='files of Markdown')
    tables.add_argument('--check', action='store_true', help='change nothing; the exit status says whether any differs')
    options = arguments.parse_args(argv)
    output = display.make_console(stderr=False)
    if options.action == 'keep':
        with atomic_files.os_errors_as_user_errors(lambda: 'the work directory is as it was'):
            size = kept.keep(options.workdir, options.output)
        output.print(f'{options.output}: {size / 1e6:.2f} MB', markup=False, highlight=False, soft_wrap=True)
        return
    differing = []
    for page in options.pages:
        try:
            before = page.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f'{str(page)!r} cannot be read as text ({error})') from None
        after = pages.written(before, Path())
        if after != before:
            differing.append(page)
            if not options.check:
                kept_as_it_was = atomic_files.os_errors_as_user_errors(lambda: 'the page is as it was')
                with kept_as_it_was, atomic_files.atomic_write(page) as stream:
                    stream.write(after)
        state = 'as their rows' if after == before else 'differ from their rows' if options.check else 'written'
        output.print(f'{page}: {len(pages.sources(before))} tables, {state}', markup=False, highlight=False)
    if options.check and differing:
        sys.exit(1)


if __name__ == '__main__':
    command_line.run(main)
