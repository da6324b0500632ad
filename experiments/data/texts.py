"""Texts as the inputs of a data set, and their tokens as what one backbone takes of them."""

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Int, Int32

from backbones.errors import UserError

if TYPE_CHECKING:  # it imports JAX, which commands that only read results do not need
    from backbones.text.tokenising import Tokenising
    from experiments.data.dataset import Dataset

# What the inputs of a data set are, and what a backbone reads.
Inputs = Literal['images', 'texts']


class OtherInputs(UserError):
    """A data set has images where texts are read, or texts where images are."""


class Tokens(NamedTuple):
    """Texts as a backbone takes them.

    Attributes:
        values: one row per text, padded to the bucket of the longest.
        cut: which texts have more than the tokenizer keeps.
    """

    values: Int32[np.ndarray, 'texts length']
    cut: Bool[np.ndarray, ' texts']


class Texts:
    """Strings read by index, where other data sets have ``dataset.Images``.

    Attributes:
        values: one string per example.
        shape: their number alone.
        content: SHA-256 of all of them, in their order.
    """

    def __init__(self, values: Sequence[str]):
        self.values = tuple(values)
        self.shape = (len(self.values),)
        digest = hashlib.sha256()
        for value in self.values:
            encoded = value.encode('utf-8', 'surrogatepass')
            digest.update(len(encoded).to_bytes(8) + encoded)
        self.content = digest.hexdigest()
        # The last tokens that were made: the account and every training of an ablation ask for the same.
        self._tokens: tuple[Tokenising, Tokens] | None = None

    def __getitem__(self, indices: Int[np.ndarray, ' count'], /) -> np.ndarray:
        return np.array([self.values[index] for index in indices], dtype=object)

    def tokens(self, tokenising: 'Tokenising') -> Tokens:
        """The tokens of all texts; those of the last tokenizer and length are kept, and must not be changed.

        Raises:
            UserError: the tokenizer is not known or cannot be read.
        """
        if self._tokens is None or self._tokens[0] != tokenising:
            self._tokens = tokenising, Tokens(*tokenising.encode_and_tell(self.values))
        return self._tokens[1]


def are_texts(dataset: 'Dataset') -> bool:
    """Whether the inputs of a data set are texts."""
    return isinstance(dataset.images, Texts)


def inputs_of(dataset: 'Dataset') -> Inputs:
    """What the inputs of a data set are."""
    return 'texts' if are_texts(dataset) else 'images'


def encoded(dataset: 'Dataset', tokenising: 'Tokenising') -> 'Dataset':
    """The same data set with the tokens of its texts as inputs: ``int32[examples, length]``.

    All rows have the length of the longest text, so that every batch of a training has one shape.

    Raises:
        UserError: the tokenizer is not known or cannot be read.
    """
    texts = dataset.images
    assert isinstance(texts, Texts)
    return dataclasses.replace(dataset, images=texts.tokens(tokenising).values)


def by_length(dataset: 'Dataset') -> tuple['Dataset', Int[np.ndarray, ' examples']]:
    """The examples of an encoded data set from the shortest to the longest, so that batches have little padding.

    Returns:
        The data set, and the place in it of each example of the original.
    """
    from backbones.text.tokenising import PADDING

    tokens = dataset.images
    assert isinstance(tokens, np.ndarray)
    order = np.argsort((tokens != PADDING).sum(1), kind='stable')
    places = np.argsort(order)
    moved = dataclasses.replace(
        dataset,
        images=tokens[order],
        targets=dataset.targets[order],
        ids=tuple(dataset.ids[index] for index in order),
        splits={name: np.sort(places[rows]) for name, rows in dataset.splits.items()},
    )
    return moved, places
