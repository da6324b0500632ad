"""Deterministic, stratified, disjoint splits."""

import decimal
import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from backbones.errors import UserError
from experiments.data.sampling import check_seed

VALIDATION_SHARE = 0.1
TEST_SHARE = 0.2


def hash_order(ids: tuple[str, ...], seed: int) -> Int[np.ndarray, ' examples']:
    """Indices ordered by a hash of seed and id, so that adding or removing an example hardly changes the order."""
    keys = [hashlib.sha256(f'{seed}:{example}'.encode()).digest() for example in ids]
    return np.array(sorted(range(len(ids)), key=keys.__getitem__), np.int64)


def stratified_shares(
    labels: Int[np.ndarray, ' examples'], ids: tuple[str, ...], shares: Mapping[str, float], rest: str, seed: int
) -> dict[str, Int[np.ndarray, ' subset']]:
    """Distribute the examples of every class over shares, in the order of their hash.

    Args:
        shares: name → share of each class, rounded to whole examples, but at least one example of a class that has
            enough for one in each share and one that remains; where it has fewer, the first shares come first.
        rest: name of the remainder.
        seed: part of the hash.
    """
    order = hash_order(ids, seed)
    parts: dict[str, list[np.ndarray]] = {name: [] for name in (*shares, rest)}
    for label in np.unique(labels):
        members = order[labels[order] == label]
        start = 0
        for name, share in shares.items():
            count = min(max(round(share * len(members)), int(share > 0)), len(members) - start - 1)
            parts[name].append(members[start : start + count])
            start += count
        parts[rest].append(members[start:])
    return {name: np.sort(np.concatenate([order[:0], *arrays])) for name, arrays in parts.items()}


def grouped_shares(
    labels: Int[np.ndarray, ' examples'], groups: Sequence[str], shares: Mapping[str, float], rest: str, seed: int
) -> dict[str, Int[np.ndarray, ' subset']]:
    """Distribute whole groups over shares, in the order of their hash, so that no group is in two of them.

    A group goes to the first share that it brings closer to its share of the group's most frequent class; one group of
    every class remains, so a class of one group is only in the remainder.

    Args:
        groups: the group of each example.
        shares, rest, seed: as for ``stratified_shares``.
    """
    names, number = np.unique(np.array(groups, object).astype(str), return_inverse=True)
    classes = int(labels.max()) + 1 if len(labels) else 0
    table = np.zeros((len(names), classes), int)
    np.add.at(table, (number, labels), 1)
    main = table.argmax(1)
    totals, waiting = table.sum(0), np.bincount(main, minlength=classes)
    assigned = {name: np.zeros(classes, int) for name in shares}
    place = np.full(len(names), rest, object)
    for group in hash_order(tuple(names.tolist()), seed):
        label, size = main[group], table[group, main[group]]
        for name, share in shares.items():
            wanted, have = max(share * totals[label], 1), assigned[name][label]
            closer = abs(wanted - have - size) < abs(wanted - have)
            first = have == 0 and 2 * size <= totals[label]  # too large, but better than none
            if waiting[label] > 1 and (closer or first):
                place[group] = name
                assigned[name] += table[group]
                waiting[label] -= 1
                break
    return {name: np.flatnonzero(place[number] == name) for name in (*shares, rest)}


def _shares(
    labels: Int[np.ndarray, ' examples'],
    ids: tuple[str, ...],
    shares: Mapping[str, float],
    seed: int,
    groups: Sequence[str] | None,
) -> dict[str, Int[np.ndarray, ' subset']]:
    if groups is None:
        return stratified_shares(labels, ids, shares, 'train', seed)
    return grouped_shares(labels, groups, shares, 'train', seed)


def _by(groups: Sequence[str] | None, what: str | None, ids: str) -> str:
    if what is None:
        what = ids if groups is None else f'group ({len(set(groups)):,} groups)'
    return f'a hash of the {what}'


def split_by_hash(
    labels: Int[np.ndarray, ' examples'],
    ids: tuple[str, ...],
    seed: int = 0,
    groups: Sequence[str] | None = None,
    what: str | None = None,
) -> tuple[dict[str, Int[np.ndarray, ' subset']], str]:
    """Splits for data without an official test split, and the sentence that describes them.

    Args:
        groups: the group of each example, if groups must not be split up.
        what: what is hashed, in words: the groups, or without them the ids; ``None``: groups, or ids.
    """
    shares = {'test': TEST_SHARE, 'validation': VALIDATION_SHARE}
    by = _by(groups, what, 'example id')
    how = f'split by {by}, stratified: {TEST_SHARE:.0%} test, {VALIDATION_SHARE:.0%} validation'
    return _shares(labels, ids, shares, seed, groups), how


def split_off_validation(
    labels: Int[np.ndarray, ' examples'],
    ids: tuple[str, ...],
    test: np.ndarray,
    seed: int = 0,
    groups: Sequence[str] | None = None,
    what: str | None = None,
) -> tuple[dict[str, Int[np.ndarray, ' subset']], str]:
    """Splits for data with an official test split: validation is taken from the training examples.

    Args:
        test: ``bool[examples]``, true for examples of the official test split.
        groups: the group of each example, if groups must not be split up.
        what: what is hashed, in words: the groups, or without them the ids; ``None``: groups, or ids.
    """
    training = np.flatnonzero(~test)
    parts = _shares(
        labels[training],
        tuple(ids[index] for index in training),
        {'validation': VALIDATION_SHARE},
        seed,
        None if groups is None else [groups[index] for index in training],
    )
    splits = {name: training[indices] for name, indices in parts.items()}
    by = _by(groups, what, 'id')
    how = f'official test split; validation is {VALIDATION_SHARE:.0%} of the training split by {by}'
    return {**splits, 'test': np.flatnonzero(test)}, how


def official_splits(
    labels: Int[np.ndarray, ' examples'],
    ids: tuple[str, ...],
    names: np.ndarray,
    seed: int = 0,
    groups: Sequence[str] | None = None,
    what: str | None = None,
) -> tuple[dict[str, Int[np.ndarray, ' subset']], str]:
    """The official splits, completed where one is missing.

    A validation split without a test split serves as the test split, as is usual for data whose test labels are not
    published; the validation split is then taken from the training examples.

    Args:
        names: ``str[examples]``: the split of each example, ``'train'``, ``'validation'`` or ``'test'``.
        groups: the group of each example, if groups must not be split up where a split is completed.
        what: what is hashed, in words: the groups, or without them the ids; ``None``: groups, or ids.
    """
    present = set(names.tolist())
    if present == {'train', 'validation', 'test'}:
        return {name: np.flatnonzero(names == name) for name in sorted(present)}, 'official splits'
    if present == {'train'}:
        return split_by_hash(labels, ids, seed, groups, what)
    return split_off_validation(labels, ids, names != 'train', seed, groups, what)


def smallest_fraction(count: int) -> decimal.Decimal:
    """The smallest label fraction of two digits that leaves one of ``count`` training examples."""
    # Exactly half an example would be rounded down to none, so the next number of two digits is taken.
    digits = decimal.Context(prec=2, rounding=decimal.ROUND_DOWN)
    return digits.next_plus(digits.divide(decimal.Decimal('0.5'), count))


def shots_of_classes(
    labels: Int[np.ndarray, ' examples'], indices: Int[np.ndarray, ' subset'], shots: int, seed: int, classes: int
) -> Int[np.ndarray, ' chosen']:
    """As many of ``indices`` of each class, drawn at random; those of one seed are nested, also in its fractions.

    Raises:
        UserError: a class has fewer, or no such number or seed.
    """
    check_seed(seed)
    if shots < 1:
        raise UserError(f'shots are training examples per class, at least 1, not {shots}')
    shuffled = np.random.Generator(np.random.Philox(key=seed)).permutation(indices)
    members = [shuffled[labels[shuffled] == label] for label in range(classes)]
    fewest = min(range(classes), key=lambda label: len(members[label]))
    if len(members[fewest]) < shots:
        raise UserError(
            f'{shots} shots are more than the {len(members[fewest])} training examples of class {fewest} (of {classes})'
        )
    return np.sort(np.concatenate([each[:shots] for each in members]))


def stratified_fraction(
    labels: Int[np.ndarray, ' examples'], indices: Int[np.ndarray, ' subset'], fraction: float, seed: int, classes: int
) -> Int[np.ndarray, ' chosen']:
    """A random, class-stratified share of ``indices``; the shares of one seed are nested.

    Raises:
        UserError: a class is left without a training example, or no such fraction or seed.
    """
    check_seed(seed)
    if not 0 < fraction <= 1:
        raise UserError(f'a label fraction must lie in (0, 1], not {fraction}')
    generator = np.random.Generator(np.random.Philox(key=seed))
    shuffled = generator.permutation(indices)
    chosen, empty = [], []
    for label in range(classes):
        members = shuffled[labels[shuffled] == label]
        count = round(fraction * len(members))
        if count == 0:
            empty.append((label, len(members)))
        chosen.append(members[:count])
    if empty:
        label, available = min(empty, key=lambda each: each[1])
        if available:
            needed = (
                f'the smallest that works is {smallest_fraction(available)} '
                '(--config.fractions of an ablation, fraction of a training)'
            )
        else:
            needed = 'the class has none at all'
        if classes == 1:
            raise UserError(f'label fraction {fraction} of {available:,} training examples leaves none; {needed}')
        raise UserError(
            f'label fraction {fraction} leaves {len(empty)} of {classes} classes without a training example '
            f'(class {label} has {available}); {needed}'
        )
    return np.sort(np.concatenate(chosen))
