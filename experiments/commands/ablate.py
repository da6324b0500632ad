"""The work of ``experiments.ablate``: plan, run, report."""

import argparse
import contextlib
import shlex
from collections.abc import Collection, Sequence

import ml_collections
from rich.table import Table

from experiments import tasks
from experiments.ablation import cells, estimate, selection, settings
from experiments.ablation.dependencies import FROZEN_REGIMES
from experiments.ablation.engine import Engine
from experiments.ablation.time_limit import TimeLimit
from experiments.cli import atomic_files, display, narrow_terminals, work_directories
from experiments.cli.exit_status import CellsFailed
from experiments.commands import report
from experiments.data import account, loading, model_input, record
from experiments.data.dataset import Dataset
from experiments.data.model_input import Reader
from experiments.data.options import ReadingOptions
from experiments.features.store import Store, parse_size
from experiments.results import rows, shards
from experiments.results.axes import BASELINES, Cell, Settings, Variant
from experiments.training import own_keys
from experiments.training.preemption import Interruption


def run(options: argparse.Namespace, config: ml_collections.ConfigDict) -> None:
    """Plan, run, report."""
    limit = TimeLimit(options.max_hours)
    with Interruption(), limit.alarm():
        _ablate(config, options, limit)


def _ablate(config: ml_collections.ConfigDict, options: argparse.Namespace, limit: TimeLimit) -> None:
    plan = cells.plan(config)
    planned = selection.matching(plan, options.only)
    shard = selection.Shard.parse(options.shard) if options.shard is not None else None
    whole, reading = options.workdir, ReadingOptions.of(config)
    workdir = whole / shards.DIRECTORY / shard.directory if shard else whole
    for name in config.datasets:
        loading.check_place(workdir, name)
    truth = tasks.find(config.training.task).truth
    inputs = model_input.input_kind(planned[0].variant.backbone)
    datasets: dict[str, loading.Dataset] = {}
    # Without them a plan is possible, and a run is not.
    absent: dict[Variant, str] = {}

    def load(name: str) -> loading.Dataset:
        if name not in datasets:
            dataset = loading.load(name, options.data_dir, reading, truth, inputs=inputs)
            datasets[name], lines = model_input.read_by(dataset, readers(config, planned, absent))
            account.show(datasets[name], lines)
        return datasets[name]

    store = Store(options.cache_dir, parse_size(options.cache_size))
    engine = Engine(config, workdir, load, store, options.accept_changed_data, whole if shard else None, limit)
    if shard:
        planned = engine.part(planned, shard)
        if not planned:
            display.console.print(f'shard {options.shard} has no cells')
            return
    # Cheap checks first; all of them before the directory is claimed, which a mistake must not do.
    if options.plan:
        absent |= engine.absent_weights(planned)
    engine.check_without_data([cell for cell in planned if cell.variant not in absent])
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

    def is_stored(cell: Cell, dataset: Dataset) -> bool:
        return cell.variant not in absent and engine.is_stored(cell, dataset)

    def keep_records() -> None:
        for name, dataset in datasets.items():
            record.write(workdir, dataset, stamps[name], record.differences_from(workdir, dataset))

    with atomic_files.os_errors_as_user_errors(lambda: 'finished cells are kept, and the same command continues'):
        if pending:
            _show(estimate.table(pending, len(planned), config, engine.load, is_stored, absent))
        else:
            display.console.print(f'all {len(planned)} cells are finished')
        if options.only and options.plan:
            display.console.print('\n'.join(cell.label for cell in planned), soft_wrap=True, markup=False)
        left_out += [
            f'{variant.label} is planned with the usual input of the backbone, and its weights are not checked: {why}'
            for variant, why in absent.items()
        ]
        for sentence in left_out:
            display.console.print(sentence, style='yellow', soft_wrap=True, markup=False)
        engine.check_with_data([cell for cell in planned if cell.variant not in absent])
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


def _show(plan: Table) -> None:
    """Print a plan, on a narrow terminal without some of what its times are made of."""
    texts = [number for number, column in enumerate(plan.columns) if column.justify == 'left']
    optional = range(len(plan.columns) - 2, len(texts), -1)  # all numbers but those of the cells and the time
    shown = narrow_terminals.fitted(plan, optional, display.console, breakable=texts)
    display.console.print(shown.table)
    if note := shown.note(display.console, 'a wider terminal, or a file, has all columns'):
        display.console.print(note, style='yellow', soft_wrap=True)


def readers(
    config: ml_collections.ConfigDict, planned: Sequence[Cell], absent: Collection[Variant] = ()
) -> list[Reader]:
    """The backbones of cells, each with every input that it is given; without their weights, the usual one."""
    groups: dict[tuple[Variant, Settings], list[Cell]] = {}
    for cell in planned:
        if cell.variant.backbone not in BASELINES:
            groups.setdefault((cell.variant, settings.of_features(cell.settings)), []).append(cell)
    found = []
    for (variant, _), members in groups.items():
        values, weights = cells.resolved(config, members[0]), estimate.without_weights(variant, absent).weights
        each = tasks.input_preprocessing(config.training.task, variant.backbone, weights, values)
        trains = any(cell.regime not in FROZEN_REGIMES for cell in members)
        found.append(Reader(variant.backbone, each, trains, variant.label))
    return found
