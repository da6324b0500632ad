"""How an ablation grows in its work directory: what each finished cell depends on, and what may therefore change.

The axes of a config (backbones, datasets, regimes, fractions, seeds) may change at will: cells that are finished are
not run again, and those that the config no longer asks for stay in the results. Every other value may change as long
as no finished cell depends on it.
"""

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backbones.errors import UserError
from backbones.pretrained import sources
from experiments.ablation import cells as ablation_cells
from experiments.ablation.cells import FROZEN_REGIMES, PIXELS, RANDOM, Cell, Variant
from experiments.cli import atomic_files, display, work_directories
from experiments.data.dataset import Dataset
from experiments.results import rows as result_rows
from experiments.results.rows import Row
from experiments.training.config import FREE_KEYS

# Of ``config.training``, what a cell or the ablation sets itself, and what only says how the data are read; the data
# themselves are known by their fingerprint.
_SET_BY_CELL = (
    'dataset', 'backbone', 'weights', 'regime', 'fraction', 'seed', 'learning_rate', 'image_size', 'fit',
)  # fmt: skip
_READING = ('stored_size', 'bad_files_limit')
_NOT_OF_TRAINING = frozenset(f'training.{key}' for key in (*FREE_KEYS, *_SET_BY_CELL, *_READING))

# What a key stood for in versions that did not have it, where that is not its default.
VALUES_BEFORE: Mapping[str, Any] = {'linear.solver': 'adamw'}


def dependencies(cell: Cell, config: Mapping[str, Any]) -> dict[str, Any]:
    """Key → value of everything in a config that the number of a cell depends on.

    The batch size of frozen passes is left out: it says how a pass is computed. ``stored_size`` and what is skipped
    are in the fingerprint of the data.

    Args:
        cell: beside the config, its number depends on itself, on its data and on its weights.
        config: of the ablation, nested.
    """
    flat = work_directories.flatten(config)
    frozen = cell.regime in FROZEN_REGIMES
    keys = ['fit']
    if cell.variant.backbone != PIXELS:
        keys.append('image_size')
    if frozen:
        keys += [key for key in flat if key.startswith(f'{cell.regime}.')]
        keys.append('tap')
        if cell.variant.weights == RANDOM:
            keys.append('calibration_images')
    else:
        keys.append('training_learning_rates')
        keys += [key for key in flat if key.startswith('training.') and key not in _NOT_OF_TRAINING]
    return {key: flat[key] for key in keys if key in flat}


def check(workdir: Path, config: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Whether an ablation may go on in a work directory; nothing is written.

    Args:
        workdir: it need not exist.
        config: what the ablation is now.
        rows: what is finished in it.

    Raises:
        UserError: it is not an ablation's, or a value differs that finished cells depend on (both are named).
    """
    earlier = work_directories.read_config(workdir)
    if earlier is not None and 'backbones' not in earlier:
        raise UserError(
            f"the work directory {str(workdir)!r} belongs to another config (without the key 'backbones', so not of "
            'an ablation); choose another --workdir'
        )
    now = work_directories.as_read_back(config)
    differing: dict[str, list[tuple[Cell, Any, Any]]] = {}
    for row in rows:
        for key, (before, after) in _differences(row.cell, row.config, now).items():
            differing.setdefault(key, []).append((row.cell, before, after))
    if not differing:
        return
    key, found = max(differing.items(), key=lambda item: len(item[1]))
    _, before, after = found[0]
    others = [other for other in differing if other != key]
    more = f' (and {", ".join(others[:3])}{" …" if others[3:] else ""} differ too)' if others else ''
    depend = 'depends' if len(found) == 1 else 'depend'
    raise UserError(
        f'{_count(found)} in {str(workdir)!r} {depend} on {key}, which is {_shown(before)} there and {_shown(after)} '
        f'here{more}: {_named(each for each, _, _ in found)}; give it its earlier value, choose another --workdir, or '
        f'remove the rows of these cells from {result_rows.RESULTS} to have them run again'
    )


def check_data(workdir: Path, dataset: Dataset, rows: Sequence[Row]) -> None:
    """Whether the finished cells of a data set were computed from the data that are there now.

    Raises:
        UserError: their fingerprint differs; the cells are named.
    """
    fingerprint = dataset.fingerprint()
    changed = [row for row in rows if row.cell.dataset == dataset.name and row.data['fingerprint'] != fingerprint]
    if not changed:
        return
    raise UserError(
        f'the data of {dataset.name!r} have changed since they gave {_count(changed)} in {str(workdir)!r} '
        f'(fingerprint {changed[0].data["fingerprint"]} then, {fingerprint} now): '
        f'{_named(row.cell for row in changed)}; bring the data back, choose another --workdir, or remove the rows of '
        f'these cells from {result_rows.RESULTS} to have them run again'
    )


def check_weights(workdir: Path, variants: Iterable[Variant], rows: Sequence[Row]) -> None:
    """Whether the finished cells of some variants were computed from the weights that are there now.

    Raises:
        UserError: the file has changed; the cells are named.
    """
    for variant in variants:
        digest = weights_digest(variant)
        changed = [row for row in rows if row.cell.variant == variant and row.weights_digest not in (None, digest)]
        if digest and changed:
            raise UserError(
                f'the weights {variant.weights!r} have changed since they gave {_count(changed)} in {str(workdir)!r}: '
                f'{_named(row.cell for row in changed)}; bring them back, give the new ones another name, '
                f'choose another --workdir, or remove the rows of these cells from {result_rows.RESULTS} to have them '
                'run again'
            )


def weights_digest(variant: Variant) -> str | None:
    """SHA-256 of a variant's file of weights; ``None`` where it has none on this machine, or several."""
    if variant.backbone == PIXELS or variant.weights == RANDOM or variant.weights.startswith('hf:'):
        return None  # a hub is asked once, when the weights are loaded
    path = sources.resolve(variant.weights)
    if path.is_dir():
        path /= sources.WEIGHTS_FILE
    if not path.is_file():
        return None
    with path.open('rb') as stream:
        return hashlib.file_digest(stream, 'sha256').hexdigest()


def claim(workdir: Path, config: Mapping[str, Any], planned: Sequence[Cell], rows: Sequence[Row]) -> None:
    """Make a work directory this config's, from now on.

    Trainings that were begun with values that have changed since begin again.

    Args:
        workdir: the directory.
        config: what the ablation is now; ``check`` had nothing against it.
        planned: its cells.
        rows: what is finished in the directory.

    Raises:
        UserError: the directory cannot be made or written.
        OSError: the disk refuses later.
    """
    work_directories.make(workdir)
    earlier, now = work_directories.read_config(workdir), work_directories.as_read_back(config)
    if earlier == now:
        return
    if earlier is not None:
        # Rows of older versions lean on config.json: they are written out in full before it changes.
        if rows:
            result_rows.write(workdir, rows)
        finished = {row.cell for row in rows}
        stale = [cell for cell in planned if cell not in finished and _differences(cell, earlier, now)]
        begun = [path for cell in stale if (path := trainings(workdir, cell)).is_dir()]
        for path in begun:
            shutil.rmtree(path)
        if begun:
            display.console.print(f'{len(begun)} unfinished trainings begin again: their values changed')
    work_directories.write_config(workdir, now)


def trainings(workdir: Path, cell: Cell) -> Path:
    """Where the trainings of a cell, one per learning rate, have their checkpoints."""
    return workdir / 'trainings' / cell.key()


def begin_trainings(workdir: Path, cell: Cell, dataset: Dataset) -> Path:
    """``trainings``, without what was begun on other data of the same name.

    Raises:
        OSError: the disk refuses.
    """
    directory = trainings(workdir, cell)
    file, data = directory / 'data.json', {'fingerprint': dataset.fingerprint()}
    # Versions before this file did not write it: theirs go on.
    if file.exists() and json.loads(file.read_text()) != data:
        shutil.rmtree(directory)
        display.console.print(f'{cell.label} begins again: its data changed')
    atomic_files.write_json(file, data)
    return directory


def _differences(cell: Cell, earlier: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Key → values of what a cell depends on and that differs; a key that one side does not have has its default."""
    default = work_directories.as_read_back(ablation_cells.default_config().to_dict())
    defaults = dependencies(cell, default)
    before, after = dependencies(cell, earlier), dependencies(cell, now)
    absent = object()
    found = {}
    for key in dict.fromkeys((*before, *after)):
        values = (
            before.get(key, VALUES_BEFORE.get(key, defaults.get(key, absent))),
            after.get(key, defaults.get(key, absent)),
        )
        # A value that only one side has, and that has no default, is one that this version no longer knows.
        if absent not in values and values[0] != values[1]:
            found[key] = values
    return found


def _shown(value: Any) -> str:
    return repr(tuple(value)) if isinstance(value, list) else repr(value)


def _count(cells: Sequence[object]) -> str:
    return f'{len(cells)} finished cell{"" if len(cells) == 1 else "s"}'


def _named(cells: Iterable[Cell]) -> str:
    named = [cell.label for cell in cells]
    return '; '.join(named[:3]) + (f'; and {len(named) - 3} more' if len(named) > 3 else '')
