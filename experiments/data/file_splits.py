"""The splits of a data set of files: official ones or by a hash, with groups kept together and duplicates found."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from backbones.errors import UserError
from experiments.data import account, duplicates
from experiments.data.options import ReadingOptions
from experiments.data.splits import official_splits, split_by_hash


class FileSplits(NamedTuple):
    """Splits of files.

    Attributes:
        indices: split → sorted indices of its examples.
        how: the sentence that describes them.
        guessed, noticed: for the account of the data set.
    """

    indices: Mapping[str, Int[np.ndarray, ' subset']]
    how: str
    guessed: tuple[str, ...]
    noticed: tuple[str, ...]


def split_files(
    labels: Int[np.ndarray, ' examples'],
    ids: tuple[str, ...],
    names: Sequence[str],
    digests: Sequence[str],
    classes: Sequence[str],
    options: ReadingOptions,
) -> FileSplits:
    """Complete the splits that files are in, or make them.

    Args:
        labels: by which splits are stratified.
        ids: of the examples.
        names: ``'train'``, ``'validation'`` or ``'test'`` for each example; empty for all where none are given.
        digests: SHA-256 of each image.
        classes: names of the labels.
        options: ``group`` and ``drop_duplicates``.

    Raises:
        UserError: groups that lie in two splits, or are too few, or that not all examples have; or duplicates that
            leave nothing.
    """
    groups = _groups(options.group, ids)
    guessed = []
    if any(names):
        splits, how = official_splits(labels, ids, np.array(names), groups=groups)
        if set(names) == {'train', 'validation'}:
            guessed.append('there is no test split, so the validation folder serves as one')
    else:
        splits, how = split_by_hash(labels, ids, groups=groups)
    if groups is not None:
        duplicates.check_groups(groups, splits, options.group)
        _check_enough_groups(options.group, groups, splits)
    splits, noticed = duplicates.across_splits(splits, digests, labels, ids, classes, options.drop_duplicates)
    return FileSplits(splits, how, tuple(guessed), tuple(noticed))


def _groups(pattern: str, ids: Sequence[str]) -> list[str] | None:
    """The group of each image: what the pattern finds in its path (its first group in parentheses if it has one).

    Raises:
        UserError: there are images in whose path it finds nothing.
    """
    if not pattern:
        return None
    found = [re.search(pattern, each) for each in ids]
    without = [each for each, match in zip(ids, found, strict=True) if match is None]
    if without:
        raise UserError(
            f"the pattern '{pattern}' of config key group finds nothing in {len(without):,} of {len(ids):,} paths, "
            f'such as {without[0]!r}; every image must have a group'
        )
    return [match.group(1 if match.re.groups else 0) or '' for match in found if match]


def _check_enough_groups(pattern: str, groups: Sequence[str], splits: Mapping[str, np.ndarray]) -> None:
    empty = [name for name, indices in splits.items() if len(indices) == 0]
    if empty:
        raise UserError(
            f"the pattern '{pattern}' of config key group finds {account.number_of(len(set(groups)), 'group')} in "
            f'{account.number_of(len(groups))}, too few for the {empty[0]} split; a class needs three groups for one '
            'in each split'
        )
