"""Every run below a directory: its status, its best score, its curve, and how its config differs from the others'."""

import dataclasses
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from backbones.errors import UserError
from experiments.cli import json_files, work_directories
from experiments.results import best_settings, config_differences, curves, failures, planned_cells, run_files, shards
from experiments.results import lines as result_lines
from experiments.results import rows as result_rows
from experiments.results.best_settings import Best
from experiments.results.config_differences import Difference
from experiments.results.curves import Curve
from experiments.results.lines import Line
from experiments.results.rows import Row
from experiments.results.run_files import RunFiles
from experiments.results.run_status import Status, status

Kind = Literal['ablation', 'training', 'pretraining']

_OF_ABLATIONS = (curves.TRAININGS, shards.DIRECTORY)


@dataclasses.dataclass(frozen=True)
class Run:
    """What is known of one work directory.

    Attributes:
        path: the work directory.
        name: its path below the directory that was searched.
        status: see ``run_status``.
        reason: why it failed or cannot be read, or what tells that it is under way; may be empty.
        kind: ``pretraining`` is a training whose weights another run starts from, or of a whole network from random
            weights.
        task: its name; empty if unknown.
        datasets, backbones, weights, regimes: what it is about.
        best: one for each data set, in the order of the results.
        cells_done, cells_planned: of an ablation; ``None`` where not known, as of trainings.
        step, steps: the latest step of a training, and about how many there will be.
        epoch, epochs: the same in epochs.
        changed: when it last progressed, in seconds since 1970; ``None`` if it cannot be read.
        seconds: from its first file to the last, or to now while it is under way; pauses included.
        size: bytes of all files.
        config: every value of its config, by flat key.
        differences: see ``Difference``.
        curve: x and y of a small curve: validation score over epochs, or the test score of an ablation's best setting
            over fractions, or over shots where it has any.
        over: what the x of the curve are.
        report: its report, if there is one.
    """

    path: Path
    name: str
    status: Status
    reason: str = ''
    kind: Kind = 'training'
    task: str = ''
    datasets: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    regimes: tuple[str, ...] = ()
    best: tuple[Best, ...] = ()
    cells_done: int | None = None
    cells_planned: int | None = None
    step: int | None = None
    steps: int | None = None
    epoch: float | None = None
    epochs: float | None = None
    changed: float | None = None
    seconds: float | None = None
    size: int = 0
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    curve: tuple[tuple[float, float], ...] = ()
    over: Literal['epochs', 'fractions', 'shots'] = 'epochs'
    report: Path | None = None


def find(root: Path) -> list[Run]:
    """Every run below a directory, the last changed one first.

    Args:
        root: it may be a work directory itself. Links to directories are followed, each directory once.

    Raises:
        UserError: it is not a directory that can be read.
    """
    if not root.is_dir():
        raise UserError(f'{str(root)!r} is not a directory; --runs takes the directory that holds the work directories')
    now = time.time()
    found = []
    for path, failure in run_files.work_directories_below(root):
        name = '.' if path == root else path.relative_to(root).as_posix()
        if failure:
            found.append(Run(path, name, 'unreadable', failure))
            continue
        try:
            found.append(read(path, name, now))
        except (UserError, OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            found.append(Run(path, name, 'unreadable', _in_words(error), changed=run_files.modified(path)))
    found = _with_pretraining(found)
    return sorted(_with_differences(found), key=lambda run: (-(run.changed or 0.0), run.name))


def _in_words(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError):
        return f'{error.strerror or error} ({error.filename})'
    return f'{type(error).__name__}: {error}'


def read(path: Path, name: str, now: float) -> Run:
    """What is known of a work directory.

    Args:
        path: the work directory.
        name: what it is called.
        now: the present time, in seconds since 1970.

    Raises:
        UserError, OSError, ValueError, …: a file in it is damaged or cannot be read.
    """
    rows = result_rows.read(path)
    config = _config(path, rows)
    lines = result_lines.of_rows([(path, row) for row in rows])
    files, trainings = RunFiles.of(path), [each for part in shards.parts(path) for each in curves.read(part)]
    variants = [text.partition('@') for text in _axis(config, 'backbone')]
    run = Run(
        path=path,
        name=name,
        status='not started',
        task=rows[-1].task if rows else _task(config),
        datasets=_names(row.cell.dataset for row in rows) or _axis(config, 'dataset'),
        backbones=_names(row.cell.variant.backbone for row in rows) or _names(name for name, _, _ in variants),
        weights=_names(row.cell.variant.weights for row in rows) or _names(weights for _, _, weights in variants),
        regimes=_names(row.cell.regime for row in rows) or _axis(config, 'regime'),
        best=best_settings.best(lines),
        changed=files.last,
        size=files.size,
        config=work_directories.flatten(config),
        report=path / run_files.REPORT if (path / run_files.REPORT).is_file() else None,
    )
    # Of several, the one that was written last.
    newest = max(trainings, key=lambda each: run_files.modified(each.directory / curves.METRICS) or 0.0, default=None)
    is_ablation = 'backbones' in config or any((path / name).is_dir() for name in _OF_ABLATIONS)
    run = _as_ablation(run, rows, lines, newest) if is_ablation else _as_training(run, config, rows, newest)
    found, reason = status(path, config, _is_finished(run, rows, files), files, now)
    failed = failures.remaining([path]) if run.kind == 'ablation' else []
    if found == 'interrupted' and failed:
        told = '1 cell failed' if len(failed) == 1 else f'{len(failed):,} cells failed, the first of them'
        found, reason = 'failed', f'{told}: {failed[0].error} ({failed[0].label})'
    end = now if found == 'under way' else files.last
    seconds = None if end is None or files.first is None else end - files.first
    return dataclasses.replace(run, status=found, reason=reason, seconds=seconds)


def _config(path: Path, rows: Sequence[Row]) -> dict[str, Any]:
    file = path / work_directories.CONFIG
    try:
        config = json_files.parse(file.read_text())
    except FileNotFoundError:
        of_shards = (_config(part, ()) for part in shards.of(path))
        return next(filter(None, of_shards), dict(rows[-1].config) if rows else {})
    except ValueError as error:
        raise UserError(f'{file.name} is not a JSON file ({error})') from None
    if not isinstance(config, dict):
        raise UserError(f'{file.name} is no config: it holds no keys')
    return config


def _task(config: Mapping[str, Any]) -> str:
    training = config.get('training', config)
    return str(training.get('task', 'classification')) if isinstance(training, Mapping) else ''


def _axis(config: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values = config.get(f'{key}s', config.get(key, ()))
    return tuple(map(str, values)) if isinstance(values, list | tuple) else (str(values),)


def _names(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _as_ablation(run: Run, rows: Sequence[Row], lines: Sequence[Line], newest: Curve | None) -> Run:
    planned = planned_cells.read(run.path)
    finished = {row.cell.key() for row in rows}
    done = len(finished if planned is None else finished & planned)
    over, curve = best_settings.over_labels(lines)
    return dataclasses.replace(
        run,
        kind='ablation',
        cells_done=done,
        cells_planned=None if planned is None else len(planned),
        step=newest.step if newest else None,
        curve=curve,
        over=over,
    )


def _as_training(run: Run, config: Mapping[str, Any], rows: Sequence[Row], line: Curve | None) -> Run:
    changes: dict[str, Any] = {'kind': 'pretraining' if _from_scratch(config) else 'training'}
    if line is not None:
        per_epoch, epochs = line.steps_per_epoch(), _epochs(run.path, config)
        metric = rows[0].primary if rows else _primary(line)
        values = line.validation.get(metric, ())
        changes |= {
            'step': line.step,
            'steps': round(per_epoch * epochs) if per_epoch and epochs else None,
            'epoch': line.epochs[-1] if line.epochs else None,
            'epochs': epochs,
            'curve': tuple((x, y) for x, y in zip(line.epochs, values, strict=False) if y is not None),
        }
        place = line.best(metric)
        if not rows and place is not None:
            label = ' · '.join((*run.backbones, *run.regimes))
            changes['best'] = (Best(run.datasets[0] if run.datasets else '', metric, values[place], None, label),)
    return dataclasses.replace(run, **changes)


def _from_scratch(config: Mapping[str, Any]) -> bool:
    return not config.get('weights') and config.get('regime') == 'scratch'


def _primary(line: Curve) -> str:
    """The metric that selects, before there is a row that names it: of no single class, and no loss."""
    known = [name for name in line.validation if '/' not in name and name != 'loss']
    return known[0] if known else ''


def _epochs(path: Path, config: Mapping[str, Any]) -> float | None:
    """Epochs of all phases together; early stopping may end them sooner."""
    epochs = config.get('epochs')
    if not isinstance(epochs, int | float):
        return None
    try:
        phases = len(json_files.parse((path / 'parameters.json').read_text()))
    except (OSError, ValueError, TypeError):
        phases = 1
    return float(epochs) + float(config.get('probe_epochs', 0.0)) * (phases > 1)


def _is_finished(run: Run, rows: Sequence[Row], files: RunFiles) -> bool:
    if run.kind != 'ablation':
        return bool(rows)
    if run.cells_planned is not None:
        return run.cells_done == run.cells_planned
    # Versions that recorded no plan wrote the tables after the last cell.
    return bool(rows) and files.has_tables


def _with_pretraining(runs: Sequence[Run]) -> list[Run]:
    """The runs, with those trainings whose weights others start from as pretrainings."""
    named = [name for run in runs for name in (*run.weights, run.config.get('weights')) if isinstance(name, str)]
    places = {os.path.realpath(name.partition('#')[0]) for name in named if '/' in name}
    used = {str(place) for name in places for place in (Path(name), *Path(name).parents)}
    return [
        dataclasses.replace(run, kind='pretraining')
        if run.kind == 'training' and os.path.realpath(run.path) in used
        else run
        for run in runs
    ]


def _with_differences(runs: Sequence[Run]) -> list[Run]:
    """The runs, each with what tells its config from those of the others of its kind and task."""
    groups: dict[tuple[bool, str], list[int]] = {}
    for number, run in enumerate(runs):
        groups.setdefault((run.kind == 'ablation', run.task), []).append(number)
    found = list(runs)
    for members in groups.values():
        each = config_differences.differences([runs[number].config for number in members])
        for number, differences in zip(members, each, strict=True):
            found[number] = dataclasses.replace(runs[number], differences=differences)
    return found
