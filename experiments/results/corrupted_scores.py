"""What is kept of a model's scores for corrupted test examples: which are right, one bit each."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool

# Names of the arrays in a file of scores.
_CONDITIONS, _CORRECT = 'corruptions', 'corrupted_correct'


class CorruptedScores(NamedTuple):
    """The test split with one corruption.

    Attributes:
        score: the primary metric.
        correct: whether the prediction is right.
    """

    score: float
    correct: Bool[np.ndarray, ' examples']


def packed(correct: Mapping[str, Bool[np.ndarray, ' examples']]) -> dict[str, np.ndarray]:
    """Arrays for a file of scores.

    Args:
        correct: corruption and severity, such as ``fog/3`` → whether each prediction is right.
    """
    if not correct:
        return {}
    return {_CONDITIONS: np.array(list(correct)), _CORRECT: np.packbits(np.stack(list(correct.values())), axis=1)}


def unpacked(arrays: Mapping[str, Any], examples: int) -> dict[str, Bool[np.ndarray, ' examples']]:
    """The inverse of ``packed``; empty for a file without these arrays."""
    if _CONDITIONS not in arrays:
        return {}
    bits = np.unpackbits(arrays[_CORRECT], axis=1, count=examples).astype(bool)
    return dict(zip(arrays[_CONDITIONS].tolist(), bits, strict=True))
