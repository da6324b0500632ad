"""Label fractions that a data set is too small for, so that its cells with them are left out."""

import decimal
from collections.abc import Iterable, Mapping

import numpy as np

from experiments.data.dataset import Dataset


def too_small(dataset: Dataset, fractions: Iterable[float]) -> Mapping[float, str]:
    """The fractions that leave a class without a training image; each with a sentence that says what would do."""
    train = dataset.splits['train']
    if dataset.groups is None:
        kind, labels, names = 'class', dataset.targets[train], dataset.classes
    else:
        names = tuple(map(str, range(int(dataset.groups.max()) + 1)))
        kind, labels = 'group', dataset.groups[train]
    counts = np.bincount(labels, minlength=len(names))
    fewest = int(counts.argmin())
    least = int(counts[fewest])
    # As ``Dataset.fraction`` rounds.
    return {
        fraction: (
            f'label fraction {fraction:g} of {dataset.name!r} is left out: the {kind} {names[fewest]!r} has the fewest '
            f'training images, {least}, and keeps none of them; {_smallest(least)}'
        )
        for fraction in dict.fromkeys(fractions)
        if round(fraction * least) == 0
    }


def _smallest(count: int) -> str:
    if not count:
        return 'no fraction works'
    # Exactly half an example would be rounded down to none, so the next number of two digits is taken.
    digits = decimal.Context(prec=2, rounding=decimal.ROUND_DOWN)
    smallest = digits.next_plus(digits.divide(decimal.Decimal('0.5'), count))
    return f'the smallest that works is {smallest} (--config.fractions)'
