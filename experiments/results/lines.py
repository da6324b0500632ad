"""Which rows are repetitions of one another with other seeds: those of one line and column of a table."""

import dataclasses
import os
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from experiments.results import keys_of_cells
from experiments.results.axes import Settings, Variant, settings_from_json
from experiments.results.rows import Row


@dataclasses.dataclass(frozen=True)
class Line:
    """The rows of one line and column.

    Attributes:
        dataset: its name, followed by the start of its fingerprint if data of the same name differ.
        variant: backbone and weights.
        head: that of a dense task.
        regime: how it was trained, followed by its work directory's name if several differ in their configs.
        settings: the values of further axes.
        fraction: share of the training labels.
        shots: labelled images of each class; 0 where the fraction counts.
        members: each seed's work directory and row.
    """

    dataset: str
    variant: Variant
    head: str
    regime: str
    settings: Settings
    fraction: float
    shots: int
    members: tuple[tuple[Path, Row], ...]


def of_rows(found: Sequence[tuple[Path, Row]]) -> list[Line]:
    """Group rows, each with its work directory, in the order of their first ones.

    A cell that several directories have with the same config, data and weights counts once.
    """
    labels = _dataset_labels([row for _, row in found])
    several: dict[Path, set[str]] = {}
    for workdir, row in found:
        several.setdefault(workdir, set()).update(key for key, _ in row.cell.settings)
    elsewhere = {workdir: set().union(*several.values()) - keys for workdir, keys in several.items()}
    # Line of the table → the rows of each work directory.
    lines: dict[tuple[str, Variant, str, str, Settings], dict[Path, list[Row]]] = {}
    for workdir, row in found:
        cell = row.cell
        line = (labels[_data_identity(row)], cell.variant, cell.head, cell.regime, _settings(row, elsewhere[workdir]))
        lines.setdefault(line, {}).setdefault(workdir, []).append(row)
    result = []
    for (dataset, variant, head, regime, settings), of_directories in lines.items():
        experiments = _experiments(of_directories)
        for experiment in experiments:
            name = f'{regime} ({next(iter(experiment)).name})' if len(experiments) > 1 else regime
            columns: dict[tuple[float, int], dict[int, tuple[Path, Row]]] = {}
            for workdir, rows in experiment.items():
                for row in rows:
                    seeds = columns.setdefault((row.cell.fraction, _shots(row)), {})
                    seeds.setdefault(row.cell.seed, (workdir, row))
            result += [
                Line(dataset, variant, head, name, settings, fraction, shots, tuple(seeds.values()))
                for (fraction, shots), seeds in columns.items()
            ]
    place = {id(row): index for index, (_, row) in enumerate(found)}
    return sorted(result, key=lambda line: place[id(line.members[0][1])])


# How and where a run computes, and on which label fraction; rows that differ only in these are one experiment.
_NOT_DECISIVE = frozenset(
    {
        'seed', 'fraction', 'shots', 'mesh', 'threads', 'processes', 'prefetch', 'checkpoint_epochs',
        'keep_checkpoints', 'non_finite', 'tensorboard', 'wandb_project', 'bad_files_limit', 'log_steps',
    }
)  # fmt: skip


def _settings(row: Row, wanted: Set[str]) -> Settings:
    """The row's settings, and its values of those wanted keys that it depends on.

    Args:
        row: the row.
        wanted: keys that only other work directories have several values of.
    """
    found = dict(row.cell.settings)
    for key in wanted:
        value: object = row.config
        for name in key.split('.'):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None and _depends(row, key):
            found[key] = value
    # Shots are columns.
    return settings_from_json({key: found[key] for key in sorted(found) if key != 'shots'})


def _depends(row: Row, key: str) -> bool:
    if key == 'severities' and not row.config.get('corruptions'):
        return False
    return keys_of_cells.depends(row.cell, key, frozen=row.cell.regime in row.config)


def _shots(row: Row) -> int:
    return row.config.get('shots', 0)


# The rows of one line, by work directory: those of one config and the same weights, with different seeds, fractions and
# shots.
_Experiment = dict[Path, list[Row]]


def _experiments(of_directories: Mapping[Path, list[Row]]) -> list[_Experiment]:
    """Which work directories repeat one another in a line.

    A directory is never divided: ``ablation.growth`` ensures that cells of one ablation differ in nothing decisive.
    """
    found: list[_Experiment] = []
    for workdir, rows in of_directories.items():
        experiment = next((each for each in found if _is_repeated(each, rows)), None)
        if experiment is None:
            found.append({workdir: rows})
        else:
            experiment[workdir] = rows
    return found


def _is_repeated(experiment: _Experiment, rows: Sequence[Row]) -> bool:
    """Whether rows of another directory have equal values for all keys that both have, and no other weights.

    The name of weights does not tell: a work directory or a file may be trained again, and rows of older versions, or
    of weights that were not on their machine, have no digest. So every row is compared with every other one.
    """
    known = [row for others in experiment.values() for row in others]
    first, other = known[0], rows[0]
    kinds = [('training' in each.config, each.cell.regime in each.config) for each in (first, other)]
    mine, theirs = _decisive(first), _decisive(other)
    digests = {row.weights_digest for row in (*known, *rows)} - {None}
    return kinds[0] == kinds[1] and len(digests) < 2 and all(mine[key] == theirs[key] for key in {*mine} & {*theirs})


def _decisive(row: Row) -> dict[str, object]:
    config = {**row.config, **row.config.get('training', {})}
    apart = {*_NOT_DECISIVE, *row.selected}
    return {key: value for key, value in config.items() if key not in apart and _depends(row, key)}


def _data_identity(row: Row) -> tuple[str, str, str]:
    return row.cell.dataset, row.data['fingerprint'], row.primary


def _dataset_labels(rows: Sequence[Row]) -> dict[tuple[str, str, str], str]:
    """A label for each data identity: the data set's name, extended if it would be ambiguous."""
    identities = list(dict.fromkeys(map(_data_identity, rows)))
    prints = {name: {other[1] for other in identities if other[0] == name} for name, _, _ in identities}
    metrics = {name: {other[2] for other in identities if other[0] == name} for name, _, _ in identities}
    return {
        (name, fingerprint, metric): ' '.join(
            [os.fsencode(name).decode('utf-8', 'backslashreplace')]  # a path may hold bytes that no font has
            + ([f'[{fingerprint[:6]}]'] if len(prints[name]) > 1 else [])
            + ([f'({metric})'] if len(metrics[name]) > 1 else [])
        )
        for name, fingerprint, metric in identities
    }
