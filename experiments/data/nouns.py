"""What an example is called where people read of it: an image, a text, or an example where there are both."""

from collections.abc import Iterable, Mapping
from typing import Any

_OF_INPUTS = {'images': 'image', 'texts': 'text'}


def of_inputs(inputs: str) -> str:
    """The noun of ``'images'`` or ``'texts'``."""
    return _OF_INPUTS[inputs]


def of_data(data: Mapping[str, Any]) -> str:
    """The noun of the data of a row; rows of versions that knew no texts do not say it, and are of images."""
    return of_inputs(data.get('inputs', 'images'))


def common(nouns: Iterable[str]) -> str:
    """The noun for examples of several data sets; ``'image'`` if there are none."""
    found = {*nouns}
    return 'example' if len(found) > 1 else found.pop() if found else 'image'


def of_lengths(lengths: Iterable[int]) -> str:
    """What follows the noun of texts with these numbers of tokens: ``' of 64 tokens'``; empty for none."""
    found = sorted({*lengths})
    return f' of {" to ".join(map(str, dict.fromkeys((found[0], found[-1]))))} tokens' if found else ''
