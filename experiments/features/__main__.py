"""List the feature store, or make room in it: python -m experiments.features list|prune

    python -m experiments.features list                  list what is stored, most recently used first
    python -m experiments.features prune --size 5GB      remove the least recently used entries until 5 GB are left
    python -m experiments.features prune --days 30       remove what was not used for 30 days
    python -m experiments.features prune --all           remove everything

Entries in use by a running program are never removed. Removed features are recomputed when they are needed.
"""

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from backbones.errors import UserError
from experiments.cli import command_line, display
from experiments.features.store import (
    Store,
    StoredEntry,
    format_size,
    parse_size,
)


def listing(entries: Sequence[StoredEntry], directory: Path) -> Table:
    """One row per entry."""
    total = format_size(sum(entry.size for entry in entries))
    table = Table(title=f'{len(entries)} entries, {total}, in {escape(str(directory))}', title_justify='left')
    for column in ('backbone', 'data set', 'tap', 'examples'):
        table.add_column(column)
    table.add_column('size', justify='right')
    table.add_column('last use')
    table.add_column('state')
    table.add_column('address', no_wrap=True)
    for entry in entries:
        state = 'complete' if entry.complete else 'unfinished or damaged'
        table.add_row(
            *(escape(entry.about.get(name, '?')) for name in ('backbone', 'data', 'tap', 'examples')),
            format_size(entry.size),
            time.strftime('%Y-%m-%d %H:%M', time.localtime(entry.last_use)),
            f'{state}, in use' if entry.in_use else state,
            entry.address[:12],
        )
    return table


def main(argv: list[str] | None) -> None:
    """List or prune."""
    arguments = command_line.parser(__doc__, config=False, workdir=False)
    arguments.add_argument('action', choices=('list', 'prune'))
    command_line.add_cache_directory(arguments, 'the store')
    rule = arguments.add_argument_group('what prune removes (one of them)').add_mutually_exclusive_group()
    rule.add_argument('--size', metavar='SIZE', help='least recently used entries, until SIZE (such as 5GB) is left')
    rule.add_argument('--days', type=float, metavar='N', help='what was not used for N days')
    rule.add_argument('--all', action='store_true', help='everything')
    options = arguments.parse_args(argv)
    store = Store(options.cache_dir)
    if options.cache_dir is not None and not options.cache_dir.is_dir():
        raise UserError(f'there is no directory {str(options.cache_dir)!r}; --cache_dir names a feature store')
    if options.action == 'list':
        if options.size is not None or options.days is not None or options.all:
            raise UserError('--size, --days and --all say what prune removes; list takes none of them')
        display.make_console(stderr=False).print(listing(store.entries(), store.directory))
    else:
        _prune(store, options)


def _prune(store: Store, options: argparse.Namespace) -> None:
    if options.size is None and options.days is None and not options.all:
        raise UserError('prune needs one of --size, --days and --all (see --help)')
    if options.days is not None and not 0 <= options.days < math.inf:
        raise UserError(f'--days takes a number of days of at least 0, not {options.days:g}')
    since = math.inf if options.all else None if options.days is None else time.time() - 86400 * options.days
    removed, kept = store.prune(None if options.size is None else parse_size(options.size), since)
    if options.all:
        store.forget_notes()
    console = display.make_console(stderr=False)
    console.print(f'{len(removed)} entries removed ({format_size(sum(entry.size for entry in removed))})')
    if kept:
        console.print(f'{len(kept)} entries kept because they are in use')


if __name__ == '__main__':
    command_line.run(main)
