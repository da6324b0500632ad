"""The rows of ``results.jsonl``: one per finished cell of an ablation or run of ``experiments.train``.

Only this module writes and reads them. A row contains its schema number; rows of older versions are converted when
they are read (``older_rows``), and every value of a row is checked then (``row_types``).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np

from backbones.errors import UserError
from experiments.cli import atomic_files, json_files
from experiments.data.truth import Targets
from experiments.results import older_rows, row_types, shards
from experiments.results.axes import Cell
from experiments.results.scores import Predicted, ScoreKind

# Changes when an older reader would misread a row; a new key that has a default does not change it.
SCHEMA = 2
RESULTS = 'results.jsonl'
# Written by ``experiments.train``; versions before schema 2 wrote nothing else.
RESULT = 'result.json'
# With more classes than this, a row has no metrics of single ones; their scores are kept all the same.
MANY_CLASSES = 100


@dataclasses.dataclass(frozen=True)
class Row:
    """One finished cell or training run.

    Attributes:
        cell: its axes.
        task: name of the task, such as ``classification``.
        primary: the metric used for selection, such as ``accuracy``; a key of ``validation`` and ``test``.
        config: every value that it was run with. For ``experiments.train``: its config. For an ablation:
            ``image_size``, ``fit``, … and, for a head on stored features, the regime's own values under its name
            (``linear``); for a training run, the values of its sweep (``training_learning_rates`` and
            ``training_extra_learning_rates``) and all values of the selected run under ``training``.
        validation: every metric on the validation split; shares as fractions of 1. Rows of older versions may have the
            primary one alone.
        test: every metric on the test split.
        selected: the hyper-parameters selected on validation; empty if there was no choice.
        at_edge: names of the selected hyper-parameters that lie at an edge of their grid.
        choices: number of settings that validation chose among; ``None`` for ``experiments.train``, which makes no
            choice.
        depends_on_seed: whether another seed could have given another value.
        costs: ``parameters`` (of the backbone), ``trainable_parameters``, ``flops_per_image`` (of the backbone's
            forward pass, a multiply-add is two), ``flops_counted_in`` (``'traced program'``, or ``'compiled program'``
            for older versions), ``images_per_second``, ``input`` (height and width of the model's input in pixels),
            ``weight_bytes`` (of the backbone's parameters and statistics) and ``peak_memory_bytes`` (of its forward
            pass, ``features.throughput.PROCEDURE``); ``None`` if unknown; rows of older versions may lack the last
            three.
        data: ``provenance``, ``fingerprint``, ``train_examples``, ``validation_examples``, ``test_examples``,
            ``skipped`` (number of files or records that could not be read) and ``inputs``, ``'images'`` or ``'texts'``;
            rows of versions that knew no texts do not have the last, and are of images.
        versions: versions of the packages, and the device.
        predictions: file with the scores of the test examples, relative to the work directory.
        weights_digest: SHA-256 of the file or files of pretrained weights, if they are on this machine.
        place: of a shard, which cell of the whole ablation this is, in the order in which one run computes them.
        robustness: corruption → severity, as text → the primary metric on the test split with it, by name; empty where
            it was not asked for.
    """

    cell: Cell
    task: str
    primary: str
    config: Mapping[str, Any]
    validation: Mapping[str, float]
    test: Mapping[str, float]
    selected: Mapping[str, Any]
    at_edge: tuple[str, ...]
    choices: int | None
    depends_on_seed: bool
    costs: Mapping[str, Any]
    data: Mapping[str, Any]
    versions: Mapping[str, str]
    predictions: str
    weights_digest: str | None = None
    place: int | None = None
    robustness: Mapping[str, Mapping[str, Mapping[str, float]]] = dataclasses.field(default_factory=dict)

    @property
    def score(self) -> float:
        """The primary metric on the test split."""
        return self.test[self.primary]

    @property
    def key(self) -> str:
        """What names its files: the key of its cell when it was computed, before another config key became an axis."""
        return PurePosixPath(self.predictions).stem

    def as_json(self) -> dict[str, Any]:
        """The row as the file contains it."""
        return {
            'schema': SCHEMA,
            'task': self.task,
            'primary': self.primary,
            'cell': self.cell.as_json(),
            'metrics': {'validation': dict(self.validation), 'test': dict(self.test)},
            'selected': dict(self.selected),
            'at_edge': list(self.at_edge),
            'choices': self.choices,
            'depends_on_seed': self.depends_on_seed,
            'costs': dict(self.costs),
            'data': dict(self.data),
            'predictions': self.predictions,
            'config': dict(self.config),
            'versions': dict(self.versions),
            'weights_digest': self.weights_digest,
            **({} if self.place is None else {'place': self.place}),
            **({'robustness': self.robustness} if self.robustness else {}),
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> 'Row':
        """The inverse of ``as_json``, for a row of the current schema."""
        return Row(
            cell=dataclasses.replace(Cell.from_json(row['cell']), shots=row['config'].get('shots', 0)),
            task=row['task'],
            primary=row['primary'],
            config=row['config'],
            validation=row['metrics']['validation'],
            test=row['metrics']['test'],
            selected=row['selected'],
            at_edge=tuple(row['at_edge']),
            choices=row['choices'],
            depends_on_seed=row['depends_on_seed'],
            costs=older_rows.with_input_size(row),
            data=row['data'],
            versions=row['versions'],
            predictions=row['predictions'],
            weights_digest=row.get('weights_digest'),
            place=row.get('place'),
            robustness=row.get('robustness', {}),
        )


class Measuring(Protocol):
    """A task, as far as it computes metrics."""

    def every_metric(  # noqa: D102
        self,
        predictions: Mapping[str, np.ndarray],
        targets: Targets,
        classes: Sequence[str],
        score_kind: ScoreKind = 'logits',
        validation: Predicted | None = None,
    ) -> dict[str, float]: ...


def metrics(
    task: Measuring,
    classes: Sequence[str],
    predicted: Predicted,
    score_kind: ScoreKind = 'logits',
    validation: Predicted | None = None,
) -> dict[str, float]:
    """Every metric of a split that a row keeps; arguments as for ``Task.every_metric``."""
    found = task.every_metric(predicted.predictions, predicted.targets, classes, score_kind, validation)
    return {name: value for name, value in found.items() if '/' not in name or len(classes) <= MANY_CLASSES}


def read(workdir: Path) -> list[Row]:
    """The finished rows in a work directory of ``experiments.ablate`` or ``experiments.train``.

    Rows of its shards follow its own, in the order in which one run would have written them; a cell counts once.

    Raises:
        UserError: a file is damaged, or a newer version wrote it.
    """
    own = _own(workdir)
    parts = [
        dataclasses.replace(row, predictions=(part.relative_to(workdir) / row.predictions).as_posix())
        for part in shards.of(workdir)
        for row in _own(part)
    ]
    if not parts:
        return own
    # A run that continues after its shards writes their rows into its own file, perhaps with further settings.
    known = {row.predictions for row in own}
    parts = [row for row in parts if row.predictions not in known]
    parts.sort(key=lambda row: math.inf if row.place is None else row.place)
    unique: dict[Cell, Row] = {}
    for row in (*own, *parts):
        unique.setdefault(row.cell, row)
    return list(unique.values())


def held(workdir: Path, row: Row) -> tuple[Path, Row]:
    """The part of an ablation that holds the files of a row which ``read`` found, and the row as of that part."""
    part, predictions = shards.holder(workdir, row.predictions)
    return part, dataclasses.replace(row, predictions=predictions)


def files_of(workdir: Path, rows: Sequence[Row]) -> list[str]:
    """The files, relative to a work directory, in which rows that ``read`` found there stand."""
    wanted = {row.predictions for row in rows}
    found = []
    for part in shards.parts(workdir):
        inside = part.relative_to(workdir)
        # A row of a shard may also stand in the file of the whole.
        if any((inside / row.predictions).as_posix() in wanted for row in _own(part)):
            found.append((inside / RESULTS).as_posix())
    return found


def _own(workdir: Path) -> list[Row]:
    """The rows that a work directory itself holds."""
    file = workdir / RESULTS
    advice = 'choose another --workdir'
    if file.exists():
        lines = json_files.lines(file, advice)
        config = json_files.read(workdir / 'config.json', advice) or {}
        return [_row(f'line {number} of {file}', line, config) for number, line in lines]
    result = json_files.read(workdir / RESULT, advice)
    if result is None:
        return []
    return [_checked(str(workdir / RESULT), lambda: older_rows.from_result(result))]


def write(workdir: Path, rows: Sequence[Row]) -> None:
    """Write all rows of a work directory.

    Raises:
        OSError: writing fails; the previous rows are kept.
    """
    atomic_files.write_jsonl(workdir / RESULTS, [row.as_json() for row in rows])


def _row(where: str, line: str, config: Mapping[str, Any]) -> Row:
    def parsed() -> Mapping[str, Any]:
        content = json_files.parse_object(line)
        schema = content.get('schema', 1)
        if type(schema) is not int or schema < 1:
            raise ValueError(f'schema is {schema!r}, expected a whole number')
        if schema > SCHEMA:
            raise UserError(
                f'{where} was written by a newer version (schema {schema}; this one reads up to {SCHEMA}): update it, '
                'or choose another --workdir'
            )
        return content if schema == SCHEMA else older_rows.from_schema_1(content, config)

    return _checked(where, parsed)


def _checked(where: str, make: Callable[[], Mapping[str, Any]]) -> Row:
    """Make a row from what ``make`` gives, once its values have the types that tables expect.

    Raises:
        UserError: it cannot be made, or a value is none of those that ``row_types`` lists.
    """
    try:
        content = make()
        row_types.check(content)
        return Row.from_json(content)
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{where} is not a row of results ({type(error).__name__}: {error}); remove it, and its cell runs again'
        ) from None
