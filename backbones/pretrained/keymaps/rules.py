"""Declarative maps between a foreign layout's keys and our paths, readable in both directions.

A map is a list of lines:

- ``Rule``: a key of theirs and a path of ours, both as templates, and how the array changes on the way;
- ``Made``: a key that holds nothing of ours (a counter, an index): dropped on import, made anew on export;
- ``Absent``: a path of ours that this layout never has, and the value to fill it with;
- ``Ignored``: keys of parts we do not have (the neck of a detector, the text tower of CLIP);
- ``Foreign``: keys that only another model's file has, although all the rest would fit.

A template holds fields: ``blocks.{n}.norm1.weight`` and ``stage1/block{n+1}/norm1/scale`` (torch counts from zero, we
count from one). A part of a key in square brackets may be missing in a file and is written on export:
``[vit.]encoder.layer.{n}``.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import ml_dtypes
import numpy as np


@dataclasses.dataclass(frozen=True)
class Transform:
    """How an array changes from their layout to ours, and back; both ways only move values."""

    name: str
    forward: Callable[[np.ndarray], np.ndarray]
    inverse: Callable[[np.ndarray], np.ndarray]


IDENTITY = Transform('', lambda array: array, lambda array: array)
CONVOLUTION = Transform(
    'OIHW to HWIO', lambda array: array.transpose(2, 3, 1, 0), lambda array: array.transpose(3, 2, 0, 1)
)
TRANSPOSE = Transform('transposed', lambda array: array.T, lambda array: array.T)
# A linear layer that is a 1x1 convolution there.
POINTWISE = Transform(
    '1x1 kernel to matrix',
    lambda kernel: kernel.reshape(kernel.shape[:2]).T,
    lambda matrix: matrix.T[:, :, None, None],
)


def flattened(side: int) -> Transform:
    """Transform of a linear layer after a flattened map of ``side`` by ``side``: channels first there, last here."""

    def forward(array: np.ndarray) -> np.ndarray:
        return array.reshape(len(array), -1, side, side).transpose(2, 3, 1, 0).reshape(-1, len(array))

    def inverse(array: np.ndarray) -> np.ndarray:
        out = array.shape[1]
        return array.reshape(side, side, -1, out).transpose(3, 2, 0, 1).reshape(out, -1)

    return Transform('transposed, CHW to HWC', forward, inverse)


@dataclasses.dataclass(frozen=True)
class Rule:
    """One of their arrays, which is one of ours or a part of it.

    Attributes:
        key: template of their key.
        path: template of our path.
        transform: how to get from their axes to ours.
        part: ``(index, count)`` where ours is ``count`` of theirs side by side along the last axis (queries, keys and
            values packed into one kernel).
        span: number of parts that theirs holds, from ``index`` on.
        optional: a model without this path leaves the array unused; anything else is an error.
        alias: an older name of the same array, which is read but never written.
    """

    key: str
    path: str
    transform: Transform = IDENTITY
    part: tuple[int, int] = (0, 1)
    optional: bool = False
    alias: bool = False
    span: int = 1


@dataclasses.dataclass(frozen=True)
class Made:
    """A key that follows from the array at ``path``: dropped on import, made by ``make(that array)`` on export."""

    key: str
    path: str
    make: Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Absent:
    """A path that this layout never has; on import it is filled with ``value``, on export it is left out.

    With ``exact``, an array with other values has no place in the layout.
    """

    path: str
    value: float = 0.0
    exact: bool = False


@dataclasses.dataclass(frozen=True)
class Ignored:
    """Keys that belong to something other than the backbone and its classifier, as a regular expression."""

    pattern: str


@dataclasses.dataclass(frozen=True)
class Foreign:
    """Keys, as a regular expression, that give away a file of another model; the file is refused.

    ``message`` follows the key in the error: ``'belongs to …; load it into …'``.
    """

    pattern: str
    message: str


class UnreadableArrayError(ValueError):
    """An array that no rule can place; the text names its key and what is wrong with it."""


class ForeignFileError(ValueError):
    """A file of another model; the text is the key that gives it away, and the message of its ``Foreign`` line."""


Line = Rule | Made | Absent | Ignored | Foreign


def convolution_rules(key: str, path: str, bias: bool = False) -> list[Line]:
    """A convolution's kernel, and its bias if it has one."""
    kernel = Rule(f'{key}.weight', f'params/{path}/kernel', CONVOLUTION)
    return [kernel, Rule(f'{key}.bias', f'params/{path}/bias')] if bias else [kernel]


def dense_rules(key: str, path: str) -> list[Line]:
    """A linear layer with a bias."""
    return [
        Rule(f'{key}.weight', f'params/{path}/kernel', TRANSPOSE),
        Rule(f'{key}.bias', f'params/{path}/bias'),
    ]


def layer_norm_rules(key: str, path: str) -> list[Line]:
    """A LayerNorm's scale and bias."""
    return [Rule(f'{key}.weight', f'params/{path}/scale'), Rule(f'{key}.bias', f'params/{path}/bias')]


def batch_norm_rules(key: str, path: str) -> list[Line]:
    """A BatchNorm's scale, bias and running statistics; torch's counter of batches is zero on export."""
    return [
        *layer_norm_rules(key, path),
        Rule(f'{key}.running_mean', f'batch_stats/{path}/mean'),
        Rule(f'{key}.running_var', f'batch_stats/{path}/var'),
        Made(f'{key}.num_batches_tracked', f'batch_stats/{path}/mean', lambda mean: np.zeros((), np.int64)),
    ]


def conv_norm_rules(key: str, path: str) -> list[Line]:
    """A convolution without a bias and its BatchNorm (``layers.blocks.ConvNormActivation``)."""
    return [*convolution_rules(f'{key}.conv', f'{path}/conv'), *batch_norm_rules(f'{key}.bn', f'{path}/norm')]


def aliases(lines: Sequence[Line]) -> list[Line]:
    """The same arrays under other names, which are read and never written."""
    return [dataclasses.replace(line, alias=True) for line in lines if isinstance(line, Rule)]


_FIELD = re.compile(r'\{(\w+?)([+-]\d+)?\}|\[(.*?)\]')


@functools.cache
def _compiled(template: str) -> tuple[re.Pattern[str], dict[str, int]]:
    """A regular expression with a group per field, and what each field is shifted by."""
    pattern, shifts, position = '', {}, 0
    for found in _FIELD.finditer(template):
        pattern += re.escape(template[position : found.start()])
        name, shift, optional = found.groups()
        if optional is not None:
            pattern += f'(?:{re.escape(optional)})?'
        else:
            pattern += f'(?P={name})' if name in shifts else rf'(?P<{name}>\d+)'
            shifts[name] = int(shift or 0)
        position = found.end()
    return re.compile(pattern + re.escape(template[position:])), shifts


def match(template: str, text: str) -> dict[str, int] | None:
    """The values of the template's fields if the text matches it."""
    pattern, shifts = _compiled(template)
    found = pattern.fullmatch(text)
    return None if found is None else {name: int(value) - shifts[name] for name, value in found.groupdict().items()}


def fill(template: str, fields: Mapping[str, int]) -> str:
    """The text of a template for these values."""

    def replaced(found: re.Match[str]) -> str:
        name, shift, optional = found.groups()
        return optional if optional is not None else str(fields[name] + int(shift or 0))

    return _FIELD.sub(replaced, template)


class KeyMap:
    """The lines of a layout, arranged to find the one that knows a key."""

    def __init__(self, lines: Sequence[Line]):
        self.lines = lines
        self._literal: dict[str, Line] = {}
        self._templates: list[Line] = []
        self._foreign: list[Foreign] = []
        for line in lines:
            if isinstance(line, Foreign):
                self._foreign.append(line)
            elif isinstance(line, Rule | Made) and not _FIELD.search(line.key):
                self._literal[line.key] = line
            elif not isinstance(line, Absent):
                self._templates.append(line)

    def find(self, key: str) -> tuple[Line, dict[str, int]] | None:
        """The line that knows a foreign key, and the values of its fields."""
        if key in self._literal:
            return self._literal[key], {}
        for line in self._templates:
            if isinstance(line, Ignored):
                if re.fullmatch(line.pattern, key):
                    return line, {}
            elif isinstance(line, Rule | Made) and (fields := match(line.key, key)) is not None:
                return line, fields
        return None

    def refuse_foreign(self, keys: Iterable[str]) -> None:
        """Raise ``ForeignFileError`` for the first of these keys that is another model's."""
        for key in sorted(keys):
            for line in self._foreign:
                if re.fullmatch(line.pattern, key):
                    raise ForeignFileError(f'{key} {line.message}')

    def known(self, keys: Iterable[str]) -> int:
        """How many of these keys belong to this layout; those that are only ignored do not speak for it."""
        found = [self.find(key) for key in keys]
        return sum(each is not None and not isinstance(each[0], Ignored) for each in found)


@dataclasses.dataclass(frozen=True)
class Translation:
    """A file's arrays under our paths.

    Attributes:
        arrays: float32, in our axes.
        keys: path → the file's keys it came from.
        optional: paths that a model need not have.
        converted: path → what was done to the array.
        unexpected: keys that no line knows.
        dropped: keys that hold nothing of ours.
        incomplete: path → keys that are missing for it.
        absent: path templates and the values to fill them with.
    """

    arrays: dict[str, np.ndarray]
    keys: dict[str, tuple[str, ...]]
    optional: frozenset[str]
    converted: dict[str, str]
    unexpected: tuple[str, ...]
    dropped: tuple[str, ...]
    incomplete: dict[str, tuple[str, ...]]
    absent: tuple[Absent, ...]


def translate(arrays: Mapping[str, np.ndarray], keymap: KeyMap) -> Translation:
    """Bring a file's arrays to our paths and axes.

    Raises:
        ForeignFileError: the file belongs to another model.
        UnreadableArrayError: an array is not of floating point, or two keys stand for one path and differ.
        ValueError: ``(key, path, shape)`` of an array with another number of axes than its transform knows.
    """
    keymap.refuse_foreign(arrays)
    parts: dict[str, dict[int, tuple[str, np.ndarray, str, int]]] = {}
    rules: dict[str, tuple[Rule, dict[str, int]]] = {}
    unexpected, dropped = [], []
    for key, array in arrays.items():
        found = keymap.find(key)
        if found is None:
            unexpected.append(key)
            continue
        rule, fields = found
        if not isinstance(rule, Rule):
            dropped.append(key)
        else:
            path = fill(rule.path, fields)
            # Quantised weights are nothing without their scales, which the layouts do not know.
            if array.dtype.kind != 'f' and array.dtype != ml_dtypes.bfloat16:
                raise UnreadableArrayError(
                    f'{key} holds {array.dtype} where weights of floating point are expected; save the weights '
                    'as they were before they were quantised or converted'
                )
            steps = [rule.transform.name] if rule.transform.name else []
            steps += [] if array.dtype == np.float32 else [f'{array.dtype} to float32']
            try:
                moved = rule.transform.forward(array)
            except ValueError:
                raise ValueError(key, path, array.shape) from None
            with np.errstate(over='ignore'):  # what float32 cannot hold is infinite, which the caller looks for
                piece = key, np.asarray(moved, np.float32), ', '.join(steps), rule.span
            other = parts.setdefault(path, {}).setdefault(rule.part[0], piece)
            if other[0] != key and not np.array_equal(other[1], piece[1], equal_nan=True):
                raise UnreadableArrayError(f'{other[0]} and {key} both stand for {path}, and they differ')
            rules[path] = rule, fields

    translated, keys, converted, incomplete = {}, {}, {}, {}
    for path, found in parts.items():
        rule, fields = rules[path]
        count = rule.part[1]
        keys[path] = tuple(found[index][0] for index in sorted(found))
        if sum(span for *_, span in found.values()) < count:
            siblings = [line for line in keymap.lines if isinstance(line, Rule) and line.path == rule.path]
            incomplete[path] = tuple(fill(line.key, fields) for line in siblings if line.part[0] not in found)
            continue
        pieces = [found[index][1] for index in sorted(found)]
        translated[path] = pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=-1)
        steps = [f'{len(pieces)} arrays joined'] * (len(pieces) > 1) + [found[0][2]] * bool(found[0][2])
        if steps:
            converted[path] = ', '.join(steps)
    optional = frozenset(path for path, (rule, _) in rules.items() if rule.optional)
    absent = tuple(line for line in keymap.lines if isinstance(line, Absent))
    return Translation(translated, keys, optional, converted, tuple(unexpected), tuple(dropped), incomplete, absent)


def export(leaves: Mapping[str, np.ndarray], keymap: KeyMap) -> tuple[dict[str, np.ndarray], list[str]]:
    """The inverse of ``translate``: our leaves under their keys, and the paths that this layout has no place for."""
    literal: dict[str, list[Line]] = {}
    templates: list[Line] = []
    for line in keymap.lines:
        if not isinstance(line, Ignored | Foreign):
            if _FIELD.search(line.path):
                templates.append(line)
            else:
                literal.setdefault(line.path, []).append(line)
    arrays, homeless = {}, []
    for path, leaf in leaves.items():
        placed = False
        for line in (*literal.get(path, ()), *templates):
            if isinstance(line, Ignored | Foreign) or (fields := match(line.path, path)) is None:
                continue
            if isinstance(line, Absent) and line.exact and (leaf != np.float32(line.value)).any():
                continue
            placed |= not isinstance(line, Made)
            if isinstance(line, Made):
                arrays[fill(line.key, fields)] = line.make(leaf)
            elif isinstance(line, Rule) and not line.alias:
                index, count = line.part
                piece = leaf
                if count > 1:
                    piece = np.concatenate(np.split(leaf, count, axis=-1)[index : index + line.span], axis=-1)
                arrays[fill(line.key, fields)] = line.transform.inverse(piece)
        if not placed:
            homeless.append(path)
    return arrays, homeless
