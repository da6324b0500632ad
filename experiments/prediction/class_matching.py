"""Which class of a data set each class of a model is."""

import collections
import difflib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

from backbones.errors import UserError, listed
from backbones.prediction import class_names


def match(
    model: Sequence[str], dataset: Sequence[str], needed: Bool[np.ndarray, ' dataset'] | None = None
) -> Int[np.ndarray, ' model']:
    """The index in the data set of each class of a model; -1 for one that the data set does not have.

    Names are compared without case, spaces and punctuation. Classes of ImageNet are also known by their WordNet ids, as
    ImageNet's own folders are called, and classes of any model by their numbers.

    Args:
        model: names of the model's classes.
        dataset: names of the data set's classes.
        needed: those that there is something of in what is evaluated; others may be none of the model's.

    Raises:
        UserError: a class of the data set that is needed is none of the model's, or all are none, or two are the same
            one.
    """
    if tuple(model) == tuple(dataset):
        return np.arange(len(model), dtype=np.int32)
    known = _unambiguous(model)
    if not set(dataset) <= known.keys():
        # An exact name counts more than one that is alike.
        alike = _unambiguous([_plain(name) for name in model])
        known = {**alike, **known}
        if tuple(model) == class_names.imagenet():
            known |= {name: index for index, name in enumerate(class_names.imagenet_wordnet_ids())}
        if all(name.isdecimal() for name in dataset) and not any(name.isdecimal() for name in model):
            known |= {str(index): index for index in range(len(model))}
    wanted = [name if name in known else _plain(name) for name in dataset]
    places = [place for place, name in enumerate(wanted) if name in known]
    needs = [True] * len(dataset) if needed is None or not places else needed.tolist()
    if missing := [name for place, name in enumerate(dataset) if needs[place] and wanted[place] not in known]:
        near = difflib.get_close_matches(_plain(missing[0]), known, 2)
        hint = f'; the nearest are {listed(list(dict.fromkeys(model[known[name]] for name in near)))}' if near else ''
        raise UserError(
            f'{len(missing)} of the {len(dataset)} classes of the data set '
            f'{"are not classes" if len(missing) > 1 else "is not a class"} of the model: {listed(missing)}'
            f'{hint}. Rename the folders or labels, or evaluate a model that was trained on them'
        )
    indices = [known[wanted[place]] for place in places]
    if twice := [dataset[place] for place, index in zip(places, indices, strict=True) if indices.count(index) > 1]:
        raise UserError(f'the classes {listed(twice)} of the data set would be one class of the model; rename them')
    found = np.full(len(model), -1, np.int32)
    found[indices] = places
    return found


def _unambiguous(names: Sequence[str]) -> dict[str, int]:
    """The index of each name that there is once."""
    counts = collections.Counter(names)
    return {name: index for index, name in enumerate(names) if name and counts[name] == 1}


def _plain(name: str) -> str:
    return ''.join(letter for letter in name.lower() if letter.isalnum())
