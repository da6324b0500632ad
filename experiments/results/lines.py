"""Which rows are repetitions of one another with other seeds: those of one line and column of a table."""

import dataclasses
import os
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from experiments.results.axes import PIXELS, Settings, Variant, settings_from_json
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

    A cell that several directories have with the same config and data counts once.
    """
    labels = _dataset_labels([row for _, row in found])
    # Line of the table → its experiments. An experiment has all fractions of one config, so a directory has one line.
    lines: dict[tuple[str, Variant, str, str, Settings], list[_Experiment]] = {}
    repetitions: dict[tuple, dict[int, tuple[Path, Row]]] = {}
    several: dict[Path, set[str]] = {}
    for workdir, row in found:
        several.setdefault(workdir, set()).update(key for key, _ in row.cell.settings)
    elsewhere = {workdir: set().union(*several.values()) - keys for workdir, keys in several.items()}
    for workdir, row in found:
        cell = row.cell
        line = (labels[_data_identity(row)], cell.variant, cell.head, cell.regime, _settings(row, elsewhere[workdir]))
        experiments = lines.setdefault(line, [])
        experiment = next((each for each in experiments if each.takes(workdir, row)), None)
        if experiment is None:
            experiment = _Experiment(workdir, row)
            experiments.append(experiment)
        seeds = repetitions.setdefault((line, cell.fraction, _shots(row), experiments.index(experiment)), {})
        seeds.setdefault(cell.seed, (workdir, row))
    result = []
    for (line, fraction, shots, number), seeds in repetitions.items():
        dataset, variant, head, regime, settings = line
        name = f'{regime} ({lines[line][number].workdir.name})' if len(lines[line]) > 1 else regime
        result.append(Line(dataset, variant, head, name, settings, fraction, shots, tuple(seeds.values())))
    return result


# How and where a run computes, and on which label fraction; rows that differ only in these are one experiment.
_NOT_DECISIVE = frozenset(
    {
        'seed', 'fraction', 'shots', 'mesh', 'threads', 'processes', 'prefetch', 'checkpoint_epochs',
        'keep_checkpoints', 'non_finite', 'tensorboard', 'wandb_project', 'bad_files_limit', 'log_steps',
    }
)  # fmt: skip


# What raw pixels do not depend on, though a row of another work directory may name it.
_OF_NETWORKS = frozenset({'image_size', 'image_height', 'strict_weights', 'calibration_images', 'tap'})


def _settings(row: Row, wanted: Set[str]) -> Settings:
    """The row's settings, and its values of the wanted keys, which only other work directories have several of."""
    found = dict(row.cell.settings)
    for key in wanted:
        value: object = row.config
        for name in key.split('.'):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None and not (row.cell.variant.backbone == PIXELS and key in _OF_NETWORKS):
            found[key] = value
    # Shots are columns.
    return settings_from_json({key: found[key] for key in sorted(found) if key != 'shots'})


def _shots(row: Row) -> int:
    return row.config.get('shots', 0)


@dataclasses.dataclass
class _Experiment:
    """Rows of one config, with different seeds, fractions and shots.

    Attributes:
        workdir: the work directory of the first row.
        first: the first row.
    """

    workdir: Path
    first: Row

    def takes(self, workdir: Path, row: Row) -> bool:
        """Whether a row belongs to it: same work directory, or equal values for all keys that both rows have."""
        if workdir == self.workdir:
            return True  # ``ablation.growth`` ensures that cells of one ablation differ in nothing decisive
        kinds = [('training' in each.config, row.cell.regime in each.config) for each in (self.first, row)]
        mine, theirs = _decisive(self.first), _decisive(row)
        return kinds[0] == kinds[1] and all(mine[key] == theirs[key] for key in {*mine} & {*theirs})


def _decisive(row: Row) -> dict[str, object]:
    config = {**row.config, **row.config.get('training', {})}
    return {key: value for key, value in config.items() if key not in {*_NOT_DECISIVE, *row.selected}}


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
