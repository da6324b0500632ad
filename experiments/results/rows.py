"""The rows of ``results.jsonl``: one per finished cell of an ablation, and one per training of ``experiments.train``.

This is the only place that writes and reads them. A row carries the number of its schema; rows of older versions are
read as if they had been written now (``older_rows``).
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from backbones.errors import UserError
from experiments.cli import atomic_files
from experiments.results import older_rows
from experiments.results.axes import Cell

# Changes when an older reader would misread a row; a new key that has a default does not change it.
SCHEMA = 2
RESULTS = 'results.jsonl'
# Of ``experiments.train``; versions before schema 2 wrote nothing else.
RESULT = 'result.json'
_NUMBER = int | float
_COSTS = ('parameters', 'trainable_parameters', 'flops_per_image', 'images_per_second')
_COUNTS = ('train_examples', 'validation_examples', 'test_examples', 'skipped')


@dataclasses.dataclass(frozen=True)
class Row:
    """One finished cell or training.

    Attributes:
        cell: what it is.
        task: name of the task, such as ``classification``.
        primary: the metric that selected, such as ``accuracy``; a key of ``validation`` and ``test``.
        config: every value that it was run with. Of an ablation: ``image_size``, ``fit``, … and, of a head on stored
            features, the regime's own values under its name (``linear``), or else ``training_learning_rates`` and
            ``training``, all values of the selected training. Of ``experiments.train``: its config.
        validation: every metric on the validation split, as shares of 1 where they are shares.
        test: every metric on the test split.
        selected: the hyper-parameters that validation chose; none where there was no choice.
        at_edge: names of those of them that lie at an edge of their grid.
        choices: number of settings that validation chose among; ``None`` of ``experiments.train``, which chooses none.
        depends_on_seed: whether another seed could have given another value.
        costs: ``parameters`` (of the backbone), ``trainable_parameters``, ``flops_per_image`` (of the backbone's
            forward pass, a multiply-add is two), ``flops_counted_in`` (``'traced program'``, or of older versions
            ``'compiled program'``) and ``images_per_second``; ``None`` for what is not known.
        data: ``provenance``, ``fingerprint``, ``train_examples``, ``validation_examples``, ``test_examples`` and
            ``skipped`` (number of files or records that could not be read).
        versions: of the packages, and the device.
        predictions: file with the scores of the test examples, relative to the work directory.
        weights_digest: SHA-256 of the file of pretrained weights, where there is one on this machine.
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

    @property
    def score(self) -> float:
        """The primary metric on the test split."""
        return self.test[self.primary]

    def as_json(self) -> dict[str, Any]:
        """As it stands in the file."""
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
        }

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> 'Row':
        """The inverse of ``as_json``, of a row of this schema."""
        return Row(
            cell=Cell.from_json(row['cell']),
            task=row['task'],
            primary=row['primary'],
            config=row['config'],
            validation=row['metrics']['validation'],
            test=row['metrics']['test'],
            selected=row['selected'],
            at_edge=tuple(row['at_edge']),
            choices=row['choices'],
            depends_on_seed=row['depends_on_seed'],
            costs=row['costs'],
            data=row['data'],
            versions=row['versions'],
            predictions=row['predictions'],
            weights_digest=row.get('weights_digest'),
        )


def read(workdir: Path) -> list[Row]:
    """The rows of a work directory of ``experiments.ablate`` or ``experiments.train``; none where nothing is finished.

    Raises:
        UserError: a file is damaged, or a newer version wrote it.
    """
    file = workdir / RESULTS
    if file.exists():
        # A damaged byte makes one line unreadable, not the file.
        text = file.read_text(errors='replace')
        lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line]
        config = _json(workdir / 'config.json')
        return [_row(f'line {number} of {file}', line, config) for number, line in lines]
    if not (workdir / RESULT).exists():
        return []
    result = _json(workdir / RESULT)
    return [_checked(str(workdir / RESULT), lambda: Row.from_json(older_rows.from_result(result)))]


def write(workdir: Path, rows: Sequence[Row]) -> None:
    """Write all rows of a work directory.

    Raises:
        OSError: the disk refuses; the rows that were there are still there.
    """
    atomic_files.write_jsonl(workdir / RESULTS, [row.as_json() for row in rows])


def _row(where: str, line: str, config: Mapping[str, Any]) -> Row:
    def parsed() -> Row:
        content = json.loads(line)
        schema = content.get('schema', 1)
        if schema > SCHEMA:
            raise UserError(
                f'{where} was written by a newer version (schema {schema}; this one reads up to {SCHEMA}): update it, '
                'or choose another --workdir'
            )
        return Row.from_json(content if schema == SCHEMA else older_rows.from_schema_1(content, config))

    return _checked(where, parsed)


def _checked(where: str, make: Callable[[], Row]) -> Row:
    """A row whose values are what tables take them for.

    Raises:
        UserError: they are not.
    """
    try:
        row = make()
        wrong = [name for name, value in (*row.test.items(), *row.validation.items()) if not isinstance(value, _NUMBER)]
        wrong += [name for name in _COSTS if not isinstance(row.costs[name], _NUMBER | None)]
        wrong += [name for name in ('provenance', 'fingerprint') if not isinstance(row.data[name], str)]
        wrong += [name for name in _COUNTS if not isinstance(row.data[name], int | None)]
        if not isinstance(row.cell.seed, int):
            wrong.append('seed')
        if wrong:
            raise ValueError(f'{wrong[0]} is of another type')
        row.score  # noqa: B018 the primary metric must be there
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f'{where} is no row of results ({type(error).__name__}: {error}); remove it, and its cell runs again'
        ) from None
    return row


def _json(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        return json.loads(file.read_text())
    except ValueError:
        raise UserError(f'{file} is no JSON file; choose another --workdir') from None
