"""Run an ablation: python -m experiments.ablate --config FILE[:NAME=VALUE,…] --workdir DIR

Plans the cells that the config's axes span, runs those that are not finished in the work directory, and writes the
table of all finished cells. A config may grow: adding a backbone, data set, regime, label fraction or seed runs only
the new cells; a value that finished cells depend on cannot change.
When asked to stop, it exits with status 75 (SIGTERM) or 130 (Ctrl-C; a second one ends at once), and the same command
continues with the unfinished cells.
"""

import argparse

import ml_collections

from experiments import report
from experiments.ablation import cells, estimate
from experiments.ablation.engine import Engine
from experiments.cli import atomic_files, command_line, display
from experiments.data import loading
from experiments.features.store import CACHE_VARIABLE, DEFAULT_LIMIT, Store, default_directory, parse_size
from experiments.training.preemption import Interruption


def main(argv: list[str] | None) -> None:
    """Plan, run, report."""
    arguments = command_line.parser(__doc__, keys=cells.KEYS)
    command_line.add_data_directory(arguments)
    arguments.add_argument(
        '--cache_dir',
        type=command_line.path,
        help=f'feature store shared by all runs (default: {CACHE_VARIABLE}, or {default_directory()})',
    )
    arguments.add_argument(
        '--cache_size',
        default=DEFAULT_LIMIT,
        metavar='SIZE',
        help='size limit of the store; the least recently used features are removed first (default: %(default)s)',
    )
    arguments.add_argument('--plan', action='store_true', help='print the plan with its estimated cost and stop')
    options, config = command_line.parse(arguments, argv)
    with Interruption():
        _ablate(config, options)


def _ablate(config: ml_collections.ConfigDict, options: argparse.Namespace) -> None:
    planned = cells.plan(config)
    workdir = options.workdir
    datasets: dict[str, loading.Dataset] = {}

    def load(name: str) -> loading.Dataset:
        if name not in datasets:
            datasets[name] = loading.load(
                name, options.data_dir, config.stored_size, config.bad_files_limit, config.fit
            )
        return datasets[name]

    store = Store(options.cache_dir, parse_size(options.cache_size))
    engine = Engine(config, workdir, load, store)
    pending = engine.pending(planned)
    with atomic_files.os_errors_as_user_errors(lambda: 'finished cells are kept, and the same command continues'):
        if pending:
            display.console.print(estimate.table(pending, len(planned), config, engine.load))
            if options.plan:
                return
            # Only once the plan fits the data: a mistake must not claim a directory.
            engine.claim(planned)
            engine.run(planned)
        else:
            display.console.print(f'all {len(planned)} cells are finished')
            if options.plan:
                return
            engine.claim(planned)
    report.write([workdir], workdir)


if __name__ == '__main__':
    command_line.run(main)
