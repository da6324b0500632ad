"""Images or texts that are there twice, or in two splits: themselves, or another of the same group."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from backbones.errors import UserError
from experiments.data.account import number_of

Splits = Mapping[str, Int[np.ndarray, ' subset']]

# A duplicate is dropped from the first of these that has it, so that what is evaluated stays as it was.
_ORDER = ('train', 'validation', 'test')


def across_splits(
    splits: Splits,
    digests: Sequence[str],
    labels: Int[np.ndarray, ' examples'],
    ids: Sequence[str],
    classes: Sequence[str],
    drop: bool,
    what: str = 'image',
    how: str = 'byte for byte',
) -> tuple[dict[str, Int[np.ndarray, ' subset']], list[str]]:
    """Find images that are in several splits or classes byte for byte, or texts that are so.

    Args:
        splits: split → examples.
        digests: digest of the file of each example, or of its text.
        labels, ids, classes: of the data set.
        drop: whether training images that are also in validation or test, and validation images that are also in test,
            are taken out of their split.
        what: what an example is.
        how: what equal digests mean, in words.

    Returns:
        The splits, and one sentence for each thing that was found.
    """
    found = {name: np.asarray(indices) for name, indices in splits.items()}
    sentences = []
    for place, split in enumerate(_ORDER[:-1]):
        for later in _ORDER[place + 1 :]:
            there = {digests[index]: index for index in splits[later]}
            twice = [index for index in splits[split] if digests[index] in there]
            if not twice:
                continue
            example = f'{ids[twice[0]]} = {ids[there[digests[twice[0]]]]}'
            fate = f'dropped from {split}' if drop else f'kept; --config.drop_duplicates=True drops them from {split}'
            sentences.append(
                f'{number_of(len(twice), what)} of the {split} split also in the {later} split, {how} ({example}): '
                f'{fate}'
            )
            if drop:
                found[split] = found[split][~np.isin(found[split], twice)]
                if len(found[split]) == 0:
                    raise UserError(
                        f'all {what}s of the {split} split are also in the {later} split, {how} ({example}), so '
                        'that none is left with config key drop_duplicates'
                    )
    by_digest: dict[str, set[int]] = defaultdict(set)
    first: dict[str, int] = {}
    for index, digest in enumerate(digests):
        by_digest[digest].add(int(labels[index]))
        first.setdefault(digest, index)
    torn = [digest for digest, members in by_digest.items() if len(members) > 1]
    if torn:
        names = ' and '.join(repr(classes[label]) for label in sorted(by_digest[torn[0]]))
        sentences.append(f'{number_of(len(torn), what)} in several classes ({ids[first[torn[0]]]} in {names})')
    return found, sentences


def within_splits(
    splits: Splits, digests: Sequence[str], ids: Sequence[str], drop: bool, what: str, how: str
) -> tuple[dict[str, Int[np.ndarray, ' subset']], list[str]]:
    """Find examples that are in one split more than once.

    Args:
        splits, digests, ids, what, how: as for ``across_splits``.
        drop: whether all but the first are taken out of the training split; what is evaluated stays as it was.

    Returns:
        The splits, and one sentence for each in which something was found.
    """
    found, sentences = {name: np.asarray(indices) for name, indices in splits.items()}, []
    for split in _ORDER:
        first: dict[str, int] = {}
        again = [index for index in splits[split] if first.setdefault(digests[index], index) != index]
        if not again:
            continue
        example = f'{ids[first[digests[again[0]]]]} = {ids[again[0]]}'
        fate = 'kept, as only training examples are dropped' if drop else 'kept'
        if split == 'train':
            fate = 'dropped' if drop else 'kept; --config.drop_duplicates=True drops them'
        sentences.append(f'{number_of(len(again), f"repeated {what}")} in the {split} split, {how} ({example}): {fate}')
        if drop and split == 'train':
            found[split] = found[split][~np.isin(found[split], again)]
    return found, sentences


def check_groups(groups: Sequence[str], splits: Splits, pattern: str) -> None:
    """Check that no group lies in two splits.

    Raises:
        UserError: one does; the first is named.
    """
    owner: dict[str, str] = {}
    torn: dict[str, tuple[str, str]] = {}
    for split in _ORDER:
        for index in splits[split]:
            before = owner.setdefault(groups[index], split)
            if before != split:
                torn.setdefault(groups[index], (before, split))
    if torn:
        name, (one, other) = next(iter(torn.items()))
        raise UserError(
            f"{len(torn):,} groups of the pattern '{pattern}' (config key group) lie in two splits, such as {name!r} "
            f'in {one} and {other}; move their images to one of them'
        )
