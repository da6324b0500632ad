"""What the values of a row of ``results.jsonl``, and of a record of a failed cell, may be.

They are checked where they are read, once, so that whatever makes tables and pages need not. A key that the tables
below do not name may have any value.
"""

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any, NamedTuple

# No score, cost, seed or number of examples is larger; its per cent, its square and a mean of many are still numbers.
_LARGEST = 2.0**64


class Kind(NamedTuple):
    """What a value may be.

    Attributes:
        words: the same, for people.
        holds: whether a value is one of these.
        optional: whether its key may be absent.
    """

    words: str
    holds: Callable[[Any], bool]
    optional: bool = False

    def or_null(self) -> 'Kind':
        """The same, or ``null``."""
        return Kind(f'{self.words} or null', lambda value: value is None or self.holds(value), self.optional)

    def or_absent(self) -> 'Kind':
        """The same, and its key may be absent."""
        return self._replace(optional=True)


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) <= _LARGEST


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _LARGEST  # false for those that are no numbers


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and '\0' not in value  # part of the names of files


def _is_setting(value: Any) -> bool:
    if isinstance(value, list):
        return all(map(_is_setting, value))
    return value is None or isinstance(value, bool) or _is_text(value) or _is_any_number(value)


def _is_any_number(value: Any) -> bool:
    # A loss of a training that diverged is none, or huge. Larger whole numbers cannot be written as text.
    return type(value) is float or (type(value) is int and abs(value) < 10**300)


def _is_file_of_scores(value: Any) -> bool:
    if not _is_name(value):
        return False
    file = PurePosixPath(value)
    return not file.is_absolute() and '..' not in file.parts and file.suffix == '.npz'


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_severities(value: Any) -> bool:
    return (
        _is_mapping(value)
        and bool(value)
        and all(severity in ('1', '2', '3', '4', '5') and _is_mapping(each) for severity, each in value.items())
    )


_NAME = Kind('a text without the null character', _is_name)
_TEXT = Kind('a text', _is_text)
_COUNT = Kind('a whole number that is not negative', lambda value: _is_whole(value) and value >= 0)
_COST = Kind('a number that is not negative', lambda value: _is_number(value) and value >= 0)
_MAPPING = Kind('an object', _is_mapping)
_TEXTS = Kind('an object of texts', lambda value: _is_mapping(value) and all(map(_is_text, value.values())))
_SETTINGS = Kind(
    'an object of numbers, texts and lists', lambda value: _is_mapping(value) and all(map(_is_setting, value.values()))
)
_SCORE = Kind(f'a number of at most {_LARGEST:.0e}', _is_number)
_METRIC = Kind('a number', _is_any_number)

_CELL: Mapping[str, Kind] = {
    'backbone': _NAME,
    'weights': _NAME,
    'dataset': _NAME,
    'regime': _NAME,
    'fraction': Kind('a share of 1', lambda value: _is_number(value) and 0 < value <= 1),
    'seed': Kind('a whole number', _is_whole),
    'head': _NAME.or_absent(),
    'settings': _SETTINGS.or_absent(),
}
_ROW: Mapping[str, Kind] = {
    'task': _TEXT,
    'primary': _TEXT,
    'cell': _MAPPING,
    'metrics': _MAPPING,
    'selected': _SETTINGS,
    'at_edge': Kind('a list of texts', lambda value: isinstance(value, list) and all(map(_is_text, value))),
    'choices': _COUNT.or_null(),
    'depends_on_seed': Kind('true or false', lambda value: isinstance(value, bool)),
    'costs': _MAPPING,
    'data': _MAPPING,
    'predictions': Kind('a file .npz in its work directory', _is_file_of_scores),
    'config': _MAPPING,
    'versions': _TEXTS,
    'weights_digest': _TEXT.or_null().or_absent(),
    'place': _COUNT.or_null().or_absent(),
    'robustness': Kind(
        'an object of corruptions with severities from 1 to 5',
        lambda value: _is_mapping(value) and all(map(_is_severities, value.values())),
    ).or_absent(),
}
_COSTS: Mapping[str, Kind] = {
    'parameters': _COST.or_null(),
    'trainable_parameters': _COST.or_null(),
    'flops_per_image': _COST.or_null(),
    'flops_counted_in': _TEXT.or_null().or_absent(),
    'images_per_second': _COST.or_null(),
    'input': Kind(
        'height and width, or the length of texts,',
        lambda value: isinstance(value, list) and len(value) in (1, 2) and all(map(_is_whole, value)),
    )
    .or_null()
    .or_absent(),
    'weight_bytes': _COST.or_null().or_absent(),
    'peak_memory_bytes': _COST.or_null().or_absent(),
}
_DATA: Mapping[str, Kind] = {
    'provenance': _TEXT,
    'fingerprint': _TEXT,
    'train_examples': _COUNT.or_null(),
    'validation_examples': _COUNT.or_null(),
    'test_examples': _COUNT.or_null(),
    'skipped': _COUNT.or_null(),
    # Rows of versions that knew no texts do not say it, and are of images.
    'inputs': Kind("'images' or 'texts'", lambda value: value in ('images', 'texts')).or_absent(),
}
_METRICS: Mapping[str, Kind] = {'validation': _MAPPING, 'test': _MAPPING}
_CONFIG: Mapping[str, Kind] = {'shots': _COUNT.or_absent()}
_FAILURE: Mapping[str, Kind] = {
    'cell': _MAPPING,
    'error': _TEXT,
    'traceback': _TEXT.or_absent(),
    'shots': _COUNT.or_absent(),
}


def check(row: Mapping[str, Any]) -> None:
    """Check the values of a row of the current schema.

    Raises:
        ValueError: a value is missing, or none of those that it may be; names both.
    """
    _check('', row, _ROW)
    for key, kinds in (
        ('cell', _CELL),
        ('metrics', _METRICS),
        ('costs', _COSTS),
        ('data', _DATA),
        ('config', _CONFIG),
    ):
        _check(f'{key}.', row[key], kinds)
    primary = row['primary']
    for split, score in (('validation', _SCORE.or_absent()), ('test', _SCORE)):
        values = row['metrics'][split]
        _check(f'metrics.{split}.', values, {**dict.fromkeys(values, _METRIC), primary: score})
    for name, severities in row.get('robustness', {}).items():
        for severity, each in severities.items():
            _check(f'robustness.{name}.{severity}.', each, {primary: _SCORE})


def check_failure(failure: Mapping[str, Any]) -> None:
    """Check the values of a record of a failed cell.

    Raises:
        ValueError: see ``check``.
    """
    _check('', failure, _FAILURE)
    _check('cell.', failure['cell'], _CELL)


def _check(prefix: str, values: Mapping[str, Any], kinds: Mapping[str, Kind]) -> None:
    if not isinstance(values, Mapping):
        raise ValueError(f'{prefix.rstrip(".") or "it"} is {_shown(values)}, expected an object')
    for key, kind in kinds.items():
        if key not in values:
            if kind.optional:
                continue
            raise ValueError(f'{prefix}{key} is missing')
        if not kind.holds(values[key]):
            raise ValueError(f'{prefix}{key} is {_shown(values[key])}, expected {kind.words}')


def _shown(value: Any) -> str:
    """A value as JSON has it, however long or large it is."""
    if isinstance(value, list | Mapping):
        return f'{"a list" if isinstance(value, list) else "an object"} of {len(value)}'
    if isinstance(value, int) and abs(value) > _LARGEST:
        return 'a number that is too large'
    text = 'null' if value is None else repr(value)
    return text if len(text) <= 40 else f'{text[:40]}…'
