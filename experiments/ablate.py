"""Run an ablation: python -m experiments.ablate --config FILE[:NAME=VALUE,…] --workdir DIR

Plans the cells that the config's axes span, runs those that are not finished in the work directory, and writes the
table of all finished cells. Any key may be given several values, such as --config.image_size='(32, 64)', and is then an
axis too. A config may grow: adding a backbone, data set, regime, label fraction, seed or another value of an axis runs
only the new cells; a value that finished cells depend on cannot change.
A cell that fails is recorded with its error, and the others go on; the exit status is then 3, and the same command
tries the cell again. When asked to stop, it exits with status 75 (SIGTERM, or --max_hours) or 130 (Ctrl-C; a second one
ends at once), and the same command continues with the unfinished cells.
"""

import argparse
import contextlib
import math
import shlex
import threading
from collections.abc import Sequence

import ml_collections

from experiments import report, tasks
from experiments.ablation import cells, estimate, selection, settings
from experiments.ablation.engine import Engine
from experiments.ablation.time_limit import TimeLimit
from experiments.cli import atomic_files, command_line, display, work_directories
from experiments.cli.exit_status import CellsFailed
from experiments.data import account, loading, model_input, record
from experiments.data.dataset import Dataset
from experiments.data.options import ReadingOptions
from experiments.features.store import CACHE_VARIABLE, DEFAULT_LIMIT, Store, default_directory, parse_size
from experiments.results import rows, shards
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
    arguments.add_argument(
        '--only',
        action='append',
        default=[],
        metavar='PATTERN',
        help='run only cells whose label contains this, with *, ? and […] as in a shell (may be repeated; with --plan '
        'the labels are printed)',
    )
    arguments.add_argument(
        '--shard',
        metavar='I/N',
        help='run one of N parts (I from 1), for the jobs of an array; all have the same --workdir',
    )
    arguments.add_argument(
        '--max_hours',
        type=_hours,
        metavar='H',
        help='stop, with exit status 75, before what comes next would pass this many hours',
    )
    options, config = command_line.parse(arguments, argv)
    limit = TimeLimit(options.max_hours)
    with Interruption(), limit.alarm():
        _ablate(config, options, limit)


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours < math.inf:
        raise argparse.ArgumentTypeError(f'{text!r} is no positive number of hours')
    if hours * 3600 > threading.TIMEOUT_MAX:
        raise argparse.ArgumentTypeError(
            f'{text!r} is more than the {threading.TIMEOUT_MAX / 3600:.0f} hours that a timer can wait; without '
            '--max_hours there is no limit'
        )
    return hours


def _ablate(config: ml_collections.ConfigDict, options: argparse.Namespace, limit: TimeLimit) -> None:
    plan = cells.plan(config)
    planned = selection.matching(plan, options.only)
    shard = selection.Shard.parse(options.shard) if options.shard is not None else None
    whole, reading = options.workdir, ReadingOptions.of(config)
    workdir = whole / shards.DIRECTORY / shard.directory if shard else whole
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
    engine = Engine(config, workdir, load, store, options.accept_changed_data, whole if shard else None, limit)
    if shard:
        planned = engine.part(planned, shard)
        if not planned:
            display.console.print(f'shard {options.shard} has no cells')
            return
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
    possible, left_out = engine.possible(planned)
    impossible = set(planned).difference(possible)
    planned = possible
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
        if options.only and options.plan:
            display.console.print('\n'.join(cell.label for cell in planned), soft_wrap=True, markup=False)
        for sentence in left_out:
            display.console.print(sentence, style='yellow', soft_wrap=True, markup=False)
        engine.check_with_data(planned)
        if options.plan:
            return
        with contextlib.ExitStack() as stack:
            if shard:
                stack.enter_context(work_directories.used(work_directories.make(whole), shared=True))
            stack.enter_context(work_directories.used(work_directories.make(workdir)))
            engine.claim(planned, plan, impossible)
            if shard:
                # Of the whole, the command is that of all shards.
                work_directories.write_config(whole, config.to_dict(), without='--shard')
            keep_records()
            failed = _run(engine, planned)
    if rows.read(workdir):
        report.write([workdir], workdir)
    if shard:
        command = f'python -m experiments.report --workdir {shlex.quote(str(whole))}'
        display.console.print(f'{command} makes one table of all shards', soft_wrap=True, markup=False)
    if failed is not None:
        raise failed


def _run(engine: Engine, planned: Sequence[Cell]) -> CellsFailed | None:
    """Run the cells; that some failed is told after the report of the others."""
    try:
        engine.run(planned)
    except CellsFailed as error:
        return error
    return None


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
