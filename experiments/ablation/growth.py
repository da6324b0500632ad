"""Growth of an ablation in its work directory: what each finished cell depends on, and what may therefore change.

The axes of a config (backbones, datasets, regimes, heads, fractions, seeds, and every key that has several values) may
change freely: finished cells are not run again, and those that the config no longer asks for stay in the results. Any
other value may change as long as no finished cell depends on it. A key may become an axis later: the finished cells
have the value that they were computed with.
"""

import dataclasses
import functools
import hashlib
import itertools
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backbones.errors import UserError, listed
from backbones.pretrained import sources
from experiments.ablation import cells as ablation_cells
from experiments.ablation import settings
from experiments.ablation.cells import RANDOM, Cell, Variant
from experiments.ablation.dependencies import SWEEP, dependencies
from experiments.cli import atomic_files, display, work_directories
from experiments.data import options, record
from experiments.data.dataset import Dataset
from experiments.results import rows as result_rows
from experiments.results import shards
from experiments.results.axes import BASELINES
from experiments.results.rows import Row
from experiments.training import loop

# The value that a version without the key behaved as if it had, where that is not the default.
VALUES_BEFORE: Mapping[str, Any] = {'linear.solver': 'adamw', 'training_extra_learning_rates': 0}


def check(workdir: Path, config: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Check that an ablation may continue in a work directory; nothing is written.

    Args:
        workdir: of the ablation, of which it may be a shard that continues; it need not exist.
        config: the ablation's current config.
        rows: its finished cells, those of shards too.

    Raises:
        UserError: it is not an ablation's, its finished cells are of another task, or a value that they depend on
            differs (both are named).
    """
    earlier = work_directories.read_config(workdir)
    if earlier is not None and 'backbones' not in earlier and not work_directories.is_unused(workdir):
        raise UserError(
            f"the work directory {str(workdir)!r} belongs to another config (without the key 'backbones', so not "
            "an ablation's); choose another --workdir"
        )
    now = work_directories.as_read_back(config)
    # Data of one name are others for another task, which would seem to have changed.
    task = now['training']['task']
    elsewhere = [row for row in rows if row.task != task]
    if elsewhere:
        raise UserError(
            f'{_count(elsewhere)} in {str(workdir)!r} {"is" if len(elsewhere) == 1 else "are"} of the task '
            f'{elsewhere[0].task}, and config key training.task is {task!r}; choose another --workdir'
        )
    differing: dict[str, list[tuple[Row, Any, Any]]] = {}
    several = settings.axes(config, ablation_cells.KEYS)
    for row in rows:
        free = {*several, *(key for key, _ in row.cell.settings)}
        for key, (before, after) in _differences(row.cell, row.config, now).items():
            if key in free:
                continue
            if key == 'training_extra_learning_rates' and _needs_no_extra_rates(row):
                continue
            differing.setdefault(key, []).append((row, before, after))
    if not differing:
        return
    key, found = max(differing.items(), key=lambda item: len(item[1]))
    _, before, after = found[0]
    files = _files(workdir, [row for row, _, _ in found])
    others = [other for other in differing if other != key]
    more = f' (and {listed(others)} differ too)' if others else ''
    depend = 'depends' if len(found) == 1 else 'depend'
    raise UserError(
        f'{_count(found)} in {str(workdir)!r} {depend} on {key}, which is {_shown(before)} there and {_shown(after)} '
        f'here{more}: {_named(row.cell for row, _, _ in found)}; restore its earlier value, '
        f'{_as_axis(key, before, after)}choose another --workdir, or remove the rows of these cells from {files} to '
        'run them again'
    )


def with_settings(rows: Sequence[Row], wanted: Sequence[str]) -> list[Row]:
    """The finished cells with their values of some keys (``axis_keys``) as settings."""
    if not wanted:
        return list(rows)
    before = {**work_directories.flatten(_default_config()), **VALUES_BEFORE}
    return [dataclasses.replace(row, cell=settings.with_values(row.cell, row.config, wanted, before)) for row in rows]


def axis_keys(rows: Sequence[Row], config: Mapping[str, Any]) -> list[str]:
    """The keys that are axes now, or were when a cell was finished."""
    earlier = (key for row in rows for key, _ in row.cell.settings)
    return list(dict.fromkeys((*settings.axes(config, ablation_cells.KEYS), *earlier)))


def check_data(workdir: Path, dataset: Dataset, rows: Sequence[Row], accepted: bool = False) -> list[Row]:
    """Check that the finished cells of a data set were computed from its current data.

    Args:
        accepted: whether the user accepts that the data have changed; these cells are then computed again.

    Returns:
        The rows, without those that are to be computed again; rows of versions whose fingerprint ignored the images
        get the current one.

    Raises:
        UserError: their fingerprint differs; what differs and the cells are named.
    """
    fingerprint = dataset.fingerprint()
    differing = [row for row in rows if row.cell.dataset == dataset.name and row.data['fingerprint'] != fingerprint]
    if not differing:
        return list(rows)
    earlier = dataset.earlier_fingerprint()
    changed = [row for row in differing if row.data['fingerprint'] != earlier]
    if changed and not accepted:
        before = record.read(shards.holder(workdir, changed[0].predictions)[0], dataset.name)
        how = (
            f'fingerprint {changed[0].data["fingerprint"]} then, {fingerprint} now'
            if before is None
            else '; '.join(record.differences(before, dataset))
        )
        raise UserError(
            f'the data of {dataset.name!r} have changed since they produced {_count(changed)} in {str(workdir)!r} '
            f'({how}): {_named(row.cell for row in changed)}; restore the data, choose another --workdir, or compute '
            'these cells again from the new data: --accept_changed_data'
        )
    return [
        dataclasses.replace(row, data={**row.data, 'fingerprint': fingerprint}) if row in differing else row
        for row in rows
        if row not in changed
    ]


def set_aside(workdir: Path, kept: Sequence[Row], before: Sequence[Row]) -> None:
    """Write the rows that are kept; all rows as they were stay in a file of their own.

    Raises:
        OSError: a write fails; ``results.jsonl`` is intact.
    """
    number = next(n for n in itertools.count(1) if not (workdir / f'results.before_{n}.jsonl').exists())
    atomic_files.write_jsonl(workdir / f'results.before_{number}.jsonl', [row.as_json() for row in before])
    result_rows.write(workdir, kept)
    display.console.print(
        f'computed again because their data changed: {len(before) - len(kept)} cells; their earlier rows are in '
        f'results.before_{number}.jsonl',
        style='yellow',
    )


def check_weights(workdir: Path, variants: Iterable[Variant], rows: Sequence[Row]) -> None:
    """Check that the finished cells of some variants were computed from their current weights.

    Raises:
        UserError: a weight file has changed; the cells are named.
    """
    for variant in variants:
        digests = _file_digests(variant)
        digest = _of_all(digests)
        # Of shards, earlier versions took the index alone.
        known = (None, digest, *digests[:1])
        changed = [row for row in rows if row.cell.variant == variant and row.weights_digest not in known]
        if digest and changed:
            raise UserError(
                f'the weights {variant.weights!r} have changed since they produced {_count(changed)} in '
                f'{str(workdir)!r}: {_named(row.cell for row in changed)}; restore them, give the new ones another '
                f'name, choose another --workdir, or remove the rows of these cells from '
                f'{_files(workdir, changed)} to run them again'
            )


def weights_digest(variant: Variant) -> str | None:
    """SHA-256 of a variant's weight file, or of those of all its files; ``None`` if it has none on this machine."""
    return _of_all(_file_digests(variant))


def _file_digests(variant: Variant) -> list[str]:
    if variant.backbone in BASELINES or variant.weights == RANDOM or variant.weights.startswith('hf:'):
        return []  # the hub is only asked when the weights are loaded
    digests = []
    for path in sources.files(variant.weights):
        with path.open('rb') as stream:
            digests.append(hashlib.file_digest(stream, 'sha256').hexdigest())
    return digests


def _of_all(digests: Sequence[str]) -> str | None:
    if len(digests) > 1:
        return hashlib.sha256('\n'.join(digests).encode()).hexdigest()
    return digests[0] if digests else None


def claim(workdir: Path, config: Mapping[str, Any], planned: Sequence[Cell], rows: Sequence[Row]) -> None:
    """Record a config as the work directory's, and the command that this process is.

    Unfinished trainings start over if a value that they depend on has changed.

    Args:
        workdir: the directory.
        config: the ablation's current config, which has passed ``check``.
        planned: its cells.
        rows: the finished cells in the directory.

    Raises:
        UserError: the directory cannot be made or written.
        OSError: a later write fails.
    """
    work_directories.make(workdir)
    earlier, now = work_directories.read_config(workdir), work_directories.as_read_back(config)
    if earlier == now:
        # With other options, such as --only, it may be another command all the same.
        work_directories.record_command(workdir)
        return
    if earlier is not None and 'backbones' not in earlier:
        work_directories.take_over(workdir, "without the key 'backbones', so not an ablation's")
    elif earlier is not None:
        # Rows of older versions refer to config.json: write them out in full before it changes.
        if rows:
            result_rows.write(workdir, rows)
        finished = {row.cell for row in rows}
        pending = [cell for cell in planned if cell not in finished]
        _rename_trainings(workdir, pending, earlier, now)
        stale = [cell for cell in pending if _differences(cell, earlier, now).keys() - set(SWEEP)]
        begun = [path for cell in stale if (path := trainings(workdir, cell)).is_dir()]
        for path in begun:
            shutil.rmtree(path)
        if begun:
            display.console.print(f'{len(begun)} unfinished trainings start over: their values changed')
    work_directories.write_config(workdir, now)


def _rename_trainings(
    workdir: Path, pending: Sequence[Cell], earlier: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    """Let unfinished trainings continue where a key has become an axis, so that their cells have settings."""
    several = settings.axes(earlier, ablation_cells.KEYS)
    for cell in pending:
        before = dataclasses.replace(cell, settings=tuple(each for each in cell.settings if each[0] in several))
        begun = trainings(workdir, before)
        if before != cell and begun.is_dir() and dependencies(before, earlier) == dependencies(cell, now):
            begun.rename(trainings(workdir, cell))


def trainings(workdir: Path, cell: Cell) -> Path:
    """Directory of a cell's trainings, one per learning rate."""
    return workdir / 'trainings' / cell.key()


def has_begun(workdir: Path, cell: Cell) -> bool:
    """Whether a training of a cell has a checkpoint from which it would continue."""
    directory = trainings(workdir, cell)
    return directory.is_dir() and any(loop.has_begun(path) for path in directory.iterdir())


def begin_trainings(workdir: Path, cell: Cell, dataset: Dataset) -> Path:
    """The directory of a cell's trainings, emptied if they were begun on other data of the same name.

    Raises:
        OSError: a write fails.
    """
    directory = trainings(workdir, cell)
    file, data = directory / 'data.json', {'fingerprint': dataset.fingerprint()}
    # Trainings of versions that did not write this file continue.
    if file.exists() and json.loads(file.read_text()) != data:
        shutil.rmtree(directory)
        display.console.print(f'{cell.label} starts over: its data changed')
    atomic_files.write_json(file, data)
    return directory


def _differences(cell: Cell, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Earlier and current value of each key that a cell depends on and that differs; a missing key has its default."""
    defaults = dependencies(cell, _default_config())
    before, after = dependencies(cell, earlier), dependencies(cell, now)
    absent = object()
    found = {}
    for key in dict.fromkeys((*before, *after)):
        values = (
            before.get(key, VALUES_BEFORE.get(key, defaults.get(key, absent))),
            after.get(key, defaults.get(key, absent)),
        )
        # A key that only one side has and that has no default is one that this version no longer knows.
        if absent not in values and values[0] != values[1]:
            found[key] = values
    return found


def _needs_no_extra_rates(row: Row) -> bool:
    """Whether the best learning rate of a finished training lies inside the grid, so that none beyond it was tried."""
    return not row.at_edge and row.choices == len(row.config['training_learning_rates'])


@functools.cache
def _default_config() -> dict[str, Any]:
    return work_directories.as_read_back(ablation_cells.default_config().to_dict())


def _as_axis(key: str, before: Any, after: Any) -> str:
    """How to have both values of a key, if it can be an axis."""
    if isinstance(before, Mapping) or key in options.KEYS:
        return ''
    return f"have both (--config.{key}='({_shown(before)}, {_shown(after)})'), "


def _shown(value: Any) -> str:
    return repr(tuple(value)) if isinstance(value, list) else repr(value)


def _files(workdir: Path, rows: Sequence[Row]) -> str:
    return listed(result_rows.files_of(workdir, rows)) or result_rows.RESULTS


def _count(cells: Sequence[object]) -> str:
    return f'{len(cells)} finished cell{"" if len(cells) == 1 else "s"}'


def _named(cells: Iterable[Cell]) -> str:
    return listed((cell.label for cell in cells), separator='; ')
