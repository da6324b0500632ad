"""From rows with a text and a label, whatever file they are of, to a data set; what cannot be used is named."""

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from backbones.errors import UserError, listed
from experiments.data import duplicates, text_account, unreadable
from experiments.data.account import number_of
from experiments.data.dataset import Dataset
from experiments.data.options import ReadingOptions
from experiments.data.splits import official_splits
from experiments.data.texts import Texts

# A longer text is a fault of its file, such as a quote that is never closed; no encoder reads a tenth of it.
LONGEST = 100_000
# What stands for a label that is not published.
_UNPUBLISHED = ('', '-1')
_NO_LABEL = 'empty label'
_ALIKE = 'alike but for case and spaces'
# Among as many rows, as many labels name no classes, but a column of texts or numbers.
_MOST_CLASSES_SHARE, _FEW = 0.5, 20


class Row(NamedTuple):
    """A text as its file has it.

    Attributes:
        id: where it is, such as ``train.csv:12``.
        split: ``'train'``, ``'validation'``, ``'test'``, or empty where there are no splits.
        text, label: of any type.
        problem: why it cannot be used, as far as its file tells.
    """

    id: str
    split: str
    text: Any = None
    label: Any = None
    problem: str = ''


class _Checked(NamedTuple):
    id: str
    split: str
    text: str
    label: str


def dataset_of(
    name: str,
    rows: Sequence[Row],
    source: str,
    options: ReadingOptions,
    classes: Sequence[str] | None = None,
    by_text: bool = True,
    left_out: Mapping[str, tuple[str, ...]] | None = None,
    guessed: Sequence[str] = (),
) -> Dataset:
    """Check rows, split them and find duplicates.

    Where a split is made here, all copies of a text, alike but for case and spaces, are in one split.

    Args:
        name: of the data set.
        rows: in the order of the file.
        source: where they come from, in words.
        options: ``bad_files_limit`` and ``drop_duplicates``.
        classes: their names, where the labels are numbers of them; ``None``: they are the labels, in natural order.
        by_text: whether splits are made by a hash of the text, as where an id is only the number of a line; otherwise
            it is that of the id, unless the texts to be split have copies, which must not be torn apart.
        left_out, guessed: for the account of the data set.

    Raises:
        UserError: too many rows that cannot be used (named), labels that name no classes, fewer than two classes, or
            duplicates that leave nothing.
    """
    guessed = list(guessed)
    numbers = None if classes is None else {str(place) for place in range(len(classes))}
    used, bad = _checked(rows, numbers, guessed)
    unreadable.check_limit(bad, f'of {len(rows):,} rows of {name!r}', options.bad_files_limit, 'used')
    if not used:
        raise UserError(f'there are no texts in {name!r}')
    labels = natural_order(numbers or {row.label for row in used})
    if classes is None:
        _check_classes(name, used, labels)
    classes = classes or labels
    number = {label: place for place, label in enumerate(labels)}
    targets = np.array([number[row.label] for row in used], np.int32)
    ids, values = tuple(row.id for row in used), tuple(row.text for row in used)
    keys = text_account.digests([text_account.normalised(text) for text in values])
    names = np.array([row.split or 'train' for row in used])
    to_split = [key for key, name in zip(keys, names, strict=True) if name == 'train']
    # Copies of a text in two splits would make the test score that of texts which were learned.
    together = len(set(to_split)) < len(to_split) and len(set(names.tolist())) < 3
    splits, how = official_splits(
        targets,
        keys if by_text else ids,
        names,
        groups=keys if together else None,
        what='text' if by_text or together else None,
    )
    how += ', copies of a text together' if together else ''
    if {row.split for row in used} == {'train', 'validation'}:
        guessed.append('there is no test split, so the validation split serves as one')
    splits, repeated = duplicates.within_splits(splits, keys, ids, options.drop_duplicates, 'text', _ALIKE)
    splits, shared = duplicates.across_splits(
        splits, keys, targets, ids, classes, options.drop_duplicates, 'text', _ALIKE
    )
    return Dataset(
        name=name,
        images=Texts(values),
        targets=targets,
        ids=ids,
        classes=tuple(classes),
        splits=splits,
        provenance=f'{source}; {how}' + (f'; {number_of(len(bad), "row")} left out' if bad else ''),
        skipped=tuple(bad),
        account=text_account.account(
            values,
            left_out={**_by_reason(bad), **(left_out or {})},
            guessed=tuple(guessed),
            noticed=(*repeated, *shared, *_noticed(targets, classes)),
        ),
        digests=text_account.digests(values),
    )


def _checked(
    rows: Sequence[Row], known: set[str] | None, guessed: list[str]
) -> tuple[list[_Checked], list[tuple[str, str]]]:
    """The rows that can be used, and why the others cannot.

    Args:
        rows: all.
        known: the labels that there are; ``None``: those of the training texts.
        guessed: gets what was guessed.
    """
    found, bad = [], []
    for row in rows:
        problem = row.problem or _problem_of_text(row.text)
        label, problem_of_label = _label(row.label)
        found.append((_Checked(row.id, row.split, row.text, label), problem, problem_of_label))
    of_training = {row.label for row, problem, _ in found if row.split in ('', 'train') and not problem and row.label}
    if known is not None:
        of_training &= known
    # -1 may be a class, if training texts have it.
    unpublished = {label for label in _UNPUBLISHED if label not in of_training}
    splits = Counter(row.split for row in rows)
    # A broken row says nothing of its label, and a split of broken rows alone is not one without labels.
    labels: dict[str, set[str]] = defaultdict(set)
    for row, (checked, _, problem_of_label) in zip(rows, found, strict=True):
        if not row.problem:
            labels[row.split].add(checked.label if problem_of_label in ('', _NO_LABEL) else problem_of_label)
    hidden = [split for split in ('validation', 'test') if labels[split] and labels[split] <= unpublished]
    guessed += [f'the {split} split has no labels, so it is not used ({splits[split]:,} texts)' for split in hidden]
    used = []
    for row, problem, problem_of_label in found:
        if row.split in hidden:
            continue
        problem = problem or problem_of_label
        if not problem and row.label not in of_training:
            is_training = row.split in ('', 'train')
            problem = f'{row.label!r} is no class' if is_training else f'no training text has the label {row.label!r}'
        if problem:
            bad.append((row.id, problem))
        else:
            used.append(row)
    return used, bad


def _problem_of_text(text: Any) -> str:
    if text is None or (isinstance(text, str) and not text.strip()):
        return 'empty text'
    if not isinstance(text, str):
        return f'its text is {_kind(text)}'
    if len(text) > LONGEST:
        return f'a text of {len(text):,} characters, more than {LONGEST:,}'
    return _half_a_character('text', text)


def _half_a_character(what: str, text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return f'its {what} holds half a character (a lone surrogate)'
    return ''


def _label(value: Any) -> tuple[str, str]:
    """A label as text, and why it is none."""
    if isinstance(value, str):  # nearly all, so they do not wait
        text = value.strip()
        return text, _half_a_character('label', text) if text else _NO_LABEL
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, int | str):
        return str(value), ''
    if value is None:
        return '', _NO_LABEL
    return '', f'its label is {_kind(value)}'


def _kind(value: Any) -> str:
    kinds = {dict: 'an object', list: 'a list', bool: 'a truth value'}
    found = next((what for kind, what in kinds.items() if isinstance(value, kind)), '')
    return found or f'the number {json.dumps(value)}'


def _by_reason(bad: unreadable.BadRecords) -> dict[str, tuple[str, ...]]:
    """Names by reason, for the account."""
    return {why.replace('unreadable, ', 'row, ', 1): names for why, names in unreadable.by_reason(bad).items()}


def natural_order(labels: set[str]) -> tuple[str, ...]:
    """Labels in the order of the alphabet, numbers in them by their value."""

    def key(label: str) -> tuple:
        if re.fullmatch(r'-?[0-9]{1,300}', label):
            return 0, int(label), label
        # Every second part is a number; Python converts no more than a few thousand digits.
        parts = re.split('([0-9]{1,300})', label)
        return 1, [int(part) if place % 2 else part for place, part in enumerate(parts)], label

    return tuple(sorted(labels, key=key))


def _check_classes(name: str, rows: Sequence[_Checked], labels: Sequence[str]) -> None:
    if len(labels) > max(_FEW, _MOST_CLASSES_SHARE * len(rows)):
        raise UserError(
            f'{len(rows):,} texts of {name!r} have {len(labels):,} different labels, such as '
            f'{listed((repr(row.label[:40]) for row in rows), 2)}, which name no classes; choose another config key '
            'label_column'
        )


def _noticed(targets: np.ndarray, classes: Sequence[str]) -> list[str]:
    counts = np.bincount(targets, minlength=len(classes))
    found = []
    if few := [classes[label] for label in np.flatnonzero(counts < 3)]:
        found.append(
            f'{len(few):,} of {len(classes):,} classes with fewer than 3 texts, one for each split ({listed(few)})'
        )
    spellings: dict[str, list[str]] = {}
    for name in classes:
        spellings.setdefault(text_account.normalised(name), []).append(name)
    alike = [names for names in spellings.values() if len(names) > 1]
    found += [f'classes whose names differ in case and spaces only: {", ".join(map(repr, names))}' for names in alike]
    return found
