"""Run an ablation: python -m experiments.ablate --config FILE[:NAME=VALUE,…] --workdir DIR

Plans the cells that the config's axes span, runs those that are not finished in the work directory, and writes the
table of all finished cells. Any key may be given several values, such as --config.image_size='(32, 64)', and is then an
axis too. A config may grow: adding a backbone, data set, regime, label fraction, seed or another value of an axis runs
only the new cells; a value that finished cells depend on cannot change.
When asked to stop, it exits with status 75 (SIGTERM) or 130 (Ctrl-C; a second one ends at once), and the same command
continues with the unfinished cells.
"""

import argparse
from collections.abc import Sequence

import ml_collections

from experiments import report, tasks
from experiments.ablation import cells, estimate, settings
from experiments.ablation.engine import Engine
from experiments.cli import atomic_files, command_line, display, work_directories
from experiments.data import account, loading, model_input, record
from experiments.data.dataset import Dataset
from experiments.data.options import ReadingOptions
from experiments.features.store import CACHE_VARIABLE, DEFAULT_LIMIT, Store, default_directory, parse_size
from experiments.results.axes import PIXELS, Cell
from experiments.training import own_keys
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
    command_line.add_accept_changed_data(arguments)
    arguments.add_argument('--plan', action='store_true', help='print the plan with its estimated cost and stop')
    options, config = command_line.parse(arguments, argv)
    with Interruption():
        _ablate(config, options)


def _ablate(config: ml_collections.ConfigDict, options: argparse.Namespace) -> None:
    planned = cells.plan(config)
    workdir, reading = options.workdir, ReadingOptions.of(config)
    for name in config.datasets:
        loading.check_place(workdir, name)
    truth = tasks.find(config.training.task).truth
    datasets: dict[str, loading.Dataset] = {}

    def load(name: str) -> loading.Dataset:
        if name not in datasets:
            datasets[name] = loading.load(name, options.data_dir, reading, truth)
            account.show(datasets[name], _inputs(config, planned, datasets[name]))
        return datasets[name]

    store = Store(options.cache_dir, parse_size(options.cache_size))
    engine = Engine(config, workdir, load, store, options.accept_changed_data)
    # Cheap checks first; all of them before the directory is claimed, which a mistake must not do.
    engine.check_without_data(planned)
    if not options.plan:
        work_directories.check_writable(workdir)
    # A finished cell is known by its data, too; they are only read where their files have changed.
    stamps = {
        name: loading.stamp(name, options.data_dir, reading) for name in dict.fromkeys(cell.dataset for cell in planned)
    }
    for name in engine.finished(planned):
        if not record.is_unchanged(workdir, name, stamps[name]):
            engine.load(name)
    planned, left_out = engine.possible(planned)
    left_out += own_keys.unread(cells.resolved(config, planned[0]).training, config.regimes, 'training.')
    pending = engine.pending(planned)

    def keep_records() -> None:
        for name, dataset in datasets.items():
            record.write(workdir, dataset, stamps[name], record.differences_from(workdir, dataset))

    with atomic_files.os_errors_as_user_errors(lambda: 'finished cells are kept, and the same command continues'):
        if pending:
            display.console.print(estimate.table(pending, len(planned), config, engine.load, engine.is_stored))
        else:
            display.console.print(f'all {len(planned)} cells are finished')
        for sentence in left_out:
            display.console.print(sentence, style='yellow', soft_wrap=True, markup=False)
        engine.check_with_data(planned)
        if options.plan:
            return
        with work_directories.used(work_directories.make(workdir)):
            engine.claim(planned)
            keep_records()
            engine.run(planned)
    report.write([workdir], workdir)


def _inputs(config: ml_collections.ConfigDict, planned: Sequence[Cell], dataset: Dataset) -> list[str]:
    """How images reach the input of each variant."""
    found = []
    for cell in {(cell.variant, settings.of_features(cell.settings)): cell for cell in planned}.values():
        variant = cell.variant
        if variant.backbone != PIXELS:
            values = cells.resolved(config, cell)
            each = tasks.input_preprocessing(config.training.task, variant.backbone, variant.weights, values)
            found.append(f'{variant.label}: {model_input.in_words(each, dataset)}')
    return list(dict.fromkeys(found))


if __name__ == '__main__':
    command_line.run(main, continues=True)
