"""Which class of a data set each class of a model is."""

import difflib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from backbones.errors import UserError, listed
from backbones.prediction import class_names


def match(model: Sequence[str], dataset: Sequence[str]) -> Int[np.ndarray, ' model']:
    """The index in the data set of each class of a model; -1 for one that the data set does not have.

    Names are compared without case, spaces and punctuation. Classes of ImageNet are also known by their WordNet ids, as
    ImageNet's own folders are called, and classes of any model by their numbers.

    Args:
        model: names of the model's classes.
        dataset: names of the data set's classes.

    Raises:
        UserError: a class of the data set is none of the model's.
    """
    known: dict[str, int] = {}
    spellings = [list(map(_plain, model))]
    if tuple(model) == class_names.imagenet():
        spellings.append(list(class_names.imagenet_wordnet_ids()))
    if all(name.isdecimal() for name in dataset):
        spellings.append(list(map(str, range(len(model)))))
    for names in spellings:
        for index, name in enumerate(names):
            known.setdefault(name, index)
    wanted = [_plain(name) for name in dataset]
    if missing := [name for name, plain in zip(dataset, wanted, strict=True) if plain not in known]:
        near = difflib.get_close_matches(_plain(missing[0]), known, 2)
        hint = f'; the nearest are {listed([model[known[name]] for name in near])}' if near else ''
        raise UserError(
            f'{len(missing)} of the {len(dataset)} classes of the data set are not classes of the model: '
            f'{listed(missing)}{hint}. Rename the folders or labels, or evaluate a model that was trained on them'
        )
    found = np.full(len(model), -1, np.int32)
    found[[known[name] for name in wanted]] = np.arange(len(dataset))
    return found


def _plain(name: str) -> str:
    return ''.join(letter for letter in name.lower() if letter.isalnum())
