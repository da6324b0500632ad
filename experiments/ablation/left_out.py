"""Label fractions and shots that a data set is too small for, so that its cells with them are left out."""

from collections.abc import Iterable, Mapping

import numpy as np

from experiments.data import nouns, texts
from experiments.data.dataset import Dataset
from experiments.data.splits import smallest_fraction


def too_small(dataset: Dataset, fractions: Iterable[float]) -> Mapping[float, str]:
    """The fractions that leave a class without a training image; each with a sentence that says what would do."""
    train = dataset.splits['train']
    labels, names = dataset.strata()
    kind = 'class' if names is dataset.classes else 'group'
    counts = np.bincount(labels[train], minlength=len(names))
    fewest = int(counts.argmin())
    least = int(counts[fewest])
    remedy = 'no fraction works'
    if least:
        remedy = f'the smallest that works is {smallest_fraction(least)} (--config.fractions)'
    noun = nouns.of_inputs(texts.inputs_of(dataset))
    who = f'the {kind} {names[fewest]!r} has the fewest training {noun}s, {least}, and'
    if dataset.truth is not None and dataset.groups is None:  # images of dense tasks are all of one stratum
        who = f'it has {least:,} training {noun}s, and'
    # As ``Dataset.fraction`` rounds.
    return {
        fraction: (f'label fraction {fraction:g} of {dataset.name!r} is left out: {who} keeps none of them; {remedy}')
        for fraction in dict.fromkeys(fractions)
        if round(fraction * least) == 0
    }


def too_few(dataset: Dataset, shots: Iterable[int]) -> Mapping[int, str]:
    """The numbers of shots that a class has fewer training images than; each with a sentence that names the class."""
    counts = np.bincount(dataset.targets[dataset.splits['train']], minlength=len(dataset.classes))
    fewest = int(counts.argmin())
    return {
        number: (
            f'{number} shots of {dataset.name!r} are left out: the class {dataset.classes[fewest]!r} has only '
            f'{counts[fewest]} training {nouns.of_inputs(texts.inputs_of(dataset))}s (--config.shots)'
        )
        for number in dict.fromkeys(shots)
        if number > counts[fewest]
    }
