"""Learning curves: what ``metrics.jsonl`` of a training, or of the trainings of an ablation, says of each epoch."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.cli import json_files
from experiments.results.rows import Row

METRICS = 'metrics.jsonl'
TRAININGS = 'trainings'
_VALIDATION = 'validation_'


@dataclasses.dataclass(frozen=True)
class Curve:
    """One training: what was measured at its evaluations, in their order.

    Attributes:
        directory: that of the training.
        name: what tells it from the others of its work directory, such as its learning rate; empty if it is the only
            one.
        cell: key of the ablation's cell that it is of (``Cell.key``); empty for ``experiments.train``.
        step: the latest step that is known.
        epochs: epochs of training before each evaluation, of all phases together.
        phases: the phase of each evaluation.
        train: training metric → its mean over the steps before each evaluation; ``None`` where there is none.
        validation: validation metric → its values; ``None`` where there is none.
    """

    directory: Path
    name: str
    cell: str
    step: int
    epochs: tuple[float, ...]
    phases: tuple[str, ...]
    train: Mapping[str, tuple[float | None, ...]]
    validation: Mapping[str, tuple[float | None, ...]]

    def steps_per_epoch(self) -> float | None:
        """``None`` before the first evaluation."""
        return self.step / self.epochs[-1] if self.epochs and self.epochs[-1] and self.step else None

    def best(self, metric: str) -> int | None:
        """Which evaluation of the last phase has the highest value of a metric, the first one among equals."""
        values = self.validation.get(metric, ())
        known = [
            (value, -place)
            for place, (value, phase) in enumerate(zip(values, self.phases, strict=False))
            if value is not None and phase == self.phases[-1]
        ]
        return -max(known)[1] if known else None

    def kept(self, metric: str, keep_best: bool) -> int | None:
        """Which evaluation is of the variables that a finished training keeps; ``None`` if none is known."""
        return self.best(metric) if keep_best else len(self.epochs) - 1 if self.epochs else None


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file of lines; none if there is no such file.

    Lines that are no JSON object, such as a last one that is copied or written only in part, are left out.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        text = file.read_text(errors='replace')
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for line in text.splitlines():
        try:
            row = json_files.parse(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            found.append(row)
    return found


def of_training(directory: Path, name: str = '', cell: str = '') -> Curve | None:
    """The curve of a training's directory; ``None`` if nothing has been measured there.

    Raises:
        OSError: the file cannot be read.
    """
    rows = [row for row in read_lines(directory / METRICS) if isinstance(row.get('step'), int)]
    if not rows:
        return None
    # The other rows are of single steps (``log_steps``).
    evaluated = [row for row in rows if _number(row.get('epoch')) is not None]
    names = dict.fromkeys(key for row in evaluated for key in row if key not in ('step', 'epoch', 'phase'))
    values = {key: tuple(_number(row.get(key)) for row in evaluated) for key in names}
    return Curve(
        directory=directory,
        name=name,
        cell=cell,
        step=max(row['step'] for row in rows),
        epochs=tuple(float(row['epoch']) for row in evaluated),
        phases=tuple(str(row.get('phase', '')) for row in evaluated),
        train={key: value for key, value in values.items() if not key.startswith(_VALIDATION)},
        validation={
            key.removeprefix(_VALIDATION): value for key, value in values.items() if key.startswith(_VALIDATION)
        },
    )


def _number(value: Any) -> float | None:
    # JSON of ours has no NaN, but that of other writers may.
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and abs(value) < float('inf') else None


def read(workdir: Path) -> list[Curve]:
    """The curves in a work directory: of its training, or of each learning rate of an ablation's trainings.

    Raises:
        OSError: a file cannot be read.
    """
    own = of_training(workdir)
    found = [] if own is None else [own]
    # Sorted by the rate itself: as text, 1e-05 comes after 0.001.
    for file in sorted(workdir.glob(f'{TRAININGS}/*/*/{METRICS}'), key=lambda file: (file.parts[-3], _rate(file))):
        curve = of_training(file.parent, f'learning rate {file.parent.name}', file.parent.parent.name)
        found += [] if curve is None else [curve]
    return found


def _rate(file: Path) -> float:
    try:
        return float(file.parent.name)
    except ValueError:
        return float('inf')


def selected(curve: Curve, rows: Sequence[Row]) -> Row | None:
    """The finished row that a training led to; ``None`` for one that was not selected, or is not finished."""
    for row in rows:
        if not curve.cell:
            return row
        rate = row.selected.get('learning_rate')
        if row.key == curve.cell and rate is not None and f'{rate:g}' == curve.directory.name:
            return row
    return None
