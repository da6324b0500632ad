"""Masks before their classes are known: what all of them hold decides which value is which class."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
from jaxtyping import Int, UInt8

from experiments.data.decoding import MaskReader
from experiments.data.truth import IGNORE

# Values below this, all that images of 8 bits hold, are looked up in a table, which is quicker.
_FEW = 256


class InspectedMask(NamedTuple):
    """What reading a mask showed.

    Attributes:
        shape: height and width in pixels.
        counts: value → number of pixels; a colour is a value from ``COLOUR`` on.
        source: of the same mask, which notices if its file changes from now on.
    """

    shape: tuple[int, int]
    counts: Mapping[int, int]
    source: 'MaskSource'


@dataclasses.dataclass(frozen=True)
class LabelTable:
    """The class of each value in masks.

    Attributes:
        classes: their names.
        labels: value → class, or ``IGNORE``; values that are absent are unknown.
        guessed: how it was understood, for the account.
    """

    classes: tuple[str, ...]
    labels: Mapping[int, int]
    guessed: tuple[str, ...] = ()

    def __call__(self, values: Int[np.ndarray, 'h w']) -> UInt8[np.ndarray, 'h w']:
        """The class of every pixel; ``IGNORE`` where the value is unknown."""
        if values.max() < _FEW:
            return np.array([self.labels.get(value, IGNORE) for value in range(_FEW)], np.uint8)[values]
        known = np.array(sorted(self.labels))
        labels = np.array([self.labels[value] for value in known.tolist()], np.uint8)
        place = np.searchsorted(known, values).clip(max=len(known) - 1)
        return np.where(known[place] == values, labels[place], IGNORE).astype(np.uint8)


class MaskSource(Protocol):
    """A mask that can be looked at, and read once the classes are known."""

    def inspect(self) -> InspectedMask:
        """Read its values.

        Raises:
            Exception: whatever decoders raise on a damaged file; a ``UserError`` says what is wrong with another one.
        """
        ...

    def reader(self, table: LabelTable) -> MaskReader:
        """The mask in classes."""
        ...


def counted(values: Int[np.ndarray, 'h w']) -> dict[int, int]:
    """Value → number of pixels."""
    if values.max() < _FEW:
        numbers = np.bincount(values.ravel(), minlength=_FEW)
        return {int(value): int(numbers[value]) for value in np.flatnonzero(numbers)}
    found, numbers = np.unique(values, return_counts=True)
    return dict(zip(found.tolist(), numbers.tolist(), strict=True))
