"""The account of texts: how many words they have; and the digests by which a changed text is known."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from experiments.data.account import Account, number_of


def account(
    texts: Sequence[str],
    rules: tuple[str, ...] = (),
    left_out: Mapping[str, tuple[str, ...]] | None = None,
    guessed: tuple[str, ...] = (),
    noticed: tuple[str, ...] = (),
) -> Account:
    """What was met while texts were read.

    Args:
        texts: all that were read.
        rules: what is kept of each, in words.
        left_out, guessed, noticed: as ``Account`` has them.
    """
    return Account(lengths_in_words(texts), {}, '', rules, left_out or {}, guessed, noticed)


def lengths_in_words(texts: Sequence[str]) -> str:
    """The number of texts and their lengths, such as ``'20 texts of 3 to 95 words, median 21'``."""
    words = [len(text.split()) for text in texts]
    if not words:
        return 'no texts'
    shortest, median, longest = min(words), float(np.median(words)), max(words)
    if shortest == longest:
        return f'{number_of(len(words), "text")} of {number_of(shortest, "word")} each'
    return f'{len(words):,} texts of {shortest:,} to {longest:,} words, median {median:,g}'


def digests(texts: Sequence[str]) -> tuple[str, ...]:
    """SHA-256 of each text."""
    return tuple(hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest() for text in texts)


def normalised(text: str) -> str:
    """A text as duplicates are found by: its case and spaces do not count."""
    return ' '.join(text.casefold().split())
